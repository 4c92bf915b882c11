/* SPDX-License-Identifier: Apache-2.0 */
/* Which Python an environment is for, and what its compiled files are worth. */
#include "check.h"

#include "tree.h"
#include "util/bytes.h"

#define MAGIC 0x0a0d0da7u
#define MTIME 1700000000
#define SITE "lib/python3.11/site-packages"

struct state {
	struct thaw_tree *tree;
	struct thaw_bytecode found;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	assert_int_equal(thaw_tree_new(1000, &s->tree), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_tree_free(s->tree);
	free(s);
	return 0;
}

static void add(struct state *s, const char *path, uint64_t size, const uint8_t *head)
{
	struct thaw_member member = { .path = path, .path_len = strlen(path), .type = THAW_REGULAR,
				      .mtime = MTIME, .size = size, .head = head };
	struct thaw_error err;

	assert_success(thaw_tree_add(s->tree, &member, &err), &err);
}

static void add_pyc(struct state *s, const char *path, uint32_t magic, uint32_t flags, uint32_t a,
		    uint32_t b)
{
	uint8_t head[THAW_PYC_HEADER];

	put_le32(head, magic);
	put_le32(head + 4, flags);
	put_le32(head + 8, a);
	put_le32(head + 12, b);
	add(s, path, 100, head);
}

static void expect(struct state *s, const char *python, uint64_t valid, uint64_t stale, uint64_t missing)
{
	thaw_tree_bytecode(s->tree, &s->found);
	assert_string_equal(s->found.python, python);
	assert_int_equal(s->found.valid, valid);
	assert_int_equal(s->found.stale, stale);
	assert_int_equal(s->found.missing, missing);
}

static void nothing(void **state)
{
	expect(*state, "", 0, 0, 0);
	add(*state, "bin/python", 10, NULL);
	add(*state, "m.py", 10, NULL);
	expect(*state, "", 0, 0, 0);
}

static void pythons(void **state)
{
	struct state *s = *state;

	add(s, "lib/python3/site-packages/x", 1, NULL); /* Debian's: no version */
	add(s, "lib/python3.x/site-packages/x", 1, NULL);
	add(s, "lib/python3.9/no-library", 1, NULL);
	expect(s, "", 0, 0, 0);
	add(s, "lib/python3.9/site-packages/x", 1, NULL);
	expect(s, "3.9", 0, 0, 0);
	add(s, "lib/python3.11/os.py", 1, NULL);
	thaw_tree_bytecode(s->tree, &s->found);
	assert_string_equal(s->found.python, "3.11"); /* numbers, not text: 11 > 9 */
	add(s, "lib/python3.12abc/site-packages/x", 1, NULL);
	add(s, "elsewhere/lib/python3.13/site-packages/x", 1, NULL);
	thaw_tree_bytecode(s->tree, &s->found);
	assert_string_equal(s->found.python, "3.11");
}

static void valid(void **state)
{
	struct state *s = *state;

	add(s, SITE "/m.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/m.cpython-311.pyc", MAGIC, 0, MTIME, 77);
	expect(s, "3.11", 1, 0, 0);
}

static void stale(void **state)
{
	struct state *s = *state;

	/* Enough good ones that the magic is known. */
	add(s, SITE "/a.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/a.cpython-311.pyc", MAGIC, 0, MTIME, 77);
	add(s, SITE "/b.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/b.cpython-311.pyc", MAGIC, 0, MTIME, 77);
	expect(s, "3.11", 2, 0, 0);
	add(s, SITE "/time.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/time.cpython-311.pyc", MAGIC, 0, MTIME + 1, 77);
	expect(s, "3.11", 2, 1, 0);
	add(s, SITE "/size.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/size.cpython-311.pyc", MAGIC, 0, MTIME, 78);
	expect(s, "3.11", 2, 2, 0);
	add(s, SITE "/magic.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/magic.cpython-311.pyc", MAGIC + 1, 0, MTIME, 77);
	expect(s, "3.11", 2, 3, 0);
	add(s, SITE "/short.py", 77, NULL);
	add(s, SITE "/__pycache__/short.cpython-311.pyc", 10, NULL);
	expect(s, "3.11", 2, 4, 0);
	/* Bits that Python does not know: it refuses the file. */
	add(s, SITE "/bits.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/bits.cpython-311.pyc", MAGIC, 5, MTIME, 77);
	expect(s, "3.11", 2, 5, 0);
	/* Bit 1 means nothing without bit 0, as in importlib. */
	add(s, SITE "/flags.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/flags.cpython-311.pyc", MAGIC, 2, MTIME, 77);
	expect(s, "3.11", 3, 5, 0);
}

static void hash_based(void **state)
{
	struct state *s = *state;

	add(s, SITE "/unchecked.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/unchecked.cpython-311.pyc", MAGIC, 1, 0x1234, 0x5678);
	add(s, SITE "/checked.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/checked.cpython-311.pyc", MAGIC, 3, 0x1234, 0x5678);
	expect(s, "3.11", 2, 0, 0);
}

static void missing(void **state)
{
	struct state *s = *state;

	add(s, SITE "/m.py", 77, NULL);
	add(s, SITE "/p/__init__.py", 77, NULL);
	expect(s, "3.11", 0, 0, 2);
	/* Another Python's does not help, and is nobody's. */
	add_pyc(s, SITE "/__pycache__/m.cpython-310.pyc", MAGIC, 0, MTIME, 77);
	expect(s, "3.11", 0, 0, 2);
	/* Nor do those for -O. */
	add_pyc(s, SITE "/__pycache__/m.cpython-311.opt-1.pyc", MAGIC, 0, MTIME, 77);
	expect(s, "3.11", 0, 0, 2);
	/* Outside of the library nobody imports. */
	add(s, "share/script.py", 77, NULL);
	expect(s, "3.11", 0, 0, 2);
	add_pyc(s, SITE "/__pycache__/m.cpython-311.pyc", MAGIC, 0, MTIME, 77);
	expect(s, "3.11", 1, 0, 1);
}

static void without_source(void **state)
{
	struct state *s = *state;

	add(s, SITE "/m.py", 77, NULL);
	add_pyc(s, SITE "/__pycache__/gone.cpython-311.pyc", MAGIC, 0, MTIME, 77);
	add_pyc(s, SITE "/sourceless.pyc", MAGIC, 0, MTIME, 77);
	add_pyc(s, SITE "/__pycache__/.pyc", MAGIC, 0, MTIME, 77);
	add_pyc(s, SITE "/__pycache__/notag.pyc", MAGIC, 0, MTIME, 77);
	expect(s, "3.11", 0, 0, 1);
}

/* The magic that most have is right, whichever comes first. */
static void majority(void **state)
{
	struct state *s = *state;
	char path[100];

	for (unsigned i = 0; i < 5; i++) {
		(void)snprintf(path, sizeof(path), SITE "/m%u.py", i);
		add(s, path, 77, NULL);
		(void)snprintf(path, sizeof(path), SITE "/__pycache__/m%u.cpython-311.pyc", i);
		add_pyc(s, path, i < 2 ? MAGIC + 9 : MAGIC, 0, MTIME, 77);
	}
	expect(s, "3.11", 3, 2, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(nothing), TEST(pythons), TEST(valid), TEST(stale), TEST(hash_based),
		TEST(missing), TEST(without_source), TEST(majority),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
