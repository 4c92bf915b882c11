/* SPDX-License-Identifier: Apache-2.0 */
/* Reading warm sets. */
#include "thaw/learned.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_d_forceIgnoreChecksum */
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"
#include "warm-internal.h"

struct thaw_warm {
	const struct thaw_image *image;
	struct thaw_part_info part;
	struct thaw_warm_info info;
	bool borrowed; /* head and first_ops are somebody else's memory */
	uint8_t *head;
	const uint8_t *frames, *ops;
	const char *strings;
	uint32_t strings_size;
	ZSTD_DCtx *context;
	struct thaw_digest *digest;
	uint8_t *stored;
	size_t stored_capacity;
	/* Learned: by frame, the first operation of it; and the image's reader, when needed. */
	uint32_t *first_ops;
	struct thaw_reader *reader;
};

/*
 * Pages of one frame of the image come together, so few frames are wanted again: those
 * that a page lies across the end of.
 */
#define LEARNED_CACHE (4u << 20)

struct thaw_warm *thaw_warm_free(struct thaw_warm *warm)
{
	if (warm) {
		if (!warm->borrowed) {
			free(warm->head);
			free(warm->first_ops);
		}
		free(warm->stored);
		thaw_reader_free(warm->reader);
		ZSTD_freeDCtx(warm->context);
		thaw_digest_free(warm->digest);
		free(warm);
	}
	return NULL;
}

static int bad(const struct thaw_warm *warm, struct thaw_error *err, const char *what)
{
	return thaw_damaged(err, "damaged: warm set \"%s\": %s", warm->part.name, what);
}

static int read_head(struct thaw_warm *warm, struct thaw_error *err)
{
	const struct thaw_part_info *part = &warm->part;
	_cleanup_(freep) uint8_t *stored = malloc((size_t)part->head_size + 1);
	uint8_t sum[THAW_DIGEST_SIZE];
	size_t n;
	int r;

	if (part->raw_size > THAW_WARM_HEAD_RAW_MAX ||
	    part->raw_size / THAW_INDEX_RATIO_MAX > part->head_size)
		return thaw_limit(err, "warm set \"%s\" has too large a head",
				  part->name);
	warm->head = malloc(part->raw_size + 1);
	if (!stored || !warm->head)
		return thaw_oom(err);
	r = thaw_image_pread(warm->image, part->offset, stored, part->head_size);
	if (r < 0)
		return thaw_io(err, r, "warm set \"%s\" cannot be read", part->name);
	if (thaw_digest_of(warm->digest, stored, part->head_size, sum) < 0)
		return thaw_oom(err);
	if (memcmp(sum, part->digest, sizeof(sum)) != 0)
		return bad(warm, err, "digest of its head");
	n = ZSTD_decompress(warm->head, part->raw_size, stored, part->head_size);
	if (ZSTD_isError(n) || n != part->raw_size)
		return bad(warm, err, "its head does not decompress");
	return 0;
}

static int find_tables(struct thaw_warm *warm, struct thaw_error *err)
{
	const uint8_t *head = warm->head;
	uint64_t size = warm->part.raw_size, expected;

	if (size < THAW_WARM_HEADER || get_le32(head) != THAW_WARM_MAGIC ||
	    get_le64(head + THAW_WARM_OFF_RESERVED) != 0)
		return bad(warm, err, "header");
	warm->info.frames = get_le32(head + THAW_WARM_OFF_FRAMES);
	warm->info.ops = get_le32(head + THAW_WARM_OFF_OPS);
	warm->strings_size = get_le32(head + THAW_WARM_OFF_STRINGS);
	expected = THAW_WARM_HEADER + (uint64_t)warm->info.frames * THAW_WARM_FRAME +
		   (uint64_t)warm->info.ops * THAW_WARM_OP + warm->strings_size;
	if (size != expected)
		return bad(warm, err, "header");
	warm->frames = head + THAW_WARM_HEADER;
	warm->ops = warm->frames + (uint64_t)warm->info.frames * THAW_WARM_FRAME;
	warm->strings = (const char *)warm->ops + (uint64_t)warm->info.ops * THAW_WARM_OP;
	return 0;
}

