/* SPDX-License-Identifier: Apache-2.0 */
/* Directories as canonical tar streams. */
#include "check.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pack-internal.h"
#include "tree.h"

struct state {
	char *parent, *a, *b;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->parent = make_directory();
	s->a = join_path(s->parent, "a");
	s->b = join_path(s->parent, "b");
	assert_int_equal(mkdir(s->a, 0755), 0);
	assert_int_equal(mkdir(s->b, 0700), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	remove_directory(s->parent);
	free(s->a);
	free(s->b);
	free(s);
	return 0;
}

static int collect(const char *path, struct buffer *tar, struct thaw_error *err)
{
	struct thaw_input *input;
	int r = thaw_input_open(path, err, &input);

	if (r < 0)
		return r;
	assert_string_equal(input->kind, "directory");
	r = read_input(input, err, tar);
	thaw_input_free(input);
	return r;
}

struct entry {
	const char *path, *text; /* text NULL: directory; "->x": symlink; "=x": hard link */
	mode_t mode;
};

static const struct entry entries[] = {
	{ "bin", NULL, 0755 },
	{ "bin/python", "#!interpreter", 0755 },
	{ "bin/python3", "->python", 0 },
	{ "lib", NULL, 0755 },
	{ "lib/Z", "capital", 0644 },
	{ "lib/a-b", "before a/", 0600 },
	{ "lib/a", NULL, 0700 },
	{ "lib/a/empty", "", 0444 },
	{ "lib/copy", "=bin/python", 0 },
	{ "lib/na\xc3\xafve\n", "odd name", 0644 },
	{ "lib/dangling", "->../../nowhere", 0 },
};

static void make_entry(const char *root, const struct entry *entry)
{
	struct timespec times[2] = { { .tv_sec = 1600000000 }, { .tv_sec = 1600000000 } };
	char *path = join_path(root, entry->path);

	if (!entry->text) {
		assert_int_equal(mkdir(path, 0777), 0);
		assert_int_equal(chmod(path, entry->mode), 0);
	} else if (entry->text[0] == '-') {
		assert_int_equal(symlink(entry->text + 2, path), 0);
	} else if (entry->text[0] == '=') {
		char *from = join_path(root, entry->text + 1);

		assert_int_equal(link(from, path), 0);
		free(from);
	} else {
		write_file(path, entry->text, strlen(entry->text));
		assert_int_equal(chmod(path, entry->mode), 0);
	}
	/* The fraction, which differs between copies, does not count. */
	times[1].tv_nsec = (long)((uintptr_t)root % 1000) * 1000 + 1;
	assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
	free(path);
}

static void set_times(const char *root)
{
	struct timespec times[2] = { { .tv_sec = 1600000000 }, { .tv_sec = 1600000000 } };

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		char *path = join_path(root, entries[i].path);

		assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
		free(path);
	}
	assert_int_equal(utimensat(AT_FDCWD, root, times, 0), 0);
}

static void canonical(void **state)
{
	struct state *s = *state;
	size_t count = ARRAY_SIZE(entries);
	_buffer_ first = { 0 };
	_buffer_ second = { 0 };
	struct thaw_error err;

	for (size_t i = 0; i < count; i++)
		make_entry(s->a, &entries[i]);
	/* Directories and the linked file first, then everything else backwards. */
	for (size_t i = 0; i < count; i++)
		if (!entries[i].text || i == 1)
			make_entry(s->b, &entries[i]);
	for (size_t i = count; i-- > 0;)
		if (entries[i].text && i != 1)
			make_entry(s->b, &entries[i]);
	assert_int_equal(chmod(s->b, 0755), 0);
	set_times(s->a);
	set_times(s->b);
	assert_success(collect(s->a, &first, &err), &err);
	assert_success(collect(s->b, &second, &err), &err);
	assert_int_equal(first.size % 512, 0);
	assert_int_equal(first.size, second.size);
	assert_memory_equal(first.data, second.data, first.size);
}

struct memory_stream {
	struct buffer *bytes;
	bool done;
};

static int pull(void *userdata, struct thaw_error *err, const uint8_t **ret_data, size_t *ret_len)
{
	struct memory_stream *stream = userdata;

	*ret_data = stream->bytes->data;
	*ret_len = stream->done ? 0 : stream->bytes->size;
	stream->done = true;
	return 0;
}

static void what_comes_out_is_what_was_there(void **state)
{
	struct state *s = *state;
	_buffer_ tar = { 0 };
	struct memory_stream stream = { .bytes = &tar };
	struct thaw_tar_counts counts;
	struct thaw_tree *tree;
	struct thaw_error err;
	uint32_t lib, bin, node;

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
		make_entry(s->a, &entries[i]);
	assert_success(collect(s->a, &tar, &err), &err);
	assert_int_equal(thaw_tree_new(100, &tree), 0);
	assert_success(thaw_tar_index(pull, &stream, tree, &err, &counts), &err);
	assert_int_equal(tree->node_count, ARRAY_SIZE(entries) + 1);
	assert_int_equal(tree->implied, 0);
	lib = thaw_tree_lookup(tree, 0, "lib", 3);
	bin = thaw_tree_lookup(tree, 0, "bin", 3);
	node = thaw_tree_lookup(tree, bin, "python", 6);
	assert_int_equal(tree_object(tree, node)->mode, 0755);
	assert_int_equal(tree_object(tree, node)->mtime, 1600000000);
	assert_int_equal(tree_object(tree, node)->links, 2);
	assert_memory_equal(tar.data + tree_object(tree, node)->data, "#!interpreter", 13);
	assert_ptr_equal(tree_object(tree, thaw_tree_lookup(tree, lib, "copy", 4)),
			 tree_object(tree, node));
	assert_true(thaw_tree_lookup(tree, lib, "na\xc3\xafve\n", 7) != THAW_NO_NODE);
	thaw_tree_free(tree);
}

static void empty(void **state)
{
	struct state *s = *state;
	_buffer_ tar = { 0 };
	struct thaw_error err;

	assert_success(collect(s->a, &tar, &err), &err);
	assert_true(tar.size >= 1536); /* the root, and the end */
}

static void refused(void **state)
{
	struct state *s = *state;
	_buffer_ tar = { 0 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct thaw_error err;
	char *path = join_path(s->a, "s");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(mkfifo(path, 0600), 0);
	assert_refused(collect(s->a, &tar, &err), &err, "\"s\": is no file, directory or symlink");
	assert_int_equal(unlink(path), 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_refused(collect(s->a, &tar, &err), &err, "\"s\": is no file, directory or symlink");
	(void)close(fd);
	free(path);
}

static void long_names(void **state)
{
	struct state *s = *state;
	char name[256];
	char *path;
	_buffer_ tar = { 0 };
	struct memory_stream stream = { .bytes = &tar };
	struct thaw_tar_counts counts;
	struct thaw_tree *tree;
	struct thaw_error err;

	memset(name, 'n', 255);
	name[255] = '\0';
	path = join_path(s->a, name);
	write_file(path, "x", 1);
	assert_success(collect(s->a, &tar, &err), &err);
	assert_int_equal(thaw_tree_new(100, &tree), 0);
	assert_success(thaw_tar_index(pull, &stream, tree, &err, &counts), &err);
	assert_true(thaw_tree_lookup(tree, 0, name, 255) != THAW_NO_NODE);
	thaw_tree_free(tree);
	free(path);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(canonical), TEST(what_comes_out_is_what_was_there), TEST(empty), TEST(refused),
		TEST(long_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
