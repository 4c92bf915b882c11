/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the mount for what will be asked for. */
#include "scout.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lookahead.h"
#include "sandbox.h"
#include "serving.h"
#include "thaw/library.h"
#include "thaw/trace.h"
#include "util/cleanup.h"
#include "warmer.h"

/*
 * For how long the mount is kept when nothing is done any more: so much longer
 * the worker may live than the mount.
 */
#define IDLE_MS 500
/* A job that nobody's requests have followed for so long is not for an import. */
#define STALE_US 2000000u
/*
 * Of one job, in bytes. Of what numpy, pandas, pyarrow and scikit-learn import, libarrow and
 * the standard library's bytecode are the largest: 6 MiB each.
 */
#define JOB_MAX (64ull << 20)
/* What is read at once, at multiples of it: as the kernel's readahead does. */
#define STEP (128ull << 10)
/* Libraries up to this size are read whole: see scout.h. */
#define SMALL_LIBRARY (2ull << 20)
/* Larger than any module's; what is larger is left to who wants it. */
#define BYTECODE_MAX (1ull << 20)
/* Jobs that wait: for imports within imports, and libraries that need others. */
#define JOBS 16u
#define MISSED 4u
#define INIT "__init__.py"

/* The newest job comes first: an import waits for those within it. */
struct job {
	struct thaw_inode inode; /* a directory, or a library */
	uint64_t next;		 /* of a directory: its child */
	uint64_t bytes;		 /* read, or to be read */
	unsigned extents;	 /* of a library: how many are left */
	struct thaw_extent extent[THAW_LIBRARY_EXTENTS]; /* within the file; the last is next */
};

struct jobs {
	struct job job[JOBS];
	unsigned count;
};

struct scout {
	const struct thaw_image *image;
	const char *root_path;
	int root; /* clone of the mount; -1 while it is not held */
	dev_t device; /* of the mount */
	int socket;
	struct jobs packages; /* directories whose packages are to be looked at */
	struct jobs files;    /* directories and libraries to be read */
	uint8_t *done;	      /* a bit for each inode: there was a job for it */
	unsigned missed;
	char missed_names[MISSED][sizeof(((struct thaw_hint *)NULL)->name)];
	char path[PATH_MAX];
	char names[1 << 16]; /* what getdents64() fills and nobody reads */
};

/* -- asking -- */

/* Something else may have been mounted at that path meanwhile. */
static int clone_root(const struct scout *scout)
{
	_cleanup_(closep) int fd = thaw_warmer_clone_mount(scout->root_path);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == scout->device ? steal_fd(&fd) : -1;
}

static int open_inode(struct scout *scout, uint32_t ino, int flags)
{
	if (scout->root < 0)
		scout->root = clone_root(scout);
	if (scout->root < 0)
		return -1;
	thaw_image_path(scout->image, ino, scout->path, sizeof(scout->path));
	return openat(scout->root, scout->path,
		      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags);
}

static int list_directory(struct scout *scout, uint32_t ino)
{
	int fd = open_inode(scout, ino, O_DIRECTORY);

	while (fd >= 0 && syscall(SYS_getdents64, fd, scout->names, sizeof(scout->names)) > 0)
		;
	return fd;
}

static void list_bytecode(struct scout *scout, uint32_t package)
{
	struct thaw_inode inode;

	if (thaw_image_lookup(scout->image, package, THAW_BYTECODE, strlen(THAW_BYTECODE),
			      &inode) == 0 &&
	    inode.type == THAW_DIRECTORY)
		(void)safe_close(list_directory(scout, inode.ino));
}

static void look_at_package(struct scout *scout, uint32_t ino)
{
	_cleanup_(closep) int fd = list_directory(scout, ino);
	struct stat st;

	for (unsigned i = 0; fd >= 0 && i < scout->missed; i++)
		(void)fstatat(fd, scout->missed_names[i], &st, AT_SYMLINK_NOFOLLOW);
	list_bytecode(scout, ino);
}

/* To the next multiple of STEP at most; false when that failed. */
static bool read_step(int fd, uint64_t *at, uint64_t end)
{
	uint64_t stop = (*at / STEP + 1) * STEP;
	char last;

	if (stop > end)
		stop = end;
	/* The kernel reads at once, whatever it thinks of reading ahead; then wait for it. */
	if (readahead(fd, (off64_t)*at, (size_t)(stop - *at)) < 0 ||
	    pread(fd, &last, 1, (off_t)stop - 1) != 1)
		return false;
	*at = stop;
	return true;
}

static void read_file(struct scout *scout, const struct thaw_inode *file)
{
	_cleanup_(closep) int fd = open_inode(scout, file->ino, 0);
	uint64_t at = 0;

	while (fd >= 0 && at < file->size && read_step(fd, &at, file->size))
		;
}

/* -- jobs -- */

