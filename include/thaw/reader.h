/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The reader's data side: verified, decompressed bytes of files, through a
 * bounded cache of frames.
 *
 * Thread-safe. A frame that several threads want at once is read, verified and
 * decompressed by the first; the others wait for as much of it as they want.
 * Frames in use are pinned; the rest is kept in order of last use up to the bound,
 * because the kernel's page cache is the real cache. Memory: bound + one frame (and
 * its compressed bytes) a thread.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "thaw/image.h"

struct thaw_reader;

struct thaw_reader_stats {
	uint64_t hits, misses; /* frames asked for: found in the cache, or not */
	uint64_t bytes_stored, bytes_decompressed;
	uint64_t errors; /* frames that could not be read or verified */
};

/* The image is borrowed and must outlive the reader. cache_bytes: 0 means the default, 32 MiB. */
_must_check_ int thaw_reader_new(const struct thaw_image *image, uint64_t cache_bytes,
				 struct thaw_reader **ret_reader);
struct thaw_reader *thaw_reader_free(struct thaw_reader *reader);
static inline void thaw_reader_freep(struct thaw_reader **reader)
{
	thaw_reader_free(*reader);
}

/*
 * Bytes of a file, pinned in the cache instead of copied: at most
 * THAW_PIN_MAX frames at once, so a result may be shorter than asked for;
 * length 0 means end of file. Every success must be followed by
 * thaw_reader_unpin() from any thread.
 *
 * Who pins a frame that is not in the cache has it decompressed only as far as the
 * bytes that he wants; unpinning decompresses the rest. So answer first, and then
 * unpin, soon: others may wait for that rest. Whoever holds a pin must not pin or read
 * meanwhile: it might be that rest which he then waits for.
 */
#define THAW_PIN_MAX 64u
struct thaw_pin {
	unsigned count;
	size_t length;
	struct iovec iov[THAW_PIN_MAX];
	void *entry[THAW_PIN_MAX]; /* private, as the next */
	void *rest;
};

/*
 * inode must be a regular file of this reader's image. Errors, whose text names
 * the frame: -EBADMSG for damage, -ENOMEM, I/O errors of the source.
 */
_must_check_ int thaw_reader_pin(struct thaw_reader *reader, const struct thaw_inode *inode,
				 uint64_t offset, size_t len, struct thaw_error *err,
				 struct thaw_pin *ret_pin);
void thaw_reader_unpin(struct thaw_reader *reader, struct thaw_pin *pin);

/* Copying form: *ret_len is less than len only at the end of the file. */
_must_check_ int thaw_reader_read(struct thaw_reader *reader, const struct thaw_inode *inode,
				  uint64_t offset, void *buf, size_t len, struct thaw_error *err,
				  size_t *ret_len);

/*
 * Have note called, by the thread that decodes, before and after each frame is
 * read, verified and decompressed; when in two parts, after the second. Set before
 * the reader is used.
 */
typedef void thaw_reader_note(void *userdata, const struct thaw_frame *frame, bool done);
void thaw_reader_observe(struct thaw_reader *reader, thaw_reader_note *note, void *userdata);

void thaw_reader_stats(struct thaw_reader *reader, struct thaw_reader_stats *ret_stats);

/*
 * One frame, outside of any cache: read, verified, decompressed into buf (at
 * least the frame's size). For whole passes over an image, which would only wash
 * a cache out. A decoder is used by one thread at a time. Errors as above.
 */
struct thaw_frame_decoder;
_must_check_ int thaw_frame_decoder_new(const struct thaw_image *image,
					struct thaw_frame_decoder **ret_decoder);
struct thaw_frame_decoder *thaw_frame_decoder_free(struct thaw_frame_decoder *decoder);
_must_check_ int thaw_frame_decode(struct thaw_frame_decoder *decoder, uint32_t frame,
				   void *buf, struct thaw_error *err);
