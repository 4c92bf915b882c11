/* SPDX-License-Identifier: Apache-2.0 */
/* What the catalogue's values are: checked records, JSON, learned traces. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalogue-internal.h"
#include "digest.h"
#include "thaw/trace.h"
#include "util/bytes.h"
#include "util/cleanup.h"

static int record_digest(const void *key, size_t key_len, const uint8_t *head,
			 const void *payload, size_t len, uint8_t ret_sum[32])
{
	struct thaw_digest *digest = NULL;
	uint8_t lengths[4];
	int r;

	put_le32(lengths, (uint32_t)key_len);
	r = thaw_digest_new(&digest);
	if (r == 0)
		r = thaw_digest_start(digest);
	if (r == 0)
		r = thaw_digest_add(digest, head, THAW_RECORD_OFF_DIGEST);
	if (r == 0)
		r = thaw_digest_add(digest, lengths, sizeof(lengths));
	if (r == 0)
		r = thaw_digest_add(digest, key, key_len);
	if (r == 0)
		r = thaw_digest_add(digest, payload, len);
	if (r == 0)
		r = thaw_digest_end(digest, ret_sum);
	thaw_digest_free(digest);
	return r;
}

int thaw_record_encode(const void *key, size_t key_len, const void *payload, size_t len,
		       uint8_t **ret_record, size_t *ret_len)
{
	_cleanup_(freep) uint8_t *record = NULL;
	uint8_t sum[32];
	int r;

	if (len > THAW_RECORD_MAX - THAW_RECORD_HEADER)
		return -EFBIG;
	record = malloc(THAW_RECORD_HEADER + len);
	if (!record)
		return -ENOMEM;
	put_le32(record, THAW_RECORD_VERSION);
	put_le32(record + THAW_RECORD_OFF_LENGTH, (uint32_t)len);
	r = record_digest(key, key_len, record, payload, len, sum);
	if (r < 0)
		return r;
	memcpy(record + THAW_RECORD_OFF_DIGEST, sum, THAW_RECORD_DIGEST_SIZE);
	memcpy(record + THAW_RECORD_HEADER, payload, len);
	*ret_len = THAW_RECORD_HEADER + len;
	*ret_record = steal_ptr(record);
	return 0;
}

int thaw_record_decode(const void *key, size_t key_len, const void *record,
		       size_t record_len, const uint8_t **ret_payload, size_t *ret_len)
{
	const uint8_t *bytes = record;
	uint8_t sum[32];
	int r;

	if (record_len < THAW_RECORD_HEADER || get_le32(bytes) != THAW_RECORD_VERSION ||
	    get_le32(bytes + THAW_RECORD_OFF_LENGTH) != record_len - THAW_RECORD_HEADER)
		return -EBADMSG;
	r = record_digest(key, key_len, bytes, bytes + THAW_RECORD_HEADER,
			  record_len - THAW_RECORD_HEADER, sum);
	if (r < 0)
		return r;
	if (memcmp(sum, bytes + THAW_RECORD_OFF_DIGEST, THAW_RECORD_DIGEST_SIZE) != 0)
		return -EBADMSG;
	*ret_payload = bytes + THAW_RECORD_HEADER;
	*ret_len = record_len - THAW_RECORD_HEADER;
	return 0;
}

/* -- learned traces -- */

/* An entry: u8 kind, u8 length of the name, u16 of the path, u32 first, u32 count, path, name. */
#define ENTRY_HEADER 12u
#define TRACE_HEADER 9u /* u64 time, u8 length of the workload's name */

static bool entry_valid(const struct thaw_learned_entry *entry)
{
	return entry->kind >= THAW_TRACE_READ && entry->kind <= THAW_TRACE_LINK &&
	       entry->path_len <= THAW_PATH_MAX && entry->name_len <= THAW_NAME_MAX &&
	       (entry->path_len == 0 || !memchr(entry->path, '\0', entry->path_len)) &&
	       (entry->name_len == 0 || !memchr(entry->name, '\0', entry->name_len));
}

int thaw_learned_encode(int64_t now, const char *workload,
			const struct thaw_learned_entry *entries, size_t count,
			struct thaw_error *err, uint8_t **ret_payload, size_t *ret_len)
{
	size_t workload_len = strlen(workload), len = TRACE_HEADER + workload_len;
	uint8_t *payload, *at;

