/* SPDX-License-Identifier: Apache-2.0 */
/* Detached processes. */
#include "detached.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/cleanup.h"

/* Forked twice: the caller's command must not find a child that it never started. */
int thaw_fork_detached(void (*work)(void *userdata), void *userdata, int callers)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		(void)safe_close(callers);
		pid = fork();
		if (pid == 0)
			work(userdata);
		_exit(pid < 0);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status == 0 ? 0 : -EAGAIN;
}

void thaw_close_all_but(const int *keep, unsigned count)
{
	unsigned next = 3;

	for (;;) {
		unsigned lowest = ~0u;

		for (unsigned i = 0; i < count; i++)
			if (keep[i] >= (int)next && (unsigned)keep[i] < lowest)
				lowest = (unsigned)keep[i];
		if (lowest > next)
			(void)syscall(SYS_close_range, next, lowest - 1,
				      0); /* 5.9; else they stay */
		if (lowest == ~0u)
			return;
		next = lowest + 1;
	}
}

int thaw_socket_pair(int ret_sockets[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_sockets) < 0
		       ? -errno
		       : 0;
}

union control {
	struct cmsghdr header; /* for its alignment */
	char buf[CMSG_SPACE(sizeof(int) * THAW_FDS_MAX)];
};

int thaw_send_fds(int socket, const void *data, size_t len, const int *fds,
		  unsigned count)
{
	union control control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count > THAW_FDS_MAX)
		return -E2BIG;
	if (count) {
		struct cmsghdr *header;

		message.msg_control = control.buf;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int take_fds(struct msghdr *message, int *ret_fds, unsigned max)
{
	const struct cmsghdr *header = CMSG_FIRSTHDR(message);
	unsigned count = 0;

	if (!header || header->cmsg_level != SOL_SOCKET ||
	    header->cmsg_type != SCM_RIGHTS)
		return 0;
	for (size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
		if (count < max)
			ret_fds[count++] = fd;
		else
			(void)safe_close(fd);
	}
	return (int)count;
}

int thaw_receive_fds(int socket, void *data, size_t len, int *ret_fds, unsigned max)
{
	union control control;
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;
	int count;

	do
		n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	count = take_fds(&message, ret_fds, max);
	if (n == (ssize_t)len)
		return count;
	for (int i = 0; i < count; i++)
		(void)safe_close(ret_fds[i]);
	return n == 0 ? -ENOTCONN : -EBADMSG;
}
