/* SPDX-License-Identifier: Apache-2.0 */
/* What members add up to: every rule about names, and the records that come of it. */
#include "check.h"

#include "tree.h"

struct state {
	struct thaw_tree *tree;
	struct thaw_error err;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	assert_int_equal(thaw_tree_new(10000, &s->tree), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_tree_free(s->tree);
	free(s);
	return 0;
}

static int add(struct state *s, enum thaw_inode_type type, const char *path, size_t len,
	       const char *target)
{
	struct thaw_member member = {
		.path = path,
		.path_len = len,
		.type = type,
		.mode = 0644,
		.mtime = 1700000000,
		.size = type == THAW_REGULAR ? 10 : 0,
		.data = type == THAW_REGULAR ? 512 : 0,
		.target = target,
		.target_len = target ? strlen(target) : 0,
	};

	memset(&s->err, 0, sizeof(s->err));
	return thaw_tree_add(s->tree, &member, &s->err);
}

#define ADD(s, type, path, target) assert_success(add(s, type, path, strlen(path), target), &(s)->err)
#define FILE_AT(s, path) ADD(s, THAW_REGULAR, path, NULL)
#define DIRECTORY_AT(s, path) ADD(s, THAW_DIRECTORY, path, NULL)
#define SYMLINK_AT(s, path, target) ADD(s, THAW_SYMLINK, path, target)
#define HARDLINK_AT(s, path, target) ADD(s, THAW_HARDLINK, path, target)
#define REFUSED(s, type, path, target, text) \
	assert_refused(add(s, type, path, strlen(path), target), &(s)->err, text)

/* The node of a path, or THAW_NO_NODE. */
static uint32_t node_at(struct state *s, const char *path)
{
	uint32_t node = 0;

	while (*path) {
		size_t len = strcspn(path, "/");

		node = thaw_tree_lookup(s->tree, node, path, len);
		if (node == THAW_NO_NODE)
			break;
		path += len + (path[len] == '/');
	}
	return node;
}

static const struct thaw_object *object_at(struct state *s, const char *path)
{
	uint32_t node = node_at(s, path);

	if (node == THAW_NO_NODE)
		fail_msg("\"%s\" is not there", path);
	return tree_object(s->tree, node);
}

/* The tree as an image that the real validator has opened. */
static struct thaw_image *emit(struct state *s)
{
	static struct buffer bytes; /* lives as long as the image, which borrows it */
	struct thaw_sections sections;
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_image *image = NULL;
	uint8_t data[SAMPLE_STREAM] = { 0 };

	assert_success(thaw_tree_emit(s->tree, &s->err, &sections), &s->err);
	/* Record 0 and those of the tree replace the sample's. */
	for (size_t i = 0; i < sections.inodes_size / THAW_INODE_SIZE; i++) {
		const uint8_t *p = sections.inodes + i * THAW_INODE_SIZE;
		struct spec_record *record = &spec->records[spec->record_count++];

		assert_true(i < SPEC_MAX);
		memcpy(&record->name, p + THAW_INODE_OFF_NAME, 4);
		record->name_len = p[THAW_INODE_OFF_NAME_LEN];
		record->type = p[THAW_INODE_OFF_TYPE];
		memcpy(&record->mode, p + THAW_INODE_OFF_MODE, 2);
		memcpy(&record->mtime, p + THAW_INODE_OFF_MTIME, 4);
		memcpy(&record->parent, p + THAW_INODE_OFF_PARENT, 4);
		memcpy(&record->nlink, p + THAW_INODE_OFF_NLINK, 4);
		memcpy(&record->size, p + THAW_INODE_OFF_SIZE, 8);
		memcpy(&record->data, p + THAW_INODE_OFF_DATA, 8);
	}
	assert_true(sections.strings_size <= sizeof(spec->strings));
	memcpy(spec->strings, sections.strings, sections.strings_size);
	spec->strings_size = sections.strings_size;
	spec_add_frame(spec, data, sizeof(data), false);
	buffer_deinit(&bytes);
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, &s->err, &image), &s->err);
	spec_deinit(spec);
	free(spec);
	thaw_sections_deinit(&sections);
	return image;
}

/* -- names -- */

