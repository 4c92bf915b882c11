/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening an image, from its end to its index, and looking things up in it.
 * Each step trusts only what an earlier one has verified: the footer's digest
 * pins the parts table, the table's digests pin the index.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "util/cleanup.h"

/* Header, every part, and 31 feature names of 32 bytes. */
#define TABLE_MAX (THAW_TABLE_HEADER + THAW_PARTS_MAX * THAW_PART_ENTRY + 1024u)
/* Of most 64-bit processors. */
#define HUGE_PAGE ((size_t)2 << 20)

static int read_at(struct thaw_image *image, uint64_t offset, void *buf, size_t len,
		   struct thaw_error *err, const char *what)
{
	int r = image->source->read(image->source, offset, buf, len);

	return r < 0 ? thaw_io(err, r, "%s cannot be read", what) : 0;
}

static bool skippable_header_ok(const uint8_t *header, uint64_t payload)
{
	return get_le32(header) == THAW_SKIPPABLE_MAGIC && get_le32(header + 4) == payload;
}

/* Names the features that this thaw lacks, as the image's own list calls them. */
static int refuse_features(const uint8_t *table, uint64_t unknown, uint32_t names_size,
			   uint32_t table_size, struct thaw_error *err)
{
	uint64_t all = get_le64(table + THAW_TABLE_OFF_INCOMPAT);
	const char *name = (const char *)table + table_size - names_size;
	const char *end = (const char *)table + table_size;
	char list[256] = "";
	size_t used = 0;

	for (unsigned bit = 0; bit < 64; bit++) {
		size_t len;

		if (!(all >> bit & 1))
			continue;
		len = strnlen(name, (size_t)(end - name));
		if (name + len == end)
			return thaw_damaged(err, "damaged: the list of features is cut short");
		if (unknown >> bit & 1)
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s\"%.*s\"",
						 used ? ", " : "", (int)(len < 64 ? len : 64), name);
		if (used >= sizeof(list))
			break;
		name += len + 1;
	}
	return thaw_refused(err,
			    "needs a newer thaw, which knows: %s "
			    "(its tar stream can still be had: thaw extract --tar)",
			    list);
}

/* The parts lie one behind the other, each in a skippable frame but the first. */
static int read_parts(struct thaw_image *image, const uint8_t *table, uint32_t table_size,
		      struct thaw_error *err)
{
	uint64_t end = image->info.image_size - THAW_FOOTER_SIZE - THAW_SKIPPABLE_HEADER -
		       table_size;
	uint64_t next = 0;
	unsigned streams = 0, indexes = 0, annexes = 0;

	for (unsigned i = 0; i < image->part_count; i++) {
		const uint8_t *entry = table + THAW_TABLE_HEADER + i * THAW_PART_ENTRY;
		struct thaw_part_info *part = &image->parts[i];
		uint8_t header[THAW_SKIPPABLE_HEADER];
		int r;

		part->type = get_le32(entry + THAW_PART_OFF_TYPE);
		part->offset = get_le64(entry + THAW_PART_OFF_OFFSET);
		part->size = get_le64(entry + THAW_PART_OFF_SIZE);
		part->raw_size = get_le64(entry + THAW_PART_OFF_RAW_SIZE);
		memcpy(part->digest, entry + THAW_PART_OFF_DIGEST, THAW_DIGEST_SIZE);
		memcpy(part->name, entry + THAW_PART_OFF_NAME, sizeof(part->name));
		part->head_size = get_le32(entry + THAW_PART_OFF_HEAD);
		if (part->name[THAW_PART_NAME_MAX] != '\0' ||
		    (part->type == THAW_PART_WARM ? part->head_size > part->size :
						    part->head_size != 0))
			return thaw_damaged(err, "damaged: part %u of the table", i);

		if (i > 0)
			next += THAW_SKIPPABLE_HEADER;
		if (part->offset != next || !range_inside(next, part->size, end))
			return thaw_damaged(err, "damaged: part %u is not where it should be", i);
		if (i > 0) {
			r = read_at(image, image->info.image_start + next - THAW_SKIPPABLE_HEADER,
				    header, sizeof(header), err, "a part");
			if (r < 0)
				return r;
			if (!skippable_header_ok(header, part->size))
				return thaw_damaged(err, "damaged: header of part %u", i);
		}
		next += part->size;

		streams += part->type == THAW_PART_STREAM;
		indexes += part->type == THAW_PART_INDEX;
		annexes += part->type == THAW_PART_ANNEX;
		if ((part->type == THAW_PART_STREAM) != (i == 0))
			return thaw_damaged(err, "damaged: the stream must be the first part");
	}
	if (next != end || streams != 1 || indexes != 1 || annexes > 1)
		return thaw_damaged(err, "damaged: the parts do not add up");
	return 0;
}

