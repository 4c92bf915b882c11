/* SPDX-License-Identifier: Apache-2.0 */
/* The section of relocations: building, reading, and every way in which it may be wrong. */
#include "check.h"

#include "thaw/extract.h"
#include "thaw/relocation.h"
#include "thaw/rewrite.h"
#include "util/bytes.h"

#define SMALL 2u /* "a", 5 bytes, in spec_sample() */
#define LARGE 6u /* "b/e", 5000 bytes */

struct section {
	uint8_t *data;
	size_t size;
};

static struct thaw_relocation_rule rule(enum thaw_relocation_kind kind,
					const char *placeholder, const char *suffix,
					uint32_t room)
{
	return (struct thaw_relocation_rule){
		.kind = kind,
		.placeholder = placeholder,
		.placeholder_len = strlen(placeholder),
		.suffix = suffix,
		.suffix_len = strlen(suffix),
		.room = room,
	};
}

static void add(struct thaw_relocations *relocations, uint32_t ino, uint64_t offset,
		struct thaw_relocation_rule what)
{
	struct thaw_error err = { 0 };

	assert_success(thaw_relocations_add(relocations, ino, offset, &what, &err), &err);
}

static struct section emit(struct thaw_relocations *relocations)
{
	struct thaw_error err = { 0 };
	struct section section;

	assert_success(
		thaw_relocations_emit(relocations, &err, &section.data, &section.size),
		&err);
	return section;
}

/* Two rules; a site in "a", three in "b/e". */
static struct section sample(void)
{
	struct thaw_relocations *relocations;
	struct section section;

	assert_int_equal(thaw_relocations_new(&relocations), 0);
	add(relocations, LARGE, 4000,
	    rule(THAW_RELOCATION_BINARY, "/opt/place", "/lib", 40));
	add(relocations, LARGE, 300, rule(THAW_RELOCATION_TEXT, "/opt", "", 0));
	add(relocations, SMALL, 1, rule(THAW_RELOCATION_TEXT, "/opt", "", 0));
	add(relocations, LARGE, 2,
	    rule(THAW_RELOCATION_SHEBANG, "/env python", "/bin/python", 0));
	assert_int_equal(thaw_relocations_count(relocations), 4);
	section = emit(relocations);
	thaw_relocations_free(relocations);
	return section;
}

/* The sample image with this section; its errno, and the text in err. */
static int open_with(const struct section *section, struct buffer *bytes,
		     struct thaw_error *err, struct thaw_image **ret_image)
{
	struct spec *spec = calloc(1, sizeof(*spec));
	int r;

	spec_sample(spec);
	spec->sections[spec->section_count++] = (struct spec_section){
		THAW_SECTION_RELOCATIONS, 0, section->data, section->size
	};
	spec_build(spec, bytes);
	spec_deinit(spec);
	free(spec);
	r = open_memory(bytes, err, ret_image);
	return r;
}

static void read_back(void **state)
{
	struct section section = sample();
	struct thaw_image *image;
	struct thaw_relocated file;
	struct thaw_site site;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };

	(void)state;
	assert_success(open_with(&section, &bytes, &err, &image), &err);
	assert_int_equal(thaw_image_relocated_count(image), 2);
	assert_int_equal(thaw_image_site_count(image), 4);
	thaw_image_relocated(image, 0, &file);
	assert_int_equal(file.ino, SMALL);
	assert_int_equal(file.sites, 1);
	assert_int_equal(thaw_image_relocated_find(image, 3, &file), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_relocated_find(image, 7, &file), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_relocated_find(image, LARGE, &file), 0);
	assert_int_equal(file.sites, 3);
	thaw_image_site(image, &file, 0, &site);
	assert_int_equal(site.offset, 2);
	assert_int_equal(site.rule.kind, THAW_RELOCATION_SHEBANG);
	assert_memory_equal(site.rule.placeholder, "/env python", 11);
	assert_int_equal(site.rule.placeholder_len, 11);
	thaw_image_site(image, &file, 1, &site);
	assert_int_equal(site.offset, 300);
	assert_int_equal(site.rule.suffix_len, 0);
	thaw_image_site(image, &file, 2, &site);
	assert_int_equal(site.offset, 4000);
	assert_int_equal(site.rule.room, 40);
	assert_memory_equal(site.rule.suffix, "/lib", 4);
	thaw_image_free(image);
	free(section.data);
}

