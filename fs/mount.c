/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting an image, in the foreground or by a keeper of its own. */
#include "thaw/mount.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "connect.h"
#include "keeper-internal.h"
#include "log.h"
#include "mount-options.h"
#include "mountinfo.h"
#include "serving.h"
#include "session.h"
#include "util/cleanup.h"
#include "warmer.h"

struct mount {
	struct thaw_serving serving;
	char *directory;    /* absolute, without symlinks */
	char *fuse_options; /* for thaw_connect() */
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

static int prepare(struct mount *mount, const char *image, const char *directory,
		   struct thaw_error *err)
{
	char identity[THAW_DIGEST_HEX];
	int r;

	r = thaw_serving_init(&mount->serving, image, mount->options->warm, err);
	if (r == 0)
		r = check_directory(mount, directory, err);
	if (r == 0)
		r = check_unoccupied(mount, err);
	if (r < 0)
		return r;
	mount->serving.threads = mount->options->threads;
	mount->serving.cache_bytes = mount->options->cache_bytes;
	mount->serving.hang_ms = mount->options->hang_ms;
	r = thaw_serving_share(&mount->serving, NULL, err);
	if (r < 0)
		return r;
	thaw_digest_hex(mount->serving.identity, identity);
	return thaw_mount_options_parse(mount->options->options, identity, err,
					&mount->fuse_options);
}

static void mount_deinit(struct mount *mount)
{
	thaw_serving_deinit(&mount->serving);
	free(mount->directory);
	free(mount->fuse_options);
}

/* Mount, tell, serve, unmount. Runs in the process that is to be the keeper. */
static int serve(struct mount *mount, ready_fn *ready, void *ready_data, struct thaw_error *err)
{
	struct thaw_mountpoint own = { 0 };
	struct thaw_keeper keeper = {
		.serving = &mount->serving,
		.root_fd = -1,
		.caller_fd = -1,
		.root_path = mount->directory,
		.directory = mount->directory,
		.device = own.device,
		.foreground = mount->options->foreground,
	};
	int r;

	thaw_session_hold_signals(true);
	r = thaw_connect(mount->directory, mount->fuse_options, err, &keeper.fuse_fd);
	if (r < 0)
		return r;
	r = thaw_mountinfo_find(mount->directory, err, &own);
	if (r >= 0)
		r = ready ? ready(ready_data) : 0;
	if (r == 0) {
		keeper.root_fd = thaw_warmer_clone_mount(mount->directory);
		r = thaw_keeper_run(&keeper);
	} else {
		(void)safe_close(keeper.fuse_fd);
	}
	if (r < 0)
		(void)thaw_io(err, r, "serving failed");
	/*
	 * Not after an unmount: the device's number is free then, and may be that of
	 * the next mount here by now.
	 */
	if (r != 0)
		thaw_keeper_unmount(mount->directory, own.device);
	return r < 0 ? r : 0;
}

/* -- the keeper as a process of its own -- */

/* What the keeper holds of the pipe to its parent; open as long as it lives. */
struct teller {
	int fd;
	bool told;
};

static int tell_ready(void *userdata)
{
	struct teller *teller = userdata;

	teller->told = true;
	return thaw_keeper_tell(teller->fd, 0, NULL);
}

static void __attribute__((noreturn)) run_keeper(struct mount *mount, int fd)
{
	struct teller teller = { .fd = fd };
	struct thaw_error err = { 0 };
	int r;

	thaw_log_open(false);
	thaw_detach_from_terminal();
	r = serve(mount, tell_ready, &teller, &err);
	if (r < 0 && !teller.told)
		(void)!thaw_keeper_tell(fd, r, &err); /* if the parent is gone, so is whom it would tell */
	else if (r < 0)
		thaw_log(LOG_ERR, "%s: %s", mount->serving.name, err.text);
	_exit(r < 0 ? THAW_EXIT_IO : THAW_EXIT_OK);
}

/* Mounted is not yet serving: the first answer is what the caller waits for. */
static int wait_for_answer(const struct mount *mount, int keeper, struct thaw_error *err)
{
	struct stat st;
	int r = 0;

	if (stat(mount->directory, &st) < 0)
		r = thaw_io(err, -errno, "mounted, but the worker does not answer");
	else if (mount->options->wait_warm && !thaw_serving_wait_warm(&mount->serving, keeper))
		r = thaw_io(err, -ENOTCONN, "the keeper ended while the mount was being warmed");
	if (r < 0)
		(void)!thaw_umount(mount->directory, true, NULL); /* as far as it goes: err says why */
	return r;
}

static int wait_for_keeper(const struct mount *mount, pid_t pid, int fd, struct thaw_error *err)
{
	struct keeper_outcome outcome;
	int status, r;

	r = thaw_keeper_hear(fd, &outcome);
	if (r == 0 && outcome.result == 0)
		return wait_for_answer(mount, fd, err);

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return thaw_io(err, -EIO, "the keeper ended before it could serve");
	if (err)
		*err = outcome.err;
	return outcome.result;
}

static int start_keeper(struct mount *mount, struct thaw_error *err)
{
	_cleanup_(closep) int reader = -1;
	_cleanup_(closep) int writer = -1;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return thaw_io(err, -errno, "no keeper can be started");
	reader = fds[0];
	writer = fds[1];
	pid = fork();
	if (pid < 0)
		return thaw_io(err, -errno, "no keeper can be started");
	if (pid == 0) {
		reader = safe_close(reader);
		run_keeper(mount, steal_fd(&writer));
	}
	writer = safe_close(writer);
	return wait_for_keeper(mount, pid, reader, err);
}

int thaw_mount(const char *image, const char *directory, const struct thaw_mount_options *options,
	       struct thaw_error *err)
{
	struct mount mount = { .options = options };
	int r;

	thaw_log_open(true);
	r = prepare(&mount, image, directory, err);
	if (r == 0 && options->foreground) {
		r = serve(&mount, NULL, NULL, err);
	} else if (r == 0) {
		r = start_keeper(&mount, err);
	}
	mount_deinit(&mount);
	return r;
}
