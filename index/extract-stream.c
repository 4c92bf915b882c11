/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tar stream of an image, as any zstd would write it: of thaw's own parts
 * only the footer and the table's header are looked at, to find where the image
 * begins. So this works for images that this thaw cannot serve.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <zstd.h>

#include "pass-internal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define BLOCK	       (1u << 20)
/* 128 MiB, zstd's own default: what somebody else's frames may make us allocate. */
#define WINDOW_LOG_MAX 27

static int find_start(struct thaw_source *source, struct thaw_error *err,
		      uint64_t *ret_start)
{
	uint8_t footer[THAW_FOOTER_SIZE], table[THAW_TABLE_HEADER];
	uint64_t size = source->size, image_size, ends = THAW_FOOTER_SIZE;
	uint32_t table_size;
	int r;

	if (size < THAW_FOOTER_SIZE)
		return thaw_damaged(err, "not a thaw image (too short)");
	r = source->read(source, size - ends, footer, sizeof(footer));
	if (r < 0)
		return thaw_io(err, r, "the footer cannot be read");
	if (memcmp(footer + THAW_FOOTER_OFF_MAGIC, THAW_FOOTER_MAGIC, 8) != 0)
		return thaw_damaged(
			err, "not a thaw image, or cut short (no footer at its end)");
	table_size = get_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE);
	ends += table_size;
	if (table_size < THAW_TABLE_HEADER || ends > size)
		return thaw_damaged(err, "damaged: footer");
	r = source->read(source, size - ends, table, sizeof(table));
	if (r < 0)
		return thaw_io(err, r, "the parts table cannot be read");
	image_size = get_le64(table + THAW_TABLE_OFF_IMAGE_SIZE);
	if (get_le32(table) != THAW_TABLE_MAGIC || image_size > size || image_size < ends)
		return thaw_damaged(err, "damaged: parts table");
	*ret_start = size - image_size;
	return 0;
}

struct stream {
	ZSTD_DCtx *context;
	uint8_t *in, *out;
	int fd;
	bool inside; /* of a frame */
};

static int write_block(struct stream *stream, size_t len, struct thaw_error *err)
{
	ZSTD_inBuffer in = { .src = stream->in, .size = len };
	bool full = false;

	/* Also when all input is used up: a full output says that there may be more. */
	while (in.pos < in.size || full) {
		ZSTD_outBuffer out = { .dst = stream->out, .size = BLOCK };
		size_t n = ZSTD_decompressStream(stream->context, &out, &in);
		int r;

		if (ZSTD_isError(n))
			return thaw_damaged(
				err, "damaged: the stream does not decompress (%s)",
				ZSTD_getErrorName(n));
		r = write_all(stream->fd, stream->out, out.pos);
		if (r < 0)
			return thaw_io(err, r, "the output cannot be written");
		stream->inside = n != 0;
		full = out.pos == out.size && stream->inside;
	}
	return 0;
}

static int write_stream(struct thaw_source *source, struct stream *stream,
			struct thaw_pass *pass, uint64_t start, struct thaw_error *err)
{
	for (uint64_t at = start; at < source->size;) {
		size_t len = source->size - at < BLOCK ? (size_t)(source->size - at)
						       : BLOCK;
		int r;

		r = source->read(source, at, stream->in, len);
		if (r < 0)
			return thaw_io(err, r, "the image cannot be read");
		r = write_block(stream, len, err);
		if (r < 0)
			return r;
		at += len;
		thaw_pass_advance(pass, len);
		r = thaw_pass_result(pass, err);
		if (r < 0)
			return r;
	}
	return stream->inside ? thaw_damaged(err, "damaged: the stream is cut short") : 0;
}

int thaw_extract_stream(struct thaw_source *source, int fd,
			const struct thaw_pass_options *options, struct thaw_error *err)
{
	struct stream stream = { .fd = fd };
	struct thaw_pass pass;
	uint64_t start = 0;
	int r;

	r = find_start(source, err, &start);
	if (r < 0)
		return r;
	thaw_pass_init(&pass, options, 0, source->size - start);
	stream.context = ZSTD_createDCtx();
	stream.in = malloc(BLOCK);
	stream.out = malloc(BLOCK);
	if (!stream.context || !stream.in || !stream.out ||
	    ZSTD_isError(ZSTD_DCtx_setParameter(stream.context, ZSTD_d_windowLogMax,
						WINDOW_LOG_MAX)))
		r = thaw_oom(err);
	else
		r = write_stream(source, &stream, &pass, start, err);
	ZSTD_freeDCtx(stream.context);
	free(stream.in);
	free(stream.out);
	thaw_pass_deinit(&pass);
	return r;
}
