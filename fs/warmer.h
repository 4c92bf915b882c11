/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The warmer: pushes warm sets into the kernel's caches, ahead of who will want
 * them, then ends. Two processes beside the worker:
 *
 *	pusher  the keeper's child; holds the FUSE descriptor; decompresses and
 *	        stores pages
 *	lister  its child; holds the mount; lists directories and looks names up, so
 *	        that the kernel knows the inodes that pages are stored for
 *
 * Nobody may hold both: whoever waits for an answer from a mount cannot be
 * killed until it comes, and as long as somebody holds the descriptor, the
 * kernel believes that it may come. The pusher waits in the same way when it
 * stores a page that a reader waits for. So there must always be somebody who
 * answers and never waits:
 *
 *	worker killed              the keeper starts another, which answers
 *	keeper killed              the worker answers; the pusher then ends
 *	mount ends, or SIGTERM     the keeper refuses requests until the pusher
 *	                           has ended
 *	both killed at once        what the worker had read ends with its device,
 *	                           which the pusher's is not; what nobody had read
 *	                           yet is waited for if the pusher happens to wait
 *	                           for the same page: then only the connection's
 *	                           abort (/sys/fs/fuse/connections) frees it
 *
 * For the same reason neither is a thread of the worker or of the keeper.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "thaw/timeline.h"
#include "warm-pages.h"

struct thaw_serving;

struct thaw_warmer {
	struct thaw_serving *serving; /* with at least one warm set */
	struct thaw_counters *counters;
	struct thaw_timeline *timeline; /* when recording; else NULL */
	int fuse_fd;
	/*
	 * The mount's root: a detached clone of the mount (which does not make it
	 * busy), or -1 and the path of the mount, which is then looked up each time.
	 */
	int root_fd;
	const char *root_path;

	pid_t pid; /* of the pusher, once started, until it is reaped; 0: none */
	int ended_fd; /* readable when it has ended; -1: none */
};

/*
 * Start it, from the keeper. Failure is -errno, and no more than a pity. It ends
 * with the keeper.
 */
_must_check_ int thaw_warmer_start(struct thaw_warmer *warmer);
/* True when there is none, or none any more. Never waits. */
bool thaw_warmer_reap(struct thaw_warmer *warmer);
/* It ends as soon as it waits for nobody: requests must be answered or refused until then. */
void thaw_warmer_kill(struct thaw_warmer *warmer);
/* A clone of the mount at path for root_fd; -1 where the kernel or our rights forbid it. */
int thaw_warmer_clone_mount(const char *path);
