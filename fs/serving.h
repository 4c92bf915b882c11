/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One image about to be served, or being served: what is opened before anything
 * is mounted or forked, so that whoever asked learns what is wrong with it, and
 * what the processes then share.
 */
#include "counters.h"
#include "thaw/image.h"
#include "thaw/timeline.h"
#include "warm-pages.h"

struct thaw_serving {
	struct thaw_image *image;
	const char *name; /* of the image, for the log; borrowed */
	struct thaw_warm_pages warm;
	struct thaw_counters *counters;
	struct thaw_trace *trace; /* borrowed; set it to record */
	struct thaw_timeline *timeline; /* likewise */
	bool no_readahead;	  /* the trace is to name just the pages that are touched */
	unsigned threads;	  /* 0: the default */
	uint64_t cache_bytes;	  /* 0: the default */
};

/* Open the image and the warm sets of choice (as for thaw_warm_pages_init()). */
_must_check_ int thaw_serving_init(struct thaw_serving *serving, const char *image,
				   const char *warm, struct thaw_error *err);
void thaw_serving_deinit(struct thaw_serving *serving);

/*
 * In the process that is the worker: start the warmer, serve until the mount is
 * gone or SIGTERM comes. fd and root_fd (see warmer.h; -1 for none) are taken.
 * THAW_STILL_MOUNTED when it was a signal: then the mount is there and dead.
 */
#define THAW_STILL_MOUNTED 1
_must_check_ int thaw_serving_run(struct thaw_serving *serving, int fd, int root_fd,
				  const char *root_path);

/*
 * Wait until the warmer has finished or given up; at once without one. worker is
 * a pipe or socket whose other end only the worker has: false when that is gone.
 * The caller must not hold the FUSE descriptor (see warmer.h).
 */
_must_check_ bool thaw_serving_wait_warm(const struct thaw_serving *serving, int worker);

/* Leave the caller's terminal, session and directory. */
void thaw_detach_from_terminal(void);
