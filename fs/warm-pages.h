/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The warm sets in use on a mount: chosen and opened before it is served, and
 * looked at by its worker to tell reads that the warmer should have spared.
 */
#include "counters.h"
#include "thaw/warm.h"

struct thaw_warm_pages {
	unsigned count;
	struct thaw_warm *sets[THAW_PARTS_MAX];
	struct thaw_warm_info infos[THAW_PARTS_MAX];
	uint64_t pages;
	/* Runs of pages by (inode, first page); op counts through all sets. */
	struct thaw_warm_run {
		uint32_t ino, first, count, op;
	} *runs;
	uint32_t run_count;
	bool borrowed; /* runs are somebody else's memory */
};

/*
 * choice: "all" (also NULL), "none", or a set's name. A set that is damaged is
 * left out and logged under image_name: warming is a hint. Class usage when a
 * named set does not exist.
 */
_must_check_ int thaw_warm_pages_init(struct thaw_warm_pages *warm, const struct thaw_image *image,
				      const char *image_name, const char *choice,
				      struct thaw_error *err);
/* One more set, taken: that of a learned trace. -ENOMEM leaves all as it was, and frees it. */
_must_check_ int thaw_warm_pages_add(struct thaw_warm_pages *warm, struct thaw_warm *set);
/* For other processes: see thaw_warm_share(). */
_must_check_ int thaw_warm_pages_share(const struct thaw_warm_pages *warm, int fd,
				       struct thaw_error *err);
_must_check_ int thaw_warm_pages_open_shared(struct thaw_warm_pages *warm,
					     const struct thaw_image *image, const void *data,
					     size_t size, struct thaw_error *err);
void thaw_warm_pages_deinit(struct thaw_warm_pages *warm);

/* A read that reached the worker: count the pages of it that belong to a set. */
void thaw_warm_pages_note(const struct thaw_warm_pages *warm, struct thaw_counters *counters,
			  uint32_t ino, uint64_t offset, uint64_t len);
