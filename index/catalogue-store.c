/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LMDB file of checked records.
 *
 * NAME.mdb is the file, NAME.lock is locked by whoever has it open, NAME.clean
 * holds the file's SHA-256 as of the last orderly close, and dashes until then. Only a file with that
 * digest is opened as it is; any other is read by a child into NAME.new, which then
 * takes its place. LMDB's own lock file is not used: it, too, can be damaged.
 *
 * The lock is the process's (fcntl), not the descriptor's: a child that was forked
 * and outlives us must not keep the next service out.
 */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalogue-internal.h"
#include "digest.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

#define SCHEMA	      "1"
#define MAP_FIRST     (1u << 20) /* doubled when full */
#define TIMEOUT_MS    5000u
#define REMOVAL_ROOM  ((size_t)4 << 20)
/* How much is put into one transaction of a rebuild. */
#define BATCH_RECORDS 512u
#define BATCH_BYTES   (8u << 20)

struct thaw_store {
	struct thaw_store_options options;
	pthread_mutex_t lock; /* protects all below; LMDB has no lock of its own here */
	char *file, *fresh, *clean; /* paths; of a store in memory all NULL */
	MDB_env *env;
	MDB_dbi dbi;
	int lock_fd;
	int memory_fd; /* -1 on disk */
};

/* LMDB's codes end here. 0, THAW_NOT_FOUND, negative errno. */
static int store_error(const struct thaw_store *store, int rc, struct thaw_error *err)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return THAW_NOT_FOUND;
	case MDB_MAP_FULL:
		return thaw_io(err, -ENOSPC,
			       "the catalogue of %s has reached its bound of %zu MiB",
			       store->options.name, store->options.limit >> 20);
	case MDB_BAD_VALSIZE:
	case MDB_TXN_FULL:
		return thaw_limit(err, "too much for the catalogue of %s",
				  store->options.name);
	case MDB_PANIC:
		return thaw_io(err, -EIO, "the catalogue of %s cannot be written",
			       store->options.name);
	default:
		if (rc > 0)
			return thaw_io(err, -rc, "the catalogue of %s",
				       store->options.name);
		return thaw_damaged(err, "the catalogue of %s: %s", store->options.name,
				    mdb_strerror(rc));
	}
}

/* -- LMDB environments -- */

static unsigned env_flags(const struct thaw_store *store)
{
	return MDB_NOSUBDIR | MDB_NOLOCK | (store->options.durable ? 0 : MDB_NOSYNC);
}

/* Open path, which must be sound, or empty, or missing. */
static int env_open(struct thaw_store *store, const char *path, size_t map,
		    struct thaw_error *err)
{
	MDB_txn *txn = NULL;
	mdb_filehandle_t fd;
	int rc;

	rc = mdb_env_create(&store->env);
	if (rc != 0) {
		store->env = NULL;
		return store_error(store, rc, err);
	}
	rc = mdb_env_set_mapsize(store->env, map);
	if (rc == 0)
		rc = mdb_env_open(store->env, path, env_flags(store), 0600);
	if (rc == 0)
		rc = mdb_env_get_fd(store->env, &fd);
	/* 0.9.24 does not do it for this one; keepers must not inherit it. */
	if (rc == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		rc = errno;
	if (rc == 0)
		rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
	if (rc == 0)
		rc = mdb_dbi_open(txn, NULL, 0, &store->dbi);
	if (txn)
		mdb_txn_abort(txn);
	if (rc != 0) {
		mdb_env_close(store->env);
		store->env = NULL;
	}
	return store_error(store, rc, err);
}

static void env_close(struct thaw_store *store)
{
	if (store->env)
		mdb_env_close(store->env);
	store->env = NULL;
}

static size_t map_size_for(const struct thaw_store *store, uint64_t bytes)
{
	size_t map = MAP_FIRST;

	while (map < store->options.limit && map < bytes)
		map *= 2;
	return map < store->options.limit ? map : store->options.limit;
}

/* -- changes -- */

struct prepared {
	uint8_t key[THAW_KEY_MAX];
	size_t key_len;
	uint8_t *record; /* NULL: remove */
	size_t len;
};

static int prepare_key(enum thaw_table table, const void *key, size_t key_len,
		       uint8_t ret_key[THAW_KEY_MAX], struct thaw_error *err)
{
	if (key_len == 0 || key_len >= THAW_KEY_MAX)
		return thaw_limit(err, "a key of the catalogue has %zu bytes", key_len);
	ret_key[0] = (uint8_t)table;
	memcpy(ret_key + 1, key, key_len);
	return 0;
}

static int prepare(const struct thaw_store_change *change, struct prepared *ret,
		   struct thaw_error *err)
{
	int r = prepare_key(change->table, change->key, change->key_len, ret->key, err);

