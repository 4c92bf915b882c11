/* SPDX-License-Identifier: Apache-2.0 */
/* Layers: what is rendered, once, and what happens to a store that is not as it should be. */
#include "check.h"
#include "failing-malloc.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "thaw/layer.h"
#include "thaw/pack.h"
#include "thaw/relocation.h"

/* -- what the kernel is made to say -- */

static int mknod_error;
static long writes_left = -1; /* until the file system is full; -1: never */

int __real_mknodat(int directory, const char *path, mode_t mode, dev_t device);
int __wrap_mknodat(int directory, const char *path, mode_t mode, dev_t device);
int __wrap_mknodat(int directory, const char *path, mode_t mode, dev_t device)
{
	if (mknod_error) {
		errno = mknod_error;
		return -1;
	}
	return __real_mknodat(directory, path, mode, device);
}

ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len)
{
	if (writes_left == 0) {
		errno = ENOSPC;
		return -1;
	}
	if (writes_left > 0)
		writes_left--;
	return __real_write(fd, data, len);
}

/* -- an environment -- */

struct state {
	char *directory, *path, *store;
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_error err;
};

#define PLACEHOLDER "/placeholder/of/forty/bytes/0123456789ab" /* 40 bytes */
#define BINARY \
	"\x7f" \
	"ELF\0" PLACEHOLDER "/lib\0next"

static void make_image(struct state *s, struct buffer *tar)
{
	struct thaw_pack_options options = { .level = 1, .force = true };
	struct thaw_pack_report report;

	tar_end(tar);
	s->reader = thaw_reader_free(s->reader);
	s->image = thaw_image_free(s->image);
	assert_success(pack_bytes(tar, s->path, &options, &s->err, &report), &s->err);
	assert_success(open_path(s->path, &s->err, &s->image), &s->err);
	assert_int_equal(thaw_reader_new(s->image, 0, &s->reader), 0);
}

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));
	_buffer_ tar = { 0 };

	s->directory = make_directory();
	s->path = join_path(s->directory, "image");
	s->store = join_path(s->directory, "store");
	tar_text(&tar, "bin/conda-unpack",
		 "#!/usr/bin/env python\n_prefix_records = [\n"
		 "('lib/one.so', '" PLACEHOLDER "', 'binary'),\n"
		 "('m/config.py', '" PLACEHOLDER "', 'text'),\n"
		 "('m/other.py', '" PLACEHOLDER "', 'text'),\n"
		 "('share/a', '" PLACEHOLDER "', 'text')\n]\nprint('done')\n");
	tar_text(&tar, "conda-meta/history", "");
	tar_file(&tar, "lib/one.so", BINARY, sizeof(BINARY) - 1);
	tar_member(&tar, "m/config.py", '0', 0755, 1700000001, NULL,
		   "P = '" PLACEHOLDER "'\n", 47);
	tar_text(&tar, "m/other.py", "nothing\n");
	tar_text(&tar, "m/__pycache__/config.cpython-311.pyc", "bytecode of config");
	tar_text(&tar, "m/__pycache__/config.cpython-311.opt-1.pyc", "optimised");
	tar_text(&tar, "m/__pycache__/config2.cpython-311.pyc", "of another");
	tar_text(&tar, "m/__pycache__/other.cpython-311.pyc", "of what does not change");
	tar_text(&tar, "share/a", PLACEHOLDER "/a");
	tar_hardlink(&tar, "share/b", "share/a");
	make_image(s, &tar);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	mknod_error = 0;
	writes_left = allocations_left = -1;
	thaw_reader_free(s->reader);
	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->path);
	free(s->store);
	free(s);
	return 0;
}

static int try_render(struct state *s, const char *prefix, char **ret_tree)
{
	struct thaw_layer_options options = { .prefix = prefix, .store = s->store };

	return thaw_layer_render(s->image, s->reader, &options, &s->err, ret_tree);
}

