/* SPDX-License-Identifier: Apache-2.0 */
/* Warm sets: built from traces, read back, and refused when they lie. */
#include "check.h"

#include <unistd.h>
#include <zstd.h>

#include "digest.h"
#include "thaw/learned.h"
#include "thaw/reader.h"
#include "util/bytes.h"

#define BIG 100000u
#define MANY 2100u /* names in a directory that is not listed for a file of it */

struct state {
	char *directory, *path;
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_trace *trace;
};

static uint32_t find(const struct state *s, const char *path)
{
	struct thaw_inode inode;

	assert_int_equal(thaw_image_find(s->image, path, &inode), 0);
	return inode.ino;
}

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));
	struct thaw_pack_options options = { .frame_size = 16384, .level = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	uint8_t *big = malloc(BIG);
	char name[32];
	_buffer_ tar = { 0 };

	s->directory = make_directory();
	s->path = join_path(s->directory, "image");
	fill_pattern(big, BIG, 1);
	tar_directory(&tar, "d/");
	tar_file(&tar, "d/big", big, BIG);
	tar_text(&tar, "d/e/small", "text");
	tar_symlink(&tar, "link", "d/e");
	for (unsigned i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "many/%04u", i);
		tar_text(&tar, name, "x");
	}
	tar_end(&tar);
	free(big);
	assert_success(pack_bytes(&tar, s->path, &options, &err, &report), &err);
	assert_success(open_path(s->path, &err, &s->image), &err);
	assert_int_equal(thaw_reader_new(s->image, 0, &s->reader), 0);
	s->trace = thaw_trace_new(1000);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_trace_free(s->trace);
	thaw_reader_free(s->reader);
	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->path);
	free(s);
	return 0;
}

/* A set in a copy of the image, in memory. */
struct opened {
	struct buffer bytes;
	struct thaw_image *image;
	struct thaw_warm *warm;
	struct thaw_warm_info info;
};

static void add_set(struct state *s, const struct thaw_warm_options *options, struct opened *opened)
{
	struct thaw_warm_part part;
	struct thaw_error err = { 0 };
	uint8_t *footer, *table;
	uint32_t table_size, count;
	_buffer_ bytes = { 0 };
	_buffer_ fresh = { 0 };
	uint8_t entry[THAW_PART_ENTRY] = { 0 }, header[THAW_SKIPPABLE_HEADER];

	assert_success(thaw_warm_build(s->image, s->reader, s->trace, options, &err, &part), &err);
	/* The image with one part more: in front of the table. */
	read_file(s->path, &bytes);
	footer = bytes.data + bytes.size - THAW_FOOTER_SIZE;
	table_size = get_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE);
	table = footer - table_size;
	buffer_add(&fresh, bytes.data, (size_t)(table - bytes.data) - THAW_SKIPPABLE_HEADER);
	put_le32(entry, THAW_PART_WARM);
	put_le32(entry + THAW_PART_OFF_HEAD, part.head_size);
	put_le64(entry + THAW_PART_OFF_OFFSET, fresh.size + THAW_SKIPPABLE_HEADER);
	put_le64(entry + THAW_PART_OFF_SIZE, part.size);
	put_le64(entry + THAW_PART_OFF_RAW_SIZE, part.head_raw_size);
	memcpy(entry + THAW_PART_OFF_DIGEST, part.head_digest, THAW_DIGEST_SIZE);
	memcpy(entry + THAW_PART_OFF_NAME, part.name, strlen(part.name));
	put_le32(header, THAW_SKIPPABLE_MAGIC);
	put_le32(header + 4, (uint32_t)part.size);
	buffer_add(&fresh, header, sizeof(header));
	buffer_add(&fresh, part.payload, part.size);
	count = get_le32(table + THAW_TABLE_OFF_COUNT);
	put_le32(table + THAW_TABLE_OFF_COUNT, count + 1);
	put_le64(table + THAW_TABLE_OFF_IMAGE_SIZE, fresh.size + THAW_SKIPPABLE_HEADER + table_size +
							    THAW_PART_ENTRY + THAW_FOOTER_SIZE);
	put_le32(header + 4, table_size + THAW_PART_ENTRY);
	buffer_add(&fresh, header, sizeof(header));
	buffer_add(&fresh, table, THAW_TABLE_HEADER + count * THAW_PART_ENTRY);
	buffer_add(&fresh, entry, sizeof(entry));
	put_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE, table_size + THAW_PART_ENTRY);
	buffer_add(&fresh, footer, THAW_FOOTER_SIZE);
	image_repair(fresh.data, fresh.size);
	thaw_warm_part_deinit(&part);

	*opened = (struct opened){ 0 };
	buffer_add(&opened->bytes, fresh.data, fresh.size);
	assert_success(open_memory(&opened->bytes, &err, &opened->image), &err);
	assert_success(thaw_warm_open(opened->image, count, &err, &opened->warm), &err);
	thaw_warm_info(opened->warm, &opened->info);
}

