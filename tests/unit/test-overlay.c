/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlays and scratch layers, in namespaces of the test's own; each overlay test a
 * second and third time as on kernels that know neither layers by descriptor nor mounts
 * beneath others.
 */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "namespaces.h"
#include "overlay.h"
#include "scratch.h"
#include "util/cleanup.h"

int mount(const char *source, const char *target, const char *type, unsigned long flags,
	  const void *data);
int umount2(const char *target, int flags);

/* -- kernels -- */

static enum { TODAYS, WITHOUT_LAYER_FDS, WITHOUT_BENEATH, KERNELS } kernel;

long __real_syscall(long number, ...);
long __wrap_syscall(long number, long a, long b, long c, long d, long e);
long __wrap_syscall(long number, long a, long b, long c, long d, long e)
{
	bool refused =
		(number == SYS_fsconfig && b == FSCONFIG_SET_FD && kernel != TODAYS) ||
		(number == SYS_move_mount && (e & 0x200) && kernel == WITHOUT_BENEATH);

	if (refused) {
		errno = EINVAL;
		return -1;
	}
	return __real_syscall(number, a, b, c, d, e);
}

/* -- a place -- */

static char root[64], why_not[600];
static bool userxattr;

static void check_place(void)
{
	if (why_not[0]) {
		print_message("# %s\n", why_not);
		skip();
	}
}

/* Once: what cannot be had is said by every test. */
static int make_place(void **state)
{
	struct thaw_error err = { 0 };
	int r = 0;

	(void)snprintf(root, sizeof(root), "/tmp/thaw-test-overlay-XXXXXX");
	assert_non_null(mkdtemp(root));
	if (!thaw_may_mount()) {
		r = thaw_enter_user_namespace(&err);
		userxattr = true;
	}
	if (r == 0)
		r = thaw_enter_mount_namespace(&err);
	if (r == 0 && mount("none", root, "tmpfs", 0, "mode=0700") < 0)
		r = thaw_io(&err, -errno, "tmpfs");
	if (r < 0)
		(void)snprintf(why_not, sizeof(why_not), "%s", err.text);
	return 0;
}

static int remove_place(void **state)
{
	(void)umount2(root, 2);
	return rmdir(root);
}

static char *path(const char *name)
{
	static char paths[256][600]; /* valid for long enough */
	static unsigned next;
	char *to = paths[next++ % 256];

	assert_true(snprintf(to, sizeof(paths[0]), "%s/%s", root, name) <
		    (int)sizeof(paths[0]));
	return to;
}

static char *directory(const char *name)
{
	char *to = path(name);

	if (mkdir(to, 0755) < 0)
		assert_int_equal(errno, EEXIST);
	return to;
}

static void write_to(const char *file, const char *text)
{
	FILE *stream = fopen(file, "w");

	assert_non_null(stream);
	assert_true(fputs(text, stream) >= 0);
	assert_int_equal(fclose(stream), 0);
}

static void assert_holds(const char *file, const char *text)
{
	char buf[64] = "";
	FILE *stream = fopen(file, "r");

	if (!stream)
		fail_msg("%s: %s", file, strerror(errno));
	assert_true(fread(buf, 1, sizeof(buf) - 1, stream) > 0);
	(void)fclose(stream);
	assert_string_equal(buf, text);
}

static void assert_missing(const char *file)
{
	assert_int_equal(access(file, F_OK), -1);
	assert_int_equal(errno, ENOENT);
}

static char *join(const char *where, const char *name)
{
	static char paths[16][700];
	static unsigned next;
	char *to = paths[next++ % 16];

	assert_true(snprintf(to, sizeof(paths[0]), "%s/%s", where, name) <
		    (int)sizeof(paths[0]));
	return to;
}

static unsigned mounts_at(const char *where)
{
	struct thaw_mount_table table;
	struct thaw_error err;
	unsigned n = 0;

	assert_success(thaw_mount_table_read(&table, &err), &err);
	for (size_t i = 0; i < table.count; i++)
		n += strcmp(table.entries[i].path, where) == 0;
	thaw_mount_table_deinit(&table);
	return n;
}

