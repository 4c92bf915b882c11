/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"

#include <stdlib.h>
#include <string.h>

#include "thaw/reader.h"
#include "thaw/warm.h"

#define INODES_MAX 2000u
#define FILE_MAX (64u << 10) /* bytes read of one file */
#define TOTAL_MAX (1u << 20)
#define OPS_MAX 10000u

#define REQUIRE(condition)       \
	do {                     \
		if (!(condition)) \
			abort();  \
	} while (0)

static void walk_directory(const struct thaw_image *image, const struct thaw_inode *inode)
{
	for (uint64_t i = 0; i < inode->size && i < INODES_MAX; i++) {
		struct thaw_inode child, found;
		struct thaw_name name;

		thaw_image_child(image, inode, i, &name, &child);
		REQUIRE(name.len > 0 && name.len <= THAW_NAME_MAX);
		REQUIRE(child.type != THAW_HARDLINK);
		/* What a listing names can be looked up, and is the same. */
		REQUIRE(thaw_image_lookup(image, inode->ino, name.text, name.len, &found) == 0);
		REQUIRE(found.ino == child.ino);
	}
}

static void walk_file(struct thaw_reader *reader, const struct thaw_inode *inode, uint64_t *budget)
{
	static uint8_t buf[FILE_MAX];
	struct thaw_error err;
	size_t want = sizeof(buf) < *budget ? sizeof(buf) : (size_t)*budget, len;
	uint64_t middle = inode->size / 2;

	if (thaw_reader_read(reader, inode, 0, buf, want, &err, &len) == 0) {
		REQUIRE(len == (want < inode->size ? want : inode->size));
		*budget -= len;
	}
	if (thaw_reader_read(reader, inode, middle, buf, 100, &err, &len) == 0)
		REQUIRE(len == (inode->size - middle < 100 ? inode->size - middle : 100));
	REQUIRE(thaw_reader_read(reader, inode, inode->size, buf, 1, &err, &len) == 0);
	REQUIRE(len == 0);
}

static void walk_warm(const struct thaw_image *image, unsigned part)
{
	struct thaw_warm *warm;
	struct thaw_warm_info info;
	struct thaw_error err;

	if (thaw_warm_open(image, part, &err, &warm) < 0)
		return;
	thaw_warm_info(warm, &info);
	for (uint32_t i = 0; i < info.ops && i < OPS_MAX; i++) {
		struct thaw_warm_op op;
		struct thaw_inode inode;

		thaw_warm_op(warm, i, &op);
		REQUIRE(thaw_image_inode(image, op.ino, &inode) == 0);
		REQUIRE(op.kind != THAW_WARM_PAGES || inode.type == THAW_REGULAR);
	}
	for (uint32_t i = 0; i < info.frames && i < 4; i++) {
		uint8_t *frame = malloc(thaw_warm_frame_size(warm, i));

		if (frame && thaw_warm_frame(warm, i, frame, &err) < 0)
			REQUIRE(err.text[0] != '\0');
		free(frame);
	}
	thaw_warm_free(warm);
}

void walk_image(const struct buffer *bytes)
{
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_error err = { 0 };
	uint64_t budget = TOTAL_MAX;
	uint32_t inodes;
	size_t len;

	if (open_memory(bytes, &err, &image) < 0) {
		REQUIRE(err.text[0] != '\0' && err.exit_code >= THAW_EXIT_REFUSED);
		return;
	}
	/* 4 MiB: frames have to be thrown out. */
	if (thaw_reader_new(image, 4u << 20, &reader) < 0)
		abort();
	inodes = thaw_image_info(image)->inodes;
	for (uint32_t ino = 0; ino <= inodes && ino <= INODES_MAX; ino++) {
		struct thaw_inode inode;
		char path[128];

		thaw_image_path(image, ino, path, sizeof(path));
		if (thaw_image_inode(image, ino, &inode) < 0)
			continue;
		if (inode.type == THAW_DIRECTORY)
			walk_directory(image, &inode);
		else if (inode.type == THAW_SYMLINK)
			REQUIRE(strlen(thaw_image_target(image, &inode)) == inode.size);
		else
			walk_file(reader, &inode, &budget);
	}
	(void)thaw_image_meta(image, &len);
	for (unsigned i = 0; i < thaw_image_part_count(image); i++) {
		struct thaw_part_info part;

		thaw_image_part(image, i, &part);
		if (part.type == THAW_PART_WARM)
			walk_warm(image, i);
	}
	thaw_reader_free(reader);
	thaw_image_free(image);
}
