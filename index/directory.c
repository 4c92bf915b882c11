/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as a canonical tar: entries sorted by name, owner root, times in
 * whole seconds, written by libarchive. The same tree gives the same bytes on
 * every machine and file system.
 *
 * fts(3) walks; libarchive writes into a buffer; each call of next() moves on
 * by one entry or one piece of a file and hands the buffer out.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pack-internal.h"
#include "util/cleanup.h"
#include "util/growing.h"

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
	struct archive *archive;
	struct archive_entry *entry;
	bool finished;
	int file; /* being copied, or -1 */
	uint64_t left; /* bytes of it */
	char *path; /* of it, for messages */

	uint8_t *piece; /* PIECE_SIZE */
	uint8_t *out;
	size_t out_size, out_capacity;
	void *seen; /* tsearch(3) tree of struct seen: every file, where a package manager links */
};

static la_ssize_t collect(struct archive *archive, void *userdata, const void *data, size_t len)
{
	struct directory_input *input = userdata;

	if (grow(&input->out, &input->out_capacity, input->out_size + len, 1) < 0) {
		archive_set_error(archive, ENOMEM, "no memory");
		return -1;
	}
	memcpy(input->out + input->out_size, data, len);
	input->out_size += len;
	return (la_ssize_t)len;
}

static int write_failure(struct directory_input *input, const char *path, struct thaw_error *err)
{
	const char *text = archive_error_string(input->archive);

	if (archive_errno(input->archive) == ENOMEM)
		return thaw_oom(err);
	return thaw_refused(err, "\"%.200s\": cannot be put into a tar (%s)", path,
			    text ? text : "unknown");
}

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

static int set_target(struct directory_input *input, const FTSENT *ent, const char *path,
		      struct thaw_error *err)
{
	char target[THAW_PATH_MAX + 2];
	ssize_t n = readlink(ent->fts_accpath, target, sizeof(target) - 1);

	if (n < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", path);
	target[n] = '\0';
	archive_entry_set_symlink(input->entry, target);
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
	const char *earlier = NULL;
	int r = 0;

	archive_entry_clear(input->entry);
	archive_entry_set_pathname(input->entry, path);
	archive_entry_set_mode(input->entry, st->st_mode & (S_IFMT | 0777));
	/* Seconds, floored: what a .pyc remembers of its source. */
	archive_entry_set_mtime(input->entry, st->st_mtim.tv_sec, 0);
	archive_entry_set_size(input->entry, 0);
	if (S_ISREG(st->st_mode)) {
		r = find_link(input, st, path, err, &earlier);
		if (r < 0)
			return r;
		if (earlier)
			archive_entry_set_hardlink(input->entry, earlier);
		else
			archive_entry_set_size(input->entry, st->st_size);
	} else if (S_ISLNK(st->st_mode)) {
		r = set_target(input, ent, path, err);
		if (r < 0)
			return r;
	}
	if (S_ISREG(st->st_mode) && !earlier && st->st_size > 0) {
		r = open_file(input, ent, path, st, err);
		if (r < 0)
			return r;
	}
	if (archive_write_header(input->archive, input->entry) != ARCHIVE_OK)
		return write_failure(input, path, err);
	return 0;
}

static int write_piece(struct directory_input *input, struct thaw_error *err)
{
	size_t want = input->left < PIECE_SIZE ? (size_t)input->left : PIECE_SIZE;
	ssize_t n = read(input->file, input->piece, want);

	if (n < 0 && errno == EINTR)
		return 0;
	if (n < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", input->path);
	if (n == 0)
		return thaw_io(err, -EIO, "\"%.200s\": changed while it was read", input->path);
	if (archive_write_data(input->archive, input->piece, (size_t)n) != n)
		return write_failure(input, input->path, err);
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
		if (archive_write_close(input->archive) != ARCHIVE_OK)
			return write_failure(input, "end of the archive", err);
		return 0;
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

	input->out_size = 0;
	while (input->out_size == 0 && !input->finished) {
		int r = input->file >= 0 ? write_piece(input, err) : write_next(input, err);

		if (r < 0)
			return r;
	}
	*ret_data = input->out;
	*ret_len = input->out_size;
	return 0;
}

static void directory_free(struct thaw_input *base)
{
	struct directory_input *input = (struct directory_input *)base;

	tdestroy(input->seen, free);
	if (input->fts)
		(void)fts_close(input->fts);
	if (input->archive)
		(void)archive_write_free(input->archive); /* its bytes are all in out */
	if (input->entry)
		archive_entry_free(input->entry);
	(void)safe_close(input->file);
	(void)safe_close(input->fd);
	free(input->path);
	free(input->piece);
	free(input->out);
	free(input);
}

static int open_writer(struct directory_input *input, struct thaw_error *err)
{
	input->archive = archive_write_new();
	input->entry = archive_entry_new();
	input->piece = malloc(PIECE_SIZE);
	if (!input->archive || !input->entry || !input->piece)
		return thaw_oom(err);
	/* GNU tar's format keeps names as bytes; pax would want two blocks more for each entry. */
	if (archive_write_set_format_gnutar(input->archive) != ARCHIVE_OK ||
	    archive_write_set_bytes_per_block(input->archive, 0) != ARCHIVE_OK ||
	    archive_write_open(input->archive, input, NULL, collect, NULL) != ARCHIVE_OK)
		return write_failure(input, ".", err);
	return 0;
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
	r = open_writer(input, err);
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
