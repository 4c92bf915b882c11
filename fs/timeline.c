/* SPDX-License-Identifier: Apache-2.0 */
/* Recording when things happened, without locks, in shared memory. */
#include "thaw/timeline.h"

#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <time.h>

struct slot {
	_Atomic uint32_t kind; /* set last: 0 means not (yet) written */
	uint16_t opcode;
	uint16_t by_warmer;
	uint64_t began;
	uint32_t took, ino, first, bytes;
};

struct thaw_timeline {
	uint32_t max_events;
	_Atomic uint32_t used;	 /* slots handed out */
	_Atomic uint32_t warmer; /* pid */
	_Atomic uint64_t dropped;
	size_t mapped;
	struct slot slots[];
};

struct thaw_timeline *thaw_timeline_new(uint32_t max_events)
{
	size_t size = sizeof(struct thaw_timeline) +
		      (size_t)max_events * sizeof(struct slot);
	struct thaw_timeline *timeline = mmap(NULL, size, PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
					      -1, 0);

	if (timeline == MAP_FAILED)
		return NULL;
	timeline->max_events = max_events;
	timeline->mapped = size;
	return timeline;
}

struct thaw_timeline *thaw_timeline_free(struct thaw_timeline *timeline)
{
	if (timeline)
		(void)munmap(timeline,
			     timeline->mapped); /* a whole mapping: cannot fail */
	return NULL;
}

uint64_t thaw_timeline_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail */
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void thaw_timeline_add(struct thaw_timeline *timeline,
		       const struct thaw_timeline_event *event)
{
	uint64_t took = thaw_timeline_now() - event->began;
	uint32_t number = atomic_load(&timeline->used);
	struct slot *slot;

	do {
		if (number >= timeline->max_events) {
			atomic_fetch_add(&timeline->dropped, 1);
			return;
		}
	} while (!atomic_compare_exchange_weak(&timeline->used, &number, number + 1));
	slot = &timeline->slots[number];
	slot->opcode = event->opcode;
	slot->by_warmer = event->by_warmer;
	slot->began = event->began;
	slot->took = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
	slot->ino = event->ino;
	slot->first = event->first;
	slot->bytes = event->bytes;
	atomic_store_explicit(&slot->kind, (uint32_t)event->kind, memory_order_release);
}

void thaw_timeline_set_warmer(struct thaw_timeline *timeline, uint32_t pid)
{
	atomic_store(&timeline->warmer, pid);
}

bool thaw_timeline_is_warmer(const struct thaw_timeline *timeline, uint32_t pid)
{
	return pid != 0 && atomic_load(&timeline->warmer) == pid;
}

uint32_t thaw_timeline_count(const struct thaw_timeline *timeline)
{
	return atomic_load(&timeline->used);
}

uint64_t thaw_timeline_dropped(const struct thaw_timeline *timeline)
{
	return atomic_load(&timeline->dropped);
}

bool thaw_timeline_get(const struct thaw_timeline *timeline, uint32_t number,
		       struct thaw_timeline_event *ret_event)
{
	const struct slot *slot = &timeline->slots[number];
	uint32_t kind = atomic_load_explicit(&slot->kind, memory_order_acquire);

	if (kind < THAW_TIMELINE_REQUEST || kind > THAW_TIMELINE_WARM_FRAME)
		return false;
	*ret_event = (struct thaw_timeline_event){
		.began = slot->began,
		.took = slot->took,
		.kind = kind,
		.opcode = slot->opcode,
		.by_warmer = slot->by_warmer,
		.ino = slot->ino,
		.first = slot->first,
		.bytes = slot->bytes,
	};
	return true;
}
