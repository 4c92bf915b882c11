/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Writing an image's parts, one after the other, and the table and footer that
 * close it. The stream's frames come first, at the output's start; each further
 * part begins with thaw_writer_begin() and ends with thaw_writer_end().
 */
#include <stddef.h>
#include <stdint.h>

#include "pack-internal.h"
#include "thaw/image.h"

struct thaw_writer {
	struct thaw_output *output; /* borrowed */
	uint8_t table[THAW_TABLE_HEADER + THAW_PARTS_MAX * THAW_PART_ENTRY];
	unsigned parts;
	uint64_t begun; /* offset of the payload of the part being written */
};

/* The stream's frames have been written; size is what they decompress to. */
void thaw_writer_stream(struct thaw_writer *writer, struct thaw_output *output,
			uint64_t size);

/* A further part of exactly payload bytes, which the caller then writes to the output. */
_must_check_ int thaw_writer_begin(struct thaw_writer *writer, uint64_t payload,
				   struct thaw_error *err);
/* Enter it into the table: part's offset and size are filled in here. */
void thaw_writer_end(struct thaw_writer *writer, const struct thaw_part_info *part);
/* Parts table and footer. Nothing is synced or named. */
_must_check_ int thaw_writer_finish(struct thaw_writer *writer, struct thaw_error *err);

/* Open what was written with the reader that will have to: a last check before it is named. */
_must_check_ int thaw_writer_read_back(struct thaw_output *output, struct thaw_error *err,
				       struct thaw_image **ret_image);

struct thaw_index_contents {
	uint64_t stream_size, annex_size;
	uint8_t stream_digest[THAW_DIGEST_SIZE];
	/* Sections, borrowed; layouts as in format.h. relocations may be NULL: no section. */
	const uint8_t *inodes, *frames, *relocations;
	const char *strings, *meta;
	size_t inodes_size, frames_size, strings_size, meta_size, relocations_size;
};
/* Begin, write and end the index part. */
_must_check_ int thaw_writer_index(struct thaw_writer *writer,
				   const struct thaw_index_contents *contents,
				   struct thaw_error *err);
