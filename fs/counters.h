/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What is counted while an image is mounted, in memory that workers
 * share with keeper and warmer. Counters are atomic and unordered: nobody decides by them.
 */
#include <stdatomic.h>
#include <stdint.h>

#include "thaw/stat.h"

typedef _Atomic uint64_t thaw_counter;

struct thaw_counters {
	thaw_counter requests[THAW_STAT_OPCODES];
	thaw_counter latency[THAW_STAT_LATENCIES];
	thaw_counter bytes_read;
	thaw_counter warm_pages;
	thaw_counter warm_pages_total;
	thaw_counter warm_pages_read;
	thaw_counter warm_overtaken;
	_Atomic uint32_t warm_state; /* enum thaw_warm_state */
	_Atomic uint32_t warm_source; /* enum thaw_warm_source */
	/* Operations of the warm set that the warmer has finished: read by the worker. */
	_Atomic uint32_t warm_done;
};

static inline void count_add(thaw_counter *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}
