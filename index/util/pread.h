/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Reading all of a range: 0 or -errno, -EIO when the file ends before it does. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

static inline int pread_all(int fd, void *buf, size_t len, uint64_t offset)
{
	char *p = buf;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}
