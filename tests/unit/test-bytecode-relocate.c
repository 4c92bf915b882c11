/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytecode of relocated sources: what is found in it, what it becomes, and when
 * it counts. The reference is a compiler: what it makes of the source at a prefix
 * must be what rendering gives, to the byte.
 */
#include "check.h"
#include "failing-malloc.h"

#include <glob.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer-internal.h"
#include "marshal.h"
#include "thaw/bytecode.h"
#include "thaw/extract.h"
#include "thaw/layer.h"
#include "thaw/rewrite.h"
#include "util/bytes.h"

#define PLACEHOLDER "/build/of/conda/placehold_placehold_placehold_placehold_env"
#define TEN(text)   text text text text text text text text text text

/* -- an image with relocated sources -- */

struct state {
	char *directory, *path, *store;
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_error err;
};

static void open_it(struct state *s)
{
	s->reader = thaw_reader_free(s->reader);
	s->image = thaw_image_free(s->image);
	assert_success(open_path(s->path, &s->err, &s->image), &s->err);
	assert_int_equal(thaw_reader_new(s->image, 0, &s->reader), 0);
}

#define SCRIPT "#!" PLACEHOLDER "/bin/python3\nP = '" PLACEHOLDER "/script'\n"
#define ROOM   1000u

static struct thaw_site site(uint64_t offset, enum thaw_relocation_kind kind,
			     const char *placeholder, const char *suffix, uint32_t room)
{
	return (struct thaw_site){
		offset,
		{ kind, placeholder, strlen(placeholder), suffix, strlen(suffix), room },
	};
}

/* A script, as live prefixes have them, and a source that is taken for binary. */
static void add_sources(struct state *s)
{
	const struct thaw_site of_script[] = {
		site(2, THAW_RELOCATION_SHEBANG, PLACEHOLDER "/bin/python3",
		     "/bin/python3", 0),
		site(strstr(SCRIPT, "'") - SCRIPT + 1, THAW_RELOCATION_TEXT, PLACEHOLDER,
		     "", 0),
	};
	const struct thaw_site of_binary[] = {
		site(0, THAW_RELOCATION_BINARY, PLACEHOLDER, "", ROOM),
	};
	uint8_t binary[ROOM + 1] = PLACEHOLDER;
	const struct thaw_addition additions[] = {
		{ .path = "m/script.py",
		  .data = (const uint8_t *)SCRIPT,
		  .size = strlen(SCRIPT),
		  .sites = of_script,
		  .site_count = 2 },
		{ .path = "m/binary.py",
		  .data = binary,
		  .size = sizeof(binary),
		  .sites = of_binary,
		  .site_count = 1 },
	};
	const struct thaw_rewrite what = { .force = true,
					   .additions = additions,
					   .addition_count = 2 };
	struct thaw_image_info info;

	assert_success(thaw_rewrite(s->image, s->path, &what, &s->err, &info), &s->err);
	open_it(s);
}

