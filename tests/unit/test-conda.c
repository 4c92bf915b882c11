/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What conda environments say about their files, and where it stands in them.
 * The oracle for the latter is conda-unpack's own way, written out here: replace
 * in the whole file, record after record.
 */
#include "check.h"
#include "failing-malloc.h"

#include "conda.h"
#include "thaw/extract.h"
#include "thaw/reader.h"

/* -- the list in bin/conda-unpack -- */

struct seen {
	unsigned count;
	struct {
		char path[200], placeholder[200];
		size_t path_len, placeholder_len;
		bool binary;
	} records[16];
};

static int note(void *userdata, const struct thaw_conda_record *record,
		struct thaw_error *err)
{
	struct seen *seen = userdata;

	(void)err;
	if (seen->count < ARRAY_SIZE(seen->records)) {
		memcpy(seen->records[seen->count].path, record->path, record->path_len);
		memcpy(seen->records[seen->count].placeholder, record->placeholder,
		       record->placeholder_len);
		seen->records[seen->count].path_len = record->path_len;
		seen->records[seen->count].placeholder_len = record->placeholder_len;
		seen->records[seen->count].binary = record->binary;
	}
	seen->count++;
	return 0;
}

static int parse(const char *script, struct seen *seen, struct thaw_error *err,
		 struct thaw_conda_list *list)
{
	/* Its own allocation, without a NUL: a read beyond the end is seen. */
	size_t size = strlen(script);
	char *copy = malloc(size ? size : 1);
	int r;

	memcpy(copy, script, size);
	r = thaw_conda_records(copy, size, note, seen, err, list);
	free(copy);
	return r;
}

static void record_is(const struct seen *seen, unsigned number, const char *path,
		      const char *placeholder, bool binary)
{
	assert_true(number < seen->count);
	assert_string_equal(seen->records[number].path, path);
	assert_int_equal(seen->records[number].path_len, strlen(path));
	assert_string_equal(seen->records[number].placeholder, placeholder);
	assert_int_equal(seen->records[number].placeholder_len, strlen(placeholder));
	assert_int_equal(seen->records[number].binary, binary);
}

static void comma_behind(void **state)
{
	static const char script[] =
		"#!/usr/bin/env python\n"
		"import re\n"
		"def f(_prefix_records=[]):\n"
		"    pass\n"
		"\n"
		"_prefix_records = [\n"
		"('bin/pip', '/opt/env', 'text'),\n"
		"(\"it's\", '/opt/env', 'binary'),\n"
		"('\\'both\\' \"', '/a\\\\b\\tc\\nd\\re', 'text'),\n"
		"( 'a\\x7fb\\xe9\\u20ac\\U0001f40d' ,\n\t\"/opt\" , 'text' , ) , \n"
		"('n\\udce9', '/opt/env', 'text'),\n"
		"(u'old', u'/opt/env', u'text')\n"
		"]\n"
		"\n"
		"if __name__ == '__main__':\n"
		"    for path in _prefix_records:\n"
		"        pass\n";
	struct thaw_conda_list list;
	struct thaw_error err = { 0 };
	struct seen seen = { 0 };

	(void)state;
	/* A comma behind the third string is none that repr() writes. */
	assert_refused(
		parse(script, &seen, &err, &list), &err,
		"bin/conda-unpack: line 11: a record that is no tuple of three strings");
}

static void all_literals(void **state)
{
	static const char script[] =
		"_prefix_records = [\n"
		"('bin/pip', '/opt/env', 'text'),\n"
		"(\"it's\", '/opt/env', 'binary'),\n"
		"('\\'both\\' \"', '/a\\\\b\\tc\\nd\\re', 'text'),\n"
		"( 'a\\x7fb\\xe9\\u20ac\\U0001f40d' ,\n\t\"/opt\" , 'text' ) , \n"
		"('n\\udce9', '/opt/env', 'text'),\n"
		"(u'old', u'/opt/env', u'text'),\n"
		"] \r\n"
		"_prefix_records_of_others = [evil()]\n";
	struct thaw_conda_list list;
	struct thaw_error err = { 0 };
	struct seen seen = { 0 };

	(void)state;
	assert_success(parse(script, &seen, &err, &list), &err);
	assert_int_equal(list.records, 6);
	assert_int_equal(script[list.start - 1], '[');
	assert_int_equal(script[list.end], ']');
	assert_int_equal(seen.count, 6);
	record_is(&seen, 0, "bin/pip", "/opt/env", false);
	record_is(&seen, 1, "it's", "/opt/env", true);
	record_is(&seen, 2, "'both' \"", "/a\\b\tc\nd\re", false);
	record_is(&seen, 3,
		  "a\x7f"
		  "b\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x8d",
		  "/opt", false);
	/* A byte that is no UTF-8, as Python keeps it. */
	record_is(&seen, 4, "n\xe9", "/opt/env", false);
	record_is(&seen, 5, "old", "/opt/env", false);
}

