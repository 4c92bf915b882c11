/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that appears whole or not at all.
 *
 * Where the file system can (O_TMPFILE), the file has no name while it is
 * written, so that not even `kill -9` leaves anything. Elsewhere it is written
 * under a hidden name of its own, locked; a leftover from a killed writer is
 * recognised by its missing lock and taken over.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "pack-internal.h"
#include "util/cleanup.h"

#define COPY_SIZE (1u << 20)

/* One for each output, so that leftovers are found; the lock tells whose it is. */
#define HIDDEN_NAME ".%.200s.part"

struct thaw_output {
	int fd;
	int directory;
	char *name;   /* in directory */
	char *hidden; /* name of the unfinished file; NULL when it has none */
	bool force;
	uint64_t offset;
};

static int refuse_existing(struct thaw_error *err)
{
	(void)thaw_refused(err, "exists already (--force replaces it)");
	return -EEXIST;
}

static int split_path(const char *path, struct thaw_output *output,
		      struct thaw_error *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	_cleanup_(freep) char *directory = NULL;

	if (name[0] == '\0' || !strcmp(name, ".") || !strcmp(name, ".."))
		return thaw_io(err, -EISDIR, "cannot be written");
	directory = !slash ? strdup(".")
			   : strndup(path, slash == path ? 1 : (size_t)(slash - path));
	output->name = strdup(name);
	if (!directory || !output->name)
		return thaw_oom(err);
	output->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (output->directory < 0)
		return thaw_io(err, -errno, "its directory cannot be opened");
	return 0;
}

/* The fallback: a name that only this output uses, locked against another writer of it. */
static int open_hidden(struct thaw_output *output, struct thaw_error *err)
{
	if (asprintf(&output->hidden, HIDDEN_NAME, output->name) < 0) {
		output->hidden = NULL;
		return thaw_oom(err);
	}
	output->fd = openat(output->directory, output->hidden,
			    O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (output->fd < 0 || flock(output->fd, LOCK_EX | LOCK_NB) < 0) {
		int r = -errno;

		free(output->hidden); /* not ours to remove */
		output->hidden = NULL;
		if (r == -EWOULDBLOCK)
			return thaw_io(err, -EBUSY,
				       "is being written by another process");
		return thaw_io(err, r, "cannot be created");
	}
	if (ftruncate(output->fd, 0) < 0)
		return thaw_io(err, -errno, "cannot be written");
	return 0;
}

int thaw_output_open(const char *path, bool force, struct thaw_error *err,
		     struct thaw_output **ret_output)
{
	_cleanup_(thaw_output_freep) struct thaw_output *output = calloc(1,
									 sizeof(*output));
	struct stat st;
	int r;

	if (!output)
		return thaw_oom(err);
	output->fd = output->directory = -1;
	output->force = force;
	r = split_path(path, output, err);
	if (r < 0)
		return r;
	if (fstatat(output->directory, output->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!force)
			return refuse_existing(err);
		if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
			return thaw_refused(err, "is not a file; it is not replaced");
	}
	output->fd = openat(output->directory, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0666);
	if (output->fd < 0) {
		if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT &&
		    errno != EINVAL)
			return thaw_io(err, -errno, "cannot be created");
		r = open_hidden(output, err);
		if (r < 0)
			return r;
	}
	*ret_output = steal_ptr(output);
	return 0;
}

int thaw_output_write(struct thaw_output *output, const void *data, size_t len,
		      struct thaw_error *err)
{
	const uint8_t *p = data;

	while (len > 0) {
		ssize_t n = write(output->fd, p, len);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return thaw_io(err, -errno, "cannot be written");
		}
		p += n;
		len -= (size_t)n;
		output->offset += (uint64_t)n;
	}
	return 0;
}

int thaw_output_truncate(struct thaw_output *output, uint64_t size, struct thaw_error *err)
{
	if (ftruncate(output->fd, (off_t)size) < 0 ||
	    lseek(output->fd, (off_t)size, SEEK_SET) < 0)
		return thaw_io(err, -errno, "cannot be written");
	output->offset = size;
	return 0;
}

