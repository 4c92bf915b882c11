/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking an image whole.
 *
 * Threads check and decompress frames; the calling thread takes them in order,
 * adds them to the stream's digest and hands them to the indexer's own tar
 * parser, as if the stream had just arrived. What that finds is compared with
 * the index. A frame that is bad ends the comparison, since nobody can say where
 * the next member begins, but the frames behind it are still checked.
 */
#include "thaw/extract.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "pass-internal.h"
#include "tree.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "verify-internal.h"

/* Where a frame waits between the thread that decodes it and the one that takes it in order. */
struct slot {
	uint8_t *data;
	size_t capacity;
	int result;
	struct thaw_error err;
	bool ready; /* protected by verify.lock, as is the right to touch the rest */
};

struct verify {
	const struct thaw_image *image;
	struct thaw_pass pass;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct slot *slots; /* frame n is in slot n % slot_count */
	uint32_t slot_count;
	/* protected by lock */
	uint32_t taken; /* frames that the calling thread is through with */
	bool stopped;	/* it takes no more */

	/* the calling thread's own */
	uint32_t next; /* frame to take */
	bool holding;  /* the slot of frame next - 1 is still in use */
	int hard;      /* a failure that is not the image's */
	struct thaw_error hard_err;
	struct thaw_digest *digest;
	bool broken;	     /* a frame of the stream is bad */
	uint8_t *bad_frames; /* by number */
	struct thaw_verify_result *result;
	thaw_verify_fault_fn *fault;
	void *fault_data;
};

/* -- decoding -- */

struct decoder {
	ZSTD_DCtx *context;
	struct thaw_digest *digest;
	uint8_t *stored;
	size_t capacity;
};

/*
 * Unlike the reader, which has the digest to rely on, this minds zstd's own
 * checksum too: another tool that reads the stream will.
 */
static int decode(const struct verify *verify, struct decoder *decoder, uint32_t number,
		  struct slot *slot)
{
	struct thaw_error *err = &slot->err;
	uint8_t sum[THAW_DIGEST_SIZE];
	struct thaw_frame frame;
	size_t n;
	int r;

	thaw_image_frame(verify->image, number, &frame);
	if (make_room(&decoder->stored, &decoder->capacity, frame.stored) < 0 ||
	    make_room(&slot->data, &slot->capacity, frame.size) < 0)
		return thaw_oom(err);
	r = thaw_image_pread(verify->image, frame.file_offset, decoder->stored,
			     frame.stored);
	if (r < 0)
		return thaw_io(err, r, "frame %" PRIu32 " cannot be read", number);
	if (thaw_digest_of(decoder->digest, decoder->stored, frame.stored, sum) < 0)
		return thaw_oom(err);
	if (memcmp(sum, frame.digest, sizeof(sum)) != 0)
		return thaw_damaged(err, "frame %" PRIu32 " is damaged (digest)", number);
	n = ZSTD_decompressDCtx(decoder->context, slot->data, frame.size, decoder->stored,
				frame.stored);
	if (ZSTD_isError(n) || n != frame.size)
		return thaw_damaged(err, "frame %" PRIu32 " is damaged (%s)", number,
				    ZSTD_isError(n) ? ZSTD_getErrorName(n)
						    : "its length");
	return 0;
}

/* A frame's slot is free once the frame before it in there has been taken. */
static bool wait_for_slot(struct verify *verify, uint32_t number)
{
	bool stopped;

	pthread_mutex_lock(&verify->lock);
	while (!verify->stopped && number >= verify->taken + verify->slot_count)
		pthread_cond_wait(&verify->changed, &verify->lock);
	stopped = verify->stopped;
	pthread_mutex_unlock(&verify->lock);
	return !stopped;
}

