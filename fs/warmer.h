/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The warmer: pushes warm sets into the kernel's caches, ahead of who will want
 * them, then ends. Three processes beside the worker:
 *
 *	guard   holds the FUSE descriptor; ends the others when the worker ends
 *	pusher  holds it too; decompresses and stores pages
 *	lister  holds the mount; lists directories and looks names up, so that the
 *	        kernel knows the inodes that pages are stored for
 *
 * Nobody may hold both: whoever waits for an answer from a mount cannot be
 * killed until it comes, and as long as somebody holds the descriptor, the
 * kernel believes that it may come. The pusher waits in the same way when it
 * stores a page that a reader waits for: hence the guard, which waits for
 * nothing. For the same reason none is a thread of the worker.
 */
#include <sys/types.h>

#include "thaw/timeline.h"
#include "warm-pages.h"

struct thaw_warmer {
	const struct thaw_image *image;
	const struct thaw_warm_pages *warm; /* with at least one set */
	struct thaw_counters *counters;
	struct thaw_timeline *timeline; /* when recording; else NULL */
	int fuse_fd;
	/*
	 * The mount's root: a detached clone of the mount (which does not make it
	 * busy), or -1 and the path of the mount, which is then looked up each time.
	 */
	int root_fd;
	const char *root_path;

	pid_t pid; /* of the guard, once started, until it is reaped; 0: none */
	int life;  /* closed: it is to end */
};

/*
 * Start it. Call from the worker's main thread, before it has others. Failure is
 * -errno, and no more than a pity. Signals SIGCHLD in the worker when it ends.
 */
_must_check_ int thaw_warmer_start(struct thaw_warmer *warmer);
/*
 * End it, if it has not ended. Requests that nobody serves any more are refused
 * meanwhile. For a warmer that was not started: does nothing.
 */
void thaw_warmer_stop(struct thaw_warmer *warmer);
/* A clone of the mount at path for root_fd; -1 where the kernel or our rights forbid it. */
int thaw_warmer_clone_mount(const char *path);
/*
 * For a lister: the only thing that this process may do with files from here on
 * is to list directories of the mount. root_fd and root_path as above.
 */
void thaw_warmer_restrict_to_listing(int root_fd, const char *root_path);