static int setup(void **state)
{
	struct thaw_pack_options options = { .level = 1, .force = true };
	struct state *s = calloc(1, sizeof(*s));
	struct thaw_pack_report report;
	_buffer_ tar = { 0 };

	s->directory = make_directory();
	s->path = join_path(s->directory, "image");
	s->store = join_path(s->directory, "store");
	tar_text(&tar, "bin/conda-unpack",
		 "#!/usr/bin/env python\n_prefix_records = [\n"
		 "('m/module.py', '" PLACEHOLDER "', 'text')\n]\nprint('done')\n");
	tar_text(&tar, "conda-meta/history", "");
	tar_text(&tar, "m/module.py", "P = '" PLACEHOLDER "/m'\n# " PLACEHOLDER "\n");
	tar_text(&tar, "m/__pycache__/module.cpython-311.opt-1.pyc", "not relocated");
	tar_text(&tar, "m/__pycache__/script.cpython-311.pyc", "replaced");
	tar_end(&tar);
	assert_success(pack_bytes(&tar, s->path, &options, &s->err, &report), &s->err);
	open_it(s);
	add_sources(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_reader_free(s->reader);
	thaw_image_free(s->image);
	remove_directory(s->directory);
	free(s->path);
	free(s->store);
	free(s);
	return 0;
}

static uint32_t ino_of(const struct state *s, const char *path)
{
	struct thaw_inode inode;

	assert_int_equal(thaw_image_find(s->image, path, &inode), 0);
	return inode.ino;
}

static int find_sites(const struct state *s, const char *source, const struct buffer *pyc,
		      struct thaw_site **ret_sites, size_t *ret_count)
{
	return thaw_bytecode_sites(s->image, ino_of(s, source), pyc->data, pyc->size,
				   ret_sites, ret_count);
}

static int render(const struct buffer *pyc, const struct thaw_site *sites, size_t count,
		  const char *prefix, struct buffer *ret_rendered)
{
	const struct thaw_bytecode_sites all = { .array = sites, .count = count };

	return thaw_bytecode_render(pyc->data, pyc->size, &all, prefix,
				    &ret_rendered->data, &ret_rendered->size);
}

/* -- real compilers -- */

/* "@P@" is the path. All that compilers put into constants. */
static const char everything[] =
	"\"\"\"Module at @P@.\"\"\"\n"
	"from __future__ import annotations\n"
	"import os.path as name\n"
	"SHORT = '@P@/share'\n"
	"TWICE = '@P@:@P@/bin:@P'\n"
	"SAME = '@P@/share'\n"
	"EDGE = '@P@ 150 more: " TEN("0123456789abcde") "'\n"
	"OTHER = '@P@ 240 more: " TEN("0123456789abcdefghijklmn") "'\n"
	"LONG = '" TEN("0123456789abcdefghijklmnopqrs ") "@P@'\n"
	"PLAIN = '" TEN("0123456789abcdefghijklmnopqrs ") "'\n"
	"WIDE = '\xc3\xa4@P@\xf0\x9f\x90\x8d'\n"
	"SURROGATE = '\\udc80@P@'\n"
	"TUPLE = ('@P@', 1, -5, 2**70, -2**40, 1.5, 2j, None, True, ..., ('@P@/in', b'raw'))\n"
	"DICT = {'@P@/k': 1, 'identifier': 'identifier'}\n"
	"def f(a, b='@P@/default', *c, d: '@P@/annotation' = None, **e) -> '@P@/result':\n"
	"    \"\"\"At @P@.\"\"\"\n"
	"    x = lambda: ('@P@/lambda', a)\n"
	"    class K:\n"
	"        \"class at @P@\"\n"
	"        y = f'{a}@P@/{b!r:>10}'\n"
	"    try:\n"
	"        return [z for z in (x, K, '@P@/share')]\n"
	"    except (OSError, ValueError) as error:\n"
	"        raise RuntimeError('@P@') from error\n"
	"async def g():\n"
	"    async with f('@P@/with') as h:\n"
	"        yield h\n";
static const char ascii_only[] = "B = b'@P@/bytes'\nC = ('@P@/text', b'@P@:@P@', b'@P')\n";

static const char *const prefixes[] = {
	PLACEHOLDER,
	"/x",
	"/opt/of/equal/length/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", /* 59 as well */
	"/one that/is much longer/than the/one that/it was/compiled for/and/has blanks in it",
	"/" TEN("longer than 255 bytes/altogether"),
	/* not ASCII: the second half */
	"/\xc3\xa4",
	"/" TEN("l\xc3\xb6ng and wide/\xf0\x9f\x90\x8d/\xe2\x82\xac/ABCDEFGHIJ"),
};
#define ASCII_PREFIXES 5

/* For each prefix a .pyc, as thaw_compile() has them made. */
static const char compiler[] =
	"import importlib._bootstrap_external as b, os, sys\n"
	"out, template, prefixes = sys.argv[1], sys.argv[2], sys.argv[3:]\n"
	"template = open(template, 'rb').read()\n"
	"for i, prefix in enumerate(prefixes):\n"
	"    text = template.replace(b'@P@', os.fsencode(prefix))\n"
	"    code = compile(text, 'm/module.py', 'exec', dont_inherit=True)\n"
	"    data = b._code_to_hash_pyc(code, bytes(8), False)\n"
	"    open(os.path.join(out, str(i)), 'wb').write(data)\n"
	"    del code, data, text\n"
	"print(sys.version_info[1])\n";

/* The minor version of what compiled; 0: it cannot. */
static int run_compiler(const char *python, const char *directory, const char *template,
			size_t count)
{
	const char *argv[16] = { python, "-I", "-S", "-X", "no_debug_ranges",
				 "-c", compiler, directory, template };
	char text[16] = "";
	int fds[2], status = -1;
	pid_t pid;

	for (size_t i = 0; i < count; i++)
		argv[9 + i] = prefixes[i];
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		(void)dup2(fds[1], 1);
		(void)freopen("/dev/null", "w", stderr);
		(void)setenv("PYTHONHASHSEED", "0", 1);
		execvp(python, (char *const *)argv);
		_exit(127);
	}
	(void)close(fds[1]);
	(void)!read(fds[0], text, sizeof(text) - 1);
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status == 0 ? atoi(text) : 0;
}

