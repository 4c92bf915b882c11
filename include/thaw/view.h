/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Views of one command: an environment that one process and its children see, and
 * nobody else. Needs no privileges and no service; the view, its mounts and its
 * worker end with the last process that sees it, whatever ends that. Where there is
 * no FUSE, or no namespaces, a plain tree is extracted instead, once.
 */
#include <stdbool.h>
#include <stdint.h>

#include "thaw/error.h"
#include "thaw/timeline.h"
#include "thaw/trace.h"

enum thaw_view_mode {
	THAW_VIEW_AUTO,	     /* private where it works, else extracted */
	THAW_VIEW_PRIVATE,   /* mounts in namespaces of its own */
	THAW_VIEW_EXTRACTED, /* a tree on disk, shared by all views of the image */
};

struct thaw_view_options {
	const char *image;
	/*
	 * Name in the current directory that the view appears at; it must be
	 * missing (then it is made, and stays, empty to all outside) or an empty
	 * directory. NULL: a place of thaw's own. An extracted view without namespaces
	 * is a symlink there, and the name must be missing, or be that symlink.
	 */
	const char *alias;
	/* Further images, each laid over those before it. */
	const char *const *layers;
	unsigned layer_count;
	enum thaw_view_mode mode;
	const char *warm; /* as for thaw_mount_options; of layers, all, unless "none" */
	bool wait_warm;	  /* return only when the warmer has finished */
	/*
	 * Writable, by a scratch layer of this view's alone, which ends with it:
	 * in memory, of at most scratch_size bytes, or, when that is 0, on disk, in the
	 * state directory (and in memory where overlayfs cannot use that).
	 */
	bool writable;
	uint64_t scratch_size;
	/* Interpreter for environments that bring none; NULL: found on this machine. */
	const char *python;
	/*
	 * For recording (thaw warm): an empty directory on a local file system, for
	 * what is written into the view, and the trace, with readahead off. Not
	 * together with writable.
	 */
	const char *scratch;
	struct thaw_trace *trace;
	struct thaw_timeline *timeline; /* to be filled while it is served; or NULL */
	/*
	 * Called with a line that the user should see: that the view is extracted, and
	 * why.
	 */
	void (*notice)(const char *image, const char *text);
};

/*
 * Move the calling process, which must have one thread, into a mount namespace
 * of its own (and, without privileges, a user namespace) in which the view
 * stands at *ret_path (malloc'ed); when extracted, possibly without either.
 * No process of the view's is a child of the caller's. On
 * failure the namespaces may have changed already: exec or exit.
 */
_must_check_ int thaw_view_enter(const struct thaw_view_options *options,
				 struct thaw_error *err, char **ret_path);

/* PATH begins with the view's bin, THAW_ENV names the view. */
_must_check_ int thaw_view_environment(const char *path, struct thaw_error *err);
