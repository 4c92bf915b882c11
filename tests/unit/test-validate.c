/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged images: the footer, the parts table, the index as it is stored; and all of it, bit by bit. */
#include "damage.h"

#include "util/bytes.h"

/* -- footer -- */

static void footer_magic(struct spec *s)
{
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_MAGIC + 5, 1, '\n'); /* "\r\n" became "\n" */
}

static void footer_version(struct spec *s)
{
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_VERSION, 4, 2);
}

static void footer_reserved(struct spec *s)
{
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_RESERVED + 7, 1, 1);
}

static void footer_skippable(struct spec *s)
{
	spec_poke(s, IN_FOOTER, 0, 4, THAW_SKIPPABLE_MAGIC - 1);
}

static void footer_skippable_length(struct spec *s)
{
	spec_poke(s, IN_FOOTER, 4, 4, 57);
}

static void footer_table_too_small(struct spec *s)
{
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_TABLE_SIZE, 4, THAW_TABLE_HEADER - 1);
}

static void footer_table_too_large(struct spec *s)
{
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_TABLE_SIZE, 4, UINT32_MAX);
}

static void footer_table_beyond_start(struct spec *s)
{
	/* Below the cap on tables, but more than there is. */
	buffer_deinit(&s->stream);
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_TABLE_SIZE, 4, 7000);
}

static void footer_identity(struct spec *s)
{
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_IDENTITY, 1, 0);
	spec_poke(s, IN_FOOTER, THAW_FOOTER_OFF_IDENTITY + 1, 2, 0);
}

/* -- parts table -- */

static void table_magic(struct spec *s)
{
	spec_poke(s, IN_TABLE, 0, 4, THAW_TABLE_MAGIC ^ 1);
}

static void table_no_parts(struct spec *s)
{
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_COUNT, 4, 0);
}

static void table_count(struct spec *s)
{
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_COUNT, 4, 3);
}

static void table_too_many_parts(struct spec *s)
{
	while (s->part_count < THAW_PARTS_MAX - 1)
		s->parts[s->part_count++] =
			(struct spec_part){ .type = THAW_PART_WARM, .data = "x", .size = 1 };
}

static void table_names_size(struct spec *s)
{
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_NAMES_SIZE, 4, 1);
}

static void table_names_size_wraps(struct spec *s)
{
	/* count * entry + names = the table's size, in 32 bits only */
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_COUNT, 4, 64);
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_NAMES_SIZE, 4, (uint32_t)(-62 * (int)THAW_PART_ENTRY));
}

static void table_reserved(struct spec *s)
{
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_RESERVED, 4, 1);
}

static void table_image_too_large(struct spec *s)
{
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_IMAGE_SIZE, 8, UINT64_MAX);
}

static void table_image_too_small(struct spec *s)
{
	spec_poke(s, IN_TABLE, THAW_TABLE_OFF_IMAGE_SIZE, 8, 100);
}

static void feature_unknown(struct spec *s)
{
	s->incompat = 1;
	s->names = "encrypted-frames";
	s->names_size = 17;
}

static void features_unknown(struct spec *s)
{
	s->incompat = 1ull << 63 | 1ull << 5;
	s->names = "deltas\0bad\nname";
	s->names_size = 16;
}

static void features_fill_the_message(struct spec *s)
{
	static char names[1024];

	memset(names, 'n', sizeof(names));
	for (unsigned i = 1; i <= 12; i++)
		names[i * 80 - 1] = '\0';
	names[1023] = '\0';
	s->incompat = 0xfff;
	s->names = names;
	s->names_size = 12 * 80;
}

static void feature_without_name(struct spec *s)
{
	s->incompat = 1;
}

static void feature_name_cut(struct spec *s)
{
	s->incompat = 3;
	s->names = "one\0two";
	s->names_size = 7; /* "two" lacks its NUL */
}

static void index_with_head(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_HEAD), 4, 1);
}

static void warm_head_too_large(struct spec *s)
{
	s->parts[s->part_count++] =
		(struct spec_part){ .type = THAW_PART_WARM, .data = "set", .size = 3 };
	spec_poke(s, IN_TABLE, TABLE_PART(2, THAW_PART_OFF_HEAD), 4, 4);
}

static void part_name_unterminated(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_NAME + 31), 1, 'x');
}

static void part_offset(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_OFFSET), 8, s->stream.size + 9);
}

static void part_size(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_SIZE), 8, UINT64_MAX - 4);
}

static void part_size_small(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_SIZE), 8, 30);
}

static void stream_offset(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(0, THAW_PART_OFF_OFFSET), 8, 1);
}

static void part_header(struct spec *s)
{
	spec_poke(s, IN_IMAGE, s->stream.size, 4, THAW_SKIPPABLE_MAGIC + 1);
}

