/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: decoding one, and the bounded cache that shares them between threads.
 *
 * One lock protects the cache's lists and counts; it is never held while a
 * frame is read or decompressed. An entry is in the table from the moment that
 * a thread begins to load it, so that everybody else finds it and waits.
 */
#include "thaw/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_d_forceIgnoreChecksum */
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define CACHE_DEFAULT (32ull << 20)

struct thaw_frame_decoder {
	const struct thaw_image *image;
	ZSTD_DCtx *context;
	struct thaw_digest *digest;
	uint8_t *stored;
	size_t stored_capacity;
	struct thaw_frame_decoder *next; /* in a reader's pool; protected by its lock */
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

int thaw_frame_decode(struct thaw_frame_decoder *decoder, uint32_t number, void *buf,
		      struct thaw_error *err)
{
	uint8_t sum[THAW_DIGEST_SIZE];
	struct thaw_frame frame;
	size_t n;
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
	n = ZSTD_decompressDCtx(decoder->context, buf, frame.size, decoder->stored, frame.stored);
	if (ZSTD_isError(n) || n != frame.size)
		return thaw_damaged(err, "frame %" PRIu32 " is damaged (%s)", number,
				    ZSTD_isError(n) ? ZSTD_getErrorName(n) : "its length");
	return 0;
}

enum entry_state { ENTRY_LOADING, ENTRY_READY, ENTRY_FAILED };

/* All fields are protected by the reader's lock; data's bytes are not, once READY. */
struct entry {
	uint32_t frame;
	enum entry_state state;
	unsigned pins;
	struct entry *newer, *older; /* in order of last use; only when READY and not pinned */
	uint8_t *data;
	size_t capacity;
};

struct thaw_reader {
	const struct thaw_image *image;
	uint64_t bound;
	pthread_mutex_t lock;
	pthread_cond_t loaded; /* an entry has left LOADING */
	struct entry **table; /* by frame number */
	struct entry *newest, *oldest;
	uint64_t bytes; /* capacity of all entries */
	struct thaw_frame_decoder *decoders;
	thaw_reader_note *note; /* or NULL; not protected: set before use */
	void *note_data;
	struct thaw_reader_stats stats;
};

int thaw_reader_new(const struct thaw_image *image, uint64_t cache_bytes,
		    struct thaw_reader **ret_reader)
{
	struct thaw_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->image = image;
	reader->bound = cache_bytes ? cache_bytes : CACHE_DEFAULT;
	(void)pthread_mutex_init(&reader->lock, NULL); /* cannot fail with default attributes */
	(void)pthread_cond_init(&reader->loaded, NULL);
	reader->table = calloc((size_t)image->info.frames + 1, sizeof(*reader->table));
	if (!reader->table) {
		thaw_reader_free(reader);
		return -ENOMEM;
	}
	*ret_reader = reader;
	return 0;
}

static void entry_free(struct entry *entry)
{
	free(entry->data);
	free(entry);
}

struct thaw_reader *thaw_reader_free(struct thaw_reader *reader)
{
	if (!reader)
		return NULL;
	for (struct entry *entry = reader->newest, *older; entry; entry = older) {
		older = entry->older;
		entry_free(entry);
	}
	for (struct thaw_frame_decoder *decoder = reader->decoders, *next; decoder;
	     decoder = next) {
		next = decoder->next;
		thaw_frame_decoder_free(decoder);
	}
	pthread_cond_destroy(&reader->loaded);
	pthread_mutex_destroy(&reader->lock);
	free(reader->table);
	free(reader);
	return NULL;
}

/* With the lock held, here and in the next functions. */
static void unlink_unused(struct thaw_reader *reader, struct entry *entry)
{
	*(entry->newer ? &entry->newer->older : &reader->newest) = entry->older;
	*(entry->older ? &entry->older->newer : &reader->oldest) = entry->newer;
	entry->newer = entry->older = NULL;
}

static void link_newest(struct thaw_reader *reader, struct entry *entry)
{
	entry->older = reader->newest;
	*(reader->newest ? &reader->newest->newer : &reader->oldest) = entry;
	reader->newest = entry;
}

static void unpin(struct thaw_reader *reader, struct entry *entry)
{
	if (--entry->pins > 0)
		return;
	if (entry->state == ENTRY_FAILED) /* out of the table since it failed */
		entry_free(entry);
	else
		link_newest(reader, entry);
}

/*
 * An entry with room for size bytes: the longest unused one once the bound is
 * reached (its pages are faulted in already), else a new one. Everything beyond
 * the bound is given back; pinned entries may exceed it for a moment.
 */
static struct entry *make_entry(struct thaw_reader *reader, size_t size)
{
	struct entry *entry = NULL;

	while (reader->oldest && reader->bytes + size > reader->bound) {
		struct entry *victim = reader->oldest;

		unlink_unused(reader, victim);
		reader->table[victim->frame] = NULL;
		reader->bytes -= victim->capacity;
		if (!entry && victim->capacity >= size)
			entry = victim;
		else
			entry_free(victim);
		if (entry && reader->bytes + entry->capacity <= reader->bound)
			break;
	}
	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry)
			return NULL;
		entry->data = malloc(size);
		if (!entry->data) {
			free(entry);
			return NULL;
		}
		entry->capacity = size;
	}
	reader->bytes += entry->capacity;
	return entry;
}

static struct thaw_frame_decoder *take_decoder(struct thaw_reader *reader)
{
	struct thaw_frame_decoder *decoder = reader->decoders;

	if (decoder)
		reader->decoders = decoder->next;
	else if (thaw_frame_decoder_new(reader->image, &decoder) < 0)
		decoder = NULL;
	return decoder;
}

