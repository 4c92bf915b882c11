/* SPDX-License-Identifier: Apache-2.0 */
/* Folders: files of zips and directories, and reading them. */
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "canonical-tar.h"
#include "thaw/format.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define FILES_MAX (4u << 20) /* as in a zip */

struct thaw_folder_store {
	struct thaw_file *files;
	size_t count, capacity;
	int fd;
	struct thaw_zip *zip;
	bool owns_text; /* paths and targets are ours: a directory's */
};

struct thaw_folder_store *thaw_folder_free(struct thaw_folder_store *store)
{
	if (!store)
		return NULL;
	for (size_t i = 0; store->owns_text && i < store->count; i++) {
		free((char *)store->files[i].path);
		free((char *)store->files[i].target);
	}
	free(store->files);
	thaw_zip_free(store->zip);
	(void)safe_close(store->fd);
	free(store);
	return NULL;
}

struct thaw_folder thaw_folder_all(const struct thaw_folder_store *store)
{
	return (struct thaw_folder){ .files = store->files, .count = store->count };
}

int thaw_folder_open_zip(int fd, struct thaw_zip *zip, struct thaw_error *err,
			 struct thaw_folder_store **ret_store)
{
	_cleanup_(thaw_folder_freep) struct thaw_folder_store *store =
		calloc(1, sizeof(*store));

	if (!store) {
		thaw_zip_free(zip);
		(void)safe_close(fd);
		return thaw_oom(err);
	}
	store->fd = fd;
	store->zip = zip;
	store->count = thaw_zip_count(zip);
	store->files = calloc(store->count ? store->count : 1, sizeof(*store->files));
	if (!store->files) {
		store->count = 0;
		return thaw_oom(err);
	}
	for (size_t i = 0; i < store->count; i++) {
		const struct thaw_zip_member *member = thaw_zip_member(zip, i);

		store->files[i] = (struct thaw_file){
			.path = member->name,
			.mode = member->mode,
			.mtime = member->mtime,
			.size = member->size,
			.member = member,
			.zip = zip,
			.directory = -1,
		};
	}
	*ret_store = steal_ptr(store);
	return 0;
}

/* -- directories -- */

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int add_entry(struct thaw_folder_store *store, const FTSENT *ent, const char *path,
		     struct thaw_error *err)
{
	const struct stat *st = ent->fts_statp;
	char target[THAW_PATH_MAX + 2];
	struct thaw_file *file;
	ssize_t n = 0;

	if (store->count >= FILES_MAX)
		return thaw_limit(err, "more than %u files in the directory", FILES_MAX);
	if (S_ISLNK(st->st_mode)) {
		n = readlink(ent->fts_accpath, target, THAW_PATH_MAX + 1);
		if (n < 0)
			return thaw_io(err, -errno, "\"%.200s\": cannot be read", path);
	}
	target[n] = '\0';
	if (grow(&store->files, &store->capacity, store->count + 1,
		 sizeof(*store->files)) < 0)
		return thaw_oom(err);
	file = &store->files[store->count];
	*file = (struct thaw_file){
		.path = strdup(path),
		.mode = st->st_mode & (S_IFMT | 07777),
		.mtime = st->st_mtim.tv_sec,
		.size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : (uint64_t)n,
		.target = S_ISLNK(st->st_mode) ? strdup(target) : NULL,
		.directory = store->fd,
	};
	store->count++;
	if (!file->path || (S_ISLNK(st->st_mode) && !file->target))
		return thaw_oom(err);
	return 0;
}

static int walk(struct thaw_folder_store *store, FTS *fts, size_t root_len,
		struct thaw_error *err)
{
	FTSENT *ent;

	while ((errno = 0, ent = fts_read(fts)) != NULL) {
		const char *path = ent->fts_path + root_len;
		int r = 0;

		if (ent->fts_level == 0 && ent->fts_info != FTS_DNR &&
		    ent->fts_info != FTS_ERR)
			continue;
		path += *path == '/';
		switch (ent->fts_info) {
		case FTS_DP:
			break;
		case FTS_D:
		case FTS_F:
		case FTS_SL:
		case FTS_SLNONE:
			r = add_entry(store, ent, path, err);
			break;
		case FTS_DNR:
		case FTS_ERR:
		case FTS_NS:
			return thaw_io(err, -ent->fts_errno, "\"%.200s\": cannot be read",
				       path);
		default:
			return thaw_refused(
				err, "\"%.200s\": is no file, directory or symlink",
				path);
		}
		if (r < 0)
			return r;
	}
	return errno ? thaw_io(err, -errno, "cannot be read") : 0;
}

int thaw_folder_open_directory(int fd, struct thaw_error *err,
			       struct thaw_folder_store **ret_store)
{
	_cleanup_(thaw_folder_freep) struct thaw_folder_store *store =
		calloc(1, sizeof(*store));
	char root[64], *roots[2] = { root, NULL };
	FTS *fts;
	int r;

	if (!store) {
		(void)safe_close(fd);
		return thaw_oom(err);
	}
	store->fd = fd;
	store->owns_text = true;
	(void)snprintf(root, sizeof(root), "/proc/self/fd/%d/", fd); /* fits */
	fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	if (!fts)
		return thaw_io(err, -errno, "cannot be read");
	r = walk(store, fts, strlen(root), err);
	(void)fts_close(fts);
	if (r < 0)
		return r;
	*ret_store = steal_ptr(store);
	return 0;
}

/* -- parts of folders -- */