static void *decode_frames(void *data)
{
	struct verify *verify = data;
	struct decoder decoder = { 0 };
	uint64_t number;
	bool usable;

	decoder.context = ZSTD_createDCtx();
	usable = decoder.context && thaw_digest_new(&decoder.digest) == 0;
	/* Units are taken in order, so the frame that everybody waits for has somebody at work. */
	while (thaw_pass_take(&verify->pass, &number)) {
		struct slot *slot = &verify->slots[number % verify->slot_count];

		if (!wait_for_slot(verify, (uint32_t)number))
			break;
		slot->result = usable ? decode(verify, &decoder, (uint32_t)number, slot)
				      : thaw_oom(&slot->err);
		pthread_mutex_lock(&verify->lock);
		slot->ready = true;
		pthread_cond_broadcast(&verify->changed);
		pthread_mutex_unlock(&verify->lock);
	}
	ZSTD_freeDCtx(decoder.context);
	thaw_digest_free(decoder.digest);
	free(decoder.stored);
	return NULL;
}

/* -- faults -- */

static void report(struct verify *verify, const char *format, ...) _printf_(2, 3);
static void report(struct verify *verify, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args); /* cut when too long */
	va_end(args);
	if (verify->fault)
		verify->fault(verify->fault_data, text);
}

/* Does this file have bytes in frame? */
static bool lies_in(const uint8_t *record, const struct thaw_frame *frame)
{
	uint64_t data = get_le64(record + THAW_INODE_OFF_DATA);
	uint64_t size = get_le64(record + THAW_INODE_OFF_SIZE);

	return record[THAW_INODE_OFF_TYPE] == THAW_REGULAR && size > 0 &&
	       data < frame->data_offset + frame->size &&
	       data + size > frame->data_offset;
}

/* Of many damaged frames only the first ones' files are looked up: it takes a walk for each. */
#define NAMED_MAX 100u

static void report_frame(struct verify *verify, uint32_t number, const char *cause)
{
	uint32_t first = 0, others = 0;
	struct thaw_frame frame;
	struct thaw_error escaped;
	char path[400];

	verify->bad_frames[number] = 1;
	verify->result->bad_frames++;
	thaw_image_frame(verify->image, number, &frame);
	for (uint32_t i = THAW_ROOT;
	     verify->result->bad_frames <= NAMED_MAX && i < verify->image->info.inodes;
	     i++) {
		if (!lies_in(inode_record(verify->image, i), &frame))
			continue;
		if (first)
			others++;
		else
			first = i;
	}
	if (!first) {
		report(verify, "%s", cause);
		return;
	}
	thaw_image_path(verify->image, first, path, sizeof(path));
	(void)thaw_damaged(&escaped, "%s", path); /* for its escaping */
	if (others)
		report(verify, "%s: in %s and %" PRIu32 " more", cause, escaped.text,
		       others);
	else
		report(verify, "%s: in %s", cause, escaped.text);
}

static void count_bad_files(struct verify *verify)
{
	const struct thaw_image *image = verify->image;

	for (uint32_t i = THAW_ROOT; i < image->info.inodes; i++) {
		const uint8_t *record = inode_record(image, i);
		uint64_t data = get_le64(record + THAW_INODE_OFF_DATA);
		uint64_t size = get_le64(record + THAW_INODE_OFF_SIZE);

		if (record[THAW_INODE_OFF_TYPE] != THAW_REGULAR)
			continue;
		verify->result->files++;
		if (size == 0 || verify->result->bad_frames == 0)
			continue;
		for (uint32_t n = thaw_image_frame_at(image, data),
			      last = thaw_image_frame_at(image, data + size - 1);
		     n <= last; n++) {
			if (verify->bad_frames[n]) {
				verify->result->bad_files++;
				break;
			}
		}
	}
}

/* -- taking frames in order -- */

static void release(struct verify *verify)
{
	if (!verify->holding)
		return;
	pthread_mutex_lock(&verify->lock);
	verify->slots[(verify->next - 1) % verify->slot_count].ready = false;
	verify->taken = verify->next;
	pthread_cond_broadcast(&verify->changed);
	pthread_mutex_unlock(&verify->lock);
	verify->holding = false;
}