/* Layers "first" over "second", with a file each and one that both have. */
static struct thaw_overlay overlay_of(struct thaw_overlay_layer *layers,
				      const char *first, const char *second)
{
	struct thaw_overlay overlay = {
		.layers = layers,
		.count = second ? 2 : 1,
		.empty = directory("empty"),
		.source = "thaw:test",
		.userxattr = userxattr,
	};

	layers[0] = (struct thaw_overlay_layer){ .path = directory(first), .fd = -1 };
	write_to(join(layers[0].path, "both"), first);
	write_to(join(layers[0].path, "upper file"), first);
	if (second) {
		layers[1] = (struct thaw_overlay_layer){ .path = directory(second),
							 .fd = -1 };
		write_to(join(layers[1].path, "both"), second);
		write_to(join(layers[1].path, "lower file"), second);
	}
	return overlay;
}

static void unmount(const char *view)
{
	struct thaw_error err;

	assert_success(thaw_overlay_unmount(view, false, &err), &err);
	assert_int_equal(mounts_at(view), 0);
}

/* -- tests -- */

static void layers(void **state)
{
	struct thaw_overlay_layer list[2];
	struct thaw_overlay overlay;
	struct thaw_mountpoint found;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));
	const char *lower;

	overlay = overlay_of(list, "one", "two");
	assert_success(thaw_overlay_mount(&overlay, view, &err), &err);
	assert_holds(join(view, "both"), "one");
	assert_holds(join(view, "upper file"), "one");
	assert_holds(join(view, "lower file"), "two");
	assert_int_equal(open(join(view, "new"), O_CREAT | O_WRONLY, 0644), -1);
	assert_int_equal(errno, EROFS);

	assert_int_equal(thaw_mountinfo_find(view, &err, &found), 0);
	assert_true(found.view && !found.ours);
	assert_string_equal(found.source, "thaw:test");
	lower = found.lower;
	assert_string_equal(lower, list[0].path);
	lower = thaw_mountinfo_next_lower(lower);
	assert_string_equal(lower, list[1].path);
	assert_string_equal(thaw_mountinfo_next_lower(lower), "");
	unmount(view);
	assert_int_equal(thaw_overlay_unmount(view, false, &err), THAW_NOT_FOUND);
}

static void one_layer(void **state)
{
	struct thaw_overlay_layer list[1];
	struct thaw_overlay overlay;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));

	overlay = overlay_of(list, "one", NULL);
	assert_success(thaw_overlay_mount(&overlay, view, &err), &err);
	assert_holds(join(view, "both"), "one");
	unmount(view);
}

static void odd_names(void **state)
{
	static const char *const names[] = { "co:lon", "com,ma",   "back\\slash",
					     "a b",    "n\nl",	   "quo\"te'",
					     "eq=ual", "\xff\xfe", "-dash",
					     "$HOME",  "%s#" };
	struct thaw_overlay_layer list[2];
	struct thaw_error err;

	check_place();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char first[64], second[64], view[64], scratch[64];
		struct thaw_overlay overlay;
		struct thaw_mountpoint found;

		(void)snprintf(first, sizeof(first), "1 %s", names[i]);
		(void)snprintf(second, sizeof(second), "2 %s", names[i]);
		(void)snprintf(view, sizeof(view), "view %s", names[i]);
		(void)snprintf(scratch, sizeof(scratch), "scratch %s", names[i]);
		overlay = overlay_of(list, first, second);
		overlay.scratch = directory(scratch);
		(void)directory(join(scratch, "upper"));
		(void)directory(join(scratch, "work"));
		assert_success(thaw_overlay_mount(&overlay, directory(view), &err), &err);
		assert_holds(join(path(view), "lower file"), second);
		assert_int_equal(thaw_mountinfo_find(path(view), &err, &found), 0);
		assert_string_equal(found.lower, list[0].path);
		assert_string_equal(thaw_mountinfo_next_lower(found.lower), list[1].path);
		write_to(join(path(view), "new"), "new");
		assert_holds(path(join(scratch, "upper/new")), "new");
		unmount(path(view));
	}
}

static void long_paths(void **state)
{
	struct thaw_overlay_layer list[4];
	struct thaw_overlay overlay;
	struct thaw_error err;
	char name[256], deep[600], *view = (check_place(), directory("view"));

	memset(name, 'n', 200);
	name[200] = '\0';
	overlay = overlay_of(list, "one", "two");
	(void)directory(name);
	(void)snprintf(deep, sizeof(deep), "%s/%.150s", name, name);
	list[1].path = directory(deep);
	write_to(join(list[1].path, "deep"), "deep");
	assert_success(thaw_overlay_mount(&overlay, view, &err), &err);
	assert_holds(join(view, "deep"), "deep");
	unmount(view);
}