static void read_pyc(const char *directory, size_t number, struct buffer *pyc)
{
	char name[16];
	char *path;

	(void)snprintf(name, sizeof(name), "%zu", number);
	path = join_path(directory, name);
	read_file(path, pyc);
	free(path);
}

static void compare_pycs(const struct state *s, int minor, size_t count)
{
	struct thaw_site *sites;
	size_t site_count;
	_buffer_ pyc = { 0 };

	read_pyc(s->directory, 0, &pyc);
	assert_int_equal(find_sites(s, "m/module.py", &pyc, &sites, &site_count), 0);
	assert_true(site_count > 2);
	for (size_t i = 0; i < count; i++) {
		_buffer_ expected = { 0 };
		_buffer_ got = { 0 };

		read_pyc(s->directory, i, &expected);
		assert_true(thaw_bytecode_prefix(prefixes[i]));
		assert_int_equal(render(&pyc, sites, site_count, prefixes[i], &got), 0);
		if (got.size != expected.size ||
		    memcmp(got.data, expected.data, got.size) != 0)
			fail_msg("3.%d: another bytecode at prefix %zu", minor, i);
	}
	free(sites);
}

/* 1: it was compared; 0: it is too old, or does not run. */
static int try_python(const struct state *s, const char *python, const char *source,
		      size_t count)
{
	char *template = join_path(s->directory, "template");
	int minor;

	write_file(template, source, strlen(source));
	minor = run_compiler(python, s->directory, template, count);
	free(template);
	if (minor > 14 || minor < 8)
		return 0;
	compare_pycs(s, minor, count);
	return 1;
}

/* The one that builds use, and those of pyenv if there are any. */
static void like_compilers(void **state)
{
	struct state *s = *state;
	const char *home = getenv("HOME");
	char pattern[512];
	glob_t found = { 0 };
	int compared = 0;

	(void)snprintf(pattern, sizeof(pattern), "%s/.pyenv/versions/3.*/bin/python3",
		       home ? home : "");
	(void)glob(pattern, 0, NULL, &found);
	compared += try_python(s, "python3", everything, ARRAY_SIZE(prefixes));
	compared += try_python(s, "python3", ascii_only, ASCII_PREFIXES);
	assert_int_equal(compared, 2);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		(void)try_python(s, found.gl_pathv[i], everything, ARRAY_SIZE(prefixes));
		(void)try_python(s, found.gl_pathv[i], ascii_only, ASCII_PREFIXES);
	}
	globfree(&found);
}

/* -- bytecode made by hand: Python 3.11's -- */

static void put_u32(struct buffer *out, uint32_t value)
{
	uint8_t bytes[4];

	put_le32(bytes, value);
	buffer_add(out, bytes, 4);
}

static void put_string(struct buffer *out, char type, const char *text)
{
	uint8_t length = (uint8_t)strlen(text);

	buffer_add(out, &type, 1);
	if ((type & 0x7F) == 'z' || (type & 0x7F) == 'Z')
		buffer_add(out, &length, 1);
	else
		put_u32(out, (uint32_t)strlen(text));
	buffer_add(out, text, strlen(text));
}

