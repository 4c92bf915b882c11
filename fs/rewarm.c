/* SPDX-License-Identifier: Apache-2.0 */
/* Warming through a mount. */
#include "rewarm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "confined-child.h"
#include "thaw/image.h"
#include "thaw/observe.h"
#include "thaw/stat.h"
#include "thaw/warm.h"
#include "util/cleanup.h"
#include "warm-pages.h"

/* It reads through a mount, whose image may be far away. */
#define SECONDS 86400u

struct rewarm {
	const struct thaw_image *image;
	int root_fd;
	char path[4096];
	uint32_t open_ino; /* of fd */
	int fd;
	uint64_t *pages;
};

static const char *path_of(struct rewarm *rewarm, uint32_t ino)
{
	thaw_image_path(rewarm->image, ino, rewarm->path, sizeof(rewarm->path));
	return rewarm->path;
}

static int open_inode(struct rewarm *rewarm, uint32_t ino, int flags)
{
	if (rewarm->fd >= 0 && rewarm->open_ino == ino)
		return rewarm->fd;
	closep(&rewarm->fd);
	rewarm->fd = openat(rewarm->root_fd, path_of(rewarm, ino),
			    O_RDONLY | O_NOFOLLOW | O_CLOEXEC | flags);
	rewarm->open_ino = ino;
	return rewarm->fd;
}

static void list(struct rewarm *rewarm, uint32_t ino)
{
	int fd = openat(rewarm->root_fd, path_of(rewarm, ino),
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);

	while (directory && readdir(directory))
		;
	if (directory)
		(void)closedir(directory);
	else
		(void)safe_close(fd);
}

static int read_pages(struct rewarm *rewarm, const struct thaw_warm_op *op)
{
	int fd = open_inode(rewarm, op->ino, 0);

	if (fd < 0)
		return -errno;
	/* The kernel reads at once, whatever it thinks of reading ahead, and copies nothing to us. */
	if (readahead(fd, (off64_t)op->first * THAW_PAGE_SIZE, op->length) < 0)
		return -errno;
	*rewarm->pages += op->count;
	return 0;
}

static void look_up(struct rewarm *rewarm, const struct thaw_warm_op *op)
{
	char name[THAW_NAME_MAX + 1];
	struct stat st;
	int fd = open_inode(rewarm, op->ino, O_DIRECTORY);

	memcpy(name, op->name.text, op->name.len);
	name[op->name.len] = '\0';
	if (fd >= 0)
		(void)fstatat(fd, name, &st,
			      AT_SYMLINK_NOFOLLOW); /* being asked is the point */
}

static int walk(struct rewarm *rewarm, const struct thaw_warm *set, uint32_t ops)
{
	char target[4096];
	int r = 0;

	for (uint32_t i = 0; i < ops && r != -EIO && r != -ENOTCONN; i++) {
		struct thaw_warm_op op;

		thaw_warm_op(set, i, &op);
		r = 0;
		if (op.kind == THAW_WARM_PAGES)
			r = read_pages(rewarm, &op);
		else if (op.kind == THAW_WARM_LIST)
			list(rewarm, op.ino);
		else if (op.kind == THAW_WARM_LOOK)
			look_up(rewarm, &op);
		else
			(void)!readlinkat(rewarm->root_fd, path_of(rewarm, op.ino),
					  target, sizeof(target));
	}
	return r == -EIO || r == -ENOTCONN
		       ? r
		       : 0; /* others are a file's own, and no more than a pity */
}

struct work {
	struct thaw_source *source;
	const uint8_t *identity;
	const char *file, *warm;
	int root_fd;
	uint64_t *pages; /* shared */
};

/* The image may be anybody's: in a confined process, which ends. */
static int rewarm_confined(void *userdata, struct thaw_error *err)
{
	const struct work *work = userdata;
	struct rewarm rewarm = { .root_fd = work->root_fd, .fd = -1, .pages = work->pages };
	struct thaw_warm_pages sets;
	struct thaw_image *image;
	int r = thaw_image_open_known(work->source, work->identity, err, &image);

	if (r == 0)
		r = thaw_warm_pages_init(&sets, image, work->file, work->warm, err);
	if (r < 0)
		return r;
	rewarm.image = image;
	for (unsigned i = 0; r == 0 && i < sets.count; i++)
		r = walk(&rewarm, sets.sets[i], sets.infos[i].ops);
	return r < 0 ? thaw_io(err, r, "the image cannot be read") : 0;
}

static int run_work(struct work *work, struct thaw_error *err, uint64_t *pages)
{
	const struct thaw_confined_child child = {
		.kind = THAW_SANDBOX_READER,
		.place = work->root_fd,
		.keep = &work->source->fd,
		.keep_count = 1,
		.log = true,
		.foreground = true,
		.seconds = SECONDS,
		.what = "reads what is warm",
		.work = rewarm_confined,
		.userdata = work,
	};
	int r;

	work->pages = thaw_shared_memory(sizeof(*work->pages));
	if (!work->pages)
		return thaw_oom(err);
	r = thaw_confined_child(&child, err);
	*pages += *work->pages;
	(void)munmap(work->pages, sizeof(*work->pages)); /* as it was mapped: cannot fail */
	return r > 0 ? 0 : r;
}

int thaw_rewarm(const char *directory, const char *warm, struct thaw_error *err,
		uint64_t *pages)
{
	_cleanup_(freep) char *file = NULL;
	struct work work = { .warm = warm, .root_fd = -1 };
	struct thaw_stat st;
	int r;

	r = thaw_stat_directory(directory, err, &st);
	if (r == 0)
		r = thaw_mounted_image(&st, err, &file);
	if (r == 0)
		r = thaw_source_open(file, err, &work.source);
	if (r < 0)
		return r;
	work.identity = st.identity;
	work.file = file;
	work.root_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = work.root_fd < 0 ? thaw_io(err, -errno, "\"%.300s\"", directory)
			     : run_work(&work, err, pages);
	closep(&work.root_fd);
	thaw_source_free(work.source);
	return r;
}
