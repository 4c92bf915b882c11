/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a trace to a warm set.
 *
 * The kernel takes pages only for inodes that it knows, and knows inodes that
 * it was told of by a look-up or a listing. So before the first thing that
 * happens in a directory, the directories above are listed, from the root down,
 * each once. A directory with very many names is not listed for a few of them:
 * those are looked up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "pass-internal.h"
#include "thaw/warm.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "warm-internal.h"

/* Listing costs about 0.5 us a name on the worker's side, a look-up 40 us. */
#define LIST_MAX 2048u
#define BYTES_MAX \
	(2ull << 30) /* a part is smaller than 4 GiB, and this is held in memory */

/* Raw bytes of one frame, and what becomes of them. */
struct frame {
	uint8_t *raw, *stored;
	uint32_t raw_size, stored_size;
	uint8_t digest[THAW_DIGEST_SIZE];
};

struct build {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	const struct thaw_warm_options *options;
	struct thaw_error *err;
	int level;
	uint32_t frame_size;

	uint8_t *listed,
		*known;	 /* a bit an inode: LIST is in the ops; the kernel will know it */
	uint64_t *pages; /* hash set of inode << 32 | page, plus 1 */
	size_t page_count, page_capacity;
	uint64_t bytes; /* of pages */

	uint8_t *ops;
	size_t op_count, op_capacity;
	char *strings;
	size_t strings_size, strings_capacity;
	struct frame *frames;
	size_t frame_count, frame_capacity;
	struct thaw_pass pass; /* while compressing */
	struct plan *plan;     /* of a learned trace; else NULL */
};

static bool test_and_set(uint8_t *bits, uint32_t number)
{
	uint8_t bit = (uint8_t)(1u << number % 8);
	bool was = bits[number / 8] & bit;

	bits[number / 8] |= bit;
	return was;
}

static int add_op(struct build *build, enum thaw_warm_kind kind, uint32_t ino,
		  uint8_t len, uint32_t a, uint32_t b)
{
	uint8_t *record;

	if (grow(&build->ops, &build->op_capacity, (build->op_count + 1) * THAW_WARM_OP,
		 1) < 0)
		return thaw_oom(build->err);
	record = build->ops + build->op_count++ * THAW_WARM_OP;
	memset(record, 0, THAW_WARM_OP);
	record[THAW_WARM_OP_OFF_KIND] = (uint8_t)kind;
	record[THAW_WARM_OP_OFF_LEN] = len;
	put_le32(record + THAW_WARM_OP_OFF_INO, ino);
	put_le32(record + THAW_WARM_OP_OFF_A, a);
	put_le32(record + THAW_WARM_OP_OFF_B, b);
	return 0;
}