static void part_header_length(struct spec *s)
{
	spec_poke(s, IN_IMAGE, s->stream.size + 4, 4, 1);
}

static void no_stream(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(0, THAW_PART_OFF_TYPE), 4, THAW_PART_ANNEX);
}

static void two_streams(struct spec *s)
{
	s->parts[s->part_count++] =
		(struct spec_part){ .type = THAW_PART_STREAM, .data = "x", .size = 1 };
}

static void no_index(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_TYPE), 4, THAW_PART_WARM);
}

static void two_indexes(struct spec *s)
{
	s->parts[s->part_count++] =
		(struct spec_part){ .type = THAW_PART_INDEX, .data = "x", .size = 1 };
}

static void two_annexes(struct spec *s)
{
	for (unsigned i = 0; i < 2; i++)
		s->parts[s->part_count++] =
			(struct spec_part){ .type = THAW_PART_ANNEX, .data = "x", .size = 1 };
}

/* -- index as stored -- */

static void index_bomb(struct spec *s)
{
	s->index_raw_size = THAW_INDEX_RAW_MAX + 1;
}

static void index_ratio(struct spec *s)
{
	s->index_raw_size = 100ull << 20;
}

static void index_digest(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_DIGEST), 4, 0x12345678);
}

static void index_byte(struct spec *s)
{
	spec_poke(s, IN_IMAGE, s->stream.size + THAW_SKIPPABLE_HEADER + 20, 2, 0xbeef);
}

static void index_not_zstd(struct spec *s)
{
	s->index_is_not_zstd = true;
}

static void index_longer_than_said(struct spec *s)
{
	s->index_raw_size = 500;
}

static void index_shorter_than_said(struct spec *s)
{
	s->index_raw_size = 5000;
}

static const struct damage damages[] = {
	{ "footer_magic", footer_magic, EBADMSG, "not a thaw image, or cut short (no footer at its end)" },
	{ "footer_version", footer_version, EPERM, "format version 2; this thaw knows version 1" },
	BAD(footer_reserved, "footer"),
	BAD(footer_skippable, "footer"),
	BAD(footer_skippable_length, "footer"),
	BAD(footer_table_too_small, "footer"),
	BAD(footer_table_too_large, "footer"),
	BAD(footer_table_beyond_start, "footer"),
	BAD(footer_identity, "parts table"),

	BAD(table_magic, "parts table"),
	BAD(table_no_parts, "parts table"),
	BAD(table_count, "parts table"),
	BAD(table_too_many_parts, "parts table"),
	BAD(table_names_size, "parts table"),
	BAD(table_names_size_wraps, "parts table"),
	BAD(table_reserved, "parts table"),
	BAD(table_image_too_large, "its beginning is missing"),
	BAD(table_image_too_small, "its beginning is missing"),
	{ "feature_unknown", feature_unknown, EPERM,
	  "needs a newer thaw, which knows: \"encrypted-frames\" "
	  "(its tar stream can still be had: thaw extract --tar)" },
	{ "features_unknown", features_unknown, EPERM,
	  "needs a newer thaw, which knows: \"deltas\", \"bad\\x0aname\" "
	  "(its tar stream can still be had: thaw extract --tar)" },
	{ "features_fill_the_message", features_fill_the_message, EPERM, NULL },
	BAD(feature_without_name, "the list of features is cut short"),
	BAD(feature_name_cut, "the list of features is cut short"),
	BAD(index_with_head, "part 1 of the table"),
	BAD(warm_head_too_large, "part 2 of the table"),
	BAD(part_name_unterminated, "part 1 of the table"),
	BAD(part_offset, "part 1 is not where it should be"),
	BAD(part_size, "part 1 is not where it should be"),
	BAD(part_size_small, "header of part 1"),
	BAD(stream_offset, "part 0 is not where it should be"),
	BAD(part_header, "header of part 1"),
	BAD(part_header_length, "header of part 1"),
	BAD(no_stream, "the stream must be the first part"),
	BAD(two_streams, "the stream must be the first part"),
	BAD(no_index, "the parts do not add up"),
	BAD(two_indexes, "the parts do not add up"),
	BAD(two_annexes, "the parts do not add up"),

	{ "index_bomb", index_bomb, EFBIG, "the index would need 3221225473 bytes" },
	{ "index_ratio", index_ratio, EFBIG, "the index would need 104857600 bytes" },
	BAD(index_digest, "index"),
	BAD(index_byte, "index"),
	BAD(index_not_zstd, "index does not decompress"),
	BAD(index_longer_than_said, "index does not decompress"),
	BAD(index_shorter_than_said, "index does not decompress"),
};

