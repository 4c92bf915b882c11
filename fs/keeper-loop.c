/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper at work. One thread, which waits for nothing but poll(2): it never
 * touches the mount, for whose answers it is responsible.
 */
#include "keeper-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "detached.h"
#include "log.h"
#include "session.h"
#include "util/cleanup.h"

/* Deaths in a row without an answer, after which a pause is made before the next try. */
#define PATIENCE 5u
/* Deaths in a row while somebody waited, after which nobody is kept waiting any more. */
#define HOPELESS 12u
#define PAUSE_FIRST_MS 10u
#define PAUSE_MAX_MS   5000u
#define CHECK_MAX_MS   5000u
/* A worker that is told to end finishes what it is at; then it is killed. */
#define END_MS 3000u

static uint64_t now_ms(void)
{
	return thaw_timeline_now() / 1000;
}

static uint64_t check_interval(const struct keeper *keeper)
{
	uint64_t interval = keeper->hang_ms / 6;

	return interval > CHECK_MAX_MS ? CHECK_MAX_MS : interval < 10 ? 10 : interval;
}

/* -- requests that are refused -- */

static void answer(int fuse_fd, uint64_t unique, int error)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = error, .unique = unique };

	(void)!write(fuse_fd, &out, sizeof(out)); /* ENOENT: nobody waits any more */
}

static void refuse_slot(void *userdata, const struct fuse_in_header *header)
{
	struct keeper *keeper = userdata;

	answer(keeper->fuse_fd, header->unique, keeper->ending ? -ECONNABORTED : -EIO);
	atomic_fetch_add(&keeper->state->common->refused, 1);
	if (!keeper->ending && !keeper->hopeless)
		thaw_log(LOG_ERR, "%s: workers died of request %u of inode %llu: it is answered with "
			 "an I/O error", keeper->serving->name, (unsigned)header->opcode,
			 (unsigned long long)header->nodeid);
}

static void set_blocking(int fd, bool blocking)
{
	/* Of the open device, which workers share: only while there is none. */
	(void)fcntl(fd, F_SETFL, blocking ? O_RDWR : O_RDWR | O_NONBLOCK);
}

/* Read all that is asked, and refuse it. Only without a worker. */
static void refuse_pending(struct keeper *keeper)
{
	struct pollfd asked = { .fd = keeper->fuse_fd, .events = POLLIN };

	set_blocking(keeper->fuse_fd, false);
	while (poll(&asked, 1, 0) > 0 && (asked.revents & POLLIN)) {
		struct fuse_in_header header;
		ssize_t n = read(keeper->fuse_fd, keeper->buffer, THAW_REQUEST_MAX);

		if (n < (ssize_t)sizeof(header)) {
			if (n < 0 && (errno == EINTR || errno == ENOENT))
				continue;
			break;
		}
		memcpy(&header, keeper->buffer, sizeof(header));
		if (thaw_wants_answer(&header)) {
			answer(keeper->fuse_fd, header.unique, keeper->ending ? -ECONNABORTED : -EIO);
			atomic_fetch_add(&keeper->state->common->refused, 1);
		}
	}
	set_blocking(keeper->fuse_fd, true);
}

/* -- the mount -- */

static bool mount_gone(const struct keeper *keeper)
{
	struct pollfd connection = { .fd = keeper->fuse_fd };

	return poll(&connection, 1, 0) > 0;
}

static bool somebody_asks(const struct keeper *keeper)
{
	struct pollfd asked = { .fd = keeper->fuse_fd, .events = POLLIN };

	return poll(&asked, 1, 0) > 0 && (asked.revents & POLLIN);
}

static bool somebody_waits(const struct keeper *keeper)
{
	struct fuse_in_header header;

	for (unsigned i = 0; i < keeper->state->slots; i++)
		if (thaw_slot_request(&keeper->state->common->slots[i], &header))
			return true;
	return somebody_asks(keeper);
}

/* -- the worker -- */

