/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the places of paths in bytecode, and replacing them: see thaw/bytecode.h. */
#include "thaw/bytecode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "marshal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define RULES_MAX    16u	  /* a file comes from one package */
#define RENDERED_MAX (256u << 20) /* of a .pyc, which is in memory */

/* -- sources -- */

struct text {
	char *data;
	size_t size, capacity;
};

static int append(struct text *text, const char *data, size_t len)
{
	if (grow(&text->data, &text->capacity, text->size + len + 1, 1) < 0)
		return -ENOMEM;
	memcpy(text->data + text->size, data, len);
	text->size += len;
	return 0;
}

/* The bytes from *at to the site, and what stands there then. */
static int replace(struct text *text, const char *source, size_t *at,
		   const struct thaw_site *site, const char *prefix)
{
	size_t offset = (size_t)site->offset;
	int r = append(text, source + *at, offset - *at);

	if (r == 0)
		r = append(text, prefix, strlen(prefix));
	if (r == 0)
		r = append(text, site->rule.suffix, site->rule.suffix_len);
	*at = offset + site->rule.placeholder_len;
	return r;
}

int thaw_bytecode_source(const struct thaw_image *image, struct thaw_reader *reader,
			 uint32_t ino, const char *prefix, struct thaw_error *err,
			 char **ret_text, size_t *ret_size)
{
	_cleanup_(freep) char *source = NULL;
	struct thaw_relocated file;
	struct thaw_inode inode;
	struct text text = { 0 };
	size_t n = 0, at = 0;
	int r;

	if (thaw_image_inode(image, ino, &inode) < 0 ||
	    inode.size > THAW_BYTECODE_SIZE_MAX ||
	    thaw_image_relocated_find(image, ino, &file) != 0)
		return THAW_NOT_FOUND;
	source = malloc(inode.size + 1);
	if (!source)
		return thaw_oom(err);
	r = thaw_reader_read(reader, &inode, 0, source, inode.size, err, &n);
	if (r < 0)
		return r;
	for (uint32_t i = 0; r == 0 && i < file.sites; i++) {
		struct thaw_site site;

		thaw_image_site(image, &file, i, &site);
		if (site.rule.kind == THAW_RELOCATION_SHEBANG)
			continue;
		if (site.rule.kind != THAW_RELOCATION_TEXT)
			r = THAW_NOT_FOUND;
		else if (memcmp(source + site.offset, site.rule.placeholder,
				site.rule.placeholder_len) != 0)
			r = thaw_damaged(err, "its relocations do not fit it");
		else if (prefix)
			r = replace(&text, source, &at, &site, prefix);
	}
	if (r == 0)
		r = append(&text, source + at, n - at);
	if (r == -ENOMEM)
		r = thaw_oom(err);
	if (r != 0) {
		free(text.data);
		return r;
	}
	*ret_text = text.data;
	*ret_size = text.size;
	return 0;
}

/* -- finding sites -- */

struct search {
	const uint8_t *pyc;
	struct thaw_relocation_rule rules[RULES_MAX];
	size_t rule_count;
	struct {
		size_t at, rule;
	} *found;
	size_t count, capacity;
};

static bool same_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
	return a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

/* What is replaced in the source; false: by too many rules. */
static bool find_rules(const struct thaw_image *image, const struct thaw_relocated *file,
		       struct search *search)
{
	for (uint32_t i = 0; i < file->sites; i++) {
		struct thaw_site site;
		size_t j = 0;

		thaw_image_site(image, file, i, &site);
		if (site.rule.kind != THAW_RELOCATION_TEXT)
			continue;
		while (j < search->rule_count &&
		       !(same_bytes(search->rules[j].placeholder,
				    search->rules[j].placeholder_len,
				    site.rule.placeholder, site.rule.placeholder_len) &&
			 same_bytes(search->rules[j].suffix, search->rules[j].suffix_len,
				    site.rule.suffix, site.rule.suffix_len)))
			j++;
		if (j < search->rule_count)
			continue;
		if (j == RULES_MAX)
			return false;
		site.rule.kind = THAW_RELOCATION_CONSTANT;
		search->rules[search->rule_count++] = site.rule;
	}
	return true;
}

static int look(void *userdata, size_t at, const struct marshal_string *string,
		bool constant)
{
	struct search *search = userdata;
	size_t rule = SIZE_MAX;

	for (size_t i = 0; i < search->rule_count; i++) {
		if (!memmem(search->pyc + string->text, string->len,
			    search->rules[i].placeholder,
			    search->rules[i].placeholder_len))
			continue;
		/* Two of them would have to be told apart, and a name is no text. */
		if (rule != SIZE_MAX || !constant)
			return THAW_NOT_FOUND;
		rule = i;
	}
	if (rule == SIZE_MAX)
		return 0;
	if (grow(&search->found, &search->capacity, search->count + 1,
		 sizeof(*search->found)) < 0)
		return -ENOMEM;
	search->found[search->count].at = at;
	search->found[search->count++].rule = rule;
	return 0;
}

