/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The keeper of a FUSE connection that somebody else mounts: a process of its
 * own, detached from the caller, that serves the mount until it is gone.
 */
#include "serving.h"

/*
 * Start the keeper of fuse_fd (an open /dev/fuse, which it gets a copy of). It
 * is no child of the caller's, and holds nothing else of the caller's. Where it
 * runs, the caller runs: namespaces must be chosen before, except for a mount
 * namespace entered afterwards, whose end the keeper then does not hold up.
 * *ret_socket: to it, open as long as it lives.
 */
_must_check_ int thaw_keeper_start(struct thaw_serving *serving, int fuse_fd,
				   struct thaw_error *err, int *ret_socket);
/*
 * Tell it, once fuse_fd is mounted on directory, to serve. The caller must then
 * close its own fuse_fd before it touches the mount (see warmer.h).
 */
_must_check_ int thaw_keeper_begin(struct thaw_serving *serving, int socket,
				   const char *directory, struct thaw_error *err);
