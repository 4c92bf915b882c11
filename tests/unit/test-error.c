/* SPDX-License-Identifier: Apache-2.0 */
/* Error texts: classes, escaping, cutting. */
#include "check.h"

static void classes(void **state)
{
	struct thaw_error err;

	assert_failure(thaw_refused(&err, "no %d", 1), &err, EPERM, THAW_EXIT_REFUSED, "no 1");
	assert_failure(thaw_damaged(&err, "bad"), &err, EBADMSG, THAW_EXIT_DAMAGED, "bad");
	assert_failure(thaw_limit(&err, "much"), &err, EFBIG, THAW_EXIT_LIMIT, "much");
	assert_failure(thaw_io(&err, -ENOSPC, "%s", "out"), &err, ENOSPC, THAW_EXIT_IO,
		       "out: No space left on device");
	assert_failure(thaw_oom(&err), &err, ENOMEM, THAW_EXIT_IO,
		       "no memory: Cannot allocate memory");
}

static void no_words_for_errno_zero(void **state)
{
	struct thaw_error err;

	assert_int_equal(thaw_io(&err, 0, "plain"), 0);
	assert_string_equal(err.text, "plain");
}

static void null_is_allowed(void **state)
{
	assert_int_equal(thaw_refused(NULL, "x"), -EPERM);
	assert_int_equal(thaw_damaged(NULL, "x"), -EBADMSG);
	assert_int_equal(thaw_limit(NULL, "x"), -EFBIG);
	assert_int_equal(thaw_io(NULL, -EIO, "x"), -EIO);
	assert_int_equal(thaw_oom(NULL), -ENOMEM);
}

/* Every byte but NUL, alone: printable ones stay, all others become four characters. */
static void every_byte(void **state)
{
	for (unsigned byte = 1; byte < 256; byte++) {
		char text[2] = { (char)byte, '\0' }, wanted[5] = { (char)byte, '\0' };
		struct thaw_error err;

		if (byte < 32 || byte > 126)
			(void)snprintf(wanted, sizeof(wanted), "\\x%02x", byte);
		assert_damaged(thaw_damaged(&err, "%s", text), &err, wanted);
	}
}

static void one_line(void **state)
{
	struct thaw_error err;

	assert_refused(thaw_refused(&err, "\"%s\"", "a\nthaw: all is well\x1b[2J\r"), &err,
		       "\"a\\x0athaw: all is well\\x1b[2J\\x0d\"");
}

static void cut(void **state)
{
	char long_text[2000];
	struct thaw_error err;

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	(void)thaw_damaged(&err, "%s", long_text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	/* An errno's words that do not fit are left out, too. */
	(void)thaw_io(&err, -EIO, "%s", long_text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

/* An escape is never cut in the middle, wherever the end falls. */
static void cut_at_escape(void **state)
{
	for (size_t lead = sizeof(((struct thaw_error *)0)->text) - 12;
	     lead < sizeof(((struct thaw_error *)0)->text); lead++) {
		char text[600];
		struct thaw_error err;
		size_t len;

		memset(text, 'x', sizeof(text));
		memcpy(text + lead, "\x01\x02\x03", 4);
		(void)thaw_damaged(&err, "%s", text);
		len = strlen(err.text);
		assert_true(len < sizeof(err.text));
		assert_true(len >= lead || len == sizeof(err.text) - 1);
		assert_int_equal((len - (len < lead ? len : lead)) % 4, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classes),
		cmocka_unit_test(no_words_for_errno_zero),
		cmocka_unit_test(null_is_allowed),
		cmocka_unit_test(every_byte),
		cmocka_unit_test(one_line),
		cmocka_unit_test(cut),
		cmocka_unit_test(cut_at_escape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
