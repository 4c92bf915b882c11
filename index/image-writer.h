/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Writing what follows an image's stream: index, parts table, footer. */
#include <stddef.h>
#include <stdint.h>

#include "pack-internal.h"
#include "thaw/image.h"

struct thaw_image_contents {
	uint64_t stream_size, stream_stored; /* the stream's frames lie at the output's start */
	uint8_t stream_digest[THAW_DIGEST_SIZE];
	/* Sections, borrowed; layouts as in format.h. */
	const uint8_t *inodes, *frames;
	const char *strings, *meta;
	size_t inodes_size, frames_size, strings_size, meta_size;
};

/* output stands right behind the stream's last frame. Nothing is synced or named. */
_must_check_ int thaw_image_finish(struct thaw_output *output,
				   const struct thaw_image_contents *contents,
				   struct thaw_error *err);