int thaw_image_read_table(struct thaw_image *image, struct thaw_error *err)
{
	uint8_t footer[THAW_FOOTER_SIZE], sum[THAW_DIGEST_SIZE];
	_cleanup_(freep) uint8_t *buf = NULL;
	uint64_t size = image->source->size, unknown;
	uint32_t table_size, names_size, version;
	const uint8_t *table;
	int r;

	if (size < THAW_FOOTER_SIZE + THAW_SKIPPABLE_HEADER + THAW_TABLE_HEADER)
		return thaw_damaged(err, "not a thaw image (too short)");
	r = read_at(image, size - THAW_FOOTER_SIZE, footer, sizeof(footer), err, "the footer");
	if (r < 0)
		return r;
	if (memcmp(footer + THAW_FOOTER_OFF_MAGIC, THAW_FOOTER_MAGIC, 8) != 0)
		return thaw_damaged(err, "not a thaw image, or cut short (no footer at its end)");
	version = get_le32(footer + THAW_FOOTER_OFF_VERSION);
	if (version != THAW_VERSION)
		return thaw_refused(err, "format version %" PRIu32 "; this thaw knows version %u",
				    version, THAW_VERSION);
	table_size = get_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE);
	if (!skippable_header_ok(footer, THAW_FOOTER_SIZE - THAW_SKIPPABLE_HEADER) ||
	    !all_zero(footer + THAW_FOOTER_OFF_RESERVED, 8) || table_size < THAW_TABLE_HEADER ||
	    table_size > TABLE_MAX ||
	    table_size > size - THAW_FOOTER_SIZE - THAW_SKIPPABLE_HEADER)
		return thaw_damaged(err, "damaged: footer");

	buf = malloc(THAW_SKIPPABLE_HEADER + table_size);
	if (!buf)
		return thaw_oom(err);
	r = read_at(image, size - THAW_FOOTER_SIZE - table_size - THAW_SKIPPABLE_HEADER, buf,
		    THAW_SKIPPABLE_HEADER + table_size, err, "the parts table");
	if (r < 0)
		return r;
	table = buf + THAW_SKIPPABLE_HEADER;
	r = thaw_digest_once(table, table_size, sum);
	if (r < 0)
		return thaw_oom(err);
	if (memcmp(sum, footer + THAW_FOOTER_OFF_IDENTITY, sizeof(sum)) != 0 ||
	    !skippable_header_ok(buf, table_size))
		return thaw_damaged(err, "damaged: parts table");
	if (image->expected && memcmp(sum, image->expected, sizeof(sum)) != 0)
		return thaw_damaged(err, "was replaced by another image while it was opened");
	memcpy(image->info.identity, sum, sizeof(sum));

	image->part_count = get_le32(table + THAW_TABLE_OFF_COUNT);
	image->info.image_size = get_le64(table + THAW_TABLE_OFF_IMAGE_SIZE);
	image->info.compat = get_le64(table + THAW_TABLE_OFF_COMPAT);
	image->info.incompat = get_le64(table + THAW_TABLE_OFF_INCOMPAT);
	names_size = get_le32(table + THAW_TABLE_OFF_NAMES_SIZE);
	if (get_le32(table) != THAW_TABLE_MAGIC || image->part_count == 0 ||
	    image->part_count > THAW_PARTS_MAX ||
	    THAW_TABLE_HEADER + image->part_count * THAW_PART_ENTRY + (uint64_t)names_size !=
		    table_size ||
	    get_le32(table + THAW_TABLE_OFF_RESERVED) != 0)
		return thaw_damaged(err, "damaged: parts table");
	if (image->info.image_size > size ||
	    image->info.image_size < THAW_FOOTER_SIZE + THAW_SKIPPABLE_HEADER + table_size)
		return thaw_damaged(err, "damaged: its beginning is missing");
	image->info.image_start = size - image->info.image_size;

	unknown = image->info.incompat & ~THAW_INCOMPAT_KNOWN;
	if (unknown)
		return refuse_features(table, unknown, names_size, table_size, err);
	return read_parts(image, table, table_size, err);
}

