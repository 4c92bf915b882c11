/* SPDX-License-Identifier: Apache-2.0 */
/* What a stub says: stub.json, and where it lies in an executable file. */
#include "thaw/stub.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "stub-internal.h"
#include "thaw/source.h"
#include "util/bytes.h"
#include "util/cleanup.h"

#define STUB_VERSION 1

/* -- text -- */

static json_t *image_json(const struct thaw_stub_image *image)
{
	json_t *object = json_object();

	(void)json_object_set_new(object, "identity", json_string(image->identity));
	(void)json_object_set_new(object, "name", json_string(image->name));
	if (image->path)
		(void)json_object_set_new(object, "path", json_string(image->path));
	(void)json_object_set_new(object, "embedded", json_boolean(image->embedded));
	return object;
}

int thaw_stub_text(const struct thaw_stub *stub, char **ret_text)
{
	json_t *object = json_object(), *images = json_array(), *search = json_array();

	for (size_t i = 0; i < stub->image_count; i++)
		(void)json_array_append_new(images, image_json(&stub->images[i]));
	for (size_t i = 0; i < stub->search_count; i++)
		(void)json_array_append_new(search, json_string(stub->search[i]));
	(void)json_object_set_new(object, "thaw-stub", json_integer(STUB_VERSION));
	(void)json_object_set_new(object, "machine", json_string(stub->machine));
	(void)json_object_set_new(object, "images", images);
	(void)json_object_set_new(object, "search", search);
	/* Sorted: the same bytes for the same stub. */
	*ret_text = json_dumps(object, JSON_INDENT(1) | JSON_SORT_KEYS);
	json_decref(object);
	return *ret_text ? 0 : -ENOMEM;
}

/* -- parsing -- */

static int malformed(struct thaw_error *err, const char *what)
{
	return thaw_damaged(err, "no stub's description: %s", what);
}

static bool is_identity(const char *text)
{
	return text && strlen(text) == THAW_DIGEST_HEX - 1 &&
	       strspn(text, "0123456789abcdef") == THAW_DIGEST_HEX - 1;
}

