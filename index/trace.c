/* SPDX-License-Identifier: Apache-2.0 */
/* Recording what is touched, without locks, in shared memory. */
#include "thaw/trace.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NAME_BYTES_PER_EVENT 32u /* most events have no name */

struct slot {
	_Atomic uint32_t kind; /* set last: 0 means not (yet) written */
	uint32_t ino;
	uint32_t a; /* READ: first page; names: offset in names */
	uint32_t b; /* READ: pages; names: bytes */
};

/* What is shared. A recorder that was taken over may have written anything into it. */
struct shared {
	_Atomic uint32_t used; /* slots handed out */
	_Atomic uint32_t names_used;
	_Atomic uint64_t dropped;
	_Atomic uint32_t ended; /* see thaw_trace_end() */
	struct slot slots[];
};

/* What each process has for itself: bounds that nobody else can move. */
struct thaw_trace {
	uint32_t max_events, max_names;
	size_t mapped;
	struct shared *shared;
};

static char *names_of(const struct thaw_trace *trace)
{
	return (char *)&trace->shared->slots[trace->max_events];
}

struct thaw_trace *thaw_trace_new(uint32_t max_events)
{
	struct thaw_trace *trace = calloc(1, sizeof(*trace));

	if (!trace)
		return NULL;
	trace->max_events = max_events;
	trace->max_names = max_events <= UINT32_MAX / NAME_BYTES_PER_EVENT
				   ? max_events * NAME_BYTES_PER_EVENT
				   : UINT32_MAX;
	trace->mapped = sizeof(struct shared) + (size_t)max_events * sizeof(struct slot) +
			trace->max_names;
	trace->shared = mmap(NULL, trace->mapped, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (trace->shared == MAP_FAILED) {
		free(trace);
		return NULL;
	}
	return trace;
}

struct thaw_trace *thaw_trace_free(struct thaw_trace *trace)
{
	if (trace)
		(void)munmap(trace->shared, trace->mapped); /* a whole mapping: cannot fail */
	free(trace);
	return NULL;
}

void thaw_trace_end(struct thaw_trace *trace)
{
	atomic_store(&trace->shared->ended, 1);
}

static bool has_ended(const struct thaw_trace *trace)
{
	return atomic_load_explicit(&trace->shared->ended, memory_order_relaxed) != 0;
}

static struct slot *take_slot(struct thaw_trace *trace)
{
	uint32_t number = atomic_load(&trace->shared->used);

	do {
		if (number >= trace->max_events) {
			atomic_fetch_add(&trace->shared->dropped, 1);
			return NULL;
		}
	} while (!atomic_compare_exchange_weak(&trace->shared->used, &number, number + 1));
	return &trace->shared->slots[number];
}

void thaw_trace_add_read(struct thaw_trace *trace, uint32_t ino, uint64_t offset,
			 uint64_t len)
{
	uint64_t first = offset / THAW_PAGE_SIZE;
	uint64_t end = (offset + len + THAW_PAGE_SIZE - 1) / THAW_PAGE_SIZE;
	struct slot *slot;

	/* Page numbers of 32 bits reach to 16 TiB into a file. */
	if (len == 0 || end > UINT32_MAX || has_ended(trace))
		return;
	slot = take_slot(trace);
	if (!slot)
		return;
	slot->ino = ino;
	slot->a = (uint32_t)first;
	slot->b = (uint32_t)(end - first);
	atomic_store_explicit(&slot->kind, THAW_TRACE_READ, memory_order_release);
}

void thaw_trace_add(struct thaw_trace *trace, enum thaw_trace_kind kind, uint32_t ino,
		    const char *name, size_t name_len)
{
	uint32_t offset = 0;
	struct slot *slot;

	if (has_ended(trace))
		return;
	if (name_len > 0) {
		offset = atomic_load(&trace->shared->names_used);
		do {
			if (name_len > trace->max_names - offset) {
				atomic_fetch_add(&trace->shared->dropped, 1);
				return;
			}
		} while (!atomic_compare_exchange_weak(&trace->shared->names_used, &offset,
						       offset + (uint32_t)name_len));
		memcpy(names_of(trace) + offset, name, name_len);
	}
	slot = take_slot(trace);
	if (!slot)
		return;
	slot->ino = ino;
	slot->a = offset;
	slot->b = (uint32_t)name_len;
	atomic_store_explicit(&slot->kind, (uint32_t)kind, memory_order_release);
}

uint32_t thaw_trace_count(const struct thaw_trace *trace)
{
	uint32_t used = atomic_load(&trace->shared->used);

	return used < trace->max_events ? used : trace->max_events;
}

uint64_t thaw_trace_dropped(const struct thaw_trace *trace)
{
	return atomic_load(&trace->shared->dropped);
}

bool thaw_trace_get(const struct thaw_trace *trace, uint32_t number,
		    struct thaw_trace_event *ret_event)
{
	const struct slot *slot = &trace->shared->slots[number];
	uint32_t kind = atomic_load_explicit(&slot->kind, memory_order_acquire);
	/* The worker parses hostile bytes and may live on: read once, then check. */
	uint32_t a = *(const volatile uint32_t *)&slot->a;
	uint32_t b = *(const volatile uint32_t *)&slot->b;

	if (kind < THAW_TRACE_READ || kind > THAW_TRACE_LINK)
		return false;
	*ret_event = (struct thaw_trace_event){ .kind = kind, .ino = slot->ino };
	if (kind == THAW_TRACE_READ) {
		ret_event->first = a;
		ret_event->count = b;
		return true;
	}
	if (a > trace->max_names || b > trace->max_names - a)
		return false;
	ret_event->name = names_of(trace) + a;
	ret_event->name_len = b;
	return true;
}
