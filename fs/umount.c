/* SPDX-License-Identifier: Apache-2.0 */
/* Unmounting what is ours. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mountinfo.h"
#include "thaw/mount.h"
#include "util/cleanup.h"

/*
 * The absolute path of a mount point that may be dead: its last component must
 * not be looked at (ENOTCONN), only its parent.
 */
static int mountpoint_path(const char *directory, struct thaw_error *err, char **ret_path)
{
	_cleanup_(freep) char *copy = strdup(directory);
	_cleanup_(freep) char *parent = NULL;
	char *path, *slash;
	size_t len;

	if (!copy)
		return thaw_oom(err);
	path = realpath(directory, NULL);
	if (path) {
		*ret_path = path;
		return 0;
	}
	/* Of dead mounts: ended, ended while asked, ended before the first answer. */
	if (errno != ENOTCONN && errno != ECONNABORTED && errno != ECONNREFUSED && errno != EIO &&
	    errno != EACCES)
		return thaw_io(err, -errno, "cannot be unmounted");
	len = strlen(copy);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
	if (!parent)
		return thaw_io(err, -errno, "cannot be unmounted");
	if (asprintf(&path, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
		     slash ? slash + 1 : copy) < 0)
		return thaw_oom(err);
	*ret_path = path;
	return 0;
}

/* An ordinary user may not unmount; fusermount3 may, and checks whose mount it is. */
static int umount_by_helper(const char *path, bool lazy, struct thaw_error *err)
{
	const char *argv[] = { "fusermount3", "-u", "-q", "--", path, NULL };
	const char *lazy_argv[] = { "fusermount3", "-u", "-q", "-z", "--", path, NULL };
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return thaw_io(err, -errno, "fusermount3 cannot be started");
	if (pid == 0) {
		execvp("fusermount3", (char *const *)(lazy ? lazy_argv : argv));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return thaw_io(err, -ENOENT, "fusermount3 (package fuse3)");
	return thaw_io(err, -EBUSY,
		       "fusermount3 did not unmount it (thaw umount --lazy detaches what is in use)");
}

int thaw_umount(const char *directory, bool lazy, struct thaw_error *err)
{
	_cleanup_(freep) char *path = NULL;
	struct thaw_mountpoint mountpoint;
	int r;

	r = mountpoint_path(directory, err, &path);
	if (r == 0)
		r = thaw_mountinfo_find(path, err, &mountpoint);
	if (r < 0)
		return r;
	if (r == THAW_NOT_FOUND)
		return thaw_refused(err, "nothing is mounted there");
	if (!mountpoint.ours)
		return thaw_refused(err, "is not a mount of thaw's");
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EPERM)
		return umount_by_helper(path, lazy, err);
	if (errno == EBUSY)
		return thaw_io(err, -EBUSY, "cannot be unmounted (--lazy detaches what is in use)");
	return thaw_io(err, -errno, "cannot be unmounted");
}