static void habits_of_archivers(void **state)
{
	struct state *s = *state;

	DIRECTORY_AT(s, "./");
	DIRECTORY_AT(s, ".");
	DIRECTORY_AT(s, "./a/");
	FILE_AT(s, "./a/b");
	FILE_AT(s, "././a/c");
	DIRECTORY_AT(s, "d///");
	assert_true(node_at(s, "a/b") != THAW_NO_NODE);
	assert_true(node_at(s, "a/c") != THAW_NO_NODE);
	assert_true(node_at(s, "d") != THAW_NO_NODE);
	assert_int_equal(s->tree->node_count, 5);
}

static void names_that_look_dangerous_but_are_not(void **state)
{
	static const char *const names[] = { "...", "..a", ".a", "a..", "-rf", "a b", "a\nb",
					     "\xff\xfe", "\\", "c:", "*", " ", "a\\b" };
	struct state *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		FILE_AT(s, names[i]);
		assert_true(node_at(s, names[i]) != THAW_NO_NODE);
	}
}

static void refused_names(void **state)
{
	struct state *s = *state;

	assert_refused(add(s, THAW_REGULAR, "", 0, NULL), &s->err, "a member has an empty name");
	REFUSED(s, THAW_REGULAR, ".", NULL, "\".\": is not a directory");
	REFUSED(s, THAW_SYMLINK, "./", "x", "\".\": is not a directory");
	REFUSED(s, THAW_REGULAR, "/a", NULL, "\"/a\": is an absolute name");
	REFUSED(s, THAW_DIRECTORY, "/", NULL, "\"/\": is an absolute name");
	REFUSED(s, THAW_REGULAR, ".//a", NULL, "\"/a\": is an absolute name");
	REFUSED(s, THAW_REGULAR, "..", NULL, "\"..\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_REGULAR, "../a", NULL, "\"../a\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_REGULAR, "a/../b", NULL, "\"a/../b\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_DIRECTORY, "a/..", NULL, "\"a/..\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_REGULAR, "./../a", NULL, "\"../a\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_REGULAR, "a//b", NULL, "\"a//b\": has an empty component");
	REFUSED(s, THAW_REGULAR, "a/./b", NULL, "\"a/./b\": has a component \".\"");
	REFUSED(s, THAW_DIRECTORY, "a/.", NULL, "\"a/.\": has a component \".\"");
	assert_refused(add(s, THAW_REGULAR, "a\0b", 3, NULL), &s->err, "\"a\": has a NUL byte in it");
	assert_refused(add(s, THAW_REGULAR, "d/\0", 3, NULL), &s->err, "\"d/\": has a NUL byte in it");
}

static void component_length(void **state)
{
	struct state *s = *state;
	char path[600];

	memset(path, 'x', 255);
	path[255] = '\0';
	FILE_AT(s, path);
	memset(path, 'y', 256);
	path[256] = '\0';
	assert_int_equal(add(s, THAW_REGULAR, path, 256, NULL), -EFBIG);
	assert_non_null(strstr(s->err.text, "...\": a component is longer than 255 bytes"));
	/* In the middle, too. */
	memcpy(path + 256, "/z", 3);
	assert_int_equal(add(s, THAW_REGULAR, path, 258, NULL), -EFBIG);
	assert_int_equal(s->err.exit_code, THAW_EXIT_LIMIT);
}

static void path_length(void **state)
{
	struct state *s = *state;
	char path[THAW_PATH_MAX + 3];

	for (unsigned i = 0; i < sizeof(path); i++)
		path[i] = i % 2 ? '/' : 'a';
	/* 2,048 components of one byte. */
	assert_success(add(s, THAW_REGULAR, path, THAW_PATH_MAX, NULL), &s->err);
	assert_int_equal(s->tree->node_count, 2049);
	path[THAW_PATH_MAX] = 'a';
	assert_int_equal(add(s, THAW_REGULAR, path, THAW_PATH_MAX + 1, NULL), -EFBIG);
	assert_non_null(strstr(s->err.text, "is longer than 4095 bytes"));
}

static void entry_limit(void **state)
{
	struct state *s = *state;
	struct thaw_tree *tree;
	char name[16];

	assert_int_equal(thaw_tree_new(100, &tree), 0);
	thaw_tree_free(s->tree);
	s->tree = tree;
	for (unsigned i = 0; i < 100; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		FILE_AT(s, name);
	}
	assert_limit(add(s, THAW_REGULAR, "one-more", 8, NULL), &s->err,
		     "more than 100 entries (--max-entries)");
}

/* They cost time and memory as well. */
static void replaced_members_count_as_entries(void **state)
{
	struct state *s = *state;

	thaw_tree_free(s->tree);
	s->tree = NULL;
	assert_int_equal(thaw_tree_new(100, &s->tree), 0);
	for (unsigned i = 0; i < 100; i++)
		FILE_AT(s, "same");
	assert_limit(add(s, THAW_REGULAR, "same", 4, NULL), &s->err,
		     "more than 100 entries (--max-entries)");
}

static void implied_directories_count_as_entries(void **state)
{
	struct state *s = *state;

	thaw_tree_free(s->tree);
	s->tree = NULL;
	assert_int_equal(thaw_tree_new(3, &s->tree), 0);
	FILE_AT(s, "a/b/c");
	assert_limit(add(s, THAW_REGULAR, "d", 1, NULL), &s->err,
		     "more than 3 entries (--max-entries)");
}

/* Enough names to make the hash table grow several times. */
static void many_names(void **state)
{
	struct state *s = *state;
	char name[32];

	for (unsigned i = 0; i < 9000; i++) {
		(void)snprintf(name, sizeof(name), "d%u/%x", i % 10, i);
		FILE_AT(s, name);
	}
	for (unsigned i = 0; i < 9000; i++) {
		(void)snprintf(name, sizeof(name), "d%u/%x", i % 10, i);
		assert_true(node_at(s, name) != THAW_NO_NODE);
	}
	assert_int_equal(node_at(s, "d0/1"), THAW_NO_NODE);
	assert_int_equal(s->tree->implied, 10);
}

/* -- duplicates -- */

static void later_file_wins(void **state)
{
	struct state *s = *state;
	struct thaw_member member = { .path = "f", .path_len = 1, .type = THAW_REGULAR,
				      .mode = 0755, .size = 77, .data = 4096, .mtime = 5 };

	FILE_AT(s, "f");
	assert_success(thaw_tree_add(s->tree, &member, &s->err), &s->err);
	assert_int_equal(object_at(s, "f")->size, 77);
	assert_int_equal(object_at(s, "f")->data, 4096);
	assert_int_equal(object_at(s, "f")->mode, 0755);
	assert_int_equal(object_at(s, "f")->mtime, 5);
	assert_int_equal(s->tree->duplicates, 1);
	assert_int_equal(s->tree->node_count, 2);
}

static void file_and_symlink_replace_each_other(void **state)
{
	struct state *s = *state;

	FILE_AT(s, "f");
	SYMLINK_AT(s, "f", "g");
	assert_int_equal(object_at(s, "f")->type, THAW_SYMLINK);
	FILE_AT(s, "f");
	assert_int_equal(object_at(s, "f")->type, THAW_REGULAR);
	assert_int_equal(s->tree->duplicates, 2);
}

static void replaced_file_lives_on_in_its_links(void **state)
{
	struct state *s = *state;
	struct thaw_member member = { .path = "a", .path_len = 1, .type = THAW_REGULAR,
				      .size = 99, .data = 1024 };
	struct thaw_image *image;
	struct thaw_inode inode;

	FILE_AT(s, "a");
	HARDLINK_AT(s, "b", "a");
	assert_int_equal(object_at(s, "a")->links, 2);
	assert_success(thaw_tree_add(s->tree, &member, &s->err), &s->err);
	assert_int_equal(object_at(s, "a")->size, 99);
	assert_int_equal(object_at(s, "a")->links, 1);
	assert_int_equal(object_at(s, "b")->size, 10);
	assert_int_equal(object_at(s, "b")->links, 1);
	image = emit(s);
	assert_int_equal(thaw_image_info(image)->hardlinks, 0);
	assert_int_equal(thaw_image_find(image, "b", &inode), 0);
	assert_int_equal(inode.size, 10);
	assert_int_equal(inode.nlink, 1);
	thaw_image_free(image);
}

static void directory_twice(void **state)
{
	struct state *s = *state;

	DIRECTORY_AT(s, "d");
	FILE_AT(s, "d/f");
	DIRECTORY_AT(s, "d/");
	assert_true(node_at(s, "d/f") != THAW_NO_NODE);
	assert_int_equal(s->tree->duplicates, 1);
}

static void directory_and_file(void **state)
{
	struct state *s = *state;

	DIRECTORY_AT(s, "d");
	FILE_AT(s, "f");
	SYMLINK_AT(s, "l", "d");
	FILE_AT(s, "implied/x");
	REFUSED(s, THAW_REGULAR, "d", NULL, "\"d\": is both a directory and a file");
	REFUSED(s, THAW_SYMLINK, "d", "f", "\"d\": is both a directory and a file");
	REFUSED(s, THAW_HARDLINK, "d", "f", "\"d\": is both a directory and a file");
	REFUSED(s, THAW_DIRECTORY, "f", NULL, "\"f\": is both a directory and a file");
	REFUSED(s, THAW_DIRECTORY, "l", NULL, "\"l\": is both a directory and a file");
	REFUSED(s, THAW_REGULAR, "implied", NULL, "\"implied\": is both a directory and a file");
}

static void beneath_what_is_no_directory(void **state)
{
	struct state *s = *state;

	FILE_AT(s, "f");
	SYMLINK_AT(s, "l", "d");
	DIRECTORY_AT(s, "d");
	HARDLINK_AT(s, "m", "l");
	REFUSED(s, THAW_REGULAR, "f/x", NULL, "\"f/x\": lies beneath something that is a file");
	REFUSED(s, THAW_REGULAR, "l/x", NULL, "\"l/x\": lies beneath a symlink");
	REFUSED(s, THAW_DIRECTORY, "l/x/y/", NULL, "\"l/x/y\": lies beneath a symlink");
	REFUSED(s, THAW_REGULAR, "m/x", NULL, "\"m/x\": lies beneath a symlink");
}

/* -- implied directories -- */

static void implied(void **state)
{
	struct state *s = *state;
	struct thaw_member late = { .path = "a/b/", .path_len = 4, .type = THAW_DIRECTORY,
				    .mode = 0700, .mtime = 42 };

	FILE_AT(s, "a/b/c");
	assert_int_equal(s->tree->implied, 2);
	assert_int_equal(object_at(s, "a")->type, THAW_DIRECTORY);
	assert_int_equal(object_at(s, "a")->mode, 0755);
	assert_int_equal(object_at(s, "a")->mtime, 1700000000); /* of the member that implied it */
	/* Named at last: its own time, and no duplicate. */
	assert_success(thaw_tree_add(s->tree, &late, &s->err), &s->err);
	assert_int_equal(object_at(s, "a/b")->mtime, 42);
	assert_int_equal(object_at(s, "a/b")->mode, 0755);
	assert_int_equal(s->tree->implied, 1);
	assert_int_equal(s->tree->duplicates, 0);
}

static void root_is_never_implied(void **state)
{
	struct state *s = *state;
	struct thaw_member root = { .path = "./", .path_len = 2, .type = THAW_DIRECTORY, .mtime = 7 };

	assert_success(thaw_tree_add(s->tree, &root, &s->err), &s->err);
	assert_int_equal(s->tree->implied, 0);
	assert_int_equal(object_at(s, "")->mtime, 7);
	assert_int_equal(s->tree->duplicates, 0);
}

/* -- attributes -- */

static void modes(void **state)
{
	static const struct {
		unsigned given, served;
	} cases[] = {
		{ 0, 0444 },	 { 0644, 0644 },  { 0600, 0644 },  { 0444, 0444 },  { 0755, 0755 },
		{ 0700, 0755 },	 { 0555, 0555 },  { 0011, 0444 },  { 04755, 0755 }, { 07777, 0755 },
		{ 0666, 0644 },	 { 0100, 0555 },  { 0200, 0644 },  { 02400, 0444 }, { ~0u, 0755 },
	};
	struct state *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_member member = { .path = "f", .path_len = 1, .type = THAW_REGULAR,
					      .mode = cases[i].given };

		assert_success(thaw_tree_add(s->tree, &member, &s->err), &s->err);
		assert_int_equal(object_at(s, "f")->mode, cases[i].served);
	}
	SYMLINK_AT(s, "l", "f");
	assert_int_equal(object_at(s, "l")->mode, 0777);
}