static void opened_deinit(struct opened *opened)
{
	thaw_warm_free(opened->warm);
	thaw_image_free(opened->image);
	buffer_deinit(&opened->bytes);
}

static const struct thaw_warm_options small_frames = { .name = "set", .frame_size = 8192, .level = 1 };

static struct thaw_warm_op op_at(const struct opened *opened, uint32_t number)
{
	struct thaw_warm_op op;

	assert_true(number < opened->info.ops);
	thaw_warm_op(opened->warm, number, &op);
	return op;
}

/* Every PAGES operation's bytes, out of the frames, are the file's. */
static void check_pages(struct state *s, struct opened *opened)
{
	uint8_t *frame = malloc(THAW_FRAME_USIZE_MAX), page[65536];
	uint32_t number = 0, size = 0, used = 0;
	struct thaw_error err = { 0 };

	for (uint32_t i = 0; i < opened->info.ops; i++) {
		struct thaw_warm_op op = op_at(opened, i);
		struct thaw_inode inode;
		size_t n;

		if (op.kind != THAW_WARM_PAGES)
			continue;
		if (used == size) {
			size = thaw_warm_frame_size(opened->warm, number);
			assert_success(thaw_warm_frame(opened->warm, number++, frame, &err), &err);
			used = 0;
		}
		assert_int_equal(thaw_image_inode(s->image, op.ino, &inode), 0);
		assert_true(op.length <= sizeof(page));
		assert_success(thaw_reader_read(s->reader, &inode, (uint64_t)op.first * THAW_PAGE_SIZE,
						page, op.length, &err, &n), &err);
		assert_int_equal(n, op.length);
		assert_true(used + op.length <= size);
		assert_memory_equal(frame + used, page, n);
		used += op.length;
	}
	assert_int_equal(number, opened->info.frames);
	assert_int_equal(used, size);
	free(frame);
}

static void round_trip(void **state)
{
	struct state *s = *state;
	uint32_t big = find(s, "d/big"), small = find(s, "d/e/small");
	struct opened opened;
	uint32_t listed[8] = { 0 }, listings = 0;

	thaw_trace_add_read(s->trace, big, 20 * 4096, 4096);
	thaw_trace_add_read(s->trace, small, 0, 4);
	thaw_trace_add_read(s->trace, big, 19 * 4096, 3 * 4096); /* one of them again */
	thaw_trace_add_read(s->trace, big, 24 * 4096, 1);	  /* the last, which is short */
	thaw_trace_add_read(s->trace, big, 25 * 4096, 9 * 4096);  /* behind the end */
	add_set(s, &small_frames, &opened);
	assert_int_equal(opened.info.pages, 5);
	assert_int_equal(opened.info.files, 2);
	assert_int_equal(opened.info.bytes, 3 * 4096 + 4 + BIG - 24 * 4096);
	assert_string_equal(opened.info.name, "set");
	assert_int_equal(opened.info.directories, 3); /* root, d, d/e */
	/* First touch first; and before a file's pages, all directories on the way to it. */
	for (uint32_t i = 0; i < opened.info.ops; i++) {
		struct thaw_warm_op op = op_at(&opened, i);
		struct thaw_inode inode;
		uint32_t found = 0;

		if (op.kind == THAW_WARM_LIST) {
			listed[listings++] = op.ino;
			continue;
		}
		assert_int_equal(op.kind, THAW_WARM_PAGES);
		for (uint32_t at = op.ino; at != THAW_ROOT; at = inode.parent) {
			assert_int_equal(thaw_image_inode(s->image, at, &inode), 0);
			for (found = 0; found < listings && listed[found] != inode.parent; found++)
				;
			assert_true(found < listings);
		}
	}
	assert_int_equal(op_at(&opened, 2).ino, big); /* behind root and d */
	assert_int_equal(op_at(&opened, 2).first, 20);
	check_pages(s, &opened);
	opened_deinit(&opened);
}

