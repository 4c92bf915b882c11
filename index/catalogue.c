/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue: leases, images, sources and traces, in two stores. */
#include "thaw/catalogue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalogue-internal.h"
#include "digest.h"
#include "util/bytes.h"
#include "util/cleanup.h"

/* Leases: some KiB each. Images: traces are most of it. */
#define LEASES_LIMIT ((size_t)64 << 20)
#define IMAGES_LIMIT ((size_t)1 << 30)

struct thaw_catalogue {
	struct thaw_store *leases, *images;
};

/* -- opening -- */

const char *thaw_catalogue_state_name(enum thaw_catalogue_state state)
{
	switch (state) {
	case THAW_CATALOGUE_OK:
		return "ok";
	case THAW_CATALOGUE_CREATED:
		return "created";
	case THAW_CATALOGUE_REBUILT:
		return "rebuilt";
	}
	return "unknown";
}

static int open_images(const struct thaw_catalogue_options *options,
		       struct thaw_error *err, struct thaw_catalogue_report *ret_report,
		       struct thaw_store **ret_store)
{
	struct thaw_store_options store = {
		.directory = options->images,
		.name = "images",
		.tables = "ist",
		.durable = true,
		.limit = IMAGES_LIMIT,
		.timeout_ms = options->timeout_ms,
	};
	struct thaw_error busy = { 0 };
	int r = thaw_store_open(&store, &busy, ret_report, ret_store);

	if (r != -EBUSY) {
		if (r < 0 && err)
			*err = busy;
		return r;
	}
	/* A home directory that several machines share: one of them keeps it. */
	store.directory = NULL;
	r = thaw_store_open(&store, err, ret_report, ret_store);
	if (r == 0)
		(void)snprintf(ret_report->why, sizeof(ret_report->why), "%.200s",
			       busy.text);
	return r;
}

int thaw_catalogue_open(const struct thaw_catalogue_options *options,
			struct thaw_error *err, struct thaw_catalogue_report *ret_leases,
			struct thaw_catalogue_report *ret_images,
			struct thaw_catalogue **ret_catalogue)
{
	_cleanup_(thaw_catalogue_closep) struct thaw_catalogue *catalogue =
		calloc(1, sizeof(*catalogue));
	const struct thaw_store_options leases = {
		.directory = options->leases,
		.name = "leases",
		.tables = "l",
		.limit = LEASES_LIMIT,
		.timeout_ms = options->timeout_ms,
	};
	int r;

	if (!catalogue)
		return thaw_oom(err);
	r = thaw_store_open(&leases, err, ret_leases, &catalogue->leases);
	if (r == 0)
		r = open_images(options, err, ret_images, &catalogue->images);
	if (r < 0)
		return r;
	*ret_catalogue = steal_ptr(catalogue);
	return 0;
}

struct thaw_catalogue *thaw_catalogue_close(struct thaw_catalogue *catalogue)
{
	if (!catalogue)
		return NULL;
	thaw_store_close(catalogue->leases);
	thaw_store_close(catalogue->images);
	free(catalogue);
	return NULL;
}

/* -- JSON in stores -- */

static int put_json(struct thaw_store *store, enum thaw_table table, const void *key,
		    size_t key_len, const json_t *json, struct thaw_error *err)
{
	_cleanup_(freep) char *text =
		json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	struct thaw_store_change change = { table, key, key_len, text, 0 };

	if (!text)
		return thaw_oom(err);
	change.len = strlen(text);
	if (change.len > THAW_CATALOGUE_JSON_MAX)
		return thaw_limit(err,
				  "%zu bytes are too much for a record of the catalogue",
				  change.len);
	return thaw_store_change(store, &change, 1, err);
}

/* What passed the checksum was put by some version of ours; but what is in it, it may know better. */
static json_t *parse(const uint8_t *payload, size_t len)
{
	return json_loadb((const char *)payload, len, 0, NULL);
}

static int remove_key(struct thaw_store *store, enum thaw_table table, const void *key,
		      size_t key_len, struct thaw_error *err)
{
	const struct thaw_store_change change = { table, key, key_len, NULL, 0 };

	return thaw_store_change(store, &change, 1, err);
}