static int add_look(struct build *build, uint32_t directory, const char *name, size_t len)
{
	uint32_t offset = (uint32_t)build->strings_size;

	if (len == 0 || len > THAW_NAME_MAX || memchr(name, '/', len) ||
	    memchr(name, '\0', len) ||
	    (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return 0; /* no kernel asks for it */
	if (grow(&build->strings, &build->strings_capacity, build->strings_size + len,
		 1) < 0)
		return thaw_oom(build->err);
	memcpy(build->strings + offset, name, len);
	build->strings_size += len;
	return add_op(build, THAW_WARM_LOOK, directory, (uint8_t)len, offset, 0);
}

static int list_directory(struct build *build, uint32_t directory)
{
	return test_and_set(build->listed, directory)
		       ? 0
		       : add_op(build, THAW_WARM_LIST, directory, 0, 0, 0);
}

/* Make the kernel know inode: everything on the way to it first. */
static int make_known(struct build *build, uint32_t ino)
{
	uint32_t way[THAW_PATH_MAX / 2 + 2], depth = 0;

	/* Parents have smaller numbers, so this ends; validated paths are no deeper than that... */
	while (ino > THAW_ROOT && depth < sizeof(way) / sizeof(way[0]) &&
	       !(build->known[ino / 8] >> ino % 8 & 1)) {
		way[depth++] = ino;
		ino = get_le32(inode_record(build->image, ino) + THAW_INODE_OFF_PARENT);
	}
	while (depth > 0) {
		const uint8_t *record = inode_record(build->image, way[--depth]);
		uint32_t parent = get_le32(record + THAW_INODE_OFF_PARENT);
		const uint8_t *directory = inode_record(build->image, parent);
		struct thaw_name name = record_name(build->image, record);
		int r;

		(void)test_and_set(build->known, way[depth]);
		if (get_le64(directory + THAW_INODE_OFF_SIZE) <= LIST_MAX)
			r = list_directory(build, parent);
		else if (build->listed[parent / 8] >> parent % 8 & 1)
			r = 0;
		else
			r = add_look(build, parent, name.text, name.len);
		if (r < 0)
			return r;
	}
	return 0;
}

/* True if this page was there before. Out of memory counts as new: pages may come twice. */
static bool page_seen(struct build *build, uint32_t ino, uint32_t page)
{
	uint64_t key = ((uint64_t)ino << 32 | page) + 1;
	size_t mask, at;

	if (build->page_count * 2 >= build->page_capacity) {
		size_t capacity = build->page_capacity ? build->page_capacity * 2
						       : 1u << 14;
		uint64_t *larger = calloc(capacity, sizeof(*larger));

		if (!larger)
			return false;
		for (size_t i = 0; i < build->page_capacity; i++) {
			if (!build->pages[i])
				continue;
			at = (build->pages[i] * 0x9e3779b97f4a7c15ull >> 20) &
			     (capacity - 1);
			while (larger[at])
				at = (at + 1) & (capacity - 1);
			larger[at] = build->pages[i];
		}
		free(build->pages);
		build->pages = larger;
		build->page_capacity = capacity;
	}
	mask = build->page_capacity - 1;
	at = (key * 0x9e3779b97f4a7c15ull >> 20) & mask;
	while (build->pages[at]) {
		if (build->pages[at] == key)
			return true;
		at = (at + 1) & mask;
	}
	build->pages[at] = key;
	build->page_count++;
	return false;
}

/* The frame that has room for len more bytes: the last, or a new one. */
static int frame_with_room(struct build *build, uint32_t len, struct frame **ret_frame)
{
	struct frame *frame = build->frame_count ? &build->frames[build->frame_count - 1]
						 : NULL;

	if (!frame || frame->raw_size + len > build->frame_size) {
		if (grow(&build->frames, &build->frame_capacity, build->frame_count + 1,
			 sizeof(*build->frames)) < 0)
			return thaw_oom(build->err);
		frame = &build->frames[build->frame_count];
		memset(frame, 0, sizeof(*frame));
		frame->raw = malloc(build->frame_size);
		if (!frame->raw)
			return thaw_oom(build->err);
		build->frame_count++;
	}
	*ret_frame = frame;
	return 0;
}

/* Does the last operation end where this page begins, in the same file and frame? */
static bool extends_last(const struct build *build, uint32_t ino, uint32_t page,
			 const struct frame *frame)
{
	const uint8_t *record = build->ops + (build->op_count - 1) * THAW_WARM_OP;

	return build->op_count > 0 && frame->raw_size > 0 &&
	       record[THAW_WARM_OP_OFF_KIND] == THAW_WARM_PAGES &&
	       get_le32(record + THAW_WARM_OP_OFF_INO) == ino &&
	       get_le32(record + THAW_WARM_OP_OFF_A) +
			       get_le32(record + THAW_WARM_OP_OFF_B) ==
		       page;
}

static int add_page(struct build *build, const struct thaw_inode *inode, uint32_t page)
{
	uint64_t offset = (uint64_t)page * THAW_PAGE_SIZE;
	struct frame *frame = NULL;
	size_t want, got = 0;
	int r;

	if (offset >= inode->size || page_seen(build, inode->ino, page))
		return 0;
	want = inode->size - offset < THAW_PAGE_SIZE ? (size_t)(inode->size - offset)
						     : THAW_PAGE_SIZE;
	r = frame_with_room(build, (uint32_t)want, &frame);
	if (r < 0)
		return r;
	r = thaw_reader_read(build->reader, inode, offset, frame->raw + frame->raw_size,
			     want, build->err, &got);
	if (r < 0)
		return r;
	if (extends_last(build, inode->ino, page, frame)) {
		uint8_t *count = build->ops + (build->op_count - 1) * THAW_WARM_OP +
				 THAW_WARM_OP_OFF_B;

		put_le32(count, get_le32(count) + 1);
	} else {
		r = add_op(build, THAW_WARM_PAGES, inode->ino, 0, page, 1);
	}
	frame->raw_size += (uint32_t)got;
	build->bytes += got;
	if (r == 0 && build->bytes > BYTES_MAX)
		return thaw_limit(build->err, "the workload touches more than 2 GiB; "
					      "a warm set would not help it");
	return r;
}

static int add_pages(struct build *build, const struct thaw_inode *inode, uint64_t first,
		     uint64_t count)
{
	int r = 0;

	for (uint64_t i = first; i < first + count && r == 0; i++) {
		if (i > UINT32_MAX || i * THAW_PAGE_SIZE >= inode->size)
			break;
		r = add_page(build, inode, (uint32_t)i);
	}
	return r;
}

/* A file was read; a .pyc that it has now is what the next run reads instead. */
static int add_read(struct build *build, const struct thaw_inode *inode,
		    const struct thaw_trace_event *event)
{
	const uint32_t *instead = build->options->instead;
	struct thaw_inode other;
	int r;

	if (inode->type != THAW_REGULAR)
		return 0;
	if (!instead || !instead[inode->ino])
		return add_pages(build, inode, event->first, event->count);
	r = make_known(build, instead[inode->ino]);
	if (r < 0 || thaw_image_inode(build->image, instead[inode->ino], &other) < 0 ||
	    other.type != THAW_REGULAR)
		return r;
	return add_pages(build, &other, 0, UINT32_MAX);
}

static int add_event(struct build *build, const struct thaw_trace_event *event)
{
	const struct thaw_warm_options *options = build->options;
	uint32_t ino = event->ino;
	struct thaw_inode inode;
	int r;

	/* The recorder is not trusted: it parsed hostile bytes. */
	if (options->map)
		ino = ino < options->trace_inodes ? options->map[ino] : 0;
	if (thaw_image_inode(build->image, ino, &inode) < 0)
		return 0;
	r = make_known(build, inode.ino);
	if (r < 0)
		return r;
	switch (event->kind) {
	case THAW_TRACE_READ:
		return add_read(build, &inode, event);
	case THAW_TRACE_LIST:
		return inode.type == THAW_DIRECTORY ? list_directory(build, inode.ino)
						    : 0;
	case THAW_TRACE_FOUND:
	case THAW_TRACE_MISSED:
		if (inode.type != THAW_DIRECTORY)
			return 0;
		if (event->kind == THAW_TRACE_MISSED)
			return add_look(build, inode.ino, event->name, event->name_len);
		r = thaw_image_lookup(build->image, inode.ino, event->name,
				      event->name_len, &inode);
		return r == 0 ? make_known(build, inode.ino) : 0;
	case THAW_TRACE_LINK:
		/* One event each: the kernel keeps what it read. */
		return inode.type == THAW_SYMLINK
			       ? add_op(build, THAW_WARM_LINK, inode.ino, 0, 0, 0)
			       : 0;
	}
	return 0;
}

static void *compress_frames(void *userdata)
{
	struct build *build = userdata;
	ZSTD_CCtx *context = ZSTD_createCCtx();
	struct thaw_digest *digest = NULL;
	bool ready =
		context && thaw_digest_new(&digest) == 0 &&
		!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel,
						     build->level)) &&
		!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1));
	uint64_t number;

	while (thaw_pass_take(&build->pass, &number)) {
		struct frame *frame = &build->frames[number];
		size_t capacity = ZSTD_compressBound(frame->raw_size), n = 0;
		struct thaw_error err = { 0 };

		frame->stored = ready ? malloc(capacity) : NULL;
		if (frame->stored)
			n = ZSTD_compress2(context, frame->stored, capacity, frame->raw,
					   frame->raw_size);
		if (!frame->stored || ZSTD_isError(n) ||
		    thaw_digest_of(digest, frame->stored, n, frame->digest) < 0) {
			thaw_pass_fail(&build->pass, thaw_oom(&err), &err);
			break;
		}
		frame->stored_size = (uint32_t)n;
		free(frame->raw);
		frame->raw = NULL;
	}
	ZSTD_freeCCtx(context);
	thaw_digest_free(digest);
	return NULL;
}

