/* SPDX-License-Identifier: Apache-2.0 */
/* Adding files and warm sets to an image: what moves, what stays, what is replaced. */
#include "check.h"

#include <sys/stat.h>

#include "digest.h"
#include "thaw/extract.h"
#include "thaw/reader.h"
#include "thaw/rewrite.h"
#include "thaw/warm.h"

#define BIG 300000u

struct state {
	char *directory, *path;
	struct thaw_image *image;
	uint8_t *big;
};

static void open_image(struct state *s)
{
	struct thaw_error err = { 0 };

	s->image = thaw_image_free(s->image);
	assert_success(open_path(s->path, &err, &s->image), &err);
}

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));
	struct thaw_pack_options options = { .frame_size = 16384, .level = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	_buffer_ tar = { 0 };

	s->directory = make_directory();
	s->path = join_path(s->directory, "image");
	s->big = malloc(BIG);
	fill_pattern(s->big, BIG, 1);
	tar_directory(&tar, "m/");
	tar_file(&tar, "m/big", s->big, BIG);
	tar_text(&tar, "m/mod.py", "x = 1\n");
	tar_text(&tar, "z/last", "last");
	tar_symlink(&tar, "link", "m");
	tar_hardlink(&tar, "z/hard", "m/mod.py");
	tar_end(&tar);
	assert_success(pack_bytes(&tar, s->path, &options, &err, &report), &err);
	open_image(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->path);
	free(s->big);
	free(s);
	return 0;
}

static uint32_t find(const struct state *s, const char *path)
{
	struct thaw_inode inode;

	assert_int_equal(thaw_image_find(s->image, path, &inode), 0);
	return inode.ino;
}

static void content_is(const struct state *s, const char *path, const void *data, size_t size)
{
	struct thaw_reader *reader;
	struct thaw_error err = { 0 };
	struct thaw_inode inode;
	uint8_t *buf = malloc(size + 1);
	size_t n;

	assert_int_equal(thaw_image_find(s->image, path, &inode), 0);
	assert_int_equal(inode.size, size);
	assert_int_equal(thaw_reader_new(s->image, 0, &reader), 0);
	assert_success(thaw_reader_read(reader, &inode, 0, buf, size + 1, &err, &n), &err);
	assert_int_equal(n, size);
	assert_memory_equal(buf, data, size);
	thaw_reader_free(reader);
	free(buf);
}

static void verify(const struct state *s, uint64_t warm_pages)
{
	struct thaw_verify_result result;
	struct thaw_error err = { 0 };

	assert_success(thaw_verify(s->image, NULL, NULL, NULL, &err, &result), &err);
	assert_int_equal(result.bad_frames + result.bad_files + result.bad_warm_pages, 0);
	assert_int_equal(result.warm_pages, warm_pages);
	assert_true(result.stream_ok && result.index_ok);
}

/* A set of one file's pages [first, first + count), and additions if there are any. */
static void rewrite(struct state *s, const char *name, const char *path, uint32_t first,
		    uint32_t count, const struct thaw_addition *additions, size_t addition_count)
{
	struct thaw_trace *trace = thaw_trace_new(100);
	struct thaw_workload workload = { .name = name, .trace = trace };
	struct thaw_rewrite what = { .force = true,
				     .additions = additions,
				     .addition_count = addition_count,
				     .workloads = &workload,
				     .workload_count = name ? 1 : 0 };
	struct thaw_image_info info;
	struct thaw_error err = { 0 };

	if (name)
		thaw_trace_add_read(trace, find(s, path), (uint64_t)first * 4096, count * 4096ull);
	assert_success(thaw_rewrite(s->image, s->path, &what, &err, &info), &err);
	thaw_trace_free(trace);
	open_image(s);
	assert_memory_equal(info.identity, thaw_image_info(s->image)->identity, THAW_DIGEST_SIZE);
	assert_int_equal(count_entries(s->directory), 1); /* nothing is left beside it */
}

/* The first PAGES operation of the set; its part's number or -1. */
static int find_set(const struct state *s, const char *name, struct thaw_warm_info *ret_info,
		    struct thaw_warm_op *ret_op)
{
	int found = -1;

