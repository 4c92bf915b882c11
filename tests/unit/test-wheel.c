/* SPDX-License-Identifier: Apache-2.0 */
/* Wheels: what their names and texts say, and the environment that they make. */
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

#include "support-zip.h"
#include "wheel.h"

#define BIT(minor)  ((uint64_t)1 << (minor))
#define FROM(minor) (~(BIT(minor) - 1))
#define ALL	    THAW_MINORS_ALL

/* -- names -- */

static void names(void **state)
{
	static const struct {
		const char *name, *project, *version, *platform;
		uint64_t minors;
	} cases[] = {
		{ "a-1-py3-none-any.whl", "a", "1", "", ALL },
		{ "a_b-1.0.post1-py2.py3-none-any.whl", "a_b", "1.0.post1", "", ALL },
		{ "a-1-2-py3-none-any.whl", "a", "1", "", ALL },
		{ "a-1-2b-py3-none-any.whl", "a", "1", "", ALL },
		{ "a-1-py39-none-any.whl", "a", "1", "", FROM(9) },
		{ "a-1-cp311-cp311-linux_x86_64.whl", "a", "1", "linux_x86_64", BIT(11) },
		{ "a-1-cp311-none-any.whl", "a", "1", "", BIT(11) },
		{ "a-1-cp37-cp37m-manylinux1_x86_64.whl", "a", "1", "manylinux_x86_64",
		  BIT(7) },
		{ "a-1-cp38-abi3-manylinux2014_aarch64.whl", "a", "1",
		  "manylinux_aarch64", FROM(8) },
		{ "a-1-cp39.cp310-cp39.cp310-musllinux_1_2_i686.whl", "a", "1",
		  "musllinux_i686", BIT(9) | BIT(10) },
		{ "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "a",
		  "1", "manylinux_x86_64", BIT(11) },
		{ "a-1-py3-none-manylinux_2_5_x86_64.musllinux_1_1_x86_64.whl", "a", "1",
		  "linux_x86_64", ALL },
		{ "a-1-cp311-cp311-macosx_11_0_arm64.linux_x86_64.whl", "a", "1",
		  "linux_x86_64", BIT(11) },
		{ "a-1-pp39.cp39-pypy39_pp73.cp39-linux_x86_64.whl", "a", "1",
		  "linux_x86_64", BIT(9) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_wheel_name found;
		struct thaw_error err;

		assert_success(thaw_wheel_name_parse(cases[i].name, &err, &found), &err);
		assert_string_equal(found.project, cases[i].project);
		assert_string_equal(found.version, cases[i].version);
		assert_string_equal(found.platform, cases[i].platform);
		if (found.minors != cases[i].minors)
			fail_msg("%s: %llx", cases[i].name,
				 (unsigned long long)found.minors);
	}
}

static void bad_names(void **state)
{
	static const struct {
		const char *name;
		int error;
		const char *text;
	} cases[] = {
		{ "a.zip", EBADMSG, "not the name of a wheel" },
		{ ".whl", EBADMSG, "not the name of a wheel" },
		{ "a-1.whl", EBADMSG, "not the name of a wheel" },
		{ "a-1-py3-none.whl", EBADMSG, "not the name of a wheel" },
		{ "-1-py3-none-any.whl", EBADMSG, "not the name of a wheel" },
		{ "a--py3-none-any.whl", EBADMSG, "not the name of a wheel" },
		{ "a-1-x-py3-none-any.whl", EBADMSG, "not the name of a wheel" },
		{ "a-1-2-3-py3-none-any.whl", EBADMSG, "not the name of a wheel" },
		{ "a-1-py2-none-any.whl", EPERM, "is not for CPython 3" },
		{ "a-1-cp27-cp27mu-linux_x86_64.whl", EPERM, "is not for CPython 3" },
		{ "a-1-pp39-pypy39_pp73-linux_x86_64.whl", EPERM,
		  "is not for CPython 3" },
		{ "a-1-cp313-cp313t-linux_x86_64.whl", EPERM, "is not for CPython 3" },
		{ "a-1-cp399-cp399-linux_x86_64.whl", EPERM, "is not for CPython 3" },
		{ "a-1-py3-abi3-any.whl", EPERM, "is not for CPython 3" },
		{ "a-1-cp311-cp311-win_amd64.whl", EPERM, "is not for Linux" },
		{ "a-1-cp311-cp311-macosx_11_0_arm64.whl", EPERM, "is not for Linux" },
		{ "a-1-cp311-cp311-linux.whl", EPERM, "is not for Linux" },
		{ "a-1-cp311-cp311-manylinux_2_17.whl", EPERM, "is not for Linux" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_wheel_name found;
		struct thaw_error err;
		int r = thaw_wheel_name_parse(cases[i].name, &err, &found);

		if (r != -cases[i].error || !strstr(err.text, cases[i].text))
			fail_msg("%s: %d %s", cases[i].name, r, err.text);
	}
}

/* -- constraints -- */

static void constraints(void **state)
{
	static const struct {
		const char *text;
		uint64_t minors;
	} cases[] = {
		{ "", ALL },
		{ ">=3.8", FROM(8) },
		{ "CPython>=3.8", FROM(8) },
		{ "CPython<3.13,>=3.9", FROM(9) & ~FROM(13) },
		{ " >= 3.9 , < 3.11 ", FROM(9) & ~FROM(11) },
		{ "==3.11.*", BIT(11) },
		{ "==3.11.2", BIT(11) },
		{ "===3.11.2", BIT(11) },
		{ "==3.11", BIT(11) }, /* 3.11.0 */
		{ "==3.*", ALL },
		{ "!=3.9.*,>=3.8", FROM(8) & ~BIT(9) },
		{ "!=3.9.1,>=3.8", FROM(8) },
		{ ">3.10", FROM(10) }, /* 3.10.1 */
		{ "<=3.10", ~FROM(11) },
		{ "~=3.8", FROM(8) },
		{ "~=3.8.1", BIT(8) },
		{ ">=3.11rc1", FROM(11) },
		{ "CPython-t==3.13.*", BIT(13) },
		{ ">=2.7,<3", 0 },
		{ ">=3.9,<3.9", 0 },
		{ ">=4", 0 },
	};
	static const char *const bad[] = {
		"PyPy>=3.8", "CPython[free-threaded]==3.13",
		"CPython+t", "3.8",
		">= ",	     "=>3.8",
		">=3.x",     ">=3.8.*",
		"~=3",	     ">=3..8",
		">=3.8.",    "*",
		"==*",
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t minors;

		assert_int_equal(thaw_python_constraint(cases[i].text,
							strlen(cases[i].text), &minors),
				 0);
		if (minors != cases[i].minors)
			fail_msg("%s: %llx", cases[i].text, (unsigned long long)minors);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t minors;

		if (thaw_python_constraint(bad[i], strlen(bad[i]), &minors) != -EBADMSG)
			fail_msg("%s was understood", bad[i]);
	}
}

static void allowed(void **state)
{
	static const struct {
		const char *constraints, *version;
		bool allowed;
	} cases[] = {
		{ NULL, "3.11.2", true },
		{ "CPython>=3.9", "3.11", true },
		{ "CPython>=3.9", "3.11.2", true },
		{ "CPython>=3.11.4", "3.11.3", false },
		{ "CPython>=3.11.4", "3.11.4", true },
		{ "CPython>=3.11.4", "3.12", true },
		{ "CPython>=3.11.4", "3.11", false }, /* not for every patch level */
		{ "CPython!=3.11.2,>=3.9", "3.11.2", false },
		{ "CPython!=3.11.2,>=3.9", "3.11.3", true },
		{ "CPython==3.9.* or PyPy or CPython==3.11.7", "3.11.7", true },
		{ "CPython==3.9.* or PyPy or CPython==3.11.7", "3.11.6", false },
		{ "CPython<3.11.2 or CPython>=3.11.2", "3.11", true },
		{ "CPython>=3.9", "3.13t", true },
		{ "PyPy>=3.8", "3.11.2", false },
		{ "CPython>=3.9", "2.7.18", false },
		{ "CPython>=3.9", "3.64.1", false },
		{ "CPython>=3.9", "3.9.100", false },
		{ "CPython>=3.9", "", false },
		{ " or ", "3.9", true }, /* no constraint at all, twice */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (thaw_python_allowed(cases[i].constraints, cases[i].version) !=
		    cases[i].allowed)
			fail_msg("%s: %s", cases[i].constraints, cases[i].version);
}

static void targets(void **state)
{
	struct thaw_wheel_target target;
	struct thaw_error err;
	unsigned minor;
	bool guessed;

	thaw_wheel_target_init(&target);
	assert_success(thaw_wheel_target_narrow(&target, ALL, "", "a.whl", &err), &err);
	assert_success(
		thaw_wheel_target_narrow(&target, FROM(9), "linux_x86_64", "b.whl", &err),
		&err);
	assert_success(thaw_wheel_target_narrow(&target, BIT(10) | BIT(11),
						"manylinux_x86_64", "c.whl", &err),
		       &err);
	assert_refused(thaw_wheel_target_narrow(&target, BIT(12), "", "d.whl", &err),
		       &err, "c.whl and d.whl have no version of Python in common");
	assert_refused(thaw_wheel_target_narrow(&target, BIT(8), "", "d.whl", &err), &err,
		       "b.whl and d.whl have no version of Python in common");
	assert_refused(thaw_wheel_target_narrow(&target, 0, "", "d.whl", &err), &err,
		       "d.whl: is for no version of Python");
	assert_refused(
		thaw_wheel_target_narrow(&target, ALL, "musllinux_x86_64", "d.whl", &err),
		&err, "d.whl is for musllinux_x86_64, c.whl for manylinux_x86_64");
	assert_refused(
		thaw_wheel_target_narrow(&target, ALL, "linux_aarch64", "d.whl", &err),
		&err, "d.whl is for linux_aarch64, c.whl for manylinux_x86_64");
	/* What was refused has changed nothing. */
	assert_success(
		thaw_wheel_target_narrow(&target, ALL, "linux_x86_64", "d.whl", &err),
		&err);
	assert_true(target.minors == (BIT(10) | BIT(11)));

	assert_success(thaw_wheel_target_choose(&target, 10, 11, &err, &minor, &guessed),
		       &err);
	assert_int_equal(minor, 10);
	assert_success(thaw_wheel_target_choose(&target, 0, 11, &err, &minor, &guessed),
		       &err);
	assert_int_equal(minor, 11);
	assert_false(guessed);
	assert_refused(thaw_wheel_target_choose(&target, 12, 0, &err, &minor, &guessed),
		       &err, "c.whl is not for Python 3.12");
	assert_int_equal(thaw_wheel_target_choose(&target, 64, 0, &err, &minor, &guessed),
			 -EPERM);
	assert_success(thaw_wheel_target_narrow(&target, BIT(11), "", "e.whl", &err),
		       &err);
	assert_success(thaw_wheel_target_choose(&target, 0, 10, &err, &minor, &guessed),
		       &err);
	assert_int_equal(minor, 11);
	assert_false(guessed);
}

/* The newest interpreter among those that fit. */
static void guesses(void **state)
{
	static const char *const names[] = { "python3.40", "python3.41", "python3.7",
					     "python3.x" };
	char *directory = make_directory(), *old = strdup(getenv("PATH"));
	struct thaw_wheel_target target;
	struct thaw_error err;
	unsigned minor;
	bool guessed;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path = join_path(directory, names[i]);

		write_file(path, "#!", 2);
		assert_int_equal(chmod(path, i == 1 ? 0600 : 0755),
				 0); /* 3.41 cannot be run */
		free(path);
	}
	assert_int_equal(setenv("PATH", directory, 1), 0);
	thaw_wheel_target_init(&target);
	assert_success(thaw_wheel_target_choose(&target, 0, 0, &err, &minor, &guessed),
		       &err);
	assert_int_equal(minor, 40);
	assert_true(guessed);
	assert_success(
		thaw_wheel_target_narrow(&target, BIT(50) | BIT(51), "", "a.whl", &err),
		&err);
	assert_int_equal(thaw_wheel_target_choose(&target, 0, 0, &err, &minor, &guessed),
			 -EPERM);
	assert_int_equal(setenv("PATH", old, 1), 0);
	free(old);
	remove_directory(directory);
}

/* -- texts -- */

static int parse_record(const char *text, struct thaw_error *err, struct thaw_record *ret)
{
	return thaw_record_parse(strdup(text), strlen(text), err, ret);
}

#define EMPTY_SHA256 "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"

static void records(void **state)
{
	struct thaw_record record;
	struct thaw_error err;
	const struct thaw_record_row *row;

	assert_success(parse_record("b," EMPTY_SHA256 ",0\r\n"
				    "\"a, \"\"quoted\"\"\",,12\n"
				    "\n"
				    "c,sha512=abc,\n"
				    "d," EMPTY_SHA256 "=,",
				    &err, &record),
		       &err);
	assert_int_equal(record.count, 4);
	row = thaw_record_find(&record, "b");
	assert_true(row->proof.has_sha256 && row->proof.has_size);
	assert_int_equal(row->proof.size, 0);
	assert_int_equal(row->proof.sha256[0], 0xe3);
	assert_int_equal(row->proof.sha256[31], 0x55);
	row = thaw_record_find(&record, "a, \"quoted\"");
	assert_true(!row->proof.has_sha256 && row->proof.has_size);
	assert_int_equal(row->proof.size, 12);
	row = thaw_record_find(&record, "c");
	assert_true(!row->proof.has_sha256 && !row->proof.has_size);
	assert_true(thaw_record_find(&record, "d")->proof.has_sha256);
	assert_null(thaw_record_find(&record, "e"));
	thaw_record_deinit(&record);
	assert_success(parse_record("", &err, &record), &err);
	assert_null(thaw_record_find(&record, "a"));
	thaw_record_deinit(&record);
}

static void bad_records(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ "a", "RECORD has a row of 1 fields" },
		{ "a,b", "RECORD has a row of 2 fields" },
		{ "a,,,", "RECORD has a row of 4 fields" },
		{ ",,", "RECORD has a row of 3 fields" },
		{ "\"a,,", "RECORD is no table of comma-separated values" },
		{ "\"a\"b,,", "RECORD is no table of comma-separated values" },
		{ "a\rb,,", "RECORD is no table of comma-separated values" },
		{ "a,,x", "RECORD: bad digest or size of \"a\"" },
		{ "a,,-1", "RECORD: bad digest or size of \"a\"" },
		{ "a,,9999999999999999999", "RECORD: bad digest or size of \"a\"" },
		{ "a,sha256=abc,", "RECORD: bad digest or size of \"a\"" },
		{ "a,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuF+,",
		  "RECORD: bad digest or size of \"a\"" },
		/* Bits behind the last byte: another spelling of the same digest. */
		{ "a,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFV,",
		  "RECORD: bad digest or size of \"a\"" },
		{ "a,,1\na,,2", "RECORD says two things of \"a\"" },
	};
	struct thaw_record record;
	struct thaw_error err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_damaged(parse_record(cases[i].text, &err, &record), &err,
			       cases[i].error);
	assert_success(parse_record("a,,1\na,,1", &err, &record), &err);
	thaw_record_deinit(&record);
}

