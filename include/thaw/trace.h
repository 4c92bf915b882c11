/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A trace: what a workload touched, in the order of first touch. Recorded by a
 * worker, read by the process that started it: it lies in memory that both
 * share. Recording takes no lock; what does not fit is counted and dropped.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"

#define THAW_PAGE_SIZE 4096u

enum thaw_trace_kind {
	THAW_TRACE_READ = 1,   /* ino: file; pages [first, first + count) */
	THAW_TRACE_LIST = 2,   /* ino: directory */
	THAW_TRACE_FOUND = 3,  /* ino: directory; name was looked up and exists */
	THAW_TRACE_MISSED = 4, /* ino: directory; name was looked up in vain */
	THAW_TRACE_LINK = 5,   /* ino: symlink that was read */
};

struct thaw_trace_event {
	enum thaw_trace_kind kind;
	uint32_t ino;
	uint32_t first, count; /* READ */
	const char *name;      /* FOUND, MISSED: not terminated */
	size_t name_len;
};

struct thaw_trace;

/* Room for max_events (memory is used as it fills). NULL when there is none. */
struct thaw_trace *thaw_trace_new(uint32_t max_events);
struct thaw_trace *thaw_trace_free(struct thaw_trace *trace);

/* From any thread of any process that shares the trace. */
void thaw_trace_add_read(struct thaw_trace *trace, uint32_t ino, uint64_t offset,
			 uint64_t len);
void thaw_trace_add(struct thaw_trace *trace, enum thaw_trace_kind kind, uint32_t ino,
		    const char *name, size_t name_len);

/* Record no more, in whatever process. */
void thaw_trace_end(struct thaw_trace *trace);

/* Once recording has ended: events [0, count). */
uint32_t thaw_trace_count(const struct thaw_trace *trace);
uint64_t thaw_trace_dropped(const struct thaw_trace *trace);
/* False for a slot that its recorder died over. */
bool thaw_trace_get(const struct thaw_trace *trace, uint32_t number,
		    struct thaw_trace_event *ret_event);