static void descriptors(void **state)
{
	struct thaw_overlay_layer list[2];
	struct thaw_overlay overlay;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));

	overlay = overlay_of(list, "one", "two");
	list[0].fd = open(list[0].path, O_PATH | O_DIRECTORY);
	assert_true(list[0].fd >= 0);
	list[0].path = NULL;
	assert_success(thaw_overlay_mount(&overlay, view, &err), &err);
	assert_holds(join(view, "both"), "one");
	unmount(view);
	(void)close(list[0].fd);
}

static void failures(void **state)
{
	struct thaw_overlay_layer list[2];
	struct thaw_overlay overlay;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));

	overlay = overlay_of(list, "one", "two");
	list[1].path = path("missing");
	assert_int_equal(thaw_overlay_mount(&overlay, view, &err), -ENOENT);
	assert_int_equal(err.exit_code, THAW_EXIT_IO);
	overlay = overlay_of(list, "one", "two");
	assert_int_equal(thaw_overlay_mount(&overlay, path("nowhere"), &err), -ENOENT);
	overlay.scratch = path("missing");
	assert_int_equal(thaw_overlay_mount(&overlay, view, &err), -ENOENT);
	assert_int_equal(mounts_at(view), 0);
	/* Only views are unmounted and replaced. */
	assert_int_equal(thaw_overlay_unmount(root, false, &err), -EPERM);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	overlay.scratch = NULL;
	assert_int_equal(thaw_overlay_replace(&overlay, &overlay, root, &err), -EPERM);
	assert_int_equal(thaw_overlay_replace(&overlay, &overlay, view, &err), -EPERM);
}

static void replaced(void **state)
{
	struct thaw_overlay_layer first[2], second[2], broken[2];
	struct thaw_overlay old, new, bad;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));
	char buf[16] = "";
	int file, there;

	old = overlay_of(first, "one", "two");
	new = overlay_of(second, "three", "four");
	bad = overlay_of(broken, "five", "six");
	broken[1].path = path("missing");
	assert_success(thaw_overlay_mount(&old, view, &err), &err);
	file = open(join(view, "both"), O_RDONLY);
	there = open(view, O_RDONLY | O_DIRECTORY);
	assert_true(file >= 0 && there >= 0);

	/* What cannot be mounted leaves the old. */
	assert_int_equal(thaw_overlay_replace(&old, &bad, view, &err), -ENOENT);
	assert_holds(join(view, "both"), "one");
	assert_int_equal(mounts_at(view), 1);

	assert_success(thaw_overlay_replace(&old, &new, view, &err), &err);
	assert_holds(join(view, "both"), "three");
	assert_missing(join(view, "nothing"));
	assert_int_equal(mounts_at(view), 1);
	/* Who has the old one keeps it. */
	assert_true(read(file, buf, sizeof(buf)) == 3);
	assert_string_equal(buf, "one");
	assert_int_equal(faccessat(there, "lower file", F_OK, 0), 0);
	(void)close(file);
	(void)close(there);
	unmount(view);
}

static struct thaw_overlay writable_of(struct thaw_overlay_layer *list, const char *first,
				       const char *second)
{
	struct thaw_overlay overlay = overlay_of(list, first, second);

	overlay.scratch = directory("scratch");
	(void)directory("scratch/upper");
	(void)directory("scratch/work");
	return overlay;
}

static void writable_replaced(void **state)
{
	struct thaw_overlay_layer first[2], second[2], broken[2];
	struct thaw_overlay old, new, bad;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));
	int file;

	old = writable_of(first, "one", "two");
	new = writable_of(second, "three", "four");
	bad = writable_of(broken, "five", "six");
	broken[1].path = path("missing");
	assert_success(thaw_overlay_mount(&old, view, &err), &err);
	write_to(join(view, "mine"), "mine");
	file = open(join(view, "mine"), O_RDONLY);
	assert_int_equal(thaw_overlay_replace(&old, &new, view, &err), -EBUSY);
	assert_holds(join(view, "both"), "one");
	(void)close(file);

	assert_int_equal(thaw_overlay_replace(&old, &bad, view, &err), -ENOENT);
	assert_holds(join(view, "both"), "one"); /* mounted again */
	assert_holds(join(view, "mine"), "mine");

	assert_success(thaw_overlay_replace(&old, &new, view, &err), &err);
	assert_holds(join(view, "both"), "three");
	assert_holds(join(view, "mine"), "mine");
	unmount(view);
	assert_int_equal(thaw_scratch_remove(path("scratch")), 0);
	assert_missing(path("scratch"));
}

