/* SPDX-License-Identifier: Apache-2.0 */
/* Writing an image out: exact, inside of its directory, all or nothing. */
#include "check.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "thaw/extract.h"

/* -- calls that fail when told to -- */

enum call {
	CALL_OPENAT,
	CALL_PWRITE,
	CALL_MKDIRAT,
	CALL_FCHMOD,
	CALL_FUTIMENS,
	CALL_SYMLINKAT,
	CALL_UTIMENSAT,
	CALL_LINKAT,
	CALLS,
};
static int fail_call = -1; /* enum call */
static int fail_after;	   /* this many go well */
static int short_write;	   /* pwrite() writes at most so much; 0: no bound */
static bool no_openat2;

static bool fails(enum call call)
{
	return (int)call == fail_call &&
	       __atomic_fetch_sub(&fail_after, 1, __ATOMIC_SEQ_CST) == 0;
}

int __real_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	/* only what makes files: the rest is needed to clean up as well */
	if (flags & O_CREAT && fails(CALL_OPENAT)) {
		errno = ENOSPC;
		return -1;
	}
	return __real_openat64(fd, path, flags, mode);
}

ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	if (fails(CALL_PWRITE)) {
		errno = ENOSPC;
		return -1;
	}
	if (short_write && len > (size_t)short_write)
		len = (size_t)short_write;
	return __real_pwrite64(fd, buf, len, offset);
}

#define WRAP(call, name, parameters, arguments)         \
	int __real_##name parameters;                   \
	int __wrap_##name parameters;                   \
	int __wrap_##name parameters                    \
	{                                               \
		if (!fails(call))                       \
			return __real_##name arguments; \
		errno = ENOSPC;                         \
		return -1;                              \
	}
WRAP(CALL_MKDIRAT, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
WRAP(CALL_FCHMOD, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(CALL_FUTIMENS, futimens, (int fd, const struct timespec times[2]), (fd, times))
WRAP(CALL_SYMLINKAT, symlinkat, (const char *to, int fd, const char *path),
     (to, fd, path))
WRAP(CALL_UTIMENSAT, utimensat,
     (int fd, const char *path, const struct timespec times[2], int flags),
     (fd, path, times, flags))
WRAP(CALL_LINKAT, linkat, (int a, const char *from, int b, const char *to, int flags),
     (a, from, b, to, flags))

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long a[4];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_openat2 && no_openat2) {
		errno = ENOSYS;
		return -1;
	}
	return __real_syscall(number, a[0], a[1], a[2], a[3]);
}

/* -- material -- */

#define BIG (9u << 20) /* several units */

struct state {
	char *directory, *out;
	uint8_t *big;
	struct thaw_image *image;
};

static void open_file(const char *path, struct thaw_image **ret_image)
{
	struct thaw_error err = { 0 };
	struct thaw_source *source;

	assert_success(thaw_source_open(path, &err, &source), &err);
	assert_success(thaw_image_open(source, &err, ret_image), &err);
}

static int setup(void **state)
{
	struct thaw_pack_options options = { .frame_size = 100000, .level = 1 };
	struct state *s = calloc(1, sizeof(*s));
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	_buffer_ tar = { 0 };
	char *image;

	fail_call = -1;
	short_write = 0;
	no_openat2 = false;
	s->directory = make_directory();
	s->out = join_path(s->directory, "out");
	s->big = malloc(BIG);
	fill_pattern(s->big, BIG, 3);
	tar_member(&tar, "d/", '5', 0755, 1000, NULL, NULL, 0);
	tar_member(&tar, "d/sub/", '5', 0755, 2000, NULL, NULL, 0);
	tar_member(&tar, "d/first", '0', 0600, 3000, NULL, "first", 5);
	tar_member(&tar, "d/sub/big", '0', 0555, 4000, NULL, s->big, BIG);
	tar_member(&tar, "empty", '0', 0644, 5000, NULL, NULL, 0);
	tar_member(&tar, "link", '2', 0777, 6000, "d/first", NULL, 0);
	tar_hardlink(&tar, "d/again", "d/first");
	tar_member(&tar, "last", '0', 0755, 7000, NULL, s->big, 300000);
	tar_end(&tar);
	image = join_path(s->directory, "image");
	assert_success(pack_bytes(&tar, image, &options, &err, &report), &err);
	open_file(image, &s->image);
	free(image);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->out);
	free(s->big);
	free(s);
	return 0;
}

