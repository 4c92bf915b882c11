/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees in a store of layers: what is in them, and their removal.
 *
 * A manifest is not parsed: it is written anew from what stands there, and must
 * come out the same. Directories are read whole and closed before the next is
 * opened, so that depth costs no descriptors.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "digest.h"
#include "layer-internal.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

#define PIECE (128u << 10)

/* -- names in a directory -- */

struct names {
	char *text; /* NUL-terminated, one after the other */
	size_t size, capacity;
	size_t *offsets;
	size_t count, offsets_capacity;
};

static void names_deinit(struct names *names)
{
	free(names->text);
	free(names->offsets);
}

static int compare_names(const void *a, const void *b, void *text)
{
	return strcmp((const char *)text + *(const size_t *)a,
		      (const char *)text + *(const size_t *)b);
}

/* All names of an open directory, which is closed; sorted. */
static int read_names(int fd, struct names *names)
{
	DIR *dir = fdopendir(fd);
	const struct dirent *entry;
	int r = 0;

	if (!dir) {
		r = -errno;
		(void)safe_close(fd);
		return r;
	}
	for (errno = 0; r == 0 && (entry = readdir(dir)); errno = 0) {
		size_t len = strlen(entry->d_name) + 1;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		r = grow(&names->text, &names->capacity, names->size + len, 1);
		if (r == 0)
			r = grow(&names->offsets, &names->offsets_capacity,
				 names->count + 1, sizeof(*names->offsets));
		if (r < 0)
			break;
		memcpy(names->text + names->size, entry->d_name, len);
		names->offsets[names->count++] = names->size;
		names->size += len;
	}
	if (r == 0 && errno)
		r = -errno;
	(void)closedir(dir); /* only read */
	if (names->count > 0)
		qsort_r(names->offsets, names->count, sizeof(*names->offsets),
			compare_names, names->text);
	return r;
}

/* -- the manifest's text -- */

struct manifest {
	int tree;
	bool quick;
	enum thaw_manifest_mode mode;
	int fd;
	char *buf, *expected; /* both PIECE bytes */
	size_t used;
	char path[THAW_PATH_MAX + 1]; /* of the current entry, from the tree */
	uid_t owner;		      /* of the tree itself */
	struct thaw_digest *digest;
	uint8_t *data; /* PIECE bytes */
	struct thaw_error *err;
};

static ssize_t read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int flush(struct manifest *manifest)
{
	size_t len = manifest->used;
	ssize_t n;
	int r;

	manifest->used = 0;
	if (manifest->mode == THAW_MANIFEST_WRITE) {
		r = write_all(manifest->fd, manifest->buf, len);
		return r < 0 ? thaw_io(manifest->err, r,
				       "a layer's manifest cannot be written")
			     : 0;
	}
	n = read_full(manifest->fd, manifest->expected, len);
	if (n < 0)
		return thaw_io(manifest->err, (int)n,
			       "a layer's manifest cannot be read");
	return (size_t)n == len && memcmp(manifest->buf, manifest->expected, len) == 0
		       ? 0
		       : -ESTALE;
}

static int put(struct manifest *manifest, const char *text, size_t len)
{
	while (len > 0) {
		size_t n = PIECE - manifest->used;

		if (n == 0) {
			int r = flush(manifest);

			if (r < 0)
				return r;
			continue;
		}
		n = n < len ? n : len;
		memcpy(manifest->buf + manifest->used, text, n);
		manifest->used += n;
		text += n;
		len -= n;
	}
	return 0;
}

/* Bytes that are no text as %XX: one line for each entry, whatever its name. */
static int put_escaped(struct manifest *manifest, const char *text)
{
	int r = 0;

	for (; r == 0 && *text; text++) {
		char escaped[4];

		if ((uint8_t)*text > ' ' && *text != '%' && *text != 127) {
			r = put(manifest, text, 1);
			continue;
		}
		(void)snprintf(escaped, sizeof(escaped), "%%%02X", (uint8_t)*text);
		r = put(manifest, escaped, 3);
	}
	return r;
}

/* -- entries -- */

static int fail(const struct manifest *manifest, int error)
{
	return thaw_io(manifest->err, error, "%s: cannot be read in its layer",
		       manifest->path);
}

static int digest_file(struct manifest *manifest, int fd, char hex[THAW_DIGEST_HEX])
{
	uint8_t sum[THAW_DIGEST_SIZE];
	ssize_t n;

	if (thaw_digest_start(manifest->digest) < 0)
		return thaw_oom(manifest->err);
	while ((n = read_full(fd, manifest->data, PIECE)) > 0)
		if (thaw_digest_add(manifest->digest, manifest->data, (size_t)n) < 0)
			return thaw_oom(manifest->err);
	if (n < 0)
		return fail(manifest, (int)n);
	if (thaw_digest_end(manifest->digest, sum) < 0)
		return thaw_oom(manifest->err);
	thaw_digest_hex(sum, hex);
	return 0;
}