static char *render(struct state *s, const char *prefix)
{
	char *tree;

	assert_success(try_render(s, prefix, &tree), &s->err);
	return tree;
}

static void holds(const char *tree, const char *path, const void *expected, size_t size)
{
	char *file = join_path(tree, path);
	_buffer_ got = { 0 };

	read_file(file, &got);
	if (got.size != size || (size && memcmp(got.data, expected, size) != 0))
		fail_msg("%s holds '%.*s'", path, (int)got.size, (char *)got.data);
	free(file);
}

static struct stat status(const char *tree, const char *path)
{
	char *file = join_path(tree, path);
	struct stat st = { 0 };

	if (lstat(file, &st) < 0)
		st.st_mode = 0;
	free(file);
	return st;
}

static unsigned entries(const char *path)
{
	DIR *directory = opendir(path);
	unsigned count = 0;

	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count - 2;
}

/* -- what is in a layer -- */

static void is_complete(const char *tree, bool whiteouts)
{
	struct stat st;

	holds(tree, "m/config.py", "P = '/p'\n", 9);
	holds(tree, "lib/one.so",
	      "\x7f"
	      "ELF\0/p/lib\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
	      "\0\0\0\0\0next",
	      sizeof(BINARY) - 1);
	holds(tree, "share/a", "/p/a", 4);
	holds(tree, "share/b", "/p/a", 4);
	holds(tree, "bin/conda-unpack",
	      "#!/usr/bin/env python\n_prefix_records = []\nprint('done')\n", 57);
	st = status(tree, "m/config.py");
	assert_int_equal(st.st_mode, S_IFREG | 0755);
	assert_int_equal(st.st_mtime, 1700000001);
	assert_int_equal(st.st_mtim.tv_nsec, 0);
	assert_int_equal(status(tree, "m").st_mode, S_IFDIR | 0755);
	assert_int_equal(status(tree, "share/a").st_ino, status(tree, "share/b").st_ino);
	assert_int_equal(status(tree, "m/other.py").st_mode, 0);
	assert_int_equal(status(tree, "conda-meta").st_mode, 0);
	assert_int_equal(status(tree, "m/__pycache__/other.cpython-311.pyc").st_mode, 0);
	assert_int_equal(status(tree, "m/__pycache__/config2.cpython-311.pyc").st_mode,
			 0);
	for (unsigned i = 0; i < 2; i++) {
		st = status(tree, i ? "m/__pycache__/config.cpython-311.pyc"
				    : "m/__pycache__/config.cpython-311.opt-1.pyc");
		assert_int_equal(st.st_mode & S_IFMT, whiteouts ? S_IFCHR : S_IFREG);
		assert_int_equal(st.st_rdev, makedev(0, 0));
		assert_int_equal(st.st_size, 0);
	}
}

static void rendered(void **state)
{
	struct state *s = *state;
	char *tree = render(s, "/p");

	is_complete(tree, true);
	free(tree);
}

/* No whiteouts on an overlay, in some containers: an empty file is no bytecode either. */
static void without_whiteouts(void **state)
{
	struct state *s = *state;
	char *tree;

	mknod_error = EPERM;
	tree = render(s, "/p");
	is_complete(tree, false);
	free(tree);
}

static void nothing_to_render(void **state)
{
	struct state *s = *state;
	struct stat st;
	_buffer_ tar = { 0 };
	char *tree = s->path;

	tar_text(&tar, "bin/tool", "#!/bin/sh\n");
	tar_text(&tar, "bin/conda-unpack",
		 "_prefix_records = [('bin/tool', '/not/in/it', 'text')]\n");
	make_image(s, &tar);
	assert_success(try_render(s, "/p", &tree), &s->err);
	assert_null(tree);
	assert_int_equal(stat(s->store, &st), -1);
	assert_int_equal(thaw_layer_prefix_max(s->image), THAW_PATH_MAX);
}