/* The sites, and behind them the strings that their rules point to. */
static int make_sites(const struct search *search, struct thaw_site **ret_sites)
{
	size_t size = (search->count + 1) * sizeof(struct thaw_site);
	size_t strings = THAW_BYTECODE_HEAD;
	struct thaw_relocation_rule rules[RULES_MAX];
	struct thaw_site *sites;
	char *at;

	for (size_t i = 0; i < search->rule_count; i++)
		strings += search->rules[i].placeholder_len + search->rules[i].suffix_len;
	sites = malloc(size + strings);
	if (!sites)
		return -ENOMEM;
	at = (char *)sites + size;
	memcpy(at, search->pyc, THAW_BYTECODE_HEAD);
	sites[0] = (struct thaw_site){
		.rule = {
			.kind = THAW_RELOCATION_BYTECODE,
			.placeholder = at,
			.placeholder_len = THAW_BYTECODE_HEAD,
			.suffix = "",
		},
	};
	at += THAW_BYTECODE_HEAD;
	for (size_t i = 0; i < search->rule_count; i++) {
		rules[i] = search->rules[i];
		rules[i].placeholder = memcpy(at, search->rules[i].placeholder,
					      rules[i].placeholder_len);
		at += rules[i].placeholder_len;
		rules[i].suffix = rules[i].suffix_len ? memcpy(at, search->rules[i].suffix,
							       rules[i].suffix_len)
						      : "";
		at += rules[i].suffix_len;
	}
	for (size_t i = 0; i < search->count; i++)
		sites[i + 1] = (struct thaw_site){
			.offset = search->found[i].at,
			.rule = rules[search->found[i].rule],
		};
	*ret_sites = sites;
	return 0;
}

int thaw_bytecode_sites(const struct thaw_image *image, uint32_t source,
			const uint8_t *pyc, size_t size, struct thaw_site **ret_sites,
			size_t *ret_count)
{
	struct search search = { .pyc = pyc };
	struct thaw_relocated file;
	int r;

	if (size <= PYC_HEADER || size > THAW_BYTECODE_SIZE_MAX ||
	    get_le32(pyc + 4) != PYC_UNCHECKED ||
	    thaw_image_relocated_find(image, source, &file) != 0 ||
	    !find_rules(image, &file, &search))
		return THAW_NOT_FOUND;
	r = marshal_walk(pyc, size, look, &search);
	if (r == 0)
		r = make_sites(&search, ret_sites);
	if (r == 0)
		*ret_count = search.count + 1;
	free(search.found);
	return r;
}

/* -- rendering -- */

/* A string that is replaced, and what it becomes. */
struct change {
	size_t at;
	struct marshal_string old, new; /* of new: type and length */
	struct thaw_relocation_rule rule;
};

struct output {
	uint8_t *data; /* NULL: only how much there will be */
	uint64_t used;
};

static void put(struct output *output, const void *data, size_t len)
{
	if (output->data && len > 0)
		memcpy(output->data + output->used, data, len);
	output->used += len;
}

static size_t count_high(const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += p[i] >> 7;
	return count;
}

static size_t count_hits(const uint8_t *text, size_t len,
			 const struct thaw_relocation_rule *rule)
{
	const uint8_t *end = text + len, *hit;
	size_t count = 0;

	while ((hit = memmem(text, (size_t)(end - text), rule->placeholder,
			     rule->placeholder_len)) != NULL) {
		text = hit + rule->placeholder_len;
		count++;
	}
	return count;
}

/* The type that CPython writes for such a string. */
static uint8_t choose_type(uint8_t old, bool ascii, uint64_t len)
{
	bool interned = old == MARSHAL_INTERNED || old == MARSHAL_ASCII_INTERNED ||
			old == MARSHAL_SHORT_ASCII_INTERNED;

	if (old == MARSHAL_BYTES)
		return old;
	if (!ascii)
		return interned ? MARSHAL_INTERNED : MARSHAL_UNICODE;
	if (len < MARSHAL_SHORT)
		return interned ? MARSHAL_SHORT_ASCII_INTERNED : MARSHAL_SHORT_ASCII;
	return interned ? MARSHAL_ASCII_INTERNED : MARSHAL_ASCII;
}

/* What the site's string becomes; false: no such string stands there. */
static bool measure(const uint8_t *pyc, size_t size, const struct thaw_site *site,
		    const char *prefix, size_t prefix_len, struct change *ret_change)
{
	const struct thaw_relocation_rule *rule = &site->rule;
	struct change change = { .at = (size_t)site->offset, .rule = *rule };
	size_t hits, high;
	uint64_t len;

	if (site->offset > size ||
	    !marshal_string(pyc, size, change.at, &change.old))
		return false;
	hits = count_hits(pyc + change.old.text, change.old.len, rule);
	if (hits == 0)
		return false;
	/* At most half the text's bytes, each of 8 KiB: no overflow. */
	len = change.old.len - (uint64_t)hits * rule->placeholder_len +
	      (uint64_t)hits * (prefix_len + rule->suffix_len);
	if (len > RENDERED_MAX)
		return false;
	high = count_high(pyc + change.old.text, change.old.len) -
	       hits * count_high(rule->placeholder, rule->placeholder_len) +
	       hits * (count_high(prefix, prefix_len) +
		       count_high(rule->suffix, rule->suffix_len));
	change.new.type = choose_type(change.old.type, high == 0, len);
	change.new.len = (size_t)len;
	*ret_change = change;
	return true;
}