	ret->record = NULL;
	ret->key_len = change->key_len + 1;
	if (r < 0 || !change->payload)
		return r;
	r = thaw_record_encode(ret->key, ret->key_len, change->payload, change->len,
			       &ret->record, &ret->len);
	if (r == -EFBIG)
		return thaw_limit(err, "a record of the catalogue has %zu bytes",
				  change->len);
	return r < 0 ? thaw_oom(err) : 0;
}

/* LMDB's code. */
static int try_changes(struct thaw_store *store, const struct prepared *changes,
		       size_t count)
{
	MDB_txn *txn;
	int rc;

	if (!store->env)
		return MDB_PANIC;
	rc = mdb_txn_begin(store->env, NULL, 0, &txn);
	if (rc != 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < count; i++) {
		MDB_val key = { changes[i].key_len, (void *)changes[i].key };
		MDB_val value = { changes[i].len, changes[i].record };

		rc = changes[i].record ? mdb_put(txn, store->dbi, &key, &value, 0)
				       : mdb_del(txn, store->dbi, &key, NULL);
		if (rc == MDB_NOTFOUND && !changes[i].record)
			rc = 0;
	}
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

/*
 * Twice the room, if that is allowed. Removing takes pages, too, before it gives any
 * back: it may go beyond the bound. LMDB's code.
 */
static int grow_map(struct thaw_store *store, bool removal)
{
	size_t limit = store->options.limit, size;
	MDB_envinfo info;
	int rc = mdb_env_info(store->env, &info);

	if (rc != 0)
		return rc;
	size = map_size_for(store, info.me_mapsize + 1);
	if (info.me_mapsize >= limit) {
		if (!removal || info.me_mapsize >= limit + REMOVAL_ROOM)
			return MDB_MAP_FULL;
		size = limit + REMOVAL_ROOM;
	}
	return mdb_env_set_mapsize(store->env, size);
}

/*
 * After a failed write of its first page LMDB refuses everything (MDB_PANIC).
 * The file is as the last whole transaction left it: open it anew.
 */
static int reopen(struct thaw_store *store)
{
	char memory[32];
	struct stat st;

	(void)snprintf(memory, sizeof(memory), "/proc/self/fd/%d", store->memory_fd);
	env_close(store);
	if ((store->file ? stat(store->file, &st) : fstat(store->memory_fd, &st)) < 0)
		return -errno;
	return env_open(store, store->file ? store->file : memory,
			map_size_for(store, (uint64_t)st.st_size), NULL);
}

static int make_changes(struct thaw_store *store, const struct prepared *changes,
			size_t count, struct thaw_error *err)
{
	bool removal = true, beyond = false;
	int rc;

	for (size_t i = 0; i < count; i++)
		removal = removal && !changes[i].record;
	for (bool again = true;;) {
		rc = try_changes(store, changes, count);
		if (rc == MDB_MAP_FULL) {
			rc = grow_map(store, removal);
			beyond = removal;
			if (rc == 0)
				continue;
		}
		/* Back; LMDB keeps as much as is in use. */
		if (rc == 0 && beyond)
			(void)mdb_env_set_mapsize(store->env, store->options.limit);
		if (rc != MDB_PANIC || !again || reopen(store) < 0)
			return store_error(store, rc, err);
		again = false;
	}
}

int thaw_store_change(struct thaw_store *store, const struct thaw_store_change *changes,
		      size_t count, struct thaw_error *err)
{
	struct prepared *prepared = calloc(count + 1, sizeof(*prepared));
	int r = 0;

	if (!prepared)
		return thaw_oom(err);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = prepare(&changes[i], &prepared[i], err);
	if (r == 0) {
		(void)pthread_mutex_lock(
			&store->lock); /* both cannot fail for this kind */
		r = make_changes(store, prepared, count, err);
		(void)pthread_mutex_unlock(&store->lock);
	}
	for (size_t i = 0; i < count; i++)
		free(prepared[i].record);
	free(prepared);
	return r;
}

/* -- reading -- */

static int copy_of(const uint8_t *data, size_t len, uint8_t **ret_copy)
{
	*ret_copy = malloc(len + 1); /* + 1: never of size 0 */
	if (!*ret_copy)
		return -ENOMEM;
	memcpy(*ret_copy, data, len);
	return 0;
}

static int begin_reading(struct thaw_store *store, MDB_txn **ret_txn)
{
	int rc = store->env ? mdb_txn_begin(store->env, NULL, MDB_RDONLY, ret_txn)
			    : MDB_PANIC;

	if (rc == MDB_PANIC && reopen(store) == 0)
		rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, ret_txn);
	return rc;
}

static int get_locked(struct thaw_store *store, MDB_val *key, struct thaw_error *err,
		      uint8_t **ret_payload, size_t *ret_len)
{
	struct prepared removal = { .key_len = key->mv_size };
	const uint8_t *payload;
	MDB_val value;
	MDB_txn *txn;
	int r;

	r = store_error(store, begin_reading(store, &txn), err);
	if (r != 0)
		return r;
	r = store_error(store, mdb_get(txn, store->dbi, key, &value), err);
	if (r == 0) {
		r = thaw_record_decode(key->mv_data, key->mv_size, value.mv_data,
				       value.mv_size, &payload, ret_len);
		if (r == 0)
			r = copy_of(payload, *ret_len, ret_payload);
		if (r == -ENOMEM)
			(void)thaw_oom(err);
	}
	mdb_txn_abort(txn); /* payload lay in it */
	if (r != -EBADMSG)
		return r;
	memcpy(removal.key, key->mv_data, key->mv_size);
	/* Failing, it is found damaged the next time, too. */
	(void)make_changes(store, &removal, 1, NULL);
	return thaw_damaged(err, "a damaged record of the catalogue of %s was dropped",
			    store->options.name);
}

int thaw_store_get(struct thaw_store *store, enum thaw_table table, const void *key,
		   size_t key_len, struct thaw_error *err, uint8_t **ret_payload,
		   size_t *ret_len)
{
	uint8_t bytes[THAW_KEY_MAX];
	MDB_val whole = { key_len + 1, bytes };
	int r = prepare_key(table, key, key_len, bytes, err);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&store->lock); /* both cannot fail for this kind */
	r = get_locked(store, &whole, err, ret_payload, ret_len);
	(void)pthread_mutex_unlock(&store->lock);
	return r;
}