/* Room for another; what has waited longest gives way. */
static struct job *add_job(struct jobs *jobs, const struct thaw_inode *inode)
{
	if (jobs->count == JOBS)
		memmove(jobs->job, jobs->job + 1, --jobs->count * sizeof(*jobs->job));
	jobs->job[jobs->count] = (struct job){ .inode = *inode };
	return &jobs->job[jobs->count++];
}

/* Of each inode one job in all: what the kernel had once is not fetched again. */
static bool is_new(struct scout *scout, uint32_t ino)
{
	uint8_t bit = (uint8_t)(1u << ino % 8);
	bool known = scout->done[ino / 8] & bit;

	scout->done[ino / 8] |= bit;
	return !known;
}

static void add_directory(struct scout *scout, struct jobs *jobs, uint32_t ino)
{
	struct thaw_inode inode;

	if (thaw_image_inode(scout->image, ino, &inode) == 0 &&
	    inode.type == THAW_DIRECTORY && is_new(scout, ino))
		(void)add_job(jobs, &inode);
}

/* As the file says it. */
static unsigned extents_of(struct scout *scout, const struct thaw_inode *file,
			   struct thaw_extent *ret_extents)
{
	_cleanup_(closep) int fd = -1;
	ssize_t n;

	if (file->size <= SMALL_LIBRARY) {
		ret_extents[0] = (struct thaw_extent){ .size = file->size };
		return 1;
	}
	fd = open_inode(scout, file->ino, 0);
	n = fd < 0 ? -1 : pread(fd, scout->names, THAW_PAGE_SIZE, 0);
	return n < 0 ? 0 :
		       thaw_library_extents((const uint8_t *)scout->names, (size_t)n, ret_extents);
}

static void add_library(struct scout *scout, const struct thaw_inode *file)
{
	struct thaw_extent extents[THAW_LIBRARY_EXTENTS];
	unsigned count;
	struct job *job;

	if (file->type != THAW_REGULAR || !is_new(scout, file->ino))
		return;
	count = extents_of(scout, file, extents);
	if (count == 0)
		return;
	job = add_job(&scout->files, file);
	for (unsigned i = count; i-- > 0;) {
		if (extents[i].size == 0 || extents[i].offset >= file->size ||
		    extents[i].size > file->size - extents[i].offset ||
		    extents[i].size > JOB_MAX - job->bytes)
			continue;
		job->bytes += extents[i].size;
		job->extent[job->extents++] = extents[i];
	}
}

/* A step of a job; whether others follow, here and below. */
static bool library_step(struct scout *scout, struct job *job)
{
	_cleanup_(closep) int fd = -1;
	struct thaw_extent *extent;
	uint64_t end;

	if (job->extents == 0)
		return false; /* none of those that it named were within it */
	extent = &job->extent[job->extents - 1];
	end = extent->offset + extent->size;
	fd = open_inode(scout, job->inode.ino, 0);
	if (fd < 0 || !read_step(fd, &extent->offset, end))
		return false;
	extent->size = end - extent->offset;
	if (extent->size == 0)
		job->extents--;
	return job->extents > 0;
}

static bool is_package(const struct scout *scout, const struct thaw_inode *inode)
{
	struct thaw_inode init;

	return inode->type == THAW_DIRECTORY &&
	       thaw_image_lookup(scout->image, inode->ino, INIT, strlen(INIT), &init) == 0;
}

static bool is_module(const struct scout *scout, const struct thaw_inode *inode)
{
	return inode->type == THAW_REGULAR && inode->size <= BYTECODE_MAX;
}

/* The next of its children that is wanted; false at the end. */
static bool next_child(const struct scout *scout, struct job *job,
		       bool (*wanted)(const struct scout *, const struct thaw_inode *),
		       struct thaw_inode *ret_child)
{
	struct thaw_name name;

	while (job->next < job->inode.size) {
		thaw_image_child(scout->image, &job->inode, job->next++, &name, ret_child);
		if (wanted(scout, ret_child))
			return true;
	}
	return false;
}

static bool package_step(struct scout *scout, struct job *job)
{
	struct thaw_inode package;

	if (!next_child(scout, job, is_package, &package))
		return false;
	look_at_package(scout, package.ino);
	return true;
}

static bool bytecode_step(struct scout *scout, struct job *job)
{
	struct thaw_inode module;

	if (!next_child(scout, job, is_module, &module))
		return false;
	job->bytes += module.size;
	if (job->bytes > JOB_MAX)
		return false;
	read_file(scout, &module);
	return true;
}

static bool file_step(struct scout *scout, struct job *job)
{
	return job->inode.type == THAW_REGULAR ? library_step(scout, job) :
						 bytecode_step(scout, job);
}

/* A step of the newest job. */
static void work(struct scout *scout, struct jobs *jobs,
		 bool (*step)(struct scout *, struct job *))
{
	if (jobs->count > 0 && !step(scout, &jobs->job[jobs->count - 1]))
		jobs->count--;
}

