/* SPDX-License-Identifier: Apache-2.0 */
/* Verifying: what is good passes, and every kind of lie is found and named. */
#include "check.h"

#include "thaw/extract.h"
#include "thaw/rewrite.h"

#define BIG 300000u

struct state {
	char *directory, *path;
	struct thaw_image *image;
	unsigned faults;
	char last[1024];
};

static void note(void *userdata, const char *fault)
{
	struct state *s = userdata;

	s->faults++;
	(void)snprintf(s->last, sizeof(s->last), "%s", fault);
}

static void open_image(struct state *s, const char *path)
{
	struct thaw_error err = { 0 };

	s->image = thaw_image_free(s->image);
	assert_success(open_path(path, &err, &s->image), &err);
}

static void verify(struct state *s, struct thaw_verify_result *ret_result)
{
	struct thaw_error err = { 0 };

	s->faults = 0;
	assert_success(thaw_verify(s->image, NULL, note, s, &err, ret_result), &err);
}

/* Frames of one size whatever the seed: its bytes cannot be compressed. */
static void pack_sample(struct state *s, uint32_t seed)
{
	struct thaw_pack_options options = { .frame_size = 16384,
					     .level = 1,
					     .force = true };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	uint8_t *big = malloc(BIG);
	_buffer_ tar = { 0 };

	fill_pattern(big, BIG, seed);
	tar_directory(&tar, "d/");
	tar_file(&tar, "d/big", big, BIG);
	tar_text(&tar, "d/small", "text");
	tar_symlink(&tar, "link", "d/small");
	tar_hardlink(&tar, "hard", "d/small");
	tar_end(&tar);
	assert_success(pack_bytes(&tar, s->path, &options, &err, &report), &err);
	open_image(s, s->path);
	free(big);
}

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->directory = make_directory();
	s->path = join_path(s->directory, "image");
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->path);
	free(s);
	return 0;
}

static void good(void **state)
{
	struct state *s = *state;
	struct thaw_verify_result result;

	pack_sample(s, 1);
	for (unsigned threads = 1; threads < 9; threads *= 2) {
		struct thaw_pass_options options = { .threads = threads };
		struct thaw_error err = { 0 };

		assert_success(thaw_verify(s->image, &options, note, s, &err, &result),
			       &err);
		assert_int_equal(s->faults, 0);
		assert_int_equal(result.frames, thaw_image_info(s->image)->frames);
		assert_int_equal(result.files, 2);
		assert_int_equal(result.bad_frames + result.bad_files, 0);
		assert_true(result.stream_ok && result.index_ok);
	}
}

static void damaged_frame(void **state)
{
	struct state *s = *state;
	struct thaw_verify_result result;
	struct thaw_frame frame;
	_buffer_ bytes = { 0 };

	pack_sample(s, 1);
	thaw_image_frame(s->image, 5, &frame);
	read_file(s->path, &bytes);
	bytes.data[frame.file_offset + 100] ^= 1;
	write_file(s->path, bytes.data, bytes.size);
	verify(s, &result);
	assert_int_equal(s->faults, 1);
	assert_string_equal(s->last, "frame 5 is damaged (digest): in d/big");
	assert_int_equal(result.frames, thaw_image_info(s->image)->frames);
	assert_int_equal(result.bad_frames, 1);
	assert_int_equal(result.bad_files, 1);
	assert_false(result.stream_ok || result.index_ok);
}

/* An index that is well-formed, and digested, and of another stream. */
static void stream_that_is_no_tar(void **state)
{
	struct state *s = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_verify_result result;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };

	spec_sample(spec);
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, &err, &s->image), &err);
	verify(s, &result);
	assert_true(s->faults > 0);
	assert_memory_equal(s->last, "the stream: ", 12);
	assert_int_equal(result.bad_frames, 0);
	assert_true(result.stream_ok);
	assert_false(result.index_ok);
	s->image = thaw_image_free(s->image);
	spec_deinit(spec);
	free(spec);
}

/* A warm set of all of d/big, and a file in the annex. */
static void add_warm_set(struct state *s)
{
	struct thaw_trace *trace = thaw_trace_new(100);
	struct thaw_workload workload = { .name = "set", .trace = trace };
	struct thaw_addition addition = {
		.path = "d/added", .data = (const uint8_t *)"added", .size = 5, .mtime = 7
	};
	struct thaw_rewrite what = { .force = true,
				     .additions = &addition,
				     .addition_count = 1,
				     .workloads = &workload,
				     .workload_count = 1 };
	struct thaw_image_info info;
	struct thaw_inode inode;
	struct thaw_error err = { 0 };

	assert_int_equal(thaw_image_find(s->image, "d/big", &inode), 0);
	thaw_trace_add_read(trace, inode.ino, 0, BIG);
	assert_success(thaw_rewrite(s->image, s->path, &what, &err, &info), &err);
	thaw_trace_free(trace);
	open_image(s, s->path);
}

