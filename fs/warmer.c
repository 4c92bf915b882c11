/* SPDX-License-Identifier: Apache-2.0 */
/* Pushing warm sets. */
#include "warmer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detached.h"
#include "memory-pressure.h"
#include "sandbox.h"
#include "serving.h"
#include "session.h"
#include "util/cleanup.h"

/* Pages between two looks at the machine's memory: 8 MiB. */
#define PRESSURE_STEP 2048u

int thaw_warmer_clone_mount(const char *path)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/* End with the parent, also when it ended before this line. */
static void die_with_parent(pid_t parent)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a valid signal: cannot fail */
	if (getppid() != parent)
		_exit(1);
}

/* -- the lister -- */

struct lister {
	const struct thaw_warmer *warmer;
	uint32_t open_ino; /* directory that is open for look-ups, or 0 */
	int open_fd;
	char path[PATH_MAX];
	char names[1 << 16]; /* what getdents64() fills and nobody reads */
};

/* The path of an inode for the *at() calls. */
static int base_of(struct lister *lister, uint32_t ino)
{
	const struct thaw_warmer *warmer = lister->warmer;
	size_t used = 0;

	if (warmer->root_fd < 0)
		used = (size_t)snprintf(lister->path, sizeof(lister->path), "%s/", warmer->root_path);
	if (used >= sizeof(lister->path))
		used = 0; /* realpath() gave it: shorter */
	thaw_image_path(warmer->serving->image, ino, lister->path + used, sizeof(lister->path) - used);
	return warmer->root_fd >= 0 ? warmer->root_fd : AT_FDCWD;
}

