/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Zip archives, read strictly.
 *
 * A zip says everything twice, and readers differ in which half they believe:
 * that is how one file can be two archives. So the whole structure is checked
 * while opening: the end record is the file's end, central and local headers
 * agree, members do not overlap and leave no bytes between them that belong to
 * nobody, names are relative and unique. Bytes in front of the first member are
 * allowed (a PEX begins with a line for the shell), offsets may count them or not.
 *
 * Members are read one after the other through a cursor, in bounded memory, and
 * their size and CRC are checked always.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "thaw/error.h"

struct thaw_zip; /* immutable once open */

struct thaw_zip_member {
	const char *name; /* byte for byte; relative, without a slash at its end */
	mode_t mode;	  /* S_IFREG, S_IFDIR or S_IFLNK, and permission bits */
	int64_t mtime; /* seconds; the time of a zip has no zone, and is taken as UTC */
	uint64_t size, stored;
	uint64_t offset; /* of the stored bytes, in the file */
	uint32_t crc;
	uint16_t method; /* THAW_ZIP_STORED or THAW_ZIP_DEFLATED */
	uint16_t flags;	 /* as in the headers */
};
enum {
	THAW_ZIP_STORED = 0,
	THAW_ZIP_DEFLATED = 8,
};

/*
 * Does a zip archive end where the file does? A cheap look at its last bytes;
 * opening will tell whether it is sound. 1, 0, or an I/O error.
 */
_must_check_ int thaw_zip_probe(int fd, uint64_t size, struct thaw_error *err);

/*
 * The bytes [offset, offset + size) of fd are the archive. fd is borrowed until
 * the zip is freed, its position is not used. Errors: -EBADMSG (malformed),
 * -EPERM (encrypted, unknown method, names that lead elsewhere, duplicates,
 * devices), -EFBIG (limits), I/O.
 */
_must_check_ int thaw_zip_open(int fd, uint64_t offset, uint64_t size,
			       struct thaw_error *err, struct thaw_zip **ret_zip);
struct thaw_zip *thaw_zip_free(struct thaw_zip *zip);
static inline void thaw_zip_freep(struct thaw_zip **zip)
{
	thaw_zip_free(*zip);
}

/* Members in the order of thaw_canonical_compare(); valid until the zip is freed. */
size_t thaw_zip_count(const struct thaw_zip *zip);
const struct thaw_zip_member *thaw_zip_member(const struct thaw_zip *zip, size_t number);
/* The member of this name, or NULL. */
const struct thaw_zip_member *thaw_zip_find(const struct thaw_zip *zip, const char *name);

/* The descriptor that it was opened with. */
int thaw_zip_fd(const struct thaw_zip *zip);

/* -- reading -- */

struct thaw_zip_cursor; /* reads one member at a time, of any zip */

_must_check_ int thaw_zip_cursor_new(struct thaw_zip_cursor **ret_cursor); /* -ENOMEM */
struct thaw_zip_cursor *thaw_zip_cursor_free(struct thaw_zip_cursor *cursor);
static inline void thaw_zip_cursor_freep(struct thaw_zip_cursor **cursor)
{
	thaw_zip_cursor_free(*cursor);
}

/* From here on, zip and member must live until the member was read or another begins. */
_must_check_ int thaw_zip_begin(struct thaw_zip_cursor *cursor,
				const struct thaw_zip *zip,
				const struct thaw_zip_member *member,
				struct thaw_error *err);
/*
 * The next bytes, valid until the next call; length 0 is the end, and means that
 * size and CRC were right. Bytes handed out before that are not yet proven.
 */
_must_check_ int thaw_zip_next(struct thaw_zip_cursor *cursor, struct thaw_error *err,
			       const uint8_t **ret_data, size_t *ret_len);
/* Stored bytes that this cursor has read, in all. */
uint64_t thaw_zip_consumed(const struct thaw_zip_cursor *cursor);