/* -- hints -- */

static void learn_name(struct scout *scout, const char *name)
{
	if (strncmp(name, THAW_MISSED_PREFIX, strlen(THAW_MISSED_PREFIX)) != 0 ||
	    strchr(name, '/'))
		return; /* no worker that is itself says that */
	for (unsigned i = 0; i < scout->missed; i++)
		if (strcmp(scout->missed_names[i], name) == 0)
			return;
	if (scout->missed < MISSED)
		strcpy(scout->missed_names[scout->missed++], name); /* of the same size */
}

static void read_bytecode(struct scout *scout, const struct thaw_inode *file)
{
	struct thaw_inode directory, bytecode;

	if (thaw_image_inode(scout->image, file->parent, &directory) < 0 ||
	    thaw_image_lookup(scout->image, directory.parent, THAW_BYTECODE,
			      strlen(THAW_BYTECODE), &bytecode) != 0 ||
	    bytecode.ino != directory.ino)
		return; /* bytecode without a source beside it, or a file that begins like it */
	add_directory(scout, &scout->files, directory.ino);
	add_directory(scout, &scout->packages, directory.parent);
}

static void take(struct scout *scout, struct thaw_hint *hint)
{
	struct thaw_inode inode;

	hint->name[sizeof(hint->name) - 1] = '\0';
	if (hint->kind == THAW_HINT_MISSED)
		learn_name(scout, hint->name);
	else if (thaw_image_inode(scout->image, hint->ino, &inode) < 0)
		return;
	else if (hint->kind == THAW_HINT_LIBRARY)
		add_library(scout, &inode);
	else if (hint->kind == THAW_HINT_BYTECODE)
		read_bytecode(scout, &inode);
	else if (hint->kind == THAW_HINT_LISTED) {
		list_bytecode(scout, hint->ino);
		add_directory(scout, &scout->packages, hint->ino);
	}
}

static void __attribute__((noreturn)) run(struct scout *scout)
{
	struct pollfd hints = { .fd = scout->socket, .events = POLLIN };
	uint64_t told = 0; /* when */

	for (;;) {
		bool busy = scout->packages.count > 0 || scout->files.count > 0;
		struct thaw_hint hint;
		int r = poll(&hints, 1, busy ? 0 : scout->root >= 0 ? IDLE_MS : -1);

		if (r < 0 && errno != EINTR)
			_exit(1);
		if (r < 0)
			continue;
		if (r > 0) {
			told = thaw_timeline_now();
			if (recv(scout->socket, &hint, sizeof(hint), 0) != (ssize_t)sizeof(hint))
				_exit(0); /* the worker has ended */
			take(scout, &hint);
		} else if (busy && thaw_timeline_now() - told > STALE_US) {
			scout->packages.count = scout->files.count = 0;
		} else if (busy) {
			work(scout, &scout->packages, package_step);
			work(scout, &scout->files, file_step);
		} else {
			if (!scout->root_path)
				_exit(0); /* there is no way back to the mount */
			scout->root = safe_close(scout->root);
		}
	}
}

void thaw_scout_run(const struct thaw_lookahead *lookahead, int socket)
{
	struct scout *scout = calloc(1, sizeof(*scout));
	int high_socket = fcntl(socket, F_DUPFD_CLOEXEC, 10);
	int high_root = fcntl(lookahead->root_fd, F_DUPFD_CLOEXEC, 10);
	struct thaw_serving *serving = lookahead->serving;
	int high_index = fcntl(serving->index_fd, F_DUPFD_CLOEXEC, 10); /* -1: there is none */
	struct stat st;

	/* Keep nothing of the worker's, least of all the FUSE descriptor. */
	if (!scout || high_socket < 0 || high_root < 0 || dup3(high_socket, 3, O_CLOEXEC) < 0 ||
	    dup3(high_root, 4, O_CLOEXEC) < 0)
		_exit(1);
	if (high_index >= 0)
		serving->index_fd = dup3(high_index, 5, O_CLOEXEC);
	if (syscall(SYS_close_range, high_index >= 0 ? 6 : 5, ~0u, 0) < 0)
		_exit(1);
	scout->root_path = lookahead->root_path;
	scout->socket = 3;
	scout->root = 4;
	if (fstat(scout->root, &st) < 0)
		_exit(1);
	scout->device = st.st_dev;
	if (thaw_sandbox_enter(scout->root_path ? THAW_SANDBOX_CLONER : THAW_SANDBOX_READER,
			       scout->root) < 0 ||
	    thaw_serving_open(serving, NULL) < 0)
		_exit(1);
	scout->image = serving->image;
	scout->done = calloc(thaw_image_info(scout->image)->inodes / 8 + 1, 1);
	if (!scout->done)
		_exit(1);
	if (lookahead->timeline)
		thaw_timeline_set_warmer(lookahead->timeline, (uint32_t)getpid());
	run(scout);
}
