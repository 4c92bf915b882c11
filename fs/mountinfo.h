/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The kernel's table of mounts, which is the truth about what is mounted. */
#include <stdbool.h>

#include "thaw/error.h"

struct thaw_mountpoint {
	bool ours; /* of type fuse.thaw */
	char device[32];  /* major:minor, which no other mount has while this one lives */
	char source[128]; /* cut at its end */
	char lower[1024]; /* of a view: where the image below it is mounted, or empty */
};

/*
 * What is mounted at path (absolute, without symlinks), the topmost if there
 * are several: 0, THAW_NOT_FOUND, or an I/O error.
 */
_must_check_ int thaw_mountinfo_find(const char *path, struct thaw_error *err,
				     struct thaw_mountpoint *ret_mountpoint);
