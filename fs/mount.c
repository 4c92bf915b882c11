/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting an image, in the foreground or by a worker of its own, and unmounting. */
#include "thaw/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "log.h"
#include "mount-options.h"
#include "mountinfo.h"
#include "util/cleanup.h"
#include "worker.h"

#define THREADS_DEFAULT 4u

struct mount {
	struct thaw_image *image;
	const char *name;      /* of the image, as given */
	char *directory;       /* absolute, without symlinks */
	char *fuse_options;    /* for fuse_session_new() */
	const struct thaw_mount_options *options;
};

/* Called once the mount stands; a failure to tell ends the session. */
typedef int ready_fn(void *userdata);

static int check_directory(struct mount *mount, const char *directory, struct thaw_error *err)
{
	struct stat st;

	if (stat(directory, &st) < 0)
		return thaw_io(err, -errno, "cannot be mounted on \"%.300s\"", directory);
	if (!S_ISDIR(st.st_mode))
		return thaw_io(err, -ENOTDIR, "cannot be mounted on \"%.300s\"", directory);
	mount->directory = realpath(directory, NULL);
	if (!mount->directory)
		return thaw_io(err, -errno, "cannot be mounted on \"%.300s\"", directory);
	return 0;
}

/* A second mount on top would hide the first, whose worker would serve nobody. */
static int check_unoccupied(const struct mount *mount, struct thaw_error *err)
{
	struct thaw_mountpoint mountpoint;
	int r = thaw_mountinfo_find(mount->directory, err, &mountpoint);

	if (r == 0 && mountpoint.ours)
		return thaw_refused(err, "cannot be mounted on \"%.300s\": an image is mounted there",
				    mount->directory);
	return r < 0 ? r : 0;
}

static int open_image(struct mount *mount, struct thaw_error *err)
{
	struct thaw_source *source;
	int r;

	r = thaw_source_open(mount->name, err, &source);
	if (r < 0)
		return r;
	return thaw_image_open(source, err, &mount->image);
}

static int prepare(struct mount *mount, const char *directory, struct thaw_error *err)
{
	char identity[THAW_DIGEST_HEX];
	int r;

	r = open_image(mount, err);
	if (r == 0)
		r = check_directory(mount, directory, err);
	if (r == 0)
		r = check_unoccupied(mount, err);
	if (r < 0)
		return r;
	thaw_digest_hex(thaw_image_info(mount->image)->identity, identity);
	return thaw_mount_options_parse(mount->options->options, identity, err,
					&mount->fuse_options);
}

static void mount_deinit(struct mount *mount)
{
	thaw_image_free(mount->image);
	free(mount->directory);
	free(mount->fuse_options);
}

static struct fuse_session *new_session(struct mount *mount, struct thaw_worker *worker)
{
	char *argv[] = { (char *)"thaw", (char *)"-o", mount->fuse_options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *session;

	session = fuse_session_new(&args, &thaw_worker_ops, sizeof(thaw_worker_ops), worker);
	fuse_opt_free_args(&args);
	return session;
}

static int run_loop(struct fuse_session *session, const struct thaw_mount_options *options)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	unsigned threads = options->threads ? options->threads : THREADS_DEFAULT;
	int r;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(config, threads);
	fuse_loop_cfg_set_idle_threads(config, threads); /* they stay: starting one costs more */
	r = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return r > 0 ? 0 : r; /* positive: the signal that ended it */
}

/*
 * Keep what libfuse prints when mounting fails (it has no other way of saying
 * why): the last line of it becomes the error's text.
 */
static char last_complaint[256];

_printf_(2, 0)
static void keep_complaint(enum fuse_log_level level, const char *format, va_list args)
{
	size_t len;

	(void)vsnprintf(last_complaint, sizeof(last_complaint), format, args);
	len = strcspn(last_complaint, "\n");
	last_complaint[len] = '\0';
}

/* fusermount3 complains on standard error by itself; nothing to add then but that it failed. */
static int mount_failed(const struct mount *mount, struct thaw_error *err)
{
	if (access("/dev/fuse", F_OK) < 0)
		return thaw_io(err, -errno, "cannot be mounted: /dev/fuse");
	/* The complaint is the cause already: 0 adds no other. */
	(void)thaw_io(err, last_complaint[0] ? 0 : -EIO, "cannot be mounted on \"%.200s\"%s%.200s",
		      mount->directory, last_complaint[0] ? ": " : "", last_complaint);
	return -EIO;
}

/* Mount, tell, serve, unmount. Runs in the process that is to be the worker. */
static int serve(struct mount *mount, ready_fn *ready, void *ready_data, struct thaw_error *err)
{
	struct thaw_worker worker;
	struct fuse_session *session;
	int r;

	if (thaw_worker_init(&worker, mount->image, mount->name, mount->options->cache_bytes) < 0)
		return thaw_oom(err);
	fuse_set_log_func(keep_complaint);
	session = new_session(mount, &worker);
	if (!session) {
		thaw_worker_deinit(&worker);
		return thaw_io(err, -EINVAL, "cannot be mounted: %.300s", last_complaint);
	}
	if (fuse_set_signal_handlers(session) < 0 ||
	    fuse_session_mount(session, mount->directory) < 0) {
		r = mount_failed(mount, err);
	} else {
		r = ready ? ready(ready_data) : 0;
		if (r == 0)
			r = run_loop(session, mount->options);
		if (r < 0)
			(void)thaw_io(err, r, "serving failed");
		fuse_session_unmount(session);
	}
	fuse_remove_signal_handlers(session);
	fuse_session_destroy(session);
	thaw_worker_deinit(&worker);
	return r;
}

/* -- the worker as a process of its own -- */

/* What the worker writes to its parent once: how mounting went. */
struct outcome {
	int result;
	struct thaw_error err;
};