static void names(void **state)
{
	struct state *s = *state;
	uint32_t directory = find(s, "d");
	struct opened opened;
	struct thaw_warm_op op;

	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "missing", 7);
	/* Names that no kernel asks for; a directory that is none; inodes that are none. */
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "a/b", 3);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "..", 2);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "a\0b", 3);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "", 0);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, find(s, "d/big"), "x", 1);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, 1u << 30, "x", 1);
	thaw_trace_add_read(s->trace, directory, 0, 1);
	thaw_trace_add_read(s->trace, 0, 0, 1);
	thaw_trace_add(s->trace, THAW_TRACE_LINK, find(s, "link"), NULL, 0);
	add_set(s, &small_frames, &opened);
	assert_int_equal(opened.info.names, 1);
	assert_int_equal(opened.info.pages, 0);
	assert_int_equal(opened.info.frames, 0);
	op = op_at(&opened, 1); /* behind the listing that makes d known */
	assert_int_equal(op.kind, THAW_WARM_LOOK);
	assert_int_equal(op.ino, directory);
	assert_int_equal(op.name.len, 7);
	assert_memory_equal(op.name.text, "missing", 7);
	assert_int_equal(op_at(&opened, opened.info.ops - 1).kind, THAW_WARM_LINK);
	opened_deinit(&opened);
}

/* To know one file of thousands, it is looked up; a listing that was wanted is kept. */
static void big_directory(void **state)
{
	struct state *s = *state;
	struct opened opened;
	struct thaw_warm_op op;

	thaw_trace_add_read(s->trace, find(s, "many/1234"), 0, 1);
	add_set(s, &small_frames, &opened);
	assert_int_equal(opened.info.directories, 1); /* root */
	assert_int_equal(opened.info.names, 1);
	op = op_at(&opened, 1);
	assert_int_equal(op.kind, THAW_WARM_LOOK);
	assert_int_equal(op.ino, find(s, "many"));
	assert_memory_equal(op.name.text, "1234", 4);
	assert_int_equal(op_at(&opened, 2).kind, THAW_WARM_PAGES);
	opened_deinit(&opened);

	thaw_trace_add(s->trace, THAW_TRACE_LIST, find(s, "many"), NULL, 0);
	thaw_trace_add_read(s->trace, find(s, "many/0001"), 0, 1);
	add_set(s, &small_frames, &opened);
	assert_int_equal(opened.info.directories, 2);
	assert_int_equal(opened.info.names, 1);
	assert_int_equal(opened.info.pages, 2);
	opened_deinit(&opened);
}

static void empty_trace(void **state)
{
	struct state *s = *state;
	struct opened opened;

	add_set(s, &small_frames, &opened);
	assert_int_equal(opened.info.ops, 0);
	assert_int_equal(opened.info.stored > 0, 1);
	opened_deinit(&opened);
}