	for (size_t i = 0; i < count; i++) {
		if (!entry_valid(&entries[i]))
			return thaw_limit(err, "entry %zu of a trace is out of bounds",
					  i);
		len += ENTRY_HEADER + entries[i].path_len + entries[i].name_len;
		if (len > THAW_CATALOGUE_TRACE_MAX)
			return thaw_limit(err, "a trace is larger than %u MiB",
					  THAW_CATALOGUE_TRACE_MAX >> 20);
	}
	payload = malloc(len);
	if (!payload)
		return thaw_oom(err);
	put_le64(payload, (uint64_t)now);
	payload[8] = (uint8_t)workload_len;
	memcpy(payload + TRACE_HEADER, workload, workload_len);
	at = payload + TRACE_HEADER + workload_len;
	for (size_t i = 0; i < count; i++) {
		const struct thaw_learned_entry *entry = &entries[i];

		at[0] = entry->kind;
		at[1] = (uint8_t)entry->name_len;
		put_le16(at + 2, entry->path_len);
		put_le32(at + 4, entry->first);
		put_le32(at + 8, entry->count);
		at += ENTRY_HEADER;
		if (entry->path_len)
			memcpy(at, entry->path, entry->path_len);
		at += entry->path_len;
		if (entry->name_len)
			memcpy(at, entry->name, entry->name_len);
		at += entry->name_len;
	}
	*ret_payload = payload;
	*ret_len = len;
	return 0;
}

/* Walk the entries; with out, fill it in. The number of entries, or -EBADMSG. */
static ssize_t walk_entries(const uint8_t *at, size_t left,
			    struct thaw_learned_entry *out)
{
	ssize_t count = 0;

	while (left > 0) {
		struct thaw_learned_entry entry;

		if (left < ENTRY_HEADER)
			return -EBADMSG;
		entry = (struct thaw_learned_entry){
			.kind = at[0],
			.name_len = at[1],
			.path_len = get_le16(at + 2),
			.first = get_le32(at + 4),
			.count = get_le32(at + 8),
		};
		at += ENTRY_HEADER;
		left -= ENTRY_HEADER;
		if (left < (size_t)entry.path_len + entry.name_len)
			return -EBADMSG;
		entry.path = (const char *)at;
		entry.name = (const char *)at + entry.path_len;
		if (!entry_valid(&entry))
			return -EBADMSG;
		at += entry.path_len + entry.name_len;
		left -= (size_t)entry.path_len + entry.name_len;
		if (out)
			out[count] = entry;
		count++;
	}
	return count;
}

int thaw_learned_decode(uint8_t *payload, size_t len, const char *workload,
			struct thaw_learned *ret_learned)
{
	size_t workload_len = strlen(workload), skip = TRACE_HEADER + workload_len;
	struct thaw_learned_entry *entries;
	ssize_t count;

	if (len < skip || payload[8] != workload_len ||
	    memcmp(payload + TRACE_HEADER, workload, workload_len) != 0)
		return -EBADMSG;
	count = walk_entries(payload + skip, len - skip, NULL);
	if (count < 0)
		return (int)count;
	entries = calloc((size_t)count + 1, sizeof(*entries)); /* + 1: never of size 0 */
	if (!entries)
		return -ENOMEM;
	(void)walk_entries(payload + skip, len - skip, entries); /* as just before */
	*ret_learned = (struct thaw_learned){ entries, (size_t)count, payload };
	return 0;
}

void thaw_learned_deinit(struct thaw_learned *learned)
{
	free(learned->entries);
	free(learned->data);
	*learned = (struct thaw_learned){ 0 };
}

/* -- JSON -- */

