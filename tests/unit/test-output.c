/* SPDX-License-Identifier: Apache-2.0 */
/* Files that appear whole or not at all, with O_TMPFILE and without. */
#include "check.h"

#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pack-internal.h"
#include "without-tmpfile.h"

struct state {
	char *directory, *path;
	struct thaw_error err;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->directory = make_directory();
	s->path = join_path(s->directory, "image.thaw");
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	tmpfile_error = 0;
	remove_directory(s->directory);
	free(s->path);
	free(s);
	return 0;
}

static struct thaw_output *open_it(struct state *s, bool force)
{
	struct thaw_output *output;

	assert_success(thaw_output_open(s->path, force, &s->err, &output), &s->err);
	return output;
}

static void write_it(struct state *s, struct thaw_output *output, const char *text)
{
	assert_success(thaw_output_write(output, text, strlen(text), &s->err), &s->err);
}

static void expect_contents(struct state *s, const char *text)
{
	_buffer_ bytes = { 0 };

	read_file(s->path, &bytes);
	assert_int_equal(bytes.size, strlen(text));
	assert_memory_equal(bytes.data, text, bytes.size);
	assert_int_equal(count_entries(s->directory), 1);
}

static void check_commit(struct state *s)
{
	struct thaw_output *output = open_it(s, false);

	write_it(s, output, "one ");
	assert_int_equal(thaw_output_offset(output), 4);
	write_it(s, output, "two");
	assert_int_equal(thaw_output_offset(output), 7);
	assert_int_equal(access(s->path, F_OK), -1); /* not before it is whole */
	assert_success(thaw_output_commit(output, &s->err), &s->err);
	expect_contents(s, "one two");
	assert_null(thaw_output_free(output));
	expect_contents(s, "one two");
}

static void check_abandon(struct state *s, bool hidden)
{
	struct thaw_output *output = open_it(s, false);

	write_it(s, output, "half");
	assert_int_equal(count_entries(s->directory), hidden);
	thaw_output_free(output);
	assert_int_equal(count_entries(s->directory), 0);
}

static void check_existing(struct state *s)
{
	struct thaw_output *output;

	write_file(s->path, "old", 3);
	assert_failure(thaw_output_open(s->path, false, &s->err, &output), &s->err, EEXIST,
		       THAW_EXIT_REFUSED, "exists already (--force replaces it)");
	expect_contents(s, "old");
	output = open_it(s, true);
	write_it(s, output, "new");
	thaw_output_free(output); /* given up: the old one stays */
	expect_contents(s, "old");
	output = open_it(s, true);
	write_it(s, output, "new");
	assert_success(thaw_output_commit(output, &s->err), &s->err);
	thaw_output_free(output);
	expect_contents(s, "new");
}

/* Somebody else was faster, after we looked. */
static void check_race(struct state *s)
{
	struct thaw_output *output = open_it(s, false);

	write_it(s, output, "mine");
	write_file(s->path, "theirs", 6);
	assert_failure(thaw_output_commit(output, &s->err), &s->err, EEXIST, THAW_EXIT_REFUSED,
		       "exists already (--force replaces it)");
	thaw_output_free(output);
	expect_contents(s, "theirs");
}

static void commit(void **state)
{
	check_commit(*state);
}

static void abandon(void **state)
{
	check_abandon(*state, false);
}

static void existing(void **state)
{
	check_existing(*state);
}

static void race(void **state)
{
	check_race(*state);
}

static void without_tmpfile(void **state)
{
	static const int errors[] = { EOPNOTSUPP, EISDIR, ENOENT, EINVAL };
	struct state *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		tmpfile_error = errors[i];
		check_commit(s);
		assert_int_equal(unlink(s->path), 0);
		check_abandon(s, true);
		check_existing(s);
		assert_int_equal(unlink(s->path), 0);
		check_race(s);
		assert_int_equal(unlink(s->path), 0);
	}
}

/* What a killed writer left is taken over; what a living one holds is not. */
static void leftovers(void **state)
{
	struct state *s = *state;
	char *part = join_path(s->directory, ".image.thaw.part");
	struct thaw_output *output;
	struct stat st;

	tmpfile_error = EOPNOTSUPP;
	write_file(part, "left by a killed writer", 23);
	check_commit(s);
	assert_int_equal(unlink(s->path), 0);

	output = open_it(s, false);
	write_it(s, output, "alive");
	for (unsigned i = 0; i < 2; i++) {
		struct thaw_output *other;

		assert_failure(thaw_output_open(s->path, false, &s->err, &other), &s->err, EBUSY,
			       THAW_EXIT_IO,
			       "is being written by another process: Device or resource busy");
		/* The one who was refused has not taken the other's file away. */
		assert_int_equal(stat(part, &st), 0);
		assert_int_equal(st.st_size, 5);
	}
	assert_success(thaw_output_commit(output, &s->err), &s->err);
	thaw_output_free(output);
	expect_contents(s, "alive");
	free(part);
}

