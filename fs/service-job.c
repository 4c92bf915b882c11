/* SPDX-License-Identifier: Apache-2.0 */
/* Forked children of the node service, and how they talk with it. */
#include "service-internal.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "detached.h"
#include "util/cleanup.h"

int job_send(int socket, const struct job_message *message, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)message, .iov_len = sizeof(*message) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *rights;

		header.msg_control = control;
		header.msg_controllen = sizeof(control);
		rights = CMSG_FIRSTHDR(&header);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &fd, sizeof(int));
	}
	do
		n = sendmsg(socket, &header, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int job_receive(int socket, struct job_message *ret_message, int *ret_fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { .iov_base = ret_message, .iov_len = sizeof(*ret_message) };
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *rights;
	ssize_t n;

	*ret_fd = -1;
	do
		n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	rights = CMSG_FIRSTHDR(&header);
	if (rights && rights->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(rights), sizeof(int));
	return n == (ssize_t)sizeof(*ret_message) ? 0 : -EPIPE;
}

/* -- the child -- */

static pid_t parent_pid; /* 0: this is the service itself */

/*
 * Half of a job must not go on under a service that does not know of it: the next one
 * undoes what it finds.
 */
static void end_with_service(void)
{
	if (parent_pid == 0)
		return;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent_pid)
		_exit(1);
}

static void __attribute__((noreturn))
run_child(struct job *job, int socket, pid_t parent,
	  int (*run)(struct job *job, int socket), const int *keep, unsigned keep_count)
{
	int kept[3 + THAW_LAYERS_MAX] = { socket, job->service->lock_fd };
	sigset_t none;

	parent_pid = parent;
	end_with_service();
	(void)sigemptyset(&none); /* valid arguments: cannot fail */
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	/* A client must see its connection end when the service closes it, whatever jobs are about. */
	for (unsigned i = 0; i < keep_count; i++)
		kept[2 + i] = keep[i];
	thaw_close_all_but(kept, 2 + keep_count);
	_exit(run(job, socket));
}

/*
 * Effective ids: the real ones stay root's, so that the client cannot send signals,
 * and the way back stays open. One thread, so nobody else's change with them.
 */
int job_become(const struct job *job, uid_t uid, gid_t gid, const gid_t *groups,
	       unsigned group_count)
{
	if (geteuid() != 0 || uid == 0)
		return 0;
	if (setgroups(group_count, groups) < 0 || setegid(gid) < 0 || seteuid(uid) < 0)
		return -errno;
	end_with_service(); /* changing ids has cleared it */
	return 0;
}

void job_unbecome(const struct job *job)
{
	if (getuid() != 0)
		return;
	/* With the wrong rights nothing may go on. */
	if (seteuid(0) < 0 || setegid(0) < 0 || setgroups(0, NULL) < 0)
		_exit(1);
	end_with_service(); /* likewise */
}

/* -- the service -- */

struct job *job_new(struct service *service, const char *what,
		    struct connection *connection)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->service = service;
	job->what = what;
	job->connection = connection;
	job->source.fd = -1;
	return job;
}

static void job_ready(struct source *source, uint32_t events)
{
	struct job *job = (struct job *)source;
	struct job_message message;
	int fd, r;

	if (job->ended)
		return;
	r = job_receive(job->source.fd, &message, &fd);
	if (r == -EAGAIN)
		return;
	if (r == 0) {
		job->message(job, &message, &fd);
		(void)safe_close(fd);
		return;
	}
	(void)safe_close(fd);
	job->ended = true;
	source_remove(&job->source);
	job->end(job);
}

int job_start(struct service *service, struct job *job,
	      int (*run)(struct job *job, int socket), const int *keep,
	      unsigned keep_count)
{
	pid_t parent = getpid();
	int sockets[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	job->pid = fork();
	if (job->pid == 0)
		run_child(job, sockets[1], parent, run, keep, keep_count);
	r = job->pid < 0 ? -errno : 0;
	(void)close(sockets[1]);
	if (r == 0)
		r = source_add(service, &job->source, sockets[0], EPOLLIN, job_ready);
	if (r < 0) {
		if (job->pid > 0)
			(void)kill(job->pid,
				   SIGKILL); /* our child: not reaped yet, so it is it */
		(void)close(sockets[0]);
		return r;
	}
	job->next = service->jobs;
	service->jobs = job;
	service->job_count++;
	return 0;
}

void jobs_sweep(struct service *service)
{
	struct job **at = &service->jobs;

	while (*at) {
		struct job *job = *at;

		if (!job->ended) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		service->job_count--;
		(void)safe_close(job->source.fd);
		request_free(job->request);
		free(job);
	}
}