	for (unsigned i = 0; i < thaw_image_part_count(s->image); i++) {
		struct thaw_part_info part;
		struct thaw_warm *warm;
		struct thaw_error err = { 0 };

		thaw_image_part(s->image, i, &part);
		if (part.type != THAW_PART_WARM || strcmp(part.name, name) != 0)
			continue;
		assert_int_equal(found, -1); /* not twice */
		found = (int)i;
		assert_success(thaw_warm_open(s->image, i, &err, &warm), &err);
		thaw_warm_info(warm, ret_info);
		for (uint32_t op = 0; op < ret_info->ops; op++) {
			thaw_warm_op(warm, op, ret_op);
			if (ret_op->kind == THAW_WARM_PAGES)
				break;
		}
		thaw_warm_free(warm);
	}
	return found;
}

static const struct thaw_addition added = {
	.path = "m/__pycache__/mod.cpython-311.pyc", .data = (const uint8_t *)"bytecode", .size = 8,
	.mtime = 77,
};

static void set_alone(void **state)
{
	struct state *s = *state;
	struct thaw_image_info before = *thaw_image_info(s->image), after;
	struct thaw_warm_info info;
	struct thaw_warm_op op;

	rewrite(s, "one", "m/big", 3, 2, NULL, 0);
	after = *thaw_image_info(s->image);
	assert_memory_equal(before.stream_digest, after.stream_digest, THAW_DIGEST_SIZE);
	assert_memory_equal(before.index_digest, after.index_digest, THAW_DIGEST_SIZE);
	assert_memory_not_equal(before.identity, after.identity, THAW_DIGEST_SIZE);
	assert_true(find_set(s, "one", &info, &op) > 0);
	assert_int_equal(info.pages, 2);
	assert_int_equal(op.first, 3);
	verify(s, 2);
	/* The same name: in its place. Another: beside it. */
	rewrite(s, "one", "m/big", 5, 4, NULL, 0);
	verify(s, 4);
	rewrite(s, "two", "z/last", 0, 1, NULL, 0);
	assert_true(find_set(s, "one", &info, &op) > 0);
	assert_int_equal(op.first, 5);
	assert_true(find_set(s, "two", &info, &op) > 0);
	assert_int_equal(op.ino, find(s, "z/last"));
	verify(s, 5);
}

static void files(void **state)
{
	struct state *s = *state;
	struct thaw_image_info before = *thaw_image_info(s->image);
	uint8_t *large = malloc(BIG * 2);
	struct thaw_addition more[] = {
		{ .path = "m/__pycache__/large.cpython-311.pyc", .data = large, .size = BIG * 2 },
		{ .path = "new/deep/file", .data = NULL, .size = 0, .mtime = 5 },
	};
	struct thaw_inode inode;

	fill_pattern(large, BIG * 2, 3);
	rewrite(s, NULL, NULL, 0, 0, &added, 1);
	assert_memory_equal(before.stream_digest, thaw_image_info(s->image)->stream_digest,
			    THAW_DIGEST_SIZE);
	assert_int_equal(thaw_image_info(s->image)->annex_size, 8);
	content_is(s, added.path, "bytecode", 8);
	assert_int_equal(thaw_image_find(s->image, added.path, &inode), 0);
	assert_int_equal(inode.mtime, 77);
	assert_int_equal(inode.mode, 0644);
	verify(s, 0);
	/* A second annex behind the first; what the first holds moves with it. */
	rewrite(s, NULL, NULL, 0, 0, more, 2);
	content_is(s, added.path, "bytecode", 8);
	content_is(s, more[0].path, large, BIG * 2);
	content_is(s, more[1].path, "", 0);
	content_is(s, "m/big", s->big, BIG);
	content_is(s, "z/hard", "x = 1\n", 6);
	assert_int_equal(find(s, "z/hard"), find(s, "m/mod.py"));
	verify(s, 0);
	free(large);
}

/* Files that are added move those behind them: a set of before names the same files. */
static void renumbering(void **state)
{
	struct state *s = *state;
	struct thaw_warm_info info, again;
	struct thaw_warm_op op;
	uint32_t old = find(s, "z/last");

	rewrite(s, "kept", "z/last", 0, 1, NULL, 0);
	assert_true(find_set(s, "kept", &info, &op) > 0);
	assert_int_equal(op.ino, old);
	rewrite(s, "new", "m/big", 0, 3, &added, 1);
	assert_true(find(s, "z/last") > old);
	assert_true(find_set(s, "kept", &again, &op) > 0);
	assert_int_equal(op.ino, find(s, "z/last"));
	assert_int_equal(again.pages, info.pages);
	assert_int_equal(again.bytes, info.bytes);
	/* The new one's trace was recorded with the old numbers. */
	assert_true(find_set(s, "new", &again, &op) > 0);
	assert_int_equal(op.ino, find(s, "m/big"));
	verify(s, 4);
}