static int put_contents(struct manifest *manifest, int directory, const char *name,
			const struct stat *st)
{
	char text[THAW_PATH_MAX + 1], hex[THAW_DIGEST_HEX];
	ssize_t n;
	int r = 0;

	if (manifest->quick) {
		n = snprintf(text, sizeof(text), " %" PRIu64 " %" PRIu64 " %lld.%09ld",
			     (uint64_t)st->st_dev, (uint64_t)st->st_ino,
			     (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
		return put(manifest, text, (size_t)n);
	}
	if (S_ISREG(st->st_mode)) {
		_cleanup_(closep) int fd = openat(
			directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

		r = fd < 0 ? fail(manifest, -errno) : digest_file(manifest, fd, hex);
		if (r == 0)
			r = put(manifest, " ", 1);
		return r < 0 ? r : put(manifest, hex, sizeof(hex) - 1);
	}
	if (S_ISLNK(st->st_mode)) {
		n = readlinkat(directory, name, text, sizeof(text) - 1);
		if (n < 0)
			return fail(manifest, -errno);
		text[n] = '\0';
		r = put(manifest, " ", 1);
		return r < 0 ? r : put_escaped(manifest, text);
	}
	return 0;
}

static char kind_of(const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return 'd';
	if (S_ISREG(st->st_mode))
		return 'f';
	if (S_ISLNK(st->st_mode))
		return 'l';
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0) ? 'w' : '?';
}

static int put_entry(struct manifest *manifest, int directory, const char *name,
		     const struct stat *st)
{
	char text[128], kind = kind_of(st);
	int r;

	/* Who wrote it may be taken over by an image, and is not believed. */
	if (kind == '?' || st->st_uid != manifest->owner ||
	    (kind == 'f' && (st->st_mode & 07000)))
		return thaw_refused(manifest->err,
				    "%s: is not what thaw puts into a layer, or not ours",
				    manifest->path);
	/* A directory's size is the file system's matter, a link's mode the kernel's. */
	r = snprintf(text, sizeof(text), "%c %04o %" PRIu64 " %lld", kind,
		     (unsigned)(st->st_mode & 07777),
		     kind == 'd' ? 0 : (uint64_t)st->st_size,
		     kind == 'l' || kind == 'w' ? 0 : (long long)st->st_mtim.tv_sec);
	r = put(manifest, text, (size_t)r);
	if (r == 0)
		r = put_contents(manifest, directory, name, st);
	if (r == 0)
		r = put(manifest, " ", 1);
	if (r == 0)
		r = put_escaped(manifest, manifest->path);
	return r < 0 ? r : put(manifest, "\n", 1);
}

/* The directory at manifest->path, of `len` bytes; depth is bounded by that of paths. */
static int put_directory(struct manifest *manifest, size_t len)
{
	struct names names = { 0 };
	int fd, r;

	fd = openat(manifest->tree, len ? manifest->path : ".",
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail(manifest, -errno);
	r = read_names(fd, &names);
	if (r < 0)
		r = fail(manifest, r);
	for (size_t i = 0; r == 0 && i < names.count; i++) {
		const char *name = names.text + names.offsets[i];
		size_t name_len = strlen(name), at = len;
		struct stat st;

		if (len + name_len + 1 > THAW_PATH_MAX) {
			r = thaw_refused(manifest->err,
					 "a layer has a path that is too long");
			break;
		}
		if (at > 0)
			manifest->path[at++] = '/';
		memcpy(manifest->path + at, name, name_len + 1);
		if (fstatat(manifest->tree, manifest->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = fail(manifest, -errno);
		if (r == 0)
			r = put_entry(manifest, manifest->tree, manifest->path, &st);
		if (r == 0 && S_ISDIR(st.st_mode))
			r = put_directory(manifest, at + name_len);
		manifest->path[len] = '\0';
	}
	names_deinit(&names);
	return r;
}

static int put_all(struct manifest *manifest, const char *head)
{
	struct stat st;
	char more;
	int r;

	r = put(manifest, head, strlen(head));
	(void)snprintf(manifest->path, sizeof(manifest->path), ".");
	if (r == 0 && fstat(manifest->tree, &st) < 0)
		r = fail(manifest, -errno);
	if (r == 0)
		manifest->owner = st.st_uid;
	if (r == 0)
		r = put_entry(manifest, manifest->tree, ".", &st);
	manifest->path[0] = '\0';
	if (r == 0)
		r = put_directory(manifest, 0);
	if (r == 0)
		r = flush(manifest);
	if (r == 0 && manifest->mode == THAW_MANIFEST_COMPARE &&
	    read_full(manifest->fd, &more, 1) != 0)
		r = -ESTALE;
	return r;
}

int thaw_manifest(int tree, const char *head, bool quick, enum thaw_manifest_mode mode,
		  int fd, struct thaw_error *err)
{
	struct manifest *manifest = calloc(1, sizeof(*manifest));
	int r;

	if (!manifest)
		return thaw_oom(err);
	*manifest = (struct manifest){
		.tree = tree,
		.quick = quick,
		.mode = mode,
		.fd = fd,
		.err = err,
		.buf = malloc(PIECE),
		.expected = malloc(PIECE),
		.data = malloc(PIECE),
	};
	if (!manifest->buf || !manifest->expected || !manifest->data ||
	    thaw_digest_new(&manifest->digest) < 0)
		r = thaw_oom(err);
	else
		r = put_all(manifest, head);
	free(manifest->buf);
	free(manifest->expected);
	free(manifest->data);
	thaw_digest_free(manifest->digest);
	free(manifest);
	return r;
}

/* -- owners -- */

static int give_directory(int tree, char *path, size_t len, uid_t uid, gid_t gid)
{
	struct names names = { 0 };
	int fd, r;

	fd = openat(tree, len ? path : ".",
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR || errno == ELOOP ? 0 : -errno;
	r = read_names(fd, &names);
	for (size_t i = 0; r == 0 && i < names.count; i++) {
		const char *name = names.text + names.offsets[i];
		size_t name_len = strlen(name), at = len;

		if (len + name_len + 1 > THAW_PATH_MAX) {
			r = -ENAMETOOLONG;
			break;
		}
		if (at > 0)
			path[at++] = '/';
		memcpy(path + at, name, name_len + 1);
		r = give_directory(tree, path, at + name_len, uid, gid);
		if (r == 0 && fchownat(tree, path, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
			r = -errno;
		path[len] = '\0';
	}
	names_deinit(&names);
	return r;
}

int thaw_tree_give(int tree, uid_t uid, gid_t gid, struct thaw_error *err)
{
	_cleanup_(freep) char *path = calloc(1, THAW_PATH_MAX + 1);
	int r = path ? give_directory(tree, path, 0, uid, gid) : -ENOMEM;

	/* Last: it says whose all of it is. */
	if (r == 0 && fchown(tree, uid, gid) < 0)
		r = -errno;
	return r < 0 ? thaw_io(err, r, "a layer cannot be given to user %u",
			       (unsigned)uid)
		     : 0;
}

/* -- removal -- */

/* path, of len bytes, is a directory below `directory`. */
static int empty_directory(int directory, char *path, size_t len)
{
	struct names names = { 0 };
	int fd, r;

	/* Ours, but perhaps without the right to write for us. */
	fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)fchmod(fd, 0700); /* what cannot be removed is reported below */
	r = read_names(fd, &names);
	for (size_t i = 0; r == 0 && i < names.count; i++) {
		const char *name = names.text + names.offsets[i];
		size_t name_len = strlen(name);

		if (len + 1 + name_len > 2 * THAW_PATH_MAX) {
			r = -ENAMETOOLONG;
			break;
		}
		path[len] = '/';
		memcpy(path + len + 1, name, name_len + 1);
		if (unlinkat(directory, path, 0) < 0) {
			r = errno == EISDIR || errno == EPERM
				    ? empty_directory(directory, path, len + 1 + name_len)
				    : -errno;
			if (r == 0 && unlinkat(directory, path, AT_REMOVEDIR) < 0)
				r = -errno;
		}
		path[len] = '\0';
	}
	names_deinit(&names);
	return r;
}

int thaw_remove_tree(int directory, const char *name, struct thaw_error *err)
{
	_cleanup_(freep) char *path = malloc(2 * THAW_PATH_MAX + 2);
	size_t len = strlen(name);
	int r;

	if (!path)
		return thaw_oom(err);
	if (len > THAW_NAME_MAX)
		return thaw_io(err, -ENAMETOOLONG, "%s", name);
	memcpy(path, name, len + 1);
	r = empty_directory(directory, path, len);
	if (r == -ENOENT)
		return 0;
	if (r == -ENOTDIR || r == -ELOOP)
		r = unlinkat(directory, name, 0) < 0 ? -errno : 0;
	else if (r == 0)
		r = unlinkat(directory, name, AT_REMOVEDIR) < 0 ? -errno : 0;
	return r < 0 ? thaw_io(err, r, "an old layer cannot be removed") : 0;
}
