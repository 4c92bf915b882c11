/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files in one order, whether they lie in a zip archive or in a directory: what
 * a PEX or a wheel is looked at through. And the way to read them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "zip.h"

struct thaw_file {
	const char *path; /* in the zip or directory */
	mode_t mode;	  /* S_IFREG, S_IFDIR or S_IFLNK, and permission bits */
	int64_t mtime;	  /* seconds */
	uint64_t size;	  /* regular files: bytes; symlinks: of the target */
	/* One of: */
	const struct thaw_zip_member *member;
	const char *target; /* of a symlink in a directory */
	/* The zip, or the directory's descriptor. */
	const struct thaw_zip *zip;
	int directory;
};

/* In the order of thaw_canonical_compare(), so that what lies in a directory is a slice. */
struct thaw_folder {
	const struct thaw_file *files;
	size_t count;
	size_t skip; /* bytes of each path that lead to this folder */
};

struct thaw_folder_store; /* owns the files of a folder, and what they are read from */

/* All of a zip; takes zip in any case, and fd, which it was opened with. */
_must_check_ int thaw_folder_open_zip(int fd, struct thaw_zip *zip,
				      struct thaw_error *err,
				      struct thaw_folder_store **ret_store);
/*
 * All that is below a directory; takes fd in any case. Errors: -EPERM for what is
 * no file, directory or symlink, -EFBIG, I/O.
 */
_must_check_ int thaw_folder_open_directory(int fd, struct thaw_error *err,
					    struct thaw_folder_store **ret_store);
struct thaw_folder_store *thaw_folder_free(struct thaw_folder_store *store);
static inline void thaw_folder_freep(struct thaw_folder_store **store)
{
	thaw_folder_free(*store);
}
struct thaw_folder thaw_folder_all(const struct thaw_folder_store *store);

/* The path in this folder. */
static inline const char *folder_path(const struct thaw_folder *folder,
				      const struct thaw_file *file)
{
	return file->path + folder->skip;
}
/* What lies in a directory of it; empty when there is none. name has no slash at its end. */
struct thaw_folder thaw_folder_below(const struct thaw_folder *folder, const char *name);
/* The file or directory of this path, or NULL; what is only implied by others is not found. */
const struct thaw_file *thaw_folder_find(const struct thaw_folder *folder,
					 const char *path);

/* -- reading -- */

struct thaw_file_reader; /* reads one file at a time, of any folder */

_must_check_ int thaw_file_reader_new(struct thaw_file_reader **ret_reader); /* -ENOMEM */
struct thaw_file_reader *thaw_file_reader_free(struct thaw_file_reader *reader);
static inline void thaw_file_reader_freep(struct thaw_file_reader **reader)
{
	thaw_file_reader_free(*reader);
}
/* As with thaw_zip_begin() and thaw_zip_next(): regular files and symlinks. */
_must_check_ int thaw_file_begin(struct thaw_file_reader *reader,
				 const struct thaw_file *file, struct thaw_error *err);
_must_check_ int thaw_file_next(struct thaw_file_reader *reader, struct thaw_error *err,
				const uint8_t **ret_data, size_t *ret_len);
/* A whole file of at most limit bytes (-EFBIG), with a NUL behind it; free() it. */
_must_check_ int thaw_file_load(struct thaw_file_reader *reader,
				const struct thaw_file *file, size_t limit,
				struct thaw_error *err, char **ret_data, size_t *ret_len);
/* Read it for nothing but its size and CRC, where there are any. */
_must_check_ int thaw_file_check(struct thaw_file_reader *reader,
				 const struct thaw_file *file, struct thaw_error *err);
/* Bytes read from sources, as stored, in all. */
uint64_t thaw_file_consumed(const struct thaw_file_reader *reader);
