/* SPDX-License-Identifier: Apache-2.0 */
/* Members of tar streams: what is found, whatever the blocks, and what is refused. */
#include "check.h"

#include "tree.h"

struct stream {
	const struct buffer *bytes;
	size_t at, step;
	size_t fail_at; /* pull fails from here on; SIZE_MAX: never */
};

static int pull(void *userdata, struct thaw_error *err, const uint8_t **ret_data, size_t *ret_len)
{
	static uint8_t block[1 << 16]; /* its own memory: a block is only valid until the next call */
	struct stream *stream = userdata;
	size_t left = stream->bytes->size - stream->at;

	if (stream->at >= stream->fail_at)
		return thaw_io(err, -ESTALE, "pull failed");
	*ret_len = left < stream->step ? left : stream->step;
	memset(block, 0xdd, sizeof(block));
	memcpy(block, stream->bytes->data + stream->at, *ret_len);
	*ret_data = block;
	stream->at += *ret_len;
	return 0;
}

struct result {
	struct thaw_tree *tree;
	struct thaw_tar_counts counts;
	struct thaw_error err;
	int r;
};

static void result_deinit(struct result *result)
{
	thaw_tree_free(result->tree);
}
#define _result_ __attribute__((cleanup(result_deinit))) struct result

static void index_steps(const struct buffer *tar, size_t step, struct result *result)
{
	struct stream stream = { .bytes = tar, .step = step, .fail_at = SIZE_MAX };

	*result = (struct result){ 0 };
	assert_int_equal(thaw_tree_new(1000, &result->tree), 0);
	result->r = thaw_tar_index(pull, &stream, result->tree, &result->err, &result->counts);
}

static void index_it(const struct buffer *tar, struct result *result)
{
	index_steps(tar, 512, result);
}

static const struct thaw_object *object_at(const struct thaw_tree *tree, const char *path)
{
	uint32_t node = 0;

	while (*path) {
		size_t len = strcspn(path, "/");

		node = thaw_tree_lookup(tree, node, path, len);
		if (node == THAW_NO_NODE)
			fail_msg("\"%s\" is missing", path);
		path += len + (path[len] == '/');
	}
	return tree_object(tree, node);
}

static void same_sections(const struct thaw_tree *a, const struct thaw_tree *b)
{
	struct thaw_sections x, y;
	struct thaw_error err;

	assert_success(thaw_tree_emit(a, &err, &x), &err);
	assert_success(thaw_tree_emit(b, &err, &y), &err);
	assert_int_equal(x.inodes_size, y.inodes_size);
	assert_int_equal(x.strings_size, y.strings_size);
	assert_memory_equal(x.inodes, y.inodes, x.inodes_size);
	assert_memory_equal(x.strings, y.strings, x.strings_size);
	thaw_sections_deinit(&x);
	thaw_sections_deinit(&y);
}

static void any_block_size(void **state)
{
	static const size_t steps[] = { 1, 511, 512, 513, 10240, 1 << 16 };
	char name[300];
	_buffer_ tar = { 0 };
	_result_ first = { 0 };

	memset(name, 'n', sizeof(name));
	name[150] = '/';
	tar_pax(&tar, 'x', "path", name, 250);
	tar_text(&tar, "short", "long name");
	tar_sample(&tar);
	index_steps(&tar, 512, &first);
	assert_success(first.r, &first.err);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		_result_ other = { 0 };

		index_steps(&tar, steps[i], &other);
		assert_success(other.r, &other.err);
		assert_int_equal(other.counts.size, tar.size);
		same_sections(first.tree, other.tree);
	}
}

static void offsets_are_those_of_the_data(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };
	const struct thaw_object *object;

	tar_text(&tar, "a", "first contents");
	tar_pax(&tar, 'x', "mtime", "123.75", 6);
	tar_text(&tar, "b", "second contents");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	object = object_at(result.tree, "a");
	assert_memory_equal(tar.data + object->data, "first contents", object->size);
	object = object_at(result.tree, "b");
	assert_memory_equal(tar.data + object->data, "second contents", object->size);
	assert_int_equal(object->mtime, 123);
}

