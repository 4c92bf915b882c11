/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults at every single place: memory, reading, writing, syncing and naming
 * fail at the n-th call, for every n until nothing fails any more, while an
 * archive is packed, an image opened and all of it read. The result is an error
 * or a whole image, never a crash, a leak or a file left behind.
 *
 * The linker replaces the functions in thaw's own code (--wrap); libraries
 * allocate as always, but for what they ask of thaw.
 */
#include "check.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support-zip.h"
#include "thaw/reader.h"

/*
 * Not ours: glibc's fts_close() forgets the root when nothing has been read yet,
 * libarchive's writer its buffer when the last write fails. Once a process each. What fts_open() is called in the report
 * depends on the symbolizer.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:fts_open\nleak:fts64_open\nleak:archive_write_open2\n";
}

enum fault { FAULT_MEMORY, FAULT_PREAD, FAULT_READ, FAULT_WRITE, FAULT_FSYNC, FAULT_NAME, FAULT_FSTAT, FAULTS };
static const char *const fault_names[FAULTS] = {
	"memory", "pread", "read", "write", "fsync", "linkat or renameat2", "fstat"
};
static const int fault_errors[FAULTS] = { ENOMEM, EIO, EIO, ENOSPC, EDQUOT, EACCES, EIO };

#include "faults.h"
#include "without-tmpfile.h"

WRAP(char *, strndup, FAULT_MEMORY, NULL, (const char *text, size_t len), text, len)
WRAP(ssize_t, pread64, FAULT_PREAD, -1, (int fd, void *buf, size_t len, off_t at), fd, buf, len, at)
WRAP(int, fsync, FAULT_FSYNC, -1, (int fd), fd)
WRAP(int, linkat, FAULT_NAME, -1, (int from, const char *a, int to, const char *b, int flags), from,
     a, to, b, flags)
WRAP(int, renameat2, FAULT_NAME, -1,
     (int from, const char *a, int to, const char *b, unsigned flags), from, a, to, b, flags)
WRAP(int, fstat64, FAULT_FSTAT, -1, (int fd, struct stat64 *st), fd, st)

struct state {
	char *directory, *source, *output;
	struct buffer tar;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));
	char *inside;

	tar_sample(&s->tar);
	s->directory = make_directory();
	s->source = join_path(s->directory, "source.tar");
	write_file(s->source, s->tar.data, s->tar.size);
	inside = join_path(s->directory, "out");
	assert_int_equal(mkdir(inside, 0755), 0);
	s->output = join_path(inside, "image.thaw");
	free(inside);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	tmpfile_error = 0;
	for (unsigned i = 0; i < FAULTS; i++)
		atomic_store(&countdown[i], 0);
	remove_directory(s->directory);
	free(s->source);
	free(s->output);
	buffer_deinit(&s->tar);
	free(s);
	return 0;
}

static unsigned files_in_output(struct state *s)
{
	char *slash = strrchr(s->output, '/');
	unsigned count;

	*slash = '\0';
	count = count_entries(s->output);
	*slash = '/';
	return count;
}

static int read_all(const struct thaw_image *image, struct thaw_error *err)
{
	struct thaw_reader *reader;
	uint8_t buf[5000];
	int r = thaw_reader_new(image, 20000, &reader);

	if (r < 0)
		return thaw_io(err, r, "no reader");
	for (uint32_t ino = 1; r == 0 && ino < thaw_image_info(image)->inodes; ino++) {
		struct thaw_inode inode;

		if (thaw_image_inode(image, ino, &inode) < 0 || inode.type != THAW_REGULAR)
			continue;
		for (uint64_t at = 0; r == 0 && at < inode.size; at += sizeof(buf)) {
			size_t len;

			r = thaw_reader_read(reader, &inode, at, buf, sizeof(buf), err, &len);
		}
	}
	thaw_reader_free(reader);
	return r;
}

static int open_and_read(const char *path, struct thaw_error *err)
{
	struct thaw_source *source;
	struct thaw_image *image;
	int r;

	r = thaw_source_open(path, err, &source);
	if (r == 0)
		r = thaw_image_open(source, err, &image);
	if (r < 0)
		return r;
	r = read_all(image, err);
	thaw_image_free(image);
	return r;
}

static int pack(struct state *s, const char *source, bool force, struct thaw_error *err)
{
	struct thaw_pack_options options = {
		.threads = 2, .frame_size = 16384, .level = 1, .force = force
	};
	struct thaw_pack_report report;

	memset(err, 0, sizeof(*err));
	return thaw_pack(source, s->output, &options, err, &report);
}

/* Let call n of this kind fail, for every n, until one run has no fault left to meet. */
static unsigned pack_with_faults(struct state *s, const char *source, enum fault fault, bool force)
{
	for (unsigned n = 1;; n++) {
		unsigned before = files_in_output(s);
		struct thaw_error err;
		int r;

		atomic_store(&fired, 0);
		atomic_store(&countdown[fault], (int)n);
		r = pack(s, source, force, &err);
		atomic_store(&countdown[fault], 0);
		if (r < 0) {
			if (!atomic_load(&fired))
				fail_msg("%s %u: %d %s, without a fault", fault_names[fault], n, r,
					 err.text);
			if (err.text[0] == '\0' || err.exit_code < THAW_EXIT_REFUSED)
				fail_msg("%s %u: %d without words", fault_names[fault], n, r);
			/* The last sync comes after the name: then the image is there, and whole. */
			if (files_in_output(s) != before && fault != FAULT_FSYNC)
				fail_msg("%s %u: left a file behind", fault_names[fault], n);
			if (force || files_in_output(s) != before)
				assert_success(open_and_read(s->output, &err), &err);
			if (!force)
				(void)unlink(s->output);
			continue;
		}
		/* Whatever was survived, the image is a good one. */
		assert_success(open_and_read(s->output, &err), &err);
		assert_int_equal(files_in_output(s), 1);
		if (!force)
			assert_int_equal(unlink(s->output), 0);
		if (!atomic_load(&fired))
			return n - 1;
	}
}

