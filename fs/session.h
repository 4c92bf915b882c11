/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A FUSE session over a descriptor that is connected to a mount already. All
 * requests and answers pass through functions of ours, which is where they are
 * counted and timed.
 */
#include <stdbool.h>

#include "worker.h"

/*
 * Hold back the signals that end a keeper or a worker: they are taken when it is
 * ready for them, and children begin with them held back.
 */
void thaw_session_hold_signals(bool hold);

/* How many threads will serve; wanted: 0 for the default. At most THAW_SLOTS_MAX. */
unsigned thaw_session_threads(unsigned wanted);

/* This thread begins or ends to read from the image's file. Any thread may say so. */
void thaw_session_in_storage(bool reading);

/*
 * In a worker: serve fd (borrowed) until the mount is gone or SIGTERM comes.
 * First of all what a predecessor left undone; before that the process gives up
 * what it does not need (see sandbox.h). Returns 0 then; -errno when serving is
 * impossible. One session a process.
 */
_must_check_ int thaw_session_run(struct thaw_worker *worker, int fd, unsigned threads);
