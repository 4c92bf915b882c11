/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the kernel's table of mounts, which a test replaces by one of its own. */
#include "check.h"

#include <stdio.h>

#include "mountinfo.h"

static const char *table;
FILE *__real_fopen64(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode)
{
	if (strcmp(path, "/proc/self/mountinfo") != 0)
		return __real_fopen64(path, mode);
	if (!table) {
		errno = EACCES;
		return NULL;
	}
	return fmemopen((void *)table, strlen(table), "r");
}

#define THAW(path) "40 28 0:35 / " path " ro,nosuid,nodev shared:1 - fuse.thaw thaw:sha256:ab ro,user_id=0\n"

static void expect(const char *path, int result, bool ours, const char *source)
{
	struct thaw_mountpoint found = { 0 };
	struct thaw_error err;

	assert_int_equal(thaw_mountinfo_find(path, &err, &found), result);
	if (result == 0) {
		assert_int_equal(found.ours, ours);
		assert_string_equal(found.source, source);
	}
}

static void plain(void **state)
{
	table = "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		THAW("/mnt/env")
		"41 28 0:36 / /mnt/other rw - tmpfs none rw\n";
	expect("/mnt/env", 0, true, "thaw:sha256:ab");
	expect("/mnt/other", 0, false, "none");
	expect("/", 0, false, "/dev/sda1");
	expect("/mnt", THAW_NOT_FOUND, false, NULL);
	expect("/mnt/env/", THAW_NOT_FOUND, false, NULL);
	expect("/mnt/en", THAW_NOT_FOUND, false, NULL);
}

/* The kernel writes a blank, tab, newline, backslash and number sign in octal. */
static void escapes(void **state)
{
	table = THAW("/a\\040b") THAW("/tab\\011") THAW("/line\\012") THAW("/back\\134slash")
		THAW("/hash\\043") THAW("/\\134040") THAW("/\\377");
	expect("/a b", 0, true, "thaw:sha256:ab");
	expect("/tab\t", 0, true, "thaw:sha256:ab");
	expect("/line\n", 0, true, "thaw:sha256:ab");
	expect("/back\\slash", 0, true, "thaw:sha256:ab");
	expect("/hash#", 0, true, "thaw:sha256:ab");
	expect("/\\040", 0, true, "thaw:sha256:ab"); /* undone once, not twice */
	expect("/ ", THAW_NOT_FOUND, false, NULL);
	expect("/\377", 0, true, "thaw:sha256:ab");
}

static void no_escapes(void **state)
{
	table = THAW("/a\\04") THAW("/b\\08x") THAW("/c\\") THAW("/d\\777");
	expect("/a\\04", 0, true, "thaw:sha256:ab");
	expect("/b\\08x", 0, true, "thaw:sha256:ab");
	expect("/c\\", 0, true, "thaw:sha256:ab");
	expect("/d\\777", 0, true, "thaw:sha256:ab"); /* more than a byte holds */
}

static void topmost(void **state)
{
	table = THAW("/m") "41 28 0:36 / /m rw - tmpfs none rw\n";
	expect("/m", 0, false, "none");
	table = "41 28 0:36 / /m rw - tmpfs none rw\n" THAW("/m");
	expect("/m", 0, true, "thaw:sha256:ab");
}

static void optional_fields(void **state)
{
	table = "40 28 0:35 / /none ro - fuse.thaw thaw:sha256:ab ro\n"
		"40 28 0:35 / /many ro shared:1 master:2 propagate_from:3 unbindable - fuse.thaw "
		"thaw:sha256:ab ro\n"
		"40 28 0:35 / /- ro - fuse.thaw thaw:sha256:ab ro\n"
		"40 28 0:35 /- /root ro - fuse.thaw thaw:sha256:ab ro\n";
	expect("/none", 0, true, "thaw:sha256:ab");
	expect("/many", 0, true, "thaw:sha256:ab");
	expect("/-", 0, true, "thaw:sha256:ab");
	expect("/root", 0, true, "thaw:sha256:ab");
}

static void odd_lines(void **state)
{
	table = "\n \nx\n40 28 0:35 / /cut ro\n40 28 0:35 / /cut ro -\n40 28 0:35 / /cut ro - fuse.thaw\n"
		THAW("/m") "40 28 0:35 / /end ro - fuse.thaw thaw:x";
	expect("/cut", THAW_NOT_FOUND, false, NULL);
	expect("/m", 0, true, "thaw:sha256:ab");
	expect("/end", 0, true, "thaw:x");
}

static void long_source_is_cut(void **state)
{
	static char line[4000];
	struct thaw_mountpoint found;
	struct thaw_error err;

	(void)snprintf(line, sizeof(line), "40 28 0:35 / /m ro - fuse.thaw %03000d ro\n", 7);
	table = line;
	assert_int_equal(thaw_mountinfo_find("/m", &err, &found), 0);
	assert_int_equal(strlen(found.source), sizeof(found.source) - 1);
}

