/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking an index whole, once, so that nothing needs checking later.
 *
 * The digest says that the index is what somebody wrote, not that it makes
 * sense: an image may come from an attacker. After thaw_image_validate() every
 * offset is in bounds, the records form one tree, and names are what a kernel
 * accepts. One pass over the records in their order; no memory.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "image-internal.h"

#define MODE_MAX 0777u

static int bad(struct thaw_error *err, uint64_t record, const char *what)
{
	return thaw_damaged(err, "damaged: index record %" PRIu64 ": %s", record, what);
}

struct section {
	const uint8_t *data;
	uint64_t size;
};

static int find_sections(struct thaw_image *image, struct section *relocations,
			 struct thaw_error *err)
{
	const uint8_t *raw = image->raw;
	uint64_t size = image->info.index_size, next;
	uint32_t count, last = 0;
	uint64_t inodes_size = 0, frames_size = 0;

	if (size < THAW_INDEX_HEADER || get_le32(raw) != THAW_INDEX_MAGIC)
		return thaw_damaged(err, "damaged: index header");
	count = get_le32(raw + THAW_INDEX_OFF_SECTIONS);
	image->info.stream_size = get_le64(raw + THAW_INDEX_OFF_STREAM_SIZE);
	image->info.annex_size = get_le64(raw + THAW_INDEX_OFF_ANNEX_SIZE);
	memcpy(image->info.stream_digest, raw + THAW_INDEX_OFF_STREAM_DIGEST, THAW_DIGEST_SIZE);
	if (count > 64 || size < THAW_INDEX_HEADER + (uint64_t)count * THAW_SECTION_ENTRY ||
	    get_le64(raw + THAW_INDEX_OFF_RESERVED) != 0)
		return thaw_damaged(err, "damaged: index header");
	if (image->info.stream_size > THAW_DATA_MAX || image->info.annex_size > THAW_DATA_MAX)
		return thaw_limit(err, "the stream is larger than this thaw serves");
	image->data_size = image->info.stream_size + image->info.annex_size;

	next = THAW_INDEX_HEADER + (uint64_t)count * THAW_SECTION_ENTRY;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *entry = raw + THAW_INDEX_HEADER + i * THAW_SECTION_ENTRY;
		uint32_t type = get_le32(entry + THAW_SECTION_OFF_TYPE);
		uint32_t flags = get_le32(entry + THAW_SECTION_OFF_FLAGS);
		uint64_t offset = get_le64(entry + THAW_SECTION_OFF_OFFSET);
		uint64_t len = get_le64(entry + THAW_SECTION_OFF_SIZE);

		next = round_up(next, 8);
		if (type <= last || (flags & ~THAW_SECTION_REQUIRED) || offset != next ||
		    !range_inside(offset, len, size))
			return thaw_damaged(err, "damaged: section %" PRIu32 " of the index", i);
		last = type;
		next = offset + len;
		switch (type) {
		case THAW_SECTION_INODES:
			image->inodes = raw + offset;
			inodes_size = len;
			break;
		case THAW_SECTION_STRINGS:
			image->strings = (const char *)raw + offset;
			image->strings_size = len;
			break;
		case THAW_SECTION_FRAMES:
			image->frames = raw + offset;
			frames_size = len;
			break;
		case THAW_SECTION_META:
			image->meta = (const char *)raw + offset;
			image->meta_size = len;
			break;
		case THAW_SECTION_RELOCATIONS:
			*relocations = (struct section){ raw + offset, len };
			break;
		default:
			if (flags & THAW_SECTION_REQUIRED)
				return thaw_refused(err,
						    "needs a newer thaw (index section %" PRIu32 ")",
						    type);
		}
	}
	if (next != size || !image->inodes || !image->strings || !image->frames ||
	    inodes_size % THAW_INODE_SIZE || frames_size % THAW_FRAME_SIZE ||
	    inodes_size / THAW_INODE_SIZE < 2)
		return thaw_damaged(err, "damaged: sections of the index");
	if (inodes_size / THAW_INODE_SIZE > THAW_INODES_MAX || image->strings_size > UINT32_MAX ||
	    image->meta_size > THAW_META_MAX)
		return thaw_limit(err, "the index holds more than this thaw serves");
	image->info.inodes = (uint32_t)(inodes_size / THAW_INODE_SIZE);
	image->info.frames = (uint32_t)(frames_size / THAW_FRAME_SIZE);
	return 0;
}

