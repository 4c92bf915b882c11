/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, verifying and decompressing one frame. */
#include "frame-decoder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_d_forceIgnoreChecksum, ZSTD_d_stableOutBuffer */
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "util/bytes.h"
#include "util/growing.h"

#define HEADER_MIN ((size_t)ZSTD_FRAMEHEADERSIZE_MIN(ZSTD_f_zstd1))

struct thaw_frame_decoder {
	const struct thaw_image *image;
	ZSTD_DCtx *context;
	struct thaw_digest *digest;
	uint8_t *stored;
	size_t stored_capacity;

	/* The frame that was begun. */
	uint32_t number;
	ZSTD_inBuffer in;
	ZSTD_outBuffer out;
	size_t wanted; /* input to the end of a block and of the next one's header */
	bool ended; /* all of what was begun, as far as zstd is concerned */
	bool by_blocks; /* it is of today's format, and gives the size that the index gives */
};

int thaw_frame_decoder_new(const struct thaw_image *image, struct thaw_frame_decoder **ret_decoder)
{
	struct thaw_frame_decoder *decoder = calloc(1, sizeof(*decoder));

	if (!decoder)
		return -ENOMEM;
	decoder->image = image;
	decoder->context = ZSTD_createDCtx();
	if (!decoder->context || thaw_digest_new(&decoder->digest) < 0) {
		thaw_frame_decoder_free(decoder);
		return -ENOMEM;
	}
	/* SHA-256 has spoken already; the frame's own checksum is for others. */
	(void)ZSTD_DCtx_setParameter(decoder->context, ZSTD_d_forceIgnoreChecksum, 1);
	/* The output is one buffer that has room for all of it: no copy on the way. */
	(void)ZSTD_DCtx_setParameter(decoder->context, ZSTD_d_stableOutBuffer, 1);
	/* So no window is allocated either, however large a frame says that it is. */
	(void)ZSTD_DCtx_setParameter(decoder->context, ZSTD_d_windowLogMax,
				     ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
	*ret_decoder = decoder;
	return 0;
}

struct thaw_frame_decoder *thaw_frame_decoder_free(struct thaw_frame_decoder *decoder)
{
	if (decoder) {
		ZSTD_freeDCtx(decoder->context);
		thaw_digest_free(decoder->digest);
		free(decoder->stored);
		free(decoder);
	}
	return NULL;
}

int thaw_frame_begin(struct thaw_frame_decoder *decoder, uint32_t number, void *buf,
		     struct thaw_error *err)
{
	uint8_t sum[THAW_DIGEST_SIZE];
	struct thaw_frame frame;
	int r;

	thaw_image_frame(decoder->image, number, &frame);
	if (make_room(&decoder->stored, &decoder->stored_capacity, frame.stored) < 0)
		return thaw_oom(err);
	r = thaw_image_pread(decoder->image, frame.file_offset, decoder->stored, frame.stored);
	if (r < 0)
		return thaw_io(err, r, "frame %" PRIu32 " cannot be read", number);
	r = thaw_digest_of(decoder->digest, decoder->stored, frame.stored, sum);
	if (r < 0)
		return thaw_oom(err);
	if (memcmp(sum, frame.digest, sizeof(sum)) != 0)
		return thaw_damaged(err, "frame %" PRIu32 " is damaged (digest)", number);
	(void)ZSTD_DCtx_reset(decoder->context, ZSTD_reset_session_only); /* cannot fail */
	decoder->number = number;
	decoder->in = (ZSTD_inBuffer){ .src = decoder->stored, .size = frame.stored };
	decoder->out = (ZSTD_outBuffer){ .dst = buf, .size = frame.size };
	decoder->wanted = HEADER_MIN;
	decoder->ended = false;
	decoder->by_blocks =
		frame.stored >= HEADER_MIN && get_le32(decoder->stored) == ZSTD_MAGICNUMBER &&
		ZSTD_getFrameContentSize(decoder->stored, frame.stored) == frame.size;
	return 0;
}

/* One block at most: with no more input than that, zstd has nothing else to go on with. */
static size_t decode_block(struct thaw_frame_decoder *decoder)
{
	ZSTD_inBuffer in = decoder->in;
	size_t r;

	if (in.size - in.pos > decoder->wanted)
		in.size = in.pos + decoder->wanted;
	r = ZSTD_decompressStream(decoder->context, &decoder->out, &in);
	decoder->in.pos = in.pos;
	decoder->ended = r == 0;
	decoder->wanted = r ? r : HEADER_MIN; /* 0: at the end of what may be one of several */
	return r;
}

static size_t decode_whole(struct thaw_frame_decoder *decoder)
{
	size_t n = ZSTD_decompressDCtx(decoder->context, decoder->out.dst, decoder->out.size,
				       decoder->in.src, decoder->in.size);

	if (ZSTD_isError(n))
		return n;
	decoder->in.pos = decoder->in.size;
	decoder->out.pos = n;
	decoder->ended = true;
	return 0;
}

int thaw_frame_advance(struct thaw_frame_decoder *decoder, size_t until, size_t *ret_ready,
		       struct thaw_error *err)
{
	const ZSTD_inBuffer *in = &decoder->in;
	const ZSTD_outBuffer *out = &decoder->out;
	bool all = until == out->size || !decoder->by_blocks;
	size_t r = 0;

	if (all && in->pos == 0 && out->pos == 0)
		r = decode_whole(decoder);
	/* What comes last has no contents, and nobody waits for it: the frame's checksum. */
	while (!ZSTD_isError(r) && (all ? in->pos < in->size : out->pos < until)) {
		size_t before = in->pos;

		r = decode_block(decoder);
		if (in->pos == before)
			break;
	}
	if (!ZSTD_isError(r) && (all ? out->pos == out->size && in->pos == in->size &&
					       decoder->ended :
				       out->pos >= until)) {
		*ret_ready = out->pos;
		return 0;
	}
	return thaw_damaged(err, "frame %" PRIu32 " is damaged (%s)", decoder->number,
			    ZSTD_isError(r) ? ZSTD_getErrorName(r) : "its length");
}

int thaw_frame_decode(struct thaw_frame_decoder *decoder, uint32_t number, void *buf,
		      struct thaw_error *err)
{
	size_t ready;
	int r = thaw_frame_begin(decoder, number, buf, err);

	return r < 0 ? r : thaw_frame_advance(decoder, decoder->out.size, &ready, err);
}