/* At the path that stands in the files there is nothing to change, but for the script. */
static void at_home(void **state)
{
	struct state *s = *state;
	char *tree = render(s, PLACEHOLDER);

	assert_int_equal(entries(tree), 1);
	assert_int_equal(status(tree, "bin/conda-unpack").st_mode & S_IFMT, S_IFREG);
	free(tree);
}

/* -- sharing -- */

static void found_again(void **state)
{
	struct state *s = *state;
	char *first = render(s, "/p"), *second = render(s, "//p/./"),
	     *other = render(s, "/q");
	ino_t born = status(first, "m/config.py").st_ino;

	assert_string_equal(first, second);
	assert_string_not_equal(first, other);
	free(second);
	second = render(s, "/p");
	assert_int_equal(status(second, "m/config.py").st_ino, born);
	holds(other, "m/config.py", "P = '/q'\n", 9);
	free(first);
	free(second);
	free(other);
}

#define THREADS 8

struct job {
	struct state *s;
	char *tree;
	int result;
};

/* For a view that its user writes into: all of it his, and apart from the others' layer. */
static void of_another_owner(void **state)
{
	struct state *s = *state;
	struct thaw_layer_options options = {
		.prefix = "/p", .store = s->store, .uid = 4711, .gid = 4712
	};
	char *own = render(s, "/p"), *tree, *again;
	static const char *const paths[] = { ".", "m", "m/config.py", "share/b",
					     "m/__pycache__/config.cpython-311.pyc" };
	ino_t born;

	if (geteuid() != 0) {
		free(own);
		skip();
	}
	assert_success(thaw_layer_render(s->image, s->reader, &options, &s->err, &tree),
		       &s->err);
	is_complete(tree, true);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		assert_int_equal(status(tree, paths[i]).st_uid, 4711);
		assert_int_equal(status(tree, paths[i]).st_gid, 4712);
		assert_int_equal(status(own, paths[i]).st_uid, 0);
	}
	born = status(tree, "m/config.py").st_ino;
	assert_success(thaw_layer_render(s->image, s->reader, &options, &s->err, &again),
		       &s->err);
	assert_string_equal(tree, again);
	assert_int_equal(status(again, "m/config.py").st_ino, born);
	free(again);
	/* One file is another's: rendered anew. */
	again = join_path(tree, "m/config.py");
	assert_int_equal(lchown(again, 0, 0), 0);
	free(again);
	assert_success(thaw_layer_render(s->image, s->reader, &options, &s->err, &again),
		       &s->err);
	assert_int_equal(status(again, "m/config.py").st_uid, 4711);
	free(again);
	free(tree);
	free(own);
}

static void *render_in_thread(void *data)
{
	struct job *job = data;
	struct thaw_layer_options options = { .prefix = "/p", .store = job->s->store };
	struct thaw_error err;

	job->result = thaw_layer_render(job->s->image, job->s->reader, &options, &err,
					&job->tree);
	return NULL;
}

static void many_at_once(void **state)
{
	struct state *s = *state;
	struct job jobs[THREADS];
	pthread_t threads[THREADS];

	for (unsigned round = 0; round < 20; round++) {
		char *store = s->store;

		for (unsigned i = 0; i < THREADS; i++) {
			jobs[i] = (struct job){ .s = s };
			assert_int_equal(pthread_create(&threads[i], NULL,
							render_in_thread, &jobs[i]),
					 0);
		}
		for (unsigned i = 0; i < THREADS; i++) {
			assert_int_equal(pthread_join(threads[i], NULL), 0);
			assert_int_equal(jobs[i].result, 0);
		}
		for (unsigned i = 1; i < THREADS; i++) {
			assert_string_equal(jobs[i].tree, jobs[0].tree);
			free(jobs[i].tree);
		}
		is_complete(jobs[0].tree, true);
		free(jobs[0].tree);
		assert_int_equal(entries(store), 2); /* the layer and its lock */
		s->store = join_path(s->directory, "store2");
		(void)!rename(store, s->store);
		remove_directory(s->store);
		s->store = store;
	}
}

/* -- damage -- */

