/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a zip archive. The first byte says what it is opened as: whatever its
 * content makes it (a PEX, perhaps), a wheel, or nothing but a zip. What comes
 * out must be a tar stream that the indexer can read.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pack-internal.h"
#include "support.h"
#include "tree.h"

#define STREAM_MAX  (8u << 20)
#define ENTRIES_MAX 2000u

struct stream {
	struct thaw_input *input;
	uint64_t size;
};

static int pull(void *userdata, struct thaw_error *err, const uint8_t **ret_data,
		size_t *ret_len)
{
	struct stream *stream = userdata;
	volatile uint8_t sum = 0; /* so that reading is not optimised away */
	int r = stream->input->next(stream->input, err, ret_data, ret_len);

	if (r < 0)
		return r;
	for (size_t i = 0; i < *ret_len; i++) /* all of it can be read */
		sum = sum ^ (*ret_data)[i];
	stream->size += *ret_len;
	return stream->size > STREAM_MAX ? thaw_limit(err, "enough") : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct thaw_input_options options = { .python_minor = 11 };
	struct stream stream = { 0 };
	struct thaw_error err = { 0 };
	struct thaw_tar_counts counts;
	struct thaw_tree *tree;
	int fd, r;

	if (size == 0)
		return 0;
	fd = memory_file(data + 1, size - 1);
	options.plain = data[0] % 3 == 2;
	r = thaw_input_open_zip(fd, data[0] % 3 == 1 ? "a-1-py3-none-any.whl" : "a.pex",
				&options, &err, &stream.input);
	if (r == 0) {
		if (thaw_tree_new(ENTRIES_MAX, &tree) < 0)
			abort();
		r = thaw_tar_index(pull, &stream, tree, &err, &counts);
		thaw_tree_free(tree);
		thaw_input_free(stream.input);
	}
	if (r < 0 && (err.text[0] == '\0' || err.exit_code < THAW_EXIT_REFUSED))
		abort();
	return 0;
}
