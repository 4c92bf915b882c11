/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of aliases: see alias.h. */
#include "alias.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "namespaces.h"
#include "util/cleanup.h"

#define ATTEMPTS 100 /* to find a directory that is not just being removed */
#define TRIES	 50  /* to get a lock, 10 ms each */

static int check_empty(int fd, const char *name, struct thaw_error *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *entry;
	unsigned names = 0;

	if (!directory) {
		int r = thaw_io(err, -errno, "alias \"%.200s\"", name);

		(void)safe_close(copy);
		return r;
	}
	while ((entry = readdir(directory)) != NULL)
		names += strcmp(entry->d_name, ".") != 0 &&
			 strcmp(entry->d_name, "..") != 0;
	(void)closedir(directory);
	return names ? thaw_refused(err,
				    "alias \"%.200s\": is a directory that is not empty",
				    name)
		     : 0;
}

static bool is_still(int fd, const char *path)
{
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && lstat(path, &there) == 0 &&
	       ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

/*
 * Whoever removes it has it locked for an instant. A lock that lasts is somebody else's, and
 * where there are no locks (NFS without them) nobody removes it.
 */
static void lock_shared(int fd)
{
	const struct timespec moment = { .tv_nsec = 10000000 };

	for (unsigned i = 0; i < TRIES; i++) {
		if (flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)
			return;
		(void)nanosleep(&moment, NULL); /* interrupted: tried a little earlier */
	}
}

int thaw_alias_take(const char *name, struct thaw_error *err,
		    struct thaw_alias *ret_alias)
{
	for (unsigned i = 0; i < ATTEMPTS; i++) {
		bool made = mkdir(name, 0755) == 0;
		_cleanup_(closep) int fd = -1;
		int r;

		if (!made && errno != EEXIST)
			return thaw_io(err, -errno, "alias \"%.200s\" cannot be made",
				       name);
		fd = open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
			return thaw_refused(
				err, "alias \"%.200s\": exists and is no directory",
				name);
		if (fd < 0)
			return thaw_io(err, -errno, "alias \"%.200s\"", name);
		lock_shared(fd);
		if (!is_still(fd, name))
			continue;
		r = check_empty(fd, name, err);
		if (r < 0)
			return r;
		ret_alias->made = made;
		ret_alias->directory = steal_fd(&fd);
		return 0;
	}
	return thaw_io(err, -EBUSY, "alias \"%.200s\" is removed again and again", name);
}

void thaw_alias_remove(const struct thaw_alias *alias, const char *path, bool wait)
{
	if (!alias->made)
		return;
	while (flock(alias->directory, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0)
		if (errno != EINTR)
			return;
	/* A janitor may have been killed, and its lock gone, but not its view. */
	if (is_still(alias->directory, path) && !thaw_is_mounted_elsewhere(path))
		(void)rmdir(path); /* what somebody has put there keeps it */
}

void thaw_alias_deinit(struct thaw_alias *alias)
{
	alias->directory = safe_close(alias->directory);
}