/* Make number's entry and load it, letting go of the lock meanwhile. */
static int load(struct thaw_reader *reader, uint32_t number, struct thaw_error *err,
		struct entry **ret_entry)
{
	struct thaw_frame_decoder *decoder;
	struct thaw_frame frame;
	struct entry *entry;
	int r;

	thaw_image_frame(reader->image, number, &frame);
	decoder = take_decoder(reader);
	entry = decoder ? make_entry(reader, frame.size) : NULL;
	if (!entry) {
		if (decoder) {
			decoder->next = reader->decoders;
			reader->decoders = decoder;
		}
		return thaw_oom(err);
	}
	entry->frame = number;
	entry->state = ENTRY_LOADING;
	entry->pins = 1;
	reader->table[number] = entry;
	pthread_mutex_unlock(&reader->lock);

	if (reader->note)
		reader->note(reader->note_data, &frame, false);
	r = thaw_frame_decode(decoder, number, entry->data, err);
	if (reader->note)
		reader->note(reader->note_data, &frame, true);

	pthread_mutex_lock(&reader->lock);
	decoder->next = reader->decoders;
	reader->decoders = decoder;
	pthread_cond_broadcast(&reader->loaded);
	if (r < 0) {
		/* Not kept: the next one who asks tries again. */
		reader->table[number] = NULL;
		reader->bytes -= entry->capacity;
		reader->stats.errors++;
		entry->state = ENTRY_FAILED;
		unpin(reader, entry);
		return r;
	}
	reader->stats.bytes_stored += frame.stored;
	reader->stats.bytes_decompressed += frame.size;
	entry->state = ENTRY_READY;
	*ret_entry = entry;
	return 0;
}

static int pin_frame(struct thaw_reader *reader, uint32_t number, struct thaw_error *err,
		     struct entry **ret_entry)
{
	struct entry *entry = reader->table[number];

	if (!entry) {
		reader->stats.misses++;
		return load(reader, number, err, ret_entry);
	}
	reader->stats.hits++;
	if (entry->pins++ == 0)
		unlink_unused(reader, entry);
	while (entry->state == ENTRY_LOADING)
		pthread_cond_wait(&reader->loaded, &reader->lock);
	if (entry->state == ENTRY_FAILED) {
		unpin(reader, entry);
		return thaw_damaged(err, "frame %" PRIu32 " cannot be had", number);
	}
	*ret_entry = entry;
	return 0;
}

void thaw_reader_unpin(struct thaw_reader *reader, struct thaw_pin *pin)
{
	if (pin->count == 0)
		return;
	pthread_mutex_lock(&reader->lock);
	for (unsigned i = 0; i < pin->count; i++)
		unpin(reader, pin->entry[i]);
	pthread_mutex_unlock(&reader->lock);
	pin->count = 0;
}

int thaw_reader_pin(struct thaw_reader *reader, const struct thaw_inode *inode, uint64_t offset,
		    size_t len, struct thaw_error *err, struct thaw_pin *ret_pin)
{
	uint64_t at, end;
	uint32_t number;
	int r = 0;

	ret_pin->count = 0;
	ret_pin->length = 0;
	if (offset >= inode->size || len == 0)
		return 0;
	if (len > inode->size - offset)
		len = (size_t)(inode->size - offset);
	at = inode->data + offset;
	end = at + len;
	number = thaw_image_frame_at(reader->image, at);

	pthread_mutex_lock(&reader->lock);
	while (at < end && ret_pin->count < THAW_PIN_MAX) {
		struct thaw_frame frame;
		struct entry *entry = NULL;
		uint64_t stop;

		r = pin_frame(reader, number, err, &entry);
		if (r < 0)
			break;
		thaw_image_frame(reader->image, number++, &frame);
		stop = frame.data_offset + frame.size;
		if (stop > end)
			stop = end;
		ret_pin->entry[ret_pin->count] = entry;
		ret_pin->iov[ret_pin->count] = (struct iovec){
			.iov_base = entry->data + (at - frame.data_offset),
			.iov_len = (size_t)(stop - at),
		};
		ret_pin->count++;
		ret_pin->length += (size_t)(stop - at);
		at = stop;
	}
	pthread_mutex_unlock(&reader->lock);
	if (r < 0)
		thaw_reader_unpin(reader, ret_pin);
	return r;
}

int thaw_reader_read(struct thaw_reader *reader, const struct thaw_inode *inode, uint64_t offset,
		     void *buf, size_t len, struct thaw_error *err, size_t *ret_len)
{
	uint8_t *to = buf;
	size_t done = 0;

	while (done < len) {
		struct thaw_pin pin;
		int r;

		r = thaw_reader_pin(reader, inode, offset + done, len - done, err, &pin);
		if (r < 0)
			return r;
		if (pin.length == 0)
			break;
		for (unsigned i = 0; i < pin.count; i++) {
			memcpy(to + done, pin.iov[i].iov_base, pin.iov[i].iov_len);
			done += pin.iov[i].iov_len;
		}
		thaw_reader_unpin(reader, &pin);
	}
	*ret_len = done;
	return 0;
}

void thaw_reader_observe(struct thaw_reader *reader, thaw_reader_note *note, void *userdata)
{
	reader->note = note;
	reader->note_data = userdata;
}

void thaw_reader_stats(struct thaw_reader *reader, struct thaw_reader_stats *ret_stats)
{
	pthread_mutex_lock(&reader->lock);
	*ret_stats = reader->stats;
	pthread_mutex_unlock(&reader->lock);
}
