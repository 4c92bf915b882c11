/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The archives that stubs are: what stub-write.c puts into them, and how they are written. */
#include <sys/types.h>

#include "pack-internal.h"
#include "thaw/stub.h"

#define THAW_STUB_TRAILER	24u /* magic, u64 length of stub.json, u64 reserved: zero */
#define THAW_STUB_TRAILER_MAGIC "THAWSTUB"

/* stub.json of a stub; free() it. -ENOMEM. */
_must_check_ int thaw_stub_text(const struct thaw_stub *stub, char **ret_text);

/*
 * Into output, what precedes image in its file, for the one that it was rewritten to: a
 * launcher that knows its image by this identity now, other bytes as they are. output
 * may be executed if image's file may. Nothing, when nothing precedes it. -EBADMSG, I/O.
 */
_must_check_ int thaw_stub_carry(const struct thaw_image *image,
				 const uint8_t identity[THAW_DIGEST_SIZE],
				 struct thaw_output *output, struct thaw_error *err);

/* Bytes in memory, or size bytes of a file from offset on. */
struct thaw_stub_bytes {
	const void *data; /* or NULL: */
	int fd;
	uint64_t offset;
	uint64_t size;
	bool packed; /* compressed already: stored as it is */
};

struct thaw_stub_archive;

/* Writes into output, which is borrowed. form is an archive's. */
_must_check_ int thaw_stub_archive_new(enum thaw_stub_form form, struct thaw_output *output,
				       struct thaw_error *err,
				       struct thaw_stub_archive **ret_archive);
struct thaw_stub_archive *thaw_stub_archive_free(struct thaw_stub_archive *archive);
static inline void thaw_stub_archive_freep(struct thaw_stub_archive **archive)
{
	thaw_stub_archive_free(*archive);
}
_must_check_ int thaw_stub_archive_directory(struct thaw_stub_archive *archive,
					     const char *path, struct thaw_error *err);
_must_check_ int thaw_stub_archive_file(struct thaw_stub_archive *archive, const char *path,
					mode_t mode, const struct thaw_stub_bytes *bytes,
					struct thaw_error *err);
/* A further name of a file of these bytes: a hard link where the archive has them. */
_must_check_ int thaw_stub_archive_again(struct thaw_stub_archive *archive, const char *path,
					 const char *first, mode_t mode,
					 const struct thaw_stub_bytes *bytes,
					 struct thaw_error *err);
/* -EPERM in a zip: what unpacks those for Spark makes files of symlinks. */
_must_check_ int thaw_stub_archive_symlink(struct thaw_stub_archive *archive, const char *path,
					   const char *target, struct thaw_error *err);
_must_check_ int thaw_stub_archive_end(struct thaw_stub_archive *archive,
				       struct thaw_error *err);