static void scripts(void **state)
{
	static const char text[] = "[metadata]\nx = y\n"
				   "\n[console_scripts]\n# a comment\n; another\n"
				   "tool = package.module:main\r\n"
				   "  other-tool.py=m:Class.run [extra]\n"
				   "[gui_scripts]\nwindow = m:w\n[more]\nz = nonsense\n";
	struct thaw_scripts found;
	struct thaw_error err;

	assert_success(thaw_scripts_parse(text, strlen(text), &err, &found), &err);
	assert_int_equal(found.count, 3);
	assert_string_equal(found.scripts[0].name, "tool");
	assert_string_equal(found.scripts[0].module, "package.module");
	assert_string_equal(found.scripts[0].object, "main");
	assert_string_equal(found.scripts[1].name, "other-tool.py");
	assert_string_equal(found.scripts[1].object, "Class.run");
	assert_string_equal(found.scripts[2].name, "window");
	thaw_scripts_deinit(&found);
}

static void bad_scripts(void **state)
{
	static const struct {
		const char *line;
		int error;
	} cases[] = {
		{ "tool", EBADMSG },
		{ "tool = module", EBADMSG },
		{ "tool = :main", EBADMSG },
		{ "tool = module:", EBADMSG },
		{ "tool = module:main()", EBADMSG },
		{ "tool = module:main;import os", EBADMSG },
		{ "tool = module\"x:main", EBADMSG },
		{ "tool = module..x:main", EBADMSG },
		{ "tool = 1module:main", EBADMSG },
		{ "tool = mod ule:main", EBADMSG },
		{ " = module:main", EPERM },
		{ "../tool = module:main", EPERM },
		{ ".. = module:main", EPERM },
		{ "a\tb = module:main", EPERM },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_scripts found;
		struct thaw_error err;
		char text[200];
		int r;

		(void)snprintf(text, sizeof(text), "[console_scripts]\n%s\n",
			       cases[i].line);
		r = thaw_scripts_parse(text, strlen(text), &err, &found);
		if (r != -cases[i].error)
			fail_msg("%s: %d", cases[i].line, r);
	}
}

