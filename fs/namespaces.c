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
#include <sys/wait.h>
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

static int enter_both(struct thaw_error *err, bool *ret_user_namespace)
{
	bool user_namespace = !thaw_may_mount();
	int r = user_namespace ? thaw_enter_user_namespace(err) : 0;

	if (r == 0)
		r = thaw_enter_mount_namespace(err);
	if (r == 0)
		*ret_user_namespace = user_namespace;
	return r;
}

int thaw_enter_namespaces_or_stay(struct thaw_error *err, bool *ret_user_namespace)
{
	bool ignored;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return thaw_io(err, -errno, "no process can be started");
	if (pid == 0)
		_exit(enter_both(NULL, &ignored) < 0);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return thaw_io(err, -errno, "no process can be started");
	if (status != 0)
		return thaw_io(err, -EPERM, "no namespaces can be had");
	return enter_both(err, ret_user_namespace);
}
