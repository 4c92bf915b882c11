/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Trying out how views are mounted: in a child, in namespaces that end with it.
 * What hangs is killed; nothing stays.
 */
#include <stdbool.h>

/* In the order in which they are tried. */
enum thaw_trial_step {
	THAW_TRIAL_START,	   /* the child itself */
	THAW_TRIAL_USER_NAMESPACE, /* making it, and mapping ourselves into it */
	THAW_TRIAL_MOUNT_NAMESPACE,
	THAW_TRIAL_TMPFS,
	THAW_TRIAL_OVERLAY,	 /* over plain directories */
	THAW_TRIAL_DEVICE,	 /* opening /dev/fuse */
	THAW_TRIAL_FUSE,	 /* mounting it, and an answer through it */
	THAW_TRIAL_OVERLAY_FUSE, /* over the FUSE mount */
	THAW_TRIAL_SCRATCH,	 /* with a scratch layer in the directory given */
	THAW_TRIAL_DONE,
};

struct thaw_trial_options {
	bool user_namespace; /* else only a mount namespace, for which CAP_SYS_ADMIN is needed */
	/*
	 * A directory on the file system that scratch layers will lie on, holding "upper" and
	 * "work"; or NULL.
	 */
	const char *scratch;
};

struct thaw_trial {
	enum thaw_trial_step failed; /* the first step that did; THAW_TRIAL_DONE: none */
	char why[256];
};

void thaw_trial_run(const struct thaw_trial_options *options,
		    struct thaw_trial *ret_trial);