static void none_is_no_section(void **state)
{
	struct thaw_relocations *relocations;
	struct section section;

	(void)state;
	assert_int_equal(thaw_relocations_new(&relocations), 0);
	section = emit(relocations);
	assert_null(section.data);
	assert_int_equal(section.size, 0);
	thaw_relocations_free(relocations);
}

/* Equal rules are stored once, in whatever order they come. */
static void rules_are_shared(void **state)
{
	struct thaw_relocations *relocations;
	struct section section;

	(void)state;
	assert_int_equal(thaw_relocations_new(&relocations), 0);
	for (unsigned i = 0; i < 100; i++)
		add(relocations, LARGE, 10 * i,
		    rule(THAW_RELOCATION_TEXT, i % 2 ? "/one" : "/two", "", 0));
	section = emit(relocations);
	assert_int_equal(get_le32(section.data + THAW_RELOCATIONS_OFF_RULES), 2);
	assert_int_equal(get_le32(section.data + THAW_RELOCATIONS_OFF_SITES), 100);
	free(section.data);
	thaw_relocations_free(relocations);
}

/* Of what overlaps, what was added first stays; a chain loses only what it must. */
static void overlaps(void **state)
{
	struct thaw_relocations *relocations;
	struct thaw_relocated file;
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	struct section section;
	_buffer_ bytes = { 0 };
	static const uint64_t expected[] = { 100, 107, 114, 200 };

	(void)state;
	assert_int_equal(thaw_relocations_new(&relocations), 0);
	add(relocations, LARGE, 107, rule(THAW_RELOCATION_TEXT, "/middle", "", 0));
	add(relocations, LARGE, 103,
	    rule(THAW_RELOCATION_TEXT, "/before", "", 0)); /* goes */
	add(relocations, LARGE, 110,
	    rule(THAW_RELOCATION_TEXT, "/behind", "", 0)); /* goes */
	add(relocations, LARGE, 114, rule(THAW_RELOCATION_TEXT, "/last", "", 0));
	add(relocations, LARGE, 107, rule(THAW_RELOCATION_TEXT, "/m", "", 0)); /* goes */
	add(relocations, LARGE, 100, rule(THAW_RELOCATION_TEXT, "/first7", "", 0));
	add(relocations, LARGE, 200, rule(THAW_RELOCATION_TEXT, "/last", "", 0));
	add(relocations, LARGE, 50, rule(THAW_RELOCATION_SHEBANG, "/late", "", 0));
	add(relocations, LARGE, 40, rule(THAW_RELOCATION_TEXT, "/ahead", "", 0));
	section = emit(relocations);
	assert_success(open_with(&section, &bytes, &err, &image), &err);
	assert_int_equal(thaw_image_relocated_find(image, LARGE, &file), 0);
	/* 40 stays, and the first line behind it is none. */
	assert_int_equal(file.sites, ARRAY_SIZE(expected) + 1);
	for (uint32_t i = 0; i < ARRAY_SIZE(expected); i++) {
		struct thaw_site site;

		thaw_image_site(image, &file, i + 1, &site);
		assert_int_equal(site.offset, expected[i]);
	}
	thaw_image_free(image);
	free(section.data);
	thaw_relocations_free(relocations);
}