/* Frames fill the payload behind the head, without gaps. */
static int check_frames(struct thaw_warm *warm, struct thaw_error *err)
{
	uint64_t next = 0, size_all = warm->part.size - warm->part.head_size;

	for (uint32_t i = 0; i < warm->info.frames; i++) {
		const uint8_t *record = warm->frames + (uint64_t)i * THAW_WARM_FRAME;
		uint32_t stored = get_le32(record + THAW_WARM_FRAME_OFF_CSIZE);
		uint32_t size = get_le32(record + THAW_WARM_FRAME_OFF_USIZE);

		if (get_le64(record + THAW_WARM_FRAME_OFF_OFFSET) != next || size == 0 ||
		    size > THAW_FRAME_USIZE_MAX || stored == 0 ||
		    !range_inside(next, stored, size_all))
			return bad(warm, err, "frame out of place");
		next += stored;
		warm->info.bytes += size;
	}
	return next == size_all ? 0 : bad(warm, err, "frames do not fill it");
}

/* Bytes of pages [first, first + count) of a file, 0 if they are not all in it. */
static uint64_t page_bytes(const struct thaw_inode *inode, uint32_t first, uint32_t count)
{
	uint64_t offset = (uint64_t)first * THAW_PAGE_SIZE;
	uint64_t length = (uint64_t)count * THAW_PAGE_SIZE;

	if (count == 0 || offset >= inode->size)
		return 0;
	if (length - THAW_PAGE_SIZE >= inode->size - offset)
		return 0; /* a page that begins behind the end */
	return length < inode->size - offset ? length : inode->size - offset;
}

