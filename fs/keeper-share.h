/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Sharing mounts between the private views of one user in one cgroup.
 *
 * A process of its own, the holder, makes the mounts, in a mount namespace that nobody
 * else is in, and listens on a socket in the run-time directory. Whoever wants a view
 * of the same images sends a pidfd of itself and gets clones of the mounts, and,
 * without privileges, the user namespace that they belong to: FUSE refuses others. The
 * holder ends with the last of those processes, and its mounts with it; what a view
 * still uses (in the background) lives on, since its namespace has clones.
 *
 * The socket's name is made of all that must be the same: the images' identities, in
 * order, the warm sets, the user, the caller's user namespace, and its cgroup. Across
 * cgroups nothing is shared: when a container ends, its cgroup is killed, and workers
 * in it would take strangers along.
 */
#include "view-parts.h"

struct thaw_share {
	bool user_namespace; /* the caller is in a new user namespace now, the mounts' */
	bool mount_namespace;
	/* Of a failure: nobody can mount here, whatever the image. */
	bool impossible;
	/* Of a failure: nothing was done; the caller may mount for itself alone. */
	bool alone;
};

/*
 * Enter a mount namespace, and mount the parts in it on their directories, shared with
 * others. warm: as in the view's options.
 */
_must_check_ int thaw_share_enter(struct thaw_parts *parts, const char *warm,
				  struct thaw_error *err, struct thaw_share *ret_share);
