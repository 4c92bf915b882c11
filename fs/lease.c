/* SPDX-License-Identifier: Apache-2.0 */
/* Leases as structs and as JSON. */
#include "lease.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "digest.h"
#include "util/cleanup.h"

static const char *const kinds[] = { "connection", "process", "ttl" };

void thaw_lease_deinit(struct thaw_lease *lease)
{
	for (unsigned i = 0; i < lease->image_count; i++)
		free(lease->images[i].name);
	free(lease->session);
	free(lease->directory);
	free(lease->warm);
	free(lease->scratch);
	json_decref(lease->labels);
	*lease = (struct thaw_lease){ 0 };
}

int thaw_lease_id(const char *session, const char *directory, char ret_id[THAW_VIEW_ID])
{
	_cleanup_(freep) char *both = NULL;
	uint8_t sum[THAW_DIGEST_SIZE];
	char hex[THAW_DIGEST_HEX];
	int n = asprintf(&both, "%s/%s", session,
			 directory); /* no session's name has a slash */

	if (n < 0) {
		both = NULL;
		return -ENOMEM;
	}
	if (thaw_digest_once(both, (size_t)n, sum) < 0)
		return -ENOMEM;
	thaw_digest_hex(sum, hex);
	memcpy(ret_id, hex, THAW_VIEW_ID - 1);
	ret_id[THAW_VIEW_ID - 1] = '\0';
	return 0;
}

bool thaw_session_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > THAW_SESSION_NAME_MAX || name[0] == '.')
		return false;
	for (const char *p = name; *p; p++)
		if (*p <= ' ' || *p > '~' || *p == '/')
			return false;
	return true;
}

bool thaw_labels_valid(const json_t *labels)
{
	const char *key;
	json_t *value;

	if (!labels)
		return true;
	if (!json_is_object(labels) || json_object_size(labels) > THAW_LABELS_MAX)
		return false;
	json_object_foreach((json_t *)labels, key,
			    value) if (!json_is_string(value) || key[0] == '\0' ||
				       strlen(key) > THAW_LABEL_MAX ||
				       json_string_length(value) >
					       THAW_LABEL_MAX) return false;
	return true;
}

uint64_t thaw_boottime(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME,
			    &now); /* a clock that is there: cannot fail */
	return (uint64_t)now.tv_sec;
}

bool thaw_digest_from_hex(const char *hex, uint8_t ret_digest[THAW_DIGEST_SIZE])
{
	uint8_t digest[THAW_DIGEST_SIZE];

	if (strlen(hex) != 2 * THAW_DIGEST_SIZE)
		return false;
	for (unsigned i = 0; i < 2 * THAW_DIGEST_SIZE; i++) {
		char c = hex[i];
		uint8_t value;

		if (c >= '0' && c <= '9')
			value = (uint8_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = (uint8_t)(c - 'a' + 10);
		else
			return false;
		digest[i / 2] = (uint8_t)(i % 2 ? digest[i / 2] | value : value << 4);
	}
	memcpy(ret_digest, digest, sizeof(digest));
	return true;
}

/* -- to JSON -- */

static json_t *image_to_json(const struct thaw_lease_image *image)
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(image->identity, hex);
	return json_pack("{s:s, s:s}", "image", image->name, "identity", hex);
}