static char *to_hex(const uint8_t *bytes, size_t len)
{
	char *text = malloc(2 * len + 1);

	for (size_t i = 0; text && i < len; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	if (text)
		text[2 * len] = '\0';
	return text;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool from_hex(const char *text, uint8_t *ret_bytes, size_t len)
{
	if (!text || strlen(text) != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		ret_bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* Paths may hold any bytes, JSON's strings only UTF-8. */
static json_t *string_json(const char *text)
{
	_cleanup_(freep) char *hex = NULL;
	json_t *json;

	if (!text)
		return json_null();
	json = json_string(text);
	if (json)
		return json;
	hex = to_hex((const uint8_t *)text, strlen(text));
	return hex ? json_pack("{s:s}", "hex", hex) : NULL;
}

/* Absent and null: NULL. */
static int string_from_json(const json_t *object, const char *key, char **ret_text)
{
	const json_t *json = json_object_get(object, key);
	const char *hex = json_string_value(json_object_get(json, "hex"));
	size_t len;

	*ret_text = NULL;
	if (!json || json_is_null(json))
		return 0;
	if (json_is_string(json)) {
		*ret_text = strdup(json_string_value(json));
		return *ret_text ? 0 : -ENOMEM;
	}
	if (!hex || strlen(hex) % 2)
		return -EBADMSG;
	len = strlen(hex) / 2;
	*ret_text = malloc(len + 1);
	if (!*ret_text)
		return -ENOMEM;
	(*ret_text)[len] = '\0';
	if (from_hex(hex, (uint8_t *)*ret_text, len) && strlen(*ret_text) == len)
		return 0;
	free(*ret_text);
	*ret_text = NULL;
	return -EBADMSG;
}

static json_t *digest_json(const uint8_t digest[THAW_DIGEST_SIZE])
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(digest, hex);
	return json_string(hex);
}

static int integer_from_json(const json_t *object, const char *key, int64_t *ret_value)
{
	const json_t *json = json_object_get(object, key);

	if (!json_is_integer(json))
		return -EBADMSG;
	*ret_value = json_integer_value(json);
	return 0;
}

json_t *thaw_catalogue_image_json(const struct thaw_catalogue_image *image)
{
	/* "o" takes the reference, and fails for NULL: nothing leaks either way. */
	return json_pack(
		"{s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I}", "name", string_json(image->name),
		"path", string_json(image->path), "kind", string_json(image->kind),
		"python", string_json(image->python), "index",
		digest_json(image->index_digest), "size", (json_int_t)image->size,
		"mtime_ns", (json_int_t)image->mtime_ns, "used", (json_int_t)image->used);
}

int thaw_catalogue_image_from_json(const json_t *json,
				   const uint8_t identity[THAW_DIGEST_SIZE],
				   struct thaw_catalogue_image *ret_image)
{
	struct thaw_catalogue_image image = { 0 };
	int64_t size = 0;
	int r;

	memcpy(image.identity, identity, THAW_DIGEST_SIZE);
	r = string_from_json(json, "name", &image.name);
	if (r == 0)
		r = string_from_json(json, "path", &image.path);
	if (r == 0)
		r = string_from_json(json, "kind", &image.kind);
	if (r == 0)
		r = string_from_json(json, "python", &image.python);
	if (r == 0)
		r = integer_from_json(json, "size", &size);
	if (r == 0)
		r = integer_from_json(json, "mtime_ns", &image.mtime_ns);
	if (r == 0)
		r = integer_from_json(json, "used", &image.used);
	if (r == 0 && (!image.name || !image.path ||
		       !from_hex(json_string_value(json_object_get(json, "index")),
				 image.index_digest, THAW_DIGEST_SIZE)))
		r = -EBADMSG;
	if (r < 0) {
		thaw_catalogue_image_deinit(&image);
		return r;
	}
	image.size = (uint64_t)size;
	*ret_image = image;
	return 0;
}

json_t *thaw_catalogue_source_json(const struct thaw_catalogue_source *source,
				   const uint8_t identity[THAW_DIGEST_SIZE])
{
	return json_pack("{s:o,s:o,s:o,s:I,s:I,s:I,s:o}", "path",
			 string_json(source->path), "image", string_json(source->image),
			 "options", string_json(source->options), "size",
			 (json_int_t)source->size, "inode", (json_int_t)source->inode,
			 "mtime_ns", (json_int_t)source->mtime_ns, "identity",
			 digest_json(identity));
}

int thaw_catalogue_source_from_json(const json_t *json, char **ret_path, char **ret_image,
				    char **ret_options,
				    struct thaw_catalogue_source *ret_source,
				    uint8_t ret_identity[THAW_DIGEST_SIZE])
{
	_cleanup_(freep) char *path = NULL;
	_cleanup_(freep) char *options = NULL;
	_cleanup_(freep) char *image = NULL;
	int64_t size = 0, inode = 0, mtime_ns = 0;
	int r;

	r = string_from_json(json, "path", &path);
	if (r == 0)
		r = string_from_json(json, "options", &options);
	if (r == 0)
		r = string_from_json(json, "image", &image);
	if (r == 0)
		r = integer_from_json(json, "size", &size);
	if (r == 0)
		r = integer_from_json(json, "inode", &inode);
	if (r == 0)
		r = integer_from_json(json, "mtime_ns", &mtime_ns);
	if (r == 0 && (!path || !options ||
		       !from_hex(json_string_value(json_object_get(json, "identity")),
				 ret_identity, THAW_DIGEST_SIZE)))
		r = -EBADMSG;
	if (r < 0)
		return r;
	*ret_source = (struct thaw_catalogue_source){ .path = path,
						      .image = image,
						      .options = options,
						      .size = (uint64_t)size,
						      .inode = (uint64_t)inode,
						      .mtime_ns = mtime_ns };
	*ret_path = steal_ptr(path);
	*ret_image = steal_ptr(image);
	*ret_options = steal_ptr(options);
	return 0;
}
