/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A FUSE connection: mounting, and the descriptor that serves the mount. */
#include "thaw/error.h"

/*
 * Mount on directory (absolute) and return the descriptor to serve it by. With
 * CAP_SYS_ADMIN by mount(2), else through fusermount3. options: as
 * thaw_mount_options_parse() gives them.
 */
_must_check_ int thaw_connect(const char *directory, const char *options,
			      struct thaw_error *err, int *ret_fd);
/* In two steps, for a server that must be another process: open, then mount(2) it. */
_must_check_ int thaw_connect_open(struct thaw_error *err, int *ret_fd);
_must_check_ int thaw_connect_mount(int fd, const char *directory, const char *options,
				    struct thaw_error *err);