static unsigned warm_part(const struct thaw_image *image, struct thaw_part_info *ret_part)
{
	for (unsigned i = 0; i < thaw_image_part_count(image); i++) {
		thaw_image_part(image, i, ret_part);
		if (ret_part->type == THAW_PART_WARM)
			return i;
	}
	fail_msg("no warm set");
	return 0;
}

static void good_with_annex_and_warm_set(void **state)
{
	struct state *s = *state;
	struct thaw_verify_result result;

	pack_sample(s, 1);
	add_warm_set(s);
	verify(s, &result);
	assert_string_equal(s->last, "");
	assert_int_equal(result.warm_pages, (BIG + 4095) / 4096);
	assert_int_equal(result.bad_warm_pages, 0);
	assert_int_equal(result.files, 3);
	assert_true(result.stream_ok && result.index_ok);
}

static void damaged_warm_frame(void **state)
{
	struct state *s = *state;
	struct thaw_verify_result result;
	struct thaw_part_info part;
	_buffer_ bytes = { 0 };

	pack_sample(s, 1);
	add_warm_set(s);
	(void)warm_part(s->image, &part);
	read_file(s->path, &bytes);
	bytes.data[part.offset + part.size - 10] ^= 1;
	write_file(s->path, bytes.data, bytes.size);
	verify(s, &result);
	assert_true(s->faults > 0);
	assert_true(result.bad_warm_pages > 0 &&
		    result.bad_warm_pages <= result.warm_pages);
	assert_true(result.stream_ok && result.index_ok);
}

/* Its digests are right, but its pages are those of another file. */
static void warm_set_that_lies(void **state)
{
	struct state *s = *state;
	struct thaw_part_info good_part, lie;
	struct thaw_verify_result result;
	_buffer_ bytes = { 0 };
	_buffer_ other = { 0 };
	unsigned number;
	size_t entry;

	pack_sample(s, 2);
	add_warm_set(s);
	(void)warm_part(s->image, &lie);
	read_file(s->path, &other);
	pack_sample(s, 1);
	add_warm_set(s);
	number = warm_part(s->image, &good_part);
	read_file(s->path, &bytes);
	assert_int_equal(lie.size, good_part.size);
	assert_int_equal(lie.head_size, good_part.head_size);
	memcpy(bytes.data + good_part.offset, other.data + lie.offset, lie.size);
	entry = bytes.size - THAW_FOOTER_SIZE -
		(bytes.data[bytes.size - THAW_FOOTER_SIZE + THAW_FOOTER_OFF_TABLE_SIZE] |
		 (size_t)bytes.data[bytes.size - THAW_FOOTER_SIZE +
				    THAW_FOOTER_OFF_TABLE_SIZE + 1]
			 << 8) +
		THAW_TABLE_HEADER + number * THAW_PART_ENTRY;
	memcpy(bytes.data + entry + THAW_PART_OFF_DIGEST, lie.digest, THAW_DIGEST_SIZE);
	image_repair(bytes.data, bytes.size);
	write_file(s->path, bytes.data, bytes.size);
	open_image(s, s->path);
	verify(s, &result);
	assert_int_equal(result.bad_frames, 0);
	assert_int_equal(result.warm_pages, (BIG + 4095) / 4096);
	assert_int_equal(result.bad_warm_pages, result.warm_pages);
	assert_int_equal(s->faults, 20); /* the rest is only counted */
	assert_string_equal(s->last,
			    "warm set \"set\": page 19 of d/big is not the file's");
}

static int cancel(void *userdata, uint64_t done, uint64_t total)
{
	return done > total / 2;
}

static void cancelled(void **state)
{
	struct state *s = *state;
	struct thaw_pass_options options = { .threads = 3, .progress = cancel };
	struct thaw_verify_result result;
	struct thaw_error err = { 0 };

	pack_sample(s, 1);
	assert_int_equal(thaw_verify(s->image, &options, note, s, &err, &result), -EINTR);
	assert_int_equal(s->faults, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(good),
		TEST(damaged_frame),
		TEST(stream_that_is_no_tar),
		TEST(good_with_annex_and_warm_set),
		TEST(damaged_warm_frame),
		TEST(warm_set_that_lies),
		TEST(cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