static void empty_list(void **state)
{
	struct thaw_conda_list list;
	struct thaw_error err = { 0 };
	struct seen seen = { 0 };

	(void)state;
	assert_success(parse("x\n_prefix_records=[]", &seen, &err, &list), &err);
	assert_int_equal(list.records, 0);
	assert_int_equal(list.start, list.end);
}

#define LIST(what) "_prefix_records = [\n" what "]\n"
#define RECORD	   "('a', '/opt/env', 'text')"

static const struct {
	const char *name, *script, *text;
} refused[] = {
	{ "no_list", "print('hello')\n", "has no _prefix_records" },
	{ "nothing", "", "has no _prefix_records" },
	{ "longer_name", "_prefix_records2 = []\n", "has no _prefix_records" },
	{ "indented", "if 1:\n _prefix_records = []\n", "has no _prefix_records" },
	{ "call", "_prefix_records = load()\n", "line 1: no list of records" },
	{ "annotated", "_prefix_records: list = []\n", "line 1: no list of records" },
	{ "added_to", "_prefix_records += []\n", "line 1: no list of records" },
	{ "tuple", "_prefix_records = ()\n", "line 1: no list of records" },
	{ "two_lists", LIST(RECORD) "_prefix_records = []\n",
	  "has two lists of records" },
	{ "something_behind", "_prefix_records = [] + evil()\n",
	  "line 1: something behind the list of records" },
	{ "comment_behind", "_prefix_records = [] # x\n",
	  "line 1: something behind the list of records" },
	{ "no_end", "_prefix_records = [\n" RECORD ",\n",
	  "line 3: something that is no record" },
	{ "expression", LIST("__import__('os').system('id'),\n"),
	  "line 2: something that is no record" },
	{ "comprehension", LIST(RECORD " for x in y\n"),
	  "line 2: something that is no record" },
	{ "sum", LIST(RECORD " + " RECORD "\n"), "line 2: something that is no record" },
	{ "two_commas", LIST(RECORD ",,\n"), "line 2: something that is no record" },
	{ "comment", LIST("# nothing\n"), "line 2: something that is no record" },
	{ "string_as_record", LIST("'abc',\n"), "line 2: something that is no record" },
	{ "list_as_record", LIST("['a', '/opt/env', 'text'],\n"),
	  "line 2: something that is no record" },
	{ "call_in_record", LIST("('a', open('/etc/passwd').read(), 'text'),\n"),
	  "line 2: something that is no string literal" },
	{ "none", LIST("('a', None, 'text'),\n"),
	  "line 2: something that is no string literal" },
	{ "number", LIST("(1, '/opt', 'text'),\n"),
	  "line 2: something that is no string literal" },
	{ "bytes", LIST("(b'a', '/opt', 'text'),\n"),
	  "line 2: something that is no string literal" },
	{ "raw", LIST("(r'a', '/opt', 'text'),\n"),
	  "line 2: something that is no string literal" },
	{ "format", LIST("(f'{evil()}', '/opt', 'text'),\n"),
	  "line 2: something that is no string literal" },
	{ "two", LIST("('a', '/opt'),\n"),
	  "line 2: a record that is no tuple of three strings" },
	{ "four", LIST("('a', '/opt', 'text', 'x'),\n"),
	  "line 2: a record that is no tuple of three strings" },
	{ "concatenation", LIST("('a' 'b', '/opt', 'text'),\n"),
	  "line 2: a record that is no tuple of three strings" },
	{ "triple_quotes", LIST("('''a''', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "subscript", LIST("('a'[0], '/opt', 'text'),\n"),
	  "line 2: a record that is no tuple of three strings" },
	{ "no_path", LIST("('', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "absolute", LIST("('/etc/passwd', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "dots", LIST("('a/../../etc/passwd', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "only_dots", LIST("('..', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "hidden_dots", LIST("('a/\\x2e\\x2e/b', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "dot", LIST("('a/./b', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "empty_component", LIST("('a//b', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "slash_at_end", LIST("('a/', '/opt', 'text'),\n"),
	  "line 2: a path that does not stay inside, or is none" },
	{ "empty_placeholder", LIST("('a', '', 'text'),\n"),
	  "line 2: a placeholder of less than two bytes" },
	{ "short_placeholder", LIST("('a', '/', 'text'),\n"),
	  "line 2: a placeholder of less than two bytes" },
	{ "other_mode", LIST("('a', '/opt', 'unknown'),\n"),
	  "line 2: a mode that is neither text nor binary" },
	{ "mode_cut", LIST("('a', '/opt', 'tex'),\n"),
	  "line 2: a mode that is neither text nor binary" },
	{ "mode_long", LIST("('a', '/opt', 'textbinarytextbinary'),\n"),
	  "line 2: a string that is too long" },
	{ "open_string", LIST("('a, '/opt', 'text'),\n"),
	  "line 2: a record that is no tuple of three strings" },
	{ "line_in_string", LIST("('a\n', '/opt', 'text'),\n"),
	  "line 2: a string without an end" },
	{ "nul_escaped", LIST("('a\\x00', '/opt', 'text'),\n"),
	  "line 2: an impossible character" },
	{ "octal", LIST("('a\\000', '/opt', 'text'),\n"),
	  "line 2: an escape that repr() does not write" },
	{ "named", LIST("('a\\N{DIGIT ONE}', '/opt', 'text'),\n"),
	  "line 2: an escape that repr() does not write" },
	{ "continued", LIST("('a\\\n', '/opt', 'text'),\n"),
	  "line 2: an escape that repr() does not write" },
	{ "hex_cut", LIST("('a\\x1', '/opt', 'text'),\n"),
	  "line 2: an escape that repr() does not write" },
	{ "surrogate", LIST("('a\\ud800', '/opt', 'text'),\n"),
	  "line 2: an impossible character" },
	{ "beyond_unicode", LIST("('a\\U00110000', '/opt', 'text'),\n"),
	  "line 2: an impossible character" },
	{ "ends_in_escape", "_prefix_records = [('a\\",
	  "line 1: an escape that repr() does not write" },
	{ "ends_in_string", "_prefix_records = [('a", "line 1: a string without an end" },
	{ "ends_in_name", "_prefix_records", "line 1: no list of records" },
};

static void refused_list(void **state)
{
	unsigned number = (unsigned)(uintptr_t)*state;
	struct thaw_conda_list list;
	struct thaw_error err = { 0 };
	struct seen seen = { 0 };
	char text[200];

	(void)snprintf(text, sizeof(text), "bin/conda-unpack: %s", refused[number].text);
	/* Lines end where the fault is seen: behind an escaped one there is one more. */
	assert_int_equal(parse(refused[number].script, &seen, &err, &list), -EPERM);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	if (strcmp(refused[number].name, "continued") == 0)
		assert_non_null(strstr(err.text, "an escape that repr() does not write"));
	else
		assert_string_equal(err.text, text);
}

/* Every prefix of a sound script: an error, or the same records. */
static void cut_anywhere(void **state)
{
	static const char script[] =
		"_prefix_records = [\n('a\\u20ac', \"/opt\", 'text'),\n" RECORD
		"\n]\nmore\n";

	(void)state;
	for (size_t size = 0; size < strlen(script); size++) {
		struct thaw_conda_list list;
		struct thaw_error err = { 0 };
		struct seen seen = { 0 };
		char *cut = strndup(script, size);
		int r = parse(cut, &seen, &err, &list);

		assert_true(r == -EPERM || (r == 0 && seen.count == 2));
		free(cut);
	}
}

static void too_many_records(void **state)
{
	struct thaw_conda_list list;
	struct thaw_error err = { 0 };
	_buffer_ script = { 0 };
	unsigned count = THAW_CONDA_RECORDS_MAX;

	(void)state;
	buffer_add(&script, "_prefix_records = [", 19);
	for (unsigned i = 0; i < count; i++)
		buffer_add(&script, RECORD ",", strlen(RECORD) + 1);
	buffer_add(&script, "]", 1);
	assert_success(thaw_conda_records((char *)script.data, script.size, NULL, NULL,
					  &err, &list),
		       &err);
	assert_int_equal(list.records, count);
	script.size--;
	buffer_add(&script, RECORD "]", strlen(RECORD) + 1);
	assert_refused(thaw_conda_records((char *)script.data, script.size, NULL, NULL,
					  &err, &list),
		       &err, "bin/conda-unpack: more than 500000 records");
}

/* -- what stands where -- */

struct world {
	char *directory, *path;
	struct buffer tar;
	struct thaw_image *image;
	struct thaw_reader *reader;
};

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	world->directory = make_directory();
	world->path = join_path(world->directory, "image");
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	thaw_reader_free(world->reader);
	thaw_image_free(world->image);
	buffer_deinit(&world->tar);
	remove_directory(world->directory);
	free(world->path);
	free(world);
	return 0;
}

static int pack(struct world *world, struct thaw_error *err)
{
	struct thaw_pack_options options = { .level = 1, .frame_size = 16384 };
	struct thaw_pack_report report;
	struct thaw_source *source;
	int r;

	tar_end(&world->tar);
	r = pack_bytes(&world->tar, world->path, &options, err, &report);
	if (r < 0)
		return r;
	assert_success(thaw_source_open(world->path, err, &source), err);
	assert_success(thaw_image_open(source, err, &world->image), err);
	assert_int_equal(thaw_reader_new(world->image, 0, &world->reader), 0);
	return 0;
}

/* Find all sites anew, with these options. */
static struct thaw_conda_report analyse(struct world *world,
					const struct thaw_conda_options *options)
{
	struct thaw_relocations *relocations;
	struct thaw_conda_report report;
	struct thaw_error err = { 0 };

	assert_int_equal(thaw_relocations_new(&relocations), 0);
	assert_success(thaw_conda_relocations(world->image, world->reader, relocations,
					      options, &err, &report),
		       &err);
	thaw_relocations_free(relocations);
	return report;
}

/* conda-unpack, in the words of its prefixes.py. */
static void replace_text(struct buffer *data, const char *placeholder, const char *prefix)
{
	struct buffer result = { 0 };
	size_t len = strlen(placeholder);

	for (size_t i = 0; i < data->size;) {
		if (data->size - i >= len &&
		    memcmp(data->data + i, placeholder, len) == 0) {
			buffer_add(&result, prefix, strlen(prefix));
			i += len;
		} else {
			buffer_add(&result, data->data + i++, 1);
		}
	}
	buffer_deinit(data);
	*data = result;
}

/* re.sub(re.escape(placeholder) + b'([^\0]*?)\0', replace, data) */
static void replace_binary(struct buffer *data, const char *placeholder,
			   const char *prefix)
{
	struct buffer result = { 0 };
	size_t len = strlen(placeholder);

	for (size_t i = 0; i < data->size;) {
		const uint8_t *nul = data->size - i > len
					     ? memchr(data->data + i + len, '\0',
						      data->size - i - len)
					     : NULL;

		if (nul && memcmp(data->data + i, placeholder, len) == 0) {
			struct buffer match = { 0 };
			size_t size = (size_t)(nul + 1 - (data->data + i));

			buffer_add(&match, data->data + i, size);
			replace_text(&match, placeholder, prefix);
			buffer_add(&result, match.data, match.size);
			buffer_add_zeros(&result, size - match.size);
			buffer_deinit(&match);
			i += size;
		} else {
			buffer_add(&result, data->data + i++, 1);
		}
	}
	buffer_deinit(data);
	*data = result;
}

/* A linear congruential generator: the same in every run, different in each. */
static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/*
 * Few letters, so that placeholders occur by chance, overlap and touch; sizes
 * around the pieces in which files are read.
 */
static void random_file(struct buffer *data, uint32_t *seed, const char *placeholder)
{
	static const char letters[] = "ab/\0\0xyz";
	size_t size = next_random(seed) % 3 ? next_random(seed) % 300
					    : (128u << 10) - 50 + next_random(seed) % 100;

	while (data->size < size) {
		if (next_random(seed) % (size > 1000 ? 400 : 12) == 0)
			buffer_add(data, placeholder, strlen(placeholder));
		else
			buffer_add(data, &letters[next_random(seed) % 8], 1);
	}
	/* Across the border of a piece. */
	if (size > 1000) {
		size_t at = (128u << 10) - next_random(seed) % (strlen(placeholder) + 2);

		if (at + strlen(placeholder) < data->size)
			memcpy(data->data + at, placeholder, strlen(placeholder));
	}
}

#define FILES 120u

struct random_file {
	char path[32];
	struct buffer data;
	unsigned records;
	struct {
		const char *placeholder;
		bool binary;
	} record[3];
};

static void random_world(struct world *world, struct random_file *files,
			 const char *const placeholders[4], uint32_t seed)
{
	_buffer_ script = { 0 };
	char line[200];

	buffer_add(&script, "_prefix_records = [\n", 20);
	for (unsigned i = 0; i < FILES; i++) {
		struct random_file *file = &files[i];

		(void)snprintf(file->path, sizeof(file->path), "d/%03u", i);
		file->records = 1 + next_random(&seed) % 3;
		for (unsigned j = 0; j < file->records; j++) {
			file->record[j].placeholder =
				placeholders[next_random(&seed) % 4];
			file->record[j].binary = next_random(&seed) % 2;
			(void)snprintf(line, sizeof(line), "('%s', '%s', '%s'),\n",
				       file->path, file->record[j].placeholder,
				       file->record[j].binary ? "binary" : "text");
			buffer_add(&script, line, strlen(line));
		}
		random_file(&file->data, &seed, file->record[0].placeholder);
	}
	buffer_add(&script, "]\n", 2);
	tar_file(&world->tar, "bin/conda-unpack", script.data, script.size);
	tar_text(&world->tar, "conda-meta/history", "");
	for (unsigned i = 0; i < FILES; i++)
		tar_file(&world->tar, files[i].path, files[i].data.data,
			 files[i].data.size);
}

static void file_is(const char *root, const char *path, const struct buffer *expected,
		    const char *prefix)
{
	char *file = join_path(root, path);
	_buffer_ got = { 0 };

	read_file(file, &got);
	if (got.size != expected->size ||
	    (got.size && memcmp(got.data, expected->data, got.size) != 0))
		fail_msg("%s at %s: not what conda-unpack makes of it", path, prefix);
	free(file);
}

/*
 * The prefixes are of letters that no placeholder has: what has been replaced is
 * not replaced again by a later record, neither here nor there.
 */
static void compare_with_conda_unpack(struct world *world,
				      const char *const placeholders[4],
				      const char *const prefixes[2], uint32_t seed)
{
	struct random_file *files = calloc(FILES, sizeof(*files));
	struct thaw_error err = { 0 };

	random_world(world, files, placeholders, seed);
	assert_success(pack(world, &err), &err);
	assert_true(thaw_image_site_count(world->image) > 500);
	for (unsigned p = 0; p < 2; p++) {
		char name[8], *root;

		(void)snprintf(name, sizeof(name), "out%u", p);
		root = join_path(world->directory, name);
		assert_success(
			thaw_extract_at(world->image, root, prefixes[p], NULL, &err),
			&err);
		for (unsigned i = 0; i < FILES; i++) {
			_buffer_ expected = { 0 };

			buffer_add(&expected, files[i].data.data, files[i].data.size);
			for (unsigned j = 0; j < files[i].records; j++)
				(files[i].record[j].binary ? replace_binary
							   : replace_text)(
					&expected, files[i].record[j].placeholder,
					prefixes[p]);
			file_is(root, files[i].path, &expected, prefixes[p]);
		}
		free(root);
	}
	for (unsigned i = 0; i < FILES; i++)
		buffer_deinit(&files[i].data);
	free(files);
}

static void like_conda_unpack(void **state)
{
	static const char *const placeholders[] = { "/a", "/ab/ab", "a/a", "bb" };
	static const char *const prefixes[] = { "/Q", "/R" };

	compare_with_conda_unpack(*state, placeholders, prefixes, 20261);
}

static void like_conda_unpack_equal(void **state)
{
	static const char *const placeholders[] = { "/ab/ab/a", "/aab/aab", "a/a/a/a/",
						    "bbbbbbbb" };
	static const char *const prefixes[] = { "/QQQQQQQ", "/QQ" };

	compare_with_conda_unpack(*state, placeholders, prefixes, 20262);
}

/* Text takes prefixes of any length. */
static void longer_text(void **state)
{
	struct world *world = *state;
	struct thaw_error err = { 0 };
	char *root = join_path(world->directory, "out"), prefix[301];
	_buffer_ expected = { 0 };

	memset(prefix, 'p', sizeof(prefix) - 1);
	prefix[0] = '/';
	prefix[300] = '\0';
	tar_text(&world->tar, "bin/conda-unpack",
		 LIST("('a', '/build', 'text'), ('b', '/build', 'text')"));
	tar_text(&world->tar, "a", "x/build/y/build/build");
	tar_text(&world->tar, "b", "");
	assert_success(pack(world, &err), &err);
	assert_success(thaw_extract_at(world->image, root, prefix, NULL, &err), &err);
	buffer_add(&expected, "x/build/y/build/build", 21);
	replace_text(&expected, "/build", prefix);
	file_is(root, "a", &expected, prefix);
	free(root);
}

/* The same record twice is one: otherwise a prefix that holds the placeholder would be replaced in. */
static void records_that_repeat(void **state)
{
	struct world *world = *state;
	struct thaw_error err = { 0 };
	char *root = join_path(world->directory, "out");
	_buffer_ expected = { 0 };

	tar_text(&world->tar, "bin/conda-unpack",
		 LIST("('a', '/env', 'text'),('a', '/env', 'text')"));
	tar_text(&world->tar, "a", "/env/lib");
	assert_success(pack(world, &err), &err);
	assert_int_equal(thaw_image_site_count(world->image), 1);
	assert_success(thaw_extract_at(world->image, root, "/env/inner", NULL, &err),
		       &err);
	buffer_add(&expected, "/env/inner/lib", 14);
	file_is(root, "a", &expected, "/env/inner");
	free(root);
}

static void named_for_ever(void **state)
{
	struct world *world = *state;
	struct thaw_error err = { 0 };
	_buffer_ script = { 0 };
	char line[64];

	buffer_add(&script, "_prefix_records = [", 19);
	for (unsigned i = 0; i < 65; i++) {
		(void)snprintf(line, sizeof(line), "('a', '/env%u', 'text'),", i);
		buffer_add(&script, line, strlen(line));
	}
	buffer_add(&script, "]\n", 2);
	tar_file(&world->tar, "bin/conda-unpack", script.data, script.size);
	tar_text(&world->tar, "conda-meta/history", "");
	tar_text(&world->tar, "a", "/env1/lib");
	assert_refused(pack(world, &err), &err, "a: has more than 64 records");
}

static void missing_files_are_counted(void **state)
{
	struct world *world = *state;
	struct thaw_conda_options options = { 0 };
	struct thaw_conda_report report;
	struct thaw_error err = { 0 };

	tar_text(
		&world->tar, "bin/conda-unpack",
		LIST("('a', '/env', 'text'),('gone', '/env', 'text'),('link', '/env', 'text'),"
		     "('bin', '/env', 'text'),('a/below', '/env', 'text')"));
	tar_text(&world->tar, "conda-meta/history", "");
	tar_text(&world->tar, "a", "/env/lib");
	tar_symlink(&world->tar, "link", "/etc/passwd");
	assert_success(pack(world, &err), &err);
	report = analyse(world, &options);
	assert_int_equal(report.kind, THAW_CONDA_PACK);
	assert_int_equal(report.records, 5);
	assert_int_equal(report.missing, 4);
	assert_int_equal(report.files, 1);
	assert_int_equal(report.sites, 1);
}

/* -- live prefixes -- */

#define META(paths)                                                      \
	"{\"files\": [\"bin/tool\", \"lib/one.so\", \"share/managed\"]," \
	"\"paths_data\": {\"paths\": [" paths "]}}"
#define TEXT_PATH(path)                                      \
	"{\"_path\": \"" path "\", \"prefix_placeholder\": " \
	"\"/placeholder_placeholder\", \"file_mode\": \"text\", \"path_type\": \"hardlink\"}"
#define BINARY_PATH(path)                                    \
	"{\"_path\": \"" path "\", \"prefix_placeholder\": " \
	"\"/placeholder_placeholder\", \"file_mode\": \"binary\", \"path_type\": \"hardlink\"}"

static void live_world(struct world *world)
{
	tar_text(&world->tar, "conda-meta/history", "/opt/live\n");
	tar_text(
		&world->tar, "conda-meta/tool-1.0-0.json",
		META(TEXT_PATH("bin/tool") "," BINARY_PATH(
			"lib/one.so") ","
				      "{\"_path\": \"share/managed\", \"path_type\": \"hardlink\"},"
				      "{\"_path\": \"../../etc/passwd\", \"prefix_placeholder\": \"/xx\"}," TEXT_PATH(
					      "gone") ", 7, {\"_path\": 8}, {}"));
	tar_text(&world->tar, "conda-meta/broken.json", "{ no JSON");
	tar_text(&world->tar, "bin/python", "");
	tar_text(&world->tar, "bin/tool",
		 "#!/opt/live/bin/python -E\nx = '/opt/live/share'\n");
	tar_text(&world->tar, "bin/mine", "#!/opt/live/bin/python\n");
	tar_text(&world->tar, "bin/env", "#!/usr/bin/env python\n");
	/* "/opt/live/lib" where "/placeholder_placeholder/lib" was: 15 bytes of room more. */
	tar_file(&world->tar, "lib/one.so",
		 "\x7f"
		 "ELF\0/opt/live/lib\0\0\0\0\0\0\0\0\0\0\0\0\0"
		 "\0\0\0next\0",
		 18 + 16 + 5);
	tar_text(&world->tar, "share/managed", "/opt/live, which no package says\n");
	tar_text(&world->tar, "share/unmanaged", "root = /opt/live\n");
	tar_file(&world->tar, "share/latin", "root = /opt/live \xe9\n", 19);
	tar_file(&world->tar, "share/cut", "/opt/live \xc3", 11);
	tar_file(&world->tar, "share/mod.pyc", "/opt/live", 9);
}

static uint32_t sites_at(struct world *world, const char *path, struct thaw_site *site)
{
	struct thaw_relocated file;
	struct thaw_inode inode;

	assert_int_equal(thaw_image_find(world->image, path, &inode), 0);
	if (thaw_image_relocated_find(world->image, inode.ino, &file) != 0)
		return 0;
	thaw_image_site(world->image, &file, 0, site);
	return file.sites;
}

static void live_prefix(void **state)
{
	struct world *world = *state;
	static const char *const given[] = { "/not/this/one", "/opt/live" };
	struct thaw_conda_options options = { .prefixes = given, .prefix_count = 2 };
	struct thaw_conda_report report;
	struct thaw_error err = { 0 };
	struct thaw_site site;

	live_world(world);
	assert_success(pack(world, &err), &err);
	/* Without being told: the scripts say it. */
	assert_int_equal(sites_at(world, "bin/tool", &site), 2);
	assert_int_equal(site.rule.kind, THAW_RELOCATION_SHEBANG);
	assert_int_equal(site.offset, 2);
	assert_int_equal(site.rule.placeholder_len, strlen("/opt/live/bin/python"));
	assert_int_equal(site.rule.suffix_len, strlen("/bin/python"));
	assert_int_equal(sites_at(world, "bin/mine", &site), 1);
	assert_int_equal(sites_at(world, "lib/one.so", &site), 1);
	assert_int_equal(site.rule.kind, THAW_RELOCATION_BINARY);
	assert_int_equal(site.rule.placeholder_len, 9);
	assert_int_equal(site.rule.room, 24);
	assert_int_equal(sites_at(world, "share/unmanaged", &site), 1);
	assert_int_equal(sites_at(world, "share/managed", &site), 0);
	assert_int_equal(sites_at(world, "share/latin", &site), 0);
	assert_int_equal(sites_at(world, "share/cut", &site), 0);
	assert_int_equal(sites_at(world, "share/mod.pyc", &site), 0);
	assert_int_equal(sites_at(world, "conda-meta/history", &site), 0);
	report = analyse(world, &options);
	assert_int_equal(report.kind, THAW_CONDA_PREFIX);
	assert_string_equal(report.prefix, "/opt/live");
	assert_int_equal(report.sites, 5);
	assert_int_equal(report.records, 5);
	assert_int_equal(report.missing, 2);
}

/* The n-th allocation fails, for every n: an error, or everything was found. */
static void no_memory_at_any_time(void **state)
{
	struct world *world = *state;
	struct thaw_conda_options options = { 0 };
	struct thaw_error err = { 0 };
	unsigned failures = 0;

	live_world(world);
	tar_text(&world->tar, "lib/python3.11/site-packages/old.egg-link",
		 "/home/me/old\n.");
	assert_success(pack(world, &err), &err);
	for (long n = 0;; n++) {
		struct thaw_relocations *relocations = NULL;
		struct thaw_conda_report report;
		uint8_t *section = NULL;
		size_t size;
		int r;

		allocation_failed = false;
		allocations_left = n;
		r = thaw_relocations_new(&relocations);
		if (r == 0)
			r = thaw_conda_relocations(world->image, world->reader,
						   relocations, &options, &err, &report);
		if (r == 0)
			r = thaw_relocations_emit(relocations, &err, &section, &size);
		allocations_left = -1;
		thaw_relocations_free(relocations);
		free(section);
		if (r == 0) {
			assert_int_equal(report.sites, 5);
			assert_int_equal(report.editable, 1);
			if (!allocation_failed)
				break;
			continue;
		}
		assert_int_equal(r, -ENOMEM);
		failures++;
	}
	assert_true(failures > 10);
}

/* The zeros are there, but fewer: no more room than there is. */
static void room_is_what_there_is(void **state)
{
	struct world *world = *state;
	struct thaw_error err = { 0 };
	struct thaw_site site;

	tar_text(&world->tar, "conda-meta/tool-1.0-0.json",
		 META(BINARY_PATH("lib/one.so")));
	tar_text(&world->tar, "bin/python", "");
	tar_text(&world->tar, "bin/tool", "#!/opt/live/bin/python\n");
	tar_file(&world->tar, "lib/one.so", "/opt/live:/opt/live\0\0\0\0\0\0next\0", 30);
	assert_success(pack(world, &err), &err);
	assert_int_equal(sites_at(world, "lib/one.so", &site), 2);
	/* Five zeros behind the end, for two. */
	assert_int_equal(site.rule.room, 9 + 2);
}

static void no_prefix_of_a_system(void **state)
{
	struct world *world = *state;
	struct thaw_conda_options options = { 0 };
	struct thaw_error err = { 0 };

	tar_text(&world->tar, "conda-meta/tool-1.0-0.json", META(TEXT_PATH("bin/tool")));
	tar_text(&world->tar, "bin/python3", "");
	tar_text(&world->tar, "bin/tool", "#!/usr/bin/python3\n# /usr/share\n");
	tar_text(&world->tar, "bin/other", "#!/usr/bin/env /opt/x/bin/python3\n");
	assert_success(pack(world, &err), &err);
	assert_int_equal(analyse(world, &options).sites, 0);
}

static void other_trees_are_none(void **state)
{
	struct world *world = *state;
	struct thaw_conda_options options = { 0 };
	struct thaw_error err = { 0 };

	tar_sample(&world->tar);
	buffer_deinit(&world->tar);
	tar_text(&world->tar, "bin/tool", "#!/opt/live/bin/tool\n");
	assert_success(pack(world, &err), &err);
	assert_int_equal(analyse(world, &options).kind, THAW_CONDA_NONE);
}

static void collect(void *userdata, const char *warning)
{
	char *all = userdata;

	(void)snprintf(all + strlen(all), 1000 - strlen(all), "%s\n", warning);
}

static void editable_installs(void **state)
{
	struct world *world = *state;
	struct thaw_error err = { 0 };
	char all[1000] = "";
	uint64_t count;

	tar_text(
		&world->tar,
		"lib/python3.11/site-packages/Foo_bar-1.0.dist-info/direct_url.json",
		"{\"url\": \"file:///home/me/foo\", \"dir_info\": {\"editable\": true}}");
	tar_text(&world->tar, "lib/python3.11/site-packages/__editable__.foo_bar-1.0.pth",
		 "x");
	tar_text(&world->tar,
		 "lib/python3.11/site-packages/wheel-1.0.dist-info/direct_url.json",
		 "{\"url\": \"file:///home/me/wheel\", \"dir_info\": {}}");
	tar_text(&world->tar,
		 "lib/python3.11/site-packages/bad-1.0.dist-info/direct_url.json", "{");
	tar_text(&world->tar, "lib/python3.11/site-packages/old.egg-link",
		 "/home/me/old\n.");
	tar_text(&world->tar, "lib/python3.11/site-packages/.egg-link", "");
	assert_success(pack(world, &err), &err);
	assert_success(thaw_editable_installs(world->image, world->reader, collect, all,
					      &err, &count),
		       &err);
	assert_int_equal(count, 2);
	assert_string_equal(
		all,
		"Foo_bar is installed in editable mode (file:///home/me/foo): its source is not "
		"in the environment\n"
		"old is installed in editable mode (old.egg-link): its source is not in the "
		"environment\n");
}

#define WITH_WORLD(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest others[] = {
		cmocka_unit_test(comma_behind),	       cmocka_unit_test(all_literals),
		cmocka_unit_test(empty_list),	       cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(too_many_records),    WITH_WORLD(like_conda_unpack),
		WITH_WORLD(like_conda_unpack_equal),   WITH_WORLD(longer_text),
		WITH_WORLD(records_that_repeat),       WITH_WORLD(named_for_ever),
		WITH_WORLD(missing_files_are_counted), WITH_WORLD(live_prefix),
		WITH_WORLD(no_memory_at_any_time),     WITH_WORLD(room_is_what_there_is),
		WITH_WORLD(no_prefix_of_a_system),     WITH_WORLD(other_trees_are_none),
		WITH_WORLD(editable_installs),
	};
	struct CMUnitTest tests[ARRAY_SIZE(others) + ARRAY_SIZE(refused)];

	memcpy(tests, others, sizeof(others));
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		tests[ARRAY_SIZE(others) + i] = (struct CMUnitTest){
			.name = refused[i].name,
			.test_func = refused_list,
			.initial_state = (void *)(uintptr_t)i,
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