/* A record whose checksum is right, but not what is in it: dropped like a damaged one. */
static int drop(struct thaw_store *store, enum thaw_table table, const void *key,
		size_t key_len, struct thaw_error *err)
{
	(void)remove_key(store, table, key, key_len,
			 NULL); /* or it is dropped next time */
	return thaw_damaged(err,
			    "a record of the catalogue that makes no sense was dropped");
}

static int get_json(struct thaw_store *store, enum thaw_table table, const void *key,
		    size_t key_len, struct thaw_error *err, json_t **ret_json)
{
	_cleanup_(freep) uint8_t *payload = NULL;
	size_t len;
	int r = thaw_store_get(store, table, key, key_len, err, &payload, &len);

	if (r != 0)
		return r;
	*ret_json = parse(payload, len);
	return *ret_json ? 0 : drop(store, table, key, key_len, err);
}

/* -- leases -- */

static int check_id(const char *id, struct thaw_error *err)
{
	size_t len = strlen(id);

	if (len == 0 || len > THAW_LEASE_ID_MAX)
		return thaw_limit(err,
				  "the id of a lease has %zu bytes; 1 to %u are possible",
				  len, THAW_LEASE_ID_MAX);
	return 0;
}

int thaw_catalogue_put_lease(struct thaw_catalogue *catalogue, const char *id,
			     const json_t *lease, struct thaw_error *err)
{
	int r = check_id(id, err);

	return r < 0 ? r
		     : put_json(catalogue->leases, THAW_TABLE_LEASES, id, strlen(id),
				lease, err);
}

int thaw_catalogue_get_lease(struct thaw_catalogue *catalogue, const char *id,
			     struct thaw_error *err, json_t **ret_lease)
{
	int r = check_id(id, err);

	return r < 0 ? r
		     : get_json(catalogue->leases, THAW_TABLE_LEASES, id, strlen(id), err,
				ret_lease);
}

int thaw_catalogue_remove_lease(struct thaw_catalogue *catalogue, const char *id,
				struct thaw_error *err)
{
	int r = check_id(id, err);

	return r < 0 ? r
		     : remove_key(catalogue->leases, THAW_TABLE_LEASES, id, strlen(id),
				  err);
}

int thaw_catalogue_each_lease(struct thaw_catalogue *catalogue,
			      thaw_catalogue_lease_fn *fn, void *userdata,
			      struct thaw_error *err, unsigned *ret_dropped)
{
	struct thaw_store_rows rows = { 0 };
	int r;

	r = thaw_store_rows(catalogue->leases, THAW_TABLE_LEASES, SIZE_MAX, err, &rows);
	if (r < 0)
		return r;
	*ret_dropped = rows.dropped;
	for (size_t i = 0; r == 0 && i < rows.count; i++) {
		const struct thaw_store_row *row = &rows.rows[i];
		json_t *lease = parse(row->payload, row->len);
		char id[THAW_KEY_MAX];

		if (!lease) {
			(void)drop(catalogue->leases, THAW_TABLE_LEASES, row->key,
				   row->key_len, NULL);
			++*ret_dropped;
			continue;
		}
		memcpy(id, row->key, row->key_len);
		id[row->key_len] =
			'\0'; /* keys are shorter than THAW_KEY_MAX without their table */
		r = fn(userdata, id, lease);
		json_decref(lease);
	}
	thaw_store_rows_deinit(&rows);
	return r;
}

/* -- images -- */

void thaw_catalogue_image_deinit(struct thaw_catalogue_image *image)
{
	free(image->name);
	free(image->path);
	free(image->kind);
	free(image->python);
	*image = (struct thaw_catalogue_image){ 0 };
}

int thaw_catalogue_put_image(struct thaw_catalogue *catalogue,
			     const struct thaw_catalogue_image *image,
			     struct thaw_error *err)
{
	json_t *json = thaw_catalogue_image_json(image);
	int r = put_json(catalogue->images, THAW_TABLE_IMAGES, image->identity,
			 THAW_DIGEST_SIZE, json, err);

	json_decref(json);
	return r;
}

int thaw_catalogue_get_image(struct thaw_catalogue *catalogue,
			     const uint8_t identity[THAW_DIGEST_SIZE],
			     struct thaw_error *err,
			     struct thaw_catalogue_image *ret_image)
{
	json_t *json = NULL;
	int r;

