/* SPDX-License-Identifier: Apache-2.0 */
/* Pushing warm sets. */
#include "warmer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "memory-pressure.h"
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

/* The only thing that it may do with files from here on is to list directories of the mount. */
static void restrict_to_listing(const struct thaw_warmer *warmer)
{
	struct landlock_ruleset_attr ruleset = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
				     LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
				     LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
				     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
				     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
				     LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
				     LANDLOCK_ACCESS_FS_MAKE_SYM,
	};
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_DIR,
	};
	int fd;

	fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
	if (fd < 0)
		return; /* an older kernel, or switched off */
	beneath.parent_fd = warmer->root_fd >= 0 ?
				    fcntl(warmer->root_fd, F_DUPFD_CLOEXEC, 3) :
				    open(warmer->root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (beneath.parent_fd >= 0 &&
	    syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0 &&
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		(void)syscall(SYS_landlock_restrict_self, fd, 0); /* a second fence, not the first */
	(void)safe_close(beneath.parent_fd);
	(void)safe_close(fd);
}

/* The path of an inode for the *at() calls. */
static int base_of(struct lister *lister, uint32_t ino)
{
	const struct thaw_warmer *warmer = lister->warmer;
	size_t used = 0;

	if (warmer->root_fd < 0)
		used = (size_t)snprintf(lister->path, sizeof(lister->path), "%s/", warmer->root_path);
	if (used >= sizeof(lister->path))
		used = 0; /* realpath() gave it: shorter */
	thaw_image_path(warmer->image, ino, lister->path + used, sizeof(lister->path) - used);
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

static void list_set(struct lister *lister, const struct thaw_warm *set, uint32_t ops, int progress)
{
	bool unsaid = false;

	for (uint32_t i = 0; i < ops; i++) {
		struct thaw_warm_op op;

		thaw_warm_op(set, i, &op);
		if (op.kind == THAW_WARM_PAGES) {
			/* What comes before these pages is done: the pusher waits for that. */
			if (unsaid && write(progress, &i, sizeof(i)) != (ssize_t)sizeof(i))
				_exit(1);
			unsaid = false;
			continue;
		}
		unsaid = true;
		if (op.kind == THAW_WARM_LIST) {
			list_directory(lister, op.ino);
		} else if (op.kind == THAW_WARM_LOOK) {
			look_up(lister, &op);
		} else {
			int base = base_of(lister, op.ino);

			(void)readlinkat(base, lister->path, lister->names, sizeof(lister->names));
		}
	}
	if (write(progress, &ops, sizeof(ops)) != (ssize_t)sizeof(ops))
		_exit(1);
}

static void __attribute__((noreturn)) run_lister(const struct thaw_warmer *warmer, int progress)
{
	struct lister *lister = calloc(1, sizeof(*lister));

	if (!lister)
		_exit(1);
	lister->warmer = warmer;
	lister->open_fd = -1;
	restrict_to_listing(warmer);
	if (warmer->timeline)
		thaw_timeline_set_warmer(warmer->timeline, (uint32_t)getpid());
	for (unsigned i = 0; i < warmer->warm->count; i++)
		list_set(lister, warmer->warm->sets[i], warmer->warm->infos[i].ops, progress);
	_exit(0);
}

/* -- the pusher -- */

struct pusher {
	const struct thaw_warmer *warmer;
	int progress; /* from the lister */
	uint32_t listed; /* operations of this set before which all listing is done */
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
	int r = writev(pusher->warmer->fuse_fd, iov, 3) < 0 ? -errno : 0;

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

	pusher->listed = 0;
	for (uint32_t i = 0; i < info->ops; i++) {
		struct thaw_warm_op op;
		int r;

		thaw_warm_op(set, i, &op);
		if (op.kind != THAW_WARM_PAGES) {
			need = i + 1;
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
		/* Nobody may hold both: see warmer.h. */
		(void)close(pusher->warmer->fuse_fd);
		(void)safe_close(fds[0]);
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
	const struct thaw_warm_pages *warm = pusher->warmer->warm;
	uint32_t base = 0;

	for (unsigned i = 0; i < warm->count; i++) {
		int r = push_set(pusher, warm->sets[i], &warm->infos[i], base);

		if (r < 0)
			return r;
		base += warm->infos[i].ops;
	}
	return 0;
}

static void __attribute__((noreturn)) run_pusher(const struct thaw_warmer *warmer)
{
	struct pusher pusher = { .warmer = warmer };
	int r;

	thaw_memory_open(&pusher.memory);
	r = thaw_memory_tight(&pusher.memory, 0) ? -ENOMEM : start_lister(&pusher);
	/* The mount is the lister's from here on. */
	(void)safe_close(warmer->root_fd);
	if (r == 0)
		r = push_all(&pusher);
	atomic_store(&warmer->counters->warm_state, r < 0 ? THAW_WARM_STOPPED : THAW_WARM_FINISHED);
	_exit(0);
}

int thaw_warmer_start(const struct thaw_warmer *warmer)
{
	pid_t parent = getpid(), pid;

	atomic_store(&warmer->counters->warm_pages_total, warmer->warm->pages);
	atomic_store(&warmer->counters->warm_state, THAW_WARM_RUNNING);
	pid = fork();
	if (pid == 0) {
		(void)signal(SIGCHLD, SIG_DFL); /* valid signals: cannot fail */
		(void)signal(SIGTERM, SIG_DFL);
		(void)signal(SIGINT, SIG_DFL);
		thaw_session_hold_signals(false); /* as its parent will, only sooner */
		die_with_parent(parent);
		run_pusher(warmer);
	}
	if (pid < 0) {
		atomic_store(&warmer->counters->warm_state, THAW_WARM_STOPPED);
		return -errno;
	}
	return 0;
}