static void pack_faults_met(struct state *s, const char *source, bool force,
			    const unsigned *at_least)
{
	for (unsigned fault = 0; fault < FAULTS; fault++) {
		unsigned met = pack_with_faults(s, source, fault, force);

		if (met < at_least[fault])
			fail_msg("%s: only %u calls met", fault_names[fault], met);
	}
}

static void pack_faults(struct state *s, const char *source, bool force)
{
	static const unsigned at_least[FAULTS] = { 20, 3, 1, 5, 2, 1, 1 };

	pack_faults_met(s, source, force, at_least);
}

static void packing(void **state)
{
	struct state *s = *state;

	pack_faults(s, s->source, false);
}

/* An image that is to be replaced stays what it was until the new one is whole. */
static void replacing(void **state)
{
	struct state *s = *state;
	struct thaw_error err;

	assert_success(pack(s, s->source, false, &err), &err);
	pack_faults(s, s->source, true);
}

static void packing_without_tmpfile(void **state)
{
	struct state *s = *state;

	tmpfile_error = EOPNOTSUPP;
	pack_faults(s, s->source, false);
}

static void packing_a_directory(void **state)
{
	struct state *s = *state;
	char *tree = join_path(s->directory, "tree"), *file = join_path(tree, "f");
	char *link = join_path(tree, "g"), *symlink_path = join_path(tree, "s");

	assert_int_equal(mkdir(tree, 0755), 0);
	write_file(file, s->tar.data, 30000);
	assert_int_equal(__real_linkat(AT_FDCWD, file, AT_FDCWD, link, 0), 0);
	assert_int_equal(symlink("f", symlink_path), 0);
	pack_faults(s, tree, false);
	free(tree);
	free(file);
	free(link);
	free(symlink_path);
}

