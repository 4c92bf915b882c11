/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running libfuse over a given descriptor. What it reads goes through the slots
 * that are shared with the keeper, so that a successor can serve again what was
 * in flight; see keeper-state.h.
 */
#include "session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "counters.h"
#include "keeper-state.h"
#include "log.h"
#include "sandbox.h"
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

/* This thread's slot; while requests are served again, the one that the request is in. */
static _Thread_local struct thaw_slot *slot;
/* The answer is the kernel's already. */
static _Thread_local bool swallow;

/* A thread takes the next slot with its first request, and has it for good. */
static void take_slot(struct thaw_worker *worker)
{
	unsigned number = atomic_fetch_add(&worker->slots_taken, 1);

	if (number < worker->state->slots)
		slot = &worker->state->common->slots[number];
}

static void save_init(struct thaw_common *common, const void *bytes, size_t n)
{
	if (n > sizeof(common->init))
		return; /* none that exists: then it cannot be served by a successor */
	memcpy(common->init, bytes, n);
	atomic_store(&common->init_size, (uint32_t)n);
}

/* Once: one that is served again was counted, unless its first worker died before. */
static void count_request(struct thaw_worker *worker, const struct fuse_in_header *header)
{
	if (slot && atomic_load(&slot->counted) == header->unique)
		return;
	if (header->opcode < THAW_STAT_OPCODES)
		count_add(&worker->counters->requests[header->opcode], 1);
	if (slot)
		atomic_store(&slot->counted, header->unique);
}

static ssize_t counted_read(int fd, void *buf, size_t size, void *userdata)
{
	struct thaw_worker *worker = userdata;
	struct fuse_in_header header;
	void *to = buf;
	ssize_t n;

	if (!slot)
		take_slot(worker);
	/* More threads than slots, or larger requests, are not expected; they would be served, too. */
	if (slot && size <= sizeof(slot->request)) {
		thaw_slot_clear(slot);
		to = slot->request;
	}
	n = read(fd, to, size);
	if (n < (ssize_t)sizeof(header))
		return n;
	if (to != buf)
		memcpy(buf, to, (size_t)n);
	if (slot)
		count_add(&slot->beats, 1);
	memcpy(&header, buf, sizeof(header));
	request_began = thaw_timeline_now();
	if (header.opcode == FUSE_INIT)
		save_init(worker->state->common, buf, (size_t)n);
	count_request(worker, &header);
	if (worker->timeline)
		note_request(worker->timeline, buf, (size_t)n);
	return n;
}

static ssize_t total(const struct iovec *iov, int count)
{
	size_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return (ssize_t)sum;
}

static ssize_t counted_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct thaw_worker *worker = userdata;
	ssize_t n = swallow ? total(iov, count) : writev(fd, iov, count);
	int saved = errno;

	if (!atomic_load_explicit(&worker->state->common->init_answered, memory_order_relaxed))
		atomic_store(&worker->state->common->init_answered, 1); /* asked before all else */
	if (slot) {
		if (n > 0 && !swallow)
			count_add(&slot->answered, 1);
		count_add(&slot->beats, 1);
		/* Not before: until the kernel has the answer, a successor must give it. */
		thaw_slot_clear(slot);
	}
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

_printf_(2, 0)
static void log_nothing(enum fuse_log_level level, const char *format, va_list args)
{
}

void thaw_session_in_storage(bool reading)
{
	if (slot)
		atomic_store_explicit(&slot->storage, reading, memory_order_relaxed);
}

unsigned thaw_session_threads(unsigned wanted)
{
	unsigned cpus = cpu_count();

	if (wanted)
		return wanted < THAW_SLOTS_MAX ? wanted : THAW_SLOTS_MAX;
	return cpus < THREADS_MIN ? THREADS_MIN : cpus > THREADS_MAX ? THREADS_MAX : cpus;
}

