/* SPDX-License-Identifier: Apache-2.0 */
/* Running libfuse over a given descriptor. */
#include "session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "counters.h"
#include "log.h"
#include "util/cpus.h"
#include "thaw/timeline.h"
#include "thaw/trace.h"

/*
 * One thread a CPU: more only wake each other up (measured on two CPUs: a first
 * import took 9 % longer with four). Two at least, so that a slow frame does not
 * hold up what is cached; beyond eight the frame cache's lock would be the limit.
 */
#define THREADS_MIN 2u
#define THREADS_MAX 8u

/* When this thread's request was read; libfuse answers from the thread that read. */
static _Thread_local uint64_t request_began;

/* The same request, for the timeline. */
static _Thread_local struct thaw_timeline_event request;

static void note_request(const struct thaw_timeline *timeline, const char *buf, size_t n)
{
	struct fuse_in_header header;
	struct fuse_read_in in;

	memcpy(&header, buf, sizeof(header));
	request = (struct thaw_timeline_event){
		.kind = THAW_TIMELINE_REQUEST,
		.began = request_began,
		.opcode = (uint16_t)header.opcode,
		.by_warmer = thaw_timeline_is_warmer(timeline, header.pid),
		.ino = (uint32_t)header.nodeid,
	};
	if (header.opcode == FUSE_READ && n >= sizeof(header) + sizeof(in)) {
		memcpy(&in, buf + sizeof(header), sizeof(in));
		request.first = (uint32_t)(in.offset / THAW_PAGE_SIZE);
		request.bytes = in.size;
	}
}

static ssize_t counted_read(int fd, void *buf, size_t size, void *userdata)
{
	struct thaw_worker *worker = userdata;
	ssize_t n = read(fd, buf, size);
	struct fuse_in_header header;

	if (n < (ssize_t)sizeof(header))
		return n;
	memcpy(&header, buf, sizeof(header));
	request_began = thaw_timeline_now();
	if (header.opcode < THAW_STAT_OPCODES)
		count_add(&worker->counters->requests[header.opcode], 1);
	if (worker->timeline)
		note_request(worker->timeline, buf, (size_t)n);
	return n;
}

static ssize_t counted_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct thaw_worker *worker = userdata;
	ssize_t n = writev(fd, iov, count);
	int saved = errno;

	if (request_began) {
		uint64_t us = thaw_timeline_now() - request_began;
		unsigned bucket = 0;

		while (us >> bucket && bucket < THAW_STAT_LATENCIES - 1)
			bucket++;
		count_add(&worker->counters->latency[bucket], 1);
		if (worker->timeline)
			thaw_timeline_add(worker->timeline, &request);
		request_began = 0;
	}
	errno = saved;
	return n;
}

_printf_(2, 0)
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
	if (!threads) {
		threads = cpu_count();
		threads = threads < THREADS_MIN	  ? THREADS_MIN
			  : threads > THREADS_MAX ? THREADS_MAX
						  : threads;
	}
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
