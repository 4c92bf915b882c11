/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* `thaw keep`: how one keeper starts another, or the node service starts one. */
#include "thaw/error.h"

enum thaw_keep_how {
	THAW_KEEP_LAUNCH, /* fds: state, image, a pipe to whoever waits */
	THAW_KEEP_ADOPT,  /* fds: state, a pipe */
	THAW_KEEP_TAKE_OVER, /* fds: state, FUSE, image */
	THAW_KEEP_CHECK,     /* the same: could it? Changes nothing */
};
/* What `thaw keep check` exits with when it could: no other program happens to. */
#define THAW_KEEP_COULD 87

/* Returns when the mount has gone; fds (-1: none) are taken. */
_must_check_ int thaw_keep(enum thaw_keep_how how, const int fds[3], struct thaw_error *err);

/*
 * By hand: keep image, mounted on directory, with the state in a directory of its
 * own, apart from the caller; and find a new keeper for a worker whose own has
 * died. See fs/keeper.h, which the node service uses. *ret_pid: the keeper's.
 */
_must_check_ int thaw_keep_start(const char *image, const char *directory,
				 const char *state_directory, struct thaw_error *err,
				 int *ret_pid);
_must_check_ int thaw_keep_adopt(const char *state_directory, struct thaw_error *err,
				 int *ret_pid);