static void append(const char *path, const char *text)
{
	FILE *file;

	(void)chmod(path, 0644);
	file = fopen(path, "a");
	assert_non_null(file);
	(void)fputs(text, file);
	(void)fclose(file);
}

static void do_append(const char *tree, const char *path)
{
	(void)tree;
	append(path, "more");
}

static void do_chmod(const char *tree, const char *path)
{
	(void)tree;
	assert_int_equal(chmod(path, 0777), 0);
}

static void do_touch(const char *tree, const char *path)
{
	struct timespec times[2] = { { 1, 0 }, { 1, 0 } };

	(void)tree;
	assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void do_remove(const char *tree, const char *path)
{
	(void)tree;
	assert_int_equal(unlink(path), 0);
}

static void do_link(const char *tree, const char *path)
{
	(void)tree;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/etc/passwd", path), 0);
}

static void do_pipe(const char *tree, const char *path)
{
	(void)tree;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
}

static void do_plant(const char *tree, const char *path)
{
	char *planted = join_path(tree, "m/__pycache__/planted.cpython-311.pyc");

	(void)path;
	write_file(planted, "x", 1);
	free(planted);
}

static void do_manifest(const char *tree, const char *path)
{
	char *manifest = join_path(tree, "../manifest"),
	     *verified = join_path(tree, "../verified");

	(void)path;
	append(manifest, "f 0644 0 0 - x\n");
	assert_int_equal(unlink(verified), 0);
	free(manifest);
	free(verified);
}

static void do_no_manifest(const char *tree, const char *path)
{
	char *manifest = join_path(tree, "../manifest"),
	     *verified = join_path(tree, "../verified");

	(void)path;
	assert_int_equal(unlink(manifest), 0);
	assert_int_equal(unlink(verified), 0);
	free(manifest);
	free(verified);
}

static void do_tree_link(const char *tree, const char *path)
{
	char *aside = join_path(tree, "../aside");

	(void)path;
	assert_int_equal(rename(tree, aside), 0);
	assert_int_equal(symlink("aside", tree), 0);
	free(aside);
}

/* Bytes that a disk lost: the same size and times, as far as one can make them. */
static void do_flip(const char *tree, const char *path)
{
	struct stat before;
	int fd;

	(void)tree;
	assert_int_equal(stat(path, &before), 0);
	(void)chmod(path, 0600);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "X", 1, 2), 1);
	assert_int_equal(fchmod(fd, before.st_mode), 0);
	assert_int_equal(
		futimens(fd, (struct timespec[]){ before.st_atim, before.st_mtim }), 0);
	close(fd);
}

static const struct {
	const char *name;
	void (*damage)(const char *tree, const char *path);
} damages[] = {
	{ "appended", do_append },
	{ "mode_changed", do_chmod },
	{ "mtime_changed", do_touch },
	{ "file_removed", do_remove },
	{ "file_is_a_link", do_link },
	{ "file_is_a_pipe", do_pipe },
	{ "file_planted", do_plant },
	{ "manifest_changed", do_manifest },
	{ "manifest_removed", do_no_manifest },
	{ "tree_is_a_link", do_tree_link },
	{ "byte_flipped", do_flip },
};

static void damaged(void **state)
{
	void (*damage)(const char *, const char *) = damages[(uintptr_t)*state].damage;
	void *own;
	struct state *s;
	char *tree, *path;
	ino_t born;

	assert_int_equal(setup(&own), 0);
	s = own;
	tree = render(s, "/p");
	born = status(tree, "bin/conda-unpack").st_ino;
	path = join_path(tree, "m/config.py");
	damage(tree, path);
	free(path);
	path = render(s, "/p");
	assert_string_equal(path, tree);
	is_complete(tree, true);
	assert_int_not_equal(status(tree, "bin/conda-unpack").st_ino, born);
	assert_int_equal(entries(s->store), 2);
	free(path);
	/* And then it is good. */
	born = status(tree, "bin/conda-unpack").st_ino;
	free(render(s, "/p"));
	assert_int_equal(status(tree, "bin/conda-unpack").st_ino, born);
	free(tree);
	teardown(&own);
}

