/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keepers as programs of their own: the node service's, which outlive it, and
 * those that take the place of another. `thaw keep HOW DESCRIPTOR...` is nobody's
 * command line; what it needs is in the state's plan.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "connect.h"
#include "keeper-internal.h"
#include "log.h"
#include "mount-options.h"
#include "mountinfo.h"
#include "session.h"
#include "util/cleanup.h"

#define FUSE_MAJOR 10 /* of /dev/fuse: misc, and its number there */
#define FUSE_MINOR 229
/* How long a new program may take to look at what it is to take over. */
#define CHECK_MS 5000

/* -- in the keeper: what is served -- */

/* A service of an earlier version did not say which image it is. */
static int find_identity(struct thaw_plan *plan, int image_fd, struct thaw_error *err)
{
	static const uint8_t unsaid[THAW_DIGEST_SIZE];
	struct thaw_source *source;
	int r;

	if (memcmp(plan->identity, unsaid, sizeof(unsaid)) != 0)
		return 0;
	r = thaw_source_from_fd(image_fd, err, &source);
	return r < 0 ? r : thaw_image_identify(source, err, plan->identity);
}

/* For whoever learns: what was learned before, or -1. */
static int open_learned(const struct thaw_plan *plan)
{
	char path[sizeof(plan->learn) + 32];

	if (!plan->learn[0])
		return -1;
	(void)snprintf(path, sizeof(path), "%s/%s", plan->learn, THAW_LEARNED_BEFORE); /* fits */
	return open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

/* Takes image_fd and state, also on failure; what the plan says is then in serving. */
static int open_serving(struct thaw_serving *serving, struct thaw_state *state, int image_fd,
			bool learn, struct thaw_error *err)
{
	_cleanup_(closep) _unused_ int owned = image_fd;
	_cleanup_(closep) int learned = learn ? open_learned(state->plan) : -1;
	struct thaw_plan *plan = state->plan;
	const struct thaw_serving_given given = {
		.fd = image_fd,
		.learned_fd = learned,
		.identity = plan->identity,
		.name = plan->name,
		.warm = plan->warm[0] ? plan->warm : NULL,
		.foreground = plan->foreground,
	};
	int r;

	*serving = (struct thaw_serving){ .index_fd = -1 };
	r = find_identity(plan, image_fd, err);
	if (r == 0)
		r = thaw_serving_init_given(serving, &given, err);
	serving->state = state;
	if (r < 0)
		return r;
	serving->threads = plan->threads;
	serving->cache_bytes = plan->cache_bytes;
	serving->hang_ms = plan->hang_ms;
	serving->uid = plan->uid;
	serving->gid = plan->gid;
	return thaw_serving_share(serving, NULL, err);
}

/* The plan's own text is rewritten while it is read: copies. */
struct place {
	char directory[sizeof(((struct thaw_plan *)0)->directory)];
	char device[sizeof(((struct thaw_plan *)0)->device)];
	char name[sizeof(((struct thaw_plan *)0)->name)];
	char learn[sizeof(((struct thaw_plan *)0)->learn)];
};

static void copy_place(struct place *place, const struct thaw_plan *plan)
{
	memcpy(place->directory, plan->directory, sizeof(place->directory));
	memcpy(place->device, plan->device, sizeof(place->device));
	memcpy(place->name, plan->name, sizeof(place->name));
	memcpy(place->learn, plan->learn, sizeof(place->learn));
}

static void finish(int r, const struct place *place)
{
	if (r < 0)
		thaw_log(LOG_ERR, "%s: serving failed: %s", place->name, strerror(-r));
	/*
	 * Not after an unmount: the device's number is free then, and may be that of
	 * the next mount here by now.
	 */
	if (r != 0 && place->directory[0])
		thaw_keeper_unmount(place->directory, place->device);
}

/* -- launched -- */

static int connect_mount(struct thaw_serving *serving, struct place *place, struct thaw_error *err,
			 int *ret_fd)
{
	const struct thaw_plan *plan = serving->state->plan;
	struct thaw_mountpoint own = { 0 };
	_cleanup_(freep) char *options = NULL;
	_cleanup_(closep) int fd = -1;
	char identity[THAW_DIGEST_HEX];
	int r;

	thaw_digest_hex(serving->identity, identity);
	r = thaw_mount_options_parse(plan->fuse_options, identity, err, &options);
	if (r == 0)
		r = thaw_connect(place->directory, options, err, &fd);
	if (r == 0)
		r = thaw_mountinfo_find(place->directory, err, &own);
	if (r < 0)
		return r;
	(void)snprintf(place->device, sizeof(place->device), "%s", own.device);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int keep_launched(struct thaw_state *state, int image_fd, int teller, struct thaw_error *err)
{
	struct thaw_serving serving;
	struct thaw_keeper keeper = { .serving = &serving, .root_fd = -1, .caller_fd = teller };
	struct thaw_learning learning = { 0 };
	struct place place;
	int r;

	copy_place(&place, state->plan);
	r = open_serving(&serving, state, image_fd, true, err);
	serving.name = place.name;
	if (r == 0)
		r = connect_mount(&serving, &place, err, &keeper.fuse_fd);
	if (r == 0) {
		keeper.root_fd = thaw_warmer_clone_mount(place.directory);
		keeper.root_path = place.directory;
		keeper.directory = place.directory;
		keeper.device = place.device;
		if (place.learn[0])
			thaw_serving_learn(&serving, &learning, place.learn);
		/* Kept open: whoever waits for more learns by its end when we are gone. */
		r = thaw_keeper_tell(teller, 0, NULL);
		if (r == 0)
			r = thaw_keeper_run(&keeper);
		else
			(void)safe_close(keeper.fuse_fd);
		thaw_learning_end(&learning);
		finish(r, &place);
	}
	thaw_serving_deinit(&serving);
	return r < 0 ? r : 0;
}

/* -- in the place of another -- */

/* teller: -1 when we have become the keeper by exec: then its children are ours. */
static int keep_on(struct thaw_state *state, int fuse_fd, int image_fd, int worker_fd, int teller,
		   struct thaw_error *err)
{
	struct thaw_serving serving;
	struct thaw_keeper given = { .serving = &serving, .fuse_fd = fuse_fd, .root_fd = -1, .caller_fd = -1 };
	pid_t pusher = state->plan->pusher, scout = state->plan->scout;
	pid_t worker = state->plan->worker;
	bool ours = teller < 0;
	struct keeper keeper;
	struct place place;
	int r;

	copy_place(&place, state->plan);
	given.directory = place.directory;
	given.device = place.device;
	given.foreground = state->plan->foreground;
	r = open_serving(&serving, state, image_fd, false, err);
	serving.name = place.name;
	if (r == 0) {
		r = thaw_keeper_init(&keeper, &given);
		if (r < 0)
			(void)thaw_oom(err);
	}
	/* Whoever asked may have been killed: the worker needs a keeper all the same. */
	if (r == 0 && teller >= 0)
		(void)!thaw_keeper_tell(teller, 0, NULL);
	if (r < 0) {
		(void)safe_close(worker_fd);
		(void)safe_close(fuse_fd);
		thaw_serving_deinit(&serving);
		return r;
	}
	keeper.workers = 1; /* the next is not the first */
	/* What has been pushed is in memory; the rest is not worth beginning again. */
	if (ours) {
		keeper.warmer.pid = pusher;
		keeper.warmer.ended_fd = pusher ? (int)syscall(SYS_pidfd_open, pusher, 0) : -1;
		keeper.lookahead.pid = scout;
		keeper.lookahead.ended_fd = scout ? (int)syscall(SYS_pidfd_open, scout, 0) : -1;
	}
	if (worker_fd >= 0)
		thaw_keeper_watch(&keeper, worker, worker_fd, ours);
	if (worker_fd >= 0 && ours)
		thaw_keeper_end_worker(&keeper); /* it is the old program's */
	r = thaw_keeper_loop(&keeper);
	finish(r, &place);
	thaw_serving_deinit(&serving);
	return r < 0 ? r : 0;
}

/* Descriptors of a worker whose keeper has died. */
static int take_descriptors(const struct thaw_plan *plan, struct thaw_error *err, int *ret_pidfd,
			    int *ret_fuse_fd, int *ret_image_fd)
{
	_cleanup_(closep) int pidfd = -1;
	_cleanup_(closep) int fuse_fd = -1;
	_cleanup_(closep) int image_fd = -1;
	struct stat st;

	pidfd = (int)syscall(SYS_pidfd_open, plan->worker, 0);
	/* Looked at with the process in hand: the number may have been another's. */
	if (plan->worker <= 0 || pidfd < 0 ||
	    thaw_process_began(plan->worker) != plan->worker_began)
		return thaw_io(err, -ESRCH, "its worker has ended");
	fuse_fd = (int)syscall(SYS_pidfd_getfd, pidfd, plan->fuse_fd, 0);
	if (fuse_fd < 0 || (image_fd = (int)syscall(SYS_pidfd_getfd, pidfd, plan->image_fd, 0)) < 0)
		return thaw_io(err, -errno, errno == ESRCH ? "its worker has ended" :
							     "its worker's descriptors cannot be had");
	if (fstat(fuse_fd, &st) < 0 || !S_ISCHR(st.st_mode) ||
	    st.st_rdev != makedev(FUSE_MAJOR, FUSE_MINOR))
		return thaw_damaged(err, "its worker does not serve what its state says");
	*ret_pidfd = steal_fd(&pidfd);
	*ret_fuse_fd = steal_fd(&fuse_fd);
	*ret_image_fd = steal_fd(&image_fd);
	return 0;
}

static int keep_adopted(struct thaw_state *state, int teller, struct thaw_error *err)
{
	int worker_fd = -1, fuse_fd = -1, image_fd = -1, r;

	r = take_descriptors(state->plan, err, &worker_fd, &fuse_fd, &image_fd);
	if (r < 0) {
		thaw_state_free(state);
		return r;
	}
	return keep_on(state, fuse_fd, image_fd, worker_fd, teller, err);
}

static int keep_taken_over(struct thaw_state *state, int fuse_fd, int image_fd,
			   struct thaw_error *err)
{
	pid_t worker = state->plan->worker;
	int worker_fd = worker > 0 ? (int)syscall(SYS_pidfd_open, worker, 0) : -1;

	/* Too few descriptors to watch it: then without it. */
	if (worker > 0 && worker_fd < 0 && waitpid(worker, NULL, WNOHANG) == 0) {
		(void)kill(worker, SIGKILL); /* not yet reaped: it is still ours */
		(void)waitpid(worker, NULL, 0);
	}
	return keep_on(state, fuse_fd, image_fd, worker_fd, -1, err);
}

/* -- thaw keep -- */

static int check(struct thaw_state *state, int image_fd, struct thaw_error *err)
{
	struct thaw_serving serving;
	int r;

	/* Another image than the one that is served is refused there. */
	r = open_serving(&serving, state, image_fd, false, err);
	thaw_serving_deinit(&serving);
	return r;
}

int thaw_keep(enum thaw_keep_how how, const int fds[3], struct thaw_error *err)
{
	int teller = how == THAW_KEEP_LAUNCH ? fds[2] : how == THAW_KEEP_ADOPT ? fds[1] : -1;
	struct thaw_error own = { 0 };
	struct thaw_state *state;
	int r;

	for (unsigned i = 0; i < 3; i++)
		if (fds[i] >= 0)
			(void)fcntl(fds[i], F_SETFD, FD_CLOEXEC); /* wrong ones are found below */
	thaw_session_hold_signals(true);
	(void)signal(SIGCHLD, SIG_DFL); /* a valid signal: cannot fail */
	r = thaw_state_open(fds[0], &own, &state);
	if (r == 0)
		thaw_log_open(state->plan->foreground);
	if (r == 0 && how == THAW_KEEP_LAUNCH)
		r = keep_launched(state, fds[1], teller, &own);
	else if (r == 0 && how == THAW_KEEP_ADOPT)
		r = keep_adopted(state, teller, &own);
	else if (r == 0 && how == THAW_KEEP_TAKE_OVER)
		r = keep_taken_over(state, fds[1], fds[2], &own);
	else if (r == 0)
		r = check(state, fds[2], &own);
	/* Heard only by those who have heard nothing yet. */
	if (r < 0 && teller >= 0)
		(void)!thaw_keeper_tell(teller, r, &own);
	else if (r < 0 && err)
		*err = own;
	return r;
}

/* -- handing over -- */

static void keep_open(const int fds[3], bool open)
{
	for (unsigned i = 0; i < 3; i++)
		(void)fcntl(fds[i], F_SETFD, open ? 0 : FD_CLOEXEC); /* valid: cannot fail */
}

static void exec_keep(const char *program, const char *how, const int fds[3])
{
	char text[3][16];
	const char *argv[] = { "thaw", "keep", how, text[0], text[1], text[2], NULL };

	for (unsigned i = 0; i < 3; i++)
		(void)snprintf(text[i], sizeof(text[i]), "%d", fds[i]);
	execv(program, (char *const *)argv);
}

/* Would the new program know what to do? Once we have become it, it is too late to ask. */
static bool check_program(const char *program, const int fds[3])
{
	_cleanup_(closep) int ended = -1;
	struct pollfd end = { .events = POLLIN };
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		exec_keep(program, "check", fds);
		_exit(127);
	}
	if (pid < 0)
		return false;
	ended = end.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (poll(&end, 1, CHECK_MS) <= 0)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == THAW_KEEP_COULD;
}

void thaw_keeper_hand_over(struct keeper *keeper)
{
	const int fds[] = { keeper->state->fd, keeper->fuse_fd, keeper->serving->image_fd };
	const struct thaw_serving *serving = keeper->serving;
	const char *program = keeper->state->plan->program;

	/* What is recorded would be lost. */
	if (serving->trace || serving->timeline) {
		thaw_log(LOG_WARNING, "%s: this keeper cannot hand over", serving->name);
		return;
	}
	/* Before, since memory goes with this program. */
	thaw_learning_end(serving->learning);
	keep_open(fds, true);
	if (check_program(program, fds)) {
		thaw_log(LOG_NOTICE, "%s: handing over to %s", serving->name, program);
		exec_keep(program, "take-over", fds);
	}
	keep_open(fds, false);
	thaw_log(LOG_ERR, "%s: not handed over: %s cannot be run, or does not know how", serving->name,
		 program);
}

