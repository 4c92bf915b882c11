/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE operations. A round trip costs 30-60 us because it wakes another CPU, so
 * the point of everything here is to be asked once: answers are valid for ever
 * (an image never changes), names that do not exist are answered and cached
 * too, listings carry attributes, and open, opendir, flush and xattrs are
 * declined in the way that makes the kernel stop asking.
 */
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "counters.h"
#include "keeper-state.h"
#include "log.h"
#include "lookahead.h"
#include "thaw/trace.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "warm-pages.h"

#define FOREVER ((double)(1u << 30)) /* seconds; kernels clamp what they cannot count */
#define BLOCK_SIZE 4096u
/* Readahead in flight; the default of 12 leaves threads idle during a parallel read. */
#define MAX_BACKGROUND 64u

static struct thaw_worker *worker_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static mode_t type_bits(enum thaw_inode_type type)
{
	return type == THAW_DIRECTORY ? S_IFDIR : type == THAW_SYMLINK ? S_IFLNK : S_IFREG;
}

static void fill_stat(const struct thaw_worker *worker, const struct thaw_inode *inode,
		      struct stat *st)
{
	/* A directory's "size" is a count of names, which nobody expects there. */
	uint64_t size = inode->type == THAW_DIRECTORY ? BLOCK_SIZE : inode->size;

	*st = (struct stat){
		.st_ino = inode->ino,
		.st_mode = type_bits(inode->type) | inode->mode,
		.st_nlink = inode->nlink,
		.st_uid = worker->uid,
		.st_gid = worker->gid,
		.st_size = (off_t)size,
		.st_blksize = BLOCK_SIZE,
		.st_blocks = (blkcnt_t)((size + 511) / 512),
		.st_atim.tv_sec = inode->mtime,
		.st_mtim.tv_sec = inode->mtime,
		.st_ctim.tv_sec = inode->mtime,
	};
}

static void fill_entry(const struct thaw_worker *worker, const struct thaw_inode *inode,
		       struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){
		.ino = inode->ino,
		.attr_timeout = FOREVER,
		.entry_timeout = FOREVER,
	};
	fill_stat(worker, inode, &entry->attr);
}

static void worker_setup(void *userdata, struct fuse_conn_info *conn)
{
	const unsigned wanted = FUSE_CAP_READDIRPLUS | FUSE_CAP_CACHE_SYMLINKS |
				FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_NO_OPEN_SUPPORT |
				FUSE_CAP_NO_OPENDIR_SUPPORT | FUSE_CAP_ASYNC_READ |
				FUSE_CAP_IOCTL_DIR;
	const struct thaw_worker *worker = userdata;

	/* "auto" would list plainly first, and then look each name up. */
	conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA);
	conn->want |= wanted & conn->capable;
	if (worker->no_readahead)
		conn->max_readahead = 0;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND;
}

static void worker_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct thaw_worker *worker = worker_of(req);
	struct fuse_entry_param entry = { .entry_timeout = FOREVER };
	struct thaw_inode inode;
	size_t len = strlen(name);
	int r;

	/* From FUSE's side the kernel allows 1,024 bytes. */
	if (len > THAW_NAME_MAX) {
		(void)fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	r = thaw_image_lookup(worker->image, parent, name, len, &inode);
	if (r < 0) {
		(void)fuse_reply_err(req, r == -ENOTDIR ? ENOTDIR : ESTALE);
		return;
	}
	if (worker->trace)
		thaw_trace_add(worker->trace, r == 0 ? THAW_TRACE_FOUND : THAW_TRACE_MISSED,
			       (uint32_t)parent, name, len);
	/* Inode 0 with a timeout: "no such name", to be remembered. */
	if (r == 0)
		fill_entry(worker, &inode, &entry);
	else
		thaw_lookahead_missed(worker->lookahead, fuse_req_ctx(req)->pid, name, len);
	(void)fuse_reply_entry(req, &entry); /* fails only if the request is gone, here and below */
}

