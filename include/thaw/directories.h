/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where thaw keeps things: doc/state.md has the table.
 *
 * The run-time directory holds mount points, sockets and leases, and ends with the
 * boot: $THAW_RUNTIME_DIR; else for root /run/thaw; else $XDG_RUNTIME_DIR/thaw; else
 * /tmp/thaw-UID.
 *
 * The state directory survives the boot: $THAW_STATE_DIR; else for root
 * /var/lib/thaw; else $XDG_STATE_HOME/thaw; else ~/.local/state/thaw; where none of
 * these can be written, "state" in the run-time directory.
 *
 * What a variable of thaw's own names is used or an error: nothing else is tried.
 * A directory that is not ours alone to write to is never used (class refused).
 */
#include <stdbool.h>

#include "thaw/error.h"

/*
 * Make and return BASE, BASE/kind or BASE/kind/name (malloc'ed, absolute): kind and
 * name may be NULL. Of the run-time directory's, the path is fit for overlayfs:
 * without ':', ',' and '\'.
 */
_must_check_ int thaw_runtime_directory(const char *kind, const char *name,
					struct thaw_error *err, char **ret_path);
/* kind: "images", "layers", "extracted", "scratch", "catalogue" */
_must_check_ int thaw_state_directory(const char *kind, const char *name,
				      struct thaw_error *err, char **ret_path);

/*
 * The same for reports: which place it is, and by which rule ("$THAW_STATE_DIR",
 * "root", "$XDG_STATE_HOME", "~/.local/state", "run-time directory"...; static). why,
 * when not empty, says why an earlier place was not taken.
 */
struct thaw_place {
	char *path; /* malloc'ed */
	const char *rule;
	bool fallback; /* state only: it ends with the boot */
	char why[256];
};
_must_check_ int thaw_runtime_place(struct thaw_error *err, struct thaw_place *ret_place);
_must_check_ int thaw_state_place(struct thaw_error *err, struct thaw_place *ret_place);
