/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: a file read with pread(2), and bytes in memory. */
#include "thaw/source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"

struct file_source {
	struct thaw_source base;
	int fd;
};

struct memory_source {
	struct thaw_source base;
	const uint8_t *data;
};

static int file_read(struct thaw_source *source, uint64_t offset, void *buf, size_t len)
{
	struct file_source *file = (struct file_source *)source;
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pread(file->fd, p, len, (off_t)offset);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0) /* cut short since it was opened */
			return -EIO;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static void file_free(struct thaw_source *source)
{
	struct file_source *file = (struct file_source *)source;

	(void)safe_close(file->fd);
	free(file);
}

/* Takes fd in any case. */
static int adopt_fd(int fd, struct thaw_error *err, struct thaw_source **ret_source)
{
	_cleanup_(closep) int owned = fd;
	struct file_source *file;
	struct stat st;
	uint64_t size;

	if (fstat(owned, &st) < 0)
		return thaw_io(err, -errno, "cannot be read");
	if (S_ISREG(st.st_mode))
		size = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return thaw_io(err, S_ISDIR(st.st_mode) ? -EISDIR : -ESPIPE,
			       "an image must be a file");
	else if (ioctl(owned, BLKGETSIZE64, &size) < 0)
		return thaw_io(err, -errno, "the device's size cannot be read");

	file = calloc(1, sizeof(*file));
	if (!file)
		return thaw_oom(err);
	file->base = (struct thaw_source){
		.size = size,
		.fd = owned,
		.read = file_read,
		.free = file_free,
	};
	file->fd = steal_fd(&owned);
	*ret_source = &file->base;
	return 0;
}

int thaw_source_open(const char *path, struct thaw_error *err,
		     struct thaw_source **ret_source)
{
	/* O_NONBLOCK: a fifo in the place of an image must not hang us. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return thaw_io(err, -errno, "cannot be opened");
	return adopt_fd(fd, err, ret_source);
}

int thaw_source_from_fd(int fd, struct thaw_error *err, struct thaw_source **ret_source)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0)
		return thaw_io(err, -errno, "the descriptor cannot be used");
	return adopt_fd(copy, err, ret_source);
}

static int memory_read(struct thaw_source *source, uint64_t offset, void *buf, size_t len)
{
	struct memory_source *memory = (struct memory_source *)source;

	if (!range_inside(offset, len, source->size))
		return -EIO;
	memcpy(buf, memory->data + offset, len);
	return 0;
}

static void memory_free(struct thaw_source *source)
{
	free(source);
}

int thaw_source_from_memory(const void *data, size_t size,
			    struct thaw_source **ret_source)
{
	struct memory_source *memory = calloc(1, sizeof(*memory));

	if (!memory)
		return -ENOMEM;
	memory->base = (struct thaw_source){
		.size = size,
		.fd = -1,
		.read = memory_read,
		.free = memory_free,
	};
	memory->data = data;
	*ret_source = &memory->base;
	return 0;
}

struct thaw_source *thaw_source_free(struct thaw_source *source)
{
	if (source)
		source->free(source);
	return NULL;
}
