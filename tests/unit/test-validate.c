/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damaged images. Each case changes one thing in a sound image; all digests
 * that cover it are right again, so that only the check that the case is about
 * can find it. Its exact words are expected.
 */
#include "check.h"

#include "util/bytes.h"

struct damage {
	const char *name;
	void (*edit)(struct spec *spec);
	int error;
	const char *text;
};

#define TABLE_PART(n, field) (THAW_TABLE_HEADER + (n) * THAW_PART_ENTRY + (field))
#define SECTION(n, field) (THAW_INDEX_HEADER + (n) * THAW_SECTION_ENTRY + (field))

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

/* -- index header and sections -- */

static void index_magic(struct spec *s)
{
	spec_poke(s, IN_INDEX, 0, 4, 0);
}

static void index_section_count(struct spec *s)
{
	spec_poke(s, IN_INDEX, THAW_INDEX_OFF_SECTIONS, 4, 65);
}

static void index_sections_beyond_end(struct spec *s)
{
	s->record_count = 2;
	s->meta_size = 0;
	spec_poke(s, IN_INDEX, THAW_INDEX_OFF_SECTIONS, 4, 64);
}

static void index_reserved(struct spec *s)
{
	spec_poke(s, IN_INDEX, THAW_INDEX_OFF_RESERVED, 8, 1ull << 63);
}

static void stream_too_large(struct spec *s)
{
	spec_poke(s, IN_INDEX, THAW_INDEX_OFF_STREAM_SIZE, 8, THAW_DATA_MAX + 1);
}

static void annex_too_large(struct spec *s)
{
	spec_poke(s, IN_INDEX, THAW_INDEX_OFF_ANNEX_SIZE, 8, THAW_DATA_MAX + 1);
}

static void section_twice(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(1, THAW_SECTION_OFF_TYPE), 4, THAW_SECTION_INODES);
}

static void section_order(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(2, THAW_SECTION_OFF_TYPE), 4, 9);
	spec_poke(s, IN_INDEX, SECTION(2, THAW_SECTION_OFF_FLAGS), 4, 0);
}

static void section_flags(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(3, THAW_SECTION_OFF_FLAGS), 4, 2);
}

static void section_gap(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(0, THAW_SECTION_OFF_OFFSET), 8, THAW_INDEX_HEADER);
}

static void section_too_long(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(3, THAW_SECTION_OFF_SIZE), 8, UINT64_MAX);
}

static void section_short_of_end(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(3, THAW_SECTION_OFF_SIZE), 8, s->meta_size - 1);
}

static void section_required(struct spec *s)
{
	s->sections[s->section_count++] = (struct spec_section){ 1000, 1, "later", 5 };
}

static void section_missing(struct spec *s)
{
	/* Its place is there, but as another, optional type. */
	spec_poke(s, IN_INDEX, SECTION(0, THAW_SECTION_OFF_TYPE), 4, 0);
}

static void no_frames_section(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(2, THAW_SECTION_OFF_TYPE), 4, 4);
	spec_poke(s, IN_INDEX, SECTION(3, THAW_SECTION_OFF_TYPE), 4, 5);
}

static void no_meta_section_is_inodes_missing(struct spec *s)
{
	for (unsigned i = 0; i < 4; i++) {
		spec_poke(s, IN_INDEX, SECTION(i, THAW_SECTION_OFF_TYPE), 4, 100 + i);
		spec_poke(s, IN_INDEX, SECTION(i, THAW_SECTION_OFF_FLAGS), 4, 0);
	}
}

static void half_a_record(struct spec *s)
{
	/* 8 records are 320 bytes; 312 keeps the next section in place once rounded. */
	spec_poke(s, IN_INDEX, SECTION(0, THAW_SECTION_OFF_SIZE), 8, 8 * THAW_INODE_SIZE - 7);
}

static void half_a_frame(struct spec *s)
{
	spec_poke(s, IN_INDEX, SECTION(2, THAW_SECTION_OFF_SIZE), 8, 2 * THAW_FRAME_SIZE - 1);
}

static void no_root(struct spec *s)
{
	s->record_count = 1;
}

static void meta_too_large(struct spec *s)
{
	static uint8_t meta[THAW_META_MAX + 1];

	fill_pattern(meta, sizeof(meta) / 64, 5); /* not too easy to compress, see index_ratio */
	s->meta = (const char *)meta;
	s->meta_size = sizeof(meta);
}

/* -- frames -- */

static void stream_sizes_differ(struct spec *s)
{
	spec_poke(s, IN_TABLE, TABLE_PART(0, THAW_PART_OFF_RAW_SIZE), 8, SAMPLE_STREAM + 1);
}

static void annex_without_part(struct spec *s)
{
	spec_poke(s, IN_INDEX, THAW_INDEX_OFF_ANNEX_SIZE, 8, 1);
}