static void times(void **state)
{
	static const struct {
		int64_t given;
		uint32_t served;
	} cases[] = {
		{ 0, 0 },	       { 1, 1 },
		{ -1, 0 },	       { INT64_MIN, 0 },
		{ INT64_MAX, UINT32_MAX }, { UINT32_MAX, UINT32_MAX },
		{ 1ll << 32, UINT32_MAX }, { 1ll << 31, 1u << 31 },
	};
	struct state *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_member member = { .path = "f", .path_len = 1, .type = THAW_REGULAR,
					      .mtime = cases[i].given };

		assert_success(thaw_tree_add(s->tree, &member, &s->err), &s->err);
		assert_int_equal(object_at(s, "f")->mtime, cases[i].served);
	}
}

/* -- hard links -- */

static void hard_links(void **state)
{
	struct state *s = *state;
	struct thaw_image *image;
	struct thaw_inode file, link;

	FILE_AT(s, "z/file");
	HARDLINK_AT(s, "a", "./z/file"); /* comes before its file in the image */
	HARDLINK_AT(s, "z/second", "a"); /* a link to a link */
	SYMLINK_AT(s, "symlink", "z");
	HARDLINK_AT(s, "z/symlink", "symlink");
	image = emit(s);
	assert_int_equal(thaw_image_find(image, "z/file", &file), 0);
	assert_int_equal(file.nlink, 3);
	assert_int_equal(thaw_image_find(image, "a", &link), 0);
	assert_int_equal(link.ino, file.ino);
	assert_int_equal(thaw_image_find(image, "z/second", &link), 0);
	assert_int_equal(link.ino, file.ino);
	assert_int_equal(thaw_image_find(image, "z/symlink", &link), 0);
	assert_int_equal(link.type, THAW_SYMLINK);
	assert_string_equal(thaw_image_target(image, &link), "z");
	assert_int_equal(thaw_image_info(image)->hardlinks, 3);
	assert_int_equal(thaw_image_info(image)->files, 1);
	thaw_image_free(image);
}

