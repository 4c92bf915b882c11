/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Looking ahead where no warm set does. The worker tells a process beside it, the scout,
 * what was asked for, and the scout asks for what will be: names, bytecode, libraries
 * (scout.h). The kernel then has it, or it is on its way.
 *
 * The scout never has the FUSE descriptor (see warmer.h), and the mount only while
 * there is something to do: until nothing was done for a while.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "thaw/image.h"
#include "thaw/timeline.h"

struct thaw_serving;

/* Directories of which a worker remembers that it told of a file: by inode, modulo this. */
#define THAW_LOOKAHEAD_TOLD 256u

struct thaw_lookahead {
	struct thaw_serving *serving;
	struct thaw_timeline *timeline; /* when recording; else NULL */
	int root_fd; /* a detached clone of the mount, borrowed; -1: there is no looking ahead */
	const char *root_path; /* for further clones; NULL: the scout ends when it is idle */
	int socket; /* to the scout, once started; else -1 */
	pid_t pid;    /* the scout's, until it is reaped; 0: none. Workers keep it */
	int ended_fd; /* readable when it has ended; -1: none */

	/* Of one worker. */
	atomic_bool ended; /* the scout has */
	atomic_uint missed; /* names told of that did not exist */
	_Atomic uint32_t told[THAW_LOOKAHEAD_TOLD];
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

/*
 * What the process pid was answered: the scout itself does not count. From any thread;
 * they never wait. A lookahead of NULL is allowed.
 */
void thaw_lookahead_listed(struct thaw_lookahead *lookahead, pid_t pid,
			   const struct thaw_inode *directory);
/* That there is no such name. */
void thaw_lookahead_missed(struct thaw_lookahead *lookahead, pid_t pid, const char *name,
			   size_t len);
/* The first len bytes of a file. */
void thaw_lookahead_read(struct thaw_lookahead *lookahead, pid_t pid,
			 const struct thaw_inode *file, const void *data, size_t len);