static void busy(void **state)
{
	struct thaw_overlay_layer list[2];
	struct thaw_overlay overlay;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));
	int file;

	overlay = overlay_of(list, "one", "two");
	assert_success(thaw_overlay_mount(&overlay, view, &err), &err);
	file = open(join(view, "both"), O_RDONLY);
	assert_int_equal(thaw_overlay_unmount(view, false, &err), -EBUSY);
	assert_int_equal(mounts_at(view), 1);
	assert_success(thaw_overlay_unmount(view, true, &err), &err);
	assert_int_equal(mounts_at(view), 0);
	(void)close(file);
}

/* With others' mounts inside of it and on top of it. */
static void detached(void **state)
{
	struct thaw_overlay_layer list[2];
	struct thaw_mount_table table;
	struct thaw_overlay overlay;
	struct thaw_error err;
	const char *view = (check_place(), directory("view"));
	unsigned found = 0;

	(void)directory("one");
	(void)directory("one/inside");
	overlay = overlay_of(list, "one", "two");
	assert_success(thaw_overlay_mount(&overlay, view, &err), &err);
	assert_int_equal(mount("none", join(view, "inside"), "tmpfs", 0, NULL), 0);
	assert_int_equal(mount("none", view, "tmpfs", 0, NULL), 0);
	assert_int_equal(thaw_overlay_unmount(view, true, &err), -EPERM);
	assert_int_equal(mounts_at(view), 2);

	assert_success(thaw_mount_table_read(&table, &err), &err);
	for (size_t i = 0; i < table.count; i++) {
		if (table.entries[i].kind != THAW_MOUNT_VIEW ||
		    strcmp(table.entries[i].path, view))
			continue;
		found++;
		assert_success(thaw_overlay_detach(&table.entries[i], &err), &err);
		assert_int_equal(mounts_at(view), 0);
		/* It is gone: nothing that came since is touched. */
		assert_int_equal(mount("none", view, "tmpfs", 0, NULL), 0);
		assert_success(thaw_overlay_detach(&table.entries[i], &err), &err);
		assert_int_equal(mounts_at(view), 1);
	}
	assert_int_equal(found, 1);
	thaw_mount_table_deinit(&table);
	assert_int_equal(umount2(view, 2), 0);
	assert_int_equal(mounts_at(join(view, "inside")), 0);
}

/* -- scratch -- */

static unsigned names_in(const char *where)
{
	DIR *names = opendir(where);
	const struct dirent *entry;
	unsigned n = 0;

	assert_non_null(names);
	while ((entry = readdir(names)) != NULL)
		n += entry->d_name[0] != '.';
	(void)closedir(names);
	return n;
}

