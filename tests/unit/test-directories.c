/* SPDX-License-Identifier: Apache-2.0 */
/* Run-time and state directories: which is taken, and which never. */
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

#include "thaw/directories.h"
#include "util/cleanup.h"

struct state {
	char *top;
	uid_t uid; /* that we have back in the end */
};

/* As an ordinary user, whose rules are the richer ones. */
static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->top = make_directory();
	s->uid = geteuid();
	if (s->uid == 0) {
		assert_int_equal(chown(s->top, 65534, 65534), 0);
		assert_int_equal(seteuid(65534), 0);
	}
	unsetenv("THAW_RUNTIME_DIR");
	unsetenv("THAW_STATE_DIR");
	unsetenv("XDG_STATE_HOME");
	setenv("XDG_RUNTIME_DIR", s->top, 1);
	setenv("HOME", s->top, 1);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	assert_int_equal(seteuid(s->uid), 0);
	remove_directory(s->top);
	free(s);
	return 0;
}

static void set_below(const char *variable, struct state *s, const char *name)
{
	char *path = join_path(s->top, name);

	setenv(variable, path, 1);
	free(path);
}

static void assert_path(struct state *s, const char *path, const char *name)
{
	char *wanted = join_path(s->top, name);
	struct stat st;

	assert_string_equal(path, wanted);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 0777, geteuid() == 0 ? 0755 : 0700);
	free(wanted);
}

static void test_order(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	struct thaw_place place;

	assert_success(thaw_runtime_place(&err, &place), &err);
	assert_path(s, place.path, "thaw");
	assert_string_equal(place.rule, "$XDG_RUNTIME_DIR");
	free(place.path);

	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, ".local/state/thaw");
	assert_string_equal(place.rule, "~/.local/state");
	assert_false(place.fallback);
	assert_string_equal(place.why, "");
	free(place.path);

	set_below("XDG_STATE_HOME", s, "a/b"); /* made, as XDG wants it */
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, "a/b/thaw");
	assert_string_equal(place.rule, "$XDG_STATE_HOME");
	free(place.path);

	setenv("XDG_STATE_HOME", "relative", 1); /* does not count, says XDG */
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, ".local/state/thaw");
	free(place.path);

	set_below("THAW_STATE_DIR", s, "own");
	set_below("THAW_RUNTIME_DIR", s, "own-runtime");
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, "own");
	assert_string_equal(place.rule, "$THAW_STATE_DIR");
	free(place.path);
	assert_success(thaw_runtime_place(&err, &place), &err);
	assert_path(s, place.path, "own-runtime");
	free(place.path);
}

static void test_kinds(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	char *path;

	assert_success(thaw_runtime_directory(NULL, NULL, &err, &path), &err);
	assert_path(s, path, "thaw");
	free(path);
	assert_success(thaw_runtime_directory("kind", NULL, &err, &path), &err);
	assert_path(s, path, "thaw/kind");
	free(path);
	assert_success(thaw_runtime_directory("kind", "name", &err, &path), &err);
	assert_path(s, path, "thaw/kind/name");
	free(path);
	assert_success(thaw_state_directory("images", NULL, &err, &path), &err);
	assert_path(s, path, ".local/state/thaw/images");
	free(path);
}

/* A read-only home, or none. */
static void test_fallback(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	struct thaw_place place;
	char *missing = join_path(s->top, "missing");
	struct stat st;

	setenv("HOME", missing, 1);
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, "thaw/state");
	assert_true(place.fallback);
	assert_string_equal(place.rule, "run-time directory");
	assert_non_null(strstr(
		place.why, "missing/.local/state/thaw\" cannot be made: No such file"));
	free(place.path);
	assert_int_equal(stat(missing, &st), -1); /* not for us to make */

	assert_int_equal(mkdir(missing, 0500), 0);
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, "thaw/state");
	free(place.path);

	unsetenv("HOME");
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, "thaw/state");
	assert_string_equal(place.why, "HOME is not set");
	free(place.path);
	free(missing);
}

/* What was asked for by name is used or an error. */
static void test_own_variables(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	struct thaw_place place;
	char *missing = join_path(s->top, "missing/deep");

	setenv("THAW_STATE_DIR", missing, 1);
	assert_int_equal(thaw_state_place(&err, &place), -ENOENT);
	assert_non_null(strstr(err.text, "cannot be made: No such file or directory"));
	setenv("THAW_STATE_DIR", "relative", 1);
	assert_refused(thaw_state_place(&err, &place), &err,
		       "$THAW_STATE_DIR: \"relative\" is no absolute path");
	setenv("THAW_RUNTIME_DIR", "relative", 1);
	assert_refused(thaw_runtime_place(&err, &place), &err,
		       "$THAW_RUNTIME_DIR: \"relative\" is no absolute path");
	setenv("THAW_STATE_DIR", "", 1); /* as if it were not set */
	unsetenv("THAW_RUNTIME_DIR");
	assert_success(thaw_state_place(&err, &place), &err);
	assert_path(s, place.path, ".local/state/thaw");
	free(place.path);
	free(missing);
}

static void test_not_ours(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	struct thaw_place place;
	_cleanup_(freep) char *other = join_path(s->top, "other");
	_cleanup_(freep) char *own = join_path(s->top, "own");
	char *path = NULL;

	assert_int_equal(mkdir(own, 0700), 0);
	assert_int_equal(mkdir(other, 0700), 0);
	set_below("THAW_STATE_DIR", s, "own");
	set_below("THAW_RUNTIME_DIR", s, "own");
	assert_int_equal(chmod(own, 0770), 0);
	assert_int_equal(thaw_state_place(&err, &place), -EPERM);
	assert_non_null(strstr(err.text, "is not a directory of our own"));
	assert_int_equal(thaw_runtime_place(&err, &place), -EPERM);
	assert_int_equal(chmod(own, 0702), 0);
	assert_int_equal(thaw_state_place(&err, &place), -EPERM);
	assert_int_equal(rmdir(own), 0);
	assert_int_equal(symlink("other", own), 0);
	assert_int_equal(thaw_state_place(&err, &place), -EPERM);
	assert_int_equal(unlink(own), 0);
	/* A kind in it, too. */
	assert_int_equal(mkdir(own, 0700), 0);
	free(path);
	path = join_path(own, "images");
	assert_int_equal(symlink("../other", path), 0);
	free(path);
	path = NULL;
	assert_int_equal(thaw_state_directory("images", NULL, &err, &path), -EPERM);
	assert_null(path);
	if (s->uid == 0) {
		assert_int_equal(seteuid(0), 0);
		assert_int_equal(chown(own, 1234, 1234), 0);
		assert_int_equal(chmod(own, 0777 & ~022), 0);
		assert_int_equal(seteuid(65534), 0);
		assert_int_equal(thaw_state_place(&err, &place), -EPERM);
	}
	set_below("THAW_RUNTIME_DIR", s, "a,b");
	assert_int_equal(thaw_runtime_place(&err, &place), -EPERM);
	assert_non_null(strstr(err.text, "overlayfs needs a path without"));
	/* Others' default places are not walked around either. */
	unsetenv("THAW_STATE_DIR");
	set_below("XDG_STATE_HOME", s, "x");
	path = join_path(s->top, "x");
	assert_int_equal(mkdir(path, 0700), 0);
	free(path);
	path = join_path(s->top, "x/thaw");
	assert_int_equal(symlink(other, path), 0);
	assert_int_equal(thaw_state_place(&err, &place), -EPERM);
	free(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_order),	  TEST(test_kinds),    TEST(test_fallback),
		TEST(test_own_variables), TEST(test_not_ours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