void thaw_store_rows_deinit(struct thaw_store_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		free(rows->rows[i].payload);
	free(rows->rows);
	*rows = (struct thaw_store_rows){ 0 };
}

/* damaged: its key goes where good rows go, and it is removed afterwards. */
static int add_row(struct thaw_store_rows *rows, const MDB_val *key, const MDB_val *value,
		   size_t head)
{
	const uint8_t *payload = NULL;
	struct thaw_store_row *row;
	size_t len = 0;
	int damaged, r;

	damaged = thaw_record_decode(key->mv_data, key->mv_size, value->mv_data,
				     value->mv_size, &payload, &len);
	if (damaged == -ENOMEM)
		return -ENOMEM;
	r = grow(&rows->rows, &rows->capacity, rows->count + 1, sizeof(*rows->rows));
	if (r < 0)
		return r;
	row = &rows->rows[rows->count];
	row->key_len = key->mv_size - 1;
	memcpy(row->key, (const uint8_t *)key->mv_data + 1, row->key_len);
	row->payload = NULL;
	row->len = len < head ? len : head;
	if (damaged == 0) {
		r = copy_of(payload, row->len, &row->payload);
		if (r < 0)
			return r;
	}
	rows->count++;
	return 0;
}

static int collect(struct thaw_store *store, enum thaw_table table, size_t head,
		   struct thaw_store_rows *rows, struct thaw_error *err)
{
	uint8_t letter = (uint8_t)table;
	MDB_val key = { 1, &letter }, value;
	MDB_cursor *cursor = NULL;
	MDB_txn *txn;
	int rc, r = 0;

