/* SPDX-License-Identifier: Apache-2.0 */
/* Building images from their fields, with all digests right. */
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "digest.h"
#include "support.h"
#include "util/bytes.h"

static void add_le32(struct buffer *to, uint32_t value)
{
	uint8_t bytes[4];

	put_le32(bytes, value);
	buffer_add(to, bytes, sizeof(bytes));
}

static void add_le64(struct buffer *to, uint64_t value)
{
	uint8_t bytes[8];

	put_le64(bytes, value);
	buffer_add(to, bytes, sizeof(bytes));
}

static void digest_of(const void *data, size_t len, uint8_t ret_sum[THAW_DIGEST_SIZE])
{
	if (thaw_digest_once(data, len, ret_sum) < 0)
		abort();
}

static void add_skippable(struct buffer *image, const void *data, size_t size)
{
	add_le32(image, THAW_SKIPPABLE_MAGIC);
	add_le32(image, (uint32_t)size);
	buffer_add(image, data, size);
}

static void apply_pokes(const struct spec *spec, enum spec_place place, uint8_t *bytes, size_t size)
{
	for (unsigned i = 0; i < spec->poke_count; i++) {
		const struct spec_poke *poke = &spec->pokes[i];

		if (poke->place != place)
			continue;
		if (poke->offset + poke->width > size)
			abort();
		for (unsigned k = 0; k < poke->width; k++)
			bytes[poke->offset + k] = (uint8_t)(poke->value >> 8 * k);
	}
}

void spec_poke(struct spec *spec, enum spec_place place, uint64_t offset, unsigned width,
	       uint64_t value)
{
	if (spec->poke_count == sizeof(spec->pokes) / sizeof(spec->pokes[0]))
		abort();
	spec->pokes[spec->poke_count++] =
		(struct spec_poke){ .place = place, .offset = offset, .value = value, .width = width };
}

void spec_clear_stream(struct spec *spec)
{
	buffer_deinit(&spec->stream);
	spec->stream_size = 0;
	spec->frame_count = 0;
}

void spec_add_frame(struct spec *spec, const void *data, size_t size, bool annex)
{
	struct spec_frame *frame = &spec->frames[spec->frame_count++];
	struct buffer *to = annex ? &spec->annex : &spec->stream;
	size_t capacity = ZSTD_compressBound(size), n;
	uint8_t *stored = malloc(capacity);

	if (!stored || spec->frame_count > SPEC_MAX)
		abort();
	n = ZSTD_compress(stored, capacity, data, size, 1);
	if (ZSTD_isError(n))
		abort();
	*frame = (struct spec_frame){
		.data = spec->stream_size + spec->annex_size,
		/* The annex follows the stream, in a skippable frame. */
		.file = to->size + (annex ? spec->stream.size + THAW_SKIPPABLE_HEADER : 0),
		.stored = (uint32_t)n,
		.size = (uint32_t)size,
	};
	digest_of(stored, n, frame->digest);
	buffer_add(to, stored, n);
	*(annex ? &spec->annex_size : &spec->stream_size) += size;
	spec->has_annex |= annex;
	free(stored);
}

static uint32_t add_string(struct spec *spec, const char *text, size_t len)
{
	uint32_t offset = (uint32_t)spec->strings_size;

	if (len > sizeof(spec->strings) - spec->strings_size)
		abort();
	memcpy(spec->strings + offset, text, len);
	spec->strings_size += len;
	return offset;
}

static void add_record(struct spec *spec, const char *name, enum thaw_inode_type type,
		       uint32_t parent, uint64_t size, uint64_t data)
{
	spec->records[spec->record_count++] = (struct spec_record){
		.name = add_string(spec, name, strlen(name)),
		.name_len = (uint8_t)strlen(name),
		.type = (uint8_t)type,
		.mode = type == THAW_DIRECTORY ? 0755 : type == THAW_SYMLINK ? 0777 : 0644,
		.mtime = 1700000000,
		.parent = parent,
		.nlink = type == THAW_DIRECTORY ? 2 : 1,
		.size = size,
		.data = data,
	};
}

