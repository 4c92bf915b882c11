/* SPDX-License-Identifier: Apache-2.0 */
/* Confined children: what they may do, and what is believed of what they say. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confined-child.h"
#include "util/cleanup.h"

static struct thaw_confined_child child_of(int (*work)(void *userdata, struct thaw_error *err),
					   void *userdata)
{
	return (struct thaw_confined_child){
		.kind = THAW_SANDBOX_WORKER,
		.place = -1,
		.seconds = 60,
		.what = "tests",
		.work = work,
		.userdata = userdata,
	};
}

/* -- what it says -- */

static int return_number(void *userdata, struct thaw_error *err)
{
	strcpy(err->text, "one\nline\x1b[31m");
	err->exit_code = 77;
	return *(int *)userdata;
}

static void results(void **state)
{
	struct thaw_error err = { 0 };
	int number = 0;
	const struct thaw_confined_child child = child_of(return_number, &number);

	assert_int_equal(thaw_confined_child(&child, &err), 0);
	number = THAW_NOT_FOUND;
	assert_int_equal(thaw_confined_child(&child, &err), THAW_NOT_FOUND);
	/* Its words are one line of plain text, of a class that there is. */
	number = -EBADMSG;
	assert_failure(thaw_confined_child(&child, &err), &err, EBADMSG, THAW_EXIT_IO,
		       "one\\x0aline\\x1b[31m");
	for (int i = 0; i < 2; i++) {
		number = i ? 2 : -4096;
		assert_failure(thaw_confined_child(&child, &err), &err, EIO, THAW_EXIT_IO,
			       "a confined process said what cannot be");
	}
}

static int end_badly(void *userdata, struct thaw_error *err)
{
	switch (*(int *)userdata) {
	case 0:
		(void)raise(SIGKILL);
		return 0;
	case 1:
		_exit(3);
	default:
		for (;;)
			(void)poll(NULL, 0, 1000);
	}
}

static void ends(void **state)
{
	static const char *const texts[] = {
		"the process that tests was killed by signal 9",
		"the process that tests ended with exit code 3",
		"the process that tests: Connection timed out",
	};
	static const int errors[] = { EIO, EIO, ETIMEDOUT };
	struct thaw_error err = { 0 };
	int number;
	struct thaw_confined_child child = child_of(end_badly, &number);

	for (number = 0; number < 3; number++) {
		child.seconds = number == 2 ? 1 : 60;
		assert_failure(thaw_confined_child(&child, &err), &err, errors[number], THAW_EXIT_IO,
			       texts[number]);
	}
	/* None is left, not even as a zombie. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* -- what it may do -- */

struct tried {
	int fd; /* of a file */
	bool reads, opens, makes_sockets, forks, leaves, writes, links, is_nobody;
};

static int try_all(void *userdata, struct thaw_error *err)
{
	struct tried *tried = userdata;
	char byte;
	int fd;
	pid_t pid;

	tried->reads = pread(tried->fd, &byte, 1, 0) == 1;
	fd = open("/etc/passwd", O_RDONLY);
	tried->opens = fd >= 0;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	tried->makes_sockets = fd >= 0;
	pid = fork();
	if (pid == 0)
		_exit(0);
	tried->forks = pid > 0;
	fd = openat(AT_FDCWD, "new", O_WRONLY | O_CREAT | O_EXCL, 0600);
	tried->writes = fd >= 0;
	tried->links = linkat(AT_FDCWD, "new", AT_FDCWD, "sub/link", 0) == 0;
	tried->leaves = openat(AT_FDCWD, "../outside", O_RDONLY) >= 0;
	tried->is_nobody = getuid() == 65534 && setuid(0) < 0;
	return 0;
}

static struct tried try(enum thaw_sandbox kind, int place, bool root, int fd)
{
	struct tried *tried = thaw_shared_memory(sizeof(*tried)), result;
	struct thaw_confined_child child = child_of(try_all, tried);
	struct thaw_error err = { 0 };
	int r;

	assert_non_null(tried);
	tried->fd = fd;
	child.kind = kind;
	child.place = place;
	child.root = root;
	child.keep = &fd;
	child.keep_count = 1;
	r = thaw_confined_child(&child, &err);
	if (r == -EIO && strstr(err.text, "killed by signal 31"))
		skip(); /* built to kill who tries */
	assert_success(r, &err);
	result = *tried;
	assert_int_equal(munmap(tried, sizeof(*tried)), 0);
	return result;
}

static void decoder(void **state)
{
	_cleanup_(closep) int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct tried tried = try(THAW_SANDBOX_WORKER, -1, false, fd);

	assert_true(tried.reads);
	assert_false(tried.opens || tried.writes || tried.links);
#ifndef __SANITIZE_ADDRESS__
	assert_false(tried.makes_sockets || tried.forks);
#endif
}

static void renderer(void **state)
{
	char base[] = "/tmp/thaw-test-XXXXXX", path[64];
	_cleanup_(closep) int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	_cleanup_(closep) int place = -1;
	_cleanup_(closep) int outside = -1;
	struct tried tried;

	if (geteuid() != 0)
		skip(); /* only root's service renders by one */
	assert_non_null(mkdtemp(base));
	(void)snprintf(path, sizeof(path), "%s/outside", base);
	outside = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	(void)snprintf(path, sizeof(path), "%s/place", base);
	assert_int_equal(mkdir(path, 0700), 0);
	place = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(place, "sub", 0700), 0);
	tried = try(THAW_SANDBOX_RENDERER, place, true, fd);
	assert_true(tried.reads && tried.writes && tried.links);
	assert_false(tried.opens || tried.leaves);
#ifndef __SANITIZE_ADDRESS__
	assert_false(tried.makes_sockets || tried.forks);
#endif
	assert_int_equal(unlinkat(place, "sub/link", 0), 0);
	assert_int_equal(unlinkat(place, "sub", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(place, "new", 0), 0);
	assert_int_equal(rmdir(path), 0);
	(void)snprintf(path, sizeof(path), "%s/outside", base);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(base), 0);
}

static void finder(void **state)
{
	_cleanup_(closep) int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct tried tried = try(THAW_SANDBOX_FINDER, -1, false, fd);

	assert_true(tried.reads && tried.opens && tried.forks);
	assert_false(tried.writes);
	assert_true(geteuid() != 0 || tried.is_nobody);
#ifndef __SANITIZE_ADDRESS__
	assert_false(tried.makes_sockets);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results), cmocka_unit_test(ends),   cmocka_unit_test(decoder),
		cmocka_unit_test(renderer), cmocka_unit_test(finder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
