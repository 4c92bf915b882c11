/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The reader: an image's index, opened and validated once, and its bytes.
 *
 * thaw_image_open() reads footer, parts table and index, checks their digests
 * and every record in them. After that each look-up is in bounds by
 * construction, needs no lock and cannot fail for reasons of format. Pointers
 * that the functions return belong to the image and live as long as it.
 *
 * Bytes of files come from frames, through a bounded cache (struct
 * thaw_reader): verified against their digest, then decompressed, once however
 * many threads ask.
 *
 * Inode numbers are record numbers: 1 is the root, 0 is never valid. A hard
 * link's record is only a name: look-up and listing resolve it to its file, so
 * its own number never appears outside.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"
#include "thaw/format.h"
#include "thaw/source.h"

#define THAW_DIGEST_SIZE 32u
#define THAW_DIGEST_HEX 65u /* hexadecimal, with the NUL */

struct thaw_image;

struct thaw_image_info {
	uint8_t identity[THAW_DIGEST_SIZE];	 /* SHA-256 of the parts table */
	uint8_t index_digest[THAW_DIGEST_SIZE];	 /* SHA-256 of the index as stored */
	uint8_t stream_digest[THAW_DIGEST_SIZE]; /* SHA-256 of the tar stream */
	uint64_t image_size;  /* bytes, without what precedes the image in its file */
	uint64_t image_start; /* where the image begins in its source */
	uint64_t stream_size; /* bytes of the tar stream */
	uint64_t stream_stored; /* the same, compressed */
	uint64_t annex_size;
	uint64_t annex_stored;
	uint64_t index_size; /* bytes in memory */
	uint64_t index_stored;
	uint64_t content_size; /* sum of the sizes of regular files */
	uint64_t compat, incompat; /* feature bits */
	uint32_t inodes; /* records, including 0: valid numbers are below it */
	uint32_t frames;
	uint32_t directories, files, symlinks, hardlinks;
};

struct thaw_inode {
	uint32_t ino;
	enum thaw_inode_type type; /* never THAW_HARDLINK in results */
	uint16_t mode;		   /* permission bits only */
	uint32_t mtime;
	uint32_t nlink;
	uint32_t parent;
	uint64_t size; /* regular: bytes; symlink: length of the target; directory: children */
	uint64_t data; /* see format.h */
};

/* A name in a directory. Not NUL-terminated. */
struct thaw_name {
	const char *text;
	size_t len;
};

struct thaw_part_info {
	enum thaw_part_type type;
	uint64_t offset, size, raw_size; /* offset from the image's start */
	uint32_t head_size; /* warm sets: bytes that the digest covers */
	uint8_t digest[THAW_DIGEST_SIZE];
	char name[THAW_PART_NAME_MAX + 1];
};

/*
 * Takes ownership of source, also on failure. Errors: -EBADMSG (not an image,
 * damaged, inconsistent), -EPERM (an incompatible feature that this thaw does
 * not know; the text names it), -EFBIG (limits), I/O errors of the source.
 */
_must_check_ int thaw_image_open(struct thaw_source *source, struct thaw_error *err,
				 struct thaw_image **ret_image);
/*
 * The same for an image that must be this one: whatever else is in its place by now is
 * -EBADMSG before any of it but the footer has been looked at.
 */
_must_check_ int thaw_image_open_known(struct thaw_source *source,
				       const uint8_t identity[THAW_DIGEST_SIZE],
				       struct thaw_error *err,
				       struct thaw_image **ret_image);
struct thaw_image *thaw_image_free(struct thaw_image *image);
static inline void thaw_image_freep(struct thaw_image **image)
{
	thaw_image_free(*image);
}

/*
 * An index that is open already, for other processes of this very executable, which then
 * need not read, decompress and check it again: written to fd, from where it is. What is
 * written is a multiple of eight bytes long.
 */
_must_check_ int thaw_image_share(const struct thaw_image *image, int fd,
				  struct thaw_error *err);