static void put_change(struct output *output, const uint8_t *pyc,
		       const struct change *change, const char *prefix, size_t prefix_len)
{
	const struct thaw_relocation_rule *rule = &change->rule;
	const uint8_t *text = pyc + change->old.text, *end = text + change->old.len, *hit;
	bool is_short = change->new.type == MARSHAL_SHORT_ASCII ||
			change->new.type == MARSHAL_SHORT_ASCII_INTERNED;
	uint8_t head[5] = { (uint8_t)(change->new.type |
				      (change->old.ref ? MARSHAL_REF : 0)) };

	put_le32(head + 1, (uint32_t)change->new.len); /* its first byte is a short one's */
	put(output, head, is_short ? 2 : 5);
	if (!output->data) {
		output->used += change->new.len;
		return;
	}
	while ((hit = memmem(text, (size_t)(end - text), rule->placeholder,
			     rule->placeholder_len)) != NULL) {
		put(output, text, (size_t)(hit - text));
		put(output, prefix, prefix_len);
		put(output, rule->suffix, rule->suffix_len);
		text = hit + rule->placeholder_len;
	}
	put(output, text, (size_t)(end - text));
}

static void get_site(const struct thaw_bytecode_sites *sites, size_t number,
		     struct thaw_site *ret_site)
{
	if (sites->image)
		thaw_image_site(sites->image, &sites->file, (uint32_t)number, ret_site);
	else
		*ret_site = sites->array[number];
}

static int write_all_of_it(const uint8_t *pyc, size_t size,
			   const struct thaw_bytecode_sites *sites, const char *prefix,
			   struct output *output)
{
	size_t count = sites->image ? sites->file.sites : sites->count;
	size_t prefix_len = strlen(prefix), at = PYC_HEADER;

	put(output, pyc, PYC_HEADER);
	for (size_t i = 1; i < count; i++) {
		struct thaw_site site;
		struct change change;

		get_site(sites, i, &site);
		if (site.rule.kind != THAW_RELOCATION_CONSTANT || site.offset < at ||
		    !measure(pyc, size, &site, prefix, prefix_len, &change))
			return -EBADMSG;
		put(output, pyc + at, change.at - at);
		put_change(output, pyc, &change, prefix, prefix_len);
		if (output->used > RENDERED_MAX)
			return -EBADMSG;
		at = change.old.text + change.old.len;
	}
	put(output, pyc + at, size - at);
	return 0;
}

int thaw_bytecode_render(const uint8_t *pyc, size_t size,
			 const struct thaw_bytecode_sites *sites, const char *prefix,
			 uint8_t **ret_data, size_t *ret_size)
{
	struct output output = { 0 };
	struct thaw_site first;
	int r;

	get_site(sites, 0, &first);
	if (size <= PYC_HEADER || size > THAW_BYTECODE_SIZE_MAX ||
	    first.rule.kind != THAW_RELOCATION_BYTECODE || first.offset != 0 ||
	    first.rule.placeholder_len != THAW_BYTECODE_HEAD ||
	    memcmp(pyc, first.rule.placeholder, THAW_BYTECODE_HEAD) != 0)
		return -EBADMSG;
	r = write_all_of_it(pyc, size, sites, prefix, &output);
	if (r < 0)
		return r;
	output.data = malloc(output.used);
	if (!output.data)
		return -ENOMEM;
	output.used = 0;
	r = write_all_of_it(pyc, size, sites, prefix, &output);
	if (r < 0) {
		free(output.data);
		return r;
	}
	*ret_data = output.data;
	*ret_size = (size_t)output.used;
	return 0;
}

bool thaw_is_bytecode(const struct thaw_image *image, const struct thaw_relocated *file)
{
	struct thaw_site first;

	thaw_image_site(image, file, 0, &first);
	return first.rule.kind == THAW_RELOCATION_BYTECODE;
}

/* Bytes of the UTF-8 character at text, which ends with a NUL; 0: it is none. */
static size_t utf8_length(const uint8_t *text)
{
	uint32_t c = text[0];
	size_t len = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 :
		     c >= 0xF0 && c < 0xF5				     ? 4 : 0;

	for (size_t i = 1; i < len; i++)
		if ((text[i] & 0xC0) != 0x80)
			return 0;
	/* Longer than need be, surrogates, beyond the last. */
	if ((c == 0xE0 && text[1] < 0xA0) || (c == 0xED && text[1] > 0x9F) ||
	    (c == 0xF0 && text[1] < 0x90) || (c == 0xF4 && text[1] > 0x8F))
		return 0;
	return len;
}

bool thaw_bytecode_prefix(const char *prefix)
{
	const uint8_t *text = (const uint8_t *)prefix;

	while (*text) {
		size_t len = utf8_length(text);

		if (len == 0 || *text < 0x20 || *text == 0x7F ||
		    strchr("'\"\\{}%", *text))
			return false;
		text += len;
	}
	return true;
}