static void annex_sizes_differ(struct spec *s)
{
	spec_add_frame(s, "annex", 5, true);
	spec_poke(s, IN_TABLE, TABLE_PART(1, THAW_PART_OFF_RAW_SIZE), 8, 6);
}

static void frame_data_gap(struct spec *s)
{
	s->frames[1].data++;
}

static void frame_data_overlap(struct spec *s)
{
	s->frames[1].data--;
}

static void frame_file_gap(struct spec *s)
{
	s->frames[1].file++;
}

static void frame_empty(struct spec *s)
{
	s->frames[0].size = 0;
}

static void frame_not_stored(struct spec *s)
{
	s->frames[0].stored = 0;
}

static void frame_too_large(struct spec *s)
{
	s->frames[0].size = THAW_FRAME_USIZE_MAX + 1;
}

static void frame_stored_beyond(struct spec *s)
{
	s->frames[1].stored++;
}

static void frame_stored_too_large(struct spec *s)
{
	/* Inside of the stream, so that only the cap on memory refuses it. */
	uint32_t more = THAW_FRAME_USIZE_MAX + (THAW_FRAME_USIZE_MAX >> 7) + 1 - s->frames[1].stored;

	buffer_add_zeros(&s->stream, more);
	s->frames[1].stored += more;
}

static void frame_beyond_stream(struct spec *s)
{
	s->frames[1].size++;
}

static void frame_missing(struct spec *s)
{
	s->frame_count--;
}

static void frame_too_many(struct spec *s)
{
	s->frames[2] = s->frames[1];
	s->frames[2].data += s->frames[1].size;
	s->frame_count = 3;
}

static void frame_leaves_bytes(struct spec *s)
{
	buffer_add(&s->stream, "x", 1);
}

static void frame_leaves_bytes_before_annex(struct spec *s)
{
	buffer_add(&s->stream, "x", 1);
	spec_add_frame(s, "annex", 5, true);
}

static void annex_frame_elsewhere(struct spec *s)
{
	spec_add_frame(s, "annex", 5, true);
	s->frames[2].file = 0;
}

static void frame_from_stream_into_annex(struct spec *s)
{
	spec_add_frame(s, "annex", 5, true);
	s->frames[1].size += 5;
	s->frame_count = 2;
}

/* -- records -- */

static void record_zero(struct spec *s)
{
	s->records[0].mtime = 1;
}

static void root_is_file(struct spec *s)
{
	s->records[1].type = THAW_REGULAR;
}

static void root_has_name(struct spec *s)
{
	s->records[1].name_len = 1;
}

static void root_has_parent(struct spec *s)
{
	s->records[1].parent = 3;
}

static void mode_bits(struct spec *s)
{
	s->records[2].mode = 04755;
}

static void record_reserved(struct spec *s)
{
	s->records[6].reserved = 1;
}

static void no_links(struct spec *s)
{
	s->records[4].nlink = 0;
}

static void unknown_type(struct spec *s)
{
	s->records[7].type = 5;
}

static void type_zero(struct spec *s)
{
	s->records[7].type = 0;
}

static void children_elsewhere(struct spec *s)
{
	s->records[1].data = 3;
}

static void children_shared(struct spec *s)
{
	s->records[3].data = 2;
}

static void children_beyond(struct spec *s)
{
	s->records[3].size = 3;
}

static void children_wrap(struct spec *s)
{
	s->records[3].size = UINT64_MAX;
}

static void child_of_another(struct spec *s)
{
	s->records[7].parent = 1;
}

static void record_nowhere(struct spec *s)
{
	s->records[3].size = 1;
}

static void directory_is_its_own_child(struct spec *s)
{
	/* 6 becomes a directory that says to hold itself. */
	s->records[6].type = THAW_DIRECTORY;
	s->records[6].data = 6;
	s->records[6].size = 1;
}

static void name_out_of_bounds(struct spec *s)
{
	s->records[7].name = (uint32_t)s->strings_size;
}

static void name_wraps(struct spec *s)
{
	s->records[7].name = UINT32_MAX;
}

static void name_empty(struct spec *s)
{
	s->records[6].name_len = 0;
}

static void name_is(struct spec *s, const char *name, size_t len)
{
	memcpy(s->strings + s->strings_size, name, len);
	s->records[6].name = (uint32_t)s->strings_size;
	s->records[6].name_len = (uint8_t)len;
	s->strings_size += len;
}

static void name_dot(struct spec *s)
{
	name_is(s, ".", 1);
}

static void name_dot_dot(struct spec *s)
{
	name_is(s, "..", 2);
}

static void name_slash(struct spec *s)
{
	name_is(s, "../e", 4);
}

