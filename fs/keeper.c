/* SPDX-License-Identifier: Apache-2.0 */
/* Starting what serves a connection as a process of its own. */
#include "keeper.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "util/cleanup.h"
#include "warmer.h"

/* Close what was inherited and is not ours: somebody may wait for a pipe's end. */
static void close_all_but(const int *keep, unsigned count)
{
	unsigned next = 3;

	for (;;) {
		unsigned lowest = ~0u;

		for (unsigned i = 0; i < count; i++)
			if (keep[i] >= (int)next && (unsigned)keep[i] < lowest)
				lowest = (unsigned)keep[i];
		if (lowest > next)
			(void)syscall(SYS_close_range, next, lowest - 1, 0); /* 5.9; else they stay */
		if (lowest == ~0u)
			return;
		next = lowest + 1;
	}
}

/* Told to begin, with the mount to warm; false if the caller is gone. */
static bool wait_for_start(int socket, int *ret_root)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *header;

	*ret_root = -1;
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return false;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(ret_root, CMSG_DATA(header), sizeof(int));
	return true;
}

static void __attribute__((noreturn)) run(struct thaw_serving *serving, int fuse_fd, int socket)
{
	const int keep[] = { fuse_fd, socket, thaw_image_fd(serving->image) };
	int root, r;

	thaw_log_open(false);
	thaw_detach_from_terminal();
	close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
	if (!wait_for_start(socket, &root))
		_exit(0);
	/* The socket stays: who waits for the warmer learns by it when we are gone. */
	/* Its own namespace does not have the mount: warming goes by the descriptor or not at all. */
	if (root < 0)
		thaw_warm_pages_deinit(&serving->warm);
	r = thaw_serving_run(serving, fuse_fd, root, NULL);
	if (r < 0)
		thaw_log(LOG_ERR, "%s: serving failed: %s", serving->name, strerror(-r));
	_exit(0);
}

/* Forked twice: the caller's command must not find a child that it never started. */
int thaw_keeper_start(struct thaw_serving *serving, int fuse_fd, struct thaw_error *err,
		      int *ret_socket)
{
	_cleanup_(closep) int socket = -1;
	int sockets[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return thaw_io(err, -errno, "no worker can be started");
	pid = fork();
	if (pid == 0) {
		(void)close(sockets[0]);
		pid = fork();
		if (pid == 0)
			run(serving, fuse_fd, sockets[1]);
		_exit(pid < 0);
	}
	socket = sockets[0];
	(void)safe_close(sockets[1]);
	if (pid < 0)
		return thaw_io(err, -errno, "no worker can be started");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return thaw_io(err, -errno, "no worker can be started");
	if (status != 0)
		return thaw_io(err, -EAGAIN, "no worker can be started");
	*ret_socket = steal_fd(&socket);
	return 0;
}

int thaw_keeper_begin(struct thaw_serving *serving, int socket, const char *directory,
		      struct thaw_error *err)
{
	_cleanup_(closep) int root = thaw_warmer_clone_mount(directory);
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (root >= 0) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &root, sizeof(int));
	} else if (serving->warm.count) {
		/* Said now: the worker will not start a warmer, so nobody may wait for one. */
		serving->warm.count = 0;
	}
	if (serving->warm.count)
		atomic_store(&serving->counters->warm_state, THAW_WARM_RUNNING);
	if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
		return thaw_io(err, -errno, "the worker has ended");
	return 0;
}