static json_t *layers_to_json(const struct thaw_lease *lease)
{
	json_t *array = json_array();

	for (unsigned i = 1; array && i < lease->image_count; i++)
		if (json_array_append_new(array, image_to_json(&lease->images[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static int set_integer(json_t *object, const char *key, uint64_t value)
{
	return json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *kind_to_json(const struct thaw_lease *lease, uint64_t now)
{
	json_t *object = json_pack("{s:s}", "kind", kinds[lease->kind]);
	int r = 0;

	if (object && lease->kind == THAW_LEASE_PROCESS)
		r = set_integer(object, "pid", (uint64_t)lease->pid);
	if (object && lease->kind == THAW_LEASE_TTL && lease->seconds)
		r = set_integer(object, "seconds", lease->seconds);
	if (object && r == 0 && lease->deadline)
		r = set_integer(object, "remaining",
				lease->deadline > now ? lease->deadline - now : 0);
	if (r < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

json_t *thaw_lease_to_json(const struct thaw_lease *lease, uint64_t now)
{
	char hex[THAW_DIGEST_HEX];
	json_t *object;

	thaw_digest_hex(lease->images[0].identity, hex);
	object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:b, s:b, s:I, s:I, s:o}",
			   "id", lease->id, "session", lease->session, "directory",
			   lease->directory, "image", lease->images[0].name, "identity",
			   hex, "layers", layers_to_json(lease), "writable",
			   lease->writable, "shared", lease->shared, "uid",
			   (json_int_t)lease->uid, "opened", (json_int_t)lease->opened,
			   "lease", kind_to_json(lease, now));
	if (!object)
		return NULL;
	if (json_object_set_new(object, "labels",
				lease->labels ? json_deep_copy(lease->labels)
					      : json_object()) < 0 ||
	    (lease->writable && lease->scratch_size &&
	     set_integer(object, "scratch_size", lease->scratch_size) < 0)) {
		json_decref(object);
		return NULL;
	}
	return object;
}

/* -- the record -- */

json_t *thaw_lease_to_record(const struct thaw_lease *lease)
{
	json_t *object = thaw_lease_to_json(lease, 0), *kind;
	int r;

	if (!object)
		return NULL;
	kind = json_object_get(object, "lease");
	(void)json_object_del(kind, "remaining"); /* set below, if it is there at all */
	r = set_integer(kind, "deadline", lease->deadline);
	if (r == 0)
		r = set_integer(kind, "pid_start", lease->pid_start);
	if (r == 0)
		r = set_integer(object, "gid", lease->gid);
	if (r == 0)
		r = json_object_set_new(object, "made", json_boolean(lease->made));
	if (r == 0 && lease->warm)
		r = json_object_set_new(object, "warm", json_string(lease->warm));
	if (r == 0 && lease->scratch)
		r = json_object_set_new(object, "scratch", json_string(lease->scratch));
	if (r < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static bool get_string(const json_t *object, const char *key, bool required,
		       char **ret_text)
{
	const json_t *value = json_object_get(object, key);

	if (!value)
		return !required;
	if (!json_is_string(value))
		return false;
	*ret_text = strdup(json_string_value(value));
	return *ret_text != NULL;
}

static bool get_integer(const json_t *object, const char *key, bool required,
			uint64_t *ret_value)
{
	const json_t *value = json_object_get(object, key);

	if (!value)
		return !required;
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*ret_value = (uint64_t)json_integer_value(value);
	return true;
}

static bool get_image(const json_t *object, struct thaw_lease_image *image)
{
	const char *hex = json_string_value(json_object_get(object, "identity"));

	return hex && thaw_digest_from_hex(hex, image->identity) &&
	       get_string(object, "image", true, &image->name);
}

static bool get_layers(const json_t *object, struct thaw_lease *lease)
{
	const json_t *layers = json_object_get(object, "layers");
	size_t count = json_array_size(layers);

	if (!json_is_array(layers) || count > THAW_LAYERS_MAX)
		return false;
	for (size_t i = 0; i < count; i++) {
		lease->image_count++;
		if (!get_image(json_array_get(layers, i), &lease->images[1 + i]))
			return false;
	}
	return true;
}

static bool get_kind(const json_t *object, struct thaw_lease *lease)
{
	const char *kind = json_string_value(json_object_get(object, "kind"));
	uint64_t pid = 0;
	unsigned i;

	for (i = 0; kind && i < 3; i++)
		if (strcmp(kind, kinds[i]) == 0)
			break;
	if (!kind || i == 3 ||
	    !get_integer(object, "pid", i == THAW_LEASE_PROCESS, &pid) || pid > INT32_MAX)
		return false;
	lease->kind = (enum thaw_lease_kind)i;
	lease->pid = (pid_t)pid;
	return get_integer(object, "pid_start", true, &lease->pid_start) &&
	       get_integer(object, "seconds", false, &lease->seconds) &&
	       get_integer(object, "deadline", true, &lease->deadline);
}

static bool get_lease(const json_t *record, struct thaw_lease *lease)
{
	const json_t *labels = json_object_get(record, "labels");
	uint64_t uid, gid, opened;
	char id[THAW_VIEW_ID];

	lease->image_count = 1;
	if (!get_string(record, "session", true, &lease->session) ||
	    !get_string(record, "directory", true, &lease->directory) ||
	    !thaw_session_name_valid(lease->session) || lease->directory[0] != '/' ||
	    !get_image(record, &lease->images[0]) || !get_layers(record, lease) ||
	    !get_string(record, "warm", false, &lease->warm) ||
	    !get_string(record, "scratch", false, &lease->scratch) ||
	    !get_integer(record, "scratch_size", false, &lease->scratch_size) ||
	    !get_integer(record, "uid", true, &uid) ||
	    !get_integer(record, "gid", true, &gid) ||
	    !get_integer(record, "opened", true, &opened) || uid >= UINT32_MAX ||
	    gid >= UINT32_MAX || !thaw_labels_valid(labels) ||
	    !get_kind(json_object_get(record, "lease"), lease))
		return false;
	lease->uid = (uid_t)uid;
	lease->gid = (gid_t)gid;
	lease->opened = (int64_t)opened;
	lease->writable = json_is_true(json_object_get(record, "writable"));
	lease->shared = json_is_true(json_object_get(record, "shared"));
	lease->made = json_is_true(json_object_get(record, "made"));
	lease->labels = labels ? json_deep_copy(labels) : NULL;
	if (thaw_lease_id(lease->session, lease->directory, id) < 0)
		return false;
	memcpy(lease->id, id, sizeof(id));
	return true;
}

int thaw_lease_from_record(const json_t *record, struct thaw_lease *ret_lease)
{
	struct thaw_lease lease = { 0 };

	if (!get_lease(record, &lease)) {
		thaw_lease_deinit(&lease);
		return -EBADMSG;
	}
	*ret_lease = lease;
	return 0;
}
