/* SPDX-License-Identifier: Apache-2.0 */
/* Which way is chosen when a part is missing that a test cannot take away from the kernel. */
#include "check.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "namespaces.h"
#include "probe-trial.h"
#include "thaw/probe.h"

/* Of this type, mounting fails with this errno. Also in children. */
static const char *lacking;
static int lacking_error;

int __real_mount(const char *source, const char *target, const char *type,
		 unsigned long flags, const void *data);
int __wrap_mount(const char *source, const char *target, const char *type,
		 unsigned long flags, const void *data);
int __wrap_mount(const char *source, const char *target, const char *type,
		 unsigned long flags, const void *data)
{
	if (lacking && type && strncmp(type, lacking, strlen(lacking)) == 0) {
		errno = lacking_error;
		return -1;
	}
	return __real_mount(source, target, type, flags, data);
}

int __real_unshare(int flags);
int __wrap_unshare(int flags);
static int forbidden; /* of unshare's flags */
int __wrap_unshare(int flags)
{
	if (flags & forbidden) {
		errno = EPERM;
		return -1;
	}
	return __real_unshare(flags);
}

struct state {
	char *top;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->top = make_directory();
	setenv("THAW_RUNTIME_DIR", s->top, 1);
	setenv("THAW_STATE_DIR", s->top, 1);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	lacking = NULL;
	forbidden = 0;
	remove_directory(s->top);
	free(s);
	return 0;
}

/* Without that, there is nothing to be taken away. */
static void need_private(void)
{
	struct thaw_way_report report;

	thaw_probe_way(1u << THAW_WAY_PRIVATE, &report);
	if (report.way != THAW_WAY_PRIVATE)
		skip();
}

static void assert_why_not(const char *why)
{
	struct thaw_way_report report;

	thaw_probe_way(THAW_WAYS_ALL, &report);
	assert_int_equal(report.way, THAW_WAY_EXTRACTED);
	assert_string_equal(report.why_not[THAW_WAY_PRIVATE], why);
	assert_string_not_equal(report.why_not[THAW_WAY_SHARED], "");
	assert_string_equal(report.why_not[THAW_WAY_EXTRACTED], "");
	/* Who cannot use a plain tree has none. */
	thaw_probe_way(1u << THAW_WAY_SHARED | 1u << THAW_WAY_PRIVATE, &report);
	assert_int_equal(report.way, THAW_WAY_NONE);
}

static void test_missing_parts(void **state)
{
	need_private();
	lacking = "overlay";
	lacking_error = ENODEV;
	assert_why_not("overlayfs cannot be mounted: No such device");
	lacking = "fuse";
	assert_why_not("FUSE cannot be mounted: No such device");
	lacking = "tmpfs";
	lacking_error = EPERM;
	assert_why_not("no tmpfs can be mounted: Operation not permitted");
	lacking = NULL;
	forbidden = CLONE_NEWNS;
	assert_why_not("no mount namespace can be made: Operation not permitted");
}

/* What mounting in a user namespace lacks, who may mount need not care. */
static void test_user_namespaces(void **state)
{
	struct thaw_way_report report;

	need_private();
	forbidden = CLONE_NEWUSER;
	if (!thaw_may_mount()) {
		assert_why_not("no user namespace can be made: Operation not permitted");
		return;
	}
	thaw_probe_way(THAW_WAYS_ALL, &report);
	assert_int_equal(report.way, THAW_WAY_SHARED);
	thaw_probe_way(1u << THAW_WAY_PRIVATE, &report);
	assert_int_equal(report.way, THAW_WAY_PRIVATE);
}

static void test_only_what_is_asked_for_is_tried(void **state)
{
	struct thaw_way_report report;

	forbidden = CLONE_NEWUSER | CLONE_NEWNS;
	thaw_probe_way(1u << THAW_WAY_EXTRACTED, &report);
	assert_int_equal(report.way, THAW_WAY_EXTRACTED);
	assert_string_equal(report.why_not[THAW_WAY_PRIVATE], "");
	thaw_probe_way(0, &report);
	assert_int_equal(report.way, THAW_WAY_NONE);
	setenv("THAW_STATE_DIR", "relative", 1);
	thaw_probe_way(1u << THAW_WAY_EXTRACTED, &report);
	assert_int_equal(report.way, THAW_WAY_NONE);
	assert_string_equal(report.why_not[THAW_WAY_EXTRACTED],
			    "$THAW_STATE_DIR: \"relative\" is no absolute path");
}

static const struct thaw_finding *find(const struct thaw_probe *probe, const char *what)
{
	for (size_t i = 0; i < probe->count; i++)
		if (strcmp(probe->findings[i].what, what) == 0)
			return &probe->findings[i];
	return NULL;
}

static void test_findings(void **state)
{
	struct thaw_probe *probe = calloc(1, sizeof(*probe));

	need_private();
	lacking = "overlay";
	lacking_error = ENODEV;
	thaw_probe(probe);
	assert_non_null(find(probe, "overlay"));
	assert_int_equal(find(probe, "overlay")->state, THAW_FINDING_MISSING);
	assert_string_not_equal(find(probe, "overlay")->remedy, "");
	lacking = NULL;
	thaw_probe(probe);
	assert_int_equal(find(probe, "overlay")->state, THAW_FINDING_OK);
	assert_true(probe->count > 10 && probe->count < THAW_FINDINGS_MAX - 10);
	free(probe);
}

/* No child, no mount is left. */
static void test_leaves_nothing(void **state)
{
	struct thaw_way_report report;

	thaw_probe_way(THAW_WAYS_ALL, &report);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_missing_parts),
		TEST(test_user_namespaces),
		TEST(test_only_what_is_asked_for_is_tried),
		TEST(test_findings),
		TEST(test_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