#define WHEEL "d-1-py3-none-any.whl"

/* A wheel with all that one can have, as bytes. */
static void make_wheel(struct zip_builder *zip)
{
	zip_file(zip, "d/__init__.py", "dependency\n");
	zip_file(zip, "d-1.data/scripts/tool", "#!python\ntool\n");
	zip_file(zip, "d-1.dist-info/WHEEL", "Wheel-Version: 1.0\n");
	zip_file(zip, "d-1.dist-info/METADATA", "Requires-Python: >=3.8\n");
	zip_file(zip, "d-1.dist-info/entry_points.txt", "[console_scripts]\nrun = d:run\n");
	zip_file(zip, "d-1.dist-info/RECORD", "d/__init__.py,,\n");
	zip_end(zip, false, "");
}

/* A PEX with a deflated wheel, which goes through a temporary file, and a file that two have. */
static void packing_a_pex(void **state)
{
	static const unsigned at_least[FAULTS] = { 100, 15, 0, 6, 2, 1, 2 };
	struct zip_spec spec = { .name = ".deps/" WHEEL, .deflated = true, .mode = 0100644 };
	struct zip_spec link = { .name = "link", .data = "app.py", .size = 6, .mode = 0120777 };
	struct state *s = *state;
	char *path = join_path(s->directory, "app.pex");
	_zip_ wheel = { 0 };
	_zip_ zip = { 0 };

	make_wheel(&wheel);
	spec.data = wheel.bytes.data;
	spec.size = wheel.bytes.size;
	zip_file(&zip, "PEX-INFO", "{\"entry_point\": \"app:run\", \"inject_args\": [\"-v\"],"
				   " \"interpreter_constraints\": [\"CPython==3.11.*\"],"
				   " \"distributions\": {\"" WHEEL "\": \"\"}}");
	zip_file(&zip, "__main__.py", "#!/usr/bin/env python3.11\n");
	zip_file(&zip, "app.py", "def run(): pass\n");
	zip_file(&zip, "d/__init__.py", "dependency\n");
	zip_member(&zip, &link);
	zip_member(&zip, &spec);
	zip_end(&zip, false, "");
	write_file(path, zip.bytes.data, zip.bytes.size);
	pack_faults_met(s, path, false, at_least);
	free(path);
}

static void packing_wheels(void **state)
{
	static const unsigned at_least[FAULTS] = { 80, 10, 0, 5, 2, 1, 1 };
	struct state *s = *state;
	char *directory = join_path(s->directory, "wheels"), *path = join_path(directory, WHEEL);
	_zip_ wheel = { 0 };

	make_wheel(&wheel);
	assert_int_equal(mkdir(directory, 0755), 0);
	write_file(path, wheel.bytes.data, wheel.bytes.size);
	pack_faults_met(s, directory, false, at_least);
	free(directory);
	free(path);
}

static void reading(void **state)
{
	static const enum fault faults[] = { FAULT_MEMORY, FAULT_PREAD, FAULT_FSTAT };
	struct state *s = *state;
	struct thaw_error err;

	assert_success(pack(s, s->source, false, &err), &err);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		for (int n = 1;; n++) {
			int r;

			memset(&err, 0, sizeof(err));
			atomic_store(&fired, 0);
			atomic_store(&countdown[faults[i]], n);
			r = open_and_read(s->output, &err);
			atomic_store(&countdown[faults[i]], 0);
			if (!atomic_load(&fired)) {
				assert_success(r, &err);
				assert_true(n > 1);
				break;
			}
			assert_true(r < 0);
			assert_true(r == -fault_errors[faults[i]]);
			assert_int_equal(err.exit_code, THAW_EXIT_IO);
			assert_true(err.text[0] != '\0');
		}
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(packing),
		TEST(replacing),
		TEST(packing_without_tmpfile),
		TEST(packing_a_directory),
		TEST(packing_a_pex),
		TEST(packing_wheels),
		TEST(reading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