static void check_file(const struct state *s, const char *name, const void *data,
		       size_t size, unsigned mode, time_t mtime, unsigned links)
{
	char *path = join_path(s->out, name);
	_buffer_ found = { 0 };
	struct stat st;

	read_file(path, &found);
	assert_int_equal(found.size, size);
	if (size)
		assert_memory_equal(found.data, data, size);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | mode);
	assert_int_equal(st.st_mtim.tv_sec, mtime);
	assert_int_equal(st.st_mtim.tv_nsec, 0);
	assert_int_equal(st.st_nlink, links);
	free(path);
}

static void check_directory(const struct state *s, const char *name, time_t mtime)
{
	char *path = join_path(s->out, name);
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	assert_int_equal(st.st_mtim.tv_sec, mtime);
	free(path);
}

static void check_tree(const struct state *s)
{
	char target[64] = "", *path = join_path(s->out, "link");
	struct stat st;

	check_file(s, "d/first", "first", 5, 0644, 3000, 2);
	check_file(s, "d/again", "first", 5, 0644, 3000, 2);
	check_file(s, "d/sub/big", s->big, BIG, 0555, 4000, 1);
	check_file(s, "empty", NULL, 0, 0644, 5000, 1);
	check_file(s, "last", s->big, 300000, 0755, 7000, 1);
	check_directory(s, "d", 1000);
	check_directory(s, "d/sub", 2000);
	assert_int_equal(readlink(path, target, sizeof(target) - 1), 7);
	assert_string_equal(target, "d/first");
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, 6000);
	assert_int_equal(count_entries(s->out), 4);
	free(path);
}

/* -- tests -- */

static void exact_with_any_number_of_threads(void **state)
{
	struct state *s = *state;

	for (unsigned threads = 0; threads < 9; threads += 1 + threads / 2) {
		struct thaw_pass_options options = { .threads = threads };
		struct thaw_error err = { 0 };

		assert_success(thaw_extract(s->image, s->out, &options, &err), &err);
		check_tree(s);
		remove_directory(strdup(s->out));
	}
}

static void exact_without_openat2_and_with_short_writes(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };

	no_openat2 = true;
	short_write = 77777;
	assert_success(thaw_extract(s->image, s->out, NULL, &err), &err);
	check_tree(s);
}

static void any_failing_call_leaves_nothing(void **state)
{
	struct state *s = *state;

	for (int call = 0; call < CALLS; call++) {
		int failures = 0;

		for (int after = 0;; after++) {
			struct thaw_pass_options options = { .threads = 2 };
			struct thaw_error err = { 0 };
			int r;

			/* Existing and empty, or made: both are as before. */
			if (after % 2)
				assert_int_equal(mkdir(s->out, 0700), 0);
			fail_call = call;
			fail_after = after;
			r = thaw_extract(s->image, s->out, &options, &err);
			fail_call = -1;
			if (r == 0) {
				check_tree(s);
				remove_directory(strdup(s->out));
				break;
			}
			failures++;
			assert_int_equal(r, -ENOSPC);
			assert_int_equal(err.exit_code, THAW_EXIT_IO);
			assert_non_null(strstr(err.text, "No space"));
			if (after % 2) {
				assert_int_equal(count_entries(s->out), 0);
				assert_int_equal(rmdir(s->out), 0);
			} else {
				assert_int_equal(access(s->out, F_OK), -1);
			}
		}
		assert_true(failures > 0);
	}
}

struct cancel {
	int after;
	uint64_t last, total;
};

static int count_down(void *userdata, uint64_t done, uint64_t total)
{
	struct cancel *cancel = userdata;

	assert_true(done >= cancel->last && done <= total);
	cancel->last = done;
	cancel->total = total;
	return cancel->after-- == 0;
}