	r = get_json(catalogue->images, THAW_TABLE_IMAGES, identity, THAW_DIGEST_SIZE,
		     err, &json);
	if (r != 0)
		return r;
	r = thaw_catalogue_image_from_json(json, identity, ret_image);
	json_decref(json);
	if (r == -ENOMEM)
		return thaw_oom(err);
	return r < 0 ? drop(catalogue->images, THAW_TABLE_IMAGES, identity,
			    THAW_DIGEST_SIZE, err)
		     : 0;
}

int thaw_catalogue_touch_image(struct thaw_catalogue *catalogue,
			       const uint8_t identity[THAW_DIGEST_SIZE], int64_t now,
			       struct thaw_error *err)
{
	_cleanup_(thaw_catalogue_image_deinit) struct thaw_catalogue_image image = { 0 };
	int r = thaw_catalogue_get_image(catalogue, identity, err, &image);

	if (r != 0 || image.used / 3600 == now / 3600)
		return r;
	image.used = now;
	return thaw_catalogue_put_image(catalogue, &image, err);
}

int thaw_catalogue_each_image(struct thaw_catalogue *catalogue,
			      thaw_catalogue_image_fn *fn, void *userdata,
			      struct thaw_error *err, unsigned *ret_dropped)
{
	struct thaw_store_rows rows = { 0 };
	int r;

	r = thaw_store_rows(catalogue->images, THAW_TABLE_IMAGES, SIZE_MAX, err, &rows);
	if (r < 0)
		return r;
	*ret_dropped = rows.dropped;
	for (size_t i = 0; r == 0 && i < rows.count; i++) {
		const struct thaw_store_row *row = &rows.rows[i];
		json_t *json = parse(row->payload, row->len);
		struct thaw_catalogue_image image;
		int bad = -EBADMSG;

		if (json && row->key_len == THAW_DIGEST_SIZE)
			bad = thaw_catalogue_image_from_json(json, row->key, &image);
		json_decref(json);
		if (bad == -ENOMEM) {
			r = thaw_oom(err);
		} else if (bad < 0) {
			(void)drop(catalogue->images, THAW_TABLE_IMAGES, row->key,
				   row->key_len, NULL);
			++*ret_dropped;
		} else {
			r = fn(userdata, &image);
			thaw_catalogue_image_deinit(&image);
		}
	}
	thaw_store_rows_deinit(&rows);
	return r;
}

/* -- sources -- */

void thaw_catalogue_source_init(struct thaw_catalogue_source *source, const char *path,
				const char *options, const struct stat *st)
{
	*source = (struct thaw_catalogue_source){
		.path = path,
		.options = options,
		.size = (uint64_t)st->st_size,
		.inode = (uint64_t)st->st_ino,
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 +
			    st->st_mtim.tv_nsec,
	};
}

/* Paths are longer than keys may be. */
static int source_key(const struct thaw_catalogue_source *source, struct thaw_error *err,
		      uint8_t ret_key[THAW_DIGEST_SIZE])
{
	struct thaw_digest *digest = NULL;
	int r = thaw_digest_new(&digest);

	if (r == 0)
		r = thaw_digest_start(digest);
	if (r == 0) /* with its NUL, so that no two pairs look alike */
		r = thaw_digest_add(digest, source->path, strlen(source->path) + 1);
	if (r == 0)
		r = thaw_digest_add(digest, source->options, strlen(source->options));
	if (r == 0)
		r = thaw_digest_end(digest, ret_key);
	thaw_digest_free(digest);
	return r < 0 ? thaw_oom(err) : 0;
}

int thaw_catalogue_put_source(struct thaw_catalogue *catalogue,
			      const struct thaw_catalogue_source *source,
			      const uint8_t identity[THAW_DIGEST_SIZE],
			      struct thaw_error *err)
{
	uint8_t key[THAW_DIGEST_SIZE];
	json_t *json;
	int r = source_key(source, err, key);

	if (r < 0)
		return r;
	json = thaw_catalogue_source_json(source, identity);
	r = put_json(catalogue->images, THAW_TABLE_SOURCES, key, sizeof(key), json, err);
	json_decref(json);
	return r;
}

static bool same_source(const struct thaw_catalogue_source *a,
			const struct thaw_catalogue_source *b)
{
	return a->size == b->size && a->inode == b->inode && a->mtime_ns == b->mtime_ns &&
	       strcmp(a->path, b->path) == 0 && strcmp(a->options, b->options) == 0;
}

