/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of a warm set as it is when decompressed, and its frames, in a sound
 * image. Compression and digests are made here, as in fuzz-index.
 *
 * Input: u32 size of the head, the head, the frames.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "digest.h"
#include "util/bytes.h"
#include "walk.h"

static void repair_frames(uint8_t *head, size_t head_size, const uint8_t *frames, size_t frames_size)
{
	uint32_t count = get_le32(head + THAW_WARM_OFF_FRAMES);

	for (size_t i = 0; i < count && i < (head_size - THAW_WARM_HEADER) / THAW_WARM_FRAME; i++) {
		uint8_t *record = head + THAW_WARM_HEADER + i * THAW_WARM_FRAME;
		uint64_t offset = get_le64(record + THAW_WARM_FRAME_OFF_OFFSET);
		uint32_t stored = get_le32(record + THAW_WARM_FRAME_OFF_CSIZE);
		uint8_t sum[THAW_DIGEST_SIZE];

		if (range_inside(offset, stored, frames_size) &&
		    thaw_digest_once(frames + offset, stored, sum) == 0)
			memcpy(record + THAW_WARM_FRAME_OFF_DIGEST, sum, sizeof(sum));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t head_size, capacity, n;
	struct spec *spec;
	_buffer_ head = { 0 };
	_buffer_ part = { 0 };
	_buffer_ image = { 0 };
	uint8_t *stored;

	if (size < 4 + THAW_WARM_HEADER)
		return 0;
	head_size = get_le32(data);
	data += 4;
	size -= 4;
	if (head_size < THAW_WARM_HEADER || head_size > size)
		return 0;
	buffer_add(&head, data, head_size);
	repair_frames(head.data, head.size, data + head_size, size - head_size);
	capacity = ZSTD_compressBound(head_size);
	stored = malloc(capacity);
	spec = malloc(sizeof(*spec));
	if (!stored || !spec)
		abort();
	n = ZSTD_compress(stored, capacity, head.data, head.size, 1);
	if (ZSTD_isError(n))
		abort();
	buffer_add(&part, stored, n);
	buffer_add(&part, data + head_size, size - head_size);
	spec_sample(spec);
	spec->parts[spec->part_count++] = (struct spec_part){
		.type = THAW_PART_WARM,
		.data = part.data,
		.size = part.size,
		.raw_size = head_size,
		.name = "fuzz",
		.head_size = (uint32_t)n,
	};
	spec_build(spec, &image);
	walk_image(&image);
	spec_deinit(spec);
	free(spec);
	free(stored);
	return 0;
}