/*
 * The same image by what was written, which is in memory now, at eight bytes' alignment,
 * stays there, and is trusted: whoever can write to it can do as it likes with this process.
 * *ret_used: the bytes of it. Takes ownership of source. -EBADMSG when that is too short.
 */
_must_check_ int thaw_image_open_shared(struct thaw_source *source, const void *data,
					size_t size, struct thaw_error *err,
					struct thaw_image **ret_image, size_t *ret_used);

/*
 * Only the identity: reads footer and parts table, nothing of which is trusted
 * beyond that. Takes ownership of source. Errors as above.
 */
_must_check_ int thaw_image_identify(struct thaw_source *source, struct thaw_error *err,
				     uint8_t ret_identity[THAW_DIGEST_SIZE]);
/* The same, and what the table says of the index; ret_index_digest may be NULL. */
_must_check_ int thaw_image_identify_index(struct thaw_source *source,
					   struct thaw_error *err,
					   uint8_t ret_identity[THAW_DIGEST_SIZE],
					   uint8_t ret_index_digest[THAW_DIGEST_SIZE]);

const struct thaw_image_info *thaw_image_info(const struct thaw_image *image);
/* JSON about the image (doc/format.md, "Meta"); len may be 0. Untrusted, not NUL-terminated. */
const char *thaw_image_meta(const struct thaw_image *image, size_t *ret_len);
/* Parts in file order. index < count. */
unsigned thaw_image_part_count(const struct thaw_image *image);
void thaw_image_part(const struct thaw_image *image, unsigned index,
		     struct thaw_part_info *ret_part);

/* -EINVAL when ino is 0, too large, or a hard link's record. */
_must_check_ int thaw_image_inode(const struct thaw_image *image, uint64_t ino,
				  struct thaw_inode *ret_inode);
/* 0, THAW_NOT_FOUND, -ENOTDIR, -EINVAL. */
_must_check_ int thaw_image_lookup(const struct thaw_image *image, uint64_t parent,
				   const char *name, size_t len,
				   struct thaw_inode *ret_inode);
/* Child number position (from 0) of a directory; requires position < directory->size. */
void thaw_image_child(const struct thaw_image *image, const struct thaw_inode *directory,
		      uint64_t position, struct thaw_name *ret_name,
		      struct thaw_inode *ret_inode);
/* NUL-terminated target of a symlink. */
const char *thaw_image_target(const struct thaw_image *image, const struct thaw_inode *inode);
/*
 * Resolve a path from the root. Slashes at either end and doubled ones are
 * ignored, "." too; ".." and symlinks are not followed: 0, THAW_NOT_FOUND.
 */
_must_check_ int thaw_image_find(const struct thaw_image *image, const char *path,
				 struct thaw_inode *ret_inode);
/*
 * Write the path of ino (without a leading slash, "." for the root) into buf,
 * always terminated; the front is replaced by "..." when it does not fit.
 */
void thaw_image_path(const struct thaw_image *image, uint32_t ino, char *buf, size_t size);

/* A frame's place; number < info->frames. */
struct thaw_frame {
	uint64_t data_offset; /* in the data space */
	uint64_t file_offset; /* from the image's start */
	uint32_t stored, size;
	const uint8_t *digest;
};
void thaw_image_frame(const struct thaw_image *image, uint32_t number,
		      struct thaw_frame *ret_frame);
/* The frame that holds this byte of the data space. */
uint32_t thaw_image_frame_at(const struct thaw_image *image, uint64_t data_offset);

/*
 * Read one part or frame as stored, checking nothing. For copying.
 * -EIO when the source ends early.
 */
_must_check_ int thaw_image_pread(const struct thaw_image *image, uint64_t offset,
				  void *buf, size_t len);

/* The descriptor that the image is read by, borrowed; -1 without one. */
int thaw_image_fd(const struct thaw_image *image);

/* Hexadecimal of a digest, NUL-terminated. */
void thaw_digest_hex(const uint8_t digest[THAW_DIGEST_SIZE], char ret_hex[THAW_DIGEST_HEX]);
