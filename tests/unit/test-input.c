/* SPDX-License-Identifier: Apache-2.0 */
/* The tar stream out of every compression: whole, damaged, padded, in several pieces. */
#include "check.h"

#include <archive.h>
#include <archive_entry.h>
#include <lzma.h>
#include <unistd.h>
#include <zstd.h>

#include "pack-internal.h"
#include "util/bytes.h"

enum kind { PLAIN, GZIP, BZIP2, ZSTD, XZ, KINDS };
static const char *const names[KINDS] = { "tar", "tar.gz", "tar.bz2", "tar.zst", "tar.xz" };

/* libarchive's raw writer knows every filter. */
static void compress(enum kind kind, const void *data, size_t size, struct buffer *to)
{
	size_t capacity = 2 * size + 10000, used = 0;
	uint8_t *out = malloc(capacity);
	struct archive *archive = archive_write_new();
	struct archive_entry *entry = archive_entry_new();

	assert_int_equal(archive_write_set_format_raw(archive), ARCHIVE_OK);
	assert_int_equal(archive_write_set_bytes_per_block(archive, 0), ARCHIVE_OK);
	switch (kind) {
	case GZIP:
		assert_int_equal(archive_write_add_filter_gzip(archive), ARCHIVE_OK);
		break;
	case BZIP2:
		assert_int_equal(archive_write_add_filter_bzip2(archive), ARCHIVE_OK);
		break;
	case ZSTD:
		assert_int_equal(archive_write_add_filter_zstd(archive), ARCHIVE_OK);
		break;
	case XZ:
		assert_int_equal(archive_write_add_filter_xz(archive), ARCHIVE_OK);
		assert_int_equal(archive_write_set_filter_option(archive, "xz", "compression-level",
								 "0"), ARCHIVE_OK);
		break;
	default:
		break;
	}
	assert_int_equal(archive_write_open_memory(archive, out, capacity, &used), ARCHIVE_OK);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_pathname(entry, "data");
	assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
	assert_int_equal(archive_write_data(archive, data, size), (la_ssize_t)size);
	assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
	archive_write_free(archive);
	archive_entry_free(entry);
	buffer_add(to, out, used);
	free(out);
}

/* What the zstd command writes: with a checksum. */
static void compress_zstd(const void *data, size_t size, struct buffer *to)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t capacity = ZSTD_compressBound(size), n;
	uint8_t *out = malloc(capacity);

	assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)));
	n = ZSTD_compress2(context, out, capacity, data, size);
	assert_false(ZSTD_isError(n));
	buffer_add(to, out, n);
	ZSTD_freeCCtx(context);
	free(out);
}

/* Everything that comes out of bytes; the result of the call that ended it. */
static int expand(const struct buffer *bytes, struct buffer *out, const char **ret_kind,
		  struct thaw_error *err)
{
	int fd = memory_file(bytes->data, bytes->size), r;
	struct thaw_input *input = NULL;
	char path[64];

	memset(err, 0, sizeof(*err));
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = thaw_input_open(path, err, &input);
	while (r == 0) {
		const uint8_t *data;
		size_t len;

		r = input->next(input, err, &data, &len);
		if (r < 0 || len == 0)
			break;
		buffer_add(out, data, len);
	}
	if (input && ret_kind)
		*ret_kind = input->kind;
	if (r == 0) {
		assert_int_equal(input->consumed, bytes->size);
		assert_int_equal(input->total, bytes->size);
	}
	thaw_input_free(input);
	(void)close(fd);
	return r;
}

static void expect_same(const struct buffer *bytes, const void *data, size_t size, enum kind kind)
{
	_buffer_ out = { 0 };
	const char *found = NULL;
	struct thaw_error err;

	assert_success(expand(bytes, &out, &found, &err), &err);
	assert_string_equal(found, names[kind]);
	assert_int_equal(out.size, size);
	assert_memory_equal(out.data, data, size);
}

/* A tar, half of it incompressible, larger than any buffer on the way. */
static struct buffer sample;

