/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trial of a view: everything that one needs is mounted once, over a FUSE
 * file system that has one empty directory and a server of thirty lines.
 *
 * Who may hang: overlayfs and stat(2) wait for the server. So it is a process of
 * its own that ends by itself (alarm), and the only one to hold the device: with it
 * the connection ends, and with that every wait.
 */
#include "probe-trial.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "connect.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define SERVER_SECONDS 3
#define TRIAL_MS       5000

/* -- the server -- */

static void answer(int fd, uint64_t unique, int error, const void *data, size_t len)
{
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + len),
		.error = error,
		.unique = unique,
	};
	uint8_t buf[256];

	memcpy(buf, &header, sizeof(header));
	if (len)
		memcpy(buf + sizeof(header), data, len);
	/* Refused: the request was interrupted meanwhile. */
	if (write(fd, buf, sizeof(header) + len) < 0)
		return;
}

static void answer_one(int fd, const struct fuse_in_header *request)
{
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 31,
		.max_write = 4096,
	};
	struct fuse_attr_out attr = {
		.attr = { .ino = 1, .mode = S_IFDIR | 0755, .nlink = 2, .blksize = 4096 },
	};
	struct fuse_statfs_out statfs = { .st = { .bsize = 4096, .namelen = 255 } };

	switch (request->opcode) {
	case FUSE_INIT:
		answer(fd, request->unique, 0, &init, sizeof(init));
		break;
	case FUSE_GETATTR:
		attr.attr.uid = getuid();
		attr.attr.gid = getgid();
		answer(fd, request->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_STATFS:
		answer(fd, request->unique, 0, &statfs, sizeof(statfs));
		break;
	case FUSE_LOOKUP:
		answer(fd, request->unique, -ENOENT, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		answer(fd, request->unique, -ENOSYS, NULL, 0);
	}
}

static void __attribute__((noreturn)) serve(int fd)
{
	static uint8_t buf[1u << 16] __attribute__((aligned(8)));

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* cannot fail */
	(void)signal(SIGALRM, SIG_DFL);
	(void)alarm(SERVER_SECONDS);
	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
			continue;
		if (n < (ssize_t)sizeof(struct fuse_in_header))
			_exit(0); /* unmounted */
		answer_one(fd, (const struct fuse_in_header *)buf);
	}
}

/* -- the child -- */

struct child {
	const struct thaw_trial_options *options;
	struct thaw_trial trial;
	int scratch; /* descriptor: the tmpfs may hide the path. Opened in the namespace, as overlayfs wants */
	int fuse;
	pid_t server;
	char base[16]; /* where the tmpfs is */
};

static bool step(struct child *child, enum thaw_trial_step which, bool works,
		 const char *what)
{
	if (works)
		return true;
	child->trial.failed = which;
	/* unshare(2) says ENOSPC for a limit. */
	(void)snprintf(child->trial.why, sizeof(child->trial.why), "%s: %s", what,
		       errno == ENOSPC && which <= THAW_TRIAL_MOUNT_NAMESPACE
			       ? "the limit is reached"
			       : strerror(errno));
	return false;
}

static bool write_text(const char *path, const char *text)
{
	_cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write_all(fd, text, strlen(text)) == 0;
}

static bool enter_user_namespace(struct child *child)
{
	unsigned uid = geteuid(), gid = getegid();
	char uids[32], gids[32];

	(void)snprintf(uids, sizeof(uids), "%u %u 1", uid, uid);
	(void)snprintf(gids, sizeof(gids), "%u %u 1", gid, gid);
	if (!step(child, THAW_TRIAL_USER_NAMESPACE, unshare(CLONE_NEWUSER) == 0,
		  "no user namespace can be made"))
		return false;
	(void)write_text("/proc/self/setgroups",
			 "deny"); /* before the group map, where it exists */
	return step(child, THAW_TRIAL_USER_NAMESPACE,
		    write_text("/proc/self/uid_map", uids) &&
			    write_text("/proc/self/gid_map", gids),
		    "the user namespace cannot be set up");
}

static bool enter_mount_namespace(struct child *child)
{
	if (!step(child, THAW_TRIAL_MOUNT_NAMESPACE, unshare(CLONE_NEWNS) == 0,
		  "no mount namespace can be made"))
		return false;
	return step(child, THAW_TRIAL_MOUNT_NAMESPACE,
		    mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0,
		    "mounts cannot be made private");
}

static bool mount_tmpfs(struct child *child)
{
	static const char *const places[] = { "/tmp", "/var/tmp", "/run", "/mnt",
					      "/home" };
	static const char *const directories[] = { "fuse", "a", "b", "view" };
	bool mounted = false;
	char path[64];

	for (unsigned i = 0; !mounted && i < sizeof(places) / sizeof(places[0]); i++) {
		(void)snprintf(child->base, sizeof(child->base), "%s", places[i]);
		mounted = mount("thaw-probe", child->base, "tmpfs", MS_NOSUID | MS_NODEV,
				"size=64k,mode=0700") == 0;
		if (!mounted && errno != ENOENT)
			break;
	}
	if (!step(child, THAW_TRIAL_TMPFS, mounted, "no tmpfs can be mounted"))
		return false;
	for (unsigned i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", child->base, directories[i]);
		if (!step(child, THAW_TRIAL_TMPFS, mkdir(path, 0755) == 0,
			  "a tmpfs cannot be used"))
			return false;
	}
	return true;
}