static void metadata(void **state)
{
	static const char text[] =
		"Name: a\r\nrequires-python:  >=3.8  \nRequires: no\n\nLater: x\n";
	size_t len;
	const char *value = thaw_metadata_find(text, strlen(text), "Requires-Python",
					       &len);

	assert_int_equal(len, 5);
	assert_memory_equal(value, ">=3.8", 5);
	assert_memory_equal(thaw_metadata_find(text, strlen(text), "Name", &len), "a", 1);
	assert_int_equal(len, 1);
	assert_null(thaw_metadata_find(text, strlen(text), "Later", &len));
	assert_null(thaw_metadata_find(text, strlen(text), "Require", &len));
}

static void projects(void **state)
{
	assert_true(thaw_same_project("Foo-Bar", "foo_bar"));
	assert_true(thaw_same_project("foo.bar", "foo-_-bar"));
	assert_false(thaw_same_project("foobar", "foo-bar"));
	assert_false(thaw_same_project("foo", "foo-"));
	assert_false(thaw_same_project("foo", "fo"));
}

/* -- environments -- */

struct file {
	const char *name, *text;
	uint32_t mode;
};

/* name-1.dist-info with what must be there; RECORD names all files without digests. */
static void write_wheel(const char *directory, const char *name, const char *project,
			const struct file *files, size_t count, const char *record)
{
	char *path = join_path(directory, name), wheel[100], where[100], rows[2000] = "";
	_zip_ zip = { 0 };

	for (size_t i = 0; i < count; i++) {
		struct zip_spec spec = { .name = files[i].name,
					 .data = files[i].text,
					 .size = strlen(files[i].text),
					 .mode = files[i].mode ? files[i].mode
							       : 0100644 };

		zip_member(&zip, &spec);
		strcat(rows, "\"");
		for (const char *c = files[i].name; *c; c++)
			strncat(strcat(rows, *c == '"' ? "\"" : ""), c, 1);
		strcat(rows, "\",,\n");
	}
	(void)snprintf(wheel, sizeof(wheel), "%s-1.dist-info/WHEEL", project);
	zip_file(&zip, wheel, "Wheel-Version: 1.0\n");
	if (record) {
		(void)snprintf(where, sizeof(where), "%s-1.dist-info/RECORD", project);
		zip_file(&zip, where, *record ? record : rows);
	}
	zip_end(&zip, false, "");
	write_file(path, zip.bytes.data, zip.bytes.size);
	free(path);
}

