/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parts of the keeper share. */
#include "keeper-state.h"
#include "keeper.h"
#include "lookahead.h"
#include "warmer.h"

struct keeper {
	struct thaw_serving *serving;
	struct thaw_state *state; /* the serving's */
	int fuse_fd;
	int life[2]; /* a pipe; workers have its first end, we alone the second */
	int signals; /* SIGTERM and SIGINT: end; SIGHUP: hand over; SIGUSR1: end learning */
	bool foreground;
	int caller_fd; /* warming waits for its end (keeper.h); -1: for nothing */
	struct thaw_warmer warmer;
	struct thaw_lookahead lookahead;

	pid_t worker; /* 0: none now */
	int worker_fd; /* pidfd */
	bool ours;     /* our child; else it was our predecessor's */
	bool told;     /* to end: that it does is no failure ... */
	uint64_t told_until; /* ... but that it does not until then, in ms, is */
	char why[THAW_DEATH_TEXT]; /* we killed it; else empty */
	unsigned workers; /* started so far */
	uint64_t answered; /* requests, when it was started */

	/* Deaths in a row: that left somebody without an answer; that did not. */
	unsigned barren, vain;
	bool hopeless; /* requests are refused until a worker lives */
	uint64_t retry_at; /* ms */
	char said[THAW_DEATH_TEXT]; /* what the log has been told last */

	/* As of the last look at the worker. */
	uint64_t hang_ms, check_at, beats;
	bool asked; /* requests waited to be taken */
	bool idle;  /* nothing to look at until the next request */
	struct seen {
		uint64_t unique, since; /* a request, and when it was seen first */
	} *seen; /* by slot */

	bool ending;
	uint8_t *buffer; /* for requests that are refused */
};

/*
 * The path that this program was started from, or "". An upgrade may have put another
 * file there since: what is wanted from now on is that one.
 */
void thaw_keeper_program(char *path, size_t size);

/*
 * Make a keeper of what is given, with the plan filled in; it has no worker yet.
 * The serving must be shared. thaw_keeper_loop() undoes it.
 */
_must_check_ int thaw_keeper_init(struct keeper *keeper, const struct thaw_keeper *given);
/* What is to be pushed is pushed from now on. */
void thaw_keeper_start_warmer(struct keeper *keeper);
/* Start a worker now. */
void thaw_keeper_start_worker(struct keeper *keeper);
/* This worker is there already: ours, or our predecessor's. Takes pidfd. */
void thaw_keeper_watch(struct keeper *keeper, pid_t pid, int pidfd, bool ours);
/* Have it replaced, in order. */
void thaw_keeper_end_worker(struct keeper *keeper);
/*
 * Until the mount is gone (0) or a signal comes (THAW_STILL_MOUNTED), with nothing
 * left running; fuse_fd is closed.
 */
_must_check_ int thaw_keeper_loop(struct keeper *keeper);
/* Become another program, with everything in its place; returns when that is not possible. */
void thaw_keeper_hand_over(struct keeper *keeper);

/* What a keeper tells once to whoever waits for it, through a pipe. */
struct keeper_outcome {
	int result;
	pid_t pid;
	struct thaw_error err;
};
_must_check_ int thaw_keeper_tell(int fd, int result, const struct thaw_error *err);
/* Takes what it told; -EPIPE when it ended before. */
_must_check_ int thaw_keeper_hear(int fd, struct keeper_outcome *ret_outcome);
