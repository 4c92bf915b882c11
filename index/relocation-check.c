/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a section of relocations, once, so that readers need not: tables
 * that fill it, rules whose strings are in it, sites that lie in their files,
 * in order and apart. What stands at a site is the file's matter: whoever renders or
 * verifies looks.
 */
#include <inttypes.h>

#include "image-internal.h"
#include "thaw/relocation.h"

static int bad(struct thaw_error *err, const char *what, uint64_t number, const char *why)
{
	return thaw_damaged(err, "damaged: relocations: %s %" PRIu64 ": %s", what, number,
			    why);
}

static int check_rules(const struct thaw_image *image, struct thaw_error *err)
{
	uint32_t strings = image->relocation_strings_size;

	for (uint32_t i = 0; i < image->rule_count; i++) {
		const uint8_t *rule = image->rules + (uint64_t)i * THAW_RULE_SIZE;
		uint32_t kind = get_le32(rule + THAW_RULE_OFF_KIND);
		uint32_t length = get_le32(rule + THAW_RULE_OFF_PLACEHOLDER_LEN);
		uint32_t suffix = get_le32(rule + THAW_RULE_OFF_SUFFIX_LEN);
		uint32_t room = get_le32(rule + THAW_RULE_OFF_ROOM);

		if (kind < THAW_RELOCATION_TEXT || kind > THAW_RELOCATION_CONSTANT)
			return bad(err, "rule", i, "unknown kind");
		if (length < THAW_PLACEHOLDER_MIN || length > THAW_PLACEHOLDER_MAX ||
		    suffix > THAW_SUFFIX_MAX ||
		    !range_inside(get_le32(rule + THAW_RULE_OFF_PLACEHOLDER), length,
				  strings) ||
		    !range_inside(get_le32(rule + THAW_RULE_OFF_SUFFIX), suffix, strings))
			return bad(err, "rule", i, "strings out of bounds");
		if (kind == THAW_RELOCATION_BINARY
			    ? room < length || room > THAW_PLACEHOLDER_MAX
			    : room != 0)
			return bad(err, "rule", i, "impossible room");
		if (kind == THAW_RELOCATION_BYTECODE &&
		    (length != THAW_BYTECODE_HEAD || suffix != 0))
			return bad(err, "rule", i, "no head of bytecode");
	}
	return 0;
}

/* Bytecode has its head first, then constants; no other file has any of these. */
static bool kind_belongs(uint32_t kind, uint64_t offset, bool first, bool *bytecode)
{
	if (first)
		*bytecode = kind == THAW_RELOCATION_BYTECODE;
	if (*bytecode && !first)
		return kind == THAW_RELOCATION_CONSTANT;
	return kind == THAW_RELOCATION_BYTECODE ? first && offset == 0
						: kind != THAW_RELOCATION_CONSTANT;
}

static int check_sites(const struct thaw_image *image, uint32_t file, uint64_t file_size,
		       uint32_t first, uint32_t count, struct thaw_error *err)
{
	uint64_t behind = 0;
	bool bytecode = false;

	for (uint32_t i = first; i < first + count; i++) {
		const uint8_t *site = image->sites + (uint64_t)i * THAW_SITE_SIZE, *rule;
		uint64_t offset = get_le64(site + THAW_SITE_OFF_OFFSET);
		uint32_t number = get_le32(site + THAW_SITE_OFF_RULE), length;

		if (number >= image->rule_count ||
		    get_le32(site + THAW_SITE_OFF_RESERVED) != 0)
			return bad(err, "site", i, "no such rule");
		rule = image->rules + (uint64_t)number * THAW_RULE_SIZE;
		length = get_le32(rule + THAW_RULE_OFF_PLACEHOLDER_LEN);
		if (!range_inside(offset, length, file_size))
			return bad(err, "site", i, "not in its file");
		if (offset < behind)
			return bad(err, "file", file, "sites are not in order");
		/* Behind "#!" and blanks, and nothing before it: it makes a new first line. */
		if (get_le32(rule + THAW_RULE_OFF_KIND) == THAW_RELOCATION_SHEBANG &&
		    (i != first || offset < 2 || offset >= THAW_SHEBANG_LINE_MAX))
			return bad(err, "site", i, "is in no first line");
		if (!kind_belongs(get_le32(rule + THAW_RULE_OFF_KIND), offset, i == first,
				  &bytecode) ||
		    (bytecode && file_size > THAW_BYTECODE_SIZE_MAX))
			return bad(err, "site", i, "does not belong into its file");
		behind = offset + length;
	}
	return 0;
}