static void worker_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct thaw_worker *worker = worker_of(req);
	struct thaw_inode inode;
	struct stat st;

	if (thaw_image_inode(worker->image, ino, &inode) < 0) {
		(void)fuse_reply_err(req, ESTALE);
		return;
	}
	fill_stat(worker, &inode, &st);
	(void)fuse_reply_attr(req, &st, FOREVER);
}

static void worker_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct thaw_worker *worker = worker_of(req);
	struct thaw_inode inode;

	if (thaw_image_inode(worker->image, ino, &inode) < 0 || inode.type != THAW_SYMLINK) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	if (worker->trace)
		thaw_trace_add(worker->trace, THAW_TRACE_LINK, inode.ino, NULL, 0);
	(void)fuse_reply_readlink(req, thaw_image_target(worker->image, &inode));
}

/* The kernel remembers ENOSYS, and opens and closes by itself from then on, caches kept. */
static void worker_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
	(void)fuse_reply_err(req, ENOSYS);
}

/* One line for each bad frame, however often the kernel asks again. */
static void report_damage(struct thaw_worker *worker, const struct thaw_inode *inode,
			  uint64_t offset, const struct thaw_error *err)
{
	uint32_t frame = thaw_image_frame_at(worker->image, inode->data + offset);
	uint8_t bit = (uint8_t)(1u << frame % 8);
	char path[1024];

	if (atomic_fetch_or(&worker->reported[frame / 8], bit) & bit)
		return;
	thaw_image_path(worker->image, inode->ino, path, sizeof(path));
	thaw_log(LOG_ERR, "%s: \"%s\": %s", worker->name, path, err->text);
}

/* More frames than a pin holds: only with frames of a few KiB. */
static int read_copying(struct thaw_worker *worker, fuse_req_t req,
			const struct thaw_inode *inode, uint64_t offset, size_t size,
			struct thaw_error *err)
{
	_cleanup_(freep) char *buf = malloc(size);
	size_t n;
	int r;

	if (!buf)
		return thaw_oom(err);
	r = thaw_reader_read(worker->reader, inode, offset, buf, size, err, &n);
	if (r == 0) {
		count_add(&worker->counters->bytes_read, n);
		(void)fuse_reply_buf(req, buf, n);
	}
	return r;
}

static int read_pinned(struct thaw_worker *worker, fuse_req_t req,
		       const struct thaw_inode *inode, uint64_t offset, size_t size,
		       struct thaw_error *err)
{
	pid_t pid = fuse_req_ctx(req)->pid; /* the request is gone once it is answered */
	struct thaw_pin pin;
	int r;

	r = thaw_reader_pin(worker->reader, inode, offset, size, err, &pin);
	if (r < 0)
		return r;
	if (pin.length < size && offset + pin.length < inode->size) {
		thaw_reader_unpin(worker->reader, &pin);
		return read_copying(worker, req, inode, offset, size, err);
	}
	count_add(&worker->counters->bytes_read, pin.length);
	(void)fuse_reply_iov(req, pin.iov, (int)pin.count);
	if (offset == 0 && pin.count > 0)
		thaw_lookahead_read(worker->lookahead, pid, inode, pin.iov->iov_base,
				    pin.iov->iov_len);
	thaw_reader_unpin(worker->reader, &pin);
	return 0;
}

static void worker_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			struct fuse_file_info *file)
{
	struct thaw_worker *worker = worker_of(req);
	struct thaw_error err = { 0 };
	struct thaw_inode inode;

	if (thaw_image_inode(worker->image, ino, &inode) < 0 || inode.type != THAW_REGULAR ||
	    offset < 0) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	if (worker->trace && (uint64_t)offset < inode.size)
		thaw_trace_add_read(worker->trace, inode.ino, (uint64_t)offset,
				    size < inode.size - (uint64_t)offset ?
					    size :
					    inode.size - (uint64_t)offset);
	if (worker->warm)
		thaw_warm_pages_note(worker->warm, worker->counters, inode.ino, (uint64_t)offset,
				     size);
	if (read_pinned(worker, req, &inode, (uint64_t)offset, size, &err) < 0) {
		/* Damage is EIO and never anything that lets Python look elsewhere. */
		report_damage(worker, &inode, (uint64_t)offset, &err);
		(void)fuse_reply_err(req, EIO);
	}
}