void spec_relocated(struct spec *spec, const void *content, size_t size, const void *section,
		    size_t section_size)
{
	*spec = (struct spec){ .record_count = 3, .strings = "f", .strings_size = 1 };
	spec->records[1] = (struct spec_record){ .type = THAW_DIRECTORY,
						 .mode = 0755,
						 .parent = 1,
						 .nlink = 2,
						 .size = 1,
						 .data = 2 };
	spec->records[2] = (struct spec_record){ .name_len = 1,
						 .type = THAW_REGULAR,
						 .mode = 0644,
						 .parent = 1,
						 .nlink = 1,
						 .size = size };
	spec_add_frame(spec, content, size, false);
	spec->sections[spec->section_count++] = (struct spec_section){
		THAW_SECTION_RELOCATIONS, 0, section, section_size
	};
}

void spec_sample(struct spec *spec)
{
	uint8_t data[SAMPLE_STREAM];

	*spec = (struct spec){ .record_count = 1 };
	fill_pattern(data, sizeof(data), 1);
	digest_of(data, sizeof(data), spec->stream_digest);
	spec_add_frame(spec, data, sizeof(data) / 2, false);
	spec_add_frame(spec, data + sizeof(data) / 2, sizeof(data) / 2, false);
	spec->meta = "{\"tool\":\"test\"}";
	spec->meta_size = strlen(spec->meta);

	add_record(spec, "", THAW_DIRECTORY, 1, 4, 2);
	add_record(spec, "a", THAW_REGULAR, 1, 5, 512);
	spec->records[2].nlink = 2;
	add_record(spec, "b", THAW_DIRECTORY, 1, 2, 6);
	add_record(spec, "c", THAW_SYMLINK, 1, 1, add_string(spec, "a", 2));
	add_record(spec, "d", THAW_HARDLINK, 1, 0, 2);
	add_record(spec, "e", THAW_REGULAR, 3, 5000, 1536);
	add_record(spec, "f", THAW_REGULAR, 3, 0, 0);
}

static void build_index(const struct spec *spec, struct buffer *raw)
{
	_buffer_ inodes = { 0 };
	_buffer_ frames = { 0 };
	struct spec_section sections[12];
	unsigned count = 4 + spec->section_count;
	size_t at = THAW_INDEX_HEADER + (size_t)count * THAW_SECTION_ENTRY;

	for (unsigned i = 0; i < spec->record_count; i++) {
		const struct spec_record *record = &spec->records[i];
		uint8_t bytes[4] = { record->name_len, record->type };

		put_le16(bytes + 2, record->mode);
		add_le32(&inodes, record->name);
		buffer_add(&inodes, bytes, sizeof(bytes));
		add_le32(&inodes, record->mtime);
		add_le32(&inodes, record->parent);
		add_le32(&inodes, record->nlink);
		add_le32(&inodes, record->reserved);
		add_le64(&inodes, record->size);
		add_le64(&inodes, record->data);
	}
	for (unsigned i = 0; i < spec->frame_count; i++) {
		const struct spec_frame *frame = &spec->frames[i];

		add_le64(&frames, frame->data);
		add_le64(&frames, frame->file);
		add_le32(&frames, frame->stored);
		add_le32(&frames, frame->size);
		buffer_add(&frames, frame->digest, THAW_DIGEST_SIZE);
	}
	sections[0] = (struct spec_section){ THAW_SECTION_INODES, 1, inodes.data, inodes.size };
	sections[1] = (struct spec_section){ THAW_SECTION_STRINGS, 1, spec->strings,
					     spec->strings_size };
	sections[2] = (struct spec_section){ THAW_SECTION_FRAMES, 1, frames.data, frames.size };
	sections[3] = (struct spec_section){ THAW_SECTION_META, 0, spec->meta, spec->meta_size };
	memcpy(sections + 4, spec->sections, sizeof(spec->sections));

	add_le32(raw, THAW_INDEX_MAGIC);
	add_le32(raw, count);
	add_le64(raw, spec->stream_size);
	buffer_add(raw, spec->stream_digest, THAW_DIGEST_SIZE);
	add_le64(raw, spec->annex_size);
	add_le64(raw, 0);
	for (unsigned i = 0; i < count; i++) {
		at = round_up(at, 8);
		add_le32(raw, sections[i].type);
		add_le32(raw, sections[i].flags);
		add_le64(raw, at);
		add_le64(raw, sections[i].size);
		at += sections[i].size;
	}
	for (unsigned i = 0; i < count; i++) {
		buffer_add_zeros(raw, round_up(raw->size, 8) - raw->size);
		buffer_add(raw, sections[i].data, sections[i].size);
	}
	apply_pokes(spec, IN_INDEX, raw->data, raw->size);
}