static int check_files(const struct thaw_image *image, struct thaw_error *err)
{
	uint32_t last = 0, next = 0;

	for (uint32_t i = 0; i < image->relocated_count; i++) {
		const uint8_t *file = image->relocated +
				      (uint64_t)i * THAW_RELOCATED_SIZE;
		uint32_t ino = get_le32(file + THAW_RELOCATED_OFF_INO);
		uint32_t count = get_le32(file + THAW_RELOCATED_OFF_SITES);
		struct thaw_inode inode;
		int r;

		if (ino <= last)
			return bad(err, "file", i, "out of order");
		last = ino;
		if (thaw_image_inode(image, ino, &inode) < 0 ||
		    inode.type != THAW_REGULAR)
			return bad(err, "file", i, "is no regular file");
		if (count == 0 || get_le32(file + THAW_RELOCATED_OFF_FIRST) != next ||
		    count > image->site_count - next)
			return bad(err, "file", i, "sites out of place");
		r = check_sites(image, i, inode.size, next, count, err);
		if (r < 0)
			return r;
		next += count;
	}
	if (next != image->site_count)
		return thaw_damaged(err, "damaged: relocations: sites without a file");
	return 0;
}

int thaw_relocations_validate(struct thaw_image *image, const uint8_t *section,
			      uint64_t size, struct thaw_error *err)
{
	uint32_t rules, files, sites, strings;
	int r;

	if (size < THAW_RELOCATIONS_HEADER)
		return thaw_damaged(err, "damaged: relocations: header");
	rules = get_le32(section + THAW_RELOCATIONS_OFF_RULES);
	files = get_le32(section + THAW_RELOCATIONS_OFF_FILES);
	sites = get_le32(section + THAW_RELOCATIONS_OFF_SITES);
	strings = get_le32(section + THAW_RELOCATIONS_OFF_STRINGS);
	if (rules > THAW_RULES_MAX || sites > THAW_SITES_MAX)
		return thaw_limit(err, "it has more relocations than this thaw serves");
	if (THAW_RELOCATIONS_HEADER + (uint64_t)rules * THAW_RULE_SIZE +
		    (uint64_t)files * THAW_RELOCATED_SIZE +
		    (uint64_t)sites * THAW_SITE_SIZE + strings !=
	    size)
		return thaw_damaged(err, "damaged: relocations: header");
	image->rule_count = rules;
	image->relocated_count = files;
	image->site_count = sites;
	image->relocation_strings_size = strings;
	image->rules = section + THAW_RELOCATIONS_HEADER;
	image->relocated = image->rules + (uint64_t)rules * THAW_RULE_SIZE;
	image->sites = image->relocated + (uint64_t)files * THAW_RELOCATED_SIZE;
	image->relocation_strings = (const char *)image->sites +
				    (uint64_t)sites * THAW_SITE_SIZE;
	r = check_rules(image, err);
	return r < 0 ? r : check_files(image, err);
}

/* -- reading -- */

uint32_t thaw_image_relocated_count(const struct thaw_image *image)
{
	return image->relocated_count;
}

uint64_t thaw_image_site_count(const struct thaw_image *image)
{
	return image->site_count;
}

void thaw_image_relocated(const struct thaw_image *image, uint32_t number,
			  struct thaw_relocated *ret_file)
{
	const uint8_t *file = image->relocated + (uint64_t)number * THAW_RELOCATED_SIZE;

	*ret_file = (struct thaw_relocated){
		.ino = get_le32(file + THAW_RELOCATED_OFF_INO),
		.first = get_le32(file + THAW_RELOCATED_OFF_FIRST),
		.sites = get_le32(file + THAW_RELOCATED_OFF_SITES),
	};
}

int thaw_image_relocated_find(const struct thaw_image *image, uint32_t ino,
			      struct thaw_relocated *ret_file)
{
	uint32_t low = 0, high = image->relocated_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		struct thaw_relocated file;

		thaw_image_relocated(image, middle, &file);
		if (file.ino == ino) {
			*ret_file = file;
			return 0;
		}
		if (file.ino < ino)
			low = middle + 1;
		else
			high = middle;
	}
	return THAW_NOT_FOUND;
}

void thaw_image_site(const struct thaw_image *image, const struct thaw_relocated *file,
		     uint32_t number, struct thaw_site *ret_site)
{
	const uint8_t *site = image->sites +
			      (uint64_t)(file->first + number) * THAW_SITE_SIZE;
	const uint8_t *rule = image->rules +
			      (uint64_t)get_le32(site + THAW_SITE_OFF_RULE) *
				      THAW_RULE_SIZE;

	*ret_site = (struct thaw_site){
		.offset = get_le64(site + THAW_SITE_OFF_OFFSET),
		.rule = {
			.kind = get_le32(rule + THAW_RULE_OFF_KIND),
			.placeholder = image->relocation_strings +
				       get_le32(rule + THAW_RULE_OFF_PLACEHOLDER),
			.placeholder_len = get_le32(rule + THAW_RULE_OFF_PLACEHOLDER_LEN),
			.suffix = image->relocation_strings +
				  get_le32(rule + THAW_RULE_OFF_SUFFIX),
			.suffix_len = get_le32(rule + THAW_RULE_OFF_SUFFIX_LEN),
			.room = get_le32(rule + THAW_RULE_OFF_ROOM),
		},
	};
}
