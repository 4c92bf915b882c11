/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that came from clients: closed and looked at without waiting. */
#include "strangers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/cleanup.h"

/* How long another process may take to begin closing. */
#define BEGIN_TIMEOUT_MS 1000

static int look(int fd, struct statx *stx)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, stx) <
			       0
		       ? -errno
		       : 0;
}

/* A file on a disk of this machine does not; of all else nothing is known. */
bool stranger_may_wait(int fd)
{
	struct statx stx;

	return look(fd, &stx) < 0 || !S_ISREG(stx.stx_mode) || stx.stx_dev_major == 0;
}

void stranger_close(int fd)
{
	pid_t pid;

	if (fd < 0)
		return;
	if (!stranger_may_wait(fd)) {
		(void)safe_close(fd);
		return;
	}
	/*
	 * By a process with the same table of descriptors: the entry is gone as soon as it
	 * has begun, and no job that is forked afterwards has it to close.
	 */
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		(void)close(fd);
		_exit(0);
	}
	if (pid < 0) {
		(void)safe_close(fd); /* rather wait than keep it */
		return;
	}
	for (int waited = 0; waited < BEGIN_TIMEOUT_MS && fcntl(fd, F_GETFD) >= 0;
	     waited++)
		(void)poll(NULL, 0, 1); /* ms */
}

int stranger_stat(int fd, struct stat *st)
{
	struct statx stx;
	int r;

	if (!stranger_may_wait(fd))
		return fstat(fd, st) < 0 ? -errno : 0;
	r = look(fd, &stx);
	if (r < 0)
		return r;
	memset(st, 0, sizeof(*st));
	st->st_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	st->st_ino = stx.stx_ino;
	st->st_mode = stx.stx_mode;
	st->st_size = (off_t)stx.stx_size;
	st->st_mtim.tv_sec = stx.stx_mtime.tv_sec;
	st->st_mtim.tv_nsec = stx.stx_mtime.tv_nsec;
	return 0;
}
