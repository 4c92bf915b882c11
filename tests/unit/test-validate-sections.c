/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged images: the header of the index, its sections, and frames. */
#include "damage.h"

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

static const struct damage damages[] = {
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
};

int main(void)
{
	return run_damages("validate-sections", damages, ARRAY_SIZE(damages), NULL, 0);
}