static void name_nul(struct spec *s)
{
	name_is(s, "e\0x", 3);
}

static void names_equal(struct spec *s)
{
	s->records[7].name = s->records[6].name;
}

static void names_reversed(struct spec *s)
{
	uint32_t name = s->records[7].name;

	s->records[7].name = s->records[6].name;
	s->records[6].name = name;
}

/* Signed and unsigned bytes would differ about this: 0x80 comes behind "f". */
static void names_signed(struct spec *s)
{
	name_is(s, "\x80", 1);
}

static void prefix_first(struct spec *s)
{
	name_is(s, "fe", 2); /* before "f" */
}

static void contents_out_of_bounds(struct spec *s)
{
	s->records[6].data = SAMPLE_STREAM - 4999;
}

static void contents_wrap(struct spec *s)
{
	s->records[6].data = UINT64_MAX - 10;
}

static void contents_of_empty_file(struct spec *s)
{
	s->records[7].data = SAMPLE_STREAM + 1;
}

static void contents_overlap(struct spec *s)
{
	s->records[2].size = SAMPLE_STREAM - 4999;
	s->records[2].data = 0;
}

static void target_empty(struct spec *s)
{
	s->records[4].size = 0;
}

static void target_too_long(struct spec *s)
{
	memset(s->strings + s->strings_size, 'x', THAW_PATH_MAX + 1);
	s->records[4].data = s->strings_size;
	s->records[4].size = THAW_PATH_MAX + 1;
	s->strings_size += THAW_PATH_MAX + 2;
}

static void target_out_of_bounds(struct spec *s)
{
	/* The target would fit, its NUL would not. */
	s->records[4].data = s->strings_size - 1;
}

static void target_wraps(struct spec *s)
{
	s->records[4].data = UINT64_MAX;
}

static void target_unterminated(struct spec *s)
{
	s->records[4].data = 0; /* "ab..." */
}

static void target_has_nul(struct spec *s)
{
	memcpy(s->strings + s->strings_size, "x\0y", 4);
	s->records[4].data = s->strings_size;
	s->records[4].size = 3;
	s->strings_size += 4;
}

static void link_has_size(struct spec *s)
{
	s->records[5].size = 5;
}

static void link_to_zero(struct spec *s)
{
	s->records[5].data = 0;
}

static void link_to_root(struct spec *s)
{
	s->records[5].data = THAW_ROOT;
}

static void link_beyond(struct spec *s)
{
	s->records[5].data = 8;
}

static void link_is_wide(struct spec *s)
{
	s->records[5].data = (1ull << 32) + 2; /* 2, in 32 bits */
}

static void link_to_directory(struct spec *s)
{
	s->records[5].data = 3;
}

static void link_to_itself(struct spec *s)
{
	s->records[5].data = 5;
}

static void link_to_link(struct spec *s)
{
	s->records[7].type = THAW_HARDLINK;
	s->records[7].data = 5;
}