static int compress_all(struct build *build)
{
	int r;

	thaw_pass_init(&build->pass, NULL, build->frame_count, build->frame_count);
	thaw_pass_run(&build->pass, thaw_pass_threads(&build->pass), compress_frames,
		      build);
	r = thaw_pass_result(&build->pass, build->err);
	thaw_pass_deinit(&build->pass);
	return r;
}

/* Frames' offsets count from the head's end, whose place is known only afterwards. */
static int make_head(struct build *build, uint8_t **ret_raw, size_t *ret_size)
{
	size_t size = THAW_WARM_HEADER + build->frame_count * THAW_WARM_FRAME +
		      build->op_count * THAW_WARM_OP + build->strings_size;
	uint8_t *raw = calloc(1, size), *at;
	uint64_t offset = 0;

	if (!raw)
		return thaw_oom(build->err);
	put_le32(raw, THAW_WARM_MAGIC);
	put_le32(raw + THAW_WARM_OFF_FRAMES, (uint32_t)build->frame_count);
	put_le32(raw + THAW_WARM_OFF_OPS, (uint32_t)build->op_count);
	put_le32(raw + THAW_WARM_OFF_STRINGS, (uint32_t)build->strings_size);
	at = raw + THAW_WARM_HEADER;
	for (size_t i = 0; i < build->frame_count; i++, at += THAW_WARM_FRAME) {
		const struct frame *frame = &build->frames[i];

		put_le64(at + THAW_WARM_FRAME_OFF_OFFSET, offset);
		put_le32(at + THAW_WARM_FRAME_OFF_CSIZE, frame->stored_size);
		put_le32(at + THAW_WARM_FRAME_OFF_USIZE, frame->raw_size);
		memcpy(at + THAW_WARM_FRAME_OFF_DIGEST, frame->digest, THAW_DIGEST_SIZE);
		offset += frame->stored_size;
	}
	if (build->op_count > 0)
		memcpy(at, build->ops, build->op_count * THAW_WARM_OP);
	at += build->op_count * THAW_WARM_OP;
	if (build->strings_size > 0)
		memcpy(at, build->strings, build->strings_size);
	*ret_raw = raw;
	*ret_size = size;
	return 0;
}

