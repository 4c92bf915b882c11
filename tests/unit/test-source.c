/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: bytes at offsets from files, descriptors and memory. */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 10000u

struct state {
	char *directory, *path;
	uint8_t bytes[SIZE];
	/* What pread(2) does, for the tests of short reads. */
	unsigned calls;
};
static struct state *faults; /* set while pread is to misbehave; see __wrap_pread64 */

ssize_t __real_pread64(int fd, void *buf, size_t len, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t offset);

/* Interrupted every second time, and otherwise at most seven bytes. */
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t offset)
{
	if (faults && faults->calls++ % 2 == 0) {
		errno = EINTR;
		return -1;
	}
	return __real_pread64(fd, buf, faults && len > 7 ? 7 : len, offset);
}

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->directory = make_directory();
	s->path = join_path(s->directory, "file");
	fill_pattern(s->bytes, SIZE, 3);
	write_file(s->path, s->bytes, SIZE);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	faults = NULL;
	remove_directory(s->directory);
	free(s->path);
	free(s);
	return 0;
}

static void check_reads(struct state *s, struct thaw_source *source)
{
	uint8_t buf[SIZE];

	assert_int_equal(source->size, SIZE);
	assert_int_equal(source->read(source, 0, buf, SIZE), 0);
	assert_memory_equal(buf, s->bytes, SIZE);
	for (unsigned i = 0; i < 200; i++) {
		uint32_t offset = i * 7919 % SIZE, len = i * 104729 % (SIZE - offset + 1);

		memset(buf, 0xee, sizeof(buf));
		assert_int_equal(source->read(source, offset, buf, len), 0);
		assert_memory_equal(buf, s->bytes + offset, len);
		if (len < SIZE)
			assert_int_equal(buf[len], 0xee);
	}
	assert_int_equal(source->read(source, SIZE, buf, 0), 0);
	assert_int_equal(source->read(source, SIZE, buf, 1), -EIO);
	assert_int_equal(source->read(source, SIZE - 1, buf, 2), -EIO);
	assert_int_equal(source->read(source, 0, buf, 0), 0);
}

static void file(void **state)
{
	struct thaw_source *source;
	struct thaw_error err;

	assert_success(thaw_source_open(((struct state *)*state)->path, &err, &source), &err);
	check_reads(*state, source);
	assert_null(thaw_source_free(source));
}

static void memory(void **state)
{
	struct state *s = *state;
	struct thaw_source *source;
	uint8_t byte;

	assert_int_equal(thaw_source_from_memory(s->bytes, SIZE, &source), 0);
	check_reads(s, source);
	/* Offsets and lengths whose sum wraps. */
	assert_int_equal(source->read(source, UINT64_MAX, &byte, 1), -EIO);
	assert_int_equal(source->read(source, 1, &byte, SIZE_MAX), -EIO);
	thaw_source_free(source);
}

/* The descriptor stays the caller's: closing it does not disturb the source. */
static void descriptor(void **state)
{
	struct state *s = *state;
	struct thaw_source *source;
	struct thaw_error err;
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);

	assert_success(thaw_source_from_fd(fd, &err, &source), &err);
	assert_int_equal(close(fd), 0);
	check_reads(s, source);
	thaw_source_free(source);
}

static void unlinked(void **state)
{
	struct state *s = *state;
	struct thaw_source *source;
	struct thaw_error err;

	assert_success(thaw_source_open(s->path, &err, &source), &err);
	assert_int_equal(unlink(s->path), 0);
	check_reads(s, source);
	thaw_source_free(source);
}

static void short_and_interrupted_reads(void **state)
{
	struct state *s = *state;
	struct thaw_source *source;
	struct thaw_error err;

	assert_success(thaw_source_open(s->path, &err, &source), &err);
	faults = s;
	check_reads(s, source);
	faults = NULL;
	assert_true(s->calls > 2 * SIZE / 7); /* the faults were really there */
	thaw_source_free(source);
}

/* Cut short under an open source: an error, and the rest can still be read. */
static void truncated(void **state)
{
	struct state *s = *state;
	struct thaw_source *source;
	struct thaw_error err;
	uint8_t buf[SIZE];

	assert_success(thaw_source_open(s->path, &err, &source), &err);
	assert_int_equal(truncate(s->path, 5000), 0);
	assert_int_equal(source->read(source, 0, buf, SIZE), -EIO);
	assert_int_equal(source->read(source, 4999, buf, 2), -EIO);
	assert_int_equal(source->read(source, 0, buf, 5000), 0);
	assert_memory_equal(buf, s->bytes, 5000);
	assert_int_equal(source->size, SIZE);
	thaw_source_free(source);
}

static void not_files(void **state)
{
	struct state *s = *state;
	char *fifo = join_path(s->directory, "fifo"), *absent = join_path(s->directory, "absent");
	struct thaw_source *source;
	struct thaw_error err;
	int pipes[2];

	assert_failure(thaw_source_open(s->directory, &err, &source), &err, EISDIR, THAW_EXIT_IO,
		       "an image must be a file: Is a directory");
	assert_failure(thaw_source_open(absent, &err, &source), &err, ENOENT, THAW_EXIT_IO,
		       "cannot be opened: No such file or directory");
	/* Nobody writes: must not hang. */
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_failure(thaw_source_open(fifo, &err, &source), &err, ESPIPE, THAW_EXIT_IO,
		       "an image must be a file: Illegal seek");
	assert_int_equal(pipe(pipes), 0);
	assert_failure(thaw_source_from_fd(pipes[0], &err, &source), &err, ESPIPE, THAW_EXIT_IO,
		       "an image must be a file: Illegal seek");
	(void)close(pipes[0]);
	(void)close(pipes[1]);
	assert_failure(thaw_source_from_fd(-1, &err, &source), &err, EBADF, THAW_EXIT_IO,
		       "the descriptor cannot be used: Bad file descriptor");
	free(fifo);
	free(absent);
}

static void null_is_freed(void **state)
{
	assert_null(thaw_source_free(NULL));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(file),
		TEST(memory),
		TEST(descriptor),
		TEST(unlinked),
		TEST(short_and_interrupted_reads),
		TEST(truncated),
		TEST(not_files),
		TEST(null_is_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
