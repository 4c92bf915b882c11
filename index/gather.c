/* SPDX-License-Identifier: Apache-2.0 */
/* A canonical tar from files of several places. */
#include "gather.h"

#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "canonical-tar.h"
#include "digest.h"
#include "thaw/format.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define LINK_MODE      (S_IFLNK | 0777)
#define DIRECTORY_MODE (S_IFDIR | 0755)

struct item {
	char *path;
	const struct thaw_file *file; /* or: */
	char *bytes;		      /* of a file that we made, or a symlink's target */
	size_t size;
	mode_t mode;
	int64_t mtime;
	uint32_t origin;
	uint32_t order; /* of being added: what sorting keeps */
	struct thaw_gather_proof proof;
};

struct thaw_gather {
	struct thaw_input base;
	struct thaw_input_environment *environment;
	struct item *items;
	size_t count, capacity;
	struct thaw_folder_store **stores;
	size_t store_count, store_capacity;
	char **origins;
	size_t origin_count, origin_capacity;
	void *own; /* tsearch(3) tree: paths of the current origin's items */
	struct thaw_file_reader *reader, *other; /* the other one is for comparing */

	/* as an input */
	struct thaw_canonical *tar;
	struct thaw_digest *digest;
	size_t next;		 /* item */
	const struct item *open; /* being copied */
	bool finished;
};

static void keep_string(void *path)
{
	(void)path; /* an item's */
}

static void environment_free(struct thaw_input_environment *environment)
{
	if (environment)
		thaw_environment_hints_deinit(&environment->hints);
	free(environment);
}

struct thaw_gather *thaw_gather_free(struct thaw_gather *gather)
{
	if (!gather)
		return NULL;
	tdestroy(gather->own, keep_string);
	for (size_t i = 0; i < gather->count; i++) {
		free(gather->items[i].path);
		free(gather->items[i].bytes);
	}
	for (size_t i = 0; i < gather->store_count; i++)
		thaw_folder_free(gather->stores[i]);
	for (size_t i = 0; i < gather->origin_count; i++)
		free(gather->origins[i]);
	free(gather->items);
	free(gather->stores);
	free(gather->origins);
	thaw_file_reader_free(gather->reader);
	thaw_file_reader_free(gather->other);
	thaw_canonical_free(gather->tar);
	thaw_digest_free(gather->digest);
	environment_free(gather->environment);
	free(gather);
	return NULL;
}

int thaw_gather_new(const char *kind, struct thaw_error *err,
		    struct thaw_gather **ret_gather)
{
	_cleanup_(thaw_gather_freep) struct thaw_gather *gather = calloc(1,
									 sizeof(*gather));

	if (!gather || thaw_file_reader_new(&gather->reader) < 0 ||
	    thaw_file_reader_new(&gather->other) < 0 ||
	    thaw_digest_new(&gather->digest) < 0)
		return thaw_oom(err);
	gather->base.kind = kind;
	*ret_gather = steal_ptr(gather);
	return 0;
}

int thaw_gather_keep(struct thaw_gather *gather, struct thaw_folder_store *store,
		     struct thaw_error *err)
{
	if (grow(&gather->stores, &gather->store_capacity, gather->store_count + 1,
		 sizeof(*gather->stores)) < 0) {
		thaw_folder_free(store);
		return thaw_oom(err);
	}
	gather->stores[gather->store_count++] = store;
	return 0;
}

struct thaw_file_reader *thaw_gather_reader(struct thaw_gather *gather)
{
	return gather->reader;
}

int thaw_gather_origin(struct thaw_gather *gather, const char *name,
		       struct thaw_error *err)
{
	char *copy = strdup(name);

	if (!copy || grow(&gather->origins, &gather->origin_capacity,
			  gather->origin_count + 1, sizeof(*gather->origins)) < 0) {
		free(copy);
		return thaw_oom(err);
	}
	gather->origins[gather->origin_count++] = copy;
	tdestroy(gather->own, keep_string);
	gather->own = NULL;
	return 0;
}

/* -- adding -- */