static int process(struct fuse_session *session, const void *bytes, size_t size)
{
	struct fuse_buf buf = { .size = size, .mem = malloc(size) };

	if (!buf.mem)
		return -ENOMEM;
	memcpy(buf.mem, bytes, size); /* the slot is emptied by the answer */
	request_began = swallow ? 0 : thaw_timeline_now();
	fuse_session_process_buf(session, &buf);
	free(buf.mem);
	return 0;
}

/* libfuse must see the INIT request, which the kernel makes only once. */
static int replay_init(struct fuse_session *session, struct thaw_worker *worker)
{
	struct thaw_common *common = worker->state->common;
	uint32_t size;
	int r;

	/* Read, and not even saved: then it is in a slot. */
	for (unsigned i = 0; !atomic_load(&common->init_size) && i < worker->state->slots; i++) {
		const struct thaw_slot *from = &common->slots[i];
		struct fuse_in_header header;

		if (thaw_slot_request(from, &header) && header.opcode == FUSE_INIT)
			save_init(common, from->request, header.len);
	}
	size = atomic_load(&common->init_size);
	if (size == 0 || size > sizeof(common->init))
		return 0;
	swallow = atomic_load(&common->init_answered);
	r = process(session, common->init, size);
	swallow = false;
	return r;
}

/*
 * What a predecessor left: what was in flight is served before all else, each
 * request alone, so that it is clear which one is to blame for what happens.
 */
static int replay(struct fuse_session *session, struct thaw_worker *worker)
{
	struct thaw_common *common = worker->state->common;
	int r = replay_init(session, worker);

	for (unsigned i = 0; r == 0 && i < worker->state->slots; i++) {
		struct fuse_in_header header;

		slot = &common->slots[i];
		if (thaw_slot_request(slot, &header) && thaw_wants_answer(&header) &&
		    header.opcode != FUSE_INIT) {
			atomic_store(&common->replaying, i + 1);
			count_request(worker, &header);
			r = process(session, slot->request, header.len);
		}
		if (r == 0)
			thaw_slot_clear(slot);
		atomic_store(&common->replaying, 0);
	}
	slot = NULL;
	return r;
}

static int run_loop(struct fuse_session *session, unsigned threads)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(config, threads);
	fuse_loop_cfg_set_idle_threads(config,
				       threads); /* they stay: starting one costs more */
	r = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	/* Positive: the signal that ended it. -1: no thread could be started. */
	return r > 0 ? 0 : r == -1 ? -EAGAIN : r;
}

void thaw_session_hold_signals(bool hold)
{
	sigset_t ending;

	(void)sigemptyset(&ending); /* valid arguments: none of these can fail */
	(void)sigaddset(&ending, SIGTERM);
	(void)sigaddset(&ending, SIGINT);
	(void)sigaddset(&ending, SIGHUP);
	(void)sigaddset(&ending, SIGUSR1);
	(void)pthread_sigmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &ending, NULL);
}

static int serve(struct thaw_worker *worker, struct fuse_session *session, unsigned threads)
{
	int r;

	/* Ends it: the keeper says so. What a terminal says is for the keeper. */
	(void)signal(SIGINT, SIG_IGN); /* valid signals: cannot fail */
	(void)signal(SIGHUP, SIG_IGN);
	if (fuse_set_signal_handlers(session) < 0)
		return -EINVAL;
	thaw_slots_populate(worker->state);
	r = thaw_sandbox_enter(THAW_SANDBOX_WORKER, -1);
	if (r == 0)
		r = worker->open(worker);
	if (r == 0)
		r = replay(session, worker);
	if (r == 0) {
		atomic_store(&worker->state->common->ready, 1);
		thaw_session_hold_signals(false);
		r = run_loop(session, threads);
	}
	fuse_remove_signal_handlers(session);
	return r;
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

	fuse_set_log_func(worker->quiet ? log_nothing : log_libfuse);
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
	if (r == 0)
		r = serve(worker, session, threads);
	fuse_session_destroy(session);
	return r;
}
