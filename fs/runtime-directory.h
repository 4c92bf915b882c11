/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where mount points stand: empty directories that survive nothing but the
 * boot. /run/thaw for root; for others $XDG_RUNTIME_DIR/thaw or, without one,
 * /tmp/thaw-UID, which must be the user's own and nobody else's to write to.
 */
#include "thaw/error.h"

/* Make and return BASE/kind or, with name, BASE/kind/name (malloc'ed). */
_must_check_ int thaw_runtime_directory(const char *kind, const char *name,
					struct thaw_error *err, char **ret_path);
