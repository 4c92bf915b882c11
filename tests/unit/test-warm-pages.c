/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing warm sets, and telling reads that they should have spared. */
#include "check.h"

#include "thaw/rewrite.h"
#include "warm-pages.h"

#define BIG (40 * 4096u)

struct state {
	char *directory, *path;
	struct thaw_image *image;
	struct thaw_counters *counters;
	struct thaw_warm_pages warm;
};

static void open_image(struct state *s)
{
	struct thaw_error err = { 0 };

	s->image = thaw_image_free(s->image);
	assert_success(open_path(s->path, &err, &s->image), &err);
}

static uint32_t find(const struct state *s, const char *path)
{
	struct thaw_inode inode;

	assert_int_equal(thaw_image_find(s->image, path, &inode), 0);
	return inode.ino;
}

/* Pages 10 to 13 and then 2 to 4 of "a" in the set "one", page 12 to 14 in "two". */
static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));
	struct thaw_pack_options options = { .level = 1 };
	struct thaw_pack_report report;
	struct thaw_workload workloads[] = { { .name = "one", .trace = thaw_trace_new(9) },
					     { .name = "two", .trace = thaw_trace_new(9) } };
	struct thaw_rewrite what = { .force = true, .workloads = workloads, .workload_count = 2 };
	struct thaw_image_info info;
	struct thaw_error err = { 0 };
	uint8_t *big = malloc(BIG);
	_buffer_ tar = { 0 };

	s->directory = make_directory();
	s->path = join_path(s->directory, "image");
	fill_pattern(big, BIG, 1);
	tar_file(&tar, "a", big, BIG);
	tar_file(&tar, "b", big, BIG);
	tar_end(&tar);
	free(big);
	assert_success(pack_bytes(&tar, s->path, &options, &err, &report), &err);
	open_image(s);
	thaw_trace_add_read((struct thaw_trace *)workloads[0].trace, find(s, "a"), 10 * 4096, 4 * 4096);
	thaw_trace_add_read((struct thaw_trace *)workloads[0].trace, find(s, "a"), 2 * 4096, 3 * 4096);
	thaw_trace_add_read((struct thaw_trace *)workloads[1].trace, find(s, "a"), 12 * 4096, 3 * 4096);
	assert_success(thaw_rewrite(s->image, s->path, &what, &err, &info), &err);
	for (unsigned i = 0; i < 2; i++)
		thaw_trace_free((struct thaw_trace *)workloads[i].trace);
	open_image(s);
	s->counters = calloc(1, sizeof(*s->counters));
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_warm_pages_deinit(&s->warm);
	free(s->counters);
	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->path);
	free(s);
	return 0;
}

static void choose(struct state *s, const char *choice, unsigned count, uint64_t pages)
{
	struct thaw_error err = { 0 };

	thaw_warm_pages_deinit(&s->warm);
	assert_success(thaw_warm_pages_init(&s->warm, s->image, "image", choice, &err), &err);
	assert_int_equal(s->warm.count, count);
	assert_int_equal(s->warm.pages, pages);
}

static void choices(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };

	choose(s, NULL, 2, 10);
	choose(s, "all", 2, 10);
	choose(s, "none", 0, 0);
	choose(s, "one", 1, 7);
	choose(s, "two", 1, 3);
	thaw_warm_pages_deinit(&s->warm);
	assert_failure(thaw_warm_pages_init(&s->warm, s->image, "image", "three", &err), &err, ENOENT,
		       THAW_EXIT_USAGE, "has no warm set \"three\"");
	assert_failure(thaw_warm_pages_init(&s->warm, s->image, "image", "", &err), &err, ENOENT,
		       THAW_EXIT_USAGE, "has no warm set \"\"");
}

static void note(struct state *s, const char *path, uint64_t offset, uint64_t len,
		 uint64_t overtaken, uint64_t late)
{
	atomic_store(&s->counters->warm_overtaken, 0);
	atomic_store(&s->counters->warm_pages_read, 0);
	thaw_warm_pages_note(&s->warm, s->counters, find(s, path), offset, len);
	assert_int_equal(atomic_load(&s->counters->warm_overtaken), overtaken);
	assert_int_equal(atomic_load(&s->counters->warm_pages_read), late);
}

static void reads(void **state)
{
	struct state *s = *state;

	choose(s, "one", 1, 7);
	note(s, "a", 0, BIG, 7, 0);
	note(s, "a", 0, 2 * 4096, 0, 0);
	note(s, "a", 0, 2 * 4096 + 1, 1, 0);
	note(s, "a", 4 * 4096 + 4095, 1, 1, 0);
	note(s, "a", 5 * 4096, 5 * 4096, 0, 0);
	note(s, "a", 4 * 4096, 7 * 4096, 2, 0);
	note(s, "a", 14 * 4096, BIG, 0, 0);
	note(s, "b", 0, BIG, 0, 0);
	/* Once the warmer has been there, the same reads should not have been necessary. */
	atomic_store(&s->counters->warm_done, UINT32_MAX);
	note(s, "a", 0, BIG, 0, 7);
	/* It has done the first run, which is the later one in the file. */
	for (uint32_t i = 0; i < s->warm.run_count; i++)
		if (s->warm.runs[i].first == 10)
			atomic_store(&s->counters->warm_done, s->warm.runs[i].op + 1);
	note(s, "a", 0, BIG, 3, 4);
	atomic_store(&s->counters->warm_done, 0);
	/* Pages of two sets count for both. */
	choose(s, "all", 2, 10);
	note(s, "a", 12 * 4096, 4096, 2, 0);
	note(s, "a", 14 * 4096, 4096, 1, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(choices),
		TEST(reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