struct listing {
	fuse_req_t req;
	struct thaw_worker *worker;
	bool plus;
	char *buf;
	size_t size, used;
};

/* False when the buffer is full: then nothing was added and nothing counts as looked up. */
static bool list_one(struct listing *listing, const char *name, const struct thaw_inode *inode,
		     off_t next)
{
	struct fuse_entry_param entry;
	char *to = listing->buf + listing->used;
	size_t left = listing->size - listing->used, n;

	fill_entry(listing->worker, inode, &entry);
	n = listing->plus ? fuse_add_direntry_plus(listing->req, to, left, name, &entry, next) :
			    fuse_add_direntry(listing->req, to, left, name, &entry.attr, next);
	if (n > left)
		return false;
	listing->used += n;
	return true;
}

/* Positions: 0 is ".", 1 is "..", child n is n + 2; an entry's offset is the next one's position. */
static void list(struct listing *listing, const struct thaw_inode *directory, uint64_t position)
{
	const struct thaw_image *image = listing->worker->image;
	uint64_t end = directory->size + 2;
	struct thaw_inode parent;

	if (thaw_image_inode(image, directory->parent, &parent) < 0)
		parent = *directory; /* cannot be: the parent is a directory's record */
	for (; position < end; position++) {
		char text[THAW_NAME_MAX + 1];
		struct thaw_inode inode;
		struct thaw_name name;

		if (position < 2) {
			if (!list_one(listing, position ? ".." : ".",
				      position ? &parent : directory, (off_t)position + 1))
				return;
			continue;
		}
		thaw_image_child(image, directory, position - 2, &name, &inode);
		memcpy(text, name.text, name.len);
		text[name.len] = '\0';
		if (!list_one(listing, text, &inode, (off_t)position + 1))
			return;
	}
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct listing listing = { .req = req, .worker = worker_of(req), .plus = plus,
				   .size = size };
	pid_t pid = fuse_req_ctx(req)->pid; /* the request is gone once it is answered */
	_cleanup_(freep) char *buf = NULL;
	struct thaw_inode directory;

	if (thaw_image_inode(listing.worker->image, ino, &directory) < 0 ||
	    directory.type != THAW_DIRECTORY || offset < 0) {
		(void)fuse_reply_err(req, ENOTDIR);
		return;
	}
	if (listing.worker->trace && offset == 0)
		thaw_trace_add(listing.worker->trace, THAW_TRACE_LIST, directory.ino, NULL, 0);
	buf = listing.buf = malloc(size);
	if (!buf) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	list(&listing, &directory, (uint64_t)offset);
	(void)fuse_reply_buf(req, listing.buf, listing.used);
	if (offset == 0)
		thaw_lookahead_listed(listing.worker->lookahead, pid, &directory);
}

static void worker_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			   struct fuse_file_info *file)
{
	do_readdir(req, ino, size, offset, false);
}

static void worker_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			       struct fuse_file_info *file)
{
	do_readdir(req, ino, size, offset, true);
}

static void worker_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct thaw_image_info *info = thaw_image_info(worker_of(req)->image);
	struct statvfs st = {
		.f_bsize = BLOCK_SIZE,
		.f_frsize = BLOCK_SIZE,
		/* What the files hold, none of it free: `df` then shows 100 %. */
		.f_blocks = (info->content_size + BLOCK_SIZE - 1) / BLOCK_SIZE,
		.f_files = info->inodes - 1 - info->hardlinks,
		.f_namemax = THAW_NAME_MAX,
		.f_flag = ST_RDONLY,
	};

	(void)fuse_reply_statfs(req, &st);
}

/* 0 when it has ended and no other has taken its place. */
static uint32_t keeper_of(const struct thaw_worker *worker)
{
	uint32_t keeper = atomic_load(&worker->state->common->keeper);
	struct pollfd life = { .fd = worker->life }; /* POLLHUP always counts */

	return keeper == worker->keeper && poll(&life, 1, 0) > 0 ? 0 : keeper;
}

