/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Private views: an environment that one process and its children see, and
 * nobody else. Needs no privileges and no service; the view, its mounts and its
 * worker end with the last process that sees it, whatever ends that.
 */
#include <stdbool.h>

#include "thaw/error.h"
#include "thaw/timeline.h"
#include "thaw/trace.h"

struct thaw_view_options {
	const char *image;
	/*
	 * Name in the current directory that the view appears at; it must be
	 * missing (then it is made, and stays, empty to all outside) or an empty
	 * directory. NULL: a place of thaw's own.
	 */
	const char *alias;
	const char *warm; /* as for thaw_mount_options */
	bool wait_warm;	  /* return only when the warmer has finished */
	/*
	 * For recording (thaw warm): an empty directory on a local file system, for
	 * what is written into the view, and the trace, with readahead off. NULL:
	 * the view is read-only.
	 */
	const char *scratch;
	struct thaw_trace *trace;
	struct thaw_timeline *timeline; /* to be filled while it is served; or NULL */
};

/*
 * Move the calling process, which must have one thread, into a mount namespace
 * of its own (and, without privileges, a user namespace) in which the view
 * stands at *ret_path (malloc'ed). The worker is no child of the caller's. On
 * failure the namespaces may have changed already: exec or exit.
 */
_must_check_ int thaw_view_enter(const struct thaw_view_options *options, struct thaw_error *err,
				 char **ret_path);

/* PATH begins with the view's bin, THAW_ENV names the view. */
_must_check_ int thaw_view_environment(const char *path, struct thaw_error *err);