	rc = begin_reading(store, &txn);
	if (rc != 0)
		return store_error(store, rc, err);
	rc = mdb_cursor_open(txn, store->dbi, &cursor);
	if (rc == 0)
		rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	while (rc == 0 && r == 0 && *(const uint8_t *)key.mv_data == letter) {
		if (key.mv_size > 1 && key.mv_size <= THAW_KEY_MAX)
			r = add_row(rows, &key, &value, head);
		rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	if (r < 0)
		return thaw_oom(err);
	return rc == MDB_NOTFOUND ? 0 : store_error(store, rc, err);
}

/* Take the damaged rows out of the copy and of the file. */
static void drop_damaged(struct thaw_store *store, enum thaw_table table,
			 struct thaw_store_rows *rows)
{
	size_t kept = 0;

	for (size_t i = 0; i < rows->count; i++) {
		struct thaw_store_row *row = &rows->rows[i];
		struct prepared removal = { .key_len = row->key_len + 1 };

		if (row->payload) {
			if (kept != i)
				rows->rows[kept] = *row;
			kept++;
			continue;
		}
		removal.key[0] = (uint8_t)table;
		memcpy(removal.key + 1, row->key, row->key_len);
		/* Failing, it is found damaged the next time, too. */
		(void)make_changes(store, &removal, 1, NULL);
		rows->dropped++;
	}
	rows->count = kept;
}

int thaw_store_rows(struct thaw_store *store, enum thaw_table table, size_t head,
		    struct thaw_error *err, struct thaw_store_rows *ret_rows)
{
	struct thaw_store_rows rows = { 0 };
	int r;

	(void)pthread_mutex_lock(&store->lock); /* both cannot fail for this kind */
	r = collect(store, table, head, &rows, err);
	if (r == 0)
		drop_damaged(store, table, &rows);
	(void)pthread_mutex_unlock(&store->lock);
	if (r < 0) {
		thaw_store_rows_deinit(&rows);
		return r;
	}
	*ret_rows = rows;
	return 0;
}

/* -- the marker of an orderly close -- */

/* Somebody else's, a link, open to others: in our directory, but not to be believed. */
static bool is_ours(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_uid == geteuid() &&
	       (st->st_mode & 077) == 0 && st->st_nlink == 1;
}

static int file_digest(const char *path, char ret_hex[THAW_DIGEST_HEX])
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(freep) uint8_t *buf = malloc(1u << 16);
	struct thaw_digest *digest = NULL;
	uint8_t sum[THAW_DIGEST_SIZE];
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	if (!buf)
		return -ENOMEM;
	r = thaw_digest_new(&digest);
	if (r == 0)
		r = thaw_digest_start(digest);
	while (r == 0 && (n = read(fd, buf, 1u << 16)) != 0)
		r = n < 0 ? (errno == EINTR ? 0 : -errno)
			  : thaw_digest_add(digest, buf, (size_t)n);
	if (r == 0)
		r = thaw_digest_end(digest, sum);
	thaw_digest_free(digest);
	if (r == 0)
		thaw_digest_hex(sum, ret_hex);
	return r;
}

enum marker { MARKER_NONE, MARKER_WRONG, MARKER_RIGHT };

#define MARKER_SIZE (THAW_DIGEST_HEX - 1)
/* While the file is open. It stays, so that marking it closed needs no space. */
static const char marker_open[MARKER_SIZE + 1] =
	"----------------------------------------------------------------";

