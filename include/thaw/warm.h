/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Warm sets: the pages of a trace, copied out in first-touch order into frames
 * of their own, and what has to be listed and looked up before them.
 *
 * A set is a list of operations in the order in which the workload will want
 * their effects. The bytes of its PAGES operations, one after the other, are
 * what its frames decompress to; no operation reaches across two frames.
 */
#include <stdbool.h>
#include <stdint.h>

#include "thaw/image.h"
#include "thaw/reader.h"
#include "thaw/trace.h"

enum thaw_warm_kind {
	THAW_WARM_PAGES = 1, /* ino: file; pages [first, first + count) */
	THAW_WARM_LIST = 2,  /* ino: directory: list it, attributes and all */
	THAW_WARM_LOOK = 3, /* ino: directory: look name up, whether it is there or not */
	THAW_WARM_LINK = 4, /* ino: symlink: read it */
};

struct thaw_warm_op {
	enum thaw_warm_kind kind;
	uint32_t ino;
	uint32_t first, count; /* PAGES */
	uint32_t length; /* PAGES: bytes, which at the end of a file are no whole pages */
	struct thaw_name name; /* LOOK */
};

struct thaw_warm_info {
	char name[THAW_PART_NAME_MAX + 1];
	uint64_t stored; /* bytes of the part */
	uint64_t bytes;	 /* of pages */
	uint32_t pages, files, ops, frames, directories, names;
};

struct thaw_warm;

/*
 * Open the set that is part number `part` of image (borrowed). The head is
 * verified and every operation checked: after that, ops name valid inodes of
 * the right type and frames add up. -EBADMSG, I/O errors.
 */
_must_check_ int thaw_warm_open(const struct thaw_image *image, unsigned part,
				struct thaw_error *err, struct thaw_warm **ret_warm);
/* An open set for other processes, as thaw_image_share() and thaw_image_open_shared(). */
_must_check_ int thaw_warm_share(const struct thaw_warm *warm, int fd,
				 struct thaw_error *err);
_must_check_ int thaw_warm_open_shared(const struct thaw_image *image, const void *data,
				       size_t size, struct thaw_error *err,
				       struct thaw_warm **ret_warm, size_t *ret_used);
struct thaw_warm *thaw_warm_free(struct thaw_warm *warm);
static inline void thaw_warm_freep(struct thaw_warm **warm)
{
	thaw_warm_free(*warm);
}
void thaw_warm_info(const struct thaw_warm *warm, struct thaw_warm_info *ret_info);
/* number < info.ops */
void thaw_warm_op(const struct thaw_warm *warm, uint32_t number,
		  struct thaw_warm_op *ret_op);

/* Decompressed size of a frame; number < info.frames. */
uint32_t thaw_warm_frame_size(const struct thaw_warm *warm, uint32_t number);
/* Read, verify and decompress a frame into buf. Not thread-safe. -EBADMSG, I/O, -ENOMEM. */
_must_check_ int thaw_warm_frame(struct thaw_warm *warm, uint32_t number, void *buf,
				 struct thaw_error *err);

/* A set in memory, ready to be written as a part: the payload, its head first. */
struct thaw_warm_part {
	char name[THAW_PART_NAME_MAX + 1];
	uint8_t *payload; /* malloc'ed */
	uint64_t size;
	uint32_t head_size;
	uint64_t head_raw_size;
	uint8_t head_digest[THAW_DIGEST_SIZE];
};
void thaw_warm_part_deinit(struct thaw_warm_part *part);

/* Defaults by measurement: doc/tried.md. */
#define THAW_WARM_LEVEL	     12
#define THAW_WARM_FRAME_SIZE (2u << 20)

struct thaw_warm_options {
	const char *name;
	int level;	     /* 0: the default */
	uint32_t frame_size; /* 0: the default */
	/*
	 * The trace's inode numbers in this image (0: gone); NULL if they are the
	 * same. trace_inodes is the length.
	 */
	const uint32_t *map;
	uint32_t trace_inodes;
	/*
	 * By inode number of this image: a file to touch whole instead of this one
	 * (a .pyc that is there now, for the source that was compiled), or 0. May be
	 * NULL.
	 */
	const uint32_t *instead;
};

/*
 * Make a set of what trace touched in image, through reader. Impossible names
 * and inodes that the image does not have are left out. -EFBIG when the pages
 * exceed 2 GiB.
 */
_must_check_ int thaw_warm_build(const struct thaw_image *image,
				 struct thaw_reader *reader,
				 const struct thaw_trace *trace,
				 const struct thaw_warm_options *options,
				 struct thaw_error *err, struct thaw_warm_part *ret_part);
/*
 * The same set for an image in which files have other inode numbers (map as
 * above; every file of the set must be there).
 */
_must_check_ int thaw_warm_renumber(struct thaw_warm *warm, const uint32_t *map,
				    struct thaw_error *err,
				    struct thaw_warm_part *ret_part);

/* A name for a set: 1 to 31 of [A-Za-z0-9._-], beginning with a letter or digit, not "all", "none". */
bool thaw_warm_name_valid(const char *name);