static void put_code(struct buffer *out, const struct buffer *constants, const char *name)
{
	buffer_add(out, "\xe3", 1); /* 'c', can be referred to */
	for (int i = 0; i < 5; i++)
		put_u32(out, 0);
	put_string(out, 's', "\x97");
	buffer_add(out, constants->data, constants->size);
	buffer_add(out, ")\0)\0", 4);
	put_string(out, 's', "");
	put_string(out, 'z', "m/module.py");
	put_string(out, 'Z', name);
	put_string(out, 'Z', name);
	put_u32(out, 1);
	put_string(out, 's', "\x01");
	put_string(out, 's', "");
}

#define HEAD_311 "\xa7\r\r\n\1\0\0\0hashhash"

static void make_pyc(struct buffer *out, const void *constants, size_t size,
		     const char *name)
{
	struct buffer all = { .data = (uint8_t *)constants, .size = size };

	buffer_add(out, HEAD_311, PYC_HEADER);
	put_code(out, &all, name);
}
#define MAKE_PYC(out, constants) make_pyc(out, constants, sizeof(constants) - 1, "<module>")

#define LENGTH "\x3b" /* of the placeholder */
_Static_assert(sizeof(PLACEHOLDER) - 1 == 0x3b, "as strings made by hand say");
#define SITE_STRING "z" LENGTH PLACEHOLDER

