/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Is there memory to spare? Warming fills the page cache on a guess, so it stops
 * where that would push out something: on a machine or in a cgroup that is short
 * of memory.
 */
#include <stdbool.h>
#include <stdint.h>

struct thaw_memory {
	uint64_t pushed; /* bytes that were announced so far */
	uint64_t limit;	 /* of our cgroup, the lowest up to the root; 0: none */
};

#define THAW_MEMORY_CEILING (1ull << 30) /* bytes that are pushed at most */

void thaw_memory_open(struct thaw_memory *memory);
/*
 * Account for bytes more; true when it should end there. Tight is: less than an
 * eighth of the machine's memory available; some task stalled for memory for
 * more than a tenth of the last ten seconds; pushed more than a quarter of the
 * cgroup's limit, or the ceiling. What cannot be read counts as in order.
 */
bool thaw_memory_tight(struct thaw_memory *memory, uint64_t bytes);