/*
 * Of huge pages, where it fills some: of opening a large index, a third is page faults
 * otherwise. To be freed by free().
 */
static void *allocate_large(size_t size)
{
	size_t whole = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	void *buf;

	if (size < 2 * HUGE_PAGE)
		return malloc(size);
	buf = aligned_alloc(HUGE_PAGE, whole);
	if (buf)
		(void)madvise(buf, whole, MADV_HUGEPAGE); /* otherwise small ones will do */
	return buf;
}

static int read_index(struct thaw_image *image, struct thaw_error *err)
{
	const struct thaw_part_info *part = NULL;
	_cleanup_(freep) uint8_t *stored = NULL;
	uint8_t sum[THAW_DIGEST_SIZE];
	size_t n;
	int r;

	for (unsigned i = 0; i < image->part_count; i++) {
		if (image->parts[i].type == THAW_PART_INDEX)
			part = &image->parts[i];
		else if (image->parts[i].type == THAW_PART_STREAM)
			image->info.stream_stored = image->parts[i].size;
		else if (image->parts[i].type == THAW_PART_ANNEX)
			image->info.annex_stored = image->parts[i].size;
	}
	if (part->raw_size > THAW_INDEX_RAW_MAX ||
	    part->raw_size / THAW_INDEX_RATIO_MAX > part->size)
		return thaw_limit(err, "the index would need %" PRIu64 " bytes", part->raw_size);
	stored = allocate_large(part->size + 1);
	image->raw = allocate_large(part->raw_size + 1);
	if (!stored || !image->raw)
		return thaw_oom(err);
	r = read_at(image, image->info.image_start + part->offset, stored, part->size, err,
		    "the index");
	if (r < 0)
		return r;
	r = thaw_digest_once(stored, part->size, sum);
	if (r < 0)
		return thaw_oom(err);
	if (memcmp(sum, part->digest, sizeof(sum)) != 0)
		return thaw_damaged(err, "damaged: index");
	memcpy(image->info.index_digest, sum, sizeof(sum));
	/* Exactly one frame of exactly this size, or an error; never more than the buffer. */
	n = ZSTD_decompress(image->raw, part->raw_size, stored, part->size);
	if (ZSTD_isError(n) || n != part->raw_size)
		return thaw_damaged(err, "damaged: index does not decompress");
	image->info.index_size = part->raw_size;
	image->info.index_stored = part->size;
	return 0;
}

int thaw_image_open_known(struct thaw_source *source, const uint8_t identity[THAW_DIGEST_SIZE],
			  struct thaw_error *err, struct thaw_image **ret_image)
{
	_cleanup_(thaw_image_freep) struct thaw_image *image = calloc(1, sizeof(*image));
	int r;

	if (!image) {
		thaw_source_free(source);
		return thaw_oom(err);
	}
	image->source = source;
	image->expected = identity;
	r = thaw_image_read_table(image, err);
	image->expected = NULL;
	if (r == 0)
		r = read_index(image, err);
	if (r == 0)
		r = thaw_image_validate(image, err);
	if (r < 0)
		return r;
	*ret_image = steal_ptr(image);
	return 0;
}

int thaw_image_open(struct thaw_source *source, struct thaw_error *err,
		    struct thaw_image **ret_image)
{
	return thaw_image_open_known(source, NULL, err, ret_image);
}