static int own_image(const char *path, const uint8_t identity[THAW_DIGEST_SIZE],
		     struct thaw_error *err, struct thaw_catalogue_image *ret_image)
{
	const char *slash = strrchr(path, '/');
	struct thaw_catalogue_image image = { .name = strdup(slash ? slash + 1 : path),
					      .path = strdup(path) };

	memcpy(image.identity, identity, THAW_DIGEST_SIZE);
	if (!image.name || !image.path) {
		thaw_catalogue_image_deinit(&image);
		return thaw_oom(err);
	}
	*ret_image = image;
	return 0;
}

int thaw_catalogue_find_source(struct thaw_catalogue *catalogue,
			       const struct thaw_catalogue_source *source,
			       struct thaw_error *err,
			       struct thaw_catalogue_image *ret_image)
{
	uint8_t key[THAW_DIGEST_SIZE], identity[THAW_DIGEST_SIZE];
	_cleanup_(freep) char *options = NULL;
	_cleanup_(freep) char *path = NULL;
	_cleanup_(freep) char *own = NULL;
	struct thaw_catalogue_source found;
	json_t *json = NULL;
	int r = source_key(source, err, key);

	if (r == 0)
		r = get_json(catalogue->images, THAW_TABLE_SOURCES, key, sizeof(key), err,
			     &json);
	if (r != 0)
		return r;
	r = thaw_catalogue_source_from_json(json, &path, &own, &options, &found,
					    identity);
	json_decref(json);
	if (r == -ENOMEM)
		return thaw_oom(err);
	if (r < 0)
		return drop(catalogue->images, THAW_TABLE_SOURCES, key, sizeof(key), err);
	if (!same_source(source, &found))
		return THAW_NOT_FOUND;
	if (own)
		return own_image(own, identity, err, ret_image);
	return thaw_catalogue_get_image(catalogue, identity, err, ret_image);
}

/* As the public one, with the keys. */
typedef int source_row_fn(void *userdata, const struct thaw_store_row *row,
			  const struct thaw_catalogue_source *source,
			  const uint8_t identity[THAW_DIGEST_SIZE]);

static int each_source_row(struct thaw_catalogue *catalogue,
			   const struct thaw_store_rows *rows, source_row_fn *fn,
			   void *userdata, struct thaw_error *err, unsigned *dropped)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < rows->count; i++) {
		const struct thaw_store_row *row = &rows->rows[i];
		json_t *json = parse(row->payload, row->len);
		uint8_t identity[THAW_DIGEST_SIZE];
		struct thaw_catalogue_source source;
		char *path, *image, *options;
		int bad = -EBADMSG;

		if (json)
			bad = thaw_catalogue_source_from_json(
				json, &path, &image, &options, &source, identity);
		json_decref(json);
		if (bad == -ENOMEM) {
			r = thaw_oom(err);
		} else if (bad < 0) {
			(void)drop(catalogue->images, THAW_TABLE_SOURCES, row->key,
				   row->key_len, NULL);
			++*dropped;
		} else {
			r = fn(userdata, row, &source, identity);
			free(path);
			free(image);
			free(options);
		}
	}
	return r;
}

struct public_fn {
	thaw_catalogue_source_fn *fn;
	void *userdata;
};

static int call_public(void *userdata, const struct thaw_store_row *row,
		       const struct thaw_catalogue_source *source,
		       const uint8_t identity[THAW_DIGEST_SIZE])
{
	const struct public_fn *public = userdata;

	return public->fn(public->userdata, source, identity);
}

int thaw_catalogue_each_source(struct thaw_catalogue *catalogue,
			       thaw_catalogue_source_fn *fn, void *userdata,
			       struct thaw_error *err, unsigned *ret_dropped)
{
	struct public_fn public = { fn, userdata };
	struct thaw_store_rows rows = { 0 };
	int r;

	r = thaw_store_rows(catalogue->images, THAW_TABLE_SOURCES, SIZE_MAX, err, &rows);
	if (r < 0)
		return r;
	*ret_dropped = rows.dropped;
	r = each_source_row(catalogue, &rows, call_public, &public, err, ret_dropped);
	thaw_store_rows_deinit(&rows);
	return r;
}

struct removal {
	const uint8_t *identity;
	struct thaw_store_change *changes;
	size_t count;
};