static void bad_hard_links(void **state)
{
	struct state *s = *state;

	FILE_AT(s, "f");
	DIRECTORY_AT(s, "d");
	SYMLINK_AT(s, "l", "d");
	FILE_AT(s, "d/g");
	REFUSED(s, THAW_HARDLINK, "h", "absent",
		"\"h\": is a hard link to something that does not precede it");
	REFUSED(s, THAW_HARDLINK, "h", "absent/deep/er",
		"\"h\": is a hard link to something that does not precede it");
	REFUSED(s, THAW_HARDLINK, "h", "h", "\"h\": is a hard link to itself");
	REFUSED(s, THAW_HARDLINK, "f", "./f", "\"f\": is a hard link to itself");
	REFUSED(s, THAW_HARDLINK, "h", "d", "\"h\": is a hard link to a directory");
	REFUSED(s, THAW_HARDLINK, "h", "./", "\"h\": is a hard link to a directory");
	REFUSED(s, THAW_HARDLINK, "h", "", "\"h\": is a hard link to a directory");
	REFUSED(s, THAW_HARDLINK, "h", "/f", "\"/f\": is an absolute name");
	REFUSED(s, THAW_HARDLINK, "h", "../f", "\"../f\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_HARDLINK, "h", "d/../f", "\"d/../f\": leads out of the environment (\"..\")");
	REFUSED(s, THAW_HARDLINK, "h", "l/g", "\"l/g\": lies beneath a symlink");
	REFUSED(s, THAW_HARDLINK, "h", "f/g", "\"f/g\": lies beneath something that is a file");
	/* A target is looked for, not made. */
	assert_int_equal(node_at(s, "absent"), THAW_NO_NODE);
}

