/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Writing all of a buffer to a descriptor: 0 or -errno. Interrupts do not end it. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

static inline int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The same, and zeros up to a multiple of eight bytes. */
static inline int write_padded(int fd, const void *data, size_t len)
{
	static const uint8_t zeros[8];
	int r = write_all(fd, data, len);

	return r < 0 ? r : write_all(fd, zeros, -len % 8);
}

static inline size_t padded(size_t len)
{
	return (len + 7) / 8 * 8;
}
