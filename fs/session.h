/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A FUSE session over a descriptor that is connected to a mount already. All
 * requests and answers pass through functions of ours, which is where they are
 * counted and timed.
 */
#include "worker.h"

/*
 * Serve fd (borrowed) until the mount is gone, or SIGTERM, SIGINT or SIGHUP.
 * Returns 0 then; -errno when serving is impossible. One session a process.
 */
_must_check_ int thaw_session_run(struct thaw_worker *worker, int fd, unsigned threads);