#define VIEW(path, super) "50 28 0:40 / " path " ro - overlay thaw:sha256:ab " super "\n"

static void expect_lower(const char *path, const char *first, const char *second)
{
	struct thaw_mountpoint found = { 0 };
	const char *lower = found.lower;
	struct thaw_error err;

	assert_int_equal(thaw_mountinfo_find(path, &err, &found), 0);
	assert_string_equal(lower, first);
	if (*lower)
		lower = thaw_mountinfo_next_lower(lower);
	assert_string_equal(lower, second);
	if (*lower)
		assert_string_equal(thaw_mountinfo_next_lower(lower), "");
}

/* As new kernels write them, and as old ones do. */
static void layers(void **state)
{
	table = VIEW("/new", "ro,lowerdir+=/a,lowerdir+=/b,redirect_dir=on")
		VIEW("/odd", "rw,lowerdir+=/a\\054b\\040c:d,upperdir=/u,lowerdir+=/e\\134f")
		VIEW("/old", "ro,lowerdir=/a:/b,upperdir=/u")
		VIEW("/text", "ro,lowerdir=/a\\134:b:/c\\134\\134d\\134")
		VIEW("/none", "ro")
		VIEW("/empty", "ro,lowerdir=,lowerdir+=")
		"51 28 0:41 / /tmp ro - tmpfs none ro,lowerdir=/a\n";
	expect_lower("/new", "/a", "/b");
	expect_lower("/odd", "/a,b c:d", "/e\\f");
	expect_lower("/old", "/a", "/b");
	expect_lower("/text", "/a:b", "/c\\d\\");
	expect_lower("/none", "", "");
	expect_lower("/empty", "", "");
	expect_lower("/tmp", "", "");
}

static void too_many_layers(void **state)
{
	static char line[1 << 16];
	size_t used = (size_t)snprintf(line, sizeof(line), "50 28 0:40 / /m ro - overlay thaw:x ro");
	struct thaw_mountpoint found;
	const char *p;
	struct thaw_error err;
	unsigned n = 0;

	while (used + 64 < sizeof(line))
		used += (size_t)snprintf(line + used, sizeof(line) - used, ",lowerdir+=/%040d", 1);
	line[used] = '\n';
	table = line;
	assert_int_equal(thaw_mountinfo_find("/m", &err, &found), 0);
	for (p = found.lower; *p; p = thaw_mountinfo_next_lower(p))
		assert_int_equal((n++, strlen(p)), 41);
	assert_true(n > 50 && (size_t)(p - found.lower) < sizeof(found.lower));
}

static void whole_table(void **state)
{
	struct thaw_mount_table all;
	struct thaw_error err;

	table = "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		THAW("/mnt/a\\040b") "odd line\n" VIEW("/view", "ro,lowerdir+=/a,lowerdir+=/b")
		"60 28 0:50 / /other ro - overlay overlay ro,lowerdir=/c\n";
	assert_success(thaw_mount_table_read(&all, &err), &err);
	assert_int_equal(all.count, 4);
	assert_int_equal(all.entries[0].kind, THAW_MOUNT_OTHER);
	assert_int_equal(all.entries[1].kind, THAW_MOUNT_IMAGE);
	assert_string_equal(all.entries[1].path, "/mnt/a b");
	assert_string_equal(all.entries[1].lower, "");
	assert_int_equal(all.entries[2].kind, THAW_MOUNT_VIEW);
	assert_int_equal(all.entries[2].id, 50);
	assert_int_equal(all.entries[2].parent, 28);
	assert_string_equal(all.entries[2].device, "0:40");
	assert_string_equal(all.entries[2].lower, "/a");
	assert_string_equal(thaw_mountinfo_next_lower(all.entries[2].lower), "/b");
	assert_int_equal(all.entries[3].kind, THAW_MOUNT_OTHER);
	assert_string_equal(all.entries[3].lower, "/c");
	thaw_mount_table_deinit(&all);
	table = NULL;
	assert_failure(thaw_mount_table_read(&all, &err), &err, EACCES, THAW_EXIT_IO,
		       "the table of mounts cannot be read: Permission denied");
	thaw_mount_table_deinit(&all);
}

static void no_table(void **state)
{
	struct thaw_mountpoint found;
	struct thaw_error err;

	table = NULL;
	assert_failure(thaw_mountinfo_find("/m", &err, &found), &err, EACCES, THAW_EXIT_IO,
		       "the table of mounts cannot be read: Permission denied");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),	   cmocka_unit_test(escapes),
		cmocka_unit_test(no_escapes),	   cmocka_unit_test(topmost),
		cmocka_unit_test(optional_fields), cmocka_unit_test(odd_lines),
		cmocka_unit_test(long_source_is_cut), cmocka_unit_test(layers),
		cmocka_unit_test(too_many_layers), cmocka_unit_test(whole_table),
		cmocka_unit_test(no_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