/* Without what is remembered of this boot, every byte is read; and it is remembered again. */
static void verified_anew(void **state)
{
	struct state *s = *state;
	char *tree = render(s, "/p"), *verified = join_path(tree, "../verified");
	ino_t born = status(tree, "m/config.py").st_ino;
	struct stat st;

	assert_int_equal(unlink(verified), 0);
	free(render(s, "/p"));
	assert_int_equal(status(tree, "m/config.py").st_ino, born);
	assert_int_equal(stat(verified, &st), 0);
	append(verified, "x");
	free(render(s, "/p"));
	assert_int_equal(status(tree, "m/config.py").st_ino, born);
	free(verified);
	free(tree);
}

/* Somebody was killed while rendering. */
static void leftovers(void **state)
{
	struct state *s = *state;
	char *tree = render(s, "/p"), *key, *temporary, *deep;

	assert_true(asprintf(&key, "%s", tree) > 0);
	*strrchr(key, '/') = '\0';
	assert_true(asprintf(&temporary, "%s/.%s.new", s->store, strrchr(key, '/') + 1) >
		    0);
	assert_int_equal(rename(key, temporary), 0);
	deep = join_path(temporary, "tree/m/closed");
	assert_int_equal(mkdir(deep, 0), 0);
	free(render(s, "/p"));
	is_complete(tree, true);
	assert_int_equal(entries(s->store), 2);
	free(deep);
	free(temporary);
	free(key);
	free(tree);
}

/* -- no space -- */

static void full_at_every_write(void **state)
{
	struct state *s = *state;
	unsigned failures = 0;

	for (long n = 0;; n++) {
		char *tree = NULL;
		int r;

		writes_left = n;
		r = try_render(s, "/p", &tree);
		writes_left = -1;
		if (r == 0) {
			is_complete(tree, true);
			free(tree);
			break;
		}
		failures++;
		assert_int_equal(r, -ENOSPC);
		assert_int_equal(s->err.exit_code, THAW_EXIT_IO);
		assert_non_null(strstr(s->err.text, "No space left on device"));
		assert_int_equal(entries(s->store), 0);
	}
	assert_true(failures >= 5);
}

/*
 * The n-th allocation fails, for every n: an error and nothing left; or, when only
 * what saves time was lost, the layer.
 */
static void no_memory_at_any_time(void **state)
{
	struct state *s = *state;
	unsigned failures = 0;

	assert_int_equal(mkdir(s->store, 0700), 0);
	for (long n = 0;; n++) {
		char *tree = NULL;
		int r;

		allocation_failed = false;
		allocations_left = n;
		r = try_render(s, "/p", &tree);
		allocations_left = -1;
		if (r == 0) {
			is_complete(tree, true);
			free(tree);
			if (!allocation_failed)
				break;
			remove_directory(strdup(s->store));
			assert_int_equal(mkdir(s->store, 0700), 0);
			continue;
		}
		failures++;
		assert_int_equal(r, -ENOMEM);
		assert_int_equal(s->err.exit_code, THAW_EXIT_IO);
		assert_int_equal(entries(s->store), 0);
	}
	assert_true(failures > 20);
}

/* -- refused -- */

static void store_of_others(void **state)
{
	struct state *s = *state;
	char *real = join_path(s->directory, "real"), *tree;

	assert_int_equal(mkdir(s->store, 0700), 0);
	assert_int_equal(chmod(s->store, 0770), 0);
	assert_int_equal(try_render(s, "/p", &tree), -EPERM);
	assert_non_null(strstr(s->err.text, "nobody else's to write to"));
	assert_int_equal(entries(s->store), 0);
	assert_int_equal(rename(s->store, real), 0);
	assert_int_equal(chmod(real, 0700), 0);
	assert_int_equal(symlink("real", s->store), 0);
	assert_int_equal(try_render(s, "/p", &tree), -EPERM);
	assert_non_null(strstr(s->err.text, "is no directory"));
	assert_int_equal(entries(real), 0);
	assert_int_equal(unlink(s->store), 0);
	write_file(s->store, "x", 1);
	assert_int_equal(try_render(s, "/p", &tree), -EPERM);
	free(real);
}