static void set_names(void **state)
{
	static const char *const good[] = { "a", "Z9", "a.b_c-d", "1234567890123456789012345678901" };
	static const char *const bad[] = { "", "all", "none", ".a", "-a", "_a", "a b", "a/b", "\xc3\xa9",
					   "12345678901234567890123456789012" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(thaw_warm_name_valid(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(thaw_warm_name_valid(bad[i]));
}

/* -- hostile heads: one field changed, all digests right -- */

#define OP(number) (THAW_WARM_HEADER + THAW_WARM_FRAME + (number) * THAW_WARM_OP)

/* List the root; look "none" up in 3; page 0 of 6; read the link 4. One frame of 4096. */
static void sample_head(uint8_t *head, const uint8_t *frame, size_t stored)
{
	static const struct {
		uint8_t kind, len;
		uint32_t ino, a, b;
	} ops[] = { { THAW_WARM_LIST, 0, 1, 0, 0 },
		    { THAW_WARM_LOOK, 4, 3, 0, 0 },
		    { THAW_WARM_PAGES, 0, 6, 0, 1 },
		    { THAW_WARM_LINK, 0, 4, 0, 0 } };

	put_le32(head, THAW_WARM_MAGIC);
	put_le32(head + THAW_WARM_OFF_FRAMES, 1);
	put_le32(head + THAW_WARM_OFF_OPS, 4);
	put_le32(head + THAW_WARM_OFF_STRINGS, 4);
	put_le32(head + THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_CSIZE, (uint32_t)stored);
	put_le32(head + THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_USIZE, 4096);
	assert_int_equal(thaw_digest_once(frame, stored,
					  head + THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_DIGEST), 0);
	for (unsigned i = 0; i < 4; i++) {
		uint8_t *op = head + OP(i);

		op[THAW_WARM_OP_OFF_KIND] = ops[i].kind;
		op[THAW_WARM_OP_OFF_LEN] = ops[i].len;
		put_le32(op + THAW_WARM_OP_OFF_INO, ops[i].ino);
		put_le32(op + THAW_WARM_OP_OFF_A, ops[i].a);
		put_le32(op + THAW_WARM_OP_OFF_B, ops[i].b);
	}
	memcpy(head + OP(4), "none", 4);
}

static int open_changed(uint32_t offset, unsigned width, uint64_t value, struct thaw_error *err)
{
	uint8_t head[OP(4) + 4] = { 0 }, data[4096], stored[5000], packed[1024];
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_image *image;
	struct thaw_warm *warm = NULL;
	_buffer_ part = { 0 };
	_buffer_ bytes = { 0 };
	size_t n, head_size;
	int r;

	fill_pattern(data, sizeof(data), 9);
	n = ZSTD_compress(stored, sizeof(stored), data, sizeof(data), 1);
	sample_head(head, stored, n);
	for (unsigned i = 0; i < width; i++)
		head[offset + i] = (uint8_t)(value >> 8 * i);
	head_size = ZSTD_compress(packed, sizeof(packed), head, sizeof(head), 1);
	buffer_add(&part, packed, head_size);
	buffer_add(&part, stored, n);
	spec_sample(spec);
	spec->parts[spec->part_count++] = (struct spec_part){
		.type = THAW_PART_WARM, .data = part.data, .size = part.size,
		.raw_size = sizeof(head), .name = "set", .head_size = (uint32_t)head_size,
	};
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, err, &image), err);
	r = thaw_warm_open(image, 2, err, &warm);
	if (r == 0)
		r = thaw_warm_frame(warm, 0, data, err);
	thaw_warm_free(warm);
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
	return r;
}

static void hostile_heads(void **state)
{
	static const struct {
		uint32_t offset;
		unsigned width;
		uint64_t value;
		const char *what;
	} lies[] = {
		{ 0, 4, 1, "header" },
		{ THAW_WARM_OFF_FRAMES, 4, 2, "header" },
		{ THAW_WARM_OFF_FRAMES, 4, UINT32_MAX, "header" },
		{ THAW_WARM_OFF_OPS, 4, UINT32_MAX, "header" },
		{ THAW_WARM_OFF_STRINGS, 4, 5, "header" },
		{ THAW_WARM_OFF_RESERVED, 8, 1, "header" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_OFFSET, 8, 1, "frame out of place" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_OFFSET, 8, UINT64_MAX, "frame out of place" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_CSIZE, 4, UINT32_MAX, "frame out of place" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_CSIZE, 4, 0, "frame out of place" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_CSIZE, 4, 7, "frames do not fill it" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_USIZE, 4, 0, "frame out of place" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_USIZE, 4, (16u << 20) + 1, "frame out of place" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_USIZE, 4, 4095, "pages out of bounds" },
		{ THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_USIZE, 4, 4097,
		  "operations and frames do not agree" },
		{ OP(0) + THAW_WARM_OP_OFF_INO, 4, 0, "operation on no inode" },
		{ OP(0) + THAW_WARM_OP_OFF_INO, 4, 8, "operation on no inode" },
		{ OP(0) + THAW_WARM_OP_OFF_INO, 4, UINT32_MAX, "operation on no inode" },
		{ OP(0) + THAW_WARM_OP_OFF_RESERVED, 2, 1, "operation on no inode" },
		{ OP(0) + THAW_WARM_OP_OFF_INO, 4, 2, "listing of no directory" },
		{ OP(0) + THAW_WARM_OP_OFF_A, 4, 1, "listing of no directory" },
		{ OP(0) + THAW_WARM_OP_OFF_KIND, 1, 0, "unknown operation" },
		{ OP(0) + THAW_WARM_OP_OFF_KIND, 1, 5, "unknown operation" },
		{ OP(1) + THAW_WARM_OP_OFF_INO, 4, 2, "impossible name" },
		{ OP(1) + THAW_WARM_OP_OFF_LEN, 1, 0, "impossible name" },
		{ OP(1) + THAW_WARM_OP_OFF_LEN, 1, 5, "impossible name" },
		{ OP(1) + THAW_WARM_OP_OFF_A, 4, 1, "impossible name" },
		{ OP(1) + THAW_WARM_OP_OFF_A, 4, UINT32_MAX, "impossible name" },
		{ OP(4), 1, '/', "impossible name" },
		{ OP(4), 1, 0, "impossible name" },
		{ OP(2) + THAW_WARM_OP_OFF_INO, 4, 3, "pages out of bounds" },
		{ OP(2) + THAW_WARM_OP_OFF_INO, 4, 7, "pages out of bounds" },
		{ OP(2) + THAW_WARM_OP_OFF_A, 4, 1, "operations and frames do not agree" },
		{ OP(2) + THAW_WARM_OP_OFF_A, 4, 2, "pages out of bounds" },
		{ OP(2) + THAW_WARM_OP_OFF_A, 4, UINT32_MAX, "pages out of bounds" },
		{ OP(2) + THAW_WARM_OP_OFF_B, 4, 0, "pages out of bounds" },
		{ OP(2) + THAW_WARM_OP_OFF_B, 4, 2, "pages out of bounds" },
		{ OP(2) + THAW_WARM_OP_OFF_B, 4, UINT32_MAX, "pages out of bounds" },
		{ OP(3) + THAW_WARM_OP_OFF_INO, 4, 2, "reading of no symlink" },
	};
	struct thaw_error err = { 0 };

	assert_success(open_changed(0, 0, 0, &err), &err);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		char text[128];

		(void)snprintf(text, sizeof(text), "damaged: warm set \"set\": %s", lies[i].what);
		assert_damaged(open_changed(lies[i].offset, lies[i].width, lies[i].value, &err), &err,
			       text);
	}
	assert_damaged(open_changed(THAW_WARM_HEADER + THAW_WARM_FRAME_OFF_DIGEST, 1, 0xff, &err), &err,
		       "warm set \"set\": frame 0 is damaged (digest)");
}