static int collect(const char *path, struct buffer *tar, struct thaw_error *err)
{
	const struct thaw_input_options options = { .python_minor = 11 };
	struct thaw_input *input;
	int r = thaw_input_open_with(path, &options, err, &input);

	if (r < 0)
		return r;
	assert_string_equal(input->kind, "wheels");
	assert_int_equal(input->environment->hints.kind, THAW_KIND_WHEELS);
	assert_string_equal(input->environment->hints.python, "3.11");
	r = read_input(input, err, tar);
	thaw_input_free(input);
	return r;
}

/* The header of a member, whose name is short; NULL when there is none. */
static const char *find(const struct buffer *tar, const char *path)
{
	for (size_t at = 0; at + 512 <= tar->size && tar->data[at] != 0;) {
		const char *header = (const char *)tar->data + at;
		size_t len = strnlen(header, 100);

		if (len > 1 && header[len - 1] == '/')
			len--;
		if (strlen(path) == len && memcmp(header, path, len) == 0)
			return header;
		at += 512 + (strtoull(header + 124, NULL, 8) + 511) / 512 * 512;
	}
	return NULL;
}

static void expect_file(const struct buffer *tar, const char *path, unsigned mode,
			const char *text)
{
	const char *header = find(tar, path);

	if (!header)
		fail_msg("no %s", path);
	assert_int_equal(header[156], '0');
	assert_int_equal(strtoul(header + 100, NULL, 8), mode);
	assert_int_equal(strtoul(header + 124, NULL, 8), strlen(text));
	assert_memory_equal(header + 512, text, strlen(text));
}