static void fractions_are_floored(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_pax(&tar, 'x', "mtime", "1699999999.999999999", 20);
	tar_text(&tar, "f", "x");
	tar_pax(&tar, 'x', "mtime", "-1.5", 4);
	tar_text(&tar, "g", "x");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(object_at(result.tree, "f")->mtime, 1699999999);
	assert_int_equal(object_at(result.tree, "g")->mtime, 0);
}

static void pyc_heads(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_text(&tar, "m.pyc", "0123456789abcdef and code");
	tar_text(&tar, "short.pyc", "0123456789abcde");
	tar_text(&tar, "other.py", "0123456789abcdef and code");
	tar_end(&tar);
	for (size_t step = 1; step <= 600; step += 37) {
		result_deinit(&result);
		index_steps(&tar, step, &result);
		assert_success(result.r, &result.err);
		assert_int_equal(result.tree->head_count, 1);
		assert_memory_equal(result.tree->heads[object_at(result.tree, "m.pyc")->head - 1],
				    "0123456789abcdef", THAW_PYC_HEADER);
		assert_int_equal(object_at(result.tree, "short.pyc")->head, 0);
		assert_int_equal(object_at(result.tree, "other.py")->head, 0);
	}
}

static void counts(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_pax(&tar, 'x', "SCHILY.xattr.user.a", "b", 1);
	tar_text(&tar, "xattr", "x");
	tar_member(&tar, "setuid", '0', 04755, 0, NULL, "x", 1);
	tar_member(&tar, "setgid", '0', 02755, 0, NULL, "x", 1);
	tar_member(&tar, "sticky", '5', 01777, 0, NULL, NULL, 0);
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(result.counts.dropped_xattrs, 1);
	assert_int_equal(result.counts.dropped_setid, 2);
	assert_int_equal(result.counts.size, tar.size);
	assert_int_equal(object_at(result.tree, "setuid")->mode, 0755);
}

/* Names that differ in Unicode's form only are two names. */
static void names_are_bytes(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_pax(&tar, 'x', "path", "\xc3\xa9", 2);
	tar_text(&tar, "x", "composed");
	tar_pax(&tar, 'x', "path", "e\xcc\x81", 3);
	tar_text(&tar, "x", "decomposed");
	tar_pax(&tar, 'x', "path", "\xff\xfe", 2);
	tar_text(&tar, "x", "not UTF-8");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(result.tree->duplicates, 0);
	assert_int_equal(object_at(result.tree, "\xc3\xa9")->size, 8);
	assert_int_equal(object_at(result.tree, "e\xcc\x81")->size, 10);
	assert_int_equal(object_at(result.tree, "\xff\xfe")->size, 9);
}

/* -- the end -- */

static void end_marker_missing(void **state)
{
	_buffer_ tar = { 0 };

	tar_text(&tar, "f", "x");
	for (unsigned zeros = 0; zeros <= 1024; zeros += 256) {
		_result_ result = { 0 };

		index_it(&tar, &result);
		if (zeros == 1024)
			assert_success(result.r, &result.err);
		else
			assert_int_equal(result.r, -EBADMSG);
		if (zeros == 0)
			assert_string_equal(result.err.text, "the tar archive ends too early "
							     "(the end-of-archive marker is missing)");
		buffer_add_zeros(&tar, 256);
	}
}

static void padding_after_the_end(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_text(&tar, "f", "x");
	tar_end(&tar);
	buffer_add_zeros(&tar, 100001);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(result.counts.size, tar.size);
}