static bool mount_fuse(struct child *child)
{
	char path[64], options[128];
	struct stat st;

	child->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (!step(child, THAW_TRIAL_DEVICE, child->fuse >= 0, "/dev/fuse"))
		return false;
	(void)snprintf(path, sizeof(path), "%s/fuse", child->base);
	(void)snprintf(options, sizeof(options),
		       "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other",
		       child->fuse, (unsigned)getuid(), (unsigned)getgid());
	if (!step(child, THAW_TRIAL_FUSE,
		  mount("thaw-probe", path, "fuse.thaw-probe",
			MS_RDONLY | MS_NOSUID | MS_NODEV, options) == 0,
		  "FUSE cannot be mounted"))
		return false;
	child->server = fork();
	if (child->server == 0)
		serve(child->fuse);
	/* From here on the server alone holds it. */
	child->fuse = safe_close(child->fuse);
	if (!step(child, THAW_TRIAL_FUSE, child->server > 0, "no server can be started"))
		return false;
	return step(child, THAW_TRIAL_FUSE, stat(path, &st) == 0 && S_ISDIR(st.st_mode),
		    "a FUSE mount does not answer");
}

static bool mount_overlay(struct child *child, enum thaw_trial_step which,
			  const char *lower, const char *what)
{
	const char *userxattr = child->options->user_namespace ? ",userxattr" : "";
	char path[64], data[256];
	struct stat st;
	unsigned long flags = MS_NOSUID | MS_NODEV;
	const char *base = child->base;

	(void)snprintf(path, sizeof(path), "%s/view", base);
	if (which == THAW_TRIAL_SCRATCH)
		(void)snprintf(
			data, sizeof(data),
			"lowerdir=%s/%s,upperdir=/proc/self/fd/%d/upper,workdir=/proc/self/fd/%d/work%s",
			base, lower, child->scratch, child->scratch, userxattr);
	else
		(void)snprintf(data, sizeof(data), "lowerdir=%s/%s:%s/b%s", base, lower,
			       base, userxattr);
	if (which != THAW_TRIAL_SCRATCH)
		flags |= MS_RDONLY;
	if (!step(child, which, mount("thaw-probe", path, "overlay", flags, data) == 0,
		  what))
		return false;
	if (which == THAW_TRIAL_SCRATCH) {
		(void)snprintf(data, sizeof(data), "%s/view/made", base);
		if (!step(child, which, mkdir(data, 0755) == 0 && rmdir(data) == 0,
			  "a scratch layer cannot be written"))
			return false;
	}
	return step(child, which, stat(path, &st) == 0 && umount2(path, MNT_DETACH) == 0,
		    what);
}

static void try_all(struct child *child)
{
	child->trial.failed = THAW_TRIAL_DONE;
	if (child->options->user_namespace && !enter_user_namespace(child))
		return;
	if (!enter_mount_namespace(child))
		return;
	if (child->options->scratch)
		child->scratch = open(child->options->scratch,
				      O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (!mount_tmpfs(child))
		return;
	/* Without FUSE, too: what the overlay says is worth knowing anyway. */
	if (!mount_overlay(child, THAW_TRIAL_OVERLAY, "a", "overlayfs cannot be mounted"))
		return;
	if (!mount_fuse(child) || !mount_overlay(child, THAW_TRIAL_OVERLAY_FUSE, "fuse",
						 "overlayfs cannot be mounted over FUSE"))
		return;
	if (child->scratch >= 0)
		(void)mount_overlay(child, THAW_TRIAL_SCRATCH, "a",
				    "overlayfs takes no scratch layer there");
}

static void __attribute__((noreturn))
run_child(const struct thaw_trial_options *options, int pipe, pid_t parent)
{
	struct child child = {
		.options = options, .scratch = -1, .fuse = -1, .server = -1
	};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* cannot fail */
	if (getppid() != parent)
		_exit(1);
	try_all(&child);
	if (child.server > 0) {
		(void)kill(child.server, SIGKILL);    /* ours, and not waited for yet */
		(void)waitpid(child.server, NULL, 0); /* nobody else's to reap */
	}
	_exit(write_all(pipe, &child.trial, sizeof(child.trial)) < 0);
}

/* -- the parent -- */

static bool wait_readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	int r;

	do
		r = poll(&pollfd, 1, TRIAL_MS);
	while (r < 0 && errno == EINTR);
	return r > 0;
}

void thaw_trial_run(const struct thaw_trial_options *options,
		    struct thaw_trial *ret_trial)
{
	struct thaw_trial trial = { .failed = THAW_TRIAL_START };
	pid_t parent = getpid(), pid = -1;
	int pipes[2];

	*ret_trial = trial;
	if (pipe2(pipes, O_CLOEXEC) == 0) {
		pid = fork();
		if (pid == 0) {
			(void)close(pipes[0]);
			run_child(options, pipes[1], parent);
		}
		(void)safe_close(pipes[1]);
		if (pid < 0)
			(void)safe_close(pipes[0]);
	}
	if (pid < 0) {
		(void)snprintf(ret_trial->why, sizeof(ret_trial->why),
			       "no process can be started: %s", strerror(errno));
		return;
	}
	if (wait_readable(pipes[0]) &&
	    read(pipes[0], &trial, sizeof(trial)) == sizeof(trial)) {
		*ret_trial = trial;
		ret_trial->why[sizeof(ret_trial->why) - 1] = '\0';
	} else {
		(void)snprintf(ret_trial->why, sizeof(ret_trial->why),
			       "the trial hung or was killed");
		(void)kill(pid, SIGKILL); /* ours, and not waited for yet */
	}
	(void)safe_close(pipes[0]);
	/* The server ends by itself: this cannot wait for longer than that. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}