/* -- symlinks -- */

static void bad_symlinks(void **state)
{
	struct state *s = *state;
	struct thaw_member nul = { .path = "l", .path_len = 1, .type = THAW_SYMLINK,
				   .target = "a\0b", .target_len = 3 };
	char target[THAW_PATH_MAX + 2];

	REFUSED(s, THAW_SYMLINK, "l", "", "\"l\": is a symlink without a target");
	assert_refused(thaw_tree_add(s->tree, &nul, &s->err), &s->err,
		       "\"l\": is a symlink to a name with a NUL byte in it");
	memset(target, 'x', sizeof(target));
	target[THAW_PATH_MAX] = '\0';
	SYMLINK_AT(s, "long", target);
	target[THAW_PATH_MAX] = 'x';
	target[THAW_PATH_MAX + 1] = '\0';
	assert_limit(add(s, THAW_SYMLINK, "l", 1, target), &s->err,
		     "\"l\": is a symlink to a name longer than 4095 bytes");
}

static void targets_are_kept_as_they_are(void **state)
{
	static const char *const targets[] = { "/etc/passwd", "../../x", "a//b/", ".", "\n\xff" };
	struct state *s = *state;
	struct thaw_image *image;
	struct thaw_inode inode;
	char name[2] = "a";

	for (size_t i = 0; i < ARRAY_SIZE(targets); i++, name[0]++)
		SYMLINK_AT(s, name, targets[i]);
	image = emit(s);
	name[0] = 'a';
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++, name[0]++) {
		assert_int_equal(thaw_image_find(image, name, &inode), 0);
		assert_int_equal(inode.size, strlen(targets[i]));
		assert_string_equal(thaw_image_target(image, &inode), targets[i]);
	}
	thaw_image_free(image);
}