static int make_sample(void **state)
{
	_buffer_ noise = { 0 };

	buffer_add_zeros(&noise, 400000);
	fill_pattern(noise.data, 250000, 5);
	tar_file(&sample, "noise", noise.data, noise.size);
	tar_end(&sample);
	return 0;
}

static int free_sample(void **state)
{
	buffer_deinit(&sample);
	return 0;
}

static void every_kind(void **state)
{
	for (enum kind kind = PLAIN; kind < KINDS; kind++) {
		_buffer_ bytes = { 0 };

		compress(kind, sample.data, sample.size, &bytes);
		expect_same(&bytes, sample.data, sample.size, kind);
	}
}

/* Many sizes, so that ends fall at every place of a buffer. */
static void every_small_size(void **state)
{
	for (enum kind kind = GZIP; kind < KINDS; kind++) {
		for (size_t size = 1; size < 600; size += 23) {
			_buffer_ bytes = { 0 };

			compress(kind, sample.data, size, &bytes);
			expect_same(&bytes, sample.data, size, kind);
		}
	}
}

static void in_several_pieces(void **state)
{
	static const size_t cuts[] = { 1, 511, 512, 200000 };

	for (enum kind kind = GZIP; kind < KINDS; kind++) {
		for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
			_buffer_ bytes = { 0 };

			compress(kind, sample.data, cuts[i], &bytes);
			compress(kind, sample.data + cuts[i], sample.size - cuts[i], &bytes);
			expect_same(&bytes, sample.data, sample.size, kind);
		}
	}
}

static void zstd_skippable_frames(void **state)
{
	_buffer_ bytes = { 0 };

	for (unsigned i = 0; i < 2; i++) {
		buffer_add(&bytes, "\x50\x2a\x4d\x18\x04\0\0\0skip", 12);
		compress(ZSTD, sample.data + i * 1000, 1000, &bytes);
	}
	buffer_add(&bytes, "\x5f\x2a\x4d\x18\0\0\0\0", 8);
	expect_same(&bytes, sample.data, 2000, ZSTD);
}

static void zeros_behind(void **state)
{
	static const size_t paddings[] = { 1, 2, 3, 4, 7, 8, 9, 10, 11, 17, 18, 511, 512, 10240, 300000 };

	for (enum kind kind = GZIP; kind < KINDS; kind++) {
		_buffer_ bytes = { 0 };
		size_t size;

		compress(kind, sample.data, 5000, &bytes);
		size = bytes.size;
		for (size_t i = 0; i < ARRAY_SIZE(paddings); i++) {
			_buffer_ out = { 0 };
			struct thaw_error err;
			int r;

			bytes.size = size;
			buffer_add_zeros(&bytes, paddings[i]);
			r = expand(&bytes, &out, NULL, &err);
			/* xz's own rule: stream padding comes in fours. */
			if (kind == XZ && paddings[i] % 4) {
				assert_int_equal(r, -EBADMSG);
				continue;
			}
			if (r != 0)
				fail_msg("%s and %zu zeros: %s", names[kind], paddings[i], err.text);
			assert_int_equal(out.size, 5000);
		}
	}
}

/* The same with the compressed end near the end of what one read(2) brings. */
static void zeros_behind_at_the_edge_of_a_buffer(void **state)
{
	for (int off = -24; off <= 4; off++) {
		size_t wanted = (256u << 10) + (size_t)(ssize_t)off, size = 0;
		_buffer_ noise = { 0 };
		_buffer_ bytes = { 0 };

		buffer_add_zeros(&noise, 262144);
		fill_pattern(noise.data, noise.size, 77);
		/* Incompressible: each byte more in is a byte more out, nearly. */
		for (size_t guess = 262144 - 200; guess < 262144; guess++) {
			bytes.size = 0;
			compress(GZIP, noise.data, guess, &bytes);
			size = guess;
			if (bytes.size >= wanted)
				break;
			guess += (wanted - bytes.size) > 8 ? (wanted - bytes.size) - 8 : 0;
		}
		buffer_add_zeros(&bytes, 512);
		expect_same(&bytes, noise.data, size, GZIP);
	}
}

