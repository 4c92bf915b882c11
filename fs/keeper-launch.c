/* SPDX-License-Identifier: Apache-2.0 */
/* Starting keepers as programs, and finding them again. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper-internal.h"
#include "session.h"
#include "thaw/mount.h"
#include "util/cleanup.h"

static int state_path(const char *directory, char path[PATH_MAX], struct thaw_error *err)
{
	if (snprintf(path, PATH_MAX, "%s/state", directory) >= PATH_MAX)
		return thaw_io(err, -ENAMETOOLONG, "\"%.300s\"", directory);
	return 0;
}

static int set_text(char *to, size_t size, const char *text, const char *what, struct thaw_error *err)
{
	if (snprintf(to, size, "%s", text ? text : "") >= (int)size)
		return thaw_io(err, -ENAMETOOLONG, "the %s", what);
	return 0;
}

/*
 * The keeper's lock on its state: of the open file description, by inheritance, so that
 * it is held until the last copy is closed. It can be looked at without being taken:
 * whoever merely looks must not be in the way of one who adopts at that moment.
 */
static bool lock_state(const struct thaw_state *state)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(state->fd, F_OFD_SETLK, &whole) == 0;
}

static bool is_locked(const struct thaw_state *state)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(state->fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

/* -- starting -- */

/* Descriptors of the program, as it is told them; the last is the pipe to us. */
static void __attribute__((noreturn)) exec_keeper(const char *how, const int *fds, unsigned count,
						  const char *scope)
{
	char program[PATH_MAX], unit[256], text[3][16];
	const char *argv[16];
	unsigned n = 0;
	bool scoped;
	int high[3];

	/* Out of the way first: one may have the number that another is to get. */
	for (unsigned i = 0; i < count; i++)
		high[i] = fcntl(fds[i], F_DUPFD, 10);
	for (unsigned i = 0; i < count; i++)
		if (high[i] < 0 || dup2(high[i], 3 + (int)i) < 0)
			_exit(126);
	(void)syscall(SYS_close_range, 3 + count, ~0u, 0); /* 5.9; else they stay */
	thaw_keeper_program(program, sizeof(program));
	if (scope && access("/run/systemd/system", F_OK) == 0) {
		(void)snprintf(unit, sizeof(unit), "--unit=%s", scope); /* systemd-run sees to it */
		argv[n++] = "systemd-run";
		if (geteuid() != 0)
			argv[n++] = "--user";
		argv[n++] = "--scope";
		argv[n++] = "--quiet";
		argv[n++] = "--collect";
		argv[n++] = unit;
		argv[n++] = "--";
		argv[n++] = program;
	}
	scoped = n > 0;
	if (!scoped)
		argv[n++] = "thaw";
	argv[n++] = "keep";
	argv[n++] = how;
	for (unsigned i = 0; i < count; i++) {
		(void)snprintf(text[i], sizeof(text[i]), "%d", 3 + (int)i);
		argv[n++] = text[i];
	}
	argv[n] = NULL;
	thaw_session_hold_signals(false);
	if (scoped)
		execvp(argv[0], (char *const *)argv);
	else
		/* Ourselves, also when another version has taken our place by now. */
		execv("/proc/self/exe", (char *const *)argv);
	_exit(127);
}

/* Start it with fds and a pipe as its last descriptor, and wait for what it tells. */
static int start_once(const char *how, const int *fds, unsigned count, const char *scope,
		      struct keeper_outcome *outcome, int *ret_pipe)
{
	_cleanup_(closep) int reader = -1;
	_cleanup_(closep) int writer = -1;
	int pipe_fds[2], r;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	reader = pipe_fds[0];
	writer = pipe_fds[1];
	pid = fork();
	if (pid == 0) {
		/* Twice: it is nobody's child whose end we would have to see. */
		int all[3] = { fds[0], count > 1 ? fds[1] : writer, writer };

		thaw_detach_from_terminal();
		pid = fork();
		if (pid == 0)
			exec_keeper(how, all, count + 1, scope);
		_exit(pid < 0);
	}
	writer = safe_close(writer);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	r = thaw_keeper_hear(reader, outcome);
	if (r == 0)
		*ret_pipe = steal_fd(&reader);
	return r;
}

/* ret_hold: the pipe, or NULL to have it closed. */
static int start(const char *how, const int *fds, unsigned count, const char *scope,
		 struct thaw_error *err, int *ret_pidfd, int *ret_hold)
{
	_cleanup_(closep) int pipe_fd = -1;
	_cleanup_(closep) int pidfd = -1;
	struct keeper_outcome outcome;
	int r;

	r = start_once(how, fds, count, scope, &outcome, &pipe_fd);
	/* systemd may be there and not let us: then without it. */
	if (r == -EPIPE && scope)
		r = start_once(how, fds, count, NULL, &outcome, &pipe_fd);
	if (r < 0)
		return thaw_io(err, r, "no keeper can be started");
	if (outcome.result < 0) {
		if (err)
			*err = outcome.err;
		return outcome.result;
	}
	/* It holds the other end of the pipe: as long as that is open, the number is its. */
	pidfd = (int)syscall(SYS_pidfd_open, outcome.pid, 0);
	if (pidfd < 0)
		return thaw_io(err, -errno, "the keeper has ended");
	*ret_pidfd = steal_fd(&pidfd);
	if (ret_hold)
		*ret_hold = steal_fd(&pipe_fd);
	return 0;
}

static int write_plan(struct thaw_plan *plan, const struct thaw_keeper_launch *launch,
		      struct thaw_error *err)
{
	int r;

	(void)snprintf(plan->name, sizeof(plan->name), "%s", launch->name); /* may be cut */
	r = set_text(plan->directory, sizeof(plan->directory), launch->directory, "directory", err);
	if (r == 0)
		r = set_text(plan->fuse_options, sizeof(plan->fuse_options), launch->options,
			     "mount options", err);
	if (r == 0)
		r = set_text(plan->warm, sizeof(plan->warm), launch->warm, "warm set's name", err);
	if (r == 0 && launch->learn)
		r = set_text(plan->learn, sizeof(plan->learn), launch->state_directory,
			     "directory", err);
	memcpy(plan->identity, launch->identity, sizeof(plan->identity));
	plan->uid = launch->uid;
	plan->gid = launch->gid;
	plan->threads = launch->threads;
	plan->cache_bytes = launch->cache_bytes;
	return r;
}

int thaw_keeper_launch(const struct thaw_keeper_launch *launch, struct thaw_error *err,
		       int *ret_pidfd, int *ret_hold)
{
	_cleanup_(closep) int hold = -1;
	struct thaw_state *state = NULL;
	char path[PATH_MAX];
	struct stat st;
	int pidfd = -1, r;

	r = state_path(launch->state_directory, path, err);
	if (r == 0)
		r = thaw_state_new(path, thaw_session_threads(launch->threads), err, &state);
	if (r < 0)
		return r;
	r = write_plan(state->plan, launch, err);
	if (r == 0 && !lock_state(state))
		r = thaw_io(err, -errno, "\"%.300s\"", path);
	if (r == 0) {
		const int fds[] = { state->fd, launch->image_fd };

		r = start("launched", fds, 2, launch->scope, err, &pidfd, &hold);
	}
	/* Mounted is not yet serving: the first answer is what the caller waits for. */
	if (r == 0 && stat(launch->directory, &st) < 0) {
		r = thaw_io(err, -errno, "mounted, but the worker does not answer");
		(void)!thaw_umount(launch->directory, true, NULL); /* as far as it goes: err says why */
		pidfd = safe_close(pidfd);
	}
	thaw_state_free(state);
	if (r < 0)
		(void)unlink(path); /* ours, made above */
	else
		*ret_pidfd = pidfd;
	if (r == 0 && ret_hold)
		*ret_hold = steal_fd(&hold);
	return r;
}

/* -- finding again -- */

static int open_state(const char *directory, struct thaw_error *err, struct thaw_state **ret_state)
{
	char path[PATH_MAX];
	int fd, r;

	r = state_path(directory, path, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return THAW_NOT_FOUND;
	if (fd < 0)
		return thaw_io(err, -errno, "\"%.300s\"", path);
	return thaw_state_open(fd, err, ret_state);
}

static void describe(const struct thaw_state *state, struct thaw_kept *kept)
{
	const struct thaw_common *common = state->common;

	*kept = (struct thaw_kept){
		.keeper = state->plan->keeper,
		.worker = state->plan->worker,
		.restarts = atomic_load(&common->restarts),
		.waiting_ms = atomic_load(&common->waiting_ms),
		.refused = atomic_load(&common->refused),
		.warm_source = atomic_load(&common->counters.warm_source),
	};
	thaw_common_death(common, kept->death);
}

/* Is it the process that it was? With a pidfd then, which the caller closes. */
static int open_process(pid_t pid, uint64_t began)
{
	int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };

	/* One that has ended keeps its number and its beginning until it is waited for. */
	if (pidfd >= 0 && (thaw_process_began(pid) != began || poll(&ended, 1, 0) != 0))
		pidfd = safe_close(pidfd);
	return pidfd;
}

int thaw_keeper_look(const char *state_directory, struct thaw_error *err,
		     struct thaw_kept *ret_kept, int *ret_pidfd)
{
	_cleanup_(closep) int keeper = -1;
	_cleanup_(closep) int worker = -1;
	struct thaw_state *state;
	const struct thaw_plan *plan;
	bool kept;
	int r;

	r = open_state(state_directory, err, &state);
	if (r != 0)
		return r;
	plan = state->plan;
	/* A keeper holds the lock as long as it lives, whatever numbers say. */
	kept = is_locked(state);
	keeper = kept ? open_process(plan->keeper, plan->keeper_began) : -1;
	worker = open_process(plan->worker, plan->worker_began);
	if (ret_kept)
		describe(state, ret_kept);
	thaw_state_free(state);
	if (keeper >= 0) {
		if (ret_pidfd)
			*ret_pidfd = steal_fd(&keeper);
		return 0;
	}
	/* It has not written down yet who it is, or a worker has not that it lives. */
	if (kept)
		return thaw_io(err, -EBUSY, "its keeper is about to begin, or to end");
	return worker >= 0 ? THAW_ORPHANED : THAW_NOT_FOUND;
}

int thaw_keeper_adopt(const char *state_directory, const char *scope, struct thaw_error *err,
		      int *ret_pidfd)
{
	struct thaw_state *state;
	int r;

	r = open_state(state_directory, err, &state);
	if (r == THAW_NOT_FOUND)
		return thaw_io(err, -ENOENT, "\"%.300s\": no keeper's state", state_directory);
	if (r < 0)
		return r;
	if (!lock_state(state)) {
		r = thaw_io(err, -EBUSY, "it has a keeper");
	} else {
		const int fds[] = { state->fd };

		r = start("adopting", fds, 1, scope, err, ret_pidfd, NULL);
	}
	thaw_state_free(state);
	return r;
}

/* -- by hand -- */

static int pid_of(const char *state_directory, struct thaw_error *err, int *ret_pid)
{
	struct thaw_kept kept;
	int r = thaw_keeper_look(state_directory, err, &kept, NULL);

	if (r > 0)
		return thaw_io(err, -ESRCH, "the keeper has ended");
	if (r == 0)
		*ret_pid = kept.keeper;
	return r;
}

int thaw_keep_start(const char *image, const char *directory, const char *state_directory,
		    struct thaw_error *err, int *ret_pid)
{
	_cleanup_(freep) char *where = realpath(directory, NULL);
	_cleanup_(closep) int image_fd = open(image, O_RDONLY | O_CLOEXEC);
	_cleanup_(closep) _unused_ int pidfd = -1;
	uint8_t identity[THAW_DIGEST_SIZE];
	struct thaw_keeper_launch launch = {
		.image_fd = image_fd,
		.identity = identity,
		.name = image,
		.directory = where,
		.uid = getuid(),
		.gid = getgid(),
		.state_directory = state_directory,
	};
	struct thaw_source *source;
	int r;

	if (!where)
		return thaw_io(err, -errno, "cannot be mounted on \"%.300s\"", directory);
	if (image_fd < 0)
		return thaw_io(err, -errno, "cannot be opened");
	r = thaw_source_from_fd(image_fd, err, &source);
	if (r == 0)
		r = thaw_image_identify(source, err, identity);
	if (r == 0)
		r = thaw_keeper_launch(&launch, err, &pidfd, NULL);
	return r < 0 ? r : pid_of(state_directory, err, ret_pid);
}

int thaw_keep_adopt(const char *state_directory, struct thaw_error *err, int *ret_pid)
{
	_cleanup_(closep) _unused_ int pidfd = -1;
	int r = thaw_keeper_adopt(state_directory, NULL, err, &pidfd);

	return r < 0 ? r : pid_of(state_directory, err, ret_pid);
}