/* A source that has bytecode now: the next run reads that, and all of it. */
static void bytecode_instead_of_source(void **state)
{
	struct state *s = *state;
	struct thaw_warm_info info;
	struct thaw_warm_op op;

	rewrite(s, "set", "m/mod.py", 0, 1, &added, 1);
	assert_true(find_set(s, "set", &info, &op) > 0);
	assert_int_equal(op.ino, find(s, added.path));
	assert_int_equal(info.files, 1);
	assert_int_equal(info.bytes, 8);
	verify(s, 1);
}

static void refusals(void **state)
{
	struct state *s = *state;
	struct thaw_rewrite what = { 0 };
	struct thaw_addition bad = { .path = "../up", .data = (const uint8_t *)"x", .size = 1 };
	char *other = join_path(s->directory, "other");
	struct thaw_image_info info;
	struct thaw_error err = { 0 };
	_buffer_ before = { 0 };
	_buffer_ after = { 0 };
	struct stat st;

	read_file(s->path, &before);
	assert_failure(thaw_rewrite(s->image, s->path, &what, &err, &info), &err, EEXIST,
		       THAW_EXIT_REFUSED, "exists already (--force replaces it)");
	what.force = true;
	what.additions = &bad;
	what.addition_count = 1;
	assert_true(thaw_rewrite(s->image, s->path, &what, &err, &info) < 0);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	bad.path = "m/big/below";
	assert_true(thaw_rewrite(s->image, s->path, &what, &err, &info) < 0);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	read_file(s->path, &after);
	assert_int_equal(before.size, after.size);
	assert_memory_equal(before.data, after.data, after.size);
	assert_int_equal(count_entries(s->directory), 1);
	/* The same image elsewhere, and nothing added: byte for byte. */
	what = (struct thaw_rewrite){ 0 };
	assert_success(thaw_rewrite(s->image, other, &what, &err, &info), &err);
	after.size = 0;
	read_file(other, &after);
	assert_int_equal(before.size, after.size);
	assert_memory_equal(before.data, after.data, after.size);
	/* A replaced file's mode is kept. */
	assert_int_equal(chmod(other, 0640), 0);
	what.force = true;
	assert_success(thaw_rewrite(s->image, other, &what, &err, &info), &err);
	assert_int_equal(stat(other, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	free(other);
}

/* What precedes an image in its file goes on preceding it. */
static void other_bytes(void **state)
{
	static const char front[] = "#!/bin/sh\nexit 0\n";
	const struct thaw_addition more = { .path = "m/more", .data = (const uint8_t *)"more",
					    .size = 4 };
	struct thaw_rewrite what = { .force = true, .additions = &more, .addition_count = 1 };
	struct state *s = *state;
	struct thaw_image_info info;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };
	struct stat st;
	FILE *file;

	read_file(s->path, &bytes);
	file = fopen(s->path, "we");
	assert_non_null(file);
	assert_int_equal(fwrite(front, 1, sizeof(front), file), sizeof(front));
	assert_int_equal(fwrite(bytes.data, 1, bytes.size, file), bytes.size);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(s->path, 0750), 0);
	open_image(s);
	assert_int_equal(thaw_image_info(s->image)->image_start, sizeof(front));
	assert_success(thaw_rewrite(s->image, s->path, &what, &err, &info), &err);
	open_image(s);
	assert_int_equal(info.image_start, sizeof(front));
	assert_memory_equal(info.identity, thaw_image_info(s->image)->identity,
			    THAW_DIGEST_SIZE);
	verify(s, 0);
	assert_int_not_equal(find(s, "m/more"), 0);
	bytes.size = 0;
	read_file(s->path, &bytes);
	assert_memory_equal(bytes.data, front, sizeof(front));
	assert_int_equal(bytes.size, sizeof(front) + info.image_size);
	assert_int_equal(stat(s->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(count_entries(s->directory), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(set_alone),
		TEST(files),
		TEST(renumbering),
		TEST(bytecode_instead_of_source),
		TEST(refusals),
		TEST(other_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