int thaw_output_copy(struct thaw_output *output, int fd, uint64_t offset, uint64_t len,
		     struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *buf = NULL;

	while (len > 0) {
		loff_t from = (loff_t)offset;
		ssize_t n = copy_file_range(fd, &from, output->fd, NULL, len, 0);

		/* Other file systems, old kernels: by hand. */
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS ||
			      errno == EOPNOTSUPP)) {
			if (!buf)
				buf = malloc(COPY_SIZE);
			if (!buf)
				return thaw_oom(err);
			n = pread(fd, buf, len < COPY_SIZE ? (size_t)len : COPY_SIZE,
				  from);
			if (n > 0) {
				int r = thaw_output_write(output, buf, (size_t)n, err);

				if (r < 0)
					return r;
			}
		} else if (n > 0) {
			output->offset += (uint64_t)n;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return thaw_io(err, n < 0 ? -errno : -EIO, "cannot be copied");
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

uint64_t thaw_output_offset(const struct thaw_output *output)
{
	return output->offset;
}

int thaw_output_fd(const struct thaw_output *output)
{
	return output->fd;
}

/* Remove what a killed writer left under the hidden name; -EWOULDBLOCK if it lives. */
static int sweep_leftover(struct thaw_output *output)
{
	_cleanup_(closep) int fd = openat(output->directory, output->hidden,
					  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	return unlinkat(output->directory, output->hidden, 0) < 0 && errno != ENOENT ? -errno :
										       0;
}

/* Give a nameless file the name; to replace another it needs a name of its own first. */
static int link_nameless(struct thaw_output *output, struct thaw_error *err)
{
	char proc[64];
	int r;

	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", output->fd); /* fits */
	if (linkat(AT_FDCWD, proc, output->directory, output->name, AT_SYMLINK_FOLLOW) ==
	    0)
		return 0;
	if (errno != EEXIST)
		return thaw_io(err, -errno, "cannot be named");
	if (!output->force)
		return refuse_existing(err);
	if (asprintf(&output->hidden, HIDDEN_NAME, output->name) < 0) {
		output->hidden = NULL;
		return thaw_oom(err);
	}
	/* Locked first: whoever finds the name must not take it for a leftover. */
	r = flock(output->fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
	for (unsigned attempt = 0; r == 0 && attempt < 100; attempt++) {
		if (linkat(AT_FDCWD, proc, output->directory, output->hidden,
			   AT_SYMLINK_FOLLOW) == 0)
			return 0;
		r = errno == EEXIST ? sweep_leftover(output) : -errno;
	}
	free(output->hidden); /* not ours to remove */
	output->hidden = NULL;
	if (r == 0 || r == -EWOULDBLOCK)
		return thaw_io(err, -EBUSY, "is being written by another process");
	return thaw_io(err, r, "cannot be named");
}

int thaw_output_commit(struct thaw_output *output, struct thaw_error *err)
{
	int r;

	if (fsync(output->fd) < 0)
		return thaw_io(err, -errno, "cannot be written to disk");
	if (!output->hidden) {
		r = link_nameless(output, err);
		if (r < 0)
			return r;
	}
	if (output->hidden) {
		unsigned flags = output->force ? 0 : RENAME_NOREPLACE;

		r = renameat2(output->directory, output->hidden, output->directory,
			      output->name, flags);
		if (r < 0 && errno == EINVAL && flags) /* NFS has no RENAME_NOREPLACE */
			r = renameat(output->directory, output->hidden, output->directory,
				     output->name);
		if (r < 0)
			return errno == EEXIST
				       ? refuse_existing(err)
				       : thaw_io(err, -errno, "cannot be renamed");
		free(output->hidden);
		output->hidden = NULL;
	}
	if (fsync(output->directory) < 0)
		return thaw_io(err, -errno, "its directory cannot be written to disk");
	return 0;
}

struct thaw_output *thaw_output_free(struct thaw_output *output)
{
	if (!output)
		return NULL;
	if (output->hidden) {
		(void)unlinkat(output->directory, output->hidden,
			       0); /* the next writer would take it over */
		free(output->hidden);
	}
	(void)safe_close(output->fd);
	(void)safe_close(output->directory);
	free(output->name);
	free(output);
	return NULL;
}
