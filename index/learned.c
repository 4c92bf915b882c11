/* SPDX-License-Identifier: Apache-2.0 */
/* Learned traces: by path, in memory and in files. */
#include "thaw/learned.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "catalogue-internal.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

/* What the checksum of a file is over besides its content. */
static const char file_key[] = "file:learned";

#define PIECE (64u << 10)

/* -- from a trace -- */

struct text {
	char *data;
	size_t used, capacity;
};

static int add_text(struct text *text, const char *from, size_t len)
{
	int r = grow(&text->data, &text->capacity, text->used + len + 1, 1);

	if (r == 0) {
		memcpy(text->data + text->used, from, len);
		text->used += len;
	}
	return r;
}

static bool name_sensible(const struct thaw_trace_event *event)
{
	return event->name_len > 0 && event->name_len <= THAW_NAME_MAX &&
	       !memchr(event->name, '\0', event->name_len) &&
	       !memchr(event->name, '/', event->name_len);
}

/* 0, or THAW_NOT_FOUND for what makes no sense. Text is appended: path, then name. */
static int add_event(const struct thaw_image *image, const struct thaw_trace_event *event,
		     struct text *text, struct thaw_learned_entry *entry)
{
	bool named = event->kind == THAW_TRACE_FOUND || event->kind == THAW_TRACE_MISSED;
	char path[THAW_PATH_MAX + 8];
	struct thaw_inode inode;
	size_t len;
	int r;

	if (thaw_image_inode(image, event->ino, &inode) < 0 ||
	    (named && !name_sensible(event)))
		return THAW_NOT_FOUND;
	thaw_image_path(image, inode.ino, path, sizeof(path));
	len = inode.ino == THAW_ROOT ? 0 : strlen(path);
	if (len > THAW_PATH_MAX)
		return THAW_NOT_FOUND;
	*entry = (struct thaw_learned_entry){
		.kind = (uint8_t)event->kind,
		.path_len = (uint16_t)len,
		.name_len = named ? (uint16_t)event->name_len : 0,
		.first = event->first,
		.count = event->count,
	};
	r = add_text(text, path, len);
	return r == 0 && named ? add_text(text, event->name, event->name_len) : r;
}

int thaw_learned_from_trace(const struct thaw_image *image,
			    const struct thaw_trace *trace, struct thaw_error *err,
			    struct thaw_learned *ret_learned)
{
	uint32_t events = thaw_trace_count(trace);
	_cleanup_(freep) struct thaw_learned_entry *entries = calloc((size_t)events + 1,
								     sizeof(*entries));
	struct text text = { 0 };
	size_t count = 0;
	const char *at;

	if (!entries || add_text(&text, "", 0) < 0)
		return thaw_oom(err);
	for (uint32_t i = 0; i < events; i++) {
		struct thaw_trace_event event;
		int r = THAW_NOT_FOUND;

		if (thaw_trace_get(trace, i, &event))
			r = add_event(image, &event, &text, &entries[count]);
		if (r < 0) {
			free(text.data);
			return thaw_oom(err);
		}
		count += r == 0;
	}
	/* Now that it moves no more. */
	at = text.data;
	for (size_t i = 0; i < count; i++) {
		entries[i].path = at;
		entries[i].name = at + entries[i].path_len;
		at = entries[i].name + entries[i].name_len;
	}
	*ret_learned = (struct thaw_learned){ steal_ptr(entries), count, text.data };
	return 0;
}

/* -- files -- */

/* The digest of the index, then what the catalogue keeps too. */
int thaw_learned_save(int fd, const uint8_t index_digest[THAW_DIGEST_SIZE],
		      const struct thaw_learned *learned, struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *encoded = NULL;
	_cleanup_(freep) uint8_t *payload = NULL;
	_cleanup_(freep) uint8_t *record = NULL;
	size_t len, record_len;
	int r = thaw_learned_encode((int64_t)time(NULL), THAW_LEARNED_WORKLOAD,
				    learned->entries, learned->count, err, &encoded,
				    &len);

	if (r < 0)
		return r;
	payload = malloc(THAW_DIGEST_SIZE + len);
	if (!payload)
		return thaw_oom(err);
	memcpy(payload, index_digest, THAW_DIGEST_SIZE);
	memcpy(payload + THAW_DIGEST_SIZE, encoded, len);
	r = thaw_record_encode(file_key, sizeof(file_key), payload,
			       THAW_DIGEST_SIZE + len, &record, &record_len);
	if (r == 0)
		r = write_all(fd, record, record_len);
	return r < 0 ? thaw_io(err, r, "a learned trace cannot be written") : 0;
}

/* By nothing but pread(2): a confined process may not ask for more. */
static int read_whole(int fd, struct thaw_error *err, uint8_t **ret_bytes,
		      size_t *ret_len)
{
	_cleanup_(freep) uint8_t *bytes = NULL;
	size_t capacity = 0, len = 0;
	ssize_t n;

	do {
		if (grow(&bytes, &capacity, len + PIECE, 1) < 0)
			return thaw_oom(err);
		n = pread(fd, bytes + len, PIECE, (off_t)len);
		if (n < 0 && errno != EINTR)
			return thaw_io(err, -errno, "a learned trace cannot be read");
		len += n > 0 ? (size_t)n : 0;
		if (len > THAW_RECORD_MAX)
			return thaw_limit(err, "a learned trace is too large");
	} while (n != 0);
	*ret_bytes = steal_ptr(bytes);
	*ret_len = len;
	return 0;
}

int thaw_learned_load(int fd, struct thaw_error *err,
		      uint8_t ret_index_digest[THAW_DIGEST_SIZE],
		      struct thaw_learned *ret_learned)
{
	_cleanup_(freep) uint8_t *record = NULL;
	_cleanup_(freep) uint8_t *encoded = NULL;
	const uint8_t *payload;
	size_t record_len = 0, len;
	int r = read_whole(fd, err, &record, &record_len);

	if (r < 0)
		return r;
	r = thaw_record_decode(file_key, sizeof(file_key), record, record_len, &payload,
			       &len);
	if (r == 0 && len < THAW_DIGEST_SIZE)
		r = -EBADMSG;
	if (r == 0) {
		encoded = malloc(len - THAW_DIGEST_SIZE + 1);
		if (!encoded)
			return thaw_oom(err);
		memcpy(encoded, payload + THAW_DIGEST_SIZE, len - THAW_DIGEST_SIZE);
		r = thaw_learned_decode(encoded, len - THAW_DIGEST_SIZE,
					THAW_LEARNED_WORKLOAD, ret_learned);
	}
	if (r == -ENOMEM)
		return thaw_oom(err);
	if (r < 0)
		return thaw_damaged(err, "damaged: a learned trace");
	(void)steal_ptr(encoded); /* the result's */
	memcpy(ret_index_digest, payload, THAW_DIGEST_SIZE);
	return 0;
}