static enum marker look_at_marker(const struct thaw_store *store)
{
	_cleanup_(closep) int fd = open(store->clean, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char hex[THAW_DIGEST_HEX], said[MARKER_SIZE + 1] = "";

	if (fd < 0)
		return errno == ENOENT ? MARKER_NONE : MARKER_WRONG;
	if (read(fd, said, sizeof(said)) != MARKER_SIZE)
		return MARKER_WRONG;
	if (memcmp(said, marker_open, MARKER_SIZE) == 0)
		return MARKER_NONE;
	if (file_digest(store->file, hex) < 0)
		return MARKER_WRONG;
	return memcmp(hex, said, MARKER_SIZE) == 0 ? MARKER_RIGHT : MARKER_WRONG;
}

/*
 * Not synced, and failures do not matter: whatever of it there is then either is the
 * file's digest or is not.
 */
static void write_marker(const struct thaw_store *store, const char text[MARKER_SIZE])
{
	struct stat st;

	for (unsigned attempt = 0; attempt < 2; attempt++) {
		_cleanup_(closep) int fd = open(
			store->clean,
			O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

		if (fd >= 0 && fstat(fd, &st) == 0 && is_ours(&st)) {
			if (pwrite(fd, text, MARKER_SIZE, 0) == MARKER_SIZE &&
			    st.st_size > (off_t)MARKER_SIZE)
				(void)!ftruncate(fd, MARKER_SIZE);
			return;
		}
		(void)unlink(store->clean);
	}
}

/* -- opening -- */

static void say_why(struct thaw_catalogue_report *report, const char *why, int error)
{
	if (report->why[0] == '\0')
		(void)snprintf(report->why, sizeof(report->why), "%.200s%s%s", why,
			       error ? ": " : "", error ? strerror(-error) : "");
}

/* 0: locked. -EBUSY: another process has it. Else why nothing can be written there. */
static int take_lock(struct thaw_store *store, const char *path)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat st;

	for (unsigned attempt = 0;; attempt++) {
		store->lock_fd =
			open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
			     0600);
		if (store->lock_fd >= 0 && fstat(store->lock_fd, &st) == 0 &&
		    is_ours(&st))
			break;
		if (store->lock_fd < 0 && errno != ELOOP && errno != EISDIR &&
		    errno != EACCES)
			return -errno;
		store->lock_fd = safe_close(store->lock_fd);
		if (attempt > 0 || unlink(path) < 0)
			return errno ? -errno : -EACCES;
	}
	if (fcntl(store->lock_fd, F_SETLK, &whole) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Whether there is a file of ours to read; what is not ours is removed. */
static bool look_at_file(const struct thaw_store *store, bool writable,
			 uint64_t *ret_size, struct thaw_catalogue_report *report)
{
	struct stat st;

	if (lstat(store->file, &st) < 0) {
		if (errno != ENOENT)
			say_why(report, "the file cannot be looked at", -errno);
		return false;
	}
	if (is_ours(&st)) {
		*ret_size = (uint64_t)st.st_size;
		return true;
	}
	say_why(report, "the file was not ours alone, and was dropped", 0);
	if (writable && unlink(store->file) < 0 && errno != ENOENT)
		say_why(report, "the file was not ours, and cannot be removed", -errno);
	return false;
}

struct rebuild {
	struct thaw_store *store;
	struct thaw_catalogue_report *report;
	struct thaw_error *err;
	struct prepared batch[BATCH_RECORDS];
	size_t count, bytes;
};

static int flush_batch(struct rebuild *rebuild)
{
	int r = make_changes(rebuild->store, rebuild->batch, rebuild->count,
			     rebuild->err);

	for (size_t i = 0; i < rebuild->count; i++)
		free(rebuild->batch[i].record);
	rebuild->count = rebuild->bytes = 0;
	return r;
}

/* A record from the child: kept when it is whole and one of ours. */
static int take_over(void *userdata, const uint8_t *key, size_t key_len,
		     const uint8_t *record, size_t len)
{
	struct rebuild *rebuild = userdata;
	struct prepared *next = &rebuild->batch[rebuild->count];
	const uint8_t *payload;
	size_t payload_len;
	int r;

	r = thaw_record_decode(key, key_len, record, len, &payload, &payload_len);
	if (r == -ENOMEM)
		return thaw_oom(rebuild->err);
	if (r == 0 && key[0] == THAW_TABLE_SCHEMA)
		return 0; /* ours is written in any case */
	if (r < 0 || key_len < 2 || !strchr(rebuild->store->options.tables, key[0])) {
		rebuild->report->dropped++;
		return 0;
	}
	if (copy_of(record, len, &next->record) < 0)
		return thaw_oom(rebuild->err);
	memcpy(next->key, key, key_len);
	next->key_len = key_len;
	next->len = len;
	rebuild->report->kept++;
	rebuild->count++;
	rebuild->bytes += len;
	return rebuild->count == BATCH_RECORDS || rebuild->bytes > BATCH_BYTES
		       ? flush_batch(rebuild)
		       : 0;
}

static int write_schema(struct thaw_store *store, struct thaw_error *err)
{
	const struct thaw_store_change change = { THAW_TABLE_SCHEMA, "schema", 6, SCHEMA,
						  sizeof(SCHEMA) - 1 };

	return thaw_store_change(store, &change, 1, err);
}

static bool has_schema(struct thaw_store *store)
{
	_cleanup_(freep) uint8_t *payload = NULL;
	size_t len;

	return thaw_store_get(store, THAW_TABLE_SCHEMA, "schema", 6, NULL, &payload,
			      &len) == 0 &&
	       len == sizeof(SCHEMA) - 1 && memcmp(payload, SCHEMA, len) == 0;
}

/* Fill the new file that is open with what a child can read of the old one. */
static int copy_old(struct thaw_store *store, uint64_t old_size, struct thaw_error *err,
		    struct thaw_catalogue_report *report)
{
	struct rebuild *rebuild = calloc(1, sizeof(*rebuild));
	struct thaw_salvage_result result;
	int r;

	if (!rebuild)
		return thaw_oom(err);
	*rebuild = (struct rebuild){ .store = store, .report = report, .err = err };
	report->kept = report->dropped = 0;
	r = thaw_salvage(store->file, (size_t)old_size, store->options.timeout_ms,
			 take_over, rebuild, err, &result);
	if (r == 0)
		r = flush_batch(rebuild);
	for (size_t i = 0; i < rebuild->count; i++)
		free(rebuild->batch[i].record);
	free(rebuild);
	if (r < 0)
		return r;
	if (!result.complete) {
		report->state = THAW_CATALOGUE_REBUILT;
		say_why(report, result.why, 0);
	} else if (report->dropped) {
		report->state = THAW_CATALOGUE_REBUILT;
		say_why(report, "some records were damaged, or another version's", 0);
	}
	return 0;
}

static void sync_directory(const char *path)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		(void)fsync(
			fd); /* failing, the old file or none is found: both are provided for */
}

/* A new file at path, with what the old one has (have_old); then it is open. */
static int build_at(struct thaw_store *store, const char *path, bool have_old,
		    uint64_t old_size, struct thaw_error *err,
		    struct thaw_catalogue_report *report)
{
	int r;