static void expect_link(const struct buffer *tar, const char *path, const char *target)
{
	const char *header = find(tar, path);

	if (!header)
		fail_msg("no %s", path);
	assert_int_equal(header[156], '2');
	assert_string_equal(header + 157, target);
}

#define SITE "lib/python3.11/site-packages/"
static const struct file everything[] = {
	{ "p/__init__.py", "x = 1\n", 0 },
	{ "p/tool", "#!/bin/sh\n", 0100755 },
	{ "p-1.data/scripts/run", "#!python -E\nprint()\n", 0 },
	{ "p-1.data/scripts/shell", "#!/bin/sh\n", 0 },
	{ "p-1.data/purelib/pure.py", "pure\n", 0 },
	{ "p-1.data/platlib/plat.py", "plat\n", 0 },
	{ "p-1.data/data/etc/p.conf", "conf\n", 0 },
	{ "p-1.data/data/lib64/p.txt", "lib64\n", 0 },
	{ "p-1.data/data/share/a, \"b\"", "odd\n", 0 },
	{ "p-1.data/headers/p.h", "header\n", 0 },
	{ "p-1.dist-info/entry_points.txt", "[console_scripts]\nstart = p.x:C.main\n",
	  0 },
};

static void environment(void **state)
{
	char *directory = make_directory();
	_buffer_ tar = { 0 };
	struct thaw_error err;

	write_wheel(directory, "p-1-py3-none-any.whl", "p", everything,
		    ARRAY_SIZE(everything), "");
	assert_success(collect(directory, &tar, &err), &err);
	expect_link(&tar, "bin/python", "/usr/bin/python3.11");
	expect_link(&tar, "bin/python3", "python");
	expect_link(&tar, "bin/python3.11", "python");
	expect_link(&tar, "lib64", "lib");
	expect_file(
		&tar, "pyvenv.cfg", 0644,
		"home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n");
	expect_file(&tar, SITE "p/__init__.py", 0644, "x = 1\n");
	expect_file(&tar, SITE "p/tool", 0755, "#!/bin/sh\n");
	expect_file(&tar, "bin/run", 0755, "#!/usr/bin/env python3\nprint()\n");
	expect_file(&tar, "bin/shell", 0755, "#!/bin/sh\n");
	expect_file(&tar, SITE "pure.py", 0644, "pure\n");
	expect_file(&tar, SITE "plat.py", 0644, "plat\n");
	expect_file(&tar, "etc/p.conf", 0644, "conf\n");
	expect_file(&tar, "lib/p.txt", 0644, "lib64\n");
	expect_file(&tar, "include/site/python3.11/p/p.h", 0644, "header\n");
	expect_file(&tar, "bin/start", 0755,
		    "#!/usr/bin/env python3\nimport sys\n\nfrom p.x import C\n\n"
		    "if __name__ == \"__main__\":\n    sys.exit(C.main())\n");
	expect_file(&tar, SITE "p-1.dist-info/INSTALLER", 0644, "thaw\n");
	expect_file(&tar, SITE "p-1.dist-info/RECORD", 0644,
		    "p/__init__.py,,\np/tool,,\n"
		    "../../../etc/p.conf,,\n../../../lib/p.txt,,\n"
		    "\"../../../share/a, \"\"b\"\"\",,\n"
		    "../../../include/site/python3.11/p/p.h,,\nplat.py,,\npure.py,,\n"
		    "../../../bin/run,,\n../../../bin/shell,,\n"
		    "p-1.dist-info/WHEEL,,\np-1.dist-info/entry_points.txt,,\n"
		    "../../../bin/start,,\n"
		    "p-1.dist-info/INSTALLER,,\np-1.dist-info/RECORD,,\n");
	assert_int_equal(find(&tar, SITE "p")[156], '5'); /* directories are made */
	assert_null(find(&tar, SITE "p-1.data"));
	remove_directory(directory);
}

