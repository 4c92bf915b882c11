/* SPDX-License-Identifier: Apache-2.0 */
/* Building the section of relocations. */
#include "thaw/relocation.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"

/* A rule as it is stored: its strings are offsets in ours. */
struct rule {
	uint32_t kind, room;
	uint32_t placeholder, placeholder_len;
	uint32_t suffix, suffix_len;
};

struct site {
	uint64_t offset;
	uint32_t ino, rule;
	uint32_t order; /* of adding: of sites that overlap the first stays */
	uint32_t dropped;
};

#define SLOTS (2 * THAW_RULES_MAX) /* a power of two */

struct thaw_relocations {
	uint16_t slots[SLOTS]; /* hash of the rules: number + 1, or 0 */
	struct rule *rules;
	size_t rule_count, rule_capacity;
	struct site *sites;
	size_t site_count, site_capacity;
	char *strings;
	size_t strings_size, strings_capacity;
};
_Static_assert(THAW_RULES_MAX < UINT16_MAX, "a slot holds every rule's number");

int thaw_relocations_new(struct thaw_relocations **ret_relocations)
{
	*ret_relocations = calloc(1, sizeof(**ret_relocations));
	return *ret_relocations ? 0 : -ENOMEM;
}

struct thaw_relocations *thaw_relocations_free(struct thaw_relocations *relocations)
{
	if (relocations) {
		free(relocations->rules);
		free(relocations->sites);
		free(relocations->strings);
		free(relocations);
	}
	return NULL;
}

size_t thaw_relocations_count(const struct thaw_relocations *relocations)
{
	return relocations->site_count;
}

static bool same_rule(const struct thaw_relocations *relocations, const struct rule *have,
		      const struct thaw_relocation_rule *rule)
{
	const char *strings = relocations->strings;

	return have->kind == rule->kind && have->room == rule->room &&
	       have->placeholder_len == rule->placeholder_len &&
	       have->suffix_len == rule->suffix_len &&
	       memcmp(strings + have->placeholder, rule->placeholder,
		      rule->placeholder_len) == 0 &&
	       (rule->suffix_len == 0 ||
		memcmp(strings + have->suffix, rule->suffix, rule->suffix_len) == 0);
}

static int add_string(struct thaw_relocations *relocations, const char *text, size_t len,
		      uint32_t *ret_offset)
{
	*ret_offset = (uint32_t)relocations->strings_size;
	if (len == 0)
		return 0;
	if (grow(&relocations->strings, &relocations->strings_capacity,
		 relocations->strings_size + len, 1) < 0)
		return -ENOMEM;
	memcpy(relocations->strings + relocations->strings_size, text, len);
	relocations->strings_size += len;
	return 0;
}

/* FNV-1a: a bad hash costs time only, and rules are few. */
static uint32_t hash_bytes(uint32_t hash, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8_t)data[i]) * 16777619u;
	return hash;
}

static uint16_t *find_slot(struct thaw_relocations *relocations,
			   const struct thaw_relocation_rule *rule)
{
	uint32_t hash = hash_bytes(2166136261u ^ rule->kind ^ rule->room << 8,
				   rule->placeholder, rule->placeholder_len);
	uint16_t *slot;

	hash = hash_bytes(hash, rule->suffix, rule->suffix_len);
	for (;; hash++) {
		slot = &relocations->slots[hash % SLOTS];
		if (*slot == 0 ||
		    same_rule(relocations, &relocations->rules[*slot - 1], rule))
			return slot;
	}
}

static int add_rule(struct thaw_relocations *relocations,
		    const struct thaw_relocation_rule *rule, struct thaw_error *err,
		    uint32_t *ret_number)
{
	struct rule new = {
		.kind = rule->kind,
		.room = rule->room,
		.placeholder_len = (uint32_t)rule->placeholder_len,
		.suffix_len = (uint32_t)rule->suffix_len,
	};
	uint16_t *slot = find_slot(relocations, rule);

	if (*slot) {
		*ret_number = *slot - 1u;
		return 0;
	}
	if (relocations->rule_count == THAW_RULES_MAX)
		return thaw_limit(err, "its files name more than %u paths",
				  THAW_RULES_MAX);
	/* Rules and their strings are bounded, so 32 bits hold every offset. */
	if (grow(&relocations->rules, &relocations->rule_capacity,
		 relocations->rule_count + 1, sizeof(new)) < 0 ||
	    add_string(relocations, rule->placeholder, rule->placeholder_len,
		       &new.placeholder) < 0 ||
	    add_string(relocations, rule->suffix, rule->suffix_len, &new.suffix) < 0)
		return thaw_oom(err);
	relocations->rules[relocations->rule_count] = new;
	*ret_number = (uint32_t)relocations->rule_count++;
	*slot = (uint16_t)relocations->rule_count;
	return 0;
}