static void fill_thaw_stat(struct thaw_worker *worker, struct thaw_stat *st)
{
	struct thaw_counters *counters = worker->counters;
	struct thaw_reader_stats reader;
	struct timespec now;

	thaw_reader_stats(worker->reader, &reader);
	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
	*st = (struct thaw_stat){
		.version = THAW_STAT_VERSION,
		.warm_state = atomic_load(&counters->warm_state),
		.worker = (uint64_t)getpid(),
		.keeper = keeper_of(worker),
		.restarts = atomic_load(&worker->state->common->restarts),
		.refused = atomic_load(&worker->state->common->refused),
		.seconds = (uint64_t)now.tv_sec - worker->began,
		.bytes_read = atomic_load(&counters->bytes_read),
		.bytes_stored = reader.bytes_stored,
		.bytes_decompressed = reader.bytes_decompressed,
		.cache_hits = reader.hits,
		.cache_misses = reader.misses,
		.frame_errors = reader.errors,
		.warm_pages = atomic_load(&counters->warm_pages),
		.warm_pages_total = atomic_load(&counters->warm_pages_total),
		.warm_pages_read = atomic_load(&counters->warm_pages_read),
		.warm_overtaken = atomic_load(&counters->warm_overtaken),
		.warm_source = atomic_load(&counters->warm_source),
	};
	/* The warmer ended with the keeper, which would have said so. */
	if (st->keeper == 0 && st->warm_state == THAW_WARM_RUNNING)
		st->warm_state = THAW_WARM_STOPPED;
	thaw_common_death(worker->state->common, st->death);
	memcpy(st->identity, thaw_image_info(worker->image)->identity, sizeof(st->identity));
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++)
		st->requests[i] = atomic_load(&counters->requests[i]);
	for (unsigned i = 0; i < THAW_STAT_LATENCIES; i++)
		st->latency[i] = atomic_load(&counters->latency[i]);
}

/* Python asks every file that it opens whether it is a terminal; the kernel passes that on. */
static void worker_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
			 struct fuse_file_info *file, unsigned flags, const void *in,
			 size_t in_size, size_t out_size)
{
	struct thaw_stat st;

	if (cmd != (unsigned)THAW_IOCTL_STAT || out_size < sizeof(st)) {
		(void)fuse_reply_err(req, ENOTTY);
		return;
	}
	fill_thaw_stat(worker_of(req), &st);
	(void)fuse_reply_ioctl(req, 0, &st, sizeof(st));
}

/*
 * No forget: there is nothing to forget. No getxattr, listxattr, flush, statx,
 * lseek: libfuse answers ENOSYS, which the kernel remembers.
 */
const struct fuse_lowlevel_ops thaw_worker_ops = {
	.init = worker_setup,
	.lookup = worker_lookup,
	.getattr = worker_getattr,
	.readlink = worker_readlink,
	.open = worker_open,
	.opendir = worker_open,
	.read = worker_read,
	.readdir = worker_readdir,
	.readdirplus = worker_readdirplus,
	.statfs = worker_statfs,
	.ioctl = worker_ioctl,
};

void thaw_worker_init(struct thaw_worker *worker, const char *name)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
	*worker = (struct thaw_worker){
		.began = (uint64_t)now.tv_sec,
		.name = name,
		.uid = getuid(),
		.gid = getgid(),
	};
}

int thaw_worker_open(struct thaw_worker *worker, const struct thaw_image *image,
		     uint64_t cache_bytes)
{
	worker->image = image;
	worker->reported = calloc(thaw_image_info(image)->frames / 8 + 1, 1);
	return worker->reported ? thaw_reader_new(image, cache_bytes, &worker->reader) : -ENOMEM;
}

void thaw_worker_deinit(struct thaw_worker *worker)
{
	worker->reader = thaw_reader_free(worker->reader);
	free((void *)worker->reported);
	worker->reported = NULL;
}