/* Frames cover the data space without gaps, and their parts of the file without gaps. */
static int check_frames(struct thaw_image *image, struct thaw_error *err)
{
	const struct thaw_part_info *stream = &image->parts[0], *annex = NULL;
	uint64_t data = 0, file = 0, end = stream->size;
	bool in_annex = false;

	for (unsigned i = 1; i < image->part_count; i++)
		if (image->parts[i].type == THAW_PART_ANNEX)
			annex = &image->parts[i];
	if (stream->raw_size != image->info.stream_size ||
	    (annex ? annex->raw_size : 0) != image->info.annex_size)
		return thaw_damaged(err, "damaged: index and parts table disagree");

	for (uint32_t i = 0; i < image->info.frames; i++) {
		struct thaw_frame frame;

		if (!in_annex && data == image->info.stream_size) {
			if (file != end || !annex)
				return bad(err, i, "frames and stream do not agree");
			in_annex = true;
			file = annex->offset;
			end = annex->offset + annex->size;
		}
		thaw_image_frame(image, i, &frame);
		if (frame.data_offset != data || frame.file_offset != file || frame.size == 0 ||
		    frame.size > THAW_FRAME_USIZE_MAX || frame.stored == 0 ||
		    !range_inside(file, frame.stored, end) ||
		    frame.stored > THAW_FRAME_USIZE_MAX + (THAW_FRAME_USIZE_MAX >> 7) ||
		    !range_inside(data, frame.size,
				  in_annex ? image->data_size : image->info.stream_size))
			return bad(err, i, "frame out of place");
		data += frame.size;
		file += frame.stored;
	}
	if (data != image->data_size || file != end)
		return thaw_damaged(err, "damaged: frames do not cover the stream");
	return 0;
}

static bool name_ok(struct thaw_name name)
{
	return name.len > 0 && !memchr(name.text, '/', name.len) &&
	       !memchr(name.text, '\0', name.len) &&
	       !(name.text[0] == '.' &&
		 (name.len == 1 || (name.len == 2 && name.text[1] == '.')));
}

/* Children lie at [next, next + count): each record has one parent, and parents come first. */
static int check_directory(struct thaw_image *image, uint32_t number, const uint8_t *record,
			   uint64_t next, struct thaw_error *err)
{
	uint64_t first = get_le64(record + THAW_INODE_OFF_DATA);
	uint64_t count = get_le64(record + THAW_INODE_OFF_SIZE);
	struct thaw_name last = { 0 };

	if (first != next || !range_inside(first, count, image->info.inodes))
		return bad(err, number, "children out of place");
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *child = inode_record(image, (uint32_t)(first + i));
		struct thaw_name name;

		if (get_le32(child + THAW_INODE_OFF_PARENT) != number)
			return bad(err, first + i, "has another parent");
		if (!range_inside(get_le32(child + THAW_INODE_OFF_NAME),
				  child[THAW_INODE_OFF_NAME_LEN], image->strings_size))
			return bad(err, first + i, "name out of bounds");
		name = record_name(image, child);
		if (!name_ok(name))
			return bad(err, first + i, "impossible name");
		if (i > 0 && name_compare(last, name) >= 0)
			return bad(err, first + i, "names are not in order");
		last = name;
	}
	return 0;
}

