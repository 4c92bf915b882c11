/* SPDX-License-Identifier: Apache-2.0 */
/* Becoming a keeper, and starting one as a process of its own. */
#include "keeper-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "detached.h"
#include "log.h"
#include "mountinfo.h"
#include "session.h"
#include "thaw/mount.h"
#include "util/cleanup.h"

/* How long a request may take that no disk is to blame for. */
#define HANG_MS 30000u

static void set_text(char *to, size_t size, const char *text)
{
	(void)snprintf(to, size, "%s", text ? text : ""); /* what is cut is for the log */
}

void thaw_keeper_program(char *path, size_t size)
{
	static const char gone[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", path, size - 1);
	size_t len = n > 0 ? (size_t)n : 0;

	path[len] = '\0';
	/* The kernel says so behind the name; a file may be called that, too. */
	if (len >= sizeof(gone) && strcmp(path + len - (sizeof(gone) - 1), gone) == 0 &&
	    access(path, F_OK) < 0)
		path[len - (sizeof(gone) - 1)] = '\0';
}

/* What a successor must know. */
static void fill_plan(struct keeper *keeper, const struct thaw_keeper *given)
{
	const struct thaw_serving *serving = keeper->serving;
	struct thaw_plan *plan = keeper->state->plan;

	memcpy(plan->identity, serving->identity, sizeof(plan->identity));
	set_text(plan->name, sizeof(plan->name), serving->name);
	set_text(plan->directory, sizeof(plan->directory), given->directory);
	set_text(plan->device, sizeof(plan->device), given->device);
	plan->threads = serving->threads;
	plan->cache_bytes = serving->cache_bytes;
	plan->hang_ms = (uint32_t)keeper->hang_ms;
	plan->uid = serving->uid;
	plan->gid = serving->gid;
	plan->foreground = given->foreground;
	plan->keeper_began = thaw_process_began(getpid());
	plan->keeper = getpid();
	atomic_store(&keeper->state->common->keeper, (uint32_t)getpid());
	thaw_keeper_program(plan->program, sizeof(plan->program));
}

int thaw_keeper_init(struct keeper *keeper, const struct thaw_keeper *given)
{
	struct thaw_serving *serving = given->serving;

	*keeper = (struct keeper){
		.serving = serving,
		.state = serving->state,
		.fuse_fd = given->fuse_fd,
		.foreground = given->foreground,
		.caller_fd = -1,
		.signals = -1,
		.worker_fd = -1,
		.hang_ms = serving->hang_ms ? serving->hang_ms : HANG_MS,
		.warmer = {
			.serving = serving,
			.counters = serving->counters,
			.timeline = serving->timeline,
			.fuse_fd = given->fuse_fd,
			.root_fd = given->root_fd,
			.root_path = given->root_path,
			.ended_fd = -1,
		},
		.lookahead = {
			.serving = serving,
			.timeline = serving->timeline,
			.root_fd = given->root_fd,
			.root_path = given->root_path,
			.socket = -1,
			.ended_fd = -1,
		},
	};
	keeper->seen = calloc(keeper->state->slots, sizeof(*keeper->seen));
	/* Now, since it is wanted when nothing else can be had. */
	keeper->buffer = malloc(THAW_REQUEST_MAX);
	if (!keeper->seen || !keeper->buffer || pipe2(keeper->life, O_CLOEXEC) < 0) {
		free(keeper->seen);
		free(keeper->buffer);
		return -ENOMEM;
	}
	fill_plan(keeper, given);
	return 0;
}

void thaw_keeper_start_warmer(struct keeper *keeper)
{
	int r = thaw_warmer_start(&keeper->warmer);

	if (r < 0)
		thaw_log(LOG_WARNING, "%s: not warmed: %s", keeper->serving->name, strerror(-r));
	keeper->state->plan->pusher = keeper->warmer.pid;
	keeper->caller_fd = -1;
	keeper->warmer.root_fd = safe_close(keeper->warmer.root_fd); /* the lister's */
}

static void start_helpers(struct keeper *keeper, int caller_fd)
{
	struct thaw_serving *serving = keeper->serving;

	if (serving->warm_sets) {
		struct thaw_counters *counters = serving->counters;

		atomic_store(&counters->warm_source,
			     serving->learned ? THAW_SOURCE_LEARNED : THAW_SOURCE_IMAGE);
		/* Now: nobody is to find that none is under way. */
		atomic_store(&counters->warm_state, THAW_WARM_RUNNING);
		thaw_keeper_start_worker(keeper);
		keeper->caller_fd = caller_fd;
		if (caller_fd < 0)
			thaw_keeper_start_warmer(keeper);
		return;
	}
	/* A trace is to name what the workload lists. Before the worker, which inherits from it. */
	if (!serving->trace && thaw_lookahead_start(&keeper->lookahead) == 0)
		serving->lookahead = &keeper->lookahead;
	keeper->state->plan->scout = keeper->lookahead.pid;
	thaw_keeper_start_worker(keeper);
	keeper->warmer.root_fd = safe_close(keeper->warmer.root_fd); /* the scout's */
}

int thaw_keeper_run(struct thaw_keeper *given)
{
	struct keeper keeper;
	int r;

	r = thaw_keeper_init(&keeper, given);
	if (r == 0) {
		(void)signal(SIGCHLD, SIG_DFL); /* a valid signal: cannot fail */
		start_helpers(&keeper, given->caller_fd);
		return thaw_keeper_loop(&keeper);
	}
	(void)safe_close(given->root_fd);
	(void)safe_close(given->fuse_fd);
	return r;
}

void thaw_keeper_unmount(const char *directory, const char *device)
{
	struct thaw_mountpoint now;

	if (thaw_mountinfo_find(directory, NULL, &now) == 0 && strcmp(now.device, device) == 0)
		(void)!thaw_umount(directory, true, NULL); /* nobody is left to be told */
}

/* -- telling -- */

int thaw_keeper_tell(int fd, int result, const struct thaw_error *err)
{
	struct keeper_outcome outcome = { .result = result, .pid = getpid() };

	if (err)
		outcome.err = *err;
	/* Smaller than PIPE_BUF: written whole or not at all. */
	return write(fd, &outcome, sizeof(outcome)) == (ssize_t)sizeof(outcome) ? 0 : -EPIPE;
}

int thaw_keeper_hear(int fd, struct keeper_outcome *ret_outcome)
{
	ssize_t n;

	do
		n = read(fd, ret_outcome, sizeof(*ret_outcome));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(*ret_outcome) ? 0 : -EPIPE;
}

/* -- a keeper of its own -- */

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
	const int keep[] = { fuse_fd, socket, serving->image_fd, serving->state->fd };
	struct thaw_keeper keeper = { .serving = serving, .fuse_fd = fuse_fd, .caller_fd = -1 };
	int r;

	thaw_session_hold_signals(true);
	thaw_detach_from_terminal();
	thaw_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
	thaw_log_open(false);
	if (!wait_for_start(socket, &keeper.root_fd))
		_exit(0);
	/* The socket stays: who waits for the warmer learns by it when we are gone. */
	/* Its own namespace does not have the mount: warming goes by the descriptor or not at all. */
	if (keeper.root_fd < 0)
		serving->warm_sets = 0;
	r = thaw_keeper_run(&keeper);
	if (r < 0)
		thaw_log(LOG_ERR, "%s: serving failed: %s", serving->name, strerror(-r));
	_exit(0);
}

/* Forked twice: the caller's command must not find a child that it never started. */
int thaw_keeper_start(struct thaw_serving *serving, int fuse_fd, struct thaw_error *err,
		      int *ret_socket)
{
	_cleanup_(closep) int socket = -1;
	int sockets[2], status, r;
	pid_t pid;

	r = thaw_serving_share(serving, NULL, err);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return thaw_io(err, -errno, "no keeper can be started");
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
		return thaw_io(err, -errno, "no keeper can be started");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return thaw_io(err, -errno, "no keeper can be started");
	if (status != 0)
		return thaw_io(err, -EAGAIN, "no keeper can be started");
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
	} else {
		/* Said now: the keeper will not start a warmer, so nobody may wait for one. */
		serving->warm_sets = 0;
	}
	if (serving->warm_sets)
		atomic_store(&serving->counters->warm_state, THAW_WARM_RUNNING);
	if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
		return thaw_io(err, -errno, "the keeper has ended");
	return 0;
}