static void garbage_behind(void **state)
{
	static const size_t gaps[] = { 0, 1, 4, 8, 16, 512, 300000 };

	for (enum kind kind = GZIP; kind < KINDS; kind++) {
		for (size_t i = 0; i < ARRAY_SIZE(gaps); i++) {
			_buffer_ bytes = { 0 };
			_buffer_ out = { 0 };
			struct thaw_error err;

			compress(kind, sample.data, 5000, &bytes);
			buffer_add_zeros(&bytes, gaps[i]);
			buffer_add(&bytes, "garbage!", 8);
			if (expand(&bytes, &out, NULL, &err) != -EBADMSG)
				fail_msg("%s, %zu zeros, garbage", names[kind], gaps[i]);
			assert_int_equal(err.exit_code, THAW_EXIT_DAMAGED);
		}
	}
}

static void every_truncation(void **state)
{
	for (enum kind kind = GZIP; kind < KINDS; kind++) {
		_buffer_ bytes = { 0 };
		size_t whole;

		compress(kind, sample.data, 300, &bytes);
		whole = bytes.size;
		for (bytes.size = 0; bytes.size < whole; bytes.size++) {
			_buffer_ out = { 0 };
			struct thaw_error err;
			int r = expand(&bytes, &out, NULL, &err);

			/* Too short to be told from a tar: that is the tar parser's to refuse. */
			if (r == 0 && bytes.size < 14 && out.size == bytes.size)
				continue;
			if (r != -EBADMSG)
				fail_msg("%s cut at %zu: %d %s", names[kind], bytes.size, r, err.text);
		}
		bytes.size = whole;
	}
}

/* One bit anywhere: never the same bytes with no word about it, except in what no format checks. */
static void every_bit(void **state)
{
	for (enum kind kind = GZIP; kind < KINDS; kind++) {
		_buffer_ bytes = { 0 };
		unsigned silent = 0;

		if (kind == ZSTD) /* with the checksum that libarchive's frames lack */
			compress_zstd(sample.data, 120, &bytes);
		else
			compress(kind, sample.data, 120, &bytes);
		for (size_t bit = 0; bit < 8 * bytes.size; bit++) {
			_buffer_ out = { 0 };
			struct thaw_error err;
			int r;

			bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
			r = expand(&bytes, &out, NULL, &err);
			bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (r < 0)
				assert_true(err.text[0] != '\0');
			else if (bit >= 8 * 10) /* headers: magic, gzip's time and system */
				silent += out.size != 120 || memcmp(out.data, sample.data, 120) != 0;
		}
		if (silent > 0)
			fail_msg("%s: %u flipped bits changed the data unseen", names[kind], silent);
	}
}

static void texts(void **state)
{
	_buffer_ bytes = { 0 };
	_buffer_ out = { 0 };
	struct thaw_error err;

	assert_damaged(expand(&bytes, &out, NULL, &err), &err, "is empty; not a tar archive");
	buffer_add(&bytes, "PK\x03\x04 and so on", 14);
	assert_damaged(expand(&bytes, &out, NULL, &err), &err, "is too short for a zip archive");
	bytes.size = 0;
	compress(ZSTD, sample.data, 3000, &bytes);
	bytes.size -= 10;
	assert_damaged(expand(&bytes, &out, NULL, &err), &err, "the zstd data ends too early");
	bytes.size = 0;
	compress(XZ, sample.data, 3000, &bytes);
	bytes.size -= 10;
	assert_damaged(expand(&bytes, &out, NULL, &err), &err, "the xz data ends too early");
}