static void add_part(struct buffer *entries, uint32_t type, uint32_t head_size, uint64_t offset,
		     uint64_t size, uint64_t raw_size, const uint8_t *digest, const char *name)
{
	uint8_t padded[32] = { 0 };
	uint8_t none[THAW_DIGEST_SIZE] = { 0 };

	if (name)
		memcpy(padded, name, strlen(name));
	add_le32(entries, type);
	add_le32(entries, head_size);
	add_le64(entries, offset);
	add_le64(entries, size);
	add_le64(entries, raw_size);
	buffer_add(entries, digest ? digest : none, THAW_DIGEST_SIZE);
	buffer_add(entries, padded, sizeof(padded));
}

/* Parts table and footer, behind the parts that are in image already. */
static void finish(const struct spec *spec, const struct buffer *entries, struct buffer *image)
{
	_buffer_ table = { 0 };
	_buffer_ footer = { 0 };
	uint8_t identity[THAW_DIGEST_SIZE];
	size_t size = THAW_TABLE_HEADER + entries->size + spec->names_size;

	add_le32(&table, THAW_TABLE_MAGIC);
	add_le32(&table, (uint32_t)(entries->size / THAW_PART_ENTRY));
	add_le64(&table, image->size + THAW_SKIPPABLE_HEADER + size + THAW_FOOTER_SIZE);
	add_le64(&table, spec->compat);
	add_le64(&table, spec->incompat);
	add_le32(&table, (uint32_t)spec->names_size);
	add_le32(&table, 0);
	buffer_add(&table, entries->data, entries->size);
	buffer_add(&table, spec->names, spec->names_size);
	apply_pokes(spec, IN_TABLE, table.data, table.size);
	digest_of(table.data, table.size, identity);

	add_le32(&footer, THAW_SKIPPABLE_MAGIC);
	add_le32(&footer, THAW_FOOTER_SIZE - THAW_SKIPPABLE_HEADER);
	buffer_add(&footer, THAW_FOOTER_MAGIC, 8);
	add_le32(&footer, THAW_VERSION);
	add_le32(&footer, (uint32_t)table.size);
	buffer_add(&footer, identity, sizeof(identity));
	add_le64(&footer, 0);
	apply_pokes(spec, IN_FOOTER, footer.data, footer.size);

	add_skippable(image, table.data, table.size);
	buffer_add(image, footer.data, footer.size);
	apply_pokes(spec, IN_IMAGE, image->data, image->size);
}

static void add_index(struct spec *spec, const uint8_t *raw, size_t raw_size,
		      struct buffer *entries, struct buffer *image)
{
	size_t capacity = ZSTD_compressBound(raw_size), n;
	uint8_t *stored = malloc(capacity);
	uint8_t digest[THAW_DIGEST_SIZE];

	if (!stored)
		abort();
	n = ZSTD_compress(stored, capacity, raw, raw_size, 1);
	if (ZSTD_isError(n))
		abort();
	if (spec->index_is_not_zstd)
		stored[0] ^= 0xff;
	digest_of(stored, n, digest);
	spec->index_entry = THAW_TABLE_HEADER + entries->size;
	add_part(entries, THAW_PART_INDEX, 0, image->size + THAW_SKIPPABLE_HEADER, n,
		 spec->index_raw_size ? spec->index_raw_size : raw_size, digest, NULL);
	add_skippable(image, stored, n);
	free(stored);
}