/* One wheel instead of a directory of them. */
static void single(void **state)
{
	char *directory = make_directory(),
	     *path = join_path(directory, "p-1-py3-none-any.whl");
	_buffer_ together = { 0 };
	_buffer_ alone = { 0 };
	struct thaw_error err;

	write_wheel(directory, "p-1-py3-none-any.whl", "p", everything,
		    ARRAY_SIZE(everything), "");
	assert_success(collect(directory, &together, &err), &err);
	assert_success(collect(path, &alone, &err), &err);
	assert_int_equal(alone.size, together.size);
	assert_memory_equal(alone.data, together.data, alone.size);
	free(path);
	remove_directory(directory);
}

static void merging(void **state)
{
	const struct file first[] = { { "ns/a.py", "a", 0 },
				      { "ns/same.txt", "same", 0 } };
	const struct file second[] = { { "ns/b.py", "b", 0 },
				       { "ns/same.txt", "same", 0100755 } };
	char *directory = make_directory();
	_buffer_ tar = { 0 };
	struct thaw_error err;

	write_wheel(directory, "a-1-py3-none-any.whl", "a", first, 2, "");
	write_wheel(directory, "b-1-py3-none-any.whl", "b", second, 2, "");
	assert_success(collect(directory, &tar, &err), &err);
	expect_file(&tar, SITE "ns/a.py", 0644, "a");
	expect_file(&tar, SITE "ns/b.py", 0644, "b");
	expect_file(&tar, SITE "ns/same.txt", 0755, "same");
	remove_directory(directory);
}

