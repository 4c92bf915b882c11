/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* cmocka with the headers that it wants first, and the checks that it lacks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* A call that must fail with this errno, class and text. */
#define assert_failure(result, err, errno_wanted, exit_wanted, text_wanted) \
	do {                                                                \
		int result_ = (result);                                     \
		assert_int_equal(result_, -(errno_wanted));                 \
		assert_string_equal((err)->text, (text_wanted));            \
		assert_int_equal((err)->exit_code, (exit_wanted));          \
	} while (0)
#define assert_refused(result, err, text) \
	assert_failure(result, err, EPERM, THAW_EXIT_REFUSED, text)
#define assert_damaged(result, err, text) \
	assert_failure(result, err, EBADMSG, THAW_EXIT_DAMAGED, text)
#define assert_limit(result, err, text) assert_failure(result, err, EFBIG, THAW_EXIT_LIMIT, text)

/* A call that must succeed; says why when it does not. */
#define assert_success(result, err)                                 \
	do {                                                        \
		int result_ = (result);                             \
		if (result_ != 0)                                   \
			fail_msg("%d: %s", result_, (err)->text);   \
	} while (0)