/* -- --links=contained -- */

struct link_case {
	const char *name, *target;
};

static void check_links(struct state *s, const struct link_case *cases, size_t count, const char *text)
{
	for (size_t i = 0; i < count; i++) {
		thaw_tree_free(s->tree);
		s->tree = NULL;
		assert_int_equal(thaw_tree_new(1000, &s->tree), 0);
		/* A tree to lead around in: d/e/f, up = d/e -> .., top = d/top -> .., loops. */
		FILE_AT(s, "d/e/f");
		SYMLINK_AT(s, "d/e/up", "..");
		SYMLINK_AT(s, "d/top", "..");
		SYMLINK_AT(s, "loop", "pool");
		SYMLINK_AT(s, "pool", "loop");
		SYMLINK_AT(s, "self", "self/x");
		SYMLINK_AT(s, cases[i].name, cases[i].target);
		if (!text) {
			if (thaw_tree_check_links(s->tree, &s->err) != 0)
				fail_msg("%s -> %s: %s", cases[i].name, cases[i].target, s->err.text);
			continue;
		}
		if (thaw_tree_check_links(s->tree, &s->err) != -EPERM ||
		    s->err.exit_code != THAW_EXIT_REFUSED)
			fail_msg("%s -> %s: passed", cases[i].name, cases[i].target);
		assert_non_null(strstr(s->err.text, text));
		assert_non_null(strstr(s->err.text, cases[i].name));
	}
}

static void contained_links(void **state)
{
	static const struct link_case cases[] = {
		{ "l", "d/e/f" },
		{ "l", "." },
		{ "l", "d/.." },
		{ "l", "d/e/../../d" },
		{ "l", "absent" },
		{ "l", "absent/../../x" }, /* ENOENT before it gets anywhere */
		{ "d/l", "../d/e" },
		{ "d/e/l", "../../d" },
		{ "l", "d/e/up/e" },
		{ "l", "d/top/d/top/d/e/f" },
		{ "l", "loop" },
		{ "l", "loop/../../.." },
		{ "l", "self" },
		{ "l", "d/e/f/../../../.." }, /* beneath a file: ENOTDIR */
		{ "l", "d//e///f" },
		{ "l", "d/./e/./f" },
		{ "l", "..." },
	};

	check_links(*state, cases, ARRAY_SIZE(cases), NULL);
}

static void escaping_links(void **state)
{
	static const struct link_case cases[] = {
		{ "l", "/etc/passwd" },
		{ "l", "/" },
		{ "l", ".." },
		{ "l", "../" },
		{ "l", "../x" },
		{ "l", "./.." },
		{ "l", "d/../.." },
		{ "l", "d//..//.." },
		{ "d/l", "../../x" },
		{ "d/e/l", "../../.." },
		/* Lexically inside, but not the way that a kernel walks. */
		{ "l", "d/top/.." },
		{ "l", "d/e/up/../.." },
		{ "l", "d/e/up/top/.." },
		{ "d/e/l", "up/top/../x" },
	};

	check_links(*state, cases, ARRAY_SIZE(cases), "is a symlink out of the environment (to \"");
}

