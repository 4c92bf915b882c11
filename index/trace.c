/* SPDX-License-Identifier: Apache-2.0 */
/* Recording what is touched, without locks, in shared memory. */
#include "thaw/trace.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define NAME_BYTES_PER_EVENT 32u /* most events have no name */

struct slot {
	_Atomic uint32_t kind; /* set last: 0 means not (yet) written */
	uint32_t ino;
	uint32_t a; /* READ: first page; names: offset in names */
	uint32_t b; /* READ: pages; names: bytes */
};

struct thaw_trace {
	uint32_t max_events, max_names;
	_Atomic uint32_t used;	     /* slots handed out; may pass max_events */
	_Atomic uint32_t names_used; /* likewise */
	_Atomic uint64_t dropped;
	size_t mapped;
	struct slot slots[];
};

static char *names_of(const struct thaw_trace *trace)
{
	return (char *)&trace->slots[trace->max_events];
}

struct thaw_trace *thaw_trace_new(uint32_t max_events)
{
	uint32_t max_names = max_events <= UINT32_MAX / NAME_BYTES_PER_EVENT
				     ? max_events * NAME_BYTES_PER_EVENT
				     : UINT32_MAX;
	size_t size = sizeof(struct thaw_trace) +
		      (size_t)max_events * sizeof(struct slot) + max_names;
	struct thaw_trace *trace = mmap(NULL, size, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
					0);

	if (trace == MAP_FAILED)
		return NULL;
	trace->max_events = max_events;
	trace->max_names = max_names;
	trace->mapped = size;
	return trace;
}

struct thaw_trace *thaw_trace_free(struct thaw_trace *trace)
{
	if (trace)
		(void)munmap(trace, trace->mapped); /* a whole mapping: cannot fail */
	return NULL;
}

static struct slot *take_slot(struct thaw_trace *trace)
{
	uint32_t number = atomic_load(&trace->used);

	do {
		if (number >= trace->max_events) {
			atomic_fetch_add(&trace->dropped, 1);
			return NULL;
		}
	} while (!atomic_compare_exchange_weak(&trace->used, &number, number + 1));
	return &trace->slots[number];
}

void thaw_trace_add_read(struct thaw_trace *trace, uint32_t ino, uint64_t offset,
			 uint64_t len)
{
	uint64_t first = offset / THAW_PAGE_SIZE;
	uint64_t end = (offset + len + THAW_PAGE_SIZE - 1) / THAW_PAGE_SIZE;
	struct slot *slot;

	/* Page numbers of 32 bits reach to 16 TiB into a file. */
	if (len == 0 || end > UINT32_MAX)
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

	if (name_len > 0) {
		offset = atomic_load(&trace->names_used);
		do {
			if (name_len > trace->max_names - offset) {
				atomic_fetch_add(&trace->dropped, 1);
				return;
			}
		} while (!atomic_compare_exchange_weak(&trace->names_used, &offset,
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
	return atomic_load(&trace->used);
}

uint64_t thaw_trace_dropped(const struct thaw_trace *trace)
{
	return atomic_load(&trace->dropped);
}

bool thaw_trace_get(const struct thaw_trace *trace, uint32_t number,
		    struct thaw_trace_event *ret_event)
{
	const struct slot *slot = &trace->slots[number];
	uint32_t kind = atomic_load_explicit(&slot->kind, memory_order_acquire);

	if (kind < THAW_TRACE_READ || kind > THAW_TRACE_LINK)
		return false;
	*ret_event = (struct thaw_trace_event){ .kind = kind, .ino = slot->ino };
	if (kind == THAW_TRACE_READ) {
		ret_event->first = slot->a;
		ret_event->count = slot->b;
	} else {
		/* The worker parses hostile bytes: what it leaves behind is not trusted. */
		if (slot->a > trace->max_names || slot->b > trace->max_names - slot->a)
			return false;
		ret_event->name = names_of(trace) + slot->a;
		ret_event->name_len = slot->b;
	}
	return true;
}