struct thaw_image *thaw_image_free(struct thaw_image *image)
{
	if (image) {
		thaw_source_free(image->source);
		if (!image->borrowed)
			free(image->raw);
		free(image);
	}
	return NULL;
}

const struct thaw_image_info *thaw_image_info(const struct thaw_image *image)
{
	return &image->info;
}

const char *thaw_image_meta(const struct thaw_image *image, size_t *ret_len)
{
	*ret_len = image->meta_size;
	return image->meta;
}

unsigned thaw_image_part_count(const struct thaw_image *image)
{
	return image->part_count;
}

void thaw_image_part(const struct thaw_image *image, unsigned index,
		     struct thaw_part_info *ret_part)
{
	*ret_part = image->parts[index];
}

/* number is valid and no hard link */
static void decode(const struct thaw_image *image, uint32_t number, struct thaw_inode *ret_inode)
{
	const uint8_t *record = inode_record(image, number);

	*ret_inode = (struct thaw_inode){
		.ino = number,
		.type = record[THAW_INODE_OFF_TYPE],
		.mode = get_le16(record + THAW_INODE_OFF_MODE),
		.mtime = get_le32(record + THAW_INODE_OFF_MTIME),
		.nlink = get_le32(record + THAW_INODE_OFF_NLINK),
		.parent = get_le32(record + THAW_INODE_OFF_PARENT),
		.size = get_le64(record + THAW_INODE_OFF_SIZE),
		.data = get_le64(record + THAW_INODE_OFF_DATA),
	};
}

/* Follows a hard link, which the validator has seen to lead to a file. */
static void decode_resolved(const struct thaw_image *image, uint32_t number,
			    struct thaw_inode *ret_inode)
{
	const uint8_t *record = inode_record(image, number);

	if (record[THAW_INODE_OFF_TYPE] == THAW_HARDLINK)
		number = (uint32_t)get_le64(record + THAW_INODE_OFF_DATA);
	decode(image, number, ret_inode);
}

int thaw_image_inode(const struct thaw_image *image, uint64_t ino, struct thaw_inode *ret_inode)
{
	if (ino == 0 || ino >= image->info.inodes)
		return -EINVAL;
	decode(image, (uint32_t)ino, ret_inode);
	return ret_inode->type == THAW_HARDLINK ? -EINVAL : 0;
}