void thaw_keeper_watch(struct keeper *keeper, pid_t pid, int pidfd, bool ours)
{
	keeper->check_at = now_ms() + check_interval(keeper);
	keeper->worker = pid;
	keeper->ours = ours;
	keeper->worker_fd = pidfd;
	keeper->state->plan->worker_began = thaw_process_began(pid);
	keeper->state->plan->worker = pid;
	keeper->answered = thaw_slots_answered(keeper->state);
	keeper->why[0] = '\0';
	keeper->idle = false;
	keeper->beats = thaw_slots_beats(keeper->state);
	keeper->asked = false;
	memset(keeper->seen, 0, keeper->state->slots * sizeof(*keeper->seen));
}

static void __attribute__((noreturn)) run_worker(struct keeper *keeper)
{
	const int keep[] = { keeper->fuse_fd, keeper->serving->image_fd,
			     keeper->lookahead.socket, keeper->life[0],
			     keeper->serving->index_fd };
	int r;

	(void)setsid(); /* what a terminal says is for the keeper */
	/*
	 * Said by the worker too: should the keeper die before it has said so, nobody
	 * else would know. Its lock is held by us until that is done.
	 */
	keeper->state->plan->worker_began = thaw_process_began(getpid());
	keeper->state->plan->worker = getpid();
	thaw_state_leave_plan(keeper->state);
	thaw_log_close(); /* the keeper's */
	thaw_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
	thaw_log_open_now(keeper->foreground);
	r = thaw_serving_work(keeper->serving, keeper->fuse_fd, keeper->life[0],
			      keeper->barren > 0);
	if (r < 0)
		atomic_store(&keeper->state->common->error, -r);
	_exit(r < 0 ? THAW_EXIT_IO : THAW_EXIT_OK);
}

static void note_death(struct keeper *keeper, const char *text)
{
	thaw_state_set_death(keeper->state, text);
	if (strcmp(text, keeper->said) == 0)
		return;
	(void)snprintf(keeper->said, sizeof(keeper->said), "%s", text); /* may be cut */
	thaw_log(LOG_WARNING, "%s: the worker %s", keeper->serving->name, text);
}

static void plan_retry(struct keeper *keeper)
{
	unsigned deaths = keeper->barren > keeper->vain ? keeper->barren : keeper->vain;
	unsigned pause = 0;

	if (deaths >= PATIENCE) {
		unsigned doublings = deaths - PATIENCE;

		pause = doublings > 9 ? PAUSE_MAX_MS : PAUSE_FIRST_MS << doublings;
		pause = pause > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause;
	}
	keeper->retry_at = now_ms() + pause;
	atomic_store(&keeper->state->common->waiting_ms, pause);
	if (keeper->barren >= HOPELESS && !keeper->hopeless) {
		keeper->hopeless = true;
		thaw_log(LOG_ERR, "%s: no worker lives: requests are answered with an I/O error "
			 "until one does", keeper->serving->name);
	}
	if (keeper->hopeless)
		thaw_slots_refuse(keeper->state, refuse_slot, keeper);
}

static void start_failed(struct keeper *keeper)
{
	char text[THAW_DEATH_TEXT];

	(void)snprintf(text, sizeof(text), "cannot be started: %s", strerror(errno));
	keeper->barren++;
	note_death(keeper, text);
	plan_retry(keeper);
}

void thaw_keeper_start_worker(struct keeper *keeper)
{
	struct thaw_common *common = keeper->state->common;
	pid_t pid;

	keeper->retry_at = 0;
	keeper->state->plan->fuse_fd = keeper->fuse_fd;
	keeper->state->plan->image_fd = keeper->serving->image_fd;
	atomic_store(&common->error, 0);
	atomic_store(&common->ready, 0);
	pid = fork();
	if (pid == 0)
		run_worker(keeper);
	if (pid < 0) {
		start_failed(keeper);
		return;
	}
	keeper->worker_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (keeper->worker_fd < 0) {
		/* Its end would not be seen. */
		int error = errno;

		(void)kill(pid, SIGKILL); /* not yet reaped: it is still ours */
		(void)waitpid(pid, NULL, 0);
		errno = error;
		start_failed(keeper);
		return;
	}
	atomic_store(&common->waiting_ms, 0);
	if (keeper->workers++ > 0)
		atomic_fetch_add(&common->restarts, 1);
	thaw_keeper_watch(keeper, pid, keeper->worker_fd, true);
}