static int open_directory(struct lister *lister, uint32_t ino)
{
	int base = base_of(lister, ino);

	return openat(base, lister->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void list_directory(struct lister *lister, uint32_t ino)
{
	_cleanup_(closep) int fd = open_directory(lister, ino);

	while (fd >= 0 && syscall(SYS_getdents64, fd, lister->names, sizeof(lister->names)) > 0)
		;
}

static void look_up(struct lister *lister, const struct thaw_warm_op *op)
{
	char name[THAW_NAME_MAX + 1];
	struct stat st;

	if (lister->open_ino != op->ino) {
		lister->open_fd = safe_close(lister->open_fd);
		lister->open_fd = open_directory(lister, op->ino);
		lister->open_ino = op->ino;
	}
	if (lister->open_fd < 0)
		return;
	memcpy(name, op->name.text, op->name.len);
	name[op->name.len] = '\0';
	(void)fstatat(lister->open_fd, name, &st, AT_SYMLINK_NOFOLLOW); /* being asked is the point */
}

/* Operations before this one, of all sets together, are done: the pusher waits for that. */
static void say(int progress, uint32_t op)
{
	if (write(progress, &op, sizeof(op)) != (ssize_t)sizeof(op))
		_exit(1);
}

static void list_set(struct lister *lister, const struct thaw_warm *set, uint32_t ops,
		     uint32_t base, int progress)
{
	bool unsaid = false;

	for (uint32_t i = 0; i < ops; i++) {
		struct thaw_warm_op op;

		thaw_warm_op(set, i, &op);
		if (op.kind == THAW_WARM_PAGES) {
			if (unsaid)
				say(progress, base + i);
			unsaid = false;
			continue;
		}
		unsaid = true;
		if (op.kind == THAW_WARM_LIST) {
			list_directory(lister, op.ino);
		} else if (op.kind == THAW_WARM_LOOK) {
			look_up(lister, &op);
		} else {
			int at = base_of(lister, op.ino);

			(void)!readlinkat(at, lister->path, lister->names, sizeof(lister->names));
		}
	}
	if (unsaid)
		say(progress, base + ops);
}

static void __attribute__((noreturn)) run_lister(const struct thaw_warmer *warmer, int progress)
{
	struct lister *lister = calloc(1, sizeof(*lister));
	uint32_t base = 0;
	int place;

	if (!lister)
		_exit(1);
	lister->warmer = warmer;
	lister->open_fd = -1;
	place = warmer->root_fd >= 0 ? warmer->root_fd :
				       open(warmer->root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (thaw_sandbox_enter(THAW_SANDBOX_READER, place) < 0 ||
	    thaw_serving_open(warmer->serving, NULL) < 0)
		_exit(1);
	if (warmer->timeline)
		thaw_timeline_set_warmer(warmer->timeline, (uint32_t)getpid());
	for (unsigned i = 0; i < warmer->serving->warm.count; i++) {
		uint32_t ops = warmer->serving->warm.infos[i].ops;

		list_set(lister, warmer->serving->warm.sets[i], ops, base, progress);
		base += ops;
	}
	_exit(0);
}

/* -- the pusher -- */

struct pusher {
	const struct thaw_warmer *warmer;
	int fuse_fd;
	int progress;	 /* from the lister */
	uint32_t listed; /* operations, of all sets together, before which all listing is done */
	struct thaw_memory memory;
	uint64_t since_look; /* pages since memory was looked at */
};

/* 0, or -errno: -ENODEV when the mount is gone. */
static int store(const struct pusher *pusher, const struct thaw_warm_op *op, const uint8_t *data)
{
	struct fuse_notify_store_out arg = {
		.nodeid = op->ino,
		.offset = (uint64_t)op->first * THAW_PAGE_SIZE,
		.size = op->length,
	};
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + sizeof(arg) + op->length),
		.error = FUSE_NOTIFY_STORE, /* a notification: no request has this for a result */
	};
	struct iovec iov[] = {
		{ .iov_base = &header, .iov_len = sizeof(header) },
		{ .iov_base = &arg, .iov_len = sizeof(arg) },
		{ .iov_base = (void *)data, .iov_len = op->length },
	};

	struct thaw_timeline *timeline = pusher->warmer->timeline;
	struct thaw_timeline_event event = {
		.kind = THAW_TIMELINE_PUSH,
		.ino = op->ino,
		.first = op->first,
		.bytes = op->length,
		.began = timeline ? thaw_timeline_now() : 0,
	};
	int r = writev(pusher->fuse_fd, iov, 3) < 0 ? -errno : 0;

	if (timeline && r == 0)
		thaw_timeline_add(timeline, &event);
	return r;
}

static int wait_for_lister(struct pusher *pusher, uint32_t op)
{
	while (pusher->listed < op) {
		uint32_t said;

		if (read(pusher->progress, &said, sizeof(said)) != (ssize_t)sizeof(said))
			return -EPIPE;
		pusher->listed = said;
	}
	return 0;
}

static int push_op(struct pusher *pusher, const struct thaw_warm_op *op, const uint8_t *data)
{
	struct thaw_counters *counters = pusher->warmer->counters;
	int r = store(pusher, op, data);

	if (r == -ENODEV)
		return r;
	/* ENOENT: the kernel has forgotten the inode, or the listing failed. Not worth more. */
	if (r == 0)
		count_add(&counters->warm_pages, op->count);
	pusher->since_look += op->count;
	if (pusher->since_look < PRESSURE_STEP)
		return 0;
	pusher->since_look = 0;
	return thaw_memory_tight(&pusher->memory, PRESSURE_STEP * (uint64_t)THAW_PAGE_SIZE) ? -ENOMEM :
											     0;
}

static int load_frame(const struct pusher *pusher, struct thaw_warm *set, uint32_t frame,
		      uint8_t *buf, struct thaw_error *err)
{
	struct thaw_timeline *timeline = pusher->warmer->timeline;
	struct thaw_timeline_event event = {
		.kind = THAW_TIMELINE_WARM_FRAME,
		.bytes = thaw_warm_frame_size(set, frame),
		.began = timeline ? thaw_timeline_now() : 0,
	};
	int r = thaw_warm_frame(set, frame, buf, err);

	if (timeline)
		thaw_timeline_add(timeline, &event);
	return r;
}

static int push_set(struct pusher *pusher, struct thaw_warm *set,
		    const struct thaw_warm_info *info, uint32_t base)
{
	_cleanup_(freep) uint8_t *buf = malloc(THAW_FRAME_USIZE_MAX);
	uint32_t frame = 0, size = 0, used = 0, need = 0;
	struct thaw_error err;

	for (uint32_t i = 0; i < info->ops; i++) {
		struct thaw_warm_op op;
		int r;

		thaw_warm_op(set, i, &op);
		if (op.kind != THAW_WARM_PAGES) {
			need = base + i + 1;
			continue;
		}
		if (used == size) {
			size = thaw_warm_frame_size(set, frame);
			r = buf ? load_frame(pusher, set, frame++, buf, &err) : -ENOMEM;
			if (r < 0)
				return r;
			used = 0;
		}
		r = wait_for_lister(pusher, need);
		if (r == 0)
			r = push_op(pusher, &op, buf + used);
		if (r < 0)
			return r;
		used += op.length;
		atomic_store_explicit(&pusher->warmer->counters->warm_done, base + i + 1,
				      memory_order_relaxed);
	}
	return wait_for_lister(pusher, need);
}

static int start_lister(struct pusher *pusher)
{
	pid_t parent = getpid(), pid;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		const int keep[] = { pusher->warmer->root_fd, fds[1],
				     pusher->warmer->serving->index_fd };

		/* Nobody may hold both: see warmer.h. */
		thaw_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
		die_with_parent(parent);
		run_lister(pusher->warmer, fds[1]);
	}
	(void)safe_close(fds[1]);
	if (pid < 0) {
		(void)safe_close(fds[0]);
		return -errno;
	}
	pusher->progress = fds[0];
	return 0;
}