/* The next frame's bytes, or NULL with len 0 when it is bad. Requires that there is one. */
static int take_frame(struct verify *verify, const uint8_t **ret_data, size_t *ret_len)
{
	uint32_t number = verify->next;
	struct slot *slot = &verify->slots[number % verify->slot_count];
	struct thaw_frame frame;

	release(verify);
	pthread_mutex_lock(&verify->lock);
	while (!slot->ready)
		pthread_cond_wait(&verify->changed, &verify->lock);
	pthread_mutex_unlock(&verify->lock);
	verify->next++;
	verify->holding = true;

	thaw_image_frame(verify->image, number, &frame);
	verify->result->frames++;
	thaw_pass_advance(&verify->pass, frame.size);
	verify->hard = thaw_pass_result(&verify->pass, &verify->hard_err);
	if (verify->hard == 0 && slot->result == -ENOMEM)
		verify->hard = thaw_oom(&verify->hard_err);
	if (verify->hard < 0)
		return verify->hard;
	*ret_data = slot->result == 0 ? slot->data : NULL;
	*ret_len = slot->result == 0 ? frame.size : 0;
	if (slot->result < 0) {
		report_frame(verify, number, slot->err.text);
		if (frame.data_offset < verify->image->info.stream_size)
			verify->broken = true;
	}
	return 0;
}

static bool stream_left(const struct verify *verify)
{
	struct thaw_frame frame;

	if (verify->next >= verify->image->info.frames)
		return false;
	thaw_image_frame(verify->image, verify->next, &frame);
	return frame.data_offset < verify->image->info.stream_size;
}

/* The next bytes of the stream, also into its digest. Length 0 is the end, or a bad frame. */
static int take_stream(struct verify *verify, const uint8_t **ret_data, size_t *ret_len)
{
	int r;

	*ret_len = 0;
	if (verify->broken || !stream_left(verify))
		return 0;
	r = take_frame(verify, ret_data, ret_len);
	if (r == 0 && *ret_len > 0 &&
	    thaw_digest_add(verify->digest, *ret_data, *ret_len) < 0)
		r = verify->hard = thaw_oom(&verify->hard_err);
	return r;
}

static int pull(void *userdata, struct thaw_error *err, const uint8_t **ret_data,
		size_t *ret_len)
{
	struct verify *verify = userdata;
	int r = take_stream(verify, ret_data, ret_len);

	if (r == 0 && verify->broken)
		return thaw_damaged(err, "a frame is damaged");
	if (r < 0)
		*err = verify->hard_err;
	return r;
}

/* Index the stream anew; NULL when that is not possible, which is a fault then. */
static int index_stream(struct verify *verify, struct thaw_tree **ret_tree)
{
	_cleanup_(thaw_tree_freep) struct thaw_tree *tree = NULL;
	struct thaw_tar_counts counts;
	struct thaw_error err = { 0 };
	int r;

	/* A stream with more names than the index is at fault, and need not be held in memory. */
	if (thaw_tree_new(verify->image->info.inodes, &tree) < 0)
		return verify->hard = thaw_oom(&verify->hard_err);
	r = thaw_tar_index(pull, verify, tree, &err, &counts);
	if (r == 0) {
		*ret_tree = steal_ptr(tree);
		return 0;
	}
	if (verify->hard == 0 && r == -ENOMEM)
		verify->hard = thaw_oom(&verify->hard_err);
	if (verify->hard == 0 && !verify->broken)
		report(verify, "the stream: %s", err.text);
	return verify->hard;
}