void thaw_keeper_end_worker(struct keeper *keeper)
{
	keeper->told = true;
	keeper->told_until = now_ms() + END_MS;
	(void)syscall(SYS_pidfd_send_signal, keeper->worker_fd, SIGTERM, NULL, 0);
}

static void describe(const struct keeper *keeper, int status, char text[THAW_DEATH_TEXT])
{
	int error = atomic_load(&keeper->state->common->error);

	if (keeper->why[0])
		(void)snprintf(text, THAW_DEATH_TEXT, "%s", keeper->why);
	else if (!keeper->ours)
		(void)snprintf(text, THAW_DEATH_TEXT, "ended; it was another keeper's");
	else if (WIFSIGNALED(status))
		(void)snprintf(text, THAW_DEATH_TEXT, "was killed by signal %d (%s)",
			       WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (error > 0 && error < 4096)
		(void)snprintf(text, THAW_DEATH_TEXT, "could not serve: %s", strerror(error));
	else
		(void)snprintf(text, THAW_DEATH_TEXT, "ended with exit code %d",
			       WEXITSTATUS(status));
}

/* False when the mount has gone, with which a worker ends. */
static bool worker_ended(struct keeper *keeper)
{
	char text[THAW_DEATH_TEXT];
	int status = 0;
	bool orderly, killed;

	if (keeper->ours)
		while (waitpid(keeper->worker, &status, 0) < 0 && errno == EINTR)
			;
	keeper->worker = 0;
	keeper->state->plan->worker = 0;
	keeper->worker_fd = safe_close(keeper->worker_fd);
	if (mount_gone(keeper))
		return false;
	orderly = keeper->ours ? WIFEXITED(status) && WEXITSTATUS(status) == 0 : keeper->told;
	keeper->told = false;
	if (orderly && !keeper->why[0]) {
		keeper->retry_at = now_ms();
		return true;
	}
	describe(keeper, status, text);
	note_death(keeper, text);
	killed = keeper->ours && !keeper->why[0] && WIFSIGNALED(status) &&
		 WTERMSIG(status) == SIGKILL;
	if (thaw_slots_answered(keeper->state) != keeper->answered)
		keeper->barren = keeper->vain = 0;
	/* One that was waited for in vain tells more than one that had nothing to do. */
	else if (somebody_waits(keeper) || (!killed && !atomic_load(&keeper->state->common->ready)))
		keeper->barren++;
	else
		keeper->vain++;
	(void)thaw_slots_blame(keeper->state, killed ? THAW_GUILT_KILL : THAW_GUILT_CRASH,
			       refuse_slot, keeper);
	plan_retry(keeper);
	return true;
}

static void kill_worker(struct keeper *keeper, const char *why)
{
	(void)snprintf(keeper->why, sizeof(keeper->why), "%s", why);
	(void)syscall(SYS_pidfd_send_signal, keeper->worker_fd, SIGKILL, NULL, 0);
}

/* -- is it alive? -- */

/* The oldest request in flight, in ms as far as we have seen; 0 when there is none. */
static uint64_t oldest_request(struct keeper *keeper, uint64_t now, bool *ret_any)
{
	uint64_t oldest = 0;

	*ret_any = false;
	for (unsigned i = 0; i < keeper->state->slots; i++) {
		struct seen *seen = &keeper->seen[i];
		struct fuse_in_header header;

		if (!thaw_slot_request(&keeper->state->common->slots[i], &header)) {
			seen->unique = 0;
			continue;
		}
		*ret_any = true;
		if (seen->unique != header.unique)
			*seen = (struct seen){ .unique = header.unique, .since = now };
		if (now - seen->since > oldest)
			oldest = now - seen->since;
	}
	return oldest;
}

/*
 * Asked and not answered, or not even taken: then it hangs. But a read from the
 * image's file takes as long as the file system below us wants, and no new
 * worker would make it faster. One that was stopped is not reading anything.
 */
static void check_worker(struct keeper *keeper)
{
	uint64_t now = now_ms(), beats = thaw_slots_beats(keeper->state), oldest;
	bool asked = somebody_asks(keeper), any, stuck, untaken;

	oldest = oldest_request(keeper, now, &any);
	stuck = oldest > keeper->hang_ms;
	untaken = asked && keeper->asked && beats == keeper->beats;
	if ((stuck || untaken) &&
	    (!thaw_slots_in_storage(keeper->state) || thaw_process_state(keeper->worker) == 'T'))
		kill_worker(keeper, stuck ? "hung: a request was not answered" :
					    "hung: it took no requests");
	/* Nothing happens: then nobody needs to look until something does. */
	keeper->idle = !asked && !any && beats == keeper->beats;
	/* The mount has gone, and it should have seen that long ago. */
	if (mount_gone(keeper) && keeper->idle)
		kill_worker(keeper, "hung: it outlived its mount");
	keeper->asked = asked;
	keeper->beats = beats;
	keeper->check_at = now + check_interval(keeper);
}

/* -- ending -- */

/*
 * The worker ends, then the warmer, and whoever still waits for an answer gets
 * one: the pusher may be waiting for a page that a reader has locked, and can
 * only end when that reader has been answered.
 */
static void end_all(struct keeper *keeper)
{
	uint64_t deadline = now_ms() + END_MS;

	keeper->ending = true;
	thaw_warmer_kill(&keeper->warmer);
	thaw_lookahead_stop(&keeper->lookahead);
	if (keeper->worker > 0)
		(void)syscall(SYS_pidfd_send_signal, keeper->worker_fd, SIGTERM, NULL, 0);
	while (keeper->worker > 0) {
		struct pollfd ended = { .fd = keeper->worker_fd, .events = POLLIN };
		uint64_t now = now_ms();

		if (poll(&ended, 1, now < deadline ? (int)(deadline - now) : -1) == 0) {
			kill_worker(keeper, "was killed: it did not end");
			deadline = 0;
		} else if (ended.revents) {
			if (keeper->ours)
				(void)waitpid(keeper->worker, NULL, 0);
			keeper->worker = 0;
		}
	}
	thaw_slots_refuse(keeper->state, refuse_slot, keeper);
	while (!thaw_warmer_reap(&keeper->warmer)) {
		struct pollfd next[] = {
			{ .fd = keeper->warmer.ended_fd, .events = POLLIN },
			{ .fd = keeper->fuse_fd, .events = POLLIN },
		};

		/* Once the mount has gone, its descriptor is always ready. */
		(void)poll(next, mount_gone(keeper) ? 1 : 2, -1);
		refuse_pending(keeper);
	}
}

/* -- the loop -- */

enum { AT_SIGNAL, AT_WORKER, AT_WARMER, AT_SCOUT, AT_DEVICE, AT_CALLER, AT_COUNT };

static int worker_timeout(const struct keeper *keeper)
{
	uint64_t now = now_ms(), at;

	if (keeper->worker > 0 && keeper->idle && !keeper->told)
		return -1;
	at = keeper->worker == 0 ? keeper->retry_at :
	     keeper->told	 ? keeper->told_until :
				   keeper->check_at;
	return at <= now ? 0 : (int)(at - now);
}

static int timeout_of(const struct keeper *keeper)
{
	uint64_t next = thaw_learning_next(keeper->serving->learning), now;
	int timeout = worker_timeout(keeper), look;

	if (next == 0)
		return timeout;
	now = now_ms();
	look = next <= now ? 0 : (int)(next - now);
	return timeout < 0 || look < timeout ? look : timeout;
}

/*
 * Requests wake everybody who polls the device, whatever for. So it is looked at
 * only when there is nothing to do but to wait for the first one, or no worker.
 */
static bool look_at_device(const struct keeper *keeper)
{
	return keeper->worker > 0 ? keeper->idle :
				    keeper->hopeless || keeper->barren < PATIENCE;
}

static void device_ready(struct keeper *keeper)
{
	if (keeper->worker > 0) {
		keeper->idle = false;
		keeper->asked = false;
		keeper->beats = thaw_slots_beats(keeper->state);
		keeper->check_at = now_ms() + check_interval(keeper);
	} else if (keeper->hopeless) {
		refuse_pending(keeper);
	} else if (keeper->barren < PATIENCE) {
		keeper->retry_at = now_ms(); /* the pause was for want of anything to do */
	}
}

/* Returns the signal that ends us, or 0. */
static int take_signal(struct keeper *keeper)
{
	struct signalfd_siginfo info;

	if (read(keeper->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return 0;
	if (info.ssi_signo == SIGUSR1) {
		thaw_learning_end(keeper->serving->learning);
		return 0;
	}
	if (info.ssi_signo != SIGHUP)
		return (int)info.ssi_signo;
	thaw_keeper_hand_over(keeper);
	return 0;
}

static void look_at_clock(struct keeper *keeper)
{
	uint64_t now = now_ms();

	thaw_learning_look(keeper->serving->learning, now);
	if (keeper->worker == 0) {
		if (now >= keeper->retry_at)
			thaw_keeper_start_worker(keeper);
	} else if (keeper->told) {
		if (now >= keeper->told_until) {
			kill_worker(keeper, "did not end when told to");
			keeper->told = false;
		}
	} else if (!keeper->idle && now >= keeper->check_at) {
		check_worker(keeper);
	}
}

static void reap_others(struct keeper *keeper)
{
	struct thaw_plan *plan = keeper->state->plan;

	(void)thaw_warmer_reap(&keeper->warmer);
	(void)thaw_lookahead_reap(&keeper->lookahead);
	plan->pusher = keeper->warmer.pid;
	plan->scout = keeper->lookahead.pid;
}

/* Whoever lowered our limit of descriptors did not mean us to spin. */
static void poll_singly(struct pollfd *fds, unsigned count)
{
	(void)poll(NULL, 0, 50); /* ms */
	for (unsigned i = 0; i < count; i++)
		if (poll(&fds[i], 1, 0) <= 0)
			fds[i].revents = 0;
}

static int loop(struct keeper *keeper)
{
	for (;;) {
		struct pollfd fds[AT_COUNT] = {
			[AT_SIGNAL] = { .fd = keeper->signals, .events = POLLIN },
			[AT_WORKER] = { .fd = keeper->worker > 0 ? keeper->worker_fd : -1,
					.events = POLLIN },
			[AT_WARMER] = { .fd = keeper->warmer.ended_fd, .events = POLLIN },
			[AT_SCOUT] = { .fd = keeper->lookahead.ended_fd, .events = POLLIN },
			[AT_DEVICE] = { .fd = look_at_device(keeper) ? keeper->fuse_fd : -1,
					.events = POLLIN },
			/* That nobody reads it is told unasked. */
			[AT_CALLER] = { .fd = keeper->caller_fd },
		};

		if (poll(fds, AT_COUNT, timeout_of(keeper)) < 0 && errno != EINTR)
			poll_singly(fds, AT_COUNT);
		if (fds[AT_SIGNAL].revents && take_signal(keeper))
			return THAW_STILL_MOUNTED;
		if (fds[AT_CALLER].revents)
			thaw_keeper_start_warmer(keeper);
		if (fds[AT_WARMER].revents || fds[AT_SCOUT].revents)
			reap_others(keeper);
		if (fds[AT_WORKER].revents && !worker_ended(keeper))
			return 0;
		if (fds[AT_DEVICE].revents) {
			if (keeper->worker == 0 && mount_gone(keeper))
				return 0;
			device_ready(keeper);
		}
		look_at_clock(keeper);
	}
}

int thaw_keeper_loop(struct keeper *keeper)
{
	sigset_t ending;
	int r;

	(void)sigemptyset(&ending); /* valid arguments: none of these can fail */
	(void)sigaddset(&ending, SIGTERM);
	(void)sigaddset(&ending, SIGINT);
	(void)sigaddset(&ending, SIGHUP);
	(void)sigaddset(&ending, SIGUSR1);
	keeper->signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
	r = keeper->signals < 0 ? -errno : loop(keeper);
	end_all(keeper);
	keeper->warmer.root_fd = safe_close(keeper->warmer.root_fd); /* if it was never begun */
	keeper->signals = safe_close(keeper->signals);
	keeper->fuse_fd = safe_close(keeper->fuse_fd);
	closep(&keeper->life[0]);
	closep(&keeper->life[1]);
	free(keeper->seen);
	free(keeper->buffer);
	return r;
}