static void bytes_after_the_end(void **state)
{
	static const size_t gaps[] = { 0, 1, 511, 512, 100000 };

	for (size_t i = 0; i < ARRAY_SIZE(gaps); i++) {
		_buffer_ tar = { 0 };
		_result_ result = { 0 };

		tar_text(&tar, "f", "x");
		tar_end(&tar);
		buffer_add_zeros(&tar, gaps[i]);
		buffer_add(&tar, "!", 1);
		index_it(&tar, &result);
		assert_damaged(result.r, &result.err, "other bytes follow the end-of-archive marker");
	}
}

static void second_archive(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_sample(&tar);
	tar_sample(&tar);
	index_it(&tar, &result);
	assert_damaged(result.r, &result.err, "other bytes follow the end-of-archive marker");
}

static void one_zero_block_then_more(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_text(&tar, "f", "x");
	buffer_add_zeros(&tar, 512);
	tar_text(&tar, "g", "x");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_int_equal(result.r, -EBADMSG);
}

static void every_truncation(void **state)
{
	_buffer_ tar = { 0 };

	tar_directory(&tar, "d");
	tar_pax(&tar, 'x', "path", "d/long", 6);
	tar_text(&tar, "x", "contents");
	tar_symlink(&tar, "l", "d");
	tar_end(&tar);
	for (size_t size = 0; size < tar.size; size += size % 512 == 511 || size % 512 == 0 ? 1 : 5) {
		struct buffer cut = { .data = tar.data, .size = size };
		_result_ result = { 0 };

		index_it(&cut, &result);
		if (result.r != -EBADMSG)
			fail_msg("cut at %zu: %d", size, result.r);
		assert_int_equal(result.err.exit_code, THAW_EXIT_DAMAGED);
	}
}

/* -- damage -- */

static void not_a_tar(void **state)
{
	_buffer_ noise = { 0 };
	_result_ result = { 0 };

	buffer_add_zeros(&noise, 3000);
	fill_pattern(noise.data, noise.size, 1);
	index_it(&noise, &result);
	assert_damaged(result.r, &result.err, "is not a tar archive, nor a zip, PEX or wheel");
}

static void bad_checksum(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_text(&tar, "first", "x");
	tar_text(&tar, "second", "x");
	tar.data[1024] ^= 1;
	tar_end(&tar);
	index_it(&tar, &result);
	assert_int_equal(result.r, -EBADMSG);
	assert_non_null(strstr(result.err.text, "damaged tar archive after \"first\" ("));
}

/* Not all bytes of a header matter, but none may crash or slip in a wrong class. */
static void every_header_byte(void **state)
{
	/* The first block, the record in the second, the third. */
	for (size_t offset = 0; offset < 1536; offset = offset == 540 ? 1024 : offset + 1) {
		static const uint8_t values[] = { 0x31, 0xff };

		for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
			_buffer_ tar = { 0 };
			_result_ result = { 0 };

			tar_pax(&tar, 'x', "path", "d/long", 6);
			tar_text(&tar, "x", "contents");
			tar_end(&tar);
			tar.data[offset] = values[i];
			if (offset < 512 || offset >= 1024)
				tar_checksum(&tar, offset / 512 * 512);
			index_it(&tar, &result);
			assert_true(result.r == 0 || result.r == -EBADMSG || result.r == -EPERM ||
				    result.r == -EFBIG);
			assert_true(result.r == 0 || result.err.text[0] != '\0');
		}
	}
}

static void pull_fails(void **state)
{
	_buffer_ tar = { 0 };

	tar_sample(&tar);
	for (size_t at = 0; at <= tar.size; at += 512) {
		struct stream stream = { .bytes = &tar, .step = 512, .fail_at = at };
		_result_ result = { 0 };

		assert_int_equal(thaw_tree_new(1000, &result.tree), 0);
		assert_failure(thaw_tar_index(pull, &stream, result.tree, &result.err, &result.counts),
			       &result.err, ESTALE, THAW_EXIT_IO, "pull failed: Stale file handle");
	}
}

/* -- refused -- */