int thaw_image_lookup(const struct thaw_image *image, uint64_t parent, const char *name,
		      size_t len, struct thaw_inode *ret_inode)
{
	struct thaw_name wanted = { .text = name, .len = len };
	struct thaw_inode directory;
	uint32_t low, high;
	int r;

	r = thaw_image_inode(image, parent, &directory);
	if (r < 0)
		return r;
	if (directory.type != THAW_DIRECTORY)
		return -ENOTDIR;
	low = (uint32_t)directory.data;
	high = low + (uint32_t)directory.size;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = name_compare(record_name(image, inode_record(image, middle)), wanted);

		if (order == 0) {
			decode_resolved(image, middle, ret_inode);
			return 0;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return THAW_NOT_FOUND;
}

void thaw_image_child(const struct thaw_image *image, const struct thaw_inode *directory,
		      uint64_t position, struct thaw_name *ret_name, struct thaw_inode *ret_inode)
{
	uint32_t number = (uint32_t)(directory->data + position);

	*ret_name = record_name(image, inode_record(image, number));
	decode_resolved(image, number, ret_inode);
}

const char *thaw_image_target(const struct thaw_image *image, const struct thaw_inode *inode)
{
	return image->strings + inode->data;
}

int thaw_image_find(const struct thaw_image *image, const char *path,
		    struct thaw_inode *ret_inode)
{
	struct thaw_inode inode;

	decode(image, THAW_ROOT, &inode);
	for (;;) {
		size_t len;
		int r;

		path += strspn(path, "/");
		if (*path == '\0')
			break;
		len = strcspn(path, "/");
		if (!(len == 1 && path[0] == '.')) {
			r = thaw_image_lookup(image, inode.ino, path, len, &inode);
			if (r != 0)
				return r == -ENOTDIR ? THAW_NOT_FOUND : r;
		}
		path += len;
	}
	*ret_inode = inode;
	return 0;
}

void thaw_image_path(const struct thaw_image *image, uint32_t ino, char *buf, size_t size)
{
	size_t at = size - 1;
	bool cut = false;

	if (size == 0)
		return;
	buf[at] = '\0';
	/* Parents have smaller numbers than their children, so this ends. */
	while (ino > THAW_ROOT && ino < image->info.inodes) {
		const uint8_t *record = inode_record(image, ino);
		struct thaw_name name = record_name(image, record);
		size_t slash = buf[at] != '\0';

		if (name.len + slash > at) {
			cut = true;
			break;
		}
		if (slash)
			buf[--at] = '/';
		at -= name.len;
		memcpy(buf + at, name.text, name.len);
		ino = get_le32(record + THAW_INODE_OFF_PARENT);
	}
	memmove(buf, buf + at, size - at);
	if (buf[0] == '\0' && size > 1)
		memcpy(buf, ".", 2);
	if (cut && strlen(buf) > 3)
		memcpy(buf, "...", 3);
}

void thaw_image_frame(const struct thaw_image *image, uint32_t number,
		      struct thaw_frame *ret_frame)
{
	const uint8_t *record = image->frames + (uint64_t)number * THAW_FRAME_SIZE;

	*ret_frame = (struct thaw_frame){
		.data_offset = get_le64(record + THAW_FRAME_OFF_DATA),
		.file_offset = get_le64(record + THAW_FRAME_OFF_FILE),
		.stored = get_le32(record + THAW_FRAME_OFF_CSIZE),
		.size = get_le32(record + THAW_FRAME_OFF_USIZE),
		.digest = record + THAW_FRAME_OFF_DIGEST,
	};
}

uint32_t thaw_image_frame_at(const struct thaw_image *image, uint64_t data_offset)
{
	uint32_t low = 0, high = image->info.frames;

	/* The last frame that begins at or before data_offset. */
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;
		const uint8_t *record = image->frames + (uint64_t)middle * THAW_FRAME_SIZE;

		if (get_le64(record + THAW_FRAME_OFF_DATA) <= data_offset)
			low = middle;
		else
			high = middle;
	}
	return low;
}

int thaw_image_pread(const struct thaw_image *image, uint64_t offset, void *buf, size_t len)
{
	if (!range_inside(offset, len, image->info.image_size))
		return -EIO;
	return image->source->read(image->source, image->info.image_start + offset, buf, len);
}

int thaw_image_fd(const struct thaw_image *image)
{
	return image->source->fd;
}

int thaw_image_identify_index(struct thaw_source *source, struct thaw_error *err,
			      uint8_t ret_identity[THAW_DIGEST_SIZE],
			      uint8_t ret_index_digest[THAW_DIGEST_SIZE])
{
	struct thaw_image *image = calloc(1, sizeof(*image));
	int r;

	if (!image) {
		thaw_source_free(source);
		return thaw_oom(err);
	}
	image->source = source;
	r = thaw_image_read_table(image, err);
	if (r == 0)
		memcpy(ret_identity, image->info.identity, THAW_DIGEST_SIZE);
	if (r == 0 && ret_index_digest)
		memset(ret_index_digest, 0, THAW_DIGEST_SIZE);
	for (unsigned i = 0; r == 0 && ret_index_digest && i < thaw_image_part_count(image);
	     i++) {
		struct thaw_part_info part;

		thaw_image_part(image, i, &part);
		if (part.type == THAW_PART_INDEX)
			memcpy(ret_index_digest, part.digest, THAW_DIGEST_SIZE);
	}
	thaw_image_free(image);
	return r;
}

int thaw_image_identify(struct thaw_source *source, struct thaw_error *err,
			uint8_t ret_identity[THAW_DIGEST_SIZE])
{
	return thaw_image_identify_index(source, err, ret_identity, NULL);
}
