/* SPDX-License-Identifier: Apache-2.0 */
/* Opening /dev/fuse and mounting with it. */
#include "connect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "thaw/mount.h"
#include "util/cleanup.h"
#include "worker.h"

static const struct {
	const char *name;
	unsigned long set, clear;
} flag_options[] = {
	{ "ro", MS_RDONLY, 0 },
	{ "nosuid", MS_NOSUID, 0 },
	{ "nodev", MS_NODEV, 0 },
	{ "noexec", MS_NOEXEC, 0 },
	{ "exec", 0, MS_NOEXEC },
	{ "noatime", MS_NOATIME, 0 },
	{ "atime", 0, MS_NOATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },
	{ "diratime", 0, MS_NODIRATIME },
	{ "relatime", MS_RELATIME, 0 },
};

static bool is_flag(const char *option, size_t len, unsigned long *flags)
{
	for (unsigned i = 0; i < sizeof(flag_options) / sizeof(flag_options[0]); i++) {
		if (strlen(flag_options[i].name) != len ||
		    strncmp(flag_options[i].name, option, len) != 0)
			continue;
		*flags = (*flags | flag_options[i].set) & ~flag_options[i].clear;
		return true;
	}
	return false;
}

/* libfuse's option string in the kernel's terms: flags, source, data. */
static int split_options(const char *options, int fd, unsigned long *flags, char source[128],
			 char **ret_data)
{
	size_t size = strlen(options) + 128, used;
	char *data = malloc(size);

	if (!data)
		return -ENOMEM;
	*flags = 0;
	source[0] = '\0';
	used = (size_t)snprintf(data, size, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fd,
				(unsigned)getuid(), (unsigned)getgid());
	for (const char *option = options; *option;) {
		size_t len = strcspn(option, ",");

		if (strncmp(option, "fsname=", 7) == 0)
			(void)snprintf(source, 128, "%.*s", (int)len - 7, option + 7);
		else if (strncmp(option, "subtype=", 8) != 0 && !is_flag(option, len, flags))
			used += (size_t)snprintf(data + used, size - used, ",%.*s", (int)len,
						 option);
		option += len + (option[len] == ',');
	}
	*ret_data = data;
	return 0;
}

int thaw_connect_open(struct thaw_error *err, int *ret_fd)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == EACCES)
		return thaw_io(err, -errno,
			       "cannot be mounted: /dev/fuse (udev gives it mode 0666; chmod does too)");
	if (fd < 0)
		return thaw_io(err, -errno, "cannot be mounted: /dev/fuse%s",
			       errno == ENOENT ? " (modprobe fuse; containers: --device /dev/fuse)" : "");
	*ret_fd = fd;
	return 0;
}

static int mount_fd(int fd, const char *directory, const char *options)
{
	_cleanup_(freep) char *data = NULL;
	unsigned long flags;
	char source[128];
	int r;

	r = split_options(options, fd, &flags, source, &data);
	if (r < 0)
		return r;
	return mount(source, directory, THAW_MOUNT_TYPE, flags, data) < 0 ? -errno : 0;
}

int thaw_connect_mount(int fd, const char *directory, const char *options, struct thaw_error *err)
{
	int r = mount_fd(fd, directory, options);

	return r < 0 ? thaw_io(err, r, "cannot be mounted on \"%.300s\"", directory) : 0;
}

/*
 * Keep what libfuse prints when mounting fails, for it has no other way of
 * saying why. fusermount3 itself complains on standard error.
 */
static char last_complaint[256];

_printf_(2, 0)
static void keep_complaint(enum fuse_log_level level, const char *format, va_list args)
{
	(void)vsnprintf(last_complaint, sizeof(last_complaint), format, args); /* may be cut */
	last_complaint[strcspn(last_complaint, "\n")] = '\0';
}

/* libfuse runs fusermount3 and takes the descriptor from it; the session is for that only. */
static int mount_by_helper(const char *directory, const char *options, struct thaw_error *err,
			   int *ret_fd)
{
	char *argv[] = { (char *)"thaw", (char *)"-o", (char *)options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *session;
	int fd = -1;

	fuse_set_log_func(keep_complaint);
	session = fuse_session_new(&args, &thaw_worker_ops, sizeof(thaw_worker_ops), NULL);
	fuse_opt_free_args(&args);
	if (session && fuse_session_mount(session, directory) == 0)
		fd = fcntl(fuse_session_fd(session), F_DUPFD_CLOEXEC, 3);
	if (session)
		fuse_session_destroy(session);
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	/* The complaint is the cause already: 0 adds no other. */
	(void)thaw_io(err, last_complaint[0] ? 0 : -EIO, "cannot be mounted on \"%.200s\"%s%.200s",
		      directory, last_complaint[0] ? ": " : "", last_complaint);
	return -EIO;
}

int thaw_connect(const char *directory, const char *options, struct thaw_error *err, int *ret_fd)
{
	_cleanup_(closep) int fd = -1;
	int r;

	/* An ordinary user may not even be able to open the device; fusermount3 is setuid. */
	r = thaw_connect_open(err, &fd);
	if (r < 0 && (getuid() == 0 || r == -ENOENT))
		return r;
	if (r == 0) {
		r = mount_fd(fd, directory, options);
		if (r == 0) {
			*ret_fd = steal_fd(&fd);
			return 0;
		}
		if (r != -EPERM)
			return thaw_io(err, r, "cannot be mounted on \"%.300s\"", directory);
	}
	return mount_by_helper(directory, options, err, ret_fd);
}
