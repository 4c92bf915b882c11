/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Keepers, as jobs of the node service launch them. */
#include <stdbool.h>
#include <sys/types.h>

#include "thaw/error.h"

struct service_launch {
	int image_fd;
	const char *name;	     /* of the image, for people */
	const char *directory;	     /* to mount on; exists */
	const char *state_directory; /* of the keeper; made */
	const char *warm;	     /* NULL: all */
	uid_t uid;		     /* whom files belong to */
	gid_t gid;
	bool root;  /* everybody may look in */
	bool scope; /* out of the service's cgroup, under systemd */
};
/* In a job. Returns when the mount answers; *ret_keeper: 0 when it is not known. */
_must_check_ int service_keeper_launch(const struct service_launch *launch,
				       struct thaw_error *err, pid_t *ret_keeper);
