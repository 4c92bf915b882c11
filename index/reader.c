/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bounded cache that shares frames between threads.
 *
 * One lock protects the cache's lists and counts; it is never held while a
 * frame is read or decompressed. An entry is in the table from the moment that
 * a thread begins to load it, so that everybody else finds it and waits for as
 * much of it as he wants.
 */
#include "thaw/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "frame-decoder.h"
#include "image-internal.h"
#include "util/cleanup.h"

#define CACHE_DEFAULT (32ull << 20)

enum entry_state { ENTRY_LOADING, ENTRY_READY, ENTRY_FAILED };

/* All fields are protected by the reader's lock; data's bytes are not, once they are there. */
struct entry {
	uint32_t frame;
	enum entry_state state;
	unsigned pins;
	struct entry *newer, *older; /* in order of last use; only when READY and not pinned */
	uint8_t *data;
	size_t ready; /* bytes of data that are there, unless all are */
	size_t capacity;
};

/* What a frame is loaded with. Of one thread at a time, or in the reader's pool. */
struct loader {
	struct thaw_frame_decoder *decoder;
	struct thaw_frame frame;
	struct entry *entry;
	struct loader *next; /* in the pool; protected by the reader's lock */
};

struct thaw_reader {
	const struct thaw_image *image;
	uint64_t bound;
	pthread_mutex_t lock;
	pthread_cond_t loaded; /* of an entry, more is there, or it has left LOADING */
	struct entry **table; /* by frame number */
	struct entry *newest, *oldest;
	uint64_t bytes; /* capacity of all entries */
	struct loader *idle;
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
	for (struct loader *loader = reader->idle, *next; loader; loader = next) {
		next = loader->next;
		thaw_frame_decoder_free(loader->decoder);
		free(loader);
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

static struct loader *take_loader(struct thaw_reader *reader)
{
	struct loader *loader = reader->idle;

	if (loader) {
		reader->idle = loader->next;
		return loader;
	}
	loader = calloc(1, sizeof(*loader));
	if (loader && thaw_frame_decoder_new(reader->image, &loader->decoder) < 0) {
		free(loader);
		return NULL;
	}
	return loader;
}

static void give_loader(struct thaw_reader *reader, struct loader *loader)
{
	loader->next = reader->idle;
	reader->idle = loader;
}

/* The loader's frame is all there, or will not come. */
static void end_load(struct thaw_reader *reader, struct loader *loader, int r)
{
	struct entry *entry = loader->entry;

	if (r < 0) {
		/* Not kept: the next one who asks tries again. */
		reader->table[entry->frame] = NULL;
		reader->bytes -= entry->capacity;
		reader->stats.errors++;
		entry->state = ENTRY_FAILED;
	} else {
		reader->stats.bytes_stored += loader->frame.stored;
		reader->stats.bytes_decompressed += loader->frame.size;
		entry->state = ENTRY_READY;
	}
	pthread_cond_broadcast(&reader->loaded);
	give_loader(reader, loader);
}

/*
 * Make number's entry and load it until until bytes are there, letting go of the
 * lock meanwhile. *ret_loader: with what the rest is to be loaded, or NULL when there
 * is no rest.
 */
static int load(struct thaw_reader *reader, uint32_t number, size_t until,
		struct thaw_error *err, struct entry **ret_entry, struct loader **ret_loader)
{
	struct loader *loader = take_loader(reader);
	struct entry *entry;
	size_t ready = 0;
	int r;

	if (!loader)
		return thaw_oom(err);
	thaw_image_frame(reader->image, number, &loader->frame);
	entry = loader->entry = make_entry(reader, loader->frame.size);
	if (!entry) {
		give_loader(reader, loader);
		return thaw_oom(err);
	}
	entry->frame = number;
	entry->state = ENTRY_LOADING;
	entry->ready = 0;
	entry->pins = 1;
	reader->table[number] = entry;
	pthread_mutex_unlock(&reader->lock);

	if (reader->note)
		reader->note(reader->note_data, &loader->frame, false);
	r = thaw_frame_begin(loader->decoder, number, entry->data, err);
	if (r == 0)
		r = thaw_frame_advance(loader->decoder, until, &ready, err);
	if (reader->note && (r < 0 || ready == loader->frame.size))
		reader->note(reader->note_data, &loader->frame, true);

	pthread_mutex_lock(&reader->lock);
	*ret_entry = entry;
	*ret_loader = NULL;
	if (r == 0 && ready < loader->frame.size) {
		entry->ready = ready;
		pthread_cond_broadcast(&reader->loaded);
		*ret_loader = loader;
		return 0;
	}
	end_load(reader, loader, r);
	if (r < 0)
		unpin(reader, entry);
	return r;
}

/* The lock is let go of meanwhile. */
static void load_rest(struct thaw_reader *reader, struct loader *loader)
{
	struct thaw_error err; /* for whoever asks next: he meets it too */
	size_t ready;
	int r;

	pthread_mutex_unlock(&reader->lock);
	r = thaw_frame_advance(loader->decoder, loader->frame.size, &ready, &err);
	if (reader->note)
		reader->note(reader->note_data, &loader->frame, true);
	pthread_mutex_lock(&reader->lock);
	end_load(reader, loader, r);
}

static int pin_frame(struct thaw_reader *reader, uint32_t number, size_t until,
		     struct thaw_error *err, struct entry **ret_entry,
		     struct loader **ret_loader)
{
	struct entry *entry = reader->table[number];

	if (!entry) {
		reader->stats.misses++;
		return load(reader, number, until, err, ret_entry, ret_loader);
	}
	reader->stats.hits++;
	if (entry->pins++ == 0)
		unlink_unused(reader, entry);
	while (entry->state == ENTRY_LOADING && entry->ready < until)
		pthread_cond_wait(&reader->loaded, &reader->lock);
	if (entry->state == ENTRY_FAILED && entry->ready < until) {
		unpin(reader, entry);
		return thaw_damaged(err, "frame %" PRIu32 " cannot be had", number);
	}
	*ret_entry = entry;
	*ret_loader = NULL;
	return 0;
}

void thaw_reader_unpin(struct thaw_reader *reader, struct thaw_pin *pin)
{
	if (pin->count == 0)
		return;
	pthread_mutex_lock(&reader->lock);
	if (pin->rest)
		load_rest(reader, pin->rest);
	for (unsigned i = 0; i < pin->count; i++)
		unpin(reader, pin->entry[i]);
	pthread_mutex_unlock(&reader->lock);
	pin->count = 0;
	pin->rest = NULL;
}

int thaw_reader_pin(struct thaw_reader *reader, const struct thaw_inode *inode, uint64_t offset,
		    size_t len, struct thaw_error *err, struct thaw_pin *ret_pin)
{
	uint64_t at, end;
	uint32_t number;
	int r = 0;

	ret_pin->count = 0;
	ret_pin->length = 0;
	ret_pin->rest = NULL;
	if (offset >= inode->size || len == 0)
		return 0;
	if (len > inode->size - offset)
		len = (size_t)(inode->size - offset);
	at = inode->data + offset;
	end = at + len;
	number = thaw_image_frame_at(reader->image, at);

	pthread_mutex_lock(&reader->lock);
	while (at < end && ret_pin->count < THAW_PIN_MAX) {
		struct loader *loader = NULL;
		struct thaw_frame frame;
		struct entry *entry = NULL;
		uint64_t stop;

		thaw_image_frame(reader->image, number, &frame);
		stop = frame.data_offset + frame.size;
		if (stop > end)
			stop = end;
		r = pin_frame(reader, number++, (size_t)(stop - frame.data_offset), err, &entry,
			      &loader);
		if (r < 0)
			break;
		ret_pin->rest = loader; /* of the last one only: others were wanted to their end */
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
