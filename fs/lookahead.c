/* SPDX-License-Identifier: Apache-2.0 */
/* Listing __pycache__ directories before they are asked for. */
#include "lookahead.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox.h"
#include "serving.h"
#include "session.h"
#include "util/cleanup.h"
#include "warmer.h"

#define BYTECODE "__pycache__"

/*
 * For how long the mount is kept when nothing is listed any more: so much longer
 * the worker may live than the mount.
 */
#define IDLE_MS 500

struct lister {
	const struct thaw_image *image;
	const char *root_path;
	int root; /* clone of the mount; -1 while it is not held */
	int socket;
	char path[PATH_MAX];
	char names[1 << 16]; /* what getdents64() fills and nobody reads */
};

static void list_directory(struct lister *lister, uint32_t ino)
{
	_cleanup_(closep) int fd = -1;

	if (lister->root < 0)
		lister->root = thaw_warmer_clone_mount(lister->root_path);
	if (lister->root < 0)
		return;
	thaw_image_path(lister->image, ino, lister->path, sizeof(lister->path));
	fd = openat(lister->root, lister->path,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	while (fd >= 0 && syscall(SYS_getdents64, fd, lister->names, sizeof(lister->names)) > 0)
		;
}

static void __attribute__((noreturn)) run(struct lister *lister)
{
	struct pollfd hint = { .fd = lister->socket, .events = POLLIN };

	for (;;) {
		uint32_t ino;
		int r = poll(&hint, 1, lister->root >= 0 ? IDLE_MS : -1);

		if (r < 0)
			continue; /* EINTR: nothing else is possible */
		if (r == 0) {
			if (!lister->root_path)
				_exit(0); /* there is no way back to the mount */
			lister->root = safe_close(lister->root);
			continue;
		}
		if (recv(lister->socket, &ino, sizeof(ino), 0) != (ssize_t)sizeof(ino))
			_exit(0); /* the worker has ended */
		list_directory(lister, ino);
	}
}

/* Keep nothing of the worker's, least of all the FUSE descriptor. */
static void become_lister(const struct thaw_lookahead *lookahead, int socket)
{
	struct lister *lister = calloc(1, sizeof(*lister));
	int high_socket = fcntl(socket, F_DUPFD_CLOEXEC, 10);
	int high_root = fcntl(lookahead->root_fd, F_DUPFD_CLOEXEC, 10);
	struct thaw_serving *serving = lookahead->serving;
	int high_index = fcntl(serving->index_fd, F_DUPFD_CLOEXEC, 10); /* -1: there is none */

	if (!lister || high_socket < 0 || high_root < 0 || dup3(high_socket, 3, O_CLOEXEC) < 0 ||
	    dup3(high_root, 4, O_CLOEXEC) < 0)
		_exit(1);
	if (high_index >= 0)
		serving->index_fd = dup3(high_index, 5, O_CLOEXEC);
	if (syscall(SYS_close_range, high_index >= 0 ? 6 : 5, ~0u, 0) < 0)
		_exit(1);
	lister->root_path = lookahead->root_path;
	lister->socket = 3;
	lister->root = 4;
	if (thaw_sandbox_enter(lister->root_path ? THAW_SANDBOX_CLONER : THAW_SANDBOX_LISTER,
			       lister->root) < 0 ||
	    thaw_serving_open(serving, NULL) < 0)
		_exit(1);
	lister->image = serving->image;
	if (lookahead->timeline)
		thaw_timeline_set_warmer(lookahead->timeline, (uint32_t)getpid());
	run(lister);
}

int thaw_lookahead_start(struct thaw_lookahead *lookahead)
{
	int sockets[2];
	pid_t pid;

	lookahead->socket = -1;
	atomic_store(&lookahead->ended, false);
	if (lookahead->root_fd < 0)
		return -EPERM; /* by its path, the mount would be busy at times */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		thaw_session_hold_signals(false); /* it may be ended at any time */
		become_lister(lookahead, sockets[1]);
	}
	(void)safe_close(sockets[1]);
	if (pid < 0) {
		(void)safe_close(sockets[0]);
		return -errno;
	}
	lookahead->socket = sockets[0];
	lookahead->pid = pid;
	lookahead->ended_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return 0;
}

void thaw_lookahead_stop(struct thaw_lookahead *lookahead)
{
	lookahead->socket = safe_close(lookahead->socket);
}

bool thaw_lookahead_reap(struct thaw_lookahead *lookahead)
{
	if (lookahead->pid <= 0)
		return true;
	if (waitpid(lookahead->pid, NULL, WNOHANG) == 0)
		return false;
	lookahead->pid = 0;
	lookahead->ended_fd = safe_close(lookahead->ended_fd);
	return true;
}

void thaw_lookahead_listed(struct thaw_lookahead *lookahead,
			   const struct thaw_inode *directory)
{
	struct thaw_inode inode;

	if (!lookahead || atomic_load_explicit(&lookahead->ended, memory_order_relaxed))
		return;
	if (thaw_image_lookup(lookahead->serving->image, directory->ino, BYTECODE, strlen(BYTECODE),
			      &inode) != 0 ||
	    inode.type != THAW_DIRECTORY)
		return;
	/* When it is busy, so be it: EAGAIN. */
	if (send(lookahead->socket, &inode.ino, sizeof(inode.ino),
		 MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno != EAGAIN)
		atomic_store_explicit(&lookahead->ended, true, memory_order_relaxed);
}