static int push_all(struct pusher *pusher)
{
	const struct thaw_warm_pages *warm = &pusher->warmer->serving->warm;
	uint32_t base = 0;

	for (unsigned i = 0; i < warm->count; i++) {
		int r = push_set(pusher, warm->sets[i], &warm->infos[i], base);

		if (r < 0)
			return r;
		base += warm->infos[i].ops;
	}
	return 0;
}

/*
 * A device of our own on the connection. What a worker has read and not answered
 * ends with the device of workers and keeper, if all of them have died; were the
 * two one, it would wait for us. The old one if there is no other.
 */
static int clone_device(int fuse_fd)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	uint32_t old = (uint32_t)fuse_fd;

	if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &old) < 0)
		fd = safe_close(fd);
	if (fd < 0)
		return fuse_fd;
	(void)close(fuse_fd);
	return fd;
}

static void __attribute__((noreturn)) run_pusher(const struct thaw_warmer *warmer)
{
	const int keep[] = { warmer->fuse_fd, warmer->root_fd, warmer->serving->image_fd,
			     warmer->serving->index_fd };
	struct pusher pusher = { .warmer = warmer };
	int r;

	thaw_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
	pusher.fuse_fd = clone_device(warmer->fuse_fd);
	thaw_memory_open(&pusher.memory);
	r = thaw_memory_tight(&pusher.memory, 0) ? -ENOMEM : start_lister(&pusher);
	/* The mount is the lister's from here on. */
	(void)safe_close(warmer->root_fd);
	if (r == 0)
		r = thaw_sandbox_enter(THAW_SANDBOX_PUSHER, -1);
	if (r == 0)
		r = thaw_serving_open(warmer->serving, NULL);
	if (r == 0)
		r = push_all(&pusher);
	atomic_store(&warmer->counters->warm_state, r < 0 ? THAW_WARM_STOPPED : THAW_WARM_FINISHED);
	_exit(0);
}

int thaw_warmer_start(struct thaw_warmer *warmer)
{
	pid_t parent = getpid(), pid;

	atomic_store(&warmer->counters->warm_pages_total, warmer->serving->warm_pages);
	atomic_store(&warmer->counters->warm_state, THAW_WARM_RUNNING);
	pid = fork();
	if (pid == 0) {
		thaw_session_hold_signals(false); /* it may be ended at any time */
		die_with_parent(parent);
		run_pusher(warmer);
	}
	if (pid < 0) {
		atomic_store(&warmer->counters->warm_state, THAW_WARM_STOPPED);
		return -errno;
	}
	warmer->pid = pid;
	warmer->ended_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return 0;
}

bool thaw_warmer_reap(struct thaw_warmer *warmer)
{
	uint32_t running = THAW_WARM_RUNNING;

	if (warmer->pid <= 0)
		return true;
	if (waitpid(warmer->pid, NULL, WNOHANG) == 0)
		return false;
	warmer->pid = 0;
	warmer->ended_fd = safe_close(warmer->ended_fd);
	/* One that was killed must not look as if it were still at work. */
	atomic_compare_exchange_strong(&warmer->counters->warm_state, &running,
				       THAW_WARM_STOPPED);
	return true;
}

void thaw_warmer_kill(struct thaw_warmer *warmer)
{
	if (warmer->pid > 0)
		(void)kill(warmer->pid, SIGKILL); /* not yet reaped: it is still ours */
}