/* The first file whose path is not before this one. */
static size_t lower_bound(const struct thaw_folder *folder, const char *path)
{
	size_t low = 0, high = folder->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (thaw_canonical_compare(folder_path(folder, &folder->files[middle]),
					   path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct thaw_folder thaw_folder_below(const struct thaw_folder *folder, const char *name)
{
	size_t len = strlen(name), first = lower_bound(folder, name), end;

	while (first < folder->count &&
	       strcmp(folder_path(folder, &folder->files[first]), name) == 0)
		first++;
	for (end = first; end < folder->count; end++) {
		const char *path = folder_path(folder, &folder->files[end]);

		if (strncmp(path, name, len) != 0 || path[len] != '/')
			break;
	}
	return (struct thaw_folder){
		.files = folder->files + first,
		.count = end - first,
		.skip = folder->skip + len + 1,
	};
}

const struct thaw_file *thaw_folder_find(const struct thaw_folder *folder,
					 const char *path)
{
	size_t i = lower_bound(folder, path);

	if (i < folder->count &&
	    strcmp(folder_path(folder, &folder->files[i]), path) == 0)
		return &folder->files[i];
	return NULL;
}

/* -- reading -- */

#define PIECE_SIZE (256u << 10)

struct thaw_file_reader {
	struct thaw_zip_cursor *cursor;
	const struct thaw_file *file;
	int fd; /* of a file in a directory */
	uint64_t left;
	uint64_t consumed; /* of directories' files */
	uint8_t piece[PIECE_SIZE];
};

int thaw_file_reader_new(struct thaw_file_reader **ret_reader)
{
	struct thaw_file_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	memset(reader, 0, offsetof(struct thaw_file_reader, piece));
	reader->fd = -1;
	if (thaw_zip_cursor_new(&reader->cursor) < 0) {
		free(reader);
		return -ENOMEM;
	}
	*ret_reader = reader;
	return 0;
}

struct thaw_file_reader *thaw_file_reader_free(struct thaw_file_reader *reader)
{
	if (reader) {
		thaw_zip_cursor_free(reader->cursor);
		(void)safe_close(reader->fd);
		free(reader);
	}
	return NULL;
}

/* O_NOFOLLOW and the second look: the tree may change while it is packed. */
static int open_file(struct thaw_file_reader *reader, const struct thaw_file *file,
		     struct thaw_error *err)
{
	struct stat st;

	reader->fd = openat(file->directory, file->path,
			    O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (reader->fd < 0 || fstat(reader->fd, &st) < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", file->path);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != file->size)
		return thaw_io(err, -EIO, "\"%.200s\": changed while it was read",
			       file->path);
	return 0;
}

int thaw_file_begin(struct thaw_file_reader *reader, const struct thaw_file *file,
		    struct thaw_error *err)
{
	reader->fd = safe_close(reader->fd);
	reader->file = file;
	reader->left = file->size;
	if (file->member)
		return thaw_zip_begin(reader->cursor, file->zip, file->member, err);
	return file->target ? 0 : open_file(reader, file, err);
}

int thaw_file_next(struct thaw_file_reader *reader, struct thaw_error *err,
		   const uint8_t **ret_data, size_t *ret_len)
{
	const struct thaw_file *file = reader->file;
	size_t want = reader->left < PIECE_SIZE ? (size_t)reader->left : PIECE_SIZE;
	ssize_t n;

	if (file->member)
		return thaw_zip_next(reader->cursor, err, ret_data, ret_len);
	if (file->target) {
		*ret_data = (const uint8_t *)file->target;
		*ret_len = (size_t)reader->left;
		reader->left = 0;
		return 0;
	}
	do {
		n = read(reader->fd, reader->piece, want);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return thaw_io(err, -errno, "\"%.200s\": cannot be read", file->path);
	if (n == 0 && reader->left > 0)
		return thaw_io(err, -EIO, "\"%.200s\": changed while it was read",
			       file->path);
	reader->left -= (uint64_t)n;
	reader->consumed += (uint64_t)n;
	*ret_data = reader->piece;
	*ret_len = (size_t)n;
	return 0;
}

int thaw_file_load(struct thaw_file_reader *reader, const struct thaw_file *file,
		   size_t limit, struct thaw_error *err, char **ret_data, size_t *ret_len)
{
	_cleanup_(freep) char *all = NULL;
	size_t at = 0;
	int r;

	if (file->size > limit)
		return thaw_limit(err, "\"%s\": %" PRIu64 " bytes; at most %zu are read",
				  file->path, file->size, limit);
	all = malloc((size_t)file->size + 1);
	if (!all)
		return thaw_oom(err);
	r = thaw_file_begin(reader, file, err);
	while (r == 0) {
		const uint8_t *data;
		size_t len;

		r = thaw_file_next(reader, err, &data, &len);
		if (r < 0)
			return r;
		if (len == 0)
			break;
		memcpy(all + at, data, len); /* never more than the file's size */
		at += len;
	}
	if (r < 0)
		return r;
	all[at] = '\0';
	*ret_data = steal_ptr(all);
	*ret_len = at;
	return 0;
}

int thaw_file_check(struct thaw_file_reader *reader, const struct thaw_file *file,
		    struct thaw_error *err)
{
	const uint8_t *data;
	size_t len = 1;
	int r = 0;

	if (!file->member || S_ISDIR(file->mode))
		return 0;
	r = thaw_file_begin(reader, file, err);
	while (r == 0 && len > 0)
		r = thaw_file_next(reader, err, &data, &len);
	return r;
}

uint64_t thaw_file_consumed(const struct thaw_file_reader *reader)
{
	return thaw_zip_consumed(reader->cursor) + reader->consumed;
}