static int collect_removal(void *userdata, const struct thaw_store_row *row,
			   const struct thaw_catalogue_source *source,
			   const uint8_t identity[THAW_DIGEST_SIZE])
{
	struct removal *removal = userdata;

	if (memcmp(identity, removal->identity, THAW_DIGEST_SIZE) == 0)
		removal->changes[removal->count++] = (struct thaw_store_change){
			THAW_TABLE_SOURCES, row->key, row->key_len, NULL, 0
		};
	return 0;
}

int thaw_catalogue_remove_image(struct thaw_catalogue *catalogue,
				const uint8_t identity[THAW_DIGEST_SIZE],
				struct thaw_error *err)
{
	struct removal removal = { .identity = identity };
	struct thaw_store_rows rows = { 0 };
	unsigned dropped = 0;
	int r;

	r = thaw_store_rows(catalogue->images, THAW_TABLE_SOURCES, SIZE_MAX, err, &rows);
	if (r < 0)
		return r;
	removal.changes = calloc(rows.count + 1, sizeof(*removal.changes));
	r = removal.changes ? each_source_row(catalogue, &rows, collect_removal, &removal,
					      err, &dropped)
			    : thaw_oom(err);
	if (r == 0) {
		removal.changes[removal.count++] = (struct thaw_store_change){
			THAW_TABLE_IMAGES, identity, THAW_DIGEST_SIZE, NULL, 0
		};
		r = thaw_store_change(catalogue->images, removal.changes, removal.count,
				      err);
	}
	free(removal.changes);
	thaw_store_rows_deinit(&rows);
	return r;
}

/* -- traces -- */

#define DAY 86400u /* seconds */

#define TRACE_KEY (THAW_DIGEST_SIZE + 16u)

static int trace_key(const uint8_t index_digest[THAW_DIGEST_SIZE], const char *workload,
		     struct thaw_error *err, uint8_t ret_key[TRACE_KEY])
{
	uint8_t sum[THAW_DIGEST_SIZE];
	size_t len = strlen(workload);

	if (len == 0 || len > THAW_NAME_MAX)
		return thaw_limit(
			err, "the name of a workload has %zu bytes; 1 to %u are possible",
			len, THAW_NAME_MAX);
	if (thaw_digest_once(workload, len, sum) < 0)
		return thaw_oom(err);
	memcpy(ret_key, index_digest, THAW_DIGEST_SIZE);
	memcpy(ret_key + THAW_DIGEST_SIZE, sum, TRACE_KEY - THAW_DIGEST_SIZE);
	return 0;
}

/* The trace that has to go when key comes: THAW_NOT_FOUND when there is room. */
static int oldest_trace(struct thaw_store *store, const uint8_t key[TRACE_KEY],
			struct thaw_error *err, uint8_t ret_key[THAW_KEY_MAX],
			size_t *ret_len)
{
	struct thaw_store_rows rows = { 0 };
	uint64_t oldest = UINT64_MAX;
	bool known = false;
	int r;

	r = thaw_store_rows(store, THAW_TABLE_TRACES, 8, err, &rows);
	if (r < 0)
		return r;
	for (size_t i = 0; i < rows.count; i++) {
		const struct thaw_store_row *row = &rows.rows[i];
		uint64_t when = row->len == 8 ? get_le64(row->payload) : 0;

		known = known || (row->key_len == TRACE_KEY &&
				  memcmp(row->key, key, TRACE_KEY) == 0);
		if (when >= oldest)
			continue;
		oldest = when;
		memcpy(ret_key, row->key, row->key_len);
		*ret_len = row->key_len;
	}
	r = known || rows.count < THAW_CATALOGUE_TRACES ? THAW_NOT_FOUND : 0;
	thaw_store_rows_deinit(&rows);
	return r;
}

int thaw_catalogue_put_trace(struct thaw_catalogue *catalogue,
			     const uint8_t index_digest[THAW_DIGEST_SIZE],
			     const char *workload,
			     const struct thaw_learned_entry *entries, size_t count,
			     struct thaw_error *err)
{
	struct thaw_store_change changes[2] = { 0 };
	uint8_t key[TRACE_KEY], oldest[THAW_KEY_MAX];
	_cleanup_(freep) uint8_t *payload = NULL;
	size_t len, oldest_len = 0, n = 0;
	int r = trace_key(index_digest, workload, err, key);

