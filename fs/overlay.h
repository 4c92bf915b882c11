/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The mount of a view: an overlay at a directory, over parts that are there
 * already. Private views and the node service both end here.
 *
 * Every function needs CAP_SYS_ADMIN over the mount namespace. Paths may hold
 * any bytes. Mounts are nosuid and nodev.
 */
#include <stdbool.h>

#include "mountinfo.h"
#include "thaw/error.h"

/* A directory: by path, or, when that is NULL, by descriptor (borrowed). */
struct thaw_overlay_layer {
	const char *path; /* absolute, as it appears in the table of mounts */
	/*
	 * Of a directory (O_PATH will do), or of a detached mount (open_tree(2)):
	 * overlayfs takes the latter from Linux 6.15 on, and says -EINVAL before.
	 */
	int fd;
};

struct thaw_overlay {
	/* Top first: rendered layers, further images, the image. At least one. */
	const struct thaw_overlay_layer *layers;
	unsigned count;
	/*
	 * Of this session alone: a directory that holds "upper" and "work" (see
	 * scratch.h). NULL: the view is read-only.
	 */
	const char *scratch;
	/* A directory that is empty: a read-only overlay of one layer wants a second. */
	const char *empty;
	/*
	 * What the table of mounts shows; begins with THAW_MOUNT_SOURCE. At most 255
	 * bytes.
	 */
	const char *source;
	/*
	 * Whether overlayfs keeps its marks in "user." instead of "trusted."
	 * attributes: always in a user namespace (also when read-only), never outside;
	 * a scratch layer must be mounted the same way each time.
	 */
	bool userxattr;
};

/* Mount on directory (absolute, no symlink; not looked at beyond that). */
_must_check_ int thaw_overlay_mount(const struct thaw_overlay *overlay,
				    const char *directory, struct thaw_error *err);

/*
 * Put another overlay in the place of the view at directory. What runs keeps
 * what it has open, and its working directory; what is looked up afterwards is
 * the new view's. directory is a view all the time from Linux 6.5 on
 * (MOVE_MOUNT_BENEATH), and for a moment empty before.
 *
 * An upper directory cannot serve two overlays: when old has a scratch layer, the
 * view is unmounted first, and -EBUSY, nothing changed, is the answer while anything in
 * it is in use. Clones of a writable view's mount that were given away are the caller's
 * to know: it must not replace then.
 *
 * old describes what is mounted there, and is mounted again when the new one
 * cannot be. Class refused when the topmost mount at directory is not a view.
 */
_must_check_ int thaw_overlay_replace(const struct thaw_overlay *old,
				      const struct thaw_overlay *overlay,
				      const char *directory, struct thaw_error *err);

/*
 * Unmount the view at directory: -EBUSY when it is in use, unless lazy, when it
 * vanishes at once, with all that is mounted inside of it, and lives on for those who
 * use it. THAW_NOT_FOUND when nothing is mounted there; class refused when
 * what is topmost there is not a view.
 */
_must_check_ int thaw_overlay_unmount(const char *directory, bool lazy,
				      struct thaw_error *err);

/*
 * Detach a mount that thaw_mount_table_read() has found, and whatever was mounted
 * inside of it or on top of it since. Never waits for who serves it. 0 also when it is
 * gone by now.
 */
_must_check_ int thaw_overlay_detach(const struct thaw_mount_entry *entry,
				     struct thaw_error *err);
