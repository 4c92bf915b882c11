/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Descriptors that came from clients. What they lead to may be a file system that does
 * not answer: FUSE asks its server even when a file is closed, and waits, whatever signals
 * come. The service has one process for all, so it does neither by itself.
 */
#include <stdbool.h>
#include <sys/stat.h>

bool stranger_may_wait(int fd);
/* Does not wait. The caller's has no such number when this returns. */
void stranger_close(int fd);
static inline void stranger_closep(int *fd)
{
	stranger_close(*fd);
}
/* fstat(2), as far as it is known without asking: as of when the file was opened. */
int stranger_stat(int fd, struct stat *st);
