/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as a canonical tar. The same tree gives the same bytes on every
 * machine and file system. fts(3) walks; each call of next() moves on by one
 * entry or one piece of a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "canonical-tar.h"
#include "pack-internal.h"
#include "util/cleanup.h"

#define PIECE_SIZE (256u << 10)

/* A file with several names, of which one has been written. */
struct seen {
	dev_t device;
	ino_t inode;
	char path[];
};

struct directory_input {
	struct thaw_input base;
	int fd;
	char root[64]; /* /proc/self/fd/N: the walk begins at the descriptor */
	FTS *fts;
	struct thaw_canonical *tar;
	bool finished;
	int file; /* being copied, or -1 */
	uint64_t left; /* bytes of it */
	char *path; /* of it, for messages */

	uint8_t *piece; /* PIECE_SIZE */
	void *seen; /* tsearch(3) tree of struct seen: every file, where a package manager links */
};

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int compare_seen(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

/* The earlier name of this file, if it has one; else remember this one. */
static int find_link(struct directory_input *input, const struct stat *st, const char *path,
		     struct thaw_error *err, const char **ret_earlier)
{
	size_t size = sizeof(struct seen) + strlen(path) + 1;
	struct seen *own, **found;

	*ret_earlier = NULL;
	if (st->st_nlink < 2)
		return 0;
	own = malloc(size);
	if (!own)
		return thaw_oom(err);
	own->device = st->st_dev;
	own->inode = st->st_ino;
	strcpy(own->path, path);
	found = tsearch(own, &input->seen, compare_seen);
	if (!found || *found != own)
		free(own);
	if (!found)
		return thaw_oom(err);
	if (*found != own)
		*ret_earlier = (*found)->path;
	return 0;
}

/* target: THAW_PATH_MAX + 2 bytes. */
static int read_target(const FTSENT *ent, const char *path, char *target,
		       struct thaw_error *err)
{
	ssize_t n = readlink(ent->fts_accpath, target, THAW_PATH_MAX + 1);

	if (n < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", path);
	target[n] = '\0';
	return 0;
}

/* O_NOFOLLOW and the second look: the tree may change while it is packed. */
static int open_file(struct directory_input *input, const FTSENT *ent, const char *path,
		     const struct stat *expected, struct thaw_error *err)
{
	struct stat st;

	input->file = open(ent->fts_accpath, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (input->file < 0 || fstat(input->file, &st) < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", path);
	if (!S_ISREG(st.st_mode) || st.st_size != expected->st_size)
		return thaw_io(err, -EIO, "\"%.200s\": changed while it was read", path);
	free(input->path);
	input->path = strdup(path);
	if (!input->path)
		return thaw_oom(err);
	input->left = (uint64_t)st.st_size;
	return 0;
}

static int write_entry(struct directory_input *input, const FTSENT *ent, const char *path,
		       struct thaw_error *err)
{
	const struct stat *st = ent->fts_statp;
	/* Seconds, floored: what a .pyc remembers of its source. */
	struct thaw_canonical_member member = {
		.path = path,
		.mode = st->st_mode,
		.mtime = st->st_mtim.tv_sec,
	};
	char target[THAW_PATH_MAX + 2];
	int r = 0;

	if (S_ISREG(st->st_mode)) {
		r = find_link(input, st, path, err, &member.hardlink);
		member.size = (uint64_t)st->st_size;
	} else if (S_ISLNK(st->st_mode)) {
		r = read_target(ent, path, target, err);
		member.target = target;
	}
	if (r == 0 && S_ISREG(st->st_mode) && !member.hardlink && st->st_size > 0)
		r = open_file(input, ent, path, st, err);
	return r < 0 ? r : thaw_canonical_member(input->tar, &member, err);
}

static int write_piece(struct directory_input *input, struct thaw_error *err)
{
	size_t want = input->left < PIECE_SIZE ? (size_t)input->left : PIECE_SIZE;
	ssize_t n = read(input->file, input->piece, want);
	int r;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", input->path);
	if (n == 0)
		return thaw_io(err, -EIO, "\"%.200s\": changed while it was read", input->path);
	r = thaw_canonical_data(input->tar, input->path, input->piece, (size_t)n, err);
	if (r < 0)
		return r;
	input->left -= (uint64_t)n;
	input->base.consumed += (uint64_t)n;
	if (input->left == 0)
		input->file = safe_close(input->file);
	return 0;
}

static int write_next(struct directory_input *input, struct thaw_error *err)
{
	FTSENT *ent;
	const char *path;

	errno = 0;
	ent = fts_read(input->fts);
	if (!ent) {
		if (errno)
			return thaw_io(err, -errno, "cannot be read");
		input->finished = true;
		return thaw_canonical_end(input->tar, err);
	}
	path = ent->fts_path + strlen(input->root);
	path += *path == '/';
	if (*path == '\0')
		path = ".";
	switch (ent->fts_info) {
	case FTS_DP:
		return 0;
	case FTS_D:
	case FTS_F:
	case FTS_SL:
	case FTS_SLNONE:
		return write_entry(input, ent, path, err);
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		return thaw_io(err, -ent->fts_errno, "\"%.200s\": cannot be read", path);
	case FTS_DC:
		return thaw_refused(err, "\"%.200s\": is a loop of directories", path);
	default:
		return thaw_refused(err, "\"%.200s\": is no file, directory or symlink", path);
	}
}

static int next_directory(struct thaw_input *base, struct thaw_error *err,
			  const uint8_t **ret_data, size_t *ret_len)
{
	struct directory_input *input = (struct directory_input *)base;

	for (;;) {
		int r;

		*ret_len = thaw_canonical_take(input->tar, ret_data);
		if (*ret_len > 0 || input->finished)
			return 0;
		r = input->file >= 0 ? write_piece(input, err) : write_next(input, err);
		if (r < 0)
			return r;
	}
}

static void directory_free(struct thaw_input *base)
{
	struct directory_input *input = (struct directory_input *)base;

	tdestroy(input->seen, free);
	if (input->fts)
		(void)fts_close(input->fts);
	thaw_canonical_free(input->tar);
	(void)safe_close(input->file);
	(void)safe_close(input->fd);
	free(input->path);
	free(input->piece);
	free(input);
}

/* Takes fd in any case. */
int thaw_input_open_directory(int fd, struct thaw_error *err, struct thaw_input **ret_input)
{
	_cleanup_(thaw_input_freep) struct thaw_input *base = NULL;
	struct directory_input *input = calloc(1, sizeof(*input));
	char *roots[2];
	int r;

	if (!input) {
		(void)safe_close(fd);
		return thaw_oom(err);
	}
	base = &input->base;
	base->next = next_directory;
	base->free = directory_free;
	base->kind = "directory";
	input->fd = fd;
	input->file = -1;
	input->piece = malloc(PIECE_SIZE);
	if (!input->piece)
		return thaw_oom(err);
	r = thaw_canonical_new(err, &input->tar);
	if (r < 0)
		return r;
	(void)snprintf(input->root, sizeof(input->root), "/proc/self/fd/%d/", fd); /* fits */
	roots[0] = input->root;
	roots[1] = NULL;
	input->fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	if (!input->fts)
		return thaw_io(err, -errno, "cannot be read");
	*ret_input = steal_ptr(base);
	return 0;
}