static void chain_that_leads_out(void **state)
{
	struct state *s = *state;
	char name[8], target[16];

	SYMLINK_AT(s, "z", "y/../..");
	DIRECTORY_AT(s, "y");
	assert_refused(thaw_tree_check_links(s->tree, &s->err), &s->err,
		       "\"z\": is a symlink out of the environment (to \"y/../..\")");
	/* As long a chain as a kernel follows, harmless in itself. */
	SYMLINK_AT(s, "z", "y");
	for (unsigned i = 0; i < 100; i++) {
		(void)snprintf(name, sizeof(name), "c%u", i);
		(void)snprintf(target, sizeof(target), i ? "c%u" : "y", i - 1);
		SYMLINK_AT(s, name, target);
	}
	assert_success(thaw_tree_check_links(s->tree, &s->err), &s->err);
	/* The same link means different things in different directories. */
	SYMLINK_AT(s, "y/l", "..");
	assert_success(thaw_tree_check_links(s->tree, &s->err), &s->err);
	HARDLINK_AT(s, "l", "y/l");
	assert_refused(thaw_tree_check_links(s->tree, &s->err), &s->err,
		       "\"l\": is a symlink out of the environment (to \"..\")");
}

static void replaced_links_do_not_count(void **state)
{
	struct state *s = *state;

	SYMLINK_AT(s, "l", "/etc");
	FILE_AT(s, "l");
	assert_success(thaw_tree_check_links(s->tree, &s->err), &s->err);
}

/* -- messages and records -- */

static void node_paths(void **state)
{
	struct state *s = *state;
	char buf[16];

	FILE_AT(s, "abc/def/ghi");
	thaw_tree_path(s->tree, node_at(s, "abc/def/ghi"), buf, sizeof(buf));
	assert_string_equal(buf, "abc/def/ghi");
	thaw_tree_path(s->tree, node_at(s, "abc/def/ghi"), buf, 12);
	assert_string_equal(buf, "abc/def/ghi");
	thaw_tree_path(s->tree, node_at(s, "abc/def/ghi"), buf, 11);
	assert_string_equal(buf, "def/ghi");
	thaw_tree_path(s->tree, 0, buf, sizeof(buf));
	assert_string_equal(buf, "");
}

static void records(void **state)
{
	static const char *const sorted[] = { "A", "B.c", "a", "a-", "a.b", "b", "\x80" };
	struct state *s = *state;
	struct thaw_image *image;
	struct thaw_inode root, child;
	struct thaw_name name;

	for (size_t i = ARRAY_SIZE(sorted); i-- > 0;)
		FILE_AT(s, sorted[i]);
	DIRECTORY_AT(s, "d/one");
	DIRECTORY_AT(s, "d/two");
	FILE_AT(s, "d/f");
	/* Links are what find(1) -noleaf relies on: 2 + subdirectories. */
	image = emit(s);
	assert_int_equal(thaw_image_inode(image, THAW_ROOT, &root), 0);
	assert_int_equal(root.nlink, 3);
	assert_int_equal(root.size, ARRAY_SIZE(sorted) + 1);
	for (size_t i = 0, k = 0; i < root.size; i++) {
		thaw_image_child(image, &root, i, &name, &child);
		if (child.type == THAW_DIRECTORY) {
			assert_int_equal(child.nlink, 4);
			assert_int_equal(child.size, 3);
			continue;
		}
		assert_int_equal(name.len, strlen(sorted[k]));
		assert_memory_equal(name.text, sorted[k], name.len);
		k++;
	}
	thaw_image_free(image);
}

static void nothing_at_all(void **state)
{
	struct thaw_image *image = emit(*state);

	assert_int_equal(thaw_image_info(image)->inodes, 2);
	thaw_image_free(image);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(habits_of_archivers),
		TEST(names_that_look_dangerous_but_are_not),
		TEST(refused_names),
		TEST(component_length),
		TEST(path_length),
		TEST(entry_limit),
		TEST(replaced_members_count_as_entries),
		TEST(implied_directories_count_as_entries),
		TEST(many_names),
		TEST(later_file_wins),
		TEST(file_and_symlink_replace_each_other),
		TEST(replaced_file_lives_on_in_its_links),
		TEST(directory_twice),
		TEST(directory_and_file),
		TEST(beneath_what_is_no_directory),
		TEST(implied),
		TEST(root_is_never_implied),
		TEST(modes),
		TEST(times),
		TEST(hard_links),
		TEST(bad_hard_links),
		TEST(bad_symlinks),
		TEST(targets_are_kept_as_they_are),
		TEST(contained_links),
		TEST(escaping_links),
		TEST(chain_that_leads_out),
		TEST(replaced_links_do_not_count),
		TEST(node_paths),
		TEST(records),
		TEST(nothing_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