/* -- learned -- */

static void pages_are_right(struct state *s, struct thaw_warm *warm)
{
	struct opened opened = { .warm = warm };

	thaw_warm_info(warm, &opened.info);
	check_pages(s, &opened);
}

/* Written, read again, and resolved: the same pages, those of a frame together. */
static void learned(void **state)
{
	struct state *s = *state;
	uint32_t big = find(s, "d/big"), small = find(s, "d/e/small"), directory = find(s, "d");
	struct thaw_learned out, in;
	struct thaw_warm_info info;
	struct thaw_error err = { 0 };
	uint8_t digest[THAW_DIGEST_SIZE], byte;
	struct thaw_warm *warm;
	struct thaw_warm_op op;
	unsigned looks = 0, changes = 0;
	uint32_t frames[8];
	FILE *file = tmpfile();

	thaw_trace_add_read(s->trace, big, 20 * 4096, 4096);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "missing", 7);
	thaw_trace_add_read(s->trace, small, 0, 4);
	thaw_trace_add_read(s->trace, big, 19 * 4096, 3 * 4096);
	thaw_trace_add_read(s->trace, big, 24 * 4096, 1);
	thaw_trace_add_read(s->trace, big, 25 * 4096, 9 * 4096);  /* behind the end */
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "a/b", 3);
	thaw_trace_add(s->trace, THAW_TRACE_MISSED, directory, "a\0b", 3);
	thaw_trace_add_read(s->trace, 1u << 30, 0, 4096);	  /* no inode */
	thaw_trace_end(s->trace);
	thaw_trace_add_read(s->trace, small, 0, 4);
	assert_int_equal(thaw_trace_count(s->trace), 9);
	assert_success(thaw_learned_from_trace(s->image, s->trace, &err, &out), &err);
	assert_int_equal(out.count, 6);
	assert_non_null(file);
	assert_success(thaw_learned_save(fileno(file), thaw_image_info(s->image)->index_digest,
					 &out, &err), &err);
	thaw_learned_deinit(&out);
	assert_success(thaw_learned_load(fileno(file), &err, digest, &in), &err);
	assert_memory_equal(digest, thaw_image_info(s->image)->index_digest, sizeof(digest));
	assert_int_equal(thaw_warm_from_learned(s->image, &in, &err, &warm), 0);
	thaw_warm_info(warm, &info);
	assert_string_equal(info.name, "learned");
	assert_int_equal(info.pages, 5);
	assert_int_equal(info.files, 2);
	assert_int_equal(info.bytes, 3 * 4096 + 4 + BIG - 24 * 4096);
	for (uint32_t i = 0; i < info.ops; i++) {
		thaw_warm_op(warm, i, &op);
		looks += op.kind == THAW_WARM_LOOK;
		for (uint32_t j = 0; op.kind == THAW_WARM_PAGES && j < op.count; j++) {
			struct thaw_inode inode;
			uint32_t frame;

			assert_int_equal(thaw_image_inode(s->image, op.ino, &inode), 0);
			frame = thaw_image_frame_at(s->image, inode.data + (op.first + j) * 4096ull);
			assert_true(changes > 0 || (op.ino == big && op.first == 20));
			if (changes > 0 && frame == frames[changes - 1])
				continue;
			for (unsigned k = 0; k < changes; k++)
				assert_int_not_equal(frame, frames[k]); /* not again */
			assert_true(changes < ARRAY_SIZE(frames));
			frames[changes++] = frame;
		}
	}
	assert_int_equal(looks, 1);
	assert_int_equal(changes, 3); /* of 16 KiB, for the pages 19 to 24 and a small file */
	pages_are_right(s, warm);
	thaw_warm_free(warm);

	/* Nothing of it is in this image any more: paths lead nowhere. */
	for (size_t i = 0; i < in.count; i++)
		in.entries[i].path_len = in.entries[i].path_len ? 1 : 0;
	assert_int_equal(thaw_warm_from_learned(s->image, &in, &err, &warm), 0);
	thaw_warm_info(warm, &info);
	assert_int_equal(info.pages, 0);
	thaw_warm_free(warm);
	in.count = 0;
	assert_int_equal(thaw_warm_from_learned(s->image, &in, &err, &warm), THAW_NOT_FOUND);
	thaw_learned_deinit(&in);

	/* Any byte of the file changed, or the last one gone. */
	for (long at = 0, size = lseek(fileno(file), 0, SEEK_END); at < size; at++) {
		assert_int_equal(pread(fileno(file), &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fileno(file), &byte, 1, at), 1);
		assert_int_equal(thaw_learned_load(fileno(file), &err, digest, &in), -EBADMSG);
		byte ^= 0x10;
		assert_int_equal(pwrite(fileno(file), &byte, 1, at), 1);
	}
	assert_int_equal(ftruncate(fileno(file), lseek(fileno(file), 0, SEEK_END) - 1), 0);
	assert_int_equal(thaw_learned_load(fileno(file), &err, digest, &in), -EBADMSG);
	assert_int_equal(ftruncate(fileno(file), 0), 0);
	assert_int_equal(thaw_learned_load(fileno(file), &err, digest, &in), -EBADMSG);
	(void)fclose(file);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(round_trip),
		TEST(names),
		TEST(big_directory),
		TEST(empty_trace),
		TEST(learned),
		cmocka_unit_test(set_names),
		cmocka_unit_test(hostile_heads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
