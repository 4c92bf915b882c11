/* SPDX-License-Identifier: Apache-2.0 */
/* Entering namespaces. */
#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/cleanup.h"

bool thaw_may_mount(void)
{
	struct __user_cap_header_struct header = { .version =
							   _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[0].effective & 1u << CAP_SYS_ADMIN;
}

static int write_file(const char *path, const char *text)
{
	_cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int thaw_enter_user_namespace(struct thaw_error *err)
{
	unsigned uid = geteuid(), gid = getegid();
	char map[64];
	int r;

	if (unshare(CLONE_NEWUSER) < 0)
		return thaw_io(
			err, -errno,
			"no user namespace can be made (see sysctl user.max_user_namespaces, "
			"kernel.unprivileged_userns_clone, kernel.apparmor_restrict_"
			"unprivileged_userns)");
	(void)write_file("/proc/self/setgroups",
			 "deny"); /* before the group map, where it exists */
	(void)snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	r = write_file("/proc/self/uid_map", map);
	(void)snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	if (r == 0)
		r = write_file("/proc/self/gid_map", map);
	return r < 0 ? thaw_io(err, r, "the user namespace cannot be set up") : 0;
}

int thaw_enter_mount_namespace(struct thaw_error *err)
{
	if (unshare(CLONE_NEWNS) < 0)
		return thaw_io(err, -errno, "no mount namespace can be made");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return thaw_io(err, -errno, "mounts cannot be made private");
	return 0;
}
