/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Errors: how functions report them, and how they reach the user.
 *
 * Every function that can fail returns int: 0 for success, a negative errno for
 * failure, which callers pass up unchanged. A positive value is a named
 * condition that the function's comment documents (THAW_NOT_FOUND); its direct
 * caller handles it and never passes it up.
 *
 * Functions whose failure needs words take a `struct thaw_error *` too. Whoever
 * finds the fault fills it in once, with a cause that makes sense without the
 * program's name and without the file's: the command prints both in front
 * ("thaw: FILE: CAUSE"). Nothing below tools/ prints, exits or aborts because
 * of input.
 */
#include <stdint.h>

#define THAW_NOT_FOUND 1 /* no such name; not a failure */

#define _must_check_ __attribute__((warn_unused_result))
#define _printf_(a, b) __attribute__((format(printf, a, b)))

/* Exit codes of every thaw command, and with them the classes of failure. */
enum thaw_exit {
	THAW_EXIT_OK = 0,
	THAW_EXIT_DIFFERENT = 1, /* thaw diff only, as with diff(1) */
	THAW_EXIT_USAGE = 2,
	THAW_EXIT_REFUSED = 3, /* refused by policy */
	THAW_EXIT_DAMAGED = 4, /* malformed or damaged */
	THAW_EXIT_LIMIT = 5,   /* limit exceeded */
	THAW_EXIT_IO = 6,      /* I/O error or no space */
};

struct thaw_error {
	enum thaw_exit exit_code;
	char text[512]; /* one line; bytes that are not printable are escaped */
};

/*
 * Fill in err (which may be NULL) and return the errno of the class, so that
 * `return thaw_damaged(err, "...")` works. The text is cut at the buffer's end,
 * and bytes below 32 and above 126 appear as \xNN: names come from archives.
 */
int thaw_refused(struct thaw_error *err, const char *format, ...) _printf_(2, 3); /* -EPERM */
int thaw_damaged(struct thaw_error *err, const char *format, ...)
	_printf_(2, 3); /* -EBADMSG */
int thaw_limit(struct thaw_error *err, const char *format, ...) _printf_(2, 3); /* -EFBIG */
/* error is a negative errno; ": " and its description are added to the text. */
int thaw_io(struct thaw_error *err, int error, const char *format, ...) _printf_(3, 4);

/* Out of memory: -ENOMEM, class I/O. */
int thaw_oom(struct thaw_error *err);
