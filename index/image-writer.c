/* SPDX-License-Identifier: Apache-2.0 */
/* The tail of an image: see doc/format.md. */
#include "image-writer.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "digest.h"
#include "util/bytes.h"
#include "util/cleanup.h"

/*
 * The index is small and read whole at every mount: level 9 costs a fraction of
 * a second at a million files, and decompression is as fast as at any level.
 */
#define INDEX_LEVEL 9

struct section {
	enum thaw_section_type type;
	uint32_t flags;
	const void *data;
	size_t size;
};

static int write_skippable_header(struct thaw_output *output, uint64_t payload,
				  struct thaw_error *err)
{
	uint8_t header[THAW_SKIPPABLE_HEADER];

	if (payload > UINT32_MAX)
		return thaw_limit(err, "a part of the image is larger than 4 GiB");
	put_le32(header, THAW_SKIPPABLE_MAGIC);
	put_le32(header + 4, (uint32_t)payload);
	return thaw_output_write(output, header, sizeof(header), err);
}

static int build_index(const struct thaw_index_contents *contents, struct thaw_error *err,
		       uint8_t **ret_raw, size_t *ret_size)
{
	const struct section sections[] = {
		{ THAW_SECTION_INODES, THAW_SECTION_REQUIRED, contents->inodes,
		  contents->inodes_size },
		{ THAW_SECTION_STRINGS, THAW_SECTION_REQUIRED, contents->strings,
		  contents->strings_size },
		{ THAW_SECTION_FRAMES, THAW_SECTION_REQUIRED, contents->frames,
		  contents->frames_size },
		{ THAW_SECTION_META, 0, contents->meta, contents->meta_size },
		{ THAW_SECTION_RELOCATIONS, 0, contents->relocations,
		  contents->relocations_size },
	};
	/* Only the last one may be missing. */
	unsigned count = sizeof(sections) / sizeof(sections[0]) - !contents->relocations;
	uint64_t size = THAW_INDEX_HEADER + (uint64_t)count * THAW_SECTION_ENTRY;
	uint64_t at = size;
	uint8_t *raw;

	for (unsigned i = 0; i < count; i++)
		size = round_up(size, 8) + sections[i].size;
	if (size > THAW_INDEX_RAW_MAX)
		return thaw_limit(err, "the index would be larger than 3 GiB");
	raw = calloc(1, size);
	if (!raw)
		return thaw_oom(err);
	put_le32(raw, THAW_INDEX_MAGIC);
	put_le32(raw + THAW_INDEX_OFF_SECTIONS, count);
	put_le64(raw + THAW_INDEX_OFF_STREAM_SIZE, contents->stream_size);
	put_le64(raw + THAW_INDEX_OFF_ANNEX_SIZE, contents->annex_size);
	memcpy(raw + THAW_INDEX_OFF_STREAM_DIGEST, contents->stream_digest,
	       THAW_DIGEST_SIZE);
	for (unsigned i = 0; i < count; i++) {
		uint8_t *entry = raw + THAW_INDEX_HEADER + i * THAW_SECTION_ENTRY;

		at = round_up(at, 8);
		put_le32(entry + THAW_SECTION_OFF_TYPE, sections[i].type);
		put_le32(entry + THAW_SECTION_OFF_FLAGS, sections[i].flags);
		put_le64(entry + THAW_SECTION_OFF_OFFSET, at);
		put_le64(entry + THAW_SECTION_OFF_SIZE, sections[i].size);
		memcpy(raw + at, sections[i].data, sections[i].size);
		at += sections[i].size;
	}
	*ret_raw = raw;
	*ret_size = size;
	return 0;
}

/* The next entry of the table. */
static void put_part(struct thaw_writer *writer, const struct thaw_part_info *part)
{
	uint8_t *entry = writer->table + THAW_TABLE_HEADER +
			 writer->parts * THAW_PART_ENTRY;

	put_le32(entry + THAW_PART_OFF_TYPE, part->type);
	put_le32(entry + THAW_PART_OFF_HEAD, part->head_size);
	put_le64(entry + THAW_PART_OFF_OFFSET, part->offset);
	put_le64(entry + THAW_PART_OFF_SIZE, part->size);
	put_le64(entry + THAW_PART_OFF_RAW_SIZE, part->raw_size);
	memcpy(entry + THAW_PART_OFF_DIGEST, part->digest, THAW_DIGEST_SIZE);
	memcpy(entry + THAW_PART_OFF_NAME, part->name, sizeof(part->name));
	writer->parts++;
}

