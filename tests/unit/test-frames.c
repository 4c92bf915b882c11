/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: the same bytes for any number of threads, and what they hold. */
#include "check.h"

#include <unistd.h>
#include <zstd.h>

#include "digest.h"
#include "pack-internal.h"
#include "util/bytes.h"

#define SIZE 1000003u
#define FRAME 4096u

struct result {
	struct buffer stored, table;
};

static void result_deinit(struct result *result)
{
	buffer_deinit(&result->stored);
	buffer_deinit(&result->table);
}
#define _result_ __attribute__((cleanup(result_deinit))) struct result

/* data through frames, handed over in pieces of step bytes. */
static void run(const uint8_t *data, size_t size, uint32_t frame_size, unsigned threads, size_t step,
		struct result *result)
{
	char *directory = make_directory(), *path = join_path(directory, "f");
	struct thaw_output *output;
	struct thaw_frames *frames;
	struct thaw_error err;
	const uint8_t *table;
	size_t table_size;

	assert_success(thaw_output_open(path, false, &err, &output), &err);
	assert_success(thaw_frames_new(output, 3, frame_size, threads, &err, &frames), &err);
	for (size_t at = 0; at < size; at += step)
		assert_success(thaw_frames_add(frames, data + at, step < size - at ? step : size - at,
					       &err), &err);
	assert_success(thaw_frames_end(frames, &err), &err);
	table = thaw_frames_table(frames, &table_size);
	buffer_add(&result->table, table, table_size);
	assert_success(thaw_output_commit(output, &err), &err);
	thaw_frames_free(frames);
	thaw_output_free(output);
	read_file(path, &result->stored);
	free(path);
	remove_directory(directory);
}

static uint8_t *make_data(void)
{
	uint8_t *data = malloc(SIZE);

	fill_pattern(data, SIZE, 8);
	memset(data + 100000, 0, 400000); /* frames that compress, between those that do not */
	return data;
}

static void any_number_of_threads(void **state)
{
	static const unsigned threads[] = { 2, 3, 7 };
	uint8_t *data = make_data();
	_result_ first = { 0 };

	run(data, SIZE, FRAME, 1, 65536, &first);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		_result_ other = { 0 };

		run(data, SIZE, FRAME, threads[i], 65536, &other);
		assert_int_equal(first.stored.size, other.stored.size);
		assert_memory_equal(first.stored.data, other.stored.data, first.stored.size);
		assert_int_equal(first.table.size, other.table.size);
		assert_memory_equal(first.table.data, other.table.data, first.table.size);
	}
	free(data);
}

static void any_size_of_pieces(void **state)
{
	static const size_t steps[] = { 1, 4095, 4096, 4097, 100000 };
	uint8_t *data = make_data();
	_result_ first = { 0 };

	run(data, 50000, FRAME, 2, 50000, &first);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		_result_ other = { 0 };

		run(data, 50000, FRAME, 2, steps[i], &other);
		assert_int_equal(first.stored.size, other.stored.size);
		assert_memory_equal(first.stored.data, other.stored.data, first.stored.size);
	}
	free(data);
}

static void records(void **state)
{
	uint8_t *data = make_data(), out[FRAME], sum[THAW_DIGEST_SIZE];
	_result_ result = { 0 };
	uint64_t file = 0, at = 0;

	run(data, SIZE, FRAME, 2, 65536, &result);
	assert_int_equal(result.table.size, (SIZE + FRAME - 1) / FRAME * THAW_FRAME_SIZE);
	for (size_t i = 0; i < result.table.size; i += THAW_FRAME_SIZE) {
		const uint8_t *record = result.table.data + i;
		uint32_t stored = get_le32(record + THAW_FRAME_OFF_CSIZE);
		uint32_t size = get_le32(record + THAW_FRAME_OFF_USIZE);

		assert_int_equal(get_le64(record + THAW_FRAME_OFF_DATA), at);
		assert_int_equal(get_le64(record + THAW_FRAME_OFF_FILE), file);
		assert_int_equal(size, at + FRAME <= SIZE ? FRAME : SIZE - at);
		assert_int_equal(ZSTD_decompress(out, FRAME, result.stored.data + file, stored), size);
		assert_memory_equal(out, data + at, size);
		assert_int_equal(thaw_digest_once(result.stored.data + file, stored, sum), 0);
		assert_memory_equal(sum, record + THAW_FRAME_OFF_DIGEST, THAW_DIGEST_SIZE);
		/* A checksum inside, for those who only have zstd. */
		assert_true(result.stored.data[file + 4] & 4);
		file += stored;
		at += size;
	}
	assert_int_equal(at, SIZE);
	assert_int_equal(file, result.stored.size);
	free(data);
}

static void sizes_around_a_frame(void **state)
{
	uint8_t *data = make_data();

	for (unsigned frames = 0; frames < 4; frames++) {
		for (int off = frames ? -1 : 0; off <= 1; off++) {
			size_t size = (size_t)((int)(frames * FRAME) + off);
			_result_ result = { 0 };

			run(data, size, FRAME, 2, 1000, &result);
			assert_int_equal(result.table.size,
					 (size + FRAME - 1) / FRAME * THAW_FRAME_SIZE);
		}
	}
	free(data);
}

/* Freed in the middle, with work under way: nobody waits for ever. */
static void given_up(void **state)
{
	uint8_t *data = make_data();

	for (unsigned i = 0; i < 20; i++) {
		char *directory = make_directory(), *path = join_path(directory, "f");
		struct thaw_output *output;
		struct thaw_frames *frames;
		struct thaw_error err;

		assert_success(thaw_output_open(path, false, &err, &output), &err);
		assert_success(thaw_frames_new(output, 9, 65536, 3, &err, &frames), &err);
		assert_success(thaw_frames_add(frames, data, i * 50000, &err), &err);
		assert_null(thaw_frames_free(frames));
		thaw_output_free(output);
		assert_int_equal(count_entries(directory), 0);
		free(path);
		remove_directory(directory);
	}
	free(data);
}

/* The whole image, not only its frames. */
static void same_image(void **state)
{
	static const unsigned threads[] = { 1, 2, 7 };
	char *directory = make_directory(), *path = join_path(directory, "i.thaw");
	_buffer_ first = { 0 };
	_buffer_ tar = { 0 };

	tar_sample(&tar);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		struct thaw_pack_options options = {
			.threads = threads[i], .frame_size = 4096, .force = true
		};
		struct thaw_pack_report report;
		struct thaw_error err;
		_buffer_ bytes = { 0 };

		assert_success(pack_bytes(&tar, path, &options, &err, &report), &err);
		read_file(path, &bytes);
		if (i == 0) {
			buffer_add(&first, bytes.data, bytes.size);
			continue;
		}
		assert_int_equal(bytes.size, first.size);
		assert_memory_equal(bytes.data, first.data, first.size);
	}
	free(path);
	remove_directory(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_number_of_threads),
		cmocka_unit_test(any_size_of_pieces),
		cmocka_unit_test(records),
		cmocka_unit_test(sizes_around_a_frame),
		cmocka_unit_test(given_up),
		cmocka_unit_test(same_image),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