/* A name of a file alone: it is looked for in directories. */
static bool is_name(const char *text)
{
	return text && *text && !strchr(text, '/') && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static int copy_text(const json_t *value, char **ret_text, struct thaw_error *err)
{
	*ret_text = strdup(json_string_value(value));
	return *ret_text ? 0 : thaw_oom(err);
}

static int parse_image(const json_t *value, struct thaw_stub_image *image,
		       struct thaw_error *err)
{
	const json_t *path = json_object_get(value, "path");
	const json_t *name = json_object_get(value, "name");
	const char *identity = json_string_value(json_object_get(value, "identity"));
	int r;

	if (!is_identity(identity) || !is_name(json_string_value(name)))
		return malformed(err, "an image without identity or name");
	if (path && (!json_is_string(path) || json_string_value(path)[0] != '/'))
		return malformed(err, "an image's path is not absolute");
	memcpy(image->identity, identity, THAW_DIGEST_HEX);
	image->embedded = json_is_true(json_object_get(value, "embedded"));
	r = copy_text(name, &image->name, err);
	return r == 0 && path ? copy_text(path, &image->path, err) : r;
}

static int parse_images(const json_t *images, struct thaw_stub *stub, struct thaw_error *err)
{
	size_t count = json_array_size(images);
	int r = 0;

	if (count == 0 || count > THAW_STUB_IMAGES_MAX)
		return malformed(err, "no images, or too many");
	stub->images = calloc(count, sizeof(*stub->images));
	if (!stub->images)
		return thaw_oom(err);
	stub->image_count = count;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = parse_image(json_array_get(images, i), &stub->images[i], err);
	return r;
}

static int parse_search(const json_t *search, struct thaw_stub *stub, struct thaw_error *err)
{
	size_t count = json_array_size(search);
	int r = 0;

	if (count > THAW_STUB_SEARCH_MAX)
		return malformed(err, "too many directories");
	if (count == 0)
		return 0;
	stub->search = calloc(count, sizeof(*stub->search));
	if (!stub->search)
		return thaw_oom(err);
	stub->search_count = count;
	for (size_t i = 0; r == 0 && i < count; i++) {
		const json_t *value = json_array_get(search, i);

		if (!json_is_string(value) || json_string_value(value)[0] != '/')
			return malformed(err, "a directory is not absolute");
		r = copy_text(value, &stub->search[i], err);
	}
	return r;
}

static int parse_stub(const json_t *object, struct thaw_stub *stub, struct thaw_error *err)
{
	const char *machine = json_string_value(json_object_get(object, "machine"));
	json_int_t version = json_integer_value(json_object_get(object, "thaw-stub"));
	int r;

	if (version > STUB_VERSION)
		return thaw_refused(err, "the stub was made by a newer thaw (version %lld)",
				    (long long)version);
	if (version < 1 || !machine || !*machine || strlen(machine) >= sizeof(stub->machine))
		return malformed(err, "no version or machine");
	strcpy(stub->machine, machine);
	r = parse_images(json_object_get(object, "images"), stub, err);
	return r == 0 ? parse_search(json_object_get(object, "search"), stub, err) : r;
}

int thaw_stub_parse(const char *text, size_t len, struct thaw_error *err,
		    struct thaw_stub *ret_stub)
{
	struct thaw_stub stub = { 0 };
	json_error_t where;
	json_t *object;
	int r;

	if (len > THAW_STUB_SIZE_MAX)
		return malformed(err, "too long");
	object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	if (!object)
		return malformed(err, where.text);
	r = parse_stub(object, &stub, err);
	json_decref(object);
	if (r < 0)
		thaw_stub_deinit(&stub);
	else
		*ret_stub = stub;
	return r;
}

void thaw_stub_deinit(struct thaw_stub *stub)
{
	for (size_t i = 0; i < stub->image_count; i++) {
		free(stub->images[i].name);
		free(stub->images[i].path);
	}
	for (size_t i = 0; i < stub->search_count; i++)
		free(stub->search[i]);
	free(stub->images);
	free(stub->search);
	*stub = (struct thaw_stub){ 0 };
}

/* -- behind an executable -- */

/*
 * Where the image begins that a file ends with, or the file's end when there is
 * none. Nothing is checked but what leads there: whoever opens the image checks.
 */
static int image_start(struct thaw_source *source, struct thaw_error *err, uint64_t *ret_start)
{
	uint8_t footer[THAW_FOOTER_SIZE], header[THAW_TABLE_HEADER];
	uint64_t behind, table, size;
	int r;

	*ret_start = source->size;
	if (source->size < sizeof(footer) + sizeof(header))
		return 0;
	r = source->read(source, source->size - sizeof(footer), footer, sizeof(footer));
	if (r < 0)
		return thaw_io(err, r, "cannot be read");
	if (memcmp(footer + THAW_FOOTER_OFF_MAGIC, THAW_FOOTER_MAGIC, 8) != 0)
		return 0;
	behind = source->size - sizeof(footer);
	table = get_le32(footer + THAW_FOOTER_OFF_TABLE_SIZE);
	if (table < sizeof(header) || table > behind)
		return thaw_damaged(err, "damaged: footer");
	r = source->read(source, behind - table, header, sizeof(header));
	if (r < 0)
		return thaw_io(err, r, "cannot be read");
	size = get_le64(header + THAW_TABLE_OFF_IMAGE_SIZE);
	if (size > source->size || size < sizeof(footer) + table)
		return thaw_damaged(err, "damaged: parts table");
	*ret_start = source->size - size;
	return 0;
}

int thaw_stub_find(int fd, struct thaw_error *err, struct thaw_stub *ret_stub, uint64_t *ret_end)
{
	uint8_t trailer[THAW_STUB_TRAILER];
	_cleanup_(freep) char *text = NULL;
	struct thaw_source *source;
	uint64_t end, size;
	int r = thaw_source_from_fd(fd, err, &source);

	if (r < 0)
		return r;
	r = image_start(source, err, &end);
	if (r < 0 || end < sizeof(trailer)) {
		r = r < 0 ? r : THAW_NOT_FOUND;
		goto out;
	}
	r = source->read(source, end - sizeof(trailer), trailer, sizeof(trailer));
	if (r < 0) {
		(void)thaw_io(err, r, "cannot be read");
		goto out;
	}
	if (memcmp(trailer, THAW_STUB_TRAILER_MAGIC, 8) != 0) {
		r = THAW_NOT_FOUND;
		goto out;
	}
	end -= sizeof(trailer);
	size = get_le64(trailer + 8);
	if (size > THAW_STUB_SIZE_MAX || size > end || get_le64(trailer + 16) != 0) {
		r = thaw_damaged(err, "damaged: the stub's trailer");
		goto out;
	}
	text = malloc(size + 1);
	r = text ? source->read(source, end - size, text, size) : -ENOMEM;
	if (r < 0)
		(void)thaw_io(err, r, "cannot be read");
	else if (ret_stub)
		r = thaw_stub_parse(text, size, err, ret_stub);
	if (r == 0 && ret_end)
		*ret_end = end - size;
out:
	thaw_source_free(source);
	return r;
}
