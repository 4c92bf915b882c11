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
 * Hold back the signals that end a session. A worker does so before it mounts,
 * since the first could come before the session can handle it and leave a mount
 * that nobody serves. thaw_session_run() lets them through while it serves and
 * holds them back again, so that unmounting is not interrupted either.
 */
void thaw_session_hold_signals(bool hold);

/*
 * Serve fd (borrowed) until the mount is gone, or SIGTERM, SIGINT or SIGHUP.
 * Returns 0 then; -errno when serving is impossible. One session a process.
 */
_must_check_ int thaw_session_run(struct thaw_worker *worker, int fd, unsigned threads);