static void conflicts(void **state)
{
	static const struct {
		struct file first, second;
		const char *text;
	} cases[] = {
		{ { "m.py", "one", 0 },
		  { "m.py", "two", 0 },
		  "\"" SITE "m.py\": different content in a-1-py3-none-any.whl and "
		  "b-1-py3-none-any.whl" },
		{ { "m.py", "one", 0 },
		  { "m.py", "more", 0 },
		  "\"" SITE "m.py\": different content in a-1-py3-none-any.whl and "
		  "b-1-py3-none-any.whl" },
		{ { "m.py", "one", 0 },
		  { "m.py", "one", 0120777 },
		  "\"" SITE "m.py\": different things in a-1-py3-none-any.whl and "
		  "b-1-py3-none-any.whl" },
		{ { "x", "", 0 },
		  { "b-1.data/data/pyvenv.cfg", "home = /\n", 0 },
		  "\"pyvenv.cfg\": different content in thaw and b-1-py3-none-any.whl" },
		{ { "x", "", 0 },
		  { "b-1.data/scripts/python", "#!/bin/sh\n", 0 },
		  "\"bin/python\": different things in thaw and b-1-py3-none-any.whl" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *directory = make_directory();
		_buffer_ tar = { 0 };
		struct thaw_error err;

		write_wheel(directory, "a-1-py3-none-any.whl", "a", &cases[i].first, 1,
			    "");
		write_wheel(directory, "b-1-py3-none-any.whl", "b", &cases[i].second, 1,
			    "");
		assert_refused(collect(directory, &tar, &err), &err, cases[i].text);
		remove_directory(directory);
	}
}

static void wheels_that_lie(void **state)
{
	static const struct {
		const char *name, *project, *record;
		struct file file;
		int error;
		const char *text;
	} cases[] = {
		{ "a-1-py3-none-any.whl",
		  "a",
		  "a.py," EMPTY_SHA256 ",\n",
		  { "a.py", "x", 0 },
		  EBADMSG,
		  "\"a.py\" of a-1-py3-none-any.whl: not what RECORD says" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "a.py,,2\n",
		  { "a.py", "x", 0 },
		  EBADMSG,
		  "\"a.py\": 1 bytes; RECORD says 2" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "b.py,,\n",
		  { "a.py", "x", 0 },
		  EBADMSG,
		  "a-1-py3-none-any.whl: has no \"b.py\", which its RECORD names" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  NULL,
		  { "a.py", "x", 0 },
		  EBADMSG,
		  "a-1-py3-none-any.whl: has no RECORD" },
		{ "a-1-py3-none-any.whl",
		  "b",
		  "",
		  { "a.py", "x", 0 },
		  EBADMSG,
		  "a-1-py3-none-any.whl: holds another project, \"b-1.dist-info\"" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "",
		  { "c-1.dist-info/x", "x", 0 },
		  EBADMSG,
		  "a-1-py3-none-any.whl: has two .dist-info directories" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "",
		  { "a-1.data/nowhere/x", "x", 0 },
		  EPERM,
		  "\"a-1.data/nowhere/x\" of a-1-py3-none-any.whl: there is no such scheme" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "",
		  { "a-1.data/x", "x", 0 },
		  EPERM,
		  "\"a-1.data/x\" of a-1-py3-none-any.whl: there is no such scheme" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "",
		  { "a-1.dist-info/METADATA", "Requires-Python: >=3.12\n", 0 },
		  EPERM,
		  "a-1-py3-none-any.whl is not for Python 3.11" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "",
		  { "a-1.dist-info/entry_points.txt", "[console_scripts]\nx=a:b();c\n",
		    0 },
		  EBADMSG,
		  "a-1-py3-none-any.whl: entry_points.txt: \"x\" does not name a function" },
		{ "a-1-py3-none-any.whl",
		  "a",
		  "a.py,sha256=x,\n",
		  { "a.py", "x", 0 },
		  EBADMSG,
		  "a-1-py3-none-any.whl: RECORD: bad digest or size of \"a.py\"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *directory = make_directory();
		_buffer_ tar = { 0 };
		struct thaw_error err;
		int r;

		write_wheel(directory, cases[i].name, cases[i].project, &cases[i].file, 1,
			    cases[i].record);
		r = collect(directory, &tar, &err);
		if (r != -cases[i].error || strcmp(err.text, cases[i].text) != 0)
			fail_msg("case %zu: %d %s", i, r, err.text);
		remove_directory(directory);
	}
}

static void of_one_project(void **state)
{
	const struct file file = { "x", "", 0 };
	char *directory = make_directory();
	_buffer_ tar = { 0 };
	struct thaw_error err;

	write_wheel(directory, "A_b-1-py3-none-any.whl", "A_b", &file, 1, "");
	write_wheel(directory, "a.B-2-py3-none-any.whl", "a.B", &file, 1, "");
	assert_refused(
		collect(directory, &tar, &err), &err,
		"A_b-1-py3-none-any.whl and a.B-2-py3-none-any.whl are of one project");
	remove_directory(directory);
}

static void wrong_version(void **state)
{
	char *directory = make_directory(),
	     *path = join_path(directory, "a-1-py3-none-any.whl");
	_buffer_ tar = { 0 };
	struct thaw_error err;
	_zip_ zip = { 0 };

	zip_file(&zip, "a-1.dist-info/WHEEL", "Wheel-Version: 2.0\n");
	zip_file(&zip, "a-1.dist-info/RECORD", "");
	zip_end(&zip, false, "");
	write_file(path, zip.bytes.data, zip.bytes.size);
	assert_refused(collect(directory, &tar, &err), &err,
		       "a-1-py3-none-any.whl: is a wheel of version 2.0; thaw knows 1");
	free(path);
	remove_directory(directory);
}

/* Of this kind; and something can be read. */
static void expect_kind(const char *path, const struct thaw_input_options *options,
			const char *kind)
{
	struct thaw_input *input;
	struct thaw_error err;
	const uint8_t *data;
	size_t len;

	assert_success(thaw_input_open_with(path, options, &err, &input), &err);
	assert_string_equal(input->kind, kind);
	assert_success(input->next(input, &err, &data, &len), &err);
	assert_int_not_equal(len, 0);
	thaw_input_free(input);
}

/* A directory that holds anything else is packed as it is. */
static void not_only_wheels(void **state)
{
	static const char *const others[] = { "README", ".hidden",
					      "b-1-py3-none-any.whl/" };
	const struct file file = { "x", "", 0 };

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		char *directory = make_directory(),
		     *path = join_path(directory, others[i]);

		write_wheel(directory, "a-1-py3-none-any.whl", "a", &file, 1, "");
		if (i == 2)
			assert_int_equal(mkdir(path, 0755), 0);
		else
			write_file(path, "x", 1);
		expect_kind(directory, NULL, "directory");
		free(path);
		remove_directory(directory);
	}
}

static void taken_as_files(void **state)
{
	const struct thaw_input_options options = { .plain = true };
	const struct file file = { "x", "", 0 };
	char *directory = make_directory(),
	     *path = join_path(directory, "a-1-py3-none-any.whl");

	write_wheel(directory, "a-1-py3-none-any.whl", "a", &file, 1, "");
	expect_kind(directory, &options, "directory");
	expect_kind(path, &options, "zip");
	free(path);
	remove_directory(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),	   cmocka_unit_test(bad_names),
		cmocka_unit_test(constraints),	   cmocka_unit_test(allowed),
		cmocka_unit_test(targets),
		cmocka_unit_test(guesses),	   cmocka_unit_test(records),
		cmocka_unit_test(bad_records),	   cmocka_unit_test(scripts),
		cmocka_unit_test(bad_scripts),	   cmocka_unit_test(metadata),
		cmocka_unit_test(projects),	   cmocka_unit_test(environment),
		cmocka_unit_test(single),	   cmocka_unit_test(merging),
		cmocka_unit_test(conflicts),	   cmocka_unit_test(wheels_that_lie),
		cmocka_unit_test(of_one_project),  cmocka_unit_test(wrong_version),
		cmocka_unit_test(not_only_wheels), cmocka_unit_test(taken_as_files),
	};

	return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
