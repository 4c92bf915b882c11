/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue where its files are not ours, cannot be written, or find no room: it is
 * never in the way, and nothing is lost.
 */
#include "catalogue-tests.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* -- files that are not ours, or no files -- */

static void test_foreign_files_are_dropped(void **state)
{
	struct state *s = *state;
	char *file = in_directory(s, "leases.mdb"),
	     *elsewhere = in_directory(s, "elsewhere");
	struct stat st;

	/* Open to others: who knows who wrote it. */
	open_it(s);
	put_lease(s, "a", 1);
	close_it(s);
	assert_int_equal(chmod(file, 0640), 0);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_REBUILT, false);
	assert_int_equal(lease_number(s, "a"), -1);
	put_lease(s, "a", 2);
	close_it(s);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	/* A link, whose target must stay as it is. */
	assert_int_equal(rename(file, elsewhere), 0);
	assert_int_equal(symlink("elsewhere", file), 0);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_REBUILT, false);
	assert_int_equal(lease_number(s, "a"), -1);
	close_it(s);
	assert_int_equal(lstat(file, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(stat(elsewhere, &st), 0);

	/* A second name of it. */
	assert_int_equal(unlink(elsewhere), 0);
	assert_int_equal(link(file, elsewhere), 0);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_REBUILT, false);
	close_it(s);

	if (geteuid() == 0) {
		assert_int_equal(chown(file, 1234, 1234), 0);
		open_it(s);
		assert_report(&s->leases, THAW_CATALOGUE_REBUILT, false);
		close_it(s);
	}
	/* A directory cannot be had out of the way. */
	assert_int_equal(unlink(file), 0);
	assert_int_equal(mkdir(file, 0700), 0);
	open_it(s);
	assert_true(s->leases.in_memory);
	assert_string_not_equal(s->leases.why, "");
	put_lease(s, "a", 3);
	assert_int_equal(lease_number(s, "a"), 3);
	free(file);
	free(elsewhere);
}

static void test_odd_locks(void **state)
{
	struct state *s = *state;
	char *lock = in_directory(s, "leases.lock");

	assert_int_equal(symlink("/dev/null", lock), 0);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_CREATED, false);
	close_it(s);
	assert_int_equal(unlink(lock), 0);
	assert_int_equal(mkdir(lock, 0700), 0);
	open_it(s);
	assert_true(s->leases.in_memory);
	free(lock);
}

static void become_ordinary(void)
{
	if (geteuid() == 0 && (setegid(65534) < 0 || seteuid(65534) < 0))
		abort();
}

static void test_missing_and_read_only_directory(void **state)
{
	struct state *s = *state;
	char *missing = in_directory(s, "missing");
	struct thaw_error err = { 0 };

	assert_success(open_in(s, missing, &err), &err);
	assert_true(s->leases.in_memory && s->images.in_memory);
	assert_string_equal(
		s->images.why,
		"its directory cannot be written to: No such file or directory");
	close_it(s);
	free(missing);

	if (geteuid() == 0)
		assert_int_equal(chown(s->directory, 65534, 65534), 0);
	become_ordinary();
	open_it(s);
	put_lease(s, "a", 1);
	close_it(s);
	assert_int_equal(chmod(s->directory, 0500), 0);
	/* The lock is there already; but nothing new can be made. */
	open_it(s);
	assert_int_equal(lease_number(s, "a"), 1);
	close_it(s);
	assert_int_equal(chmod(s->directory, 0700), 0);
	if (getuid() == 0) {
		assert_int_equal(seteuid(0), 0);
		assert_int_equal(setegid(0), 0);
		assert_int_equal(chown(s->directory, 0, 0), 0);
	}
}

/* What is there can be read on a read-only file system, and what is put then is not kept. */
static void read_only(struct state *s)
{
	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount(s->directory, s->directory, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, s->directory, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
		_exit(77);
	open_it(s);
	if (!s->leases.in_memory || s->leases.state != THAW_CATALOGUE_OK ||
	    s->leases.kept != 1 ||
	    strcmp(s->leases.why,
		   "its directory cannot be written to: Read-only file system") != 0)
		_exit(1);
	if (lease_number(s, "a") != 1)
		_exit(2);
	put_lease(s, "b", 2);
	if (lease_number(s, "b") != 2)
		_exit(3);
	close_it(s);
}

/* A file system of 64 KiB. */
static void no_space(struct state *s)
{
	struct thaw_error err = { 0 };
	char *text = calloc(1, 4001), id[16];
	json_t *lease;
	int put = 0, r, fd;

	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount("none", s->directory, "tmpfs", 0, "size=128k,mode=0700") < 0)
		_exit(77);
	memset(text, 'x', 4000);
	lease = json_pack("{s:s,s:s}", "session", "", "text", text);
	open_it(s);
	for (;; put++) {
		(void)snprintf(id, sizeof(id), "%d", put);
		(void)json_object_set_new(lease, "session", json_string(id));
		r = thaw_catalogue_put_lease(s->catalogue, id, lease, &err);
		if (r < 0)
			break;
	}
	if (r != -ENOSPC || !strstr(err.text, "No space") || put < 3)
		_exit(1);
	/* Also now: what was put is there, and is after closing; others go on being put. */
	if ((int)count_leases(s) != put)
		_exit(2);
	if (thaw_catalogue_remove_lease(s->catalogue, "1", &err) == 0)
		put--;
	close_it(s);
	open_it(s);
	if (s->leases.state != THAW_CATALOGUE_OK || (int)count_leases(s) != put)
		_exit(3);
	close_it(s);
	/* Nor is it lost when it has to be read by a child, and the copy has no room. */
	fd = open(s->directory, O_RDONLY | O_DIRECTORY);
	if (unlinkat(fd, "leases.clean", 0) < 0)
		_exit(4); /* closing made no space for it, and needed none */
	for (unsigned round = 0; round < 2; round++) {
		open_it(s);
		if (s->leases.state != THAW_CATALOGUE_OK || !s->leases.in_memory ||
		    !strstr(s->leases.why, "No space") || (int)count_leases(s) != put)
			_exit(5);
		close_it(s);
	}
	close(fd);
	json_decref(lease);
	free(text);
}

static void run_or_skip(struct state *s, void (*work)(struct state *))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		work(s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void test_read_only_file_system(void **state)
{
	struct state *s = *state;

	open_it(s);
	put_lease(s, "a", 1);
	close_it(s);
	run_or_skip(s, read_only);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	assert_int_equal(count_leases(s), 1);
}

static void test_no_space(void **state)
{
	run_or_skip(*state, no_space);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_foreign_files_are_dropped),
		TEST(test_odd_locks),
		TEST(test_missing_and_read_only_directory),
		TEST(test_read_only_file_system),
		TEST(test_no_space),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