static int make_part(struct build *build, struct thaw_warm_part *ret_part)
{
	_cleanup_(freep) uint8_t *raw = NULL;
	struct thaw_warm_part part = { 0 };
	uint64_t frames_size = 0;
	size_t raw_size = 0, capacity, n;
	uint8_t *payload;
	int r;

	for (size_t i = 0; i < build->frame_count; i++)
		frames_size += build->frames[i].stored_size;
	r = make_head(build, &raw, &raw_size);
	if (r < 0)
		return r;
	if (raw_size > THAW_WARM_HEAD_RAW_MAX)
		return thaw_limit(build->err, "the trace is too long for a warm set");
	capacity = ZSTD_compressBound(raw_size);
	payload = malloc(capacity + frames_size);
	if (!payload)
		return thaw_oom(build->err);
	n = ZSTD_compress(payload, capacity, raw, raw_size, build->level);
	if (ZSTD_isError(n) || thaw_digest_once(payload, n, part.head_digest) < 0) {
		free(payload);
		return thaw_oom(build->err); /* nothing else makes it fail */
	}
	part.head_size = (uint32_t)n;
	part.head_raw_size = raw_size;
	part.size = n;
	for (size_t i = 0; i < build->frame_count; i++) {
		memcpy(payload + part.size, build->frames[i].stored,
		       build->frames[i].stored_size);
		part.size += build->frames[i].stored_size;
	}
	part.payload = payload;
	(void)snprintf(part.name, sizeof(part.name), "%s", build->options->name);
	*ret_part = part;
	return 0;
}