	r = env_open(store, path, map_size_for(store, 2 * old_size), err);
	if (r == 0)
		r = write_schema(store, err);
	if (r == 0 && have_old)
		r = copy_old(store, old_size, err, report);
	if (r < 0)
		env_close(store);
	return r;
}

static int build_on_disk(struct thaw_store *store, bool have_old, uint64_t old_size,
			 struct thaw_error *err, struct thaw_catalogue_report *report)
{
	int rc, r;

	/* Of somebody who was killed here. */
	if (unlink(store->fresh) < 0 && errno != ENOENT)
		return thaw_io(err, -errno, "\"%.200s\" cannot be removed", store->fresh);
	r = build_at(store, store->fresh, have_old, old_size, err, report);
	if (r == 0) {
		rc = mdb_env_sync(store->env, store->options.durable);
		r = store_error(store, rc, err);
		if (r == 0 && rename(store->fresh, store->file) < 0)
			r = thaw_io(err, -errno, "\"%.200s\" cannot be put in its place",
				    store->fresh);
	}
	if (r < 0) {
		env_close(store);
		(void)unlink(store->fresh);
	} else if (store->options.durable) {
		sync_directory(store->options.directory);
	}
	return r;
}

static int build_in_memory(struct thaw_store *store, bool have_old, uint64_t old_size,
			   struct thaw_error *err, struct thaw_catalogue_report *report)
{
	char path[32];
	int r;