#define BAD(edit, text) { #edit, edit, EBADMSG, "damaged: " text }
#define RECORD(edit, number, text) { #edit, edit, EBADMSG, "damaged: index record " #number ": " text }

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

	BAD(index_magic, "index header"),
	BAD(index_section_count, "index header"),
	BAD(index_sections_beyond_end, "index header"),
	BAD(index_reserved, "index header"),
	{ "stream_too_large", stream_too_large, EFBIG, "the stream is larger than this thaw serves" },
	{ "annex_too_large", annex_too_large, EFBIG, "the stream is larger than this thaw serves" },
	BAD(section_twice, "section 1 of the index"),
	BAD(section_order, "section 3 of the index"),
	BAD(section_flags, "section 3 of the index"),
	BAD(section_gap, "section 0 of the index"),
	BAD(section_too_long, "section 3 of the index"),
	BAD(section_short_of_end, "sections of the index"),
	{ "section_required", section_required, EPERM, "needs a newer thaw (index section 1000)" },
	BAD(section_missing, "section 0 of the index"),
	{ "no_frames_section", no_frames_section, EBADMSG, "damaged: sections of the index" },
	BAD(no_meta_section_is_inodes_missing, "sections of the index"),
	BAD(half_a_record, "sections of the index"),
	BAD(half_a_frame, "sections of the index"),
	BAD(no_root, "sections of the index"),
	{ "meta_too_large", meta_too_large, EFBIG, "the index holds more than this thaw serves" },

	BAD(stream_sizes_differ, "index and parts table disagree"),
	BAD(annex_without_part, "index and parts table disagree"),
	BAD(annex_sizes_differ, "index and parts table disagree"),
	RECORD(frame_data_gap, 1, "frame out of place"),
	RECORD(frame_data_overlap, 1, "frame out of place"),
	RECORD(frame_file_gap, 1, "frame out of place"),
	RECORD(frame_empty, 0, "frame out of place"),
	RECORD(frame_not_stored, 0, "frame out of place"),
	RECORD(frame_too_large, 0, "frame out of place"),
	RECORD(frame_stored_beyond, 1, "frame out of place"),
	RECORD(frame_stored_too_large, 1, "frame out of place"),
	RECORD(frame_beyond_stream, 1, "frame out of place"),
	BAD(frame_missing, "frames do not cover the stream"),
	RECORD(frame_too_many, 2, "frames and stream do not agree"),
	BAD(frame_leaves_bytes, "frames do not cover the stream"),
	RECORD(frame_leaves_bytes_before_annex, 2, "frames and stream do not agree"),
	RECORD(annex_frame_elsewhere, 2, "frame out of place"),
	RECORD(frame_from_stream_into_annex, 1, "frame out of place"),

	RECORD(record_zero, 1, "the root is no root"),
	RECORD(root_is_file, 1, "the root is no root"),
	RECORD(root_has_name, 1, "the root is no root"),
	RECORD(root_has_parent, 1, "the root is no root"),
	RECORD(mode_bits, 2, "impossible attributes"),
	RECORD(record_reserved, 6, "impossible attributes"),
	RECORD(no_links, 4, "impossible attributes"),
	RECORD(unknown_type, 7, "unknown type"),
	RECORD(type_zero, 7, "unknown type"),
	RECORD(children_elsewhere, 1, "children out of place"),
	RECORD(children_shared, 3, "children out of place"),
	RECORD(children_beyond, 3, "children out of place"),
	RECORD(children_wrap, 3, "children out of place"),
	RECORD(child_of_another, 7, "has another parent"),
	RECORD(record_nowhere, 7, "is in no directory"),
	RECORD(directory_is_its_own_child, 6, "children out of place"),
	RECORD(name_out_of_bounds, 7, "name out of bounds"),
	RECORD(name_wraps, 7, "name out of bounds"),
	RECORD(name_empty, 6, "impossible name"),
	RECORD(name_dot, 6, "impossible name"),
	RECORD(name_dot_dot, 6, "impossible name"),
	RECORD(name_slash, 6, "impossible name"),
	RECORD(name_nul, 6, "impossible name"),
	RECORD(names_equal, 7, "names are not in order"),
	RECORD(names_reversed, 7, "names are not in order"),
	RECORD(names_signed, 7, "names are not in order"),
	RECORD(prefix_first, 7, "names are not in order"),
	RECORD(contents_out_of_bounds, 6, "contents out of bounds"),
	RECORD(contents_wrap, 6, "contents out of bounds"),
	RECORD(contents_of_empty_file, 7, "contents out of bounds"),
	RECORD(contents_overlap, 6, "contents overlap others"),
	RECORD(target_empty, 4, "target out of bounds"),
	RECORD(target_too_long, 4, "target out of bounds"),
	RECORD(target_out_of_bounds, 4, "target out of bounds"),
	RECORD(target_wraps, 4, "target out of bounds"),
	RECORD(target_unterminated, 4, "target is not terminated"),
	RECORD(target_has_nul, 4, "target is not terminated"),
	RECORD(link_has_size, 5, "link out of bounds"),
	RECORD(link_to_zero, 5, "link out of bounds"),
	RECORD(link_to_root, 5, "link out of bounds"),
	RECORD(link_beyond, 5, "link out of bounds"),
	RECORD(link_is_wide, 5, "link out of bounds"),
	RECORD(link_to_directory, 5, "link to something that is no file"),
	RECORD(link_to_itself, 5, "link to something that is no file"),
	RECORD(link_to_link, 7, "link to something that is no file"),
};

static void damaged(void **state)
{
	const struct damage *damage = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ bytes = { 0 };
	struct thaw_image *image = NULL;
	struct thaw_error err = { 0 };
	int r;

	spec_sample(spec);
	damage->edit(spec);
	spec_build(spec, &bytes);
	r = open_memory(&bytes, &err, &image);
	spec_deinit(spec);
	free(spec);
	assert_null(image);
	if (damage->text)
		assert_failure(r, &err, damage->error,
			       damage->error == EPERM ? THAW_EXIT_REFUSED :
			       damage->error == EFBIG ? THAW_EXIT_LIMIT :
							THAW_EXIT_DAMAGED,
			       damage->text);
	else
		assert_int_equal(r, -damage->error);
}

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
	struct CMUnitTest tests[ARRAY_SIZE(others) + ARRAY_SIZE(damages)];

	memcpy(tests, others, sizeof(others));
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		tests[ARRAY_SIZE(others) + i] = (struct CMUnitTest){
			.name = damages[i].name,
			.test_func = damaged,
			.initial_state = (void *)&damages[i],
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
