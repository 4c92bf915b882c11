/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A learned trace, as the catalogue keeps it, made into a warm set of a sound image.
 * Whatever it says, the set must pass what is asked of any set, its operations and
 * frames must agree, and a frame of the image is not left and taken up again.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "catalogue-internal.h"
#include "support.h"
#include "thaw/learned.h"

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static void use(const struct thaw_image *image, struct thaw_warm *warm)
{
	static uint8_t buf[THAW_FRAME_USIZE_MAX];
	struct thaw_error err = { 0 };
	struct thaw_warm_info info;
	uint64_t bytes = 0, pages = 0;
	uint32_t last = UINT32_MAX;
	bool left[2] = { false };

	thaw_warm_info(warm, &info);
	REQUIRE(info.ops > 0);
	for (uint32_t i = 0; i < info.ops; i++) {
		struct thaw_warm_op op;
		struct thaw_inode inode;

		thaw_warm_op(warm, i, &op);
		REQUIRE(thaw_image_inode(image, op.ino, &inode) == 0);
		pages += op.count;
		bytes += op.length;
		for (uint32_t j = 0; op.kind == THAW_WARM_PAGES && j < op.count; j++) {
			uint32_t frame = thaw_image_frame_at(
				image,
				inode.data + (op.first + j) * (uint64_t)THAW_PAGE_SIZE);

			REQUIRE(frame < 2 && (frame == last || !left[frame]));
			if (last != UINT32_MAX && frame != last)
				left[last] = true;
			last = frame;
		}
	}
	REQUIRE(bytes == info.bytes && pages == info.pages);
	for (uint32_t i = 0; i < info.frames; i++) {
		REQUIRE(thaw_warm_frame(warm, i, buf, &err) == 0);
		REQUIRE(thaw_warm_frame_size(warm, i) <= bytes);
		bytes -= thaw_warm_frame_size(warm, i);
	}
	REQUIRE(bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *payload = malloc(size + 1);
	struct thaw_learned learned;
	struct thaw_error err = { 0 };
	struct thaw_image *image;
	struct thaw_warm *warm;
	struct spec *spec;
	_buffer_ bytes = { 0 };
	int r;

	REQUIRE(payload);
	if (size)
		memcpy(payload, data, size);
	if (thaw_learned_decode(payload, size, "w", &learned) < 0) {
		free(payload);
		return 0;
	}
	spec = malloc(sizeof(*spec));
	REQUIRE(spec);
	spec_sample(spec);
	spec_build(spec, &bytes);
	REQUIRE(open_memory(&bytes, &err, &image) == 0);
	r = thaw_warm_from_learned(image, &learned, &err, &warm);
	REQUIRE(r == 0 || r == THAW_NOT_FOUND);
	if (r == 0) {
		use(image, warm);
		thaw_warm_free(warm);
	}
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
	thaw_learned_deinit(&learned);
	return 0;
}
