/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image as a plain tree.
 *
 * Contents are written in the order of the data space: units of some frames are
 * handed to threads; each decompresses its frames once and writes every file,
 * or piece of a file, that lies in them. So no frame is decompressed twice, and
 * a large file is written by several threads at once.
 *
 * The directory was empty, and everything in it is made with O_EXCL and its
 * like: a name that is there already is an error, never followed, and on failure
 * exactly what was made is removed.
 */
#include "thaw/extract.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "image-internal.h"
#include "layer-internal.h"
#include "pass-internal.h"
#include "thaw/reader.h"
#include "util/cleanup.h"
#include "util/growing.h"

/* Large enough to keep threads apart, small enough for their caches and for progress. */
#define UNIT_BYTES (2u << 20)

/* Part of a file that lies in one unit; an empty file is one empty piece. */
struct piece {
	uint64_t data;	 /* in the data space */
	uint64_t offset; /* in the file */
	uint64_t size;
	uint32_t ino;
	uint32_t span; /* number + 1 in spans when the file has several pieces, or 0 */
};

/* A file that several threads may be writing at once. */
struct span {
	int fd;	       /* -1 until the first piece comes, and after the last */
	uint64_t left; /* bytes to come; both protected by the job's lock */
};

struct unit {
	uint32_t first_frame, frames;
	size_t first_piece, pieces;
	uint64_t data, size;
};

struct job {
	const struct thaw_image *image;
	int root;
	bool have_openat2;
	uint8_t *made; /* by record: this name exists because of us */
	struct unit *units;
	size_t unit_count, unit_capacity;
	struct piece *pieces;
	size_t piece_count, piece_capacity;
	struct span *spans;
	size_t span_count, span_capacity;
	pthread_mutex_t lock;
	struct thaw_pass pass;
	struct thaw_layer_plan plan; /* of what changes at a prefix; empty without one */
};

/* A directory kept open, since neighbours in the stream mostly share theirs. */
struct place {
	uint32_t ino; /* 0: none */
	int fd;
};

/* What a prefix makes of this name. */
static enum thaw_layer_action action_of(const struct job *job, uint32_t number)
{
	return job->plan.actions ? job->plan.actions[number] : THAW_LAYER_KEEP;
}

static enum thaw_inode_type record_type(const struct job *job, uint32_t number)
{
	return inode_record(job->image, number)[THAW_INODE_OFF_TYPE];
}

static uint32_t record_parent(const struct job *job, uint32_t number)
{
	return get_le32(inode_record(job->image, number) + THAW_INODE_OFF_PARENT);
}

static void get_name(const struct job *job, uint32_t number, char name[THAW_NAME_MAX + 1])
{
	struct thaw_name from = record_name(job->image, inode_record(job->image, number));

	memcpy(name, from.text, from.len);
	name[from.len] = '\0';
}

static int fail_at(const struct job *job, uint32_t number, int error, const char *what,
		   struct thaw_error *err)
{
	char path[256];

	thaw_image_path(job->image, number, path, sizeof(path));
	return thaw_io(err, error, "%s: cannot be %s", path, what);
}

/* -- directories beneath the root -- */

/* Component by component, where the kernel has no openat2(2) (or a sandbox forbids it). */
static int walk_to(const struct job *job, char *path, int flags)
{
	_cleanup_(closep) int fd = -1;
	char *next;

	for (char *name = path; name; name = next) {
		int child;

		next = strchr(name, '/');
		if (next)
			*next++ = '\0';
		child = openat(fd < 0 ? job->root : fd, name,
			       (next ? O_PATH : flags) | O_DIRECTORY | O_NOFOLLOW |
				       O_CLOEXEC);
		if (child < 0)
			return -errno;
		(void)safe_close(fd);
		fd = child;
	}
	return steal_fd(&fd);
}