static bool name_possible(const char *name, uint8_t len)
{
	return !memchr(name, '/', len) && !memchr(name, '\0', len) &&
	       !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

static int check_op(struct thaw_warm *warm, uint32_t number, uint64_t *left,
		    uint32_t *frame, struct thaw_error *err)
{
	const uint8_t *record = warm->ops + (uint64_t)number * THAW_WARM_OP;
	uint8_t kind = record[THAW_WARM_OP_OFF_KIND], len = record[THAW_WARM_OP_OFF_LEN];
	uint32_t a = get_le32(record + THAW_WARM_OP_OFF_A);
	uint32_t b = get_le32(record + THAW_WARM_OP_OFF_B);
	struct thaw_inode inode;
	uint64_t bytes;

	if (thaw_image_inode(warm->image, get_le32(record + THAW_WARM_OP_OFF_INO),
			     &inode) < 0 ||
	    get_le16(record + THAW_WARM_OP_OFF_RESERVED) != 0)
		return bad(warm, err, "operation on no inode");
	switch (kind) {
	case THAW_WARM_PAGES:
		bytes = inode.type == THAW_REGULAR && len == 0 ? page_bytes(&inode, a, b)
							       : 0;
		if (*left == 0 && *frame < warm->info.frames)
			*left = thaw_warm_frame_size(warm, (*frame)++);
		if (bytes == 0 || bytes > *left)
			return bad(warm, err, "pages out of bounds");
		*left -= bytes;
		warm->info.pages += b;
		return 0;
	case THAW_WARM_LIST:
		warm->info.directories++;
		if (inode.type != THAW_DIRECTORY || len || a || b)
			return bad(warm, err, "listing of no directory");
		return 0;
	case THAW_WARM_LOOK:
		warm->info.names++;
		if (inode.type != THAW_DIRECTORY || len == 0 || b ||
		    !range_inside(a, len, warm->strings_size) ||
		    !name_possible(warm->strings + a, len))
			return bad(warm, err, "impossible name");
		return 0;
	case THAW_WARM_LINK:
		return inode.type == THAW_SYMLINK && !len && !a && !b
			       ? 0
			       : bad(warm, err, "reading of no symlink");
	default:
		return bad(warm, err, "unknown operation");
	}
}

static int check_ops(struct thaw_warm *warm, struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *seen = calloc(1, warm->image->info.inodes / 8 + 1);
	uint64_t left = 0;
	uint32_t frame = 0;

	if (!seen)
		return thaw_oom(err);
	for (uint32_t i = 0; i < warm->info.ops; i++) {
		const uint8_t *record = warm->ops + (uint64_t)i * THAW_WARM_OP;
		uint32_t ino;
		int r;

		r = check_op(warm, i, &left, &frame, err);
		if (r < 0)
			return r;
		ino = get_le32(record + THAW_WARM_OP_OFF_INO);
		if (record[THAW_WARM_OP_OFF_KIND] == THAW_WARM_PAGES &&
		    !(seen[ino / 8] >> ino % 8 & 1)) {
			seen[ino / 8] |= (uint8_t)(1u << ino % 8);
			warm->info.files++;
		}
	}
	if (left != 0 || frame != warm->info.frames)
		return bad(warm, err, "operations and frames do not agree");
	return 0;
}

int thaw_warm_open(const struct thaw_image *image, unsigned number,
		   struct thaw_error *err, struct thaw_warm **ret_warm)
{
	_cleanup_(thaw_warm_freep) struct thaw_warm *warm = calloc(1, sizeof(*warm));
	int r;

	if (!warm)
		return thaw_oom(err);
	warm->image = image;
	thaw_image_part(image, number, &warm->part);
	memcpy(warm->info.name, warm->part.name, sizeof(warm->info.name));
	warm->info.stored = warm->part.size;
	if (thaw_digest_new(&warm->digest) < 0)
		return thaw_oom(err);
	r = read_head(warm, err);
	if (r == 0)
		r = find_tables(warm, err);
	if (r == 0)
		r = check_frames(warm, err);
	if (r == 0)
		r = check_ops(warm, err);
	if (r < 0)
		return r;
	*ret_warm = steal_ptr(warm);
	return 0;
}

void thaw_warm_info(const struct thaw_warm *warm, struct thaw_warm_info *ret_info)
{
	*ret_info = warm->info;
}

void thaw_warm_op(const struct thaw_warm *warm, uint32_t number,
		  struct thaw_warm_op *ret_op)
{
	const uint8_t *record = warm->ops + (uint64_t)number * THAW_WARM_OP;
	uint32_t a = get_le32(record + THAW_WARM_OP_OFF_A);

	*ret_op = (struct thaw_warm_op){
		.kind = record[THAW_WARM_OP_OFF_KIND],
		.ino = get_le32(record + THAW_WARM_OP_OFF_INO),
	};
	if (ret_op->kind == THAW_WARM_PAGES) {
		struct thaw_inode inode;

		ret_op->first = a;
		ret_op->count = get_le32(record + THAW_WARM_OP_OFF_B);
		if (thaw_image_inode(warm->image, ret_op->ino, &inode) ==
		    0) /* checked at open */
			ret_op->length = (uint32_t)page_bytes(&inode, a, ret_op->count);
	} else if (ret_op->kind == THAW_WARM_LOOK) {
		ret_op->name.text = warm->strings + a;
		ret_op->name.len = record[THAW_WARM_OP_OFF_LEN];
	}
}

uint32_t thaw_warm_frame_size(const struct thaw_warm *warm, uint32_t number)
{
	return get_le32(warm->frames + (uint64_t)number * THAW_WARM_FRAME +
			THAW_WARM_FRAME_OFF_USIZE);
}

/* -- without frames of its own -- */

/* Sizes of frames, and where the operations of each begin. */
static int divide_learned(struct thaw_warm *warm)
{
	uint32_t frame = 0, left = 0;

	warm->first_ops = calloc((size_t)warm->info.frames + 1, sizeof(uint32_t));
	if (!warm->first_ops)
		return -ENOMEM;
	for (uint32_t i = 0; i < warm->info.ops && frame <= warm->info.frames; i++) {
		struct thaw_warm_op op;

		thaw_warm_op(warm, i, &op);
		if (op.kind != THAW_WARM_PAGES)
			continue;
		if (left == 0) {
			warm->first_ops[frame] = i;
			left = thaw_warm_frame_size(warm, frame++);
			warm->info.bytes += left;
		}
		left -= op.length; /* checked: they end where the frame does */
	}
	return 0;
}

int thaw_warm_from_learned(const struct thaw_image *image,
			   const struct thaw_learned *learned, struct thaw_error *err,
			   struct thaw_warm **ret_warm)
{
	_cleanup_(thaw_warm_freep) struct thaw_warm *warm = calloc(1, sizeof(*warm));
	size_t size = 0;
	int r;

	if (!warm)
		return thaw_oom(err);
	warm->image = image;
	(void)snprintf(warm->part.name, sizeof(warm->part.name), "%s",
		       THAW_LEARNED_WORKLOAD);
	memcpy(warm->info.name, warm->part.name, sizeof(warm->info.name));
	r = thaw_warm_plan(image, learned, err, &warm->head, &size);
	if (r < 0)
		return r;
	warm->part.raw_size = size;
	/* As of any set, though it was made just now: what is checked here, others rely on. */
	r = find_tables(warm, err);
	if (r == 0)
		r = check_ops(warm, err);
	if (r == 0 && divide_learned(warm) < 0)
		r = thaw_oom(err);
	if (r < 0)
		return r;
	if (warm->info.ops == 0)
		return THAW_NOT_FOUND;
	*ret_warm = steal_ptr(warm);
	return 0;
}

static int read_learned(struct thaw_warm *warm, uint32_t number, uint8_t *buf,
			struct thaw_error *err)
{
	uint32_t size = thaw_warm_frame_size(warm, number), used = 0;

	if (!warm->reader &&
	    thaw_reader_new(warm->image, LEARNED_CACHE, &warm->reader) < 0)
		return thaw_oom(err);
	for (uint32_t i = warm->first_ops[number]; used < size && i < warm->info.ops;
	     i++) {
		struct thaw_inode inode;
		struct thaw_warm_op op;
		size_t got = 0;
		int r;

		thaw_warm_op(warm, i, &op);
		if (op.kind != THAW_WARM_PAGES)
			continue;
		r = thaw_image_inode(warm->image, op.ino, &inode);
		if (r == 0)
			r = thaw_reader_read(warm->reader, &inode,
					     (uint64_t)op.first * THAW_PAGE_SIZE,
					     buf + used, op.length, err, &got);
		if (r == 0 && got != op.length)
			r = bad(warm, err, "a file is shorter than it was");
		if (r < 0)
			return r;
		used += op.length;
	}
	return 0;
}

/* Only those who read frames need one. */
static int need_context(struct thaw_warm *warm)
{
	if (!warm->digest && thaw_digest_new(&warm->digest) < 0)
		return -ENOMEM;
	if (warm->context)
		return 0;
	warm->context = ZSTD_createDCtx();
	if (!warm->context)
		return -ENOMEM;
	/* SHA-256 has spoken already. */
	(void)ZSTD_DCtx_setParameter(warm->context, ZSTD_d_forceIgnoreChecksum, 1);
	return 0;
}

int thaw_warm_frame(struct thaw_warm *warm, uint32_t number, void *buf,
		    struct thaw_error *err)
{
	const uint8_t *record = warm->frames + (uint64_t)number * THAW_WARM_FRAME;
	uint64_t offset = get_le64(record + THAW_WARM_FRAME_OFF_OFFSET);
	uint32_t stored = get_le32(record + THAW_WARM_FRAME_OFF_CSIZE);
	uint32_t size = get_le32(record + THAW_WARM_FRAME_OFF_USIZE);
	uint8_t sum[THAW_DIGEST_SIZE];
	size_t n;
	int r;

	if (warm->first_ops)
		return read_learned(warm, number, buf, err);
	if (need_context(warm) < 0 ||
	    make_room(&warm->stored, &warm->stored_capacity, stored) < 0)
		return thaw_oom(err);
	r = thaw_image_pread(warm->image,
			     warm->part.offset + warm->part.head_size + offset,
			     warm->stored, stored);
	if (r < 0)
		return thaw_io(err, r, "warm set \"%s\" cannot be read", warm->part.name);
	if (thaw_digest_of(warm->digest, warm->stored, stored, sum) < 0)
		return thaw_oom(err);
	if (memcmp(sum, record + THAW_WARM_FRAME_OFF_DIGEST, sizeof(sum)) != 0)
		return thaw_damaged(
			err, "warm set \"%s\": frame %" PRIu32 " is damaged (digest)",
			warm->part.name, number);
	n = ZSTD_decompressDCtx(warm->context, buf, size, warm->stored, stored);
	if (ZSTD_isError(n) || n != size)
		return thaw_damaged(err, "warm set \"%s\": frame %" PRIu32 " is damaged",
				    warm->part.name, number);
	return 0;
}

/* -- for other processes -- */

/* What is written, in this order: itself, its head, and, if it is learned, first_ops. */
static size_t shared_size(const struct thaw_warm *warm)
{
	return padded(sizeof(*warm)) + padded(warm->part.raw_size) +
	       (warm->first_ops ? padded((warm->info.frames + 1) * sizeof(uint32_t)) : 0);
}

int thaw_warm_share(const struct thaw_warm *warm, int fd, struct thaw_error *err)
{
	int r = write_padded(fd, warm, sizeof(*warm));

	if (r == 0)
		r = write_padded(fd, warm->head, warm->part.raw_size);
	if (r == 0 && warm->first_ops)
		r = write_padded(fd, warm->first_ops,
				 (warm->info.frames + 1) * sizeof(uint32_t));
	return r < 0 ? thaw_io(err, r, "a warm set cannot be shared") : 0;
}

int thaw_warm_open_shared(const struct thaw_image *image, const void *data, size_t size,
			  struct thaw_error *err, struct thaw_warm **ret_warm,
			  size_t *ret_used)
{
	_cleanup_(thaw_warm_freep) struct thaw_warm *warm = calloc(1, sizeof(*warm));
	const uint8_t *theirs = data;
	struct thaw_warm_info info;
	struct thaw_warm copy;
	int r;

	if (!warm)
		return thaw_oom(err);
	if (size < sizeof(copy))
		return thaw_damaged(err, "the shared warm set is none");
	memcpy(&copy, data, sizeof(copy));
	if (copy.part.raw_size > size || shared_size(&copy) > size)
		return thaw_damaged(err, "the shared warm set is none");
	warm->image = image;
	warm->part = copy.part;
	warm->info = info = copy.info;
	warm->borrowed = true;
	warm->head = (uint8_t *)theirs + padded(sizeof(copy)); /* not written to */
	if (copy.first_ops)
		warm->first_ops =
			(uint32_t *)(warm->head + padded(copy.part.raw_size));
	r = find_tables(warm, err); /* which counts some things anew */
	warm->info = info;
	if (r < 0)
		return r;
	*ret_warm = steal_ptr(warm);
	*ret_used = shared_size(&copy);
	return 0;
}

int thaw_warm_renumber(struct thaw_warm *warm, const uint32_t *map,
		       struct thaw_error *err, struct thaw_warm_part *ret_part)
{
	const struct thaw_part_info *old = &warm->part;
	uint64_t frames_size = old->size - old->head_size;
	size_t capacity = ZSTD_compressBound(old->raw_size), n;
	_cleanup_(freep) uint8_t *raw = malloc(old->raw_size);
	_cleanup_(freep) uint8_t *payload = malloc(capacity + frames_size);
	struct thaw_warm_part part = { .head_raw_size = old->raw_size };
	uint8_t *ops;
	int r;

	if (!raw || !payload)
		return thaw_oom(err);
	memcpy(raw, warm->head, old->raw_size);
	ops = raw + (warm->ops - warm->head);
	for (uint32_t i = 0; i < warm->info.ops; i++, ops += THAW_WARM_OP) {
		uint32_t ino = map[get_le32(ops + THAW_WARM_OP_OFF_INO)];

		if (ino == 0)
			return thaw_refused(err,
					    "warm set \"%s\" needs a file that is gone",
					    old->name);
		put_le32(ops + THAW_WARM_OP_OFF_INO, ino);
	}
	n = ZSTD_compress(payload, capacity, raw, old->raw_size, THAW_WARM_LEVEL);
	if (ZSTD_isError(n) ||
	    thaw_digest_of(warm->digest, payload, n, part.head_digest) < 0)
		return thaw_oom(err); /* nothing else makes it fail */
	r = thaw_image_pread(warm->image, old->offset + old->head_size, payload + n,
			     frames_size);
	if (r < 0)
		return thaw_io(err, r, "warm set \"%s\" cannot be read", old->name);
	memcpy(part.name, old->name, sizeof(part.name));
	part.head_size = (uint32_t)n;
	part.size = n + frames_size;
	part.payload = steal_ptr(payload);
	*ret_part = part;
	return 0;
}

bool thaw_warm_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > THAW_PART_NAME_MAX || !strcmp(name, "all") ||
	    !strcmp(name, "none") || strchr("._-", name[0]))
		return false;
	return strspn(name,
		      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
	       len;
}