static void cancelling_leaves_nothing(void **state)
{
	struct state *s = *state;
	struct cancel cancel = { .after = 2 };
	struct thaw_pass_options options = {
		.threads = 2,
		.progress = count_down,
		.progress_data = &cancel,
	};
	struct thaw_error err = { 0 };

	assert_int_equal(thaw_extract(s->image, s->out, &options, &err), -EINTR);
	assert_int_equal(access(s->out, F_OK), -1);
	cancel = (struct cancel){ .after = 1000000 };
	assert_success(thaw_extract(s->image, s->out, &options, &err), &err);
	assert_int_equal(cancel.last, cancel.total);
}

static void what_is_there_is_left_alone(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	char *mine, cause[600];

	assert_int_equal(mkdir(s->out, 0700), 0);
	mine = join_path(s->out, "d");
	assert_int_equal(symlink("/", mine), 0);
	(void)snprintf(cause, sizeof(cause), "%s: is not empty", s->out);
	assert_refused(thaw_extract(s->image, s->out, NULL, &err), &err, cause);
	assert_int_equal(count_entries(s->out), 1);
	assert_int_equal(unlink(mine), 0);
	assert_int_equal(rmdir(s->out), 0);
	write_file(s->out, "mine", 4);
	assert_int_equal(thaw_extract(s->image, s->out, NULL, &err), -ENOTDIR);
	free(mine);
}

/* Every offset and size that validation lets pass, also files that share bytes. */
static void sample_of_records_that_overlap(void **state)
{
	struct state *s = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	uint8_t stream[SAMPLE_STREAM];
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };

	fill_pattern(stream, sizeof(stream), 1);
	spec_sample(spec);
	spec->records[2].data = 1600;	       /* "a" lies in "b/e" */
	spec->records[7].data = SAMPLE_STREAM; /* "b/f" is empty, at the very end */
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, &err, &image), &err);
	assert_success(thaw_extract(image, s->out, NULL, &err), &err);
	check_file(s, "a", stream + 1600, 5, spec->records[2].mode,
		   spec->records[2].mtime, 2);
	check_file(s, "b/e", stream + 1536, 5000, spec->records[6].mode,
		   spec->records[6].mtime, 1);
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
}

/* Validation bounds names, not paths; writing them out must. */
static void paths_that_are_too_long(void **state)
{
	struct state *s = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };

	spec_sample(spec);
	memset(spec->strings, 'x', 255);
	spec->strings_size = 255;
	spec->record_count = 2;
	spec->records[1].size = 1;
	spec->records[1].data = 2;
	for (unsigned i = 2; i < 20; i++)
		spec->records[spec->record_count++] = (struct spec_record){
			.name_len = 255,
			.type = THAW_DIRECTORY,
			.mode = 0755,
			.parent = i - 1,
			.nlink = 2,
			.size = i < 19,
			.data = i + 1,
		};
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, &err, &image), &err);
	assert_limit(thaw_extract(image, s->out, NULL, &err), &err,
		     "a path in the image is longer than 4095 bytes");
	assert_int_equal(access(s->out, F_OK), -1);
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
}

static void damage_names_the_file(void **state)
{
	struct state *s = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };

	spec_sample(spec);
	/* the second frame, in which only "b/e" lies */
	spec_poke(spec, IN_IMAGE, spec->frames[1].file + spec->frames[1].stored / 2, 4,
		  0x12345678);
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, &err, &image), &err);
	assert_damaged(thaw_extract(image, s->out, NULL, &err), &err,
		       "b/e: frame 1 is damaged (digest)");
	assert_int_equal(access(s->out, F_OK), -1);
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(exact_with_any_number_of_threads),
		TEST(exact_without_openat2_and_with_short_writes),
		TEST(any_failing_call_leaves_nothing),
		TEST(cancelling_leaves_nothing),
		TEST(what_is_there_is_left_alone),
		TEST(sample_of_records_that_overlap),
		TEST(paths_that_are_too_long),
		TEST(damage_names_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
