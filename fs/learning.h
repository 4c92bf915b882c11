/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Learning in passing: what the first workload on a mount touches is recorded by the
 * worker, and written by the keeper, as a file (thaw/learned.h) in a directory that it
 * was given. Ordinary readahead, bounded memory. It is over when enough was recorded
 * and nothing more comes, when there is no more room, after some minutes, or with the
 * mount; the file is there only then. Its failure is nobody's failure.
 */
#include <stdint.h>

#include "counters.h"
#include "thaw/trace.h"

/* Names in the directory: what was learned before, and what is being learned. */
#define THAW_LEARNED_BEFORE "learned"
#define THAW_LEARNED_NOW    "trace"

struct thaw_serving;

struct thaw_learning {
	struct thaw_serving *serving;
	struct thaw_counters *counters;
	struct thaw_trace *trace; /* NULL: not, or not any more */
	char directory[4096];
	uint32_t seen;	/* events looked at, ... */
	uint32_t reads; /* ... how many of them are reads */
	uint64_t changed, until,
		next; /* ms; of the last event, of the end, of the next look */
};

/* Begin; serving is borrowed, and shared. Without memory it is over at once. */
void thaw_learning_begin(struct thaw_learning *learning, struct thaw_serving *serving,
			 const char *directory, uint64_t now_ms);
/* Is it over? learning may be NULL in these. */
void thaw_learning_look(struct thaw_learning *learning, uint64_t now_ms);
/* When to look next, in ms; 0: never. */
uint64_t thaw_learning_next(const struct thaw_learning *learning);
/*
 * It is over: write what there is, once. A confined process does it, which is waited for,
 * for a while.
 */
void thaw_learning_end(struct thaw_learning *learning);
