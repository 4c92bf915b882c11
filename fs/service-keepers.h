/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Keepers, as jobs of the node service launch and end them. */
#include <stdbool.h>
#include <sys/types.h>

#include "thaw/error.h"

struct service_launch {
	int image_fd;
	const uint8_t *identity;     /* of the image */
	const char *name;	     /* of the image, for people */
	const char *directory;	     /* to mount on; exists */
	const char *state_directory; /* of the keeper; made here */
	const char *warm;	     /* NULL: all */
	uid_t uid;		     /* whom files belong to */
	gid_t gid;
	bool scope; /* out of the service's cgroup, under systemd */
	bool learn; /* see learning.h; then: */
	int learned_fd; /* what was learned before, or -1 */
};
/* In a job. Returns when the mount answers. Warming waits until *ret_hold is closed. */
_must_check_ int service_keeper_launch(const struct service_launch *launch,
				       struct thaw_error *err, int *ret_pidfd,
				       int *ret_hold);
/*
 * Is a mount dead? One that does not say so in time may be alive. Waits: by a child,
 * since a hung one would hold us up.
 */
bool service_nobody_answers(const char *directory);
/* Remove what a keeper that has ended leaves in its state directory, and that. */
void service_keeper_clear(const char *state_directory);
/* Name of the scope that a keeper runs in. */
void service_keeper_scope(const char *state_directory, char scope[96]);
