/* SPDX-License-Identifier: Apache-2.0 */
/* Filling in a struct thaw_error. */
#include "thaw/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Causes quote names from archives: one line of printable ASCII, whatever they hold. */
static void escape_into(char *to, size_t size, const char *from)
{
	size_t used = 0;

	for (const unsigned char *p = (const unsigned char *)from; *p; p++) {
		bool plain = *p >= 32 && *p < 127;
		size_t need = plain ? 1 : 4;

		if (used + need >= size)
			break;
		if (plain)
			to[used] = (char)*p;
		else
			(void)snprintf(to + used, 5, "\\x%02x", *p); /* fits: checked above */
		used += need;
	}
	to[used] = '\0';
}

_printf_(4, 0)
static void fill(struct thaw_error *err, enum thaw_exit exit_code, int error,
		 const char *format, va_list args)
{
	char text[sizeof(err->text)];
	int n;

	if (!err)
		return;
	n = vsnprintf(text, sizeof(text), format, args);
	if (n < 0)
		text[0] = '\0';
	if (error && n >= 0 && (size_t)n < sizeof(text))
		(void)snprintf(text + n, sizeof(text) - (size_t)n, ": %s", strerror(-error));
	err->exit_code = exit_code;
	escape_into(err->text, sizeof(err->text), text);
}

#define FILL(exit_code, error)                            \
	do {                                              \
		va_list args;                             \
		va_start(args, format);                   \
		fill(err, exit_code, error, format, args); \
		va_end(args);                             \
	} while (0)

int thaw_refused(struct thaw_error *err, const char *format, ...)
{
	FILL(THAW_EXIT_REFUSED, 0);
	return -EPERM;
}

int thaw_damaged(struct thaw_error *err, const char *format, ...)
{
	FILL(THAW_EXIT_DAMAGED, 0);
	return -EBADMSG;
}

int thaw_limit(struct thaw_error *err, const char *format, ...)
{
	FILL(THAW_EXIT_LIMIT, 0);
	return -EFBIG;
}

int thaw_io(struct thaw_error *err, int error, const char *format, ...)
{
	FILL(THAW_EXIT_IO, error);
	return error;
}

int thaw_oom(struct thaw_error *err)
{
	return thaw_io(err, -ENOMEM, "no memory");
}