static int check_symlink(struct thaw_image *image, uint32_t number, uint64_t size,
			 uint64_t data, struct thaw_error *err)
{
	if (size == 0 || size > THAW_PATH_MAX || !range_inside(data, size + 1, image->strings_size))
		return bad(err, number, "target out of bounds");
	if (strnlen(image->strings + data, size + 1) != size)
		return bad(err, number, "target is not terminated");
	return 0;
}

static int check_hardlink(struct thaw_image *image, uint32_t number, uint64_t size,
			  uint64_t data, struct thaw_error *err)
{
	uint8_t type;

	if (size != 0 || data <= THAW_ROOT || data >= image->info.inodes)
		return bad(err, number, "link out of bounds");
	type = inode_record(image, (uint32_t)data)[THAW_INODE_OFF_TYPE];
	if (type != THAW_REGULAR && type != THAW_SYMLINK)
		return bad(err, number, "link to something that is no file");
	image->info.hardlinks++;
	return 0;
}

static int check_record(struct thaw_image *image, uint32_t number, uint64_t *next,
			struct thaw_error *err)
{
	const uint8_t *record = inode_record(image, number);
	uint64_t size = get_le64(record + THAW_INODE_OFF_SIZE);
	uint64_t data = get_le64(record + THAW_INODE_OFF_DATA);
	int r;

	/* Unreached records, and with them cycles: every one must have been some child before. */
	if (number >= *next)
		return bad(err, number, "is in no directory");
	if (get_le16(record + THAW_INODE_OFF_MODE) > MODE_MAX ||
	    get_le32(record + THAW_INODE_OFF_RESERVED) != 0 ||
	    get_le32(record + THAW_INODE_OFF_NLINK) == 0)
		return bad(err, number, "impossible attributes");
	switch (record[THAW_INODE_OFF_TYPE]) {
	case THAW_DIRECTORY:
		r = check_directory(image, number, record, *next, err);
		if (r < 0)
			return r;
		*next += size;
		image->info.directories++;
		return 0;
	case THAW_REGULAR:
		/* An empty file has no place; its offset must still be a sane one. */
		if (!range_inside(data, size, image->data_size))
			return bad(err, number, "contents out of bounds");
		image->info.files++;
		/*
		 * Files never share bytes (hard links share a record), so together they
		 * fit; this bounds what a hostile index can make extraction write.
		 */
		image->info.content_size += size;
		if (image->info.content_size > image->data_size)
			return bad(err, number, "contents overlap others");
		return 0;
	case THAW_SYMLINK:
		image->info.symlinks++;
		return check_symlink(image, number, size, data, err);
	case THAW_HARDLINK:
		return check_hardlink(image, number, size, data, err);
	default:
		return bad(err, number, "unknown type");
	}
}

int thaw_image_validate(struct thaw_image *image, struct thaw_error *err)
{
	struct section relocations = { 0 };
	uint64_t next = THAW_ROOT + 1;
	const uint8_t *root;
	int r;

	r = find_sections(image, &relocations, err);
	if (r == 0)
		r = check_frames(image, err);
	if (r < 0)
		return r;
	root = inode_record(image, THAW_ROOT);
	if (!all_zero(image->inodes, THAW_INODE_SIZE) ||
	    root[THAW_INODE_OFF_TYPE] != THAW_DIRECTORY || root[THAW_INODE_OFF_NAME_LEN] != 0 ||
	    get_le32(root + THAW_INODE_OFF_PARENT) != THAW_ROOT)
		return bad(err, THAW_ROOT, "the root is no root");
	for (uint32_t i = THAW_ROOT; i < image->info.inodes; i++) {
		r = check_record(image, i, &next, err);
		if (r < 0)
			return r;
	}
	if (next != image->info.inodes)
		return thaw_damaged(err, "damaged: records without a directory");
	return relocations.data ? thaw_relocations_validate(image, relocations.data,
							    relocations.size, err)
				: 0;
}
