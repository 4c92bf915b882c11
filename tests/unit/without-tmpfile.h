/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* File systems without O_TMPFILE, for one test program that is linked with --wrap=openat64. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

/* What the file system says to O_TMPFILE; 0: what it really says. */
static int tmpfile_error;

int __real_openat64(int directory, const char *path, int flags, ...);
int __wrap_openat64(int directory, const char *path, int flags, ...);
int __wrap_openat64(int directory, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (tmpfile_error && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = tmpfile_error;
		return -1;
	}
	return __real_openat64(directory, path, flags, mode);
}