static bool rule_possible(uint64_t offset, const struct thaw_relocation_rule *rule)
{
	if (rule->placeholder_len < THAW_PLACEHOLDER_MIN ||
	    rule->placeholder_len > THAW_PLACEHOLDER_MAX ||
	    rule->suffix_len > THAW_SUFFIX_MAX)
		return false;
	switch (rule->kind) {
	case THAW_RELOCATION_TEXT:
		return rule->room == 0;
	case THAW_RELOCATION_BINARY:
		return rule->room >= rule->placeholder_len &&
		       rule->room <= THAW_PLACEHOLDER_MAX;
	case THAW_RELOCATION_SHEBANG:
		return rule->room == 0 && offset >= 2 && offset < THAW_SHEBANG_LINE_MAX;
	case THAW_RELOCATION_BYTECODE:
		return rule->room == 0 && offset == 0 && rule->suffix_len == 0 &&
		       rule->placeholder_len == THAW_BYTECODE_HEAD;
	case THAW_RELOCATION_CONSTANT:
		return rule->room == 0 && offset >= THAW_BYTECODE_HEAD;
	default:
		return false;
	}
}

int thaw_relocations_add(struct thaw_relocations *relocations, uint32_t ino,
			 uint64_t offset, const struct thaw_relocation_rule *rule,
			 struct thaw_error *err)
{
	struct site site = { .offset = offset, .ino = ino };
	int r;

	if (!rule_possible(offset, rule))
		return thaw_io(err, -EINVAL, "an impossible relocation");
	if (relocations->site_count == THAW_SITES_MAX)
		return thaw_limit(err, "paths stand at more than %u places in its files",
				  THAW_SITES_MAX);
	r = add_rule(relocations, rule, err, &site.rule);
	if (r < 0)
		return r;
	if (grow(&relocations->sites, &relocations->site_capacity,
		 relocations->site_count + 1, sizeof(site)) < 0)
		return thaw_oom(err);
	site.order = (uint32_t)relocations->site_count;
	relocations->sites[relocations->site_count++] = site;
	return 0;
}

int thaw_relocations_carry(struct thaw_relocations *relocations,
			   const struct thaw_image *image, const uint32_t *map,
			   struct thaw_error *err)
{
	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;