void thaw_warm_part_deinit(struct thaw_warm_part *part)
{
	free(part->payload);
	*part = (struct thaw_warm_part){ 0 };
}

static void build_deinit(struct build *build)
{
	for (size_t i = 0; i < build->frame_count; i++) {
		free(build->frames[i].raw);
		free(build->frames[i].stored);
	}
	free(build->frames);
	free(build->listed);
	free(build->known);
	free(build->pages);
	free(build->ops);
	free(build->strings);
}

static int add_events(struct build *build, const struct thaw_trace *trace)
{
	struct thaw_trace_event event;

	for (uint32_t i = 0; i < thaw_trace_count(trace); i++) {
		int r = thaw_trace_get(trace, i, &event) ? add_event(build, &event) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

int thaw_warm_build(const struct thaw_image *image, struct thaw_reader *reader,
		    const struct thaw_trace *trace,
		    const struct thaw_warm_options *options, struct thaw_error *err,
		    struct thaw_warm_part *ret_part)
{
	size_t bits = image->info.inodes / 8 + 1;
	struct build build = {
		.image = image,
		.reader = reader,
		.options = options,
		.err = err,
		.level = options->level ? options->level : THAW_WARM_LEVEL,
		.frame_size = options->frame_size ? options->frame_size
						  : THAW_WARM_FRAME_SIZE,
		.listed = calloc(1, bits),
		.known = calloc(1, bits),
	};
	int r;

	if (!build.listed || !build.known)
		r = thaw_oom(err);
	else
		r = add_events(&build, trace);
	if (r == 0)
		r = compress_all(&build);
	if (r == 0)
		r = make_part(&build, ret_part);
	build_deinit(&build);
	return r;
}

/* -- learned traces -- */

#define LEARNED_PAGES_MAX ((256u << 20) / THAW_PAGE_SIZE)

/* A page, and the turn of the frame that it begins in. */
struct touched {
	uint32_t turn, ino, page;
};

struct plan {
	struct touched *touched;
	size_t count, capacity;
	/* By frame of the image: in which turn it was touched first; 0: not. */
	uint32_t *turns, last_turn;
	size_t *starts; /* by turn: of its pages in touched; its end is the next one's */
	uint8_t *done;	/* a bit a turn */
	uint32_t *inodes; /* of the entries; 0: not in this image */
};

static uint32_t frame_of(const struct build *build, const struct thaw_inode *inode,
			 uint32_t page)
{
	return thaw_image_frame_at(build->image,
				   inode->data + (uint64_t)page * THAW_PAGE_SIZE);
}

/* Entries of one file or directory follow each other more often than not. */
static void resolve(struct build *build, const struct thaw_learned *learned)
{
	const struct thaw_learned_entry *last = NULL;
	char path[THAW_PATH_MAX + 1];

	for (size_t i = 0; i < learned->count; i++) {
		const struct thaw_learned_entry *entry = &learned->entries[i];
		struct thaw_inode inode;

		if (last && last->path_len == entry->path_len &&
		    memcmp(last->path, entry->path, entry->path_len) == 0) {
			build->plan->inodes[i] = build->plan->inodes[i - 1];
			continue;
		}
		last = entry;
		memcpy(path, entry->path, entry->path_len); /* at most THAW_PATH_MAX */
		path[entry->path_len] = '\0';
		if (thaw_image_find(build->image, path, &inode) == 0)
			build->plan->inodes[i] = inode.ino;
	}
}

/* The pages of an entry that the file has: [first, end). */
static bool clamp_pages(const struct build *build, const struct thaw_learned_entry *entry,
			uint32_t ino, struct thaw_inode *ret_inode, uint32_t *ret_end)
{
	uint64_t pages, end = (uint64_t)entry->first + entry->count;

	if (entry->kind != THAW_TRACE_READ ||
	    thaw_image_inode(build->image, ino, ret_inode) < 0 ||
	    ret_inode->type != THAW_REGULAR)
		return false;
	pages = (ret_inode->size + THAW_PAGE_SIZE - 1) / THAW_PAGE_SIZE;
	end = end < pages ? end : pages;
	*ret_end = (uint32_t)(end < UINT32_MAX ? end : UINT32_MAX);
	return entry->first < *ret_end;
}

static int collect_pages(struct build *build, const struct thaw_learned *learned)
{
	struct plan *plan = build->plan;

	for (size_t i = 0; i < learned->count; i++) {
		const struct thaw_learned_entry *entry = &learned->entries[i];
		struct thaw_inode inode;
		uint32_t end;

		if (!clamp_pages(build, entry, plan->inodes[i], &inode, &end))
			continue;
		for (uint32_t page = entry->first; page < end; page++) {
			uint32_t *turn = &plan->turns[frame_of(build, &inode, page)];

			if (plan->count >= LEARNED_PAGES_MAX)
				return 0;
			if (page_seen(build, inode.ino, page))
				continue;
			if (grow(&plan->touched, &plan->capacity, plan->count + 1,
				 sizeof(*plan->touched)) < 0)
				return thaw_oom(build->err);
			if (*turn == 0)
				*turn = ++plan->last_turn;
			plan->touched[plan->count++] = (struct touched){ *turn, inode.ino,
									 page };
		}
	}
	return 0;
}

static int compare_touched(const void *a, const void *b)
{
	const struct touched *x = a, *y = b;

	if (x->turn != y->turn)
		return x->turn < y->turn ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

static int find_starts(struct plan *plan)
{
	uint32_t turn = 0;

	if (plan->count > 0)
		qsort(plan->touched, plan->count, sizeof(*plan->touched),
		      compare_touched);
	plan->starts = calloc((size_t)plan->last_turn + 2, sizeof(*plan->starts));
	plan->done = calloc(1, (size_t)plan->last_turn / 8 + 1);
	if (!plan->starts || !plan->done)
		return -ENOMEM;
	for (size_t i = 0; i < plan->count; i++)
		while (turn < plan->touched[i].turn)
			plan->starts[++turn] = i;
	plan->starts[plan->last_turn + 1] = plan->count;
	return 0;
}

/* A page of a frame without bytes; begin: it is the first of what is decoded together. */
static int plan_page(struct build *build, const struct touched *touched, bool begin)
{
	struct frame *frame = build->frame_count ? &build->frames[build->frame_count - 1]
						 : NULL;
	uint64_t offset = (uint64_t)touched->page * THAW_PAGE_SIZE;
	struct thaw_inode inode;
	uint32_t length;

	if (thaw_image_inode(build->image, touched->ino, &inode) < 0)
		return 0; /* cannot be: it was looked at before */
	length = inode.size - offset < THAW_PAGE_SIZE ? (uint32_t)(inode.size - offset)
						      : THAW_PAGE_SIZE;
	if (begin || !frame || frame->raw_size + length > build->frame_size) {
		if (grow(&build->frames, &build->frame_capacity, build->frame_count + 1,
			 sizeof(*build->frames)) < 0)
			return thaw_oom(build->err);
		frame = &build->frames[build->frame_count++];
		memset(frame, 0, sizeof(*frame));
	}
	if (build->op_count > 0 &&
	    extends_last(build, touched->ino, touched->page, frame)) {
		uint8_t *count = build->ops + (build->op_count - 1) * THAW_WARM_OP +
				 THAW_WARM_OP_OFF_B;

		put_le32(count, get_le32(count) + 1);
	} else {
		int r = add_op(build, THAW_WARM_PAGES, touched->ino, 0, touched->page, 1);

		if (r < 0)
			return r;
	}
	frame->raw_size += length;
	return 0;
}

/* All that was touched of one frame of the image, whenever that was. */
static int plan_turn(struct build *build, uint32_t turn)
{
	const struct plan *plan = build->plan;
	size_t first = plan->starts[turn], end = plan->starts[turn + 1];
	int r = 0;

	if (test_and_set(plan->done, turn))
		return 0;
	for (size_t i = first; r == 0 && i < end; i++)
		r = make_known(build, plan->touched[i].ino);
	for (size_t i = first; r == 0 && i < end; i++)
		r = plan_page(build, &plan->touched[i], i == first);
	return r;
}

static int plan_entry(struct build *build, const struct thaw_learned_entry *entry,
		      uint32_t ino)
{
	struct thaw_trace_event event = {
		.kind = entry->kind,
		.ino = ino,
		.name = entry->name,
		.name_len = entry->name_len,
	};
	struct thaw_inode inode;
	uint32_t end;
	int r = 0;

	if (entry->kind != THAW_TRACE_READ)
		return add_event(build, &event);
	if (!clamp_pages(build, entry, ino, &inode, &end))
		return 0;
	for (uint32_t page = entry->first; r == 0 && page < end; page++) {
		uint32_t turn = build->plan->turns[frame_of(build, &inode, page)];

		if (turn == 0)
			break; /* it was over the limit, and so is what follows */
		r = plan_turn(build, turn);
	}
	return r;
}

static int plan_all(struct build *build, const struct thaw_learned *learned)
{
	int r;

	resolve(build, learned);
	r = collect_pages(build, learned);
	if (r == 0 && find_starts(build->plan) < 0)
		r = thaw_oom(build->err);
	for (size_t i = 0; r == 0 && i < learned->count; i++)
		if (build->plan->inodes[i])
			r = plan_entry(build, &learned->entries[i],
				       build->plan->inodes[i]);
	return r;
}

int thaw_warm_plan(const struct thaw_image *image, const struct thaw_learned *learned,
		   struct thaw_error *err, uint8_t **ret_head, size_t *ret_size)
{
	static const struct thaw_warm_options options = { .name = THAW_LEARNED_WORKLOAD };
	size_t bits = image->info.inodes / 8 + 1;
	struct plan plan = {
		.turns = calloc((size_t)image->info.frames + 1, sizeof(uint32_t)),
		.inodes = calloc(learned->count + 1, sizeof(uint32_t)),
	};
	struct build build = {
		.image = image,
		.options = &options,
		.err = err,
		.frame_size = THAW_WARM_FRAME_SIZE,
		.listed = calloc(1, bits),
		.known = calloc(1, bits),
		.plan = &plan,
	};
	int r;

	if (!plan.turns || !plan.inodes || !build.listed || !build.known)
		r = thaw_oom(err);
	else
		r = plan_all(&build, learned);
	if (r == 0)
		r = make_head(&build, ret_head, ret_size);
	build_deinit(&build);
	free(plan.touched);
	free(plan.turns);
	free(plan.starts);
	free(plan.done);
	free(plan.inodes);
	return r;
}
