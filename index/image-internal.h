/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An open image, for the files of index/ that look inside. */
#include "thaw/image.h"
#include "util/bytes.h"

struct thaw_image {
	struct thaw_source *source; /* owned */
	struct thaw_image_info info;
	unsigned part_count;
	struct thaw_part_info parts[THAW_PARTS_MAX];
	const uint8_t *expected; /* while it is opened: the identity that it must have, or NULL */
	bool borrowed; /* raw is somebody else's memory */
	uint8_t *raw; /* the decompressed index; what follows points into it */
	const uint8_t *inodes;
	const char *strings;
	uint64_t strings_size;
	const uint8_t *frames;
	const char *meta;
	uint64_t meta_size;
	uint64_t data_size; /* stream and annex */
	/* Relocations; all zero when there are none. */
	const uint8_t *rules, *relocated, *sites;
	const char *relocation_strings;
	uint32_t rule_count, relocated_count, site_count, relocation_strings_size;
};

/* Footer and parts table into image, whose source is set; see image.c. */
_must_check_ int thaw_image_read_table(struct thaw_image *image, struct thaw_error *err);

/* Where the index's sections lie and what they say must hold; see validate.c. */
_must_check_ int thaw_image_validate(struct thaw_image *image, struct thaw_error *err);

/*
 * Find the tables of a section of relocations and check them against the
 * inodes, which have been validated; see relocation-check.c.
 */
_must_check_ int thaw_relocations_validate(struct thaw_image *image, const uint8_t *section,
					   uint64_t size, struct thaw_error *err);

static inline const uint8_t *inode_record(const struct thaw_image *image, uint32_t number)
{
	return image->inodes + (uint64_t)number * THAW_INODE_SIZE;
}

static inline struct thaw_name record_name(const struct thaw_image *image, const uint8_t *record)
{
	return (struct thaw_name){
		.text = image->strings + get_le32(record + THAW_INODE_OFF_NAME),
		.len = record[THAW_INODE_OFF_NAME_LEN],
	};
}

/* The order of names in a directory: bytes, a prefix first. */
static inline int name_compare(struct thaw_name a, struct thaw_name b)
{
	size_t shorter = a.len < b.len ? a.len : b.len;
	int order = shorter ? memcmp(a.text, b.text, shorter) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}
