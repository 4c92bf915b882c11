/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Mount options: from what mount(8) and fstab say to what libfuse takes. */
#include "thaw/error.h"

/*
 * given: comma-separated, or NULL. identity: hexadecimal. The result, for
 * fuse_session_new()'s -o, is malloc'ed. Class refused for what thaw does not
 * allow, usage for what it does not know.
 */
_must_check_ int thaw_mount_options_parse(const char *given, const char *identity,
					  struct thaw_error *err, char **ret_options);