/* A directory of ours, without following anything that somebody may have put in its place. */
static int open_directory(const struct job *job, uint32_t ino, int flags)
{
	char path[THAW_PATH_MAX + 1];
	struct open_how how = {
		.flags = (uint64_t)(flags | O_DIRECTORY | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	int fd;

	thaw_image_path(job->image, ino, path,
			sizeof(path)); /* fits: see make_directories() */
	if (!job->have_openat2)
		return walk_to(job, path, flags);
	do
		fd = (int)syscall(SYS_openat2, job->root, path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN); /* somebody renamed something meanwhile */
	return fd < 0 ? -errno : fd;
}

static bool probe_openat2(int root)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	int fd = (int)syscall(SYS_openat2, root, ".", &how, sizeof(how));

	(void)safe_close(fd);
	return fd >= 0;
}

static void leave_place(struct place *place)
{
	place->fd = safe_close(place->fd);
	place->ino = 0;
}

static int enter_place(const struct job *job, struct place *place, uint32_t ino)
{
	int fd;

	if (place->ino == ino)
		return 0;
	leave_place(place);
	fd = open_directory(job, ino, O_PATH);
	if (fd < 0)
		return fd;
	*place = (struct place){ .ino = ino, .fd = fd };
	return 0;
}

/* -- what is to be done -- */

static int add_units(struct job *job)
{
	uint32_t frames = job->image->info.frames;
	void *units = NULL;

	for (uint32_t i = 0; i < frames || job->unit_count == 0;) {
		struct unit unit = { .first_frame = i };
		struct thaw_frame frame;

		/* At least one unit, for empty files in an empty data space. */
		while (i < frames && unit.size < UNIT_BYTES) {
			thaw_image_frame(job->image, i, &frame);
			if (unit.frames++ == 0)
				unit.data = frame.data_offset;
			unit.size += frame.size;
			i++;
		}
		units = job->units;
		if (grow(&units, &job->unit_capacity, job->unit_count + 1, sizeof(unit)) <
		    0)
			return -ENOMEM;
		job->units = units;
		job->units[job->unit_count++] = unit;
	}
	return 0;
}

static size_t unit_at(const struct job *job, uint64_t data)
{
	size_t low = 0, high = job->unit_count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (job->units[middle].data <= data)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static int add_span(struct job *job, uint64_t size, uint32_t *ret_span)
{
	void *spans = job->spans;

	if (grow(&spans, &job->span_capacity, job->span_count + 1, sizeof(*job->spans)) <
	    0)
		return -ENOMEM;
	job->spans = spans;
	job->spans[job->span_count++] = (struct span){ .fd = -1, .left = size };
	*ret_span = (uint32_t)job->span_count;
	return 0;
}

/* Cut a file at the ends of units. */
static int add_pieces(struct job *job, uint32_t ino)
{
	const uint8_t *record = inode_record(job->image, ino);
	uint64_t data = get_le64(record + THAW_INODE_OFF_DATA);
	uint64_t size = get_le64(record + THAW_INODE_OFF_SIZE);
	uint64_t offset = 0;
	uint32_t span = 0;

	do {
		const struct unit *unit = &job->units[unit_at(job, data + offset)];
		struct piece piece = { .data = data + offset,
				       .offset = offset,
				       .ino = ino };
		void *pieces = job->pieces;

		piece.size = size - offset;
		if (piece.size > 0 && piece.size > unit->data + unit->size - piece.data) {
			piece.size = unit->data + unit->size - piece.data;
			if (!span && add_span(job, size, &span) < 0)
				return -ENOMEM;
		}
		piece.span = span;
		if (grow(&pieces, &job->piece_capacity, job->piece_count + 1,
			 sizeof(piece)) < 0)
			return -ENOMEM;
		job->pieces = pieces;
		job->pieces[job->piece_count++] = piece;
		offset += piece.size;
	} while (offset < size);
	return 0;
}

static int compare_pieces(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->data != y->data)
		return x->data < y->data ? -1 : 1;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

/* Written by render_files(), not from its frames. */
static bool is_rendered(const struct job *job, uint32_t number)
{
	return action_of(job, number) == THAW_LAYER_RENDER ||
	       action_of(job, number) == THAW_LAYER_UNPACK;
}

static int plan(struct job *job)
{
	size_t at = 0;

	if (add_units(job) < 0)
		return -ENOMEM;
	for (uint32_t i = THAW_ROOT; i < job->image->info.inodes; i++)
		if (record_type(job, i) == THAW_REGULAR && !is_rendered(job, i) &&
		    add_pieces(job, i) < 0)
			return -ENOMEM;
	if (job->piece_count)
		qsort(job->pieces, job->piece_count, sizeof(*job->pieces),
		      compare_pieces);
	for (size_t i = 0; i < job->unit_count; i++) {
		struct unit *unit = &job->units[i];

		unit->first_piece = at;
		while (at < job->piece_count && unit_at(job, job->pieces[at].data) == i)
			at++;
		unit->pieces = at - unit->first_piece;
	}
	return 0;
}

/* -- contents -- */

static int write_at(int fd, const uint8_t *buf, uint64_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static void times_of(const uint8_t *record, struct timespec times[2])
{
	times[0].tv_sec = (time_t)get_le32(record + THAW_INODE_OFF_MTIME);
	times[0].tv_nsec = 0;
	times[1] = times[0];
}

static int create_file(struct job *job, struct place *place, uint32_t ino, int *ret_fd,
		       struct thaw_error *err)
{
	char name[THAW_NAME_MAX + 1];
	int fd, r;

	r = enter_place(job, place, record_parent(job, ino));
	if (r < 0)
		return fail_at(job, ino, r, "created", err);
	get_name(job, ino, name);
	fd = openat(place->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	if (fd < 0)
		return fail_at(job, ino, -errno, "created", err);
	job->made[ino] = 1;
	*ret_fd = fd;
	return 0;
}

/* Attributes come last: a mode that forbids writing, and an mtime that writing would change. */
static int finish_file(struct job *job, uint32_t ino, int *fd, struct thaw_error *err)
{
	const uint8_t *record = inode_record(job->image, ino);
	struct timespec times[2];

	times_of(record, times);
	if (fchmod(*fd, get_le16(record + THAW_INODE_OFF_MODE)) < 0 ||
	    futimens(*fd, times) < 0)
		return fail_at(job, ino, -errno, "given its attributes", err);
	/* Some file systems find out only now that there is no space. */
	if (close(steal_fd(fd)) < 0)
		return fail_at(job, ino, -errno, "written", err);
	return 0;
}

/* A file of which other threads may be writing other pieces. */
static int write_span(struct job *job, struct place *place, const struct piece *piece,
		      const uint8_t *data, struct thaw_error *err)
{
	struct span *span = &job->spans[piece->span - 1];
	_cleanup_(closep) int last = -1;
	int fd, r = 0;

	pthread_mutex_lock(&job->lock);
	if (span->fd < 0)
		r = create_file(job, place, piece->ino, &span->fd, err);
	fd = span->fd;
	pthread_mutex_unlock(&job->lock);
	if (r < 0)
		return r;
	r = write_at(fd, data, piece->size, piece->offset);
	if (r < 0)
		return fail_at(job, piece->ino, r, "written", err);
	pthread_mutex_lock(&job->lock);
	span->left -= piece->size;
	if (span->left == 0)
		last = steal_fd(&span->fd);
	pthread_mutex_unlock(&job->lock);
	return last >= 0 ? finish_file(job, piece->ino, &last, err) : 0;
}

static int write_piece(struct job *job, struct place *place, const struct piece *piece,
		       const uint8_t *data, struct thaw_error *err)
{
	_cleanup_(closep) int fd = -1;
	int r;

	if (piece->span)
		return write_span(job, place, piece, data, err);
	r = create_file(job, place, piece->ino, &fd, err);
	if (r < 0)
		return r;
	r = write_at(fd, data, piece->size, 0);
	if (r < 0)
		return fail_at(job, piece->ino, r, "written", err);
	return finish_file(job, piece->ino, &fd, err);
}

struct worker {
	struct job *job;
	struct thaw_frame_decoder *decoder;
	struct place place;
	uint8_t *buf; /* one unit */
	size_t capacity;
};

static int decode_frame(struct worker *worker, const struct thaw_frame *frame,
			uint32_t number, const struct unit *unit,
			const struct piece *piece, struct thaw_error *err)
{
	struct thaw_error cause = { 0 };
	char path[200];
	int r;

	r = thaw_frame_decode(worker->decoder, number,
			      worker->buf + (frame->data_offset - unit->data), &cause);
	if (r == -EBADMSG) {
		thaw_image_path(worker->job->image, piece->ino, path, sizeof(path));
		return thaw_damaged(err, "%s: %.250s", path, cause.text);
	}
	if (r < 0)
		*err = cause;
	return r;
}

/* Decode what a piece needs; *next is the first frame that nobody has looked at. */
static int decode_piece(struct worker *worker, const struct unit *unit,
			const struct piece *piece, uint32_t *next, struct thaw_error *err)
{
	for (; *next < unit->first_frame + unit->frames; (*next)++) {
		struct thaw_frame frame;
		int r;

		thaw_image_frame(worker->job->image, *next, &frame);
		if (frame.data_offset >= piece->data + piece->size)
			break;
		/* Pieces come in order: what lies before this one, nobody wants. */
		if (frame.data_offset + frame.size <= piece->data)
			continue;
		r = decode_frame(worker, &frame, *next, unit, piece, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int extract_unit(struct worker *worker, const struct unit *unit,
			struct thaw_error *err)
{
	const struct piece *piece;
	uint32_t next = unit->first_frame;

	if (unit->pieces == 0)
		return 0;
	piece = worker->job->pieces + unit->first_piece;
	if (unit->size > worker->capacity) {
		free(worker->buf);
		worker->capacity = 0;
		worker->buf = malloc(unit->size);
		if (!worker->buf)
			return thaw_oom(err);
		worker->capacity = unit->size;
	}
	for (size_t i = 0; i < unit->pieces; i++, piece++) {
		int r = decode_piece(worker, unit, piece, &next, err);

		if (r == 0)
			r = write_piece(worker->job, &worker->place, piece,
					worker->buf + (piece->data - unit->data), err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void *extract_units(void *data)
{
	struct worker worker = { .job = data, .place = { .fd = -1 } };
	struct thaw_pass *pass = &worker.job->pass;
	struct thaw_error err = { 0 };
	uint64_t number;

	if (thaw_frame_decoder_new(worker.job->image, &worker.decoder) < 0) {
		thaw_pass_fail(pass, thaw_oom(&err), &err);
		return NULL;
	}
	while (thaw_pass_take(pass, &number)) {
		const struct unit *unit = &worker.job->units[number];
		int r = extract_unit(&worker, unit, &err);

		if (r < 0)
			thaw_pass_fail(pass, r, &err);
		else
			thaw_pass_advance(pass, unit->size);
	}
	leave_place(&worker.place);
	free(worker.buf);
	thaw_frame_decoder_free(worker.decoder);
	return NULL;
}

/* -- the rest of the tree -- */

/*
 * Parents have smaller numbers than their children. Until the end directories
 * are ours alone; only then do they get their modes.
 */
static int make_directories(struct job *job, struct thaw_error *err)
{
	uint32_t inodes = job->image->info.inodes;
	_cleanup_(freep) uint16_t *lengths = calloc(inodes, sizeof(*lengths));
	struct place place = { .fd = -1 };
	int r = lengths ? 0 : thaw_oom(err);

	for (uint32_t i = THAW_ROOT + 1; r == 0 && i < inodes; i++) {
		uint32_t parent = record_parent(job, i);
		char name[THAW_NAME_MAX + 1];
		size_t len;

		get_name(job, i, name);
		len = strlen(name) + lengths[parent] + (parent != THAW_ROOT);
		if (len > THAW_PATH_MAX) {
			r = thaw_limit(err, "a path in the image is longer than %u bytes",
				       THAW_PATH_MAX);
			break;
		}
		lengths[i] = (uint16_t)len;
		if (record_type(job, i) != THAW_DIRECTORY)
			continue;
		r = enter_place(job, &place, parent);
		if (r == 0 && mkdirat(place.fd, name, 0700) < 0)
			r = -errno;
		if (r < 0)
			r = fail_at(job, i, r, "created", err);
		else
			job->made[i] = 1;
		if (r == 0 && i % 1024 == 0 && thaw_pass_failed(&job->pass))
			r = thaw_pass_result(&job->pass, err);
		if (r == 0 && i % 1024 == 0)
			thaw_pass_advance(&job->pass, 0); /* to notice an interrupt */
	}
	leave_place(&place);
	return r;
}

static int make_symlink(struct job *job, struct place *place, uint32_t number)
{
	const uint8_t *record = inode_record(job->image, number);
	const char *target = job->image->strings + get_le64(record + THAW_INODE_OFF_DATA);
	char name[THAW_NAME_MAX + 1];
	struct timespec times[2];
	int r;

	r = enter_place(job, place, record_parent(job, number));
	if (r < 0)
		return r;
	get_name(job, number, name);
	if (symlinkat(target, place->fd, name) < 0)
		return -errno;
	job->made[number] = 1;
	times_of(record, times);
	return utimensat(place->fd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int make_hardlink(struct job *job, struct place *from, struct place *place,
			 uint32_t number)
{
	uint32_t target = (uint32_t)get_le64(inode_record(job->image, number) +
					     THAW_INODE_OFF_DATA);
	char name[THAW_NAME_MAX + 1], target_name[THAW_NAME_MAX + 1];
	int r;

	r = enter_place(job, place, record_parent(job, number));
	if (r == 0)
		r = enter_place(job, from, record_parent(job, target));
	if (r < 0)
		return r;
	get_name(job, number, name);
	get_name(job, target, target_name);
	if (linkat(from->fd, target_name, place->fd, name, 0) < 0)
		return -errno;
	job->made[number] = 1;
	return 0;
}

/* Symlinks when all files are there, so that nothing can be written through one; then links. */
static int make_links(struct job *job, enum thaw_inode_type type, struct thaw_error *err)
{
	struct place place = { .fd = -1 }, from = { .fd = -1 };
	int r = 0;

	for (uint32_t i = THAW_ROOT + 1; r == 0 && i < job->image->info.inodes; i++) {
		if (record_type(job, i) != type)
			continue;
		r = type == THAW_SYMLINK ? make_symlink(job, &place, i)
					 : make_hardlink(job, &from, &place, i);
		if (r < 0)
			r = fail_at(job, i, r, "created", err);
	}
	leave_place(&place);
	leave_place(&from);
	return r;
}

/* Files that differ at the prefix: few, so one after the other. */
static int render_files(struct job *job, struct thaw_error *err)
{
	_cleanup_(thaw_renderer_freep) struct thaw_renderer *renderer = NULL;
	struct place place = { .fd = -1 };
	int r = 0;

	if (!job->plan.actions)
		return 0;
	if (thaw_renderer_new(job->image, job->plan.reader, job->plan.prefix, &renderer) < 0)
		return thaw_oom(err);
	for (uint32_t i = THAW_ROOT + 1; r == 0 && i < job->image->info.inodes; i++) {
		_cleanup_(closep) int fd = -1;

		if (!is_rendered(job, i) || record_type(job, i) != THAW_REGULAR)
			continue;
		r = create_file(job, &place, i, &fd, err);
		if (r == 0)
			r = thaw_layer_write(&job->plan, renderer, i, fd, err);
		if (r == 0)
			r = finish_file(job, i, &fd, err);
	}
	leave_place(&place);
	return r;
}

/* Last, since other names of it may have been linked to it. */
static int remove_bytecode(struct job *job, struct thaw_error *err)
{
	struct place place = { .fd = -1 };
	int r = 0;

	for (uint32_t i = THAW_ROOT + 1; r == 0 && i < job->image->info.inodes; i++) {
		char name[THAW_NAME_MAX + 1];

		if (action_of(job, i) != THAW_LAYER_HIDE)
			continue;
		r = enter_place(job, &place, record_parent(job, i));
		get_name(job, i, name);
		if (r == 0 && unlinkat(place.fd, name, 0) < 0)
			r = -errno;
		if (r < 0)
			r = fail_at(job, i, r, "removed", err);
	}
	leave_place(&place);
	return r;
}

static int finish_directory(struct job *job, uint32_t number, int fd)
{
	const uint8_t *record = inode_record(job->image, number);
	struct timespec times[2];

	times_of(record, times);
	if (fchmod(fd, get_le16(record + THAW_INODE_OFF_MODE)) < 0 ||
	    futimens(fd, times) < 0)
		return -errno;
	return 0;
}

/* Deepest first: work in a directory changes its mtime, and its mode may forbid it. */
static int finish_directories(struct job *job, bool root_made, struct thaw_error *err)
{
	int r;

	for (uint32_t i = job->image->info.inodes - 1; i > THAW_ROOT; i--) {
		_cleanup_(closep) int fd = -1;

		if (record_type(job, i) != THAW_DIRECTORY)
			continue;
		fd = open_directory(job, i, O_RDONLY);
		r = fd < 0 ? fd : finish_directory(job, i, fd);
		if (r < 0)
			return fail_at(job, i, r, "given its attributes", err);
	}
	r = finish_directory(job, THAW_ROOT, job->root);
	/* A directory that was there may be somebody else's, open to us by its group. */
	if (r < 0 && (root_made || r != -EPERM))
		return fail_at(job, THAW_ROOT, r, "given its attributes", err);
	return 0;
}

/* Children have larger numbers than their parents: backwards, directories are empty in time. */
static void remove_made(struct job *job)
{
	struct place place = { .fd = -1 };

	for (uint32_t i = job->image->info.inodes - 1; i > THAW_ROOT; i--) {
		char name[THAW_NAME_MAX + 1];

		if (!job->made[i] || enter_place(job, &place, record_parent(job, i)) < 0)
			continue;
		get_name(job, i, name);
		/* The failure that brought us here is the one to report. */
		(void)unlinkat(place.fd, name,
			       record_type(job, i) == THAW_DIRECTORY ? AT_REMOVEDIR : 0);
	}
	leave_place(&place);
}

static int check_empty(int fd, const char *directory, struct thaw_error *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
	const struct dirent *entry;
	int r = 0;

	if (!dir) {
		r = thaw_io(err, -errno, "%s: cannot be read", directory);
		(void)safe_close(copy);
		return r;
	}
	errno = 0;
	while (r == 0 && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = thaw_refused(err, "%s: is not empty", directory);
	if (r == 0 && errno)
		r = thaw_io(err, -errno, "%s: cannot be read", directory);
	(void)closedir(dir); /* only read */
	return r;
}

static int open_root(const char *directory, int *ret_fd, bool *ret_made,
		     struct thaw_error *err)
{
	_cleanup_(closep) int fd = -1;
	bool made;
	int r = 0;

	made = mkdir(directory, 0700) == 0;
	if (!made && errno != EEXIST)
		return thaw_io(err, -errno, "%s: cannot be created", directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		r = thaw_io(err, -errno, "%s: cannot be opened", directory);
	else if (!made)
		r = check_empty(fd, directory, err);
	if (r < 0) {
		if (made)
			(void)rmdir(
				directory); /* the failure to open it is the one to report */
		return r;
	}
	*ret_fd = steal_fd(&fd);
	*ret_made = made;
	return 0;
}

static int extract_tree(struct job *job, bool root_made, struct thaw_error *err)
{
	int r;

	r = make_directories(job, err);
	if (r < 0)
		return r;
	thaw_pass_run(&job->pass, thaw_pass_threads(&job->pass), extract_units, job);
	r = thaw_pass_result(&job->pass, err);
	if (r == 0)
		r = render_files(job, err);
	if (r == 0)
		r = make_links(job, THAW_SYMLINK, err);
	if (r == 0)
		r = make_links(job, THAW_HARDLINK, err);
	if (r == 0 && job->plan.actions)
		r = remove_bytecode(job, err);
	if (r == 0)
		r = finish_directories(job, root_made, err);
	return r;
}

static void deinit_job(struct job *job)
{
	for (size_t i = 0; i < job->span_count; i++)
		(void)safe_close(job->spans[i].fd);
	thaw_pass_deinit(&job->pass);
	thaw_layer_plan_deinit(&job->plan);
	(void)pthread_mutex_destroy(&job->lock); /* nobody holds it */
	(void)safe_close(job->root);
	free(job->spans);
	free(job->pieces);
	free(job->units);
	free(job->made);
}

int thaw_extract(const struct thaw_image *image, const char *directory,
		 const struct thaw_pass_options *options, struct thaw_error *err)
{
	return thaw_extract_at(image, directory, NULL, options, err);
}

static int plan_prefix(struct job *job, const char *prefix, struct thaw_reader **ret_reader,
		       struct thaw_error *err)
{
	if (!prefix)
		return 0;
	if (thaw_reader_new(job->image, 0, ret_reader) < 0)
		return thaw_oom(err);
	return thaw_layer_plan(job->image, *ret_reader, prefix, err, &job->plan);
}

int thaw_extract_at(const struct thaw_image *image, const char *directory,
		    const char *prefix, const struct thaw_pass_options *options,
		    struct thaw_error *err)
{
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;
	struct job job = { .image = image, .root = -1 };
	struct thaw_error own = { 0 };
	bool root_made = false;
	int r;

	err = err ? err : &own;
	(void)pthread_mutex_init(&job.lock,
				 NULL); /* cannot fail with default attributes */
	job.made = calloc(image->info.inodes, 1);
	r = plan_prefix(&job, prefix, &reader, err);
	if (r == 0 && (!job.made || plan(&job) < 0))
		r = thaw_oom(err);
	thaw_pass_init(&job.pass, options, job.unit_count, image->data_size);
	if (r == 0)
		r = open_root(directory, &job.root, &root_made, err);
	if (r == 0) {
		job.have_openat2 = probe_openat2(job.root);
		r = extract_tree(&job, root_made, err);
		if (r < 0) {
			remove_made(&job);
			if (root_made)
				(void)rmdir(directory); /* as above */
		}
	}
	deinit_job(&job);
	return r;
}