void thaw_writer_stream(struct thaw_writer *writer, struct thaw_output *output,
			uint64_t size)
{
	struct thaw_part_info part = {
		.type = THAW_PART_STREAM,
		.size = thaw_output_offset(output),
		.raw_size = size,
	};

	*writer = (struct thaw_writer){ .output = output };
	put_part(writer, &part);
}

int thaw_writer_begin(struct thaw_writer *writer, uint64_t payload,
		      struct thaw_error *err)
{
	int r;

	if (writer->parts == THAW_PARTS_MAX)
		return thaw_limit(err, "an image holds no more than %u parts",
				  THAW_PARTS_MAX);
	r = write_skippable_header(writer->output, payload, err);
	writer->begun = thaw_output_offset(writer->output);
	return r;
}

void thaw_writer_end(struct thaw_writer *writer, const struct thaw_part_info *part)
{
	struct thaw_part_info entry = *part;

	entry.offset = writer->begun;
	entry.size = thaw_output_offset(writer->output) - writer->begun;
	put_part(writer, &entry);
}

int thaw_writer_finish(struct thaw_writer *writer, struct thaw_error *err)
{
	struct thaw_output *output = writer->output;
	uint32_t size = THAW_TABLE_HEADER + writer->parts * THAW_PART_ENTRY;
	uint8_t footer[THAW_FOOTER_SIZE] = { 0 }, *table = writer->table;
	int r;

	put_le32(table, THAW_TABLE_MAGIC);
	put_le32(table + THAW_TABLE_OFF_COUNT, writer->parts);
	put_le64(table + THAW_TABLE_OFF_IMAGE_SIZE, thaw_output_offset(output) +
							    THAW_SKIPPABLE_HEADER + size +
							    THAW_FOOTER_SIZE);
	put_le32(footer, THAW_SKIPPABLE_MAGIC);
	put_le32(footer + 4, THAW_FOOTER_SIZE - THAW_SKIPPABLE_HEADER);
	memcpy(footer + THAW_FOOTER_OFF_MAGIC, THAW_FOOTER_MAGIC, 8);
	put_le32(footer + THAW_FOOTER_OFF_VERSION, THAW_VERSION);
	put_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE, size);
	if (thaw_digest_once(table, size, footer + THAW_FOOTER_OFF_IDENTITY) < 0)
		return thaw_oom(err);
	r = write_skippable_header(output, size, err);
	if (r == 0)
		r = thaw_output_write(output, table, size, err);
	if (r == 0)
		r = thaw_output_write(output, footer, sizeof(footer), err);
	return r;
}

int thaw_writer_index(struct thaw_writer *writer,
		      const struct thaw_index_contents *contents, struct thaw_error *err)
{
	struct thaw_part_info part = { .type = THAW_PART_INDEX };
	_cleanup_(freep) uint8_t *raw = NULL;
	_cleanup_(freep) uint8_t *stored = NULL;
	size_t raw_size = 0, capacity, n;
	int r;

	r = build_index(contents, err, &raw, &raw_size);
	if (r < 0)
		return r;
	capacity = ZSTD_compressBound(raw_size);
	stored = malloc(capacity);
	if (!stored)
		return thaw_oom(err);
	n = ZSTD_compress(stored, capacity, raw, raw_size, INDEX_LEVEL);
	if (ZSTD_isError(n) || thaw_digest_once(stored, n, part.digest) < 0)
		return thaw_oom(err); /* nothing else makes it fail */
	part.raw_size = raw_size;
	r = thaw_writer_begin(writer, n, err);
	if (r == 0)
		r = thaw_output_write(writer->output, stored, n, err);
	if (r == 0)
		thaw_writer_end(writer, &part);
	return r;
}

int thaw_writer_read_back(struct thaw_output *output, struct thaw_error *err,
			  struct thaw_image **ret_image)
{
	struct thaw_source *source;
	int r;

	r = thaw_source_from_fd(thaw_output_fd(output), err, &source);
	if (r < 0)
		return r;
	return thaw_image_open(source, err, ret_image);
}
