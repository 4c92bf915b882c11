/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A timeline: when the kernel asked for what, when warm pages were pushed and
 * frames decompressed. Recorded by a worker and its warmer, read by the process
 * that started them: like a trace it lies in memory that all share, is bounded,
 * and recording takes no lock. What does not fit is counted and dropped.
 */
#include <stdbool.h>
#include <stdint.h>

enum thaw_timeline_kind {
	THAW_TIMELINE_REQUEST =
		1, /* opcode, ino; reads, and only they: first, bytes asked for */
	THAW_TIMELINE_PUSH = 2,	      /* by the warmer: ino, first, bytes */
	THAW_TIMELINE_FRAME = 3,      /* decompressed for a request: bytes */
	THAW_TIMELINE_WARM_FRAME = 4, /* decompressed by the warmer: bytes */
};

struct thaw_timeline_event {
	uint64_t began; /* CLOCK_MONOTONIC, microseconds */
	uint32_t took;	/* microseconds; requests: from reading it to its answer */
	enum thaw_timeline_kind kind;
	uint16_t opcode; /* of linux/fuse.h */
	bool by_warmer;	 /* REQUEST: made by the warmer, not by who uses the mount */
	uint32_t ino;
	uint32_t first; /* page of ino */
	uint32_t bytes;
};

struct thaw_timeline;

/* Room for max_events (memory is used as it fills). NULL when there is none. */
struct thaw_timeline *thaw_timeline_new(uint32_t max_events);
struct thaw_timeline *thaw_timeline_free(struct thaw_timeline *timeline);

/* The clock of events. */
uint64_t thaw_timeline_now(void);
/* From any thread of any process that shares the timeline; took is until now. */
void thaw_timeline_add(struct thaw_timeline *timeline,
		       const struct thaw_timeline_event *event);
/* Requests of this process are the warmer's. */
void thaw_timeline_set_warmer(struct thaw_timeline *timeline, uint32_t pid);
bool thaw_timeline_is_warmer(const struct thaw_timeline *timeline, uint32_t pid);

/* Events [0, count), in the order in which they ended. */
uint32_t thaw_timeline_count(const struct thaw_timeline *timeline);
uint64_t thaw_timeline_dropped(const struct thaw_timeline *timeline);
/* False for a slot that its recorder died over. */
bool thaw_timeline_get(const struct thaw_timeline *timeline, uint32_t number,
		       struct thaw_timeline_event *ret_event);