/* A link where the layer should be is taken away, and what it leads to left alone. */
static void key_is_a_link(void **state)
{
	struct state *s = *state;
	char *tree = render(s, "/p"), *key,
	     *elsewhere = join_path(s->directory, "elsewhere");

	assert_true(asprintf(&key, "%s", tree) > 0);
	*strrchr(key, '/') = '\0';
	assert_int_equal(rename(key, elsewhere), 0);
	assert_int_equal(symlink(elsewhere, key), 0);
	free(render(s, "/p"));
	assert_int_equal(status(s->store, strrchr(key, '/') + 1).st_mode & S_IFMT,
			 S_IFDIR);
	assert_int_equal(status(elsewhere, "tree/m/config.py").st_mode, S_IFREG | 0755);
	free(elsewhere);
	free(key);
	free(tree);
}

static void impossible_prefixes(void **state)
{
	struct state *s = *state;
	char *tree = NULL, *much = calloc(1, THAW_PATH_MAX + 8);

	assert_refused(try_render(s, "p", &tree), &s->err,
		       "the prefix 'p' is not absolute");
	assert_refused(try_render(s, "", &tree), &s->err,
		       "the prefix '' is not absolute");
	assert_refused(try_render(s, "/a/../b", &tree), &s->err,
		       "the prefix '/a/../b' has a '..' in it");
	assert_refused(try_render(s, "/a\nb", &tree), &s->err,
		       "the prefix '/a\\x0ab' has a line break in it");
	memset(much, 'p', THAW_PATH_MAX + 1);
	much[0] = '/';
	assert_refused(try_render(s, much, &tree), &s->err,
		       "the prefix is 4096 bytes long, which no path can be");
	assert_refused(
		try_render(s, "/placeholder/of/forty/bytes/0123456789abc", &tree),
		&s->err,
		"the prefix is 41 bytes long, but lib/one.so has room for 40: a shorter "
		"path is needed");
	assert_int_equal(thaw_layer_prefix_max(s->image), 40);
	assert_null(tree);
	assert_int_equal(access(s->store, F_OK), -1);
	free(much);
}

static void prefixes_are_cleaned(void **state)
{
	static const char *const cases[][2] = {
		{ "/", "/" },	    { "///", "/" },	  { "/./.", "/" },
		{ "/a/", "/a" },    { "//a//b", "/a/b" }, { "/a/./b/.", "/a/b" },
		{ "/...", "/..." }, { "/a b", "/a b" },	  { "/.a/..b", "/.a/..b" },
	};
	struct state *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *prefix;

		assert_success(thaw_layer_prefix(cases[i][0], &s->err, &prefix), &s->err);
		assert_string_equal(prefix, cases[i][1]);
		free(prefix);
	}
}

/* -- first lines: a live prefix names its interpreter in them -- */

static void first_line_is(struct state *s, const char *prefix, const char *expected)
{
	char *tree = render(s, prefix);

	holds(tree, "bin/tool", expected, strlen(expected));
	free(tree);
}

