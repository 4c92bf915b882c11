/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as an image: as they are, then with digests repaired, so that more than digests is tried. */
#include "fuzz.h"
#include "walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_buffer_ bytes = { 0 };

	buffer_add(&bytes, data, size);
	walk_image(&bytes);
	image_repair(bytes.data, bytes.size);
	walk_image(&bytes);
	return 0;
}