	if (r == 0)
		r = thaw_learned_encode((int64_t)time(NULL), workload, entries, count,
					err, &payload, &len);
	if (r < 0)
		return r;
	r = oldest_trace(catalogue->images, key, err, oldest, &oldest_len);
	if (r < 0)
		return r;
	if (r == 0)
		changes[n++] = (struct thaw_store_change){ THAW_TABLE_TRACES, oldest,
							   oldest_len, NULL, 0 };
	changes[n++] = (struct thaw_store_change){ THAW_TABLE_TRACES, key, sizeof(key),
						   payload, len };
	return thaw_store_change(catalogue->images, changes, n, err);
}

int thaw_catalogue_get_trace(struct thaw_catalogue *catalogue,
			     const uint8_t index_digest[THAW_DIGEST_SIZE],
			     const char *workload, struct thaw_error *err,
			     struct thaw_learned *ret_learned)
{
	_cleanup_(freep) uint8_t *payload = NULL;
	uint8_t key[TRACE_KEY];
	size_t len;
	int r = trace_key(index_digest, workload, err, key);

	if (r == 0)
		r = thaw_store_get(catalogue->images, THAW_TABLE_TRACES, key, sizeof(key),
				   err, &payload, &len);
	if (r != 0)
		return r;
	r = thaw_learned_decode(payload, len, workload, ret_learned);
	if (r == 0)
		payload = NULL; /* its own now */
	if (r == -ENOMEM)
		return thaw_oom(err);
	return r < 0 ? drop(catalogue->images, THAW_TABLE_TRACES, key, sizeof(key), err)
		     : 0;
}

int thaw_catalogue_remove_trace(struct thaw_catalogue *catalogue,
				const uint8_t index_digest[THAW_DIGEST_SIZE],
				const char *workload, struct thaw_error *err)
{
	uint8_t key[TRACE_KEY];
	int r = trace_key(index_digest, workload, err, key);

	return r < 0 ? r
		     : remove_key(catalogue->images, THAW_TABLE_TRACES, key, sizeof(key),
				  err);
}

int thaw_catalogue_touch_trace(struct thaw_catalogue *catalogue,
			       const uint8_t index_digest[THAW_DIGEST_SIZE],
			       const char *workload, int64_t now, struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *payload = NULL;
	uint8_t key[TRACE_KEY];
	struct thaw_store_change change = { THAW_TABLE_TRACES, key, sizeof(key), NULL,
					    0 };
	int r = trace_key(index_digest, workload, err, key);

	if (r == 0)
		r = thaw_store_get(catalogue->images, THAW_TABLE_TRACES, key, sizeof(key),
				   err, &payload, &change.len);
	if (r != 0)
		return r < 0 ? r : 0;
	if (change.len < 8 || get_le64(payload) / DAY == (uint64_t)now / DAY)
		return 0;
	put_le64(payload, (uint64_t)now);
	change.payload = payload;
	return thaw_store_change(catalogue->images, &change, 1, err);
}

int thaw_catalogue_remove_old_traces(struct thaw_catalogue *catalogue, int64_t before,
				     bool dry_run, thaw_catalogue_old_trace_fn *fn,
				     void *userdata, struct thaw_error *err)
{
	struct thaw_store_rows rows = { 0 };
	int r = thaw_store_rows(catalogue->images, THAW_TABLE_TRACES, 8, err, &rows);

	for (size_t i = 0; r == 0 && i < rows.count; i++) {
		const struct thaw_store_row *row = &rows.rows[i];
		_cleanup_(freep) uint8_t *payload = NULL;
		size_t len = 0;

		if (row->len < 8 || row->key_len != TRACE_KEY ||
		    (int64_t)get_le64(row->payload) >= before)
			continue;
		r = thaw_store_get(catalogue->images, THAW_TABLE_TRACES, row->key,
				   row->key_len, err, &payload, &len);
		if (r == 0 && fn)
			fn(userdata, row->key, len);
		if (r == 0 && !dry_run)
			r = remove_key(catalogue->images, THAW_TABLE_TRACES, row->key,
				       row->key_len, err);
		r = r > 0 || r == -EBADMSG ? 0 : r; /* then it is gone already */
	}
	thaw_store_rows_deinit(&rows);
	return r;
}
