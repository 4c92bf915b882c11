/* SPDX-License-Identifier: Apache-2.0 */
/* Mount options: passed, ignored, refused, unknown. */
#include "check.h"

#include <unistd.h>

#include "mount-options.h"

#define IDENTITY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define BASE "ro,nosuid,nodev,default_permissions,subtype=thaw,fsname=thaw:sha256:" IDENTITY

static uid_t uid;
uid_t __wrap_getuid(void);
uid_t __wrap_getuid(void)
{
	return uid;
}

static void expect(const char *given, const char *wanted)
{
	char *options = NULL;
	struct thaw_error err;

	assert_success(thaw_mount_options_parse(given, IDENTITY, &err, &options), &err);
	assert_string_equal(options, wanted);
	free(options);
}

static void as_root(void **state)
{
	uid = 0;
	expect(NULL, BASE ",allow_other");
	expect("", BASE ",allow_other");
	expect("noexec", BASE ",allow_other,noexec");
}

static void as_a_user(void **state)
{
	uid = 1000;
	expect(NULL, BASE);
	expect("allow_other", BASE ",allow_other");
}

static void passed(void **state)
{
	uid = 1000;
	expect("noexec,noatime,max_read=4096", BASE ",noexec,noatime,max_read=4096");
	expect("context=system_u:object_r:usr_t:s0", BASE ",context=system_u:object_r:usr_t:s0");
}

static void ignored(void **state)
{
	uid = 1000;
	expect("ro,nosuid,nodev,defaults,auto,noauto,user,nofail,_netdev", BASE);
	expect("x-systemd.automount,X-mount.mkdir,comment=a b c", BASE);
	expect(",,,noexec,,", BASE ",noexec");
}

static void refused(void **state)
{
	static const char *const options[] = { "suid", "dev" };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		char text[100], given[100], *result = NULL;
		struct thaw_error err;

		(void)snprintf(text, sizeof(text),
			       "mount option \"%s\": images are mounted ro,nosuid,nodev", options[i]);
		(void)snprintf(given, sizeof(given), "noexec,%s,noatime", options[i]);
		assert_refused(thaw_mount_options_parse(given, IDENTITY, &err, &result), &err, text);
		assert_null(result);
	}
}

static void unknown(void **state)
{
	/* Among them what would change the source, the type, or is only the beginning of a name. */
	static const char *const options[] = { "fsname=x", "subtype=x", "fd=3",	 "noexe", "noexecs",
					       "max_read", "default_permission", "rwx",	  "bogus" };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		char text[100], *result = NULL;
		struct thaw_error err;

		(void)snprintf(text, sizeof(text), "unknown mount option \"%s\"", options[i]);
		assert_failure(thaw_mount_options_parse(options[i], IDENTITY, &err, &result), &err,
			       EINVAL, THAW_EXIT_USAGE, text);
		assert_null(result);
	}
}

static void long_list(void **state)
{
	size_t size = 100000;
	char *given = malloc(size + 1), *options = NULL;
	struct thaw_error err;

	uid = 0;
	for (size_t i = 0; i + 7 <= size; i += 7)
		memcpy(given + i, "noexec,", 7);
	given[size / 7 * 7] = '\0';
	assert_success(thaw_mount_options_parse(given, IDENTITY, &err, &options), &err);
	assert_int_equal(strlen(options), strlen(BASE ",allow_other") + size / 7 * 7);
	free(options);
	memset(given, 'x', size);
	given[size] = '\0';
	assert_int_equal(thaw_mount_options_parse(given + 3, IDENTITY, &err, &options), -EINVAL);
	free(given);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_root), cmocka_unit_test(as_a_user), cmocka_unit_test(passed),
		cmocka_unit_test(ignored), cmocka_unit_test(refused),	cmocka_unit_test(unknown),
		cmocka_unit_test(long_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
