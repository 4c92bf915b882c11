/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index as it is when decompressed, and a stored stream: a fuzzer cannot see
 * through compression and digests, so both are made here. Frames that lie in
 * the stream get the digests that they need.
 *
 * Input: u32 size of the index, the index, the stream.
 */
#include "fuzz.h"

#include <string.h>

#include "digest.h"
#include "util/bytes.h"
#include "walk.h"

static void repair_frames(uint8_t *raw, size_t raw_size, const uint8_t *stream, size_t stream_size)
{
	uint32_t count = get_le32(raw + THAW_INDEX_OFF_SECTIONS);

	for (uint32_t i = 0; i < count && i < (raw_size - THAW_INDEX_HEADER) / THAW_SECTION_ENTRY; i++) {
		const uint8_t *entry = raw + THAW_INDEX_HEADER + i * THAW_SECTION_ENTRY;
		uint64_t offset = get_le64(entry + THAW_SECTION_OFF_OFFSET);
		uint64_t size = get_le64(entry + THAW_SECTION_OFF_SIZE);

		if (get_le32(entry) != THAW_SECTION_FRAMES || !range_inside(offset, size, raw_size))
			continue;
		for (uint64_t at = offset; at + THAW_FRAME_SIZE <= offset + size; at += THAW_FRAME_SIZE) {
			uint64_t file = get_le64(raw + at + THAW_FRAME_OFF_FILE);
			uint32_t stored = get_le32(raw + at + THAW_FRAME_OFF_CSIZE);
			uint8_t sum[THAW_DIGEST_SIZE];

			if (range_inside(file, stored, stream_size) &&
			    thaw_digest_once(stream + file, stored, sum) == 0)
				memcpy(raw + at + THAW_FRAME_OFF_DIGEST, sum, sizeof(sum));
		}
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_buffer_ raw = { 0 };
	_buffer_ image = { 0 };
	size_t raw_size;

	if (size < 4 + THAW_INDEX_HEADER)
		return 0;
	raw_size = get_le32(data);
	data += 4;
	size -= 4;
	if (raw_size < THAW_INDEX_HEADER || raw_size > size)
		return 0;
	buffer_add(&raw, data, raw_size);
	repair_frames(raw.data, raw.size, data + raw_size, size - raw_size);
	image_wrap(raw.data, raw.size, data + raw_size, size - raw_size,
		   get_le64(raw.data + THAW_INDEX_OFF_STREAM_SIZE), &image);
	walk_image(&image);
	return 0;
}