static void scratch_is_swept(void **state)
{
	_cleanup_(freep) char *first = NULL;
	_cleanup_(freep) char *second = NULL;
	const char *base = (check_place(), directory("base"));
	struct thaw_error err;
	uint64_t bytes;
	int lock, other, status;
	pid_t pid;

	assert_success(thaw_scratch_new(base, geteuid(), getegid(), &err, &first, &lock),
		       &err);
	write_to(join(first, "upper/file"), "some");
	assert_success(thaw_scratch_usage(first, &err, &bytes), &err);
	assert_true(bytes >= 4 && bytes <= 65536);
	/* Held: neither swept nor taken. */
	assert_int_equal(thaw_scratch_sweep(base), 0);
	assert_int_equal(thaw_scratch_adopt(first, &err, &other), -EBUSY);
	assert_success(
		thaw_scratch_new(base, geteuid(), getegid(), &err, &second, &other),
		&err);
	assert_int_equal(names_in(base), 2);
	/* Not held, but somebody is in the namespace: we are. */
	(void)close(lock);
	(void)close(other);
	assert_int_equal(thaw_scratch_sweep(base), 0);
	assert_success(thaw_scratch_adopt(first, &err, &lock), &err);
	(void)close(lock);
	/* A namespace that is gone with its only process. */
	pid = fork();
	if (pid == 0)
		_exit(thaw_enter_mount_namespace(&err) < 0 ||
		      thaw_scratch_note_namespace(first) < 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(thaw_scratch_sweep(base), 1);
	assert_missing(first);
	/* Of another boot. */
	write_to(join(second, THAW_SCRATCH_NAMESPACE), "another-boot 4026531841");
	assert_int_equal(thaw_scratch_sweep(base), 1);
	assert_int_equal(names_in(base), 0);
}

/* Deeper than any path may be, closed, and with a way out. */
static void hostile_scratch_is_removed(void **state)
{
	_cleanup_(freep) char *scratch = NULL;
	const char *base = (check_place(), directory("base"));
	const char *outside = directory("outside");
	struct thaw_error err;
	char name[251];
	int lock, at, r;

	memset(name, 'd', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	write_to(join(outside, "file"), "kept");
	assert_success(
		thaw_scratch_new(base, geteuid(), getegid(), &err, &scratch, &lock),
		&err);
	at = open(join(scratch, "upper"), O_RDONLY | O_DIRECTORY);
	for (unsigned i = 0; i < 60; i++) {
		int next;

		assert_int_equal(mkdirat(at, name, 0700), 0);
		assert_int_equal(symlinkat(outside, at, "link"), 0);
		assert_int_equal(symlinkat("..", at, "up"), 0);
		assert_int_equal(mkdirat(at, "lock", 0), 0);
		next = openat(at, name, O_RDONLY | O_DIRECTORY);
		assert_true(next >= 0);
		assert_int_equal(fchmod(at, i % 2 ? 0 : 0500), 0);
		(void)close(at);
		at = next;
	}
	(void)close(at);
	r = thaw_scratch_remove(scratch);
	(void)close(lock);
	assert_int_equal(r, 0);
	assert_missing(scratch);
	assert_holds(join(outside, "file"), "kept");
	assert_int_equal(thaw_scratch_remove(scratch), 0); /* is gone */
}

static void scratch_in_memory(void **state)
{
	const char *where = (check_place(), directory("memory"));
	char block[4096] = { 0 };
	struct thaw_error err;
	ssize_t n = 1;
	int fd;

	assert_success(thaw_scratch_mount(where, 1 << 20, geteuid(), getegid(), &err),
		       &err);
	fd = open(join(where, "upper/big"), O_CREAT | O_WRONLY, 0600);
	for (unsigned i = 0; i < 512 && n > 0; i++)
		n = write(fd, block, sizeof(block));
	assert_int_equal(n, -1);
	assert_int_equal(errno, ENOSPC);
	(void)close(fd);
	assert_int_equal(umount2(where, 2), 0);
}

static int todays(void **state)
{
	kernel = TODAYS;
	return 0;
}
static int without_layer_fds(void **state)
{
	kernel = WITHOUT_LAYER_FDS;
	return 0;
}
static int without_beneath(void **state)
{
	kernel = WITHOUT_BENEATH;
	return 0;
}

#define ON_EACH_KERNEL(test)                                                        \
	{ #test, test, todays, NULL, NULL },                                        \
		{ #test " (layers as text)", test, without_layer_fds, NULL, NULL }, \
	{                                                                           \
#test " (nothing beneath)", test, without_beneath, NULL, NULL       \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_EACH_KERNEL(layers),
		ON_EACH_KERNEL(one_layer),
		ON_EACH_KERNEL(odd_names),
		ON_EACH_KERNEL(long_paths),
		ON_EACH_KERNEL(descriptors),
		ON_EACH_KERNEL(failures),
		ON_EACH_KERNEL(replaced),
		ON_EACH_KERNEL(writable_replaced),
		ON_EACH_KERNEL(busy),
		ON_EACH_KERNEL(detached),
		cmocka_unit_test(scratch_is_swept),
		cmocka_unit_test(hostile_scratch_is_removed),
		cmocka_unit_test(scratch_in_memory),
	};

	return cmocka_run_group_tests(tests, make_place, remove_place);
}