static void shebangs(void **state)
{
	struct state *s = *state;
	_buffer_ tar = { 0 };
	char prefix[128], expected[400];

	tar_text(&tar, "conda-meta/x-1-0.json", "{}");
	tar_text(&tar, "bin/python", "");
	tar_text(&tar, "bin/tool", "#! /opt/live/bin/python -E -s\nimport sys\n");
	make_image(s, &tar);
	first_line_is(s, "/p", "#! /p/bin/python -E -s\nimport sys\n");
	first_line_is(s, "/a b",
		      "#!/bin/sh\n'''exec' \"/a b/bin/python\" -E -s \"$0\" \"$@\"\n"
		      "' '''\nimport sys\n");
	first_line_is(
		s, "/a $x`y\"z\\",
		"#!/bin/sh\n'''exec' \"/a \"'$'\"x\"'`'\"y\"'\"'\"z\"'\\'\"/bin/python\" -E -s "
		"\"$0\" \"$@\"\n' '''\nimport sys\n");
	first_line_is(s, "/a '''b",
		      "#!/bin/sh\n'''exec' \"/a '\"\"'\"\"'b/bin/python\" -E -s "
		      "\"$0\" \"$@\"\n' '''\nimport sys\n");
	/* "#! ", 106 + 11 of the path, " -E -s" and the newline are 127; then it is too long. */
	memset(prefix, 'p', sizeof(prefix));
	prefix[0] = '/';
	prefix[106] = '\0';
	(void)snprintf(expected, sizeof(expected), "#! %s/bin/python -E -s\nimport sys\n",
		       prefix);
	first_line_is(s, prefix, expected);
	prefix[106] = 'p';
	prefix[107] = '\0';
	(void)snprintf(
		expected, sizeof(expected),
		"#!/bin/sh\n'''exec' %s/bin/python -E -s \"$0\" \"$@\"\n' '''\nimport sys\n",
		prefix);
	first_line_is(s, prefix, expected);
}

/* -- images that lie -- */

#define LARGE 6u /* "b/e" of spec_sample(): 5000 bytes that look random */

static void lying_image(void **state)
{
	struct state *s = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_relocations *relocations;
	struct thaw_relocation_rule rule = {
		.kind = THAW_RELOCATION_TEXT,
		.placeholder = "/nowhere",
		.placeholder_len = 8,
		.suffix = "",
	};
	_buffer_ bytes = { 0 };
	uint8_t *section;
	char *tree;
	size_t size;

	assert_int_equal(thaw_relocations_new(&relocations), 0);
	assert_success(thaw_relocations_add(relocations, LARGE, 100, &rule, &s->err),
		       &s->err);
	assert_success(thaw_relocations_emit(relocations, &s->err, &section, &size),
		       &s->err);
	spec_sample(spec);
	spec->sections[spec->section_count++] =
		(struct spec_section){ THAW_SECTION_RELOCATIONS, 0, section, size };
	spec_build(spec, &bytes);
	s->reader = thaw_reader_free(s->reader);
	s->image = thaw_image_free(s->image);
	assert_success(open_memory(&bytes, &s->err, &s->image), &s->err);
	assert_int_equal(thaw_reader_new(s->image, 0, &s->reader), 0);
	assert_damaged(try_render(s, "/p", &tree), &s->err,
		       "b/e: its relocations do not fit it: another text stands there");
	assert_int_equal(entries(s->store), 0);
	s->reader = thaw_reader_free(s->reader);
	s->image = thaw_image_free(s->image);
	thaw_relocations_free(relocations);
	free(section);
	spec_deinit(spec);
	free(spec);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest others[] = {
		CASE(rendered),
		CASE(without_whiteouts),
		CASE(nothing_to_render),
		CASE(at_home),
		CASE(found_again),
		CASE(of_another_owner),
		CASE(many_at_once),
		CASE(verified_anew),
		CASE(leftovers),
		CASE(full_at_every_write),
		CASE(no_memory_at_any_time),
		CASE(store_of_others),
		CASE(key_is_a_link),
		CASE(impossible_prefixes),
		CASE(prefixes_are_cleaned),
		CASE(shebangs),
		CASE(lying_image),
	};
	struct CMUnitTest tests[ARRAY_SIZE(others) + ARRAY_SIZE(damages)];

	memcpy(tests, others, sizeof(others));
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		tests[ARRAY_SIZE(others) + i] = (struct CMUnitTest){
			.name = damages[i].name,
			.test_func = damaged,
			.initial_state = (void *)(uintptr_t)i,
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