/* 0x29 is a tuple's type, then how many there are. */
static void sites_found(void **state)
{
	struct state *s = *state;
	struct thaw_site *sites;
	size_t count;
	_buffer_ pyc = { 0 };
	_buffer_ got = { 0 };
	_buffer_ again = { 0 };

	MAKE_PYC(&pyc, ")\3" SITE_STRING "N\xda" LENGTH PLACEHOLDER);
	assert_int_equal(find_sites(s, "m/module.py", &pyc, &sites, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(sites[0].rule.kind, THAW_RELOCATION_BYTECODE);
	assert_int_equal(sites[0].offset, 0);
	assert_memory_equal(sites[0].rule.placeholder, HEAD_311, THAW_BYTECODE_HEAD);
	for (size_t i = 1; i < 3; i++) {
		assert_int_equal(sites[i].rule.kind, THAW_RELOCATION_CONSTANT);
		assert_int_equal(sites[i].rule.placeholder_len, strlen(PLACEHOLDER));
		assert_memory_equal(sites[i].rule.placeholder, PLACEHOLDER,
				    strlen(PLACEHOLDER));
	}
	assert_int_equal(pyc.data[sites[1].offset], 'z');
	assert_int_equal(pyc.data[sites[2].offset], 'Z' | MARSHAL_REF);
	/* interned stays interned, and what can be referred to stays that */
	assert_int_equal(render(&pyc, sites, count, "/\xc3\xa4", &got), 0);
	assert_int_equal(got.data[sites[1].offset], 'u');
	assert_memory_equal(got.data + sites[1].offset + 1, "\3\0\0\0/\xc3\xa4N\xf4", 9);
	assert_int_equal(render(&pyc, sites, count, PLACEHOLDER, &again), 0);
	assert_int_equal(again.size, pyc.size);
	assert_memory_equal(again.data, pyc.data, pyc.size);
	/* the last that is short, and the first that is not */
	for (size_t len = 255; len <= 256; len++) {
		char prefix[257] = "";
		_buffer_ edge = { 0 };

		memset(prefix, 'p', len);
		assert_int_equal(render(&pyc, sites, count, prefix, &edge), 0);
		assert_memory_equal(edge.data + sites[1].offset,
				    len == 255 ? "z\xffp" : "a\0\1\0\0p",
				    len == 255 ? 3 : 6);
	}
	free(sites);
}

static void assert_unknown(const struct state *s, const struct buffer *pyc)
{
	struct thaw_site *sites;
	size_t count;

	assert_int_equal(find_sites(s, "m/module.py", pyc, &sites, &count),
			 THAW_NOT_FOUND);
}

static void not_understood(void **state)
{
	static const struct {
		const char *constants;
		size_t size;
		const char *name;
	} cases[] = {
#define CONSTANTS(text) text, sizeof(text) - 1
		{ CONSTANTS(")\1" SITE_STRING), PLACEHOLDER }, /* in a name */
		{ CONSTANTS(")\2" SITE_STRING "r\3\0\0\0"), "n" }, /* no such object */
		{ CONSTANTS(")\2" SITE_STRING "[\0\0\0\0"), "n" }, /* a list */
		{ CONSTANTS(")\2" SITE_STRING "\xce"), "n" },	    /* None to be referred to */
		{ CONSTANTS(")\2" SITE_STRING "0"), "n" },	    /* NULL */
		{ CONSTANTS(")\3" SITE_STRING "N"), "n" },	    /* one too few */
		{ CONSTANTS(")\1" SITE_STRING "N"), "n" },	    /* one too many */
		{ CONSTANTS(")\2" SITE_STRING "l\0\0\0\x80"), "n" },
		{ CONSTANTS(")\2" SITE_STRING "(\xff\xff\xff\xff"), "n" },
		{ CONSTANTS(")\2" SITE_STRING "u\xff\xff\xff\xff"), "n" },
	};
	struct state *s = *state;
	_buffer_ whole = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_buffer_ pyc = { 0 };

		make_pyc(&pyc, cases[i].constants, cases[i].size, cases[i].name);
		assert_unknown(s, &pyc);
	}
	MAKE_PYC(&whole, ")\1" SITE_STRING);
	for (size_t size = 0; size < whole.size; size++) {
		/* in memory of its own, so that reading beyond it is seen */
		_buffer_ cut = { 0 };

		buffer_add(&cut, whole.data, size);
		assert_unknown(s, &cut);
	}
	for (unsigned flags = 0; flags < 4; flags++) {
		struct thaw_site *sites;
		size_t count;

		whole.data[4] = (uint8_t)flags;
		if (flags != PYC_UNCHECKED) {
			assert_unknown(s, &whole);
			continue;
		}
		assert_int_equal(find_sites(s, "m/module.py", &whole, &sites, &count), 0);
		free(sites);
		assert_int_equal(find_sites(s, "bin/conda-unpack", &whole, &sites, &count),
				 THAW_NOT_FOUND);
	}
	whole.data[4] = PYC_UNCHECKED;
	whole.data[0]++; /* another Python */
	assert_unknown(s, &whole);
	whole.data[0]--;
	buffer_add(&whole, "N", 1);
	assert_unknown(s, &whole);
}

/* As deep as CPython goes, and no deeper than our stack does. */
static void deep_nesting(void **state)
{
	struct state *s = *state;
	struct thaw_site *sites;
	size_t count;

	for (unsigned depth = 900; depth <= 100000; depth += 99100) {
		_buffer_ constants = { 0 };
		_buffer_ pyc = { 0 };

		for (unsigned i = 0; i < depth; i++)
			buffer_add(&constants, ")\1", 2);
		buffer_add(&constants, "N", 1);
		make_pyc(&pyc, constants.data, constants.size, "n");
		if (depth > 1000) {
			assert_unknown(s, &pyc);
			continue;
		}
		assert_int_equal(find_sites(s, "m/module.py", &pyc, &sites, &count), 0);
		assert_int_equal(count, 1);
		free(sites);
	}
}

/* Sites that an image may claim. */
static void sites_that_lie(void **state)
{
	struct state *s = *state;
	struct thaw_site *sites, wrong[3];
	size_t count;
	_buffer_ pyc = { 0 };
	_buffer_ got = { 0 };

	MAKE_PYC(&pyc, ")\2" SITE_STRING "z\2no");
	assert_int_equal(find_sites(s, "m/module.py", &pyc, &sites, &count), 0);
	assert_int_equal(count, 2);
#define WRONG(which, field, value)                                                  \
	do {                                                                        \
		memcpy(wrong, sites, 2 * sizeof(*sites));                           \
		wrong[2] = sites[1];                                                \
		wrong[which].field = (value);                                       \
		assert_int_equal(render(&pyc, wrong, which == 2 ? 3 : 2, "/x", &got), \
				 -EBADMSG);                                         \
	} while (0)
	WRONG(0, offset, 1);
	WRONG(0, rule.kind, THAW_RELOCATION_CONSTANT);
	WRONG(0, rule.placeholder, "other it");
	WRONG(0, rule.placeholder_len, 7);
	WRONG(1, offset, sites[1].offset - 1); /* no string begins there */
	WRONG(1, offset, sites[1].offset + 61); /* one without the path */
	WRONG(1, offset, pyc.size);
	WRONG(1, offset, UINT64_MAX);
	WRONG(1, offset, 4);
	WRONG(1, rule.kind, THAW_RELOCATION_TEXT);
	WRONG(2, offset, sites[1].offset); /* twice */
	WRONG(2, offset, sites[1].offset + 2);
	free(sites);
}

/* What it becomes is bounded, however often the path stands there. */
static void no_bomb(void **state)
{
	struct thaw_site sites[2] = { 0 };
	char *prefix = malloc(4001);
	size_t len = 1u << 20;
	_buffer_ pyc = { 0 };
	_buffer_ got = { 0 };

	(void)state;
	memset(prefix, 'x', 4000);
	prefix[4000] = '\0';
	buffer_add(&pyc, HEAD_311 "a", PYC_HEADER + 1);
	put_u32(&pyc, (uint32_t)len);
	buffer_add_zeros(&pyc, len);
	memset(pyc.data + pyc.size - len, '/', len);
	sites[0].rule = (struct thaw_relocation_rule){ THAW_RELOCATION_BYTECODE, HEAD_311,
						       THAW_BYTECODE_HEAD, "", 0, 0 };
	sites[1].offset = PYC_HEADER;
	sites[1].rule = (struct thaw_relocation_rule){ THAW_RELOCATION_CONSTANT, "//", 2,
						       "", 0, 0 };
	assert_int_equal(render(&pyc, sites, 2, prefix, &got), -EBADMSG);
	assert_int_equal(render(&pyc, sites, 2, "/x/", &got), 0);
	assert_int_equal(got.size, PYC_HEADER + 5 + len / 2 * 3);
	free(prefix);
}

static void prefixes_that_may(void **state)
{
	static const char *const good[] = { "/", "/a b", "/\xc3\xa4", "/\xf0\x9f\x90\x8d",
					    "/$x`#~!*" };
	static const char *const bad[] = {
		"/it's", "/\"", "/\\", "/{", "/}", "/%s", "/\n", "/\x7f", "/\x1f", "/\x80",
		"/\xc0\xaf", "/\xc3", "/\xed\xa0\x80", "/\xf4\x90\x80\x80", "/\xe2\x82",
		"/\xf5\x80\x80\x80", "/\xe0\x80\x80", "/\xf0\x80\x80\x80",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(thaw_bytecode_prefix(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (thaw_bytecode_prefix(bad[i]))
			fail_msg("%zu", i);
}

/* -- sources -- */

static void assert_source(struct state *s, const char *path, const char *prefix,
			  const char *expected)
{
	char *text;
	size_t size;

	assert_success(thaw_bytecode_source(s->image, s->reader, ino_of(s, path), prefix,
					    &s->err, &text, &size),
		       &s->err);
	assert_int_equal(size, strlen(expected));
	assert_memory_equal(text, expected, size);
	free(text);
}

static void sources(void **state)
{
	struct state *s = *state;
	char *text;
	size_t size;

	assert_source(s, "m/module.py", NULL,
		      "P = '" PLACEHOLDER "/m'\n# " PLACEHOLDER "\n");
	assert_source(s, "m/module.py", "/x", "P = '/x/m'\n# /x\n");
	assert_source(s, "m/script.py", NULL, SCRIPT);
	/* a first line is a comment, however long */
	assert_source(s, "m/script.py", "/x",
		      "#!" PLACEHOLDER "/bin/python3\nP = '/x/script'\n");
	assert_int_equal(thaw_bytecode_source(s->image, s->reader,
					      ino_of(s, "m/binary.py"), "/x", &s->err,
					      &text, &size),
			 THAW_NOT_FOUND);
	assert_int_equal(thaw_bytecode_source(s->image, s->reader,
					      ino_of(s, "conda-meta/history"), "/x",
					      &s->err, &text, &size),
			 THAW_NOT_FOUND);
}

/* -- layers -- */

#define MODULE "m/__pycache__/module.cpython-311.pyc"
#define SCRIPT_PYC "m/__pycache__/script.cpython-311.pyc"

/* Put bytecode with these constants into the image for both sources. */
static void add_bytecode(struct state *s, const char *constants, size_t size)
{
	struct thaw_addition additions[2] = { { .path = MODULE }, { .path = SCRIPT_PYC } };
	static const char *const names[2] = { "m/module.py", "m/script.py" };
	struct thaw_rewrite what = { .force = true,
				     .additions = additions,
				     .addition_count = 2 };
	struct thaw_image_info info;
	_buffer_ pyc = { 0 };

	make_pyc(&pyc, constants, size, "<module>");
	for (size_t i = 0; i < 2; i++) {
		struct thaw_site *sites;

		assert_int_equal(find_sites(s, names[i], &pyc, &sites,
					    &additions[i].site_count),
				 0);
		additions[i].sites = sites;
		additions[i].data = pyc.data;
		additions[i].size = pyc.size;
	}
	assert_success(thaw_rewrite(s->image, s->path, &what, &s->err, &info), &s->err);
	for (size_t i = 0; i < 2; i++)
		free((void *)additions[i].sites);
	open_it(s);
}

/* What a layer does with a file: 'r' rendered, 'k' left as it is, 'h' hidden. */
static char in_layer(struct state *s, const char *prefix, const char *path)
{
	struct thaw_layer_options options = { .prefix = prefix, .store = s->store };
	char *tree, *file;
	struct stat st;
	char what = 'k';

	assert_success(
		thaw_layer_render(s->image, s->reader, &options, &s->err, &tree),
		&s->err);
	assert_non_null(tree);
	file = join_path(tree, path);
	if (lstat(file, &st) == 0)
		what = S_ISREG(st.st_mode) && st.st_size > 0 ? 'r' : 'h';
	free(file);
	free(tree);
	return what;
}

static void layers(void **state)
{
	static const char constants[] = ")\1" SITE_STRING;
	static const char long_prefix[] = "/" TEN("0123456789ab");
	struct state *s = *state;
	struct thaw_layer_options options = { .prefix = "/new", .store = s->store };
	_buffer_ expected = { 0 };
	_buffer_ got = { 0 };
	char *tree, *file;

	/* as it came: nothing that was compiled elsewhere counts */
	assert_int_equal(in_layer(s, "/new", SCRIPT_PYC), 'h');
	add_bytecode(s, constants, sizeof(constants) - 1);
	assert_int_equal(in_layer(s, "/new", MODULE), 'r');
	assert_int_equal(in_layer(s, "/new", SCRIPT_PYC), 'r');
	assert_int_equal(in_layer(s, "/new", "m/__pycache__/module.cpython-311.opt-1.pyc"),
			 'h');
	/* three lines in place of the first: others than were compiled */
	assert_int_equal(in_layer(s, long_prefix, MODULE), 'r');
	assert_int_equal(in_layer(s, long_prefix, SCRIPT_PYC), 'h');
	assert_int_equal(in_layer(s, "/with blank", SCRIPT_PYC), 'h');
	assert_int_equal(in_layer(s, "/with blank", MODULE), 'r');
	assert_int_equal(in_layer(s, "/it's", MODULE), 'h');
	/* the very prefix: only bin/conda-unpack differs */
	assert_int_equal(in_layer(s, PLACEHOLDER, MODULE), 'k');
	assert_int_equal(in_layer(s, PLACEHOLDER, "bin/conda-unpack"), 'r');

	assert_success(thaw_layer_render(s->image, s->reader, &options, &s->err, &tree),
		       &s->err);
	file = join_path(tree, MODULE);
	read_file(file, &got);
	MAKE_PYC(&expected, ")\1z\4/new");
	assert_int_equal(got.size, expected.size);
	assert_memory_equal(got.data, expected.data, got.size);
	free(file);
	free(tree);
}

/* Without a place of the path it counts as well, and stays where it is. */
static void without_constants(void **state)
{
	struct state *s = *state;

	add_bytecode(s, ")\1N", 3);
	assert_int_equal(in_layer(s, "/new", MODULE), 'k');
	assert_int_equal(in_layer(s, "/it's", MODULE), 'h');
	assert_int_equal(in_layer(s, "/new", "m/module.py"), 'r');
}

static void ignore_fault(void *userdata, const char *fault)
{
	(*(unsigned *)userdata)++;
	assert_non_null(strstr(fault, "relocations"));
}

static void verified(void **state)
{
	static const char constants[] = ")\1" SITE_STRING;
	struct state *s = *state;
	struct thaw_addition lie = { .path = MODULE };
	struct thaw_rewrite what = { .force = true, .additions = &lie, .addition_count = 1 };
	struct thaw_verify_result result;
	struct thaw_image_info info;
	unsigned faults = 0;
	_buffer_ pyc = { 0 };
	struct thaw_site *sites;

	add_bytecode(s, constants, sizeof(constants) - 1);
	assert_success(thaw_verify(s->image, NULL, ignore_fault, &faults, &s->err, &result),
		       &s->err);
	assert_int_equal(result.bad_sites, 0);
	assert_int_equal(faults, 0);

	MAKE_PYC(&pyc, constants);
	assert_int_equal(find_sites(s, "m/module.py", &pyc, &sites, &lie.site_count), 0);
	sites[1].offset++;
	lie.sites = sites;
	lie.data = pyc.data;
	lie.size = pyc.size;
	assert_success(thaw_rewrite(s->image, s->path, &what, &s->err, &info), &s->err);
	open_it(s);
	assert_success(thaw_verify(s->image, NULL, ignore_fault, &faults, &s->err, &result),
		       &s->err);
	assert_int_equal(result.bad_sites, 1);
	assert_int_equal(faults, 1);
	free(sites);
}

/* All of it, with the n-th allocation failing; 0 or a negative errno. */
static int all_steps(struct state *s, const struct buffer *pyc)
{
	struct thaw_site *sites;
	char *text;
	uint8_t *rendered;
	size_t count, size;
	int r;

	r = thaw_bytecode_source(s->image, s->reader, ino_of(s, "m/module.py"), "/x",
				 &s->err, &text, &size);
	if (r != 0)
		return r;
	free(text);
	r = find_sites(s, "m/module.py", pyc, &sites, &count);
	if (r == 0) {
		const struct thaw_bytecode_sites all = { .array = sites, .count = count };

		r = thaw_bytecode_render(pyc->data, pyc->size, &all, "/x", &rendered,
					 &size);
		free(sites);
	}
	if (r == 0)
		free(rendered);
	return r;
}

static void no_memory(void **state)
{
	struct state *s = *state;
	_buffer_ pyc = { 0 };
	long n = 0;
	int r;

	MAKE_PYC(&pyc, ")\1" SITE_STRING);
	assert_int_equal(all_steps(s, &pyc), 0); /* fills the reader's cache */
	do {
		allocation_failed = false;
		allocations_left = n++;
		r = all_steps(s, &pyc);
		allocations_left = -1;
		assert_int_equal(r, allocation_failed ? -ENOMEM : 0);
	} while (r != 0);
	assert_true(n > 4);
}

int main(void)
{
#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(like_compilers),	 CASE(sites_found),
		CASE(not_understood),	 CASE(deep_nesting),
		CASE(sites_that_lie),	 CASE(sources),
		CASE(layers),		 CASE(without_constants),
		CASE(verified),		 CASE(no_memory),
		cmocka_unit_test(no_bomb),
		cmocka_unit_test(prefixes_that_may),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
