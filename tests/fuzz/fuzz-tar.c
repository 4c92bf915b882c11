/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a tar stream: the members, the tree, the records. What the indexer
 * accepts must be an index that the validator accepts. The first byte chooses
 * how large the blocks are that the stream is pulled in.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include "support.h"
#include "tree.h"
#include "util/bytes.h"

#define ENTRIES_MAX 2000u

struct stream {
	const uint8_t *data;
	size_t size, at, step;
};

static int pull(void *userdata, struct thaw_error *err, const uint8_t **ret_data, size_t *ret_len)
{
	struct stream *stream = userdata;
	size_t left = stream->size - stream->at;

	*ret_data = stream->data + stream->at;
	*ret_len = left < stream->step ? left : stream->step;
	stream->at += *ret_len;
	return 0;
}

static void require(int r, const struct thaw_error *err)
{
	if (r < 0) {
		fprintf(stderr, "%d: %s\n", r, err->text);
		abort();
	}
}

/* The records of the tree must make an image that opens; its stream is only said to be there. */
static void check_sections(const struct thaw_sections *sections, uint64_t stream_size)
{
	/* One stored frame stands for each 16 MiB of stream. Never read: nothing need be in it. */
	uint64_t frames = (stream_size + THAW_FRAME_USIZE_MAX - 1) / THAW_FRAME_USIZE_MAX;
	uint64_t sizes[3] = { sections->inodes_size, sections->strings_size, frames * THAW_FRAME_SIZE };
	uint8_t header[THAW_INDEX_HEADER + 3 * THAW_SECTION_ENTRY] = { 0 };
	struct thaw_image *image = NULL;
	struct thaw_error err = { 0 };
	uint64_t at = sizeof(header);
	_buffer_ stream = { 0 };
	_buffer_ bytes = { 0 };
	_buffer_ raw = { 0 };

	put_le32(header, THAW_INDEX_MAGIC);
	put_le32(header + THAW_INDEX_OFF_SECTIONS, 3);
	put_le64(header + THAW_INDEX_OFF_STREAM_SIZE, stream_size);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *entry = header + THAW_INDEX_HEADER + i * THAW_SECTION_ENTRY;

		at = round_up(at, 8);
		put_le32(entry + THAW_SECTION_OFF_TYPE, THAW_SECTION_INODES + i);
		put_le64(entry + THAW_SECTION_OFF_OFFSET, at);
		put_le64(entry + THAW_SECTION_OFF_SIZE, sizes[i]);
		at += sizes[i];
	}
	buffer_add(&raw, header, sizeof(header));
	buffer_add(&raw, sections->inodes, sections->inodes_size);
	buffer_add(&raw, sections->strings, sections->strings_size);
	buffer_add_zeros(&raw, round_up(raw.size, 8) - raw.size);
	for (uint64_t i = 0; i < frames; i++) {
		uint8_t record[THAW_FRAME_SIZE] = { 0 };
		uint64_t left = stream_size - i * THAW_FRAME_USIZE_MAX;

		put_le64(record + THAW_FRAME_OFF_DATA, i * THAW_FRAME_USIZE_MAX);
		put_le64(record + THAW_FRAME_OFF_FILE, i);
		put_le32(record + THAW_FRAME_OFF_CSIZE, 1);
		put_le32(record + THAW_FRAME_OFF_USIZE,
			 (uint32_t)(left < THAW_FRAME_USIZE_MAX ? left : THAW_FRAME_USIZE_MAX));
		buffer_add(&raw, record, sizeof(record));
	}
	buffer_add_zeros(&stream, frames);
	image_wrap(raw.data, raw.size, stream.data, stream.size, stream_size, &bytes);
	require(open_memory(&bytes, &err, &image), &err);
	thaw_image_free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t steps[] = { 1, 511, 512, 513, 10240, 65536 };
	struct thaw_sections sections;
	struct thaw_bytecode bytecode;
	struct thaw_tar_counts counts;
	struct thaw_tree *tree;
	struct thaw_error err = { 0 };
	struct stream stream;
	int r;

	if (size == 0)
		return 0;
	stream = (struct stream){ data + 1, size - 1, 0, steps[data[0] % 6] };
	if (thaw_tree_new(ENTRIES_MAX, &tree) < 0)
		abort();
	r = thaw_tar_index(pull, &stream, tree, &err, &counts);
	if (r == 0) {
		thaw_tree_bytecode(tree, &bytecode);
		(void)!thaw_tree_check_links(tree, &err); /* either answer will do */
		require(thaw_tree_emit(tree, &err, &sections), &err);
		if (counts.size != size - 1)
			abort();
		check_sections(&sections, counts.size);
		thaw_sections_deinit(&sections);
	} else if (err.text[0] == '\0' || err.exit_code < THAW_EXIT_REFUSED) {
		abort();
	}
	thaw_tree_free(tree);
	return 0;
}
