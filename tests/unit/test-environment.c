/* SPDX-License-Identifier: Apache-2.0 */
/* What is found about an image: kind, Python, platform, relocations, warnings. */
#include "check.h"

#include <jansson.h>

#include "thaw/environment.h"

#define SITE "lib/python3.11/site-packages/"

/* A tree as text: "PATH" is a directory, "PATH=TEXT" a file, "PATH@TARGET" a link. */
static void build(struct buffer *tar, const char *const *entries)
{
	for (size_t i = 0; entries[i]; i++) {
		const char *entry = entries[i], *mark = strpbrk(entry, "=@");
		char path[256];

		if (!mark) {
			tar_directory(tar, entry);
			continue;
		}
		(void)snprintf(path, sizeof(path), "%.*s", (int)(mark - entry), entry);
		if (*mark == '@')
			tar_symlink(tar, path, mark + 1);
		else
			tar_member(tar, path, '0', 0755, 1000, NULL, mark + 1,
				   strlen(mark + 1));
	}
	tar_end(tar);
}

struct packed {
	char *directory, *path;
	struct buffer bytes;
	struct thaw_image *image;
	json_t *meta;
};

static int try_pack(const char *const *entries, enum thaw_environment_kind kind,
		    struct thaw_error *err, struct packed *p)
{
	struct thaw_pack_options options = { .level = 1, .kind = kind };
	struct thaw_pack_report report;
	_buffer_ tar = { 0 };
	size_t len;
	const char *text;
	int r;

	*p = (struct packed){ .directory = make_directory() };
	p->path = join_path(p->directory, "image");
	build(&tar, entries);
	r = pack_bytes(&tar, p->path, &options, err, &report);
	if (r < 0)
		return r;
	read_file(p->path, &p->bytes);
	assert_success(open_memory(&p->bytes, err, &p->image), err);
	text = thaw_image_meta(p->image, &len);
	p->meta = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(p->meta);
	assert_string_equal(thaw_kind_name(report.kind),
			    json_string_value(json_object_get(p->meta, "kind")));
	return 0;
}

static void pack(const char *const *entries, struct packed *p)
{
	struct thaw_error err = { 0 };

	assert_success(try_pack(entries, THAW_KIND_UNKNOWN, &err, p), &err);
}

static void done(struct packed *p)
{
	thaw_image_free(p->image);
	json_decref(p->meta);
	buffer_deinit(&p->bytes);
	free(p->path);
	remove_directory(p->directory);
}

static const char *said(const struct packed *p, const char *key)
{
	const char *text = json_string_value(json_object_get(p->meta, key));

	return text ? text : "";
}

static bool warned(const struct packed *p, const char *word)
{
	const json_t *warnings = json_object_get(p->meta, "warnings"), *warning;
	size_t i;

	json_array_foreach(warnings, i, warning)
		if (strstr(json_string_value(warning), word))
			return true;
	return false;
}

/* -- kinds -- */

#define INTERPRETER "bin/python3.11=\177ELF\2\1\1", "bin/python3@python3.11", "lib/python3.11/os.py=pass\n"
#define VENV	    "pyvenv.cfg=home = /build/bin\nversion = 3.11.7\n", "bin/python@/build/bin/python3.11", SITE "a.py=1\n"