	report->in_memory = true;
	store->memory_fd = memfd_create("thaw-catalogue", MFD_CLOEXEC);
	if (store->memory_fd < 0)
		return thaw_io(err, -errno, "no catalogue can be had in memory");
	store->options.durable = false;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", store->memory_fd);
	r = build_at(store, path, have_old, old_size, err, report);
	/* From here on the file belongs to nobody here. */
	free(store->file);
	free(store->fresh);
	free(store->clean);
	store->file = store->fresh = store->clean = NULL;
	return r;
}

static int make_paths(struct thaw_store *store, char **ret_lock)
{
	const char *directory = store->options.directory, *name = store->options.name;

	if (asprintf(&store->file, "%s/%s.mdb", directory, name) < 0)
		store->file = NULL;
	if (asprintf(&store->fresh, "%s/%s.new", directory, name) < 0)
		store->fresh = NULL;
	if (asprintf(&store->clean, "%s/%s.clean", directory, name) < 0)
		store->clean = NULL;
	if (asprintf(ret_lock, "%s/%s.lock", directory, name) < 0)
		*ret_lock = NULL;
	return store->file && store->fresh && store->clean && *ret_lock ? 0 : -ENOMEM;
}

/* The file as it is, if it is as it was left. */
static bool open_as_it_is(struct thaw_store *store, uint64_t size)
{
	if (env_open(store, store->file, map_size_for(store, 2 * size), NULL) < 0)
		return false;
	if (has_schema(store))
		return true;
	env_close(store);
	return false;
}

static int open_on_disk(struct thaw_store *store, struct thaw_error *err,
			struct thaw_catalogue_report *report)
{
	_cleanup_(freep) char *lock = NULL;
	enum marker marker = MARKER_NONE;
	struct thaw_error why = { 0 };
	bool writable, have_old;
	uint64_t size = 0;
	int r;

	if (make_paths(store, &lock) < 0)
		return thaw_oom(err);
	r = take_lock(store, lock);
	if (r == -EBUSY)
		return thaw_io(err, r, "the catalogue of %s is in use by another process",
			       store->options.name);
	writable = r == 0;
	have_old = look_at_file(store, writable, &size, report);
	if (have_old)
		marker = look_at_marker(store);
	else if (report->why[0] != '\0')
		report->state = THAW_CATALOGUE_REBUILT;
	else
		report->state = THAW_CATALOGUE_CREATED;
	report->unclean = have_old && marker == MARKER_NONE;
	if (have_old && marker == MARKER_WRONG) {
		report->state = THAW_CATALOGUE_REBUILT;
		say_why(report, "the file was changed after it had been closed", 0);
	}
	if (writable) {
		/* Before the first change; a stale one would not fit the file any more anyway. */
		write_marker(store, marker_open);
		if (have_old && marker == MARKER_RIGHT && open_as_it_is(store, size))
			return 0;
		r = build_on_disk(store, have_old, size, &why, report);
		if (r == 0 || r == -ENOMEM)
			return r == 0 ? 0 : thaw_oom(err);
		report->why[0] = '\0'; /* this matters more */
		say_why(report, why.text, 0);
	} else {
		report->why[0] = '\0';
		say_why(report, "its directory cannot be written to", r);
	}
	return build_in_memory(store, have_old, size, err, report);
}

int thaw_store_open(const struct thaw_store_options *options, struct thaw_error *err,
		    struct thaw_catalogue_report *ret_report,
		    struct thaw_store **ret_store)
{
	struct thaw_store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return thaw_oom(err);
	*ret_report = (struct thaw_catalogue_report){ 0 };
	store->options = *options;
	store->lock_fd = store->memory_fd = -1;
	if (store->options.timeout_ms == 0)
		store->options.timeout_ms = TIMEOUT_MS;
	(void)pthread_mutex_init(&store->lock, NULL); /* cannot fail without attributes */
	if (options->directory) {
		r = open_on_disk(store, err, ret_report);
	} else {
		ret_report->state = THAW_CATALOGUE_CREATED;
		r = build_in_memory(store, false, 0, err, ret_report);
	}
	store->options.directory = NULL; /* the caller's; not used any more */
	if (r < 0) {
		thaw_store_close(store);
		return r;
	}
	*ret_store = store;
	return 0;
}

struct thaw_store *thaw_store_close(struct thaw_store *store)
{
	char hex[THAW_DIGEST_HEX];

	if (!store)
		return NULL;
	if (store->env && store->file) {
		int rc = mdb_env_sync(store->env, store->options.durable);

		env_close(store);
		/* Without it, the file is read by a child next time; nothing is lost. */
		if (rc == 0 && file_digest(store->file, hex) == 0)
			write_marker(store, hex);
	}
	env_close(store);
	(void)safe_close(store->lock_fd); /* the last: now it is somebody else's */
	(void)safe_close(store->memory_fd);
	free(store->file);
	free(store->fresh);
	free(store->clean);
	(void)pthread_mutex_destroy(&store->lock);
	free(store);
	return NULL;
}