/* The unchanged sample opens: without this, every case above could pass for a wrong reason. */
static void sound(void **state)
{
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ bytes = { 0 };
	struct thaw_image *image = NULL;
	struct thaw_error err = { 0 };

	spec_sample(spec);
	spec_build(spec, &bytes);
	assert_success(open_memory(&bytes, &err, &image), &err);
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
}

/* Every length of a cut image, and every byte before it gone: never a crash, always an error. */
static void every_truncation(void **state)
{
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ bytes = { 0 };

	spec_sample(spec);
	spec_build(spec, &bytes);
	for (size_t size = 0; size < bytes.size; size++) {
		struct buffer head = { .data = bytes.data, .size = size };
		struct buffer tail = { .data = bytes.data + bytes.size - size, .size = size };
		struct thaw_image *image = NULL;
		struct thaw_error err;

		assert_int_equal(open_memory(&head, &err, &image), -EBADMSG);
		assert_int_equal(open_memory(&tail, &err, &image), -EBADMSG);
		if (size > THAW_FOOTER_SIZE + THAW_SKIPPABLE_HEADER + THAW_TABLE_HEADER +
				    2 * THAW_PART_ENTRY)
			assert_string_equal(err.text, "damaged: its beginning is missing");
	}
	spec_deinit(spec);
	free(spec);
}

/*
 * Every bit from the stream's end on: an error, since digests or checks cover
 * them all. Damage in the stream is the reader's to find (test-reader).
 */
static void every_bit(void **state)
{
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ bytes = { 0 };

	spec_sample(spec);
	spec_build(spec, &bytes);
	for (size_t i = spec->stream.size; i < bytes.size; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			struct thaw_image *image = NULL;
			struct thaw_error err;

			bytes.data[i] ^= (uint8_t)(1u << bit);
			if (open_memory(&bytes, &err, &image) == 0)
				fail_msg("bit %u of byte %zu is not covered", bit, i);
			bytes.data[i] ^= (uint8_t)(1u << bit);
		}
	}
	spec_deinit(spec);
	free(spec);
}

/* The same behind the digests, on the decompressed index: any answer but a crash. */
static void every_byte_behind_the_digests(void **state)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	unsigned opened = 0, refused = 0;

	for (size_t offset = 0;; offset++) {
		struct spec *spec = calloc(1, sizeof(*spec));
		size_t size = THAW_INDEX_HEADER + 4 * THAW_SECTION_ENTRY;

		spec_sample(spec);
		size += spec->record_count * THAW_INODE_SIZE + round_up(spec->strings_size, 8) +
			spec->frame_count * THAW_FRAME_SIZE + spec->meta_size;
		for (size_t i = 0; i < ARRAY_SIZE(values) && offset < size; i++) {
			_buffer_ bytes = { 0 };
			struct thaw_image *image = NULL;
			struct thaw_error err;

			spec->poke_count = 0;
			spec_poke(spec, IN_INDEX, offset, 1, values[i]);
			spec_build(spec, &bytes);
			if (open_memory(&bytes, &err, &image) == 0) {
				char path[64];
				struct thaw_inode inode;

				opened++;
				for (uint32_t k = 0; k < thaw_image_info(image)->inodes; k++)
					thaw_image_path(image, k, path, sizeof(path));
				assert_true(thaw_image_find(image, "b/e", &inode) >= 0);
			} else {
				refused++;
			}
			thaw_image_free(image);
		}
		spec_deinit(spec);
		free(spec);
		if (offset >= size)
			break;
	}
	assert_true(opened > 100); /* modes, times, digests, meta */
	assert_true(refused > 1000);
}

/* image_repair(), which the fuzzers use, really makes digests right. */
static void repair(void **state)
{
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ bytes = { 0 };
	struct thaw_image *image = NULL;
	struct thaw_error err;
	uint8_t *entry;

	spec_sample(spec);
	spec_build(spec, &bytes);
	entry = bytes.data + bytes.size - THAW_FOOTER_SIZE - 2 * THAW_PART_ENTRY + THAW_PART_ENTRY;
	memset(entry + THAW_PART_OFF_DIGEST, 0, THAW_DIGEST_SIZE);
	assert_damaged(open_memory(&bytes, &err, &image), &err, "damaged: parts table");
	image_repair(bytes.data, bytes.size);
	assert_success(open_memory(&bytes, &err, &image), &err);
	thaw_image_free(image);
	spec_deinit(spec);
	free(spec);
}

int main(void)
{
	const struct CMUnitTest others[] = {
		cmocka_unit_test(sound),
		cmocka_unit_test(every_truncation),
		cmocka_unit_test(every_bit),
		cmocka_unit_test(every_byte_behind_the_digests),
		cmocka_unit_test(repair),
	};

	return run_damages("validate", damages, ARRAY_SIZE(damages), others, ARRAY_SIZE(others));
}