static void refused_types(void **state)
{
	static const struct {
		char type;
		const char *text;
	} cases[] = {
		{ '3', "\"m\": is a device" },
		{ '4', "\"m\": is a device" },
		{ '6', "\"m\": is a fifo" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_buffer_ tar = { 0 };
		_result_ result = { 0 };

		tar_member(&tar, "m", cases[i].type, 0644, 0, NULL, NULL, 0);
		tar_end(&tar);
		index_it(&tar, &result);
		assert_refused(result.r, &result.err, cases[i].text);
	}
}

static void sparse(void **state)
{
	static const char map[512] = "1\n0\n1\n";
	_buffer_ contents = { 0 };
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	buffer_add(&contents, map, sizeof(map));
	buffer_add(&contents, "x", 1);
	tar_pax(&tar, 'g', "comment", "none", 4);
	/* Each in a header of its own: tar_pax() writes one record. */
	tar_pax(&tar, 'x', "GNU.sparse.major", "1", 1);
	tar_member(&tar, "s", '0', 0644, 0, NULL, contents.data, contents.size);
	tar_end(&tar);
	index_it(&tar, &result);
	assert_true(result.r == 0 || result.r == -EPERM);

	/* The old kind: type S, a map in the header, the real size behind it. */
	tar.size = 0;
	result_deinit(&result);
	tar_member(&tar, "old", 'S', 0644, 0, NULL, "x", 1);
	memcpy(tar.data + 257, "ustar  ", 8);
	memcpy(tar.data + 386, "00000000000\0" "00000000001\0", 24);
	memcpy(tar.data + 483, "00000000777\0", 12);
	tar_checksum(&tar, 0);
	tar_end(&tar);
	index_it(&tar, &result);
	assert_refused(result.r, &result.err, "\"old\": is a sparse file");
}

static void hard_link_with_contents(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_pax(&tar, 'x', "comment", "pax archives may have these", 27);
	tar_text(&tar, "f", "x");
	tar_pax(&tar, 'x', "comment", "pax archives may have these", 27);
	tar_member(&tar, "l", '1', 0644, 0, "f", "other", 5);
	tar_end(&tar);
	index_it(&tar, &result);
	assert_refused(result.r, &result.err, "\"l\": is a hard link with contents of its own");
}

static void nul(const char *key, const char *value, size_t len, const char *type)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_text(&tar, "before", "x");
	tar_pax(&tar, 'x', key, value, len);
	tar_member(&tar, "m", *type, 0644, 0, *type == '2' ? "before" : NULL,
		   *type == '0' ? "x" : NULL, *type == '0');
	tar_end(&tar);
	index_it(&tar, &result);
	assert_int_equal(result.r, -EPERM);
	assert_non_null(strstr(result.err.text, "has a NUL byte in its name"));
}

static void pax_nul(void **state)
{
	nul("path", "a\0b", 3, "0");
	nul("path", "a\0", 2, "0");
	nul("path", "a\0b", 3, "5");
	nul("linkpath", "a\0b", 3, "2");
	nul("GNU.sparse.name", "a\0b", 3, "0");
}

static void pax_nul_elsewhere_is_fine(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_pax(&tar, 'x', "SCHILY.xattr.user.a", "b\0c", 3);
	tar_text(&tar, "f", "path=a\0b");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
}

/* The header's size may be written in several ways; libarchive reads them all. */
static void pax_nul_in_odd_headers(void **state)
{
	static const char sizes[][13] = {
		"       00014",	  /* blanks in front, twelve digits */
		"000000000014",	  /* no terminator */
		"14 000000000",	  /* something behind the terminator */
		"\x80\0\0\0\0\0\0\0\0\0\0\x0c", /* base 256 */
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_buffer_ tar = { 0 };
		_result_ result = { 0 };

		tar_file(&tar, "before", NULL, 0); /* one block */
		tar_pax(&tar, 'x', "path", "a\0b", 3); /* "12 path=a\0b\n": 12 bytes */
		memcpy(tar.data + 512 + 124, sizes[i], 12);
		tar_checksum(&tar, 512);
		tar_text(&tar, "m", "x");
		tar_end(&tar);
		index_it(&tar, &result);
		if (result.r != -EPERM)
			fail_msg("size %zu: %d \"%s\"", i, result.r, result.err.text);
	}
}