static int tell(int fd, const struct outcome *outcome)
{
	/* Smaller than PIPE_BUF: written whole or not at all. */
	return write(fd, outcome, sizeof(*outcome)) == (ssize_t)sizeof(*outcome) ? 0 : -EPIPE;
}

static int tell_ready(void *userdata)
{
	int *fd = userdata;
	struct outcome outcome = { 0 };
	int r = tell(*fd, &outcome);

	*fd = safe_close(*fd);
	return r;
}

static void detach_from_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setsid(); /* fails only for a group's leader, which a fresh child is not */
	(void)chdir("/");
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		(void)safe_close(null);
}

static void __attribute__((noreturn)) run_worker(struct mount *mount, int fd)
{
	struct outcome outcome = { 0 };

	thaw_log_open(false);
	detach_from_terminal();
	outcome.result = serve(mount, tell_ready, &fd, &outcome.err);
	if (outcome.result < 0 && fd >= 0)
		(void)tell(fd, &outcome); /* if the parent is gone, so is whom it would tell */
	else if (outcome.result < 0)
		thaw_log(3, "%s: %s", mount->name, outcome.err.text);
	_exit(outcome.result < 0 ? THAW_EXIT_IO : THAW_EXIT_OK);
}

/* Mounted is not yet serving: the first answer is what the caller waits for. */
static int wait_for_answer(const struct mount *mount, struct thaw_error *err)
{
	struct stat st;

	if (stat(mount->directory, &st) < 0)
		return thaw_io(err, -errno, "mounted, but does not answer");
	return 0;
}

static int wait_for_worker(const struct mount *mount, pid_t pid, int fd, struct thaw_error *err)
{
	struct outcome outcome;
	ssize_t n;
	int status;

	do
		n = read(fd, &outcome, sizeof(outcome));
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(outcome) && outcome.result == 0)
		return wait_for_answer(mount, err);

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n == (ssize_t)sizeof(outcome)) {
		if (err)
			*err = outcome.err;
		return outcome.result;
	}
	return thaw_io(err, -EIO, "the worker ended before it could serve");
}

static int start_worker(struct mount *mount, struct thaw_error *err)
{
	_cleanup_(closep) int reader = -1;
	_cleanup_(closep) int writer = -1;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return thaw_io(err, -errno, "no worker can be started");
	reader = fds[0];
	writer = fds[1];
	pid = fork();
	if (pid < 0)
		return thaw_io(err, -errno, "no worker can be started");
	if (pid == 0) {
		reader = safe_close(reader);
		run_worker(mount, steal_fd(&writer));
	}
	writer = safe_close(writer);
	return wait_for_worker(mount, pid, reader, err);
}

int thaw_mount(const char *image, const char *directory, const struct thaw_mount_options *options,
	       struct thaw_error *err)
{
	struct mount mount = { .name = image, .options = options };
	int r;

	r = prepare(&mount, directory, err);
	if (r == 0 && options->foreground) {
		thaw_log_open(true);
		r = serve(&mount, NULL, NULL, err);
	} else if (r == 0) {
		r = start_worker(&mount, err);
	}
	mount_deinit(&mount);
	return r;
}

/* -- unmounting -- */

/*
 * The absolute path of a mount point that may be dead: its last component must
 * not be looked at (ENOTCONN), only its parent.
 */
static int mountpoint_path(const char *directory, struct thaw_error *err, char **ret_path)
{
	_cleanup_(freep) char *copy = strdup(directory);
	_cleanup_(freep) char *parent = NULL;
	char *path, *slash;
	size_t len;

	if (!copy)
		return thaw_oom(err);
	path = realpath(directory, NULL);
	if (path) {
		*ret_path = path;
		return 0;
	}
	if (errno != ENOTCONN && errno != EIO && errno != EACCES)
		return thaw_io(err, -errno, "cannot be unmounted");
	len = strlen(copy);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
	if (!parent)
		return thaw_io(err, -errno, "cannot be unmounted");
	if (asprintf(&path, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
		     slash ? slash + 1 : copy) < 0)
		return thaw_oom(err);
	*ret_path = path;
	return 0;
}

/* An ordinary user may not unmount; fusermount3 may, and checks whose mount it is. */
static int umount_by_helper(const char *path, bool lazy, struct thaw_error *err)
{
	const char *argv[] = { "fusermount3", "-u", "-q", "--", path, NULL };
	const char *lazy_argv[] = { "fusermount3", "-u", "-q", "-z", "--", path, NULL };
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return thaw_io(err, -errno, "fusermount3 cannot be started");
	if (pid == 0) {
		execvp("fusermount3", (char *const *)(lazy ? lazy_argv : argv));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return thaw_io(err, -ENOENT, "fusermount3 (package fuse3)");
	return thaw_io(err, -EBUSY,
		       "fusermount3 did not unmount it (thaw umount --lazy detaches what is in use)");
}

int thaw_umount(const char *directory, bool lazy, struct thaw_error *err)
{
	_cleanup_(freep) char *path = NULL;
	struct thaw_mountpoint mountpoint;
	int r;

	r = mountpoint_path(directory, err, &path);
	if (r == 0)
		r = thaw_mountinfo_find(path, err, &mountpoint);
	if (r < 0)
		return r;
	if (r == THAW_NOT_FOUND)
		return thaw_refused(err, "nothing is mounted there");
	if (!mountpoint.ours)
		return thaw_refused(err, "is not a mount of thaw's");
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EPERM)
		return umount_by_helper(path, lazy, err);
	if (errno == EBUSY)
		return thaw_io(err, -EBUSY, "cannot be unmounted (--lazy detaches what is in use)");
	return thaw_io(err, -errno, "cannot be unmounted");
}