static int compare_paths(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int check_path(const char *path, struct thaw_error *err)
{
	size_t len = strlen(path);

	if (len == 0 || path[0] == '/' || len > THAW_PATH_MAX)
		return thaw_refused(err, "\"%.200s\": not a path in an environment",
				    path);
	for (const char *p = path; *p != '\0';) {
		size_t n = strcspn(p, "/");

		if (n == 0 || n > THAW_NAME_MAX || (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return thaw_refused(
				err, "\"%.200s\": not a path in an environment", path);
		p += n + (p[n] == '/');
	}
	return 0;
}

/* Of a copy of path; the caller fills the rest in. */
static int add(struct thaw_gather *gather, const char *path, struct thaw_error *err,
	       struct item **ret_item)
{
	_cleanup_(freep) char *copy = NULL;
	int r = check_path(path, err);

	if (r < 0)
		return r;
	copy = strdup(path);
	if (!copy || gather->count >= UINT32_MAX ||
	    grow(&gather->items, &gather->capacity, gather->count + 1,
		 sizeof(*gather->items)) < 0 ||
	    !tsearch(copy, &gather->own, compare_paths))
		return thaw_oom(err);
	*ret_item = &gather->items[gather->count];
	**ret_item = (struct item){
		.path = steal_ptr(copy),
		.origin = gather->origin_count ? (uint32_t)gather->origin_count - 1 : 0,
		.order = (uint32_t)gather->count,
		.mtime = THAW_GATHER_TIME,
	};
	gather->count++;
	return 0;
}

int thaw_gather_file(struct thaw_gather *gather, const char *path,
		     const struct thaw_file *file, mode_t mode,
		     const struct thaw_gather_proof *proof, struct thaw_error *err)
{
	struct item *item;
	int r;

	if (proof && proof->has_size && proof->size != file->size)
		return thaw_damaged(err,
				    "\"%.200s\": %" PRIu64 " bytes; RECORD says %" PRIu64,
				    file->path, file->size, proof->size);
	r = add(gather, path, err, &item);
	if (r < 0)
		return r;
	item->file = file;
	item->mode = mode;
	item->mtime = file->mtime > 0 ? file->mtime : 0;
	if (proof)
		item->proof = *proof;
	if (S_ISREG(mode)) {
		item->size = file->size;
	}
	if (S_ISLNK(mode)) {
		size_t len;

		r = thaw_file_load(gather->reader, file, THAW_PATH_MAX, err, &item->bytes,
				   &len);
		if (r < 0)
			return r;
		if (strlen(item->bytes) != len || len == 0)
			return thaw_refused(err, "\"%.200s\": symlink to a name with NUL",
					    path);
		item->file = NULL;
	}
	return 0;
}

int thaw_gather_bytes(struct thaw_gather *gather, const char *path, const void *data,
		      size_t len, mode_t mode, struct thaw_error *err)
{
	struct item *item;
	int r = add(gather, path, err, &item);

	if (r < 0)
		return r;
	item->bytes = malloc(len + 1);
	if (!item->bytes)
		return thaw_oom(err);
	memcpy(item->bytes, data, len);
	item->bytes[len] = '\0';
	item->size = len;
	item->mode = S_IFREG | (mode & 0777);
	return 0;
}

int thaw_gather_link(struct thaw_gather *gather, const char *path, const char *target,
		     struct thaw_error *err)
{
	struct item *item;
	int r = add(gather, path, err, &item);

	if (r < 0)
		return r;
	item->bytes = strdup(target);
	item->mode = LINK_MODE;
	return item->bytes ? 0 : thaw_oom(err);
}

bool thaw_gather_has_own(const struct thaw_gather *gather, const char *path)
{
	return tfind(path, &gather->own, compare_paths) != NULL;
}

bool thaw_gather_has(const struct thaw_gather *gather, const char *path)
{
	for (size_t i = 0; i < gather->count; i++)
		if (strcmp(gather->items[i].path, path) == 0)
			return true;
	return false;
}

/* -- putting in order -- */

static int by_path(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	int order = thaw_canonical_compare(x->path, y->path);

	return order ? order : (x->order > y->order) - (x->order < y->order);
}

/* The next bytes of an item; those of one that we made come all at once. */
static int next_bytes(struct thaw_file_reader *reader, const struct item *item,
		      bool *given, struct thaw_error *err, const uint8_t **ret_data,
		      size_t *ret_len)
{
	if (item->file)
		return thaw_file_next(reader, err, ret_data, ret_len);
	*ret_data = (const uint8_t *)item->bytes;
	*ret_len = *given ? 0 : item->size;
	*given = true;
	return 0;
}

static int have_same_bytes(struct thaw_gather *gather, const struct item *a,
			   const struct item *b, struct thaw_error *err)
{
	const uint8_t *of_a = NULL, *of_b = NULL;
	size_t left_a = 0, left_b = 0;
	bool given_a = false, given_b = false;
	int r = 0;

	if (a->size != b->size)
		return 0;
	if (a->file)
		r = thaw_file_begin(gather->reader, a->file, err);
	if (r == 0 && b->file)
		r = thaw_file_begin(gather->other, b->file, err);
	while (r == 0) {
		size_t n;

		if (left_a == 0)
			r = next_bytes(gather->reader, a, &given_a, err, &of_a, &left_a);
		if (r == 0 && left_b == 0)
			r = next_bytes(gather->other, b, &given_b, err, &of_b, &left_b);
		if (r < 0 || left_a == 0 || left_b == 0)
			break;
		n = left_a < left_b ? left_a : left_b;
		if (memcmp(of_a, of_b, n) != 0)
			return 0;
		of_a += n;
		of_b += n;
		left_a -= n;
		left_b -= n;
	}
	return r < 0 ? r : left_a == left_b;
}

static const char *origin_of(const struct thaw_gather *gather, const struct item *item)
{
	return gather->origin_count ? gather->origins[item->origin] : "the source";
}

/* May b, which comes later, stand where a does? It is then left out. */
static int merge(struct thaw_gather *gather, struct item *a, struct item *b,
		 struct thaw_error *err)
{
	int r = 1;

	if ((a->mode & S_IFMT) != (b->mode & S_IFMT))
		return thaw_refused(err,
				    "\"%.150s\": different things in %.120s and %.120s",
				    a->path, origin_of(gather, a), origin_of(gather, b));
	if (S_ISLNK(a->mode))
		r = strcmp(a->bytes, b->bytes) == 0;
	else if (S_ISREG(a->mode))
		r = have_same_bytes(gather, a, b, err);
	if (r < 0)
		return r;
	if (r == 0)
		return thaw_refused(err,
				    "\"%.150s\": different content in %.120s and %.120s",
				    a->path, origin_of(gather, a), origin_of(gather, b));
	if (!a->proof.has_sha256 && b->proof.has_sha256)
		a->proof = b->proof;
	a->mode |= b->mode & 0111;
	return 0;
}

static void drop(struct item *item)
{
	free(item->path);
	free(item->bytes);
}

static int merge_all(struct thaw_gather *gather, struct thaw_error *err)
{
	size_t kept = 0;

	qsort(gather->items, gather->count, sizeof(*gather->items), by_path);
	for (size_t i = 0; i < gather->count; i++) {
		struct item *item = &gather->items[i];
		struct item *last = kept ? &gather->items[kept - 1] : NULL;

		if (last && strcmp(last->path, item->path) == 0) {
			int r = merge(gather, last, item, err);

			if (r < 0) {
				/* What is between has been dropped already. */
				memmove(item - (i - kept), item,
					(gather->count - i) * sizeof(*item));
				gather->count -= i - kept;
				return r;
			}
			drop(item);
		} else {
			gather->items[kept++] = *item;
		}
	}
	gather->count = kept;
	return 0;
}

/* Those parents of an item that the one before it does not have as well. */
static int add_parents(struct thaw_gather *gather, const char *before, const char *path,
		       struct thaw_error *err)
{
	for (const char *slash = strchr(path, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		size_t len = (size_t)(slash - path);
		char parent[THAW_PATH_MAX + 1];
		struct item *item;
		int r;

		if (strncmp(before, path, len) == 0 &&
		    (before[len] == '/' || before[len] == '\0'))
			continue;
		memcpy(parent, path, len);
		parent[len] = '\0';
		r = add(gather, parent, err, &item);
		if (r < 0)
			return r;
		item->mode = DIRECTORY_MODE;
	}
	return 0;
}

int thaw_gather_finish(struct thaw_gather *gather, bool directories,
		       struct thaw_error *err)
{
	size_t count;
	int r;

	tdestroy(gather->own, keep_string);
	gather->own = NULL;
	r = merge_all(gather, err);
	count = gather->count;
	for (size_t i = 0; r == 0 && directories && i < count; i++)
		r = add_parents(gather, i ? gather->items[i - 1].path : "",
				gather->items[i].path, err);
	tdestroy(gather->own, keep_string);
	gather->own = NULL;
	if (r == 0 && gather->count > count)
		qsort(gather->items, gather->count, sizeof(*gather->items), by_path);
	return r;
}

/* -- as an input -- */

static int begin_item(struct thaw_gather *gather, const struct item *item,
		      struct thaw_error *err)
{
	struct thaw_canonical_member member = {
		.path = item->path,
		.mode = item->mode,
		.mtime = item->mtime,
		.size = item->size,
		.target = item->bytes,
	};
	int r = thaw_canonical_member(gather->tar, &member, err);

	if (r < 0 || !S_ISREG(item->mode))
		return r;
	if (!item->file)
		return thaw_canonical_data(gather->tar, item->path, item->bytes,
					   item->size, err);
	if (item->proof.has_sha256 && thaw_digest_start(gather->digest) < 0)
		return thaw_oom(err);
	gather->open = item;
	return thaw_file_begin(gather->reader, item->file, err);
}

/* Its last bytes may have been handed out; nothing is committed before the end. */
static int end_item(struct thaw_gather *gather, struct thaw_error *err)
{
	const struct item *item = gather->open;
	uint8_t sum[32];

	gather->open = NULL;
	if (!item->proof.has_sha256)
		return 0;
	if (thaw_digest_end(gather->digest, sum) < 0)
		return thaw_oom(err);
	if (memcmp(sum, item->proof.sha256, sizeof(sum)) != 0)
		return thaw_damaged(err, "\"%.200s\" of %.120s: not what RECORD says",
				    item->file->path, origin_of(gather, item));
	return 0;
}

int thaw_gather_failure(const char *where, int r, struct thaw_error *err)
{
	struct thaw_error text;

	if (r < 0 && r != -ENOMEM && err) {
		(void)thaw_damaged(&text, "%.160s: %.320s", where,
				   err->text); /* escapes */
		memcpy(err->text, text.text, sizeof(err->text));
	}
	return r;
}

static int copy_piece(struct thaw_gather *gather, struct thaw_error *err)
{
	const struct item *item = gather->open;
	const uint8_t *data;
	size_t len;
	int r = thaw_file_next(gather->reader, err, &data, &len);

	gather->base.consumed = thaw_file_consumed(gather->reader);
	if (r < 0)
		return gather->origin_count > 0
			       ? thaw_gather_failure(origin_of(gather, item), r, err)
			       : r;
	if (len == 0)
		return end_item(gather, err);
	if (item->proof.has_sha256 && thaw_digest_add(gather->digest, data, len) < 0)
		return thaw_oom(err);
	return thaw_canonical_data(gather->tar, item->path, data, len, err);
}

static int gather_next(struct thaw_input *base, struct thaw_error *err,
		       const uint8_t **ret_data, size_t *ret_len)
{
	struct thaw_gather *gather = (struct thaw_gather *)base;

	for (;;) {
		int r;

		*ret_len = thaw_canonical_take(gather->tar, ret_data);
		if (*ret_len > 0 || gather->finished)
			return 0;
		if (gather->open) {
			r = copy_piece(gather, err);
		} else if (gather->next < gather->count) {
			r = begin_item(gather, &gather->items[gather->next++], err);
		} else {
			gather->finished = true;
			r = thaw_canonical_end(gather->tar, err);
		}
		if (r < 0)
			return r;
	}
}

static void gather_free(struct thaw_input *base)
{
	thaw_gather_free((struct thaw_gather *)base);
}

int thaw_gather_input(struct thaw_gather *gather,
		      struct thaw_input_environment *environment, struct thaw_error *err,
		      struct thaw_input **ret_input)
{
	uint64_t total = thaw_file_consumed(gather->reader);
	int r = thaw_canonical_new(err, &gather->tar);

	for (size_t i = 0; i < gather->count; i++) {
		const struct thaw_file *file = gather->items[i].file;

		if (file)
			total += file->member ? file->member->stored : file->size;
	}
	gather->base.total = total;
	gather->environment = environment;
	if (r < 0) {
		thaw_gather_free(gather);
		return r;
	}
	gather->base.next = gather_next;
	gather->base.free = gather_free;
	gather->base.environment = environment;
	*ret_input = &gather->base;
	return 0;
}