/* More headers in a row than are remembered must not make a NUL pass. */
static void pax_nul_before_large_headers(void **state)
{
	size_t large = 90000;
	char *comment = malloc(large);
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	memset(comment, 'c', large);
	tar_pax(&tar, 'x', "path", "a\0b", 3);
	for (unsigned i = 0; i < 50; i++)
		tar_pax(&tar, 'x', "comment", comment, large);
	tar_text(&tar, "m", "x");
	tar_end(&tar);
	index_steps(&tar, 65536, &result);
	free(comment);
	/* libarchive 3.6 finds them malformed; whoever finds something, it must not pass. */
	assert_true(result.r == -EFBIG || result.r == -EBADMSG);
}

static void gnu_long_names(void **state)
{
	char name[300];
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	memset(name, 'g', 200);
	name[100] = '/';
	name[200] = '\0';
	tar_member(&tar, "././@LongLink", 'L', 0644, 0, NULL, name, 201);
	tar_text(&tar, "cut", "x");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(object_at(result.tree, name)->size, 1);
}

/* A label of GNU tar is no member, and no reason to refuse the archive. */
static void volume_label(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_member(&tar, "label", 'V', 0, 0, NULL, NULL, 0);
	tar_text(&tar, "f", "x");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(result.tree->node_count, 2);
}

/*
 * libarchive 3.6 does not skip as many bytes as a label says to have. Where it
 * and the look for NULs part, nothing can be said about the names.
 */
static void headers_that_do_not_add_up(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_text(&tar, "before", "x");
	tar_member(&tar, "label", 'V', 0, 0, NULL, NULL, 512);
	tar_pax(&tar, 'x', "path", "a\0b", 3);
	tar_text(&tar, "m", "x");
	tar_end(&tar);
	index_it(&tar, &result);
	assert_damaged(result.r, &result.err, "\"a\": has headers that do not add up");
}

static void empty_archive(void **state)
{
	_buffer_ tar = { 0 };
	_result_ result = { 0 };

	tar_end(&tar);
	index_it(&tar, &result);
	assert_success(result.r, &result.err);
	assert_int_equal(result.tree->node_count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_block_size),
		cmocka_unit_test(offsets_are_those_of_the_data),
		cmocka_unit_test(fractions_are_floored),
		cmocka_unit_test(pyc_heads),
		cmocka_unit_test(counts),
		cmocka_unit_test(names_are_bytes),
		cmocka_unit_test(end_marker_missing),
		cmocka_unit_test(padding_after_the_end),
		cmocka_unit_test(bytes_after_the_end),
		cmocka_unit_test(second_archive),
		cmocka_unit_test(one_zero_block_then_more),
		cmocka_unit_test(every_truncation),
		cmocka_unit_test(not_a_tar),
		cmocka_unit_test(bad_checksum),
		cmocka_unit_test(every_header_byte),
		cmocka_unit_test(pull_fails),
		cmocka_unit_test(refused_types),
		cmocka_unit_test(sparse),
		cmocka_unit_test(hard_link_with_contents),
		cmocka_unit_test(pax_nul),
		cmocka_unit_test(pax_nul_elsewhere_is_fine),
		cmocka_unit_test(pax_nul_in_odd_headers),
		cmocka_unit_test(pax_nul_before_large_headers),
		cmocka_unit_test(gnu_long_names),
		cmocka_unit_test(volume_label),
		cmocka_unit_test(headers_that_do_not_add_up),
		cmocka_unit_test(empty_archive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
