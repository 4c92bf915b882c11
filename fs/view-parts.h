/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The images of a private view, and the mounts that the view is laid over. */
#include "serving.h"
#include "thaw/view.h"

struct thaw_part {
	struct thaw_serving serving;
	char identity[THAW_DIGEST_HEX];
	char *fuse_options;
	char *directory; /* where the image is mounted, in the view's namespace */
	char *interpreter; /* that it is bound to, having none; or NULL */
	char *rendered;	   /* the layer of relocated files above it, or NULL */
	int fuse_fd;
	int keeper; /* socket to it */
};

/*
 * The environment first, further images behind it in the order in which they are laid
 * on top.
 */
struct thaw_parts {
	struct thaw_part *part;
	unsigned count;
};

/*
 * Open the images of a view and make their directories. To be deinit'ed also on
 * failure.
 */
_must_check_ int thaw_parts_open(struct thaw_parts *parts,
				 const struct thaw_view_options *options,
				 struct thaw_error *err);
void thaw_parts_deinit(struct thaw_parts *parts);

/*
 * Render what a view at prefix needs (python: as in the view's options). Before any
 * namespace is entered: it makes files.
 */
_must_check_ int thaw_parts_render(struct thaw_parts *parts, const char *prefix,
				   const char *python, struct thaw_error *err);

/*
 * In the user namespace that is to mount: open a FUSE connection each and start who
 * serves it. Then, in the mount namespace: mount, and let serving begin.
 */
_must_check_ int thaw_parts_connect(struct thaw_parts *parts, struct thaw_error *err);
_must_check_ int thaw_parts_mount(struct thaw_parts *parts, struct thaw_error *err);