void spec_build(struct spec *spec, struct buffer *image)
{
	_buffer_ raw = { 0 };
	_buffer_ entries = { 0 };

	build_index(spec, &raw);
	image->size = 0;
	buffer_add(image, spec->stream.data, spec->stream.size);
	add_part(&entries, THAW_PART_STREAM, 0, 0, spec->stream.size, spec->stream_size, NULL, NULL);
	if (spec->has_annex) {
		add_part(&entries, THAW_PART_ANNEX, 0, image->size + THAW_SKIPPABLE_HEADER,
			 spec->annex.size, spec->annex_size, NULL, NULL);
		add_skippable(image, spec->annex.data, spec->annex.size);
	}
	add_index(spec, raw.data, raw.size, &entries, image);
	for (unsigned i = 0; i < spec->part_count; i++) {
		const struct spec_part *part = &spec->parts[i];
		uint8_t digest[THAW_DIGEST_SIZE];

		digest_of(part->data, part->type == THAW_PART_WARM ? part->head_size : part->size,
			  digest);
		add_part(&entries, part->type, part->head_size, image->size + THAW_SKIPPABLE_HEADER, part->size,
			 part->raw_size, digest, part->name);
		add_skippable(image, part->data, part->size);
	}
	finish(spec, &entries, image);
}

void spec_deinit(struct spec *spec)
{
	buffer_deinit(&spec->stream);
	buffer_deinit(&spec->annex);
}

void image_wrap(const uint8_t *raw, size_t raw_size, const uint8_t *stream, size_t stream_stored,
		uint64_t stream_size, struct buffer *image)
{
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ entries = { 0 };

	if (!spec)
		abort();
	image->size = 0;
	buffer_add(image, stream, stream_stored);
	add_part(&entries, THAW_PART_STREAM, 0, 0, stream_stored, stream_size, NULL, NULL);
	add_index(spec, raw, raw_size, &entries, image);
	finish(spec, &entries, image);
	free(spec);
}

void image_repair(uint8_t *image, size_t size)
{
	uint8_t *footer, *table;
	uint64_t image_size, start;
	uint32_t table_size, count;

	if (size < THAW_FOOTER_SIZE)
		return;
	footer = image + size - THAW_FOOTER_SIZE;
	table_size = get_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE);
	if (table_size < THAW_TABLE_HEADER || table_size > size - THAW_FOOTER_SIZE)
		return;
	table = footer - table_size;
	count = get_le32(table + THAW_TABLE_OFF_COUNT);
	image_size = get_le64(table + THAW_TABLE_OFF_IMAGE_SIZE);
	start = image_size <= size ? size - image_size : 0;
	for (uint32_t i = 0; i < count && i < (table_size - THAW_TABLE_HEADER) / THAW_PART_ENTRY; i++) {
		uint8_t *entry = table + THAW_TABLE_HEADER + i * THAW_PART_ENTRY;
		uint64_t offset = get_le64(entry + THAW_PART_OFF_OFFSET);
		uint64_t stored = get_le64(entry + THAW_PART_OFF_SIZE);

		if (get_le32(entry + THAW_PART_OFF_TYPE) == THAW_PART_WARM &&
		    get_le32(entry + THAW_PART_OFF_HEAD) <= stored)
			stored = get_le32(entry + THAW_PART_OFF_HEAD);
		else if (get_le32(entry + THAW_PART_OFF_TYPE) != THAW_PART_INDEX)
			continue;
		if (range_inside(offset, stored, size - start))
			digest_of(image + start + offset, stored, entry + THAW_PART_OFF_DIGEST);
	}
	digest_of(table, table_size, footer + THAW_FOOTER_OFF_IDENTITY);
}

int open_memory(const struct buffer *bytes, struct thaw_error *err, struct thaw_image **ret_image)
{
	struct thaw_source *source;

	if (thaw_source_from_memory(bytes->data, bytes->size, &source) < 0)
		abort();
	return thaw_image_open(source, err, ret_image);
}