		thaw_image_relocated(image, i, &file);
		for (uint32_t j = 0; map[file.ino] && j < file.sites; j++) {
			struct thaw_site site;
			int r;

			thaw_image_site(image, &file, j, &site);
			r = thaw_relocations_add(relocations, map[file.ino], site.offset,
						 &site.rule, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* -- overlaps -- */

static int compare_places(const void *a, const void *b)
{
	const struct site *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int compare_orders(const void *a, const void *b)
{
	const struct site *x = *(const struct site *const *)a;
	const struct site *y = *(const struct site *const *)b;

	return x->order < y->order ? -1 : x->order > y->order;
}

static uint64_t end_of(const struct thaw_relocations *relocations,
		       const struct site *site)
{
	return site->offset + relocations->rules[site->rule].placeholder_len;
}

/* Does a site that stays overlap this one? sites[0..count) are one file's, by place. */
static bool overlaps_kept(const struct thaw_relocations *relocations,
			  const struct site *sites, size_t count, size_t at)
{
	const struct site *site = &sites[at];

	/* No site is longer than this: those further left end before. */
	for (size_t i = at;
	     i-- > 0 && sites[i].offset + THAW_PLACEHOLDER_MAX > site->offset;)
		if (!sites[i].dropped && end_of(relocations, &sites[i]) > site->offset)
			return true;
	for (size_t i = at + 1; i < count && sites[i].offset < end_of(relocations, site);
	     i++)
		if (!sites[i].dropped)
			return true;
	return false;
}

/* In the order of adding: what overlaps something that is there already, goes. */
static int drop_overlaps(const struct thaw_relocations *relocations, struct site *sites,
			 size_t count)
{
	_cleanup_(freep) struct site **order = NULL;
	bool any = false;

	for (size_t i = 1; i < count && !any; i++)
		any = end_of(relocations, &sites[i - 1]) > sites[i].offset;
	if (!any)
		return 0;
	order = malloc(count * sizeof(*order));
	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		order[i] = &sites[i];
		sites[i].dropped = 1;
	}
	qsort(order, count, sizeof(*order), compare_orders);
	for (size_t i = 0; i < count; i++)
		order[i]->dropped = overlaps_kept(relocations, sites, count,
						  (size_t)(order[i] - sites));
	return 0;
}

/* A first line is one, and nothing comes before it. */
static void drop_late_shebangs(const struct thaw_relocations *relocations,
			       struct site *sites, size_t count)
{
	bool first = true;

	for (size_t i = 0; i < count; i++) {
		if (sites[i].dropped)
			continue;
		if (relocations->rules[sites[i].rule].kind == THAW_RELOCATION_SHEBANG &&
		    !first)
			sites[i].dropped = 1;
		else
			first = false;
	}
}

/* Sort, drop, count what stays. */
static int settle(struct thaw_relocations *relocations, uint32_t *ret_files,
		  uint32_t *ret_sites)
{
	struct site *sites = relocations->sites;
	size_t count = relocations->site_count;

	*ret_files = *ret_sites = 0;
	if (count > 0)
		qsort(sites, count, sizeof(*sites), compare_places);
	for (size_t i = 0, n; i < count; i += n) {
		uint32_t kept = 0;

		for (n = 1; i + n < count && sites[i + n].ino == sites[i].ino;)
			n++;
		if (drop_overlaps(relocations, sites + i, n) < 0)
			return -ENOMEM;
		drop_late_shebangs(relocations, sites + i, n);
		for (size_t j = i; j < i + n; j++)
			kept += !sites[j].dropped;
		*ret_files += kept > 0;
		*ret_sites += kept;
	}
	return 0;
}

static void put_rule(uint8_t *record, const struct rule *rule)
{
	put_le32(record + THAW_RULE_OFF_KIND, rule->kind);
	put_le32(record + THAW_RULE_OFF_PLACEHOLDER, rule->placeholder);
	put_le32(record + THAW_RULE_OFF_PLACEHOLDER_LEN, rule->placeholder_len);
	put_le32(record + THAW_RULE_OFF_SUFFIX, rule->suffix);
	put_le32(record + THAW_RULE_OFF_SUFFIX_LEN, rule->suffix_len);
	put_le32(record + THAW_RULE_OFF_ROOM, rule->room);
}

static void put_sites(const struct thaw_relocations *relocations, uint8_t *files,
		      uint8_t *sites)
{
	uint32_t written = 0, ino = 0;
	uint8_t *file = NULL;

	for (size_t i = 0; i < relocations->site_count; i++) {
		const struct site *site = &relocations->sites[i];

		if (site->dropped)
			continue;
		if (!file || site->ino != ino) {
			file = file ? file + THAW_RELOCATED_SIZE : files;
			ino = site->ino;
			put_le32(file + THAW_RELOCATED_OFF_INO, ino);
			put_le32(file + THAW_RELOCATED_OFF_FIRST, written);
		}
		put_le32(file + THAW_RELOCATED_OFF_SITES,
			 get_le32(file + THAW_RELOCATED_OFF_SITES) + 1);
		put_le64(sites + THAW_SITE_OFF_OFFSET, site->offset);
		put_le32(sites + THAW_SITE_OFF_RULE, site->rule);
		sites += THAW_SITE_SIZE;
		written++;
	}
}

int thaw_relocations_emit(struct thaw_relocations *relocations, struct thaw_error *err,
			  uint8_t **ret_section, size_t *ret_size)
{
	uint32_t files, sites;
	size_t rules_size = relocations->rule_count * THAW_RULE_SIZE, size;
	uint8_t *section, *at;

	if (settle(relocations, &files, &sites) < 0)
		return thaw_oom(err);
	*ret_section = NULL;
	*ret_size = 0;
	if (sites == 0)
		return 0;
	size = THAW_RELOCATIONS_HEADER + rules_size +
	       (size_t)files * THAW_RELOCATED_SIZE + (size_t)sites * THAW_SITE_SIZE +
	       relocations->strings_size;
	section = calloc(1, size);
	if (!section)
		return thaw_oom(err);
	put_le32(section + THAW_RELOCATIONS_OFF_RULES, (uint32_t)relocations->rule_count);
	put_le32(section + THAW_RELOCATIONS_OFF_FILES, files);
	put_le32(section + THAW_RELOCATIONS_OFF_SITES, sites);
	put_le32(section + THAW_RELOCATIONS_OFF_STRINGS,
		 (uint32_t)relocations->strings_size);
	at = section + THAW_RELOCATIONS_HEADER;
	for (size_t i = 0; i < relocations->rule_count; i++, at += THAW_RULE_SIZE)
		put_rule(at, &relocations->rules[i]);
	put_sites(relocations, at, at + (size_t)files * THAW_RELOCATED_SIZE);
	if (relocations->strings_size)
		memcpy(section + size - relocations->strings_size, relocations->strings,
		       relocations->strings_size);
	*ret_section = section;
	*ret_size = size;
	return 0;
}