static void test_kinds(void **state)
{
	static const struct {
		const char *kind, *python, *full;
		int interpreter; /* -1: not said */
		const char *entries[8];
	} cases[] = {
		{ "tree", "", "", -1, { "file=text" } },
		{ "tree", "3.11", "", -1, { SITE "a.py=1\n" } },
		{ "python", "3.11", "", 1, { INTERPRETER, SITE } },
		{ "venv", "3.11", "3.11.7", 0, { VENV, "bin/activate=VIRTUAL_ENV=\"/b\"\n" } },
		{ "venv-pack", "3.11", "3.11.7", 0,
		  { VENV, "bin/activate=# `venv/scripts/common/activate` in CPython\n" } },
		/* of another minor version: what the packages are for counts */
		{ "venv", "3.11", "", 0,
		  { "pyvenv.cfg=version = 3.9.1\n", "bin", SITE "a.py=1\n" } },
		{ "venv", "3.9", "3.9.1", 0, { "pyvenv.cfg=version_info = 3.9.1.final.0\n", "bin" } },
		/* an interpreter inside, and no home elsewhere: a prefix */
		{ "python", "3.11", "", 1,
		  { INTERPRETER, "pyvenv.cfg=include-system-site-packages = false\n" } },
		{ "venv", "3.11", "", 0, { INTERPRETER, "pyvenv.cfg=home = /x\n", "x=" } },
		{ "conda", "3.11", "3.11.9", 1,
		  { INTERPRETER, "conda-meta/python-3.11.9-h1.json={\"files\":[]}" } },
		/* a free-threaded one has directories of its own */
		{ "venv", "3.13t", "3.13.1", 0,
		  { "pyvenv.cfg=version = 3.13.1\n", "bin", "lib/python3.13t/site-packages/a.py=1\n" } },
		/* of several libraries the newest, as numbers */
		{ "python", "3.11", "", 1, { INTERPRETER, "lib/python3.9/site-packages/a.py=1\n" } },
		/* names that only look like it */
		{ "tree", "", "", -1, { "lib/python3.x/os.py=1\n", "lib/python3.1111/os.py=1\n", "pyvenv.cfg=home=/\n" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const json_t *own;
		struct packed p;

		pack(cases[i].entries, &p);
		if (strcmp(said(&p, "kind"), cases[i].kind) != 0 ||
		    strcmp(said(&p, "python"), cases[i].python) != 0)
			fail_msg("case %zu: %s %s", i, said(&p, "kind"), said(&p, "python"));
		own = json_object_get(p.meta, "interpreter");
		if (i != 8) /* a venv is bound whatever lies in it */
			assert_int_equal(own ? json_is_true(own) : -1, cases[i].interpreter);
		if (strcmp(said(&p, "python_version"), cases[i].full) != 0)
			fail_msg("case %zu: %s", i, said(&p, "python_version"));
		done(&p);
	}
}

static void test_wanted_kinds(void **state)
{
	static const char *const venv[] = { VENV, NULL };
	static const char *const prefix[] = { INTERPRETER, NULL };
	static const struct {
		const char *const *entries;
		enum thaw_environment_kind kind;
		bool fits;
	} cases[] = {
		{ venv, THAW_KIND_VENV, true },	       { venv, THAW_KIND_VENV_PACK, true },
		{ venv, THAW_KIND_TREE, true },	       { venv, THAW_KIND_PYTHON, false },
		{ venv, THAW_KIND_CONDA_PACK, false }, { venv, THAW_KIND_CONDA, false },
		{ venv, THAW_KIND_PEX, false },	       { venv, THAW_KIND_WHEELS, false },
		{ prefix, THAW_KIND_PYTHON, true },    { prefix, THAW_KIND_VENV, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_error err = { 0 };
		struct packed p;
		int r = try_pack(cases[i].entries, cases[i].kind, &err, &p);

		if (cases[i].fits) {
			assert_success(r, &err);
			assert_string_equal(said(&p, "kind"), thaw_kind_name(cases[i].kind));
			if (cases[i].kind == THAW_KIND_TREE)
				assert_int_equal(thaw_image_relocated_count(p.image), 0);
		} else {
			char text[100];

			(void)snprintf(text, sizeof(text),
				       "its content is not of the kind %s (--kind)",
				       thaw_kind_name(cases[i].kind));
			assert_refused(r, &err, text);
			assert_int_equal(count_entries(p.directory), 0);
		}
		done(&p);
	}
}

/* -- scripts -- */

static void test_scripts(void **state)
{
	static const struct {
		const char *text, *placeholder, *suffix; /* placeholder NULL: left alone */
	} cases[] = {
		{ "#!/usr/bin/env python3\nx", "/usr/bin/env python3", "/bin/python3" },
		{ "#!/usr/bin/env python\n", "/usr/bin/env python", "/bin/python" },
		{ "#!/usr/bin/env python3.11\n", "/usr/bin/env python3.11", "/bin/python3.11" },
		/* a version that a view does not have */
		{ "#!/usr/bin/env python3.9\n", "/usr/bin/env python3.9", "/bin/python" },
		{ "#! /usr/bin/env  -S python3 -I\n", "/usr/bin/env  -S python3", "/bin/python3" },
		{ "#!/build/env/bin/python3.11\n", "/build/env/bin/python3.11", "/bin/python3.11" },
		{ "#!/build/env/bin/python -E\n", "/build/env/bin/python", "/bin/python" },
		{ "#!/bin/sh\n'''exec' \"/a b/bin/python3\" \"$0\" \"$@\"\n' '''\nimport x\n",
		  "/bin/sh\n'''exec' \"/a b/bin/python3\" \"$0\" \"$@\"\n' '''", "/bin/python3" },
		{ "#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''\n",
		  "/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''", "/bin/python" },
		/* the machine's own Python, and no Python at all */
		{ "#!/usr/bin/python3\n", NULL, NULL },
		{ "#!/usr/bin/env bash\n", NULL, NULL },
		{ "#!/usr/bin/env python3-config\n", NULL, NULL },
		{ "#!/build/bin/ipython\n", NULL, NULL },
		{ "#!python\n", NULL, NULL },
		{ "#!/bin/sh\nexec python3 \"$0\"\n", NULL, NULL },
		{ "#!/bin/sh\n'''exec' \"/a/bin/python3\n", NULL, NULL },
		{ "#!/bin/sh\n'''exec' \"/a/bin/python3\" x\nmore\n' '''\n", NULL, NULL },
		{ "#!/bin/sh\n'''exec' \"$(dirname \"$0\")/python\" \"$0\" \"$@\"\n' '''\n", NULL, NULL },
		/* no line at all */
		{ "#!/usr/bin/env python3", NULL, NULL },
		{ "#!\n", NULL, NULL },
		{ "", NULL, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char script[512];
		const char *const entries[] = { VENV, script, NULL };
		struct thaw_relocated file;
		struct thaw_site site;
		struct packed p;

		(void)snprintf(script, sizeof(script), "bin/script=%s", cases[i].text);
		pack(entries, &p);
		if (thaw_image_relocated_count(p.image) != (cases[i].placeholder != NULL))
			fail_msg("case %zu: %s", i, cases[i].text);
		if (cases[i].placeholder) {
			thaw_image_relocated(p.image, 0, &file);
			assert_int_equal(file.sites, 1);
			thaw_image_site(p.image, &file, 0, &site);
			assert_int_equal(site.rule.kind, THAW_RELOCATION_SHEBANG);
			assert_int_equal(site.offset, strstr(cases[i].text, cases[i].placeholder) -
							      cases[i].text);
			assert_int_equal(site.rule.placeholder_len, strlen(cases[i].placeholder));
			assert_memory_equal(site.rule.placeholder, cases[i].placeholder,
					    site.rule.placeholder_len);
			assert_int_equal(site.rule.suffix_len, strlen(cases[i].suffix));
			assert_memory_equal(site.rule.suffix, cases[i].suffix,
					    site.rule.suffix_len);
		}
		done(&p);
	}
}

/* Only what lies in bin, and what is a file of its own. */
static void test_scripts_elsewhere(void **state)
{
	static const char *const entries[] = {
		VENV, "lib/tool=#!/usr/bin/env python3\n", "bin/sub/tool=#!/usr/bin/env python3\n",
		"bin/link@../lib/tool", NULL,
	};
	struct packed p;

	pack(entries, &p);
	assert_int_equal(thaw_image_relocated_count(p.image), 0);
	done(&p);
}

static void test_activate(void **state)
{
	static const struct {
		const char *text;
		unsigned sites;
	} cases[] = {
		{ "VIRTUAL_ENV=\"/build/env\"\nPATH=\"$VIRTUAL_ENV/bin\"\n", 1 },
		{ "VIRTUAL_ENV='/build/env'\nX=/build/env/bin\nY=/build/environment\n", 2 },
		{ "VIRTUAL_ENV=/build/env\n", 1 },
		{ "  VIRTUAL_ENV=$(cygpath \"/build/env\")\n  export VIRTUAL_ENV=\"/build/env\"\n", 2 },
		/* computed, empty, the root, without an end */
		{ "VIRTUAL_ENV=$full_path_env\n", 0 },
		{ "VIRTUAL_ENV=\"\"\n", 0 },
		{ "VIRTUAL_ENV=\"/\"\n", 0 },
		{ "unset VIRTUAL_ENV\n", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char activate[512];
		const char *const entries[] = { VENV, activate,
						"bin/activate.csh=setenv VIRTUAL_ENV \"/build/env\"\n",
						NULL };
		struct packed p;

		(void)snprintf(activate, sizeof(activate), "bin/activate=%s", cases[i].text);
		pack(entries, &p);
		/* csh's is found by the path that sh's has */
		if (thaw_image_site_count(p.image) != cases[i].sites + (cases[i].sites > 0))
			fail_msg("case %zu: %llu", i,
				 (unsigned long long)thaw_image_site_count(p.image));
		done(&p);
	}
}

/* -- platform -- */

static void test_platform(void **state)
{
	static const uint8_t x86[20] = { 0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 3, [18] = 62 };
	static const uint8_t arm[20] = { 0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 3, [18] = 183 };
	struct thaw_pack_options options = { .level = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	char *directory = make_directory(), *path = join_path(directory, "image");
	_buffer_ tar = { 0 }, bytes = { 0 };
	struct packed p = { 0 };
	const char *text;
	size_t len;

	tar_text(&tar, "pyvenv.cfg", "home = /x\n");
	tar_directory(&tar, "bin/");
	tar_file(&tar, SITE "a.cpython-311-x86_64-linux-gnu.so", x86, sizeof(x86));
	tar_file(&tar, SITE "b.abi3.so", arm, sizeof(arm));
	tar_file(&tar, SITE "c.so", "no ELF", 6);
	tar_text(&tar, SITE "a-1.dist-info/WHEEL",
		 "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64\n");
	tar_text(&tar, SITE "b-1.dist-info/WHEEL",
		 "Tag: cp311-abi3-manylinux_2_28_x86_64\nTag: cp311-abi3-manylinux_2_31_x86_64\n");
	tar_text(&tar, SITE "c-1.dist-info/WHEEL",
		 "Tag: py3-none-manylinux_2_40_x86_64\nTag: py3-none-musllinux_1_2_x86_64\n");
	tar_text(&tar, SITE "d-1.dist-info/WHEEL", "Tag: py3-none-any\n");
	tar_end(&tar);
	assert_success(pack_bytes(&tar, path, &options, &err, &report), &err);
	assert_string_equal(report.platform, "linux-x86_64");
	read_file(path, &bytes);
	assert_success(open_memory(&bytes, &err, &p.image), &err);
	text = thaw_image_meta(p.image, &len);
	p.meta = json_loadb(text, len, 0, NULL);
	assert_string_equal(said(&p, "libc"), "glibc >= 2.28");
	assert_true(warned(&p, "b.abi3.so is for linux-aarch64, other files for linux-x86_64"));
	thaw_image_free(p.image);
	json_decref(p.meta);
	remove_directory(directory);
	free(path);
}

/* -- warnings -- */

static void test_warnings(void **state)
{
	static const char *const entries[] = {
		"pyvenv.cfg=home = /x\ninclude-system-site-packages = TRUE\nversion = 3.9.0\n",
		"bin/python@/x/bin/python3.11",
		"bin/tool@/opt/tool",
		SITE "plain.py=1\n",
		SITE "dev.pth=/src/dev\nimport x\nrelative\n",
		SITE "old.egg-link=/src/old\n",
		SITE "new-1.dist-info/direct_url.json={\"url\":\"file:///src/new\",\"dir_info\":{\"editable\":true}}",
		SITE "same-1.dist-info/direct_url.json={\"url\":\"file:///src/same\",\"dir_info\":{}}",
		NULL,
	};
	struct packed p;

	pack(entries, &p);
	assert_true(warned(&p, "dev.pth adds \"/src/dev\""));
	assert_true(warned(&p, "old.egg-link: an editable install"));
	assert_true(warned(&p, "new-1 is an editable install of file:///src/new"));
	assert_false(warned(&p, "same-1"));
	assert_true(warned(&p, "include-system-site-packages"));
	assert_true(warned(&p, "says Python 3.9.0"));
	/* the links to the interpreter are bound, not warned of */
	assert_true(warned(&p, "1 symlinks lead out of the environment, first \"bin/tool\""));
	assert_int_equal(json_array_size(json_object_get(p.meta, "warnings")), 6);
	done(&p);
}

static void test_warnings_are_bounded_and_printable(void **state)
{
	struct thaw_pack_options options = { .level = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	char *directory = make_directory(), *path = join_path(directory, "image");
	_buffer_ tar = { 0 }, bytes = { 0 };
	struct packed p = { 0 };
	const json_t *warning;
	const char *text;
	size_t len, i;

	tar_text(&tar, "pyvenv.cfg", "home = /x\n");
	tar_directory(&tar, "bin/");
	for (unsigned n = 0; n < 300; n++) {
		char name[100];

		(void)snprintf(name, sizeof(name), SITE "\033[31m\xff%u.pth", n);
		tar_text(&tar, name, "/a\033]0;x\007\n/b\n");
	}
	tar_end(&tar);
	assert_success(pack_bytes(&tar, path, &options, &err, &report), &err);
	read_file(path, &bytes);
	assert_success(open_memory(&bytes, &err, &p.image), &err);
	text = thaw_image_meta(p.image, &len);
	p.meta = json_loadb(text, len, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(p.meta, "warnings")), 101);
	json_array_foreach(json_object_get(p.meta, "warnings"), i, warning)
		for (const char *c = json_string_value(warning); *c; c++)
			assert_in_range((unsigned char)*c, 32, 126);
	assert_true(warned(&p, "500 more warnings"));
	thaw_image_free(p.image);
	json_decref(p.meta);
	remove_directory(directory);
	free(path);
}

static void test_depth(void **state)
{
	static const char *const entries[] = { "env/pyvenv.cfg=home = /x\n", "env/bin/tool=x", NULL };
	struct packed p;

	pack(entries, &p);
	assert_string_equal(said(&p, "kind"), "tree");
	assert_true(warned(&p, "in the directory \"env\" of the archive"));
	done(&p);
}

/* Links that go round, out, nowhere and far: none is an interpreter, and none is followed for ever. */
static void test_links(void **state)
{
	static const char *const targets[] = { "python3", "../../python3", "/bin/python3", "missing",
					       "../lib/../bin/python3", ".", "../lib" };

	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		char link[64];
		const char *const entries[] = { link, "lib/python3.11/os.py=1\n", SITE "a=1", NULL };
		struct packed p;

		(void)snprintf(link, sizeof(link), "bin/python3@%s", targets[i]);
		pack(entries, &p);
		assert_string_equal(said(&p, "kind"), "tree");
		done(&p);
	}
}

static void test_same_bytes(void **state)
{
	static const char *const entries[] = { VENV, "bin/script=#!/usr/bin/env python3\n",
					       SITE "dev.pth=/src/dev\n", NULL };
	struct packed a, b;

	pack(entries, &a);
	pack(entries, &b);
	assert_int_equal(a.bytes.size, b.bytes.size);
	assert_memory_equal(a.bytes.data, b.bytes.data, a.bytes.size);
	done(&a);
	done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_wanted_kinds),
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_scripts_elsewhere),
		cmocka_unit_test(test_activate),
		cmocka_unit_test(test_platform),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_warnings_are_bounded_and_printable),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_same_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
