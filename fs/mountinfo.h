/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The kernel's table of mounts, which is the truth about what is mounted. */
#include <stdbool.h>
#include <stddef.h>

#include "thaw/error.h"

/* How the source of every mount of thaw's begins. */
#define THAW_MOUNT_SOURCE "thaw:"

struct thaw_mountpoint {
	int id;		   /* the kernel's number */
	bool ours;	   /* an image's mount: of type fuse.thaw */
	bool view;	   /* an overlay whose source begins with THAW_MOUNT_SOURCE */
	char device[32];   /* major:minor, which no other mount has while this one lives */
	char source[128];  /* cut at its end */
	char lower[4096]; /* of an overlay: its layers' paths, top first; see below */
};

/*
 * What is mounted at path (absolute, without symlinks), the topmost if there
 * are several: 0, THAW_NOT_FOUND, or an I/O error.
 */
_must_check_ int thaw_mountinfo_find(const char *path, struct thaw_error *err,
				     struct thaw_mountpoint *ret_mountpoint);

/*
 * Layers stand one behind the other, each with its NUL, an empty one last:
 * for (const char *p = m.lower; *p; p = thaw_mountinfo_next_lower(p)).
 */
const char *thaw_mountinfo_next_lower(const char *lower);

enum thaw_mount_kind {
	THAW_MOUNT_OTHER, /* not thaw's */
	THAW_MOUNT_IMAGE, /* fuse.thaw */
	THAW_MOUNT_VIEW,  /* an overlay of thaw's */
};

/* A line of the table. Strings are the table's. */
struct thaw_mount_entry {
	enum thaw_mount_kind kind;
	int id, parent; /* the kernel's numbers; parent: the mount that it stands on */
	char device[32];
	const char *path; /* as seen from here */
	const char *type, *source;
	const char *lower; /* of an overlay, as above; else empty */
};

/*
 * All mounts of this namespace, in the kernel's order (what is mounted on others comes
 * later).
 */
struct thaw_mount_table {
	struct thaw_mount_entry *entries;
	size_t count, capacity;
};
_must_check_ int thaw_mount_table_read(struct thaw_mount_table *table, struct thaw_error *err);
void thaw_mount_table_deinit(struct thaw_mount_table *table);
