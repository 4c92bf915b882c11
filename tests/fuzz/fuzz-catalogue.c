/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as what the catalogue keeps: records, learned traces, images and sources as
 * JSON. What is accepted must be accepted again after it has been written anew. The first
 * byte chooses.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalogue-internal.h"

static void require(bool condition)
{
	if (!condition)
		abort();
}

static uint8_t *copy_of(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);

	require(copy != NULL);
	memcpy(copy, data, size);
	return copy;
}

static void try_record(const uint8_t *data, size_t size)
{
	const uint8_t *payload;
	uint8_t *record;
	size_t len, record_len;

	if (thaw_record_decode("lkey", 4, data, size, &payload, &len) < 0)
		return;
	require(thaw_record_encode("lkey", 4, payload, len, &record, &record_len) == 0);
	require(record_len == size && memcmp(record, data, size) == 0);
	free(record);
}

static void try_learned(const uint8_t *data, size_t size)
{
	uint8_t *payload = copy_of(data, size), *again;
	struct thaw_learned learned;
	int64_t now = 0;
	size_t len;

	if (thaw_learned_decode(payload, size, "w", &learned) < 0) {
		free(payload);
		return;
	}
	for (unsigned i = 0; i < 8; i++)
		now |= (int64_t)((uint64_t)data[i] << 8 * i);
	require(thaw_learned_encode(now, "w", learned.entries, learned.count, NULL,
				    &again, &len) == 0);
	require(len == size && memcmp(again, data, size) == 0);
	free(again);
	thaw_learned_deinit(&learned);
}

static void try_image(const json_t *json)
{
	const uint8_t identity[THAW_DIGEST_SIZE] = { 1 };
	struct thaw_catalogue_image image, same;
	json_t *again;

	if (thaw_catalogue_image_from_json(json, identity, &image) < 0)
		return;
	again = thaw_catalogue_image_json(&image);
	require(again && thaw_catalogue_image_from_json(again, identity, &same) == 0);
	require(strcmp(image.path, same.path) == 0 &&
		strcmp(image.name, same.name) == 0 && image.size == same.size);
	thaw_catalogue_image_deinit(&image);
	thaw_catalogue_image_deinit(&same);
	json_decref(again);
}

static void try_source(const json_t *json)
{
	uint8_t identity[THAW_DIGEST_SIZE], same_identity[THAW_DIGEST_SIZE];
	char *path, *image, *options, *same_path = NULL, *same_image = NULL,
				      *same_options = NULL;
	struct thaw_catalogue_source source, same;
	json_t *again;

	if (thaw_catalogue_source_from_json(json, &path, &image, &options, &source,
					    identity) < 0)
		return;
	again = thaw_catalogue_source_json(&source, identity);
	require(again && thaw_catalogue_source_from_json(again, &same_path, &same_image,
							 &same_options, &same,
							 same_identity) == 0);
	require(strcmp(path, same_path) == 0 && !image == !same_image &&
		(!image || strcmp(image, same_image) == 0) &&
		source.inode == same.inode &&
		memcmp(identity, same_identity, sizeof(identity)) == 0);
	free(path);
	free(options);
	free(image);
	free(same_path);
	free(same_image);
	free(same_options);
	json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json;

	if (size == 0)
		return 0;
	switch (data[0] % 3) {
	case 0:
		try_record(data + 1, size - 1);
		break;
	case 1:
		try_learned(data + 1, size - 1);
		break;
	default:
		json = json_loadb((const char *)data + 1, size - 1, 0, NULL);
		if (json) {
			try_image(json);
			try_source(json);
		}
		json_decref(json);
	}
	return 0;
}
