/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Looking ahead where no warm set does: who lists a package is about to look up
 * its bytecode, one name after the other. So a process beside the worker lists
 * the package's __pycache__, and the kernel then knows the names.
 *
 * It never has the FUSE descriptor (see warmer.h), and the mount only while
 * there is something to do: until nothing was listed for a while.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "thaw/image.h"
#include "thaw/timeline.h"

struct thaw_serving;

struct thaw_lookahead {
	struct thaw_serving *serving;
	struct thaw_timeline *timeline; /* when recording; else NULL */
	int root_fd; /* a detached clone of the mount, borrowed; -1: there is no looking ahead */
	const char *root_path; /* for further clones; NULL: it ends when it is idle */
	int socket; /* to the process, once started; else -1 */
	atomic_bool ended; /* the process has; of one worker */
	pid_t pid;    /* until it is reaped; 0: none */
	int ended_fd; /* readable when it has ended; -1: none */
};

/*
 * Start it, from the keeper: workers inherit the socket. Failure is -errno, and
 * no more than a pity.
 */
_must_check_ int thaw_lookahead_start(struct thaw_lookahead *lookahead);
/* Let it end by itself, when no worker has the socket either. */
void thaw_lookahead_stop(struct thaw_lookahead *lookahead);
/* True when there is none, or none any more. Never waits. */
bool thaw_lookahead_reap(struct thaw_lookahead *lookahead);

/* A directory was listed. From any thread; never waits. NULL is allowed. */
void thaw_lookahead_listed(struct thaw_lookahead *lookahead,
			   const struct thaw_inode *directory);
