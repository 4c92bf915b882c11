/* SPDX-License-Identifier: Apache-2.0 */
/* Running libfuse over a given descriptor. */
#include "session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "counters.h"
#include "log.h"

#define THREADS_DEFAULT 4u

/* When this thread's request was read; libfuse answers from the thread that read. */
static _Thread_local uint64_t request_began;

static uint64_t now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail */
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static ssize_t counted_read(int fd, void *buf, size_t size, void *userdata)
{
	struct thaw_worker *worker = userdata;
	ssize_t n = read(fd, buf, size);
	struct fuse_in_header header;

	if (n < (ssize_t)sizeof(header))
		return n;
	memcpy(&header, buf, sizeof(header));
	request_began = now_us();
	if (header.opcode < THAW_STAT_OPCODES)
		count_add(&worker->counters->requests[header.opcode], 1);
	return n;
}

static ssize_t counted_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct thaw_worker *worker = userdata;
	ssize_t n = writev(fd, iov, count);
	int saved = errno;

	if (request_began) {
		uint64_t us = now_us() - request_began;
		unsigned bucket = 0;

		while (us >> bucket && bucket < THAW_STAT_LATENCIES - 1)
			bucket++;
		count_add(&worker->counters->latency[bucket], 1);
		request_began = 0;
	}
	errno = saved;
	return n;
}

static void log_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
	char line[512];

	(void)vsnprintf(line, sizeof(line), format, args); /* a longer line is cut */
	line[strcspn(line, "\n")] = '\0';
	thaw_log((int)level, "libfuse: %s", line); /* its levels are syslog's */
}

static int run_loop(struct fuse_session *session, unsigned threads)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	if (!config)
		return -ENOMEM;
	threads = threads ? threads : THREADS_DEFAULT;
	fuse_loop_cfg_set_max_threads(config, threads);
	fuse_loop_cfg_set_idle_threads(config,
				       threads); /* they stay: starting one costs more */
	r = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return r > 0 ? 0 : r; /* positive: the signal that ended it */
}

void thaw_session_hold_signals(bool hold)
{
	sigset_t ending;

	(void)sigemptyset(&ending); /* valid arguments: none of these can fail */
	(void)sigaddset(&ending, SIGTERM);
	(void)sigaddset(&ending, SIGINT);
	(void)sigaddset(&ending, SIGHUP);
	(void)pthread_sigmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &ending, NULL);
}

int thaw_session_run(struct thaw_worker *worker, int fd, unsigned threads)
{
	static const struct fuse_custom_io io = {
		.read = counted_read,
		.writev = counted_writev,
	};
	char *argv[] = { (char *)"thaw", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *session;
	int own, r;

	fuse_set_log_func(log_libfuse);
	session = fuse_session_new(&args, &thaw_worker_ops, sizeof(thaw_worker_ops),
				   worker);
	fuse_opt_free_args(&args);
	own = dup(fd); /* destroying the session closes its descriptor */
	if (!session || own < 0) {
		if (session)
			fuse_session_destroy(session);
		return -ENOMEM;
	}
	r = fuse_session_custom_io(session, &io, own);
	if (r == 0 && fuse_set_signal_handlers(session) < 0)
		r = -EINVAL;
	if (r == 0) {
		thaw_session_hold_signals(false);
		r = run_loop(session, threads);
		thaw_session_hold_signals(true);
		fuse_remove_signal_handlers(session);
	}
	fuse_session_destroy(session);
	return r;
}