static void zstd_window(void **state)
{
	for (int log = 27; log <= 28; log++) {
		ZSTD_CCtx *context = ZSTD_createCCtx();
		size_t capacity = ZSTD_compressBound(sample.size);
		uint8_t *out = malloc(capacity);
		ZSTD_inBuffer in = { sample.data, sample.size, 0 };
		ZSTD_outBuffer to = { out, capacity, 0 };
		_buffer_ bytes = { 0 };
		_buffer_ expanded = { 0 };
		struct thaw_error err;

		assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, log)));
		/* Streaming, without a content size: the window is as large as asked for. */
		assert_false(ZSTD_isError(ZSTD_compressStream2(context, &to, &in, ZSTD_e_flush)));
		assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
		buffer_add(&bytes, out, to.pos);
		if (log == 27)
			expect_same(&bytes, sample.data, sample.size, ZSTD);
		else
			assert_limit(expand(&bytes, &expanded, NULL, &err), &err,
				     "zstd needs a window of more than 128 MiB to decompress it");
		ZSTD_freeCCtx(context);
		free(out);
	}
}

/* A block header that asks for a dictionary; encoding one takes gigabytes, so it is patched in. */
static void xz_dictionary(void **state)
{
	_buffer_ bytes = { 0 };
	_buffer_ out = { 0 };
	struct thaw_error err;
	uint8_t *header, *properties;
	size_t size;

	compress(XZ, sample.data, 3000, &bytes);
	header = bytes.data + 12; /* behind the stream header */
	size = (header[0] + 1u) * 4;
	/* Filter flags: LZMA2 is 0x21, its properties 1 byte: the dictionary's size. */
	properties = memmem(header, size, "\x21\x01", 2);
	assert_non_null(properties);
	properties[2] = 37; /* 1.5 GiB */
	put_le32(header + size - 4, lzma_crc32(header, size - 4, 0));
	assert_limit(expand(&bytes, &out, NULL, &err), &err,
		     "xz needs more than 192 MiB to decompress it");
	properties[2] = 28; /* 64 MiB, as of xz -9 */
	put_le32(header + size - 4, lzma_crc32(header, size - 4, 0));
	expect_same(&bytes, sample.data, 3000, XZ);
}

static void absent_and_unreadable(void **state)
{
	struct thaw_input *input;
	struct thaw_error err;

	assert_failure(thaw_input_open("/nonexistent/file", &err, &input), &err, ENOENT, THAW_EXIT_IO,
		       "cannot be opened: No such file or directory");
}

/* A pipe: no size, no seeking. */
static void from_a_pipe(void **state)
{
	for (enum kind kind = PLAIN; kind < KINDS; kind++) {
		_buffer_ bytes = { 0 };
		_buffer_ out = { 0 };
		struct thaw_input *input;
		struct thaw_error err;
		int pipes[2];
		char path[64];

		compress(kind, sample.data, 600, &bytes);
		assert_int_equal(pipe(pipes), 0);
		/* All of it fits into the pipe. */
		assert_int_equal(write(pipes[1], bytes.data, bytes.size), (ssize_t)bytes.size);
		(void)close(pipes[1]);
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", pipes[0]);
		assert_success(thaw_input_open(path, &err, &input), &err);
		assert_int_equal(input->total, 0);
		for (;;) {
			const uint8_t *data;
			size_t len;

			assert_success(input->next(input, &err, &data, &len), &err);
			if (len == 0)
				break;
			buffer_add(&out, data, len);
		}
		assert_int_equal(out.size, 600);
		assert_memory_equal(out.data, sample.data, 600);
		thaw_input_free(input);
		(void)close(pipes[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind),
		cmocka_unit_test(every_small_size),
		cmocka_unit_test(in_several_pieces),
		cmocka_unit_test(zstd_skippable_frames),
		cmocka_unit_test(zeros_behind),
		cmocka_unit_test(zeros_behind_at_the_edge_of_a_buffer),
		cmocka_unit_test(garbage_behind),
		cmocka_unit_test(every_truncation),
		cmocka_unit_test(every_bit),
		cmocka_unit_test(texts),
		cmocka_unit_test(zstd_window),
		cmocka_unit_test(xz_dictionary),
		cmocka_unit_test(absent_and_unreadable),
		cmocka_unit_test(from_a_pipe),
	};

	return cmocka_run_group_tests(tests, make_sample, free_sample);
}