/* Nobody can make us write through a link that was put in the hidden file's place. */
static void hidden_name_is_a_symlink(void **state)
{
	struct state *s = *state;
	char *part = join_path(s->directory, ".image.thaw.part");
	char *victim = join_path(s->directory, "victim");
	struct thaw_output *output;
	_buffer_ bytes = { 0 };

	tmpfile_error = EOPNOTSUPP;
	write_file(victim, "precious", 8);
	assert_int_equal(symlink("victim", part), 0);
	assert_failure(thaw_output_open(s->path, false, &s->err, &output), &s->err, ELOOP,
		       THAW_EXIT_IO, "cannot be created: Too many levels of symbolic links");
	read_file(victim, &bytes);
	assert_int_equal(bytes.size, 8);
	free(part);
	free(victim);
}

static void other_errors(void **state)
{
	struct state *s = *state;
	struct thaw_output *output;
	char *inside = join_path(s->directory, "absent/image.thaw");

	assert_failure(thaw_output_open(inside, false, &s->err, &output), &s->err, ENOENT,
		       THAW_EXIT_IO, "its directory cannot be opened: No such file or directory");
	assert_failure(thaw_output_open("dir/", false, &s->err, &output), &s->err, EISDIR,
		       THAW_EXIT_IO, "cannot be written: Is a directory");
	assert_failure(thaw_output_open("..", false, &s->err, &output), &s->err, EISDIR, THAW_EXIT_IO,
		       "cannot be written: Is a directory");
	tmpfile_error = ENOSPC;
	assert_failure(thaw_output_open(s->path, false, &s->err, &output), &s->err, ENOSPC,
		       THAW_EXIT_IO, "cannot be created: No space left on device");
	assert_int_equal(mkdir(s->path, 0755), 0);
	assert_failure(thaw_output_open(s->path, true, &s->err, &output), &s->err, EPERM,
		       THAW_EXIT_REFUSED, "is not a file; it is not replaced");
	free(inside);
}

/* A nameless file that is to replace another passes through the same hidden name. */
static void replacing_sweeps_leftovers(void **state)
{
	struct state *s = *state;
	char *part = join_path(s->directory, ".image.thaw.part");
	struct thaw_output *output;
	struct stat st;
	int fd;

	write_file(s->path, "old", 3);
	write_file(part, "left by a killed writer", 23);
	output = open_it(s, true);
	write_it(s, output, "new");
	assert_success(thaw_output_commit(output, &s->err), &s->err);
	thaw_output_free(output);
	expect_contents(s, "new");
	assert_int_equal(stat(part, &st), -1);

	write_file(part, "a living writer's", 17);
	fd = open(part, O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	output = open_it(s, true);
	write_it(s, output, "newer");
	assert_failure(thaw_output_commit(output, &s->err), &s->err, EBUSY, THAW_EXIT_IO,
		       "is being written by another process: Device or resource busy");
	thaw_output_free(output);
	assert_int_equal(stat(part, &st), 0);
	assert_int_equal(unlink(part), 0);
	expect_contents(s, "new");
	assert_int_equal(close(fd), 0);
	free(part);
}

/* --force on a symlink replaces the link, not what it leads to. */
static void replacing_a_symlink(void **state)
{
	struct state *s = *state;
	char *target = join_path(s->directory, "target");
	struct thaw_output *output;
	_buffer_ bytes = { 0 };
	struct stat st;

	write_file(target, "keep", 4);
	assert_int_equal(symlink("target", s->path), 0);
	output = open_it(s, true);
	write_it(s, output, "new");
	assert_success(thaw_output_commit(output, &s->err), &s->err);
	thaw_output_free(output);
	assert_int_equal(lstat(s->path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	read_file(target, &bytes);
	assert_memory_equal(bytes.data, "keep", 4);
	free(target);
}

static void long_names(void **state)
{
	struct state *s = *state;
	char name[256];

	memset(name, 'n', 255);
	name[255] = '\0';
	free(s->path);
	s->path = join_path(s->directory, name);
	check_commit(s);
	assert_int_equal(unlink(s->path), 0);
	check_existing(s);
	assert_int_equal(unlink(s->path), 0);
	tmpfile_error = EOPNOTSUPP;
	check_commit(s);
}

static void mode_follows_umask(void **state)
{
	struct state *s = *state;

	for (unsigned i = 0; i < 2; i++) {
		mode_t old = umask(0027);
		struct stat st;

		tmpfile_error = i ? EOPNOTSUPP : 0;
		check_commit(s);
		umask(old);
		assert_int_equal(stat(s->path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0640);
		assert_int_equal(unlink(s->path), 0);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(commit),
		TEST(abandon),
		TEST(existing),
		TEST(race),
		TEST(without_tmpfile),
		TEST(leftovers),
		TEST(replacing_sweeps_leftovers),
		TEST(hidden_name_is_a_symlink),
		TEST(other_errors),
		TEST(replacing_a_symlink),
		TEST(long_names),
		TEST(mode_follows_umask),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