static void impossible_sites(void **state)
{
	char *much = calloc(1, THAW_PLACEHOLDER_MAX + 2);
	struct thaw_relocations *relocations;
	struct thaw_error err = { 0 };
	const struct {
		struct thaw_relocation_rule rule;
		uint64_t offset;
	} cases[] = {
		{ rule(THAW_RELOCATION_TEXT, "", "", 0), 0 },
		{ rule(THAW_RELOCATION_TEXT, "/", "", 0), 0 },
		{ rule(THAW_RELOCATION_TEXT, "/opt", "", 1), 0 },
		{ rule(THAW_RELOCATION_BINARY, "/opt", "", 3), 0 },
		{ rule(THAW_RELOCATION_BINARY, "/opt", "", THAW_PLACEHOLDER_MAX + 1), 0 },
		{ rule(THAW_RELOCATION_SHEBANG, "/opt", "", 0), 1 },
		{ rule(THAW_RELOCATION_SHEBANG, "/opt", "", 0), 127 },
		{ rule(4, "/opt", "", 0), 0 },
		{ rule(THAW_RELOCATION_TEXT, memset(much, 'x', THAW_PLACEHOLDER_MAX + 1),
		       "", 0),
		  0 },
		{ rule(THAW_RELOCATION_TEXT, "/opt", much, 0), 0 },
	};

	(void)state;
	assert_int_equal(thaw_relocations_new(&relocations), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(thaw_relocations_add(relocations, 2, cases[i].offset,
						      &cases[i].rule, &err),
				 -EINVAL);
	assert_int_equal(thaw_relocations_count(relocations), 0);
	thaw_relocations_free(relocations);
	free(much);
}

static void too_many_rules(void **state)
{
	struct thaw_relocations *relocations;
	struct thaw_error err = { 0 };
	char text[16];

	(void)state;
	assert_int_equal(thaw_relocations_new(&relocations), 0);
	for (unsigned i = 0; i < THAW_RULES_MAX; i++) {
		(void)snprintf(text, sizeof(text), "/%u", i);
		add(relocations, 2, i, rule(THAW_RELOCATION_TEXT, text, "/", 0));
	}
	/* Known ones still go in. */
	add(relocations, 2, 1, rule(THAW_RELOCATION_TEXT, "/0", "/", 0));
	{
		struct thaw_relocation_rule one = rule(THAW_RELOCATION_TEXT, "/x", "", 0);

		assert_limit(thaw_relocations_add(relocations, 2, 1, &one, &err), &err,
			     "its files name more than 16384 paths");
	}
	thaw_relocations_free(relocations);
}

/* -- damage: the section's bytes are changed, its digests are right -- */

/* rules, files and sites of sample() */
#define RULES 3u
#define RULE(n, field) \
	(THAW_RELOCATIONS_HEADER + (n)*THAW_RULE_SIZE + THAW_RULE_OFF_##field)
#define FILES		    (THAW_RELOCATIONS_HEADER + RULES * THAW_RULE_SIZE)
#define RELOCATED(n, field) (FILES + (n)*THAW_RELOCATED_SIZE + THAW_RELOCATED_OFF_##field)
#define SITES		    (FILES + 2 * THAW_RELOCATED_SIZE)
#define SITE(n, field)	    (SITES + (n)*THAW_SITE_SIZE + THAW_SITE_OFF_##field)

struct damage {
	const char *name;
	size_t offset;
	unsigned width;
	uint64_t value;
	int error;
	const char *text;
};

/* Rules in the order of adding: 0 binary, 1 text, 2 shebang. Sites: 0 of "a", 1..3 of "b/e". */
static const struct damage damages[] = {
	{ "too_many_rules", THAW_RELOCATIONS_OFF_RULES, 4, THAW_RULES_MAX + 1, EFBIG,
	  "it has more relocations than this thaw serves" },
	{ "too_many_sites", THAW_RELOCATIONS_OFF_SITES, 4, THAW_SITES_MAX + 1, EFBIG,
	  "it has more relocations than this thaw serves" },
	{ "one_rule_more", THAW_RELOCATIONS_OFF_RULES, 4, RULES + 1, EBADMSG, "header" },
	{ "wrapping_files", THAW_RELOCATIONS_OFF_FILES, 4, UINT32_MAX, EBADMSG,
	  "header" },
	{ "strings_cut", THAW_RELOCATIONS_OFF_STRINGS, 4, 0, EBADMSG, "header" },
	{ "kind_0", RULE(0, KIND), 4, 0, EBADMSG, "rule 0: unknown kind" },
	{ "kind_6", RULE(2, KIND), 4, 6, EBADMSG, "rule 2: unknown kind" },
	{ "bytecode_of_text", RULE(2, KIND), 4, THAW_RELOCATION_BYTECODE, EBADMSG,
	  "rule 2: no head of bytecode" },
	{ "constants_of_text", RULE(1, KIND), 4, THAW_RELOCATION_CONSTANT, EBADMSG,
	  "site 0: does not belong into its file" },
	{ "placeholder_beyond", RULE(1, PLACEHOLDER), 4, 1000, EBADMSG,
	  "rule 1: strings out of bounds" },
	{ "placeholder_wraps", RULE(1, PLACEHOLDER), 4, UINT32_MAX, EBADMSG,
	  "rule 1: strings out of bounds" },
	{ "placeholder_of_one", RULE(1, PLACEHOLDER_LEN), 4, 1, EBADMSG,
	  "rule 1: strings out of bounds" },
	{ "placeholder_huge", RULE(1, PLACEHOLDER_LEN), 4, THAW_PLACEHOLDER_MAX + 1,
	  EBADMSG, "rule 1: strings out of bounds" },
	{ "suffix_beyond", RULE(0, SUFFIX), 4, 1000, EBADMSG,
	  "rule 0: strings out of bounds" },
	{ "suffix_huge", RULE(0, SUFFIX_LEN), 4, THAW_SUFFIX_MAX + 1, EBADMSG,
	  "rule 0: strings out of bounds" },
	{ "no_room", RULE(0, ROOM), 4, 9, EBADMSG, "rule 0: impossible room" },
	{ "much_room", RULE(0, ROOM), 4, THAW_PLACEHOLDER_MAX + 1, EBADMSG,
	  "rule 0: impossible room" },
	{ "room_in_text", RULE(1, ROOM), 4, 10, EBADMSG, "rule 1: impossible room" },
	{ "no_file", RELOCATED(0, INO), 4, 0, EBADMSG, "file 0: out of order" },
	{ "order_of_files", RELOCATED(0, INO), 4, LARGE, EBADMSG,
	  "file 1: out of order" },
	{ "beyond_the_last_file", RELOCATED(1, INO), 4, 1000, EBADMSG,
	  "file 1: is no regular file" },
	{ "a_directory", RELOCATED(0, INO), 4, 3, EBADMSG, "file 0: is no regular file" },
	{ "a_symlink", RELOCATED(0, INO), 4, 4, EBADMSG, "file 0: is no regular file" },
	{ "a_hard_link", RELOCATED(0, INO), 4, 5, EBADMSG, "file 0: is no regular file" },
	{ "no_sites", RELOCATED(0, SITES), 4, 0, EBADMSG, "file 0: sites out of place" },
	{ "too_many_of_a_file", RELOCATED(1, SITES), 4, UINT32_MAX, EBADMSG,
	  "file 1: sites out of place" },
	{ "too_few_of_a_file", RELOCATED(1, SITES), 4, 2, EBADMSG,
	  "sites without a file" },
	{ "first_site", RELOCATED(1, FIRST), 4, 0, EBADMSG,
	  "file 1: sites out of place" },
	{ "no_such_rule", SITE(0, RULE), 4, RULES, EBADMSG, "site 0: no such rule" },
	{ "reserved", SITE(0, RESERVED), 4, 1, EBADMSG, "site 0: no such rule" },
	{ "site_beyond", SITE(0, OFFSET), 8, 2, EBADMSG, "site 0: not in its file" },
	{ "site_wraps", SITE(0, OFFSET), 8, UINT64_MAX, EBADMSG,
	  "site 0: not in its file" },
	{ "order_of_sites", SITE(3, OFFSET), 8, 250, EBADMSG,
	  "file 1: sites are not in order" },
	{ "overlapping_sites", SITE(3, OFFSET), 8, 303, EBADMSG,
	  "file 1: sites are not in order" },
	{ "shebang_too_early", SITE(1, OFFSET), 8, 1, EBADMSG,
	  "site 1: is in no first line" },
	{ "shebang_too_late", SITE(1, OFFSET), 8, 127, EBADMSG,
	  "site 1: is in no first line" },
	{ "shebang_later", SITE(2, RULE), 4, 2, EBADMSG, "site 2: is in no first line" },
};

static void damaged_section(void **state)
{
	const struct damage *damage = *state;
	struct section section = sample();
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };
	char text[200];

	if (damage->width == 4)
		put_le32(section.data + damage->offset, (uint32_t)damage->value);
	else
		put_le64(section.data + damage->offset, damage->value);
	(void)snprintf(
		text, sizeof(text), "%s%s",
		damage->error == EFBIG ? "" : "damaged: relocations: ", damage->text);
	assert_failure(open_with(&section, &bytes, &err, &image), &err, damage->error,
		       damage->error == EFBIG ? THAW_EXIT_LIMIT : THAW_EXIT_DAMAGED,
		       text);
	free(section.data);
}

/* Every size but the right one. */
static void section_cut(void **state)
{
	struct section section = sample();

	(void)state;
	for (size_t size = 0; size < section.size; size++) {
		struct section cut = { section.data, size };
		struct thaw_error err = { 0 };
		struct thaw_image *image;
		_buffer_ bytes = { 0 };

		assert_damaged(open_with(&cut, &bytes, &err, &image), &err,
			       "damaged: relocations: header");
	}
	free(section.data);
}

/* -- images with relocations, made by packing a conda archive -- */

#define UNPACK_HEAD "#!/usr/bin/env python\n_prefix_records = [\n"

struct packed {
	char *directory, *path;
	struct thaw_image *image;
};

static void open_packed(struct packed *packed)
{
	struct thaw_error err = { 0 };

	packed->image = thaw_image_free(packed->image);
	assert_success(open_path(packed->path, &err, &packed->image), &err);
}

static int setup(void **state)
{
	struct packed *packed = calloc(1, sizeof(*packed));
	struct thaw_pack_options options = { .level = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	_buffer_ tar = { 0 };

	packed->directory = make_directory();
	packed->path = join_path(packed->directory, "image");
	tar_text(&tar, "bin/conda-unpack",
		 UNPACK_HEAD "('m/one.py', '/build/env', 'text'),\n"
			     "('m/two.bin', '/build/env', 'binary'),\n"
			     "('z/gone', '/build/env', 'text')\n]\n");
	tar_text(&tar, "conda-meta/history", "");
	tar_text(&tar, "m/one.py", "P = '/build/env/share'\n");
	tar_file(&tar, "m/two.bin", "xx/build/env/lib\0yy", 19);
	tar_text(&tar, "z/gone", "/build/env\n");
	tar_end(&tar);
	assert_success(pack_bytes(&tar, packed->path, &options, &err, &report), &err);
	open_packed(packed);
	*state = packed;
	return 0;
}

static int teardown(void **state)
{
	struct packed *packed = *state;

	thaw_image_free(packed->image);
	remove_directory(packed->directory);
	free(packed->path);
	free(packed);
	return 0;
}

static uint32_t sites_of(const struct packed *packed, const char *path,
			 struct thaw_site *first)
{
	struct thaw_relocated file;
	struct thaw_inode inode;

	assert_int_equal(thaw_image_find(packed->image, path, &inode), 0);
	if (thaw_image_relocated_find(packed->image, inode.ino, &file) != 0)
		return 0;
	thaw_image_site(packed->image, &file, 0, first);
	return file.sites;
}

/* Inode numbers change; what stands at a path does not. */
static void rewriting_carries_them(void **state)
{
	struct packed *packed = *state;
	static const uint8_t data[] = "new";
	const struct thaw_addition additions[] = {
		{ "a/first", data, 3, 1 },
		{ "z/gone", data, 3, 1 },
	};
	struct thaw_rewrite what = {
		.force = true,
		.additions = additions,
		.addition_count = 2,
	};
	struct thaw_image_info info;
	struct thaw_error err = { 0 };
	struct thaw_inode before, after;
	struct thaw_site site;

	assert_int_equal(thaw_image_relocated_count(packed->image), 3);
	assert_int_equal(thaw_image_find(packed->image, "m/two.bin", &before), 0);
	assert_success(thaw_rewrite(packed->image, packed->path, &what, &err, &info),
		       &err);
	open_packed(packed);
	assert_int_equal(thaw_image_find(packed->image, "m/two.bin", &after), 0);
	assert_int_not_equal(before.ino, after.ino);
	assert_int_equal(thaw_image_relocated_count(packed->image), 2);
	assert_int_equal(sites_of(packed, "m/one.py", &site), 1);
	assert_int_equal(site.offset, 5);
	assert_int_equal(sites_of(packed, "m/two.bin", &site), 1);
	assert_int_equal(site.offset, 2);
	assert_int_equal(site.rule.kind, THAW_RELOCATION_BINARY);
	assert_int_equal(sites_of(packed, "z/gone", &site), 0);
}

static void count_fault(void *userdata, const char *fault)
{
	if (strstr(fault, "relocations"))
		(*(unsigned *)userdata)++;
}

static void verifying_looks_at_the_files(void **state)
{
	struct packed *packed = *state;
	struct thaw_verify_result result;
	struct thaw_error err = { 0 };
	unsigned faults = 0;

	assert_success(
		thaw_verify(packed->image, NULL, count_fault, &faults, &err, &result),
		&err);
	assert_int_equal(result.sites, 3);
	assert_int_equal(result.bad_sites, 0);
	assert_int_equal(faults, 0);
}

/* Nothing of what sample() says stands in the files of spec_sample(). */
static void verifying_finds_lies(void **state)
{
	struct section section = sample();
	struct thaw_verify_result result;
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	unsigned faults = 0;
	_buffer_ bytes = { 0 };

	(void)state;
	assert_success(open_with(&section, &bytes, &err, &image), &err);
	assert_success(thaw_verify(image, NULL, count_fault, &faults, &err, &result),
		       &err);
	assert_int_equal(result.sites, 4);
	assert_int_equal(result.bad_sites, 4);
	assert_int_equal(faults, 4);
	thaw_image_free(image);
	free(section.data);
}

int main(void)
{
	const struct CMUnitTest others[] = {
		cmocka_unit_test(read_back),
		cmocka_unit_test(none_is_no_section),
		cmocka_unit_test(rules_are_shared),
		cmocka_unit_test(overlaps),
		cmocka_unit_test(impossible_sites),
		cmocka_unit_test(too_many_rules),
		cmocka_unit_test(section_cut),
		cmocka_unit_test_setup_teardown(rewriting_carries_them, setup, teardown),
		cmocka_unit_test_setup_teardown(verifying_looks_at_the_files, setup,
						teardown),
		cmocka_unit_test(verifying_finds_lies),
	};
	struct CMUnitTest tests[ARRAY_SIZE(others) + ARRAY_SIZE(damages)];

	memcpy(tests, others, sizeof(others));
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		tests[ARRAY_SIZE(others) + i] = (struct CMUnitTest){
			.name = damages[i].name,
			.test_func = damaged_section,
			.initial_state = (void *)&damages[i],
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
