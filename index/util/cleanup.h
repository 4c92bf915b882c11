/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Scope-bound cleanup. `_cleanup_(f)` calls f with the variable's address when
 * it goes out of scope; steal_*() gives the value away and leaves an empty one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _unused_ __attribute__((unused))

static inline void freep(void *p)
{
	free(*(void **)p);
}

/* Close and return -1, keeping errno: `fd = safe_close(fd)`. */
static inline int safe_close(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		(void)close(fd); /* nothing that we read depends on it; writers fsync first */
		errno = saved;
	}
	return -1;
}

static inline void closep(int *fd)
{
	*fd = safe_close(*fd);
}

/* For files that were read: closing them loses nothing. */
static inline void closefp(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

static inline int steal_fd(int *fd)
{
	int value = *fd;

	*fd = -1;
	return value;
}

#define steal_ptr(p)                     \
	({                               \
		__typeof__(p) stolen = (p); \
		(p) = NULL;              \
		stolen;                  \
	})
