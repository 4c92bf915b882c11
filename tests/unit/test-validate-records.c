/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged images: records of the index. */
#include "damage.h"

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

static const struct damage damages[] = {
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

int main(void)
{
	return run_damages("validate-records", damages, ARRAY_SIZE(damages), NULL, 0);
}
