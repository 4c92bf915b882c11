/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One frame in two steps: verified, then decompressed as far as somebody waits for
 * it. Its digest is of the stored bytes, so all of it has been verified before the
 * first byte is there. The calls of thaw/reader.h do both at once.
 */
#include "thaw/reader.h"

/*
 * Read and verify frame number; its bytes will be written to buf, which must have
 * room for them and stay. Errors are those of thaw_frame_decode().
 */
_must_check_ int thaw_frame_begin(struct thaw_frame_decoder *decoder, uint32_t number, void *buf,
				  struct thaw_error *err);
/*
 * Decompress until until bytes are there at least, which is at most the frame's size:
 * the end of the block (128 KiB, as zstd makes them) that brings them, if not all was
 * asked for from the beginning; or all of a frame whose own header does not give the
 * size that the index gives. *ret_ready: how many are there. After an error the frame
 * is to be begun anew.
 */
_must_check_ int thaw_frame_advance(struct thaw_frame_decoder *decoder, size_t until,
				    size_t *ret_ready, struct thaw_error *err);
