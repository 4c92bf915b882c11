/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Mounting: an image at a directory, served over FUSE by a worker, which a keeper
 * replaces when it dies.
 */
#include <stdbool.h>
#include <stdint.h>

#include "thaw/error.h"

/* A mount's source as /proc/self/mountinfo shows it: this, then 64 hexadecimal digits. */
#define THAW_MOUNT_SOURCE_PREFIX "thaw:sha256:"
#define THAW_MOUNT_TYPE "fuse.thaw"

struct thaw_mount_options {
	bool foreground;      /* be the keeper, until unmounted or SIGTERM/SIGINT */
	unsigned threads;     /* 0: the default */
	uint64_t cache_bytes; /* of the frame cache; 0: the default */
	unsigned hang_ms;     /* a request that takes longer gets its worker replaced; 0: the default */
	const char *warm;     /* warm sets to push: "all" (or NULL), "none", or a name */
	bool wait_warm;	      /* return only when the warmer has finished (not in the foreground) */
	/*
	 * Comma-separated mount options as for mount(8), or NULL: allow_other,
	 * allow_root, noexec, noatime...; fstab's own (auto, user, nofail,
	 * x-...) are ignored; rw, suid and dev are refused.
	 */
	const char *options;
};

/*
 * Returns 0 once the mount answers (or, in the foreground, after it ended), or
 * says why not, with nothing left mounted. Without foreground the keeper is a
 * process of its own, detached from the terminal, logging to syslog.
 */
_must_check_ int thaw_mount(const char *image, const char *directory,
			    const struct thaw_mount_options *options, struct thaw_error *err);

/*
 * Unmount directory, which must be a mount of thaw's (class refused otherwise;
 * also a dead one). -EBUSY when in use, unless lazy: then it vanishes at once,
 * and its keeper ends with the last user. As an ordinary user through fusermount3.
 */
_must_check_ int thaw_umount(const char *directory, bool lazy, struct thaw_error *err);
