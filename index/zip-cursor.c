/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the members of a zip, one after the other. */
#include "zip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "util/pread.h"

#define IN_SIZE	 (64u << 10)
#define OUT_SIZE (256u << 10)

struct thaw_zip_cursor {
	const struct thaw_zip_member *member; /* NULL: none, or it has been read */
	int fd;
	uint64_t in_done, out_done; /* bytes of the member */
	uint64_t consumed;
	uint32_t crc;
	z_stream inflate;
	bool inflating; /* inflate has been set up, once */
	bool ended;	/* the deflated data says that it ends here */
	uint8_t in[IN_SIZE];
	uint8_t out[OUT_SIZE];
};

int thaw_zip_cursor_new(struct thaw_zip_cursor **ret_cursor)
{
	struct thaw_zip_cursor *cursor = malloc(sizeof(*cursor));

	if (!cursor)
		return -ENOMEM;
	memset(cursor, 0, offsetof(struct thaw_zip_cursor, in));
	*ret_cursor = cursor;
	return 0;
}

struct thaw_zip_cursor *thaw_zip_cursor_free(struct thaw_zip_cursor *cursor)
{
	if (cursor && cursor->inflating)
		(void)inflateEnd(
			&cursor->inflate); /* fails only for one that never began */
	free(cursor);
	return NULL;
}

int thaw_zip_begin(struct thaw_zip_cursor *cursor, const struct thaw_zip *zip,
		   const struct thaw_zip_member *member, struct thaw_error *err)
{
	if (!cursor->inflating && inflateInit2(&cursor->inflate, -MAX_WBITS) != Z_OK)
		return thaw_oom(err);
	cursor->inflating = true;
	if (inflateReset(&cursor->inflate) != Z_OK)
		return thaw_oom(err);
	cursor->inflate.avail_in = 0;
	cursor->member = member;
	cursor->fd = thaw_zip_fd(zip);
	cursor->in_done = cursor->out_done = 0;
	cursor->crc = (uint32_t)crc32(0, NULL, 0);
	cursor->ended = member->method == THAW_ZIP_STORED;
	return 0;
}

static int take(struct thaw_zip_cursor *cursor, uint8_t *buf, size_t size,
		struct thaw_error *err, size_t *ret_len)
{
	const struct thaw_zip_member *member = cursor->member;
	uint64_t left = member->stored - cursor->in_done;
	size_t n = left < size ? (size_t)left : size;
	int r = pread_all(cursor->fd, buf, n, member->offset + cursor->in_done);

	if (r < 0)
		return thaw_io(err, r, "\"%s\": cannot be read", member->name);
	cursor->in_done += n;
	cursor->consumed += n;
	*ret_len = n;
	return 0;
}

static int damaged(const struct thaw_zip_cursor *cursor, const char *reason,
		   struct thaw_error *err)
{
	return thaw_damaged(err, "\"%s\": damaged zip member (%s)", cursor->member->name,
			    reason);
}

static int next_deflated(struct thaw_zip_cursor *cursor, struct thaw_error *err,
			 size_t *ret_len)
{
	z_stream *inflate_state = &cursor->inflate;

	inflate_state->next_out = cursor->out;
	inflate_state->avail_out = OUT_SIZE;
	while (inflate_state->avail_out > 0 && !cursor->ended) {
		int code;

		if (inflate_state->avail_in == 0) {
			size_t n;
			int r = take(cursor, cursor->in, IN_SIZE, err, &n);

			if (r < 0)
				return r;
			if (n == 0)
				return damaged(cursor, "its data ends too early", err);
			inflate_state->next_in = cursor->in;
			inflate_state->avail_in = (uInt)n;
		}
		code = inflate(inflate_state, Z_NO_FLUSH);
		if (code == Z_MEM_ERROR)
			return thaw_oom(err);
		if (code != Z_OK && code != Z_STREAM_END)
			return damaged(
				cursor,
				inflate_state->msg ? inflate_state->msg : "unknown", err);
		cursor->ended = code == Z_STREAM_END;
	}
	*ret_len = OUT_SIZE - inflate_state->avail_out;
	return 0;
}

/* Every byte was there, and no more. */
static int check_whole(struct thaw_zip_cursor *cursor, struct thaw_error *err)
{
	const struct thaw_zip_member *member = cursor->member;

	if (cursor->out_done != member->size)
		return damaged(cursor, "it is shorter than it says", err);
	if (cursor->in_done != member->stored || cursor->inflate.avail_in > 0)
		return damaged(cursor, "other bytes follow its data", err);
	if (cursor->crc != member->crc)
		return damaged(cursor, "wrong CRC", err);
	cursor->member = NULL;
	return 0;
}

int thaw_zip_next(struct thaw_zip_cursor *cursor, struct thaw_error *err,
		  const uint8_t **ret_data, size_t *ret_len)
{
	const struct thaw_zip_member *member = cursor->member;
	size_t n = 0;
	int r;

	*ret_data = cursor->out;
	*ret_len = 0;
	if (!member)
		return 0;
	if (member->method == THAW_ZIP_STORED)
		r = take(cursor, cursor->out, OUT_SIZE, err, &n);
	else
		r = next_deflated(cursor, err, &n);
	if (r < 0)
		return r;
	if (n > member->size - cursor->out_done)
		return damaged(cursor, "it is longer than it says", err);
	cursor->out_done += n;
	cursor->crc = (uint32_t)crc32(cursor->crc, cursor->out, (uInt)n);
	*ret_len = n;
	return n > 0 ? 0 : check_whole(cursor, err);
}

uint64_t thaw_zip_consumed(const struct thaw_zip_cursor *cursor)
{
	return cursor->consumed;
}