static int finish_stream(struct verify *verify)
{
	uint8_t sum[THAW_DIGEST_SIZE];
	const uint8_t *data;
	size_t len;
	int r;

	do
		r = take_stream(verify, &data, &len);
	while (r == 0 && len > 0);
	/* Behind a bad frame, and in the annex, frames stand for themselves. */
	while (r == 0 && verify->next < verify->image->info.frames)
		r = take_frame(verify, &data, &len);
	release(verify);
	if (r < 0 || verify->broken)
		return r;
	if (thaw_digest_end(verify->digest, sum) < 0)
		return verify->hard = thaw_oom(&verify->hard_err);
	verify->result->stream_ok = memcmp(sum, verify->image->info.stream_digest,
					   sizeof(sum)) == 0;
	if (!verify->result->stream_ok)
		report(verify, "the stream has another digest than the index says");
	return 0;
}

/* -- what else there is -- */

static void report_difference(void *userdata, const char *fault)
{
	report(userdata, "%s", fault);
}

static int check_image(struct verify *verify)
{
	_cleanup_(thaw_tree_freep) struct thaw_tree *tree = NULL;
	int r;

	if (thaw_digest_start(verify->digest) < 0)
		return verify->hard = thaw_oom(&verify->hard_err);
	r = index_stream(verify, &tree);
	if (r == 0)
		r = finish_stream(verify);
	if (r == 0 && tree)
		r = thaw_verify_index(verify->image, tree, report_difference, verify,
				      &verify->hard_err, &verify->result->index_ok);
	if (r == 0)
		r = thaw_verify_warm(verify->image, report_difference, verify,
				     &verify->hard_err, verify->result);
	if (r == 0)
		r = thaw_verify_relocations(verify->image, report_difference, verify,
					    &verify->hard_err, verify->result);
	return r;
}

static int run_threads(struct verify *verify)
{
	unsigned threads = thaw_pass_threads(&verify->pass), started = 0;
	_cleanup_(freep) pthread_t *ids = calloc(threads, sizeof(*ids));
	int r = 0;

	verify->slot_count = 2 * threads + 2;
	verify->slots = calloc(verify->slot_count, sizeof(*verify->slots));
	verify->bad_frames = calloc((size_t)verify->image->info.frames + 1, 1);
	if (!ids || !verify->slots || !verify->bad_frames ||
	    thaw_digest_new(&verify->digest) < 0)
		return thaw_oom(&verify->hard_err);
	while (started < threads && r == 0) {
		r = -pthread_create(&ids[started], NULL, decode_frames, verify);
		started += r == 0;
	}
	if (started == 0)
		return thaw_io(&verify->hard_err, r, "no thread can be started");
	r = check_image(verify);
	pthread_mutex_lock(&verify->lock);
	verify->stopped = true;
	pthread_cond_broadcast(&verify->changed);
	pthread_mutex_unlock(&verify->lock);
	for (unsigned i = 0; i < started; i++)
		(void)pthread_join(ids[i], NULL); /* joinable, and joined once */
	return r;
}

int thaw_verify(const struct thaw_image *image, const struct thaw_pass_options *options,
		thaw_verify_fault_fn *fault, void *fault_data, struct thaw_error *err,
		struct thaw_verify_result *ret_result)
{
	struct thaw_verify_result result = { 0 };
	struct verify verify = {
		.image = image,
		.result = &result,
		.fault = fault,
		.fault_data = fault_data,
	};
	int r;

	thaw_pass_init(&verify.pass, options, image->info.frames, image->data_size);
	(void)pthread_mutex_init(&verify.lock,
				 NULL); /* neither can fail with default attributes */
	(void)pthread_cond_init(&verify.changed, NULL);
	r = run_threads(&verify);
	if (r < 0 && err)
		*err = verify.hard_err;
	if (r == 0) {
		count_bad_files(&verify);
		*ret_result = result;
	}
	for (uint32_t i = 0; verify.slots && i < verify.slot_count; i++)
		free(verify.slots[i].data);
	free(verify.slots);
	free(verify.bad_frames);
	thaw_digest_free(verify.digest);
	(void)pthread_cond_destroy(&verify.changed); /* all threads are joined */
	(void)pthread_mutex_destroy(&verify.lock);
	thaw_pass_deinit(&verify.pass);
	return r;
}
