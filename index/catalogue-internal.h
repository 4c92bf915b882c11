/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The parts of the catalogue: records (what a value is), stores (one LMDB file),
 * salvage (reading a file that may be damaged). catalogue.c puts them together.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/catalogue.h"

/* -- records -- */

/* The first byte of each key. Never given another meaning. */
enum thaw_table {
	THAW_TABLE_SCHEMA = 'v', /* one record, key "schema" */
	THAW_TABLE_LEASES = 'l',
	THAW_TABLE_IMAGES = 'i',
	THAW_TABLE_SOURCES = 's',
	THAW_TABLE_TRACES = 't',
};

#define THAW_KEY_MAX		511u /* LMDB's own limit, the table included */
#define THAW_RECORD_VERSION	1u
/* u32 version, u32 length of the payload, the first 16 bytes of a SHA-256. */
#define THAW_RECORD_HEADER	24u
#define THAW_RECORD_OFF_LENGTH	4u
#define THAW_RECORD_OFF_DIGEST	8u
#define THAW_RECORD_DIGEST_SIZE 16u
#define THAW_RECORD_MAX		(THAW_RECORD_HEADER + THAW_CATALOGUE_TRACE_MAX)

/*
 * Make the record of a payload under a key (table included). The digest is over
 * version, lengths, key and payload: a record that turns up under another key is
 * damaged. Allocated: free().
 */
_must_check_ int thaw_record_encode(const void *key, size_t key_len, const void *payload,
				    size_t len, uint8_t **ret_record, size_t *ret_len);
/* *ret_payload points into record. -EBADMSG, -ENOMEM. */
_must_check_ int thaw_record_decode(const void *key, size_t key_len, const void *record,
				    size_t record_len, const uint8_t **ret_payload,
				    size_t *ret_len);

/* A trace's payload: u64 time of storing, u8 and the workload's name, then entries. */
_must_check_ int thaw_learned_encode(int64_t now, const char *workload,
				     const struct thaw_learned_entry *entries,
				     size_t count, struct thaw_error *err,
				     uint8_t **ret_payload, size_t *ret_len);
/* payload is taken over on success: entries point into it. -EBADMSG, -ENOMEM. */
_must_check_ int thaw_learned_decode(uint8_t *payload, size_t len, const char *workload,
				     struct thaw_learned *ret_learned);

/* Images and sources as JSON; strings that are no UTF-8 as {"hex": "..."}. NULL: no memory. */
json_t *thaw_catalogue_image_json(const struct thaw_catalogue_image *image);
json_t *thaw_catalogue_source_json(const struct thaw_catalogue_source *source,
				   const uint8_t identity[THAW_DIGEST_SIZE]);
/* -EBADMSG, -ENOMEM. The identity is the key's. */
_must_check_ int thaw_catalogue_image_from_json(const json_t *json,
						const uint8_t identity[THAW_DIGEST_SIZE],
						struct thaw_catalogue_image *ret_image);
/* *ret_path, *ret_image (or NULL) and *ret_options are malloc'ed, and what ret_source points to. */
_must_check_ int thaw_catalogue_source_from_json(const json_t *json, char **ret_path,
						 char **ret_image, char **ret_options,
						 struct thaw_catalogue_source *ret_source,
						 uint8_t ret_identity[THAW_DIGEST_SIZE]);

/* -- stores -- */

struct thaw_store_options {
	const char *directory; /* NULL: in memory */
	const char *name;      /* of the file, without suffix */
	const char *tables;    /* their letters: what else is found is dropped */
	bool durable;	       /* wait for the disk at each change; not on a tmpfs */
	size_t limit;	       /* bytes that the file may grow to */
	unsigned timeout_ms;
};

struct thaw_store;

/* -EBUSY: another process has it. Everything else that is wrong is in the report. */
_must_check_ int thaw_store_open(const struct thaw_store_options *options,
				 struct thaw_error *err,
				 struct thaw_catalogue_report *ret_report,
				 struct thaw_store **ret_store);
struct thaw_store *thaw_store_close(struct thaw_store *store);

/* A change; several are made together or not at all. Borrowed. */
struct thaw_store_change {
	enum thaw_table table;
	const void *key;
	size_t key_len;
	const void *payload; /* NULL: remove; what is not there is no failure */
	size_t len;
};
_must_check_ int thaw_store_change(struct thaw_store *store,
				   const struct thaw_store_change *changes, size_t count,
				   struct thaw_error *err);
/* 0, THAW_NOT_FOUND, -EBADMSG (then it is gone). Allocated: free(). */
_must_check_ int thaw_store_get(struct thaw_store *store, enum thaw_table table,
				const void *key, size_t key_len, struct thaw_error *err,
				uint8_t **ret_payload, size_t *ret_len);

/* A copy of a table, in the order of keys. */
struct thaw_store_row {
	uint8_t key[THAW_KEY_MAX]; /* without the table */
	size_t key_len;
	uint8_t *payload;
	size_t len;
};
struct thaw_store_rows {
	struct thaw_store_row *rows;
	size_t count, capacity;
	unsigned dropped; /* damaged, and gone now */
};
/* head: copy at most this much of each payload. */
_must_check_ int thaw_store_rows(struct thaw_store *store, enum thaw_table table,
				 size_t head, struct thaw_error *err,
				 struct thaw_store_rows *ret_rows);
void thaw_store_rows_deinit(struct thaw_store_rows *rows);

/* -- salvage -- */

/* Of a record that a child has read; not verified yet. Nonzero ends the salvage. */
typedef int thaw_salvage_fn(void *userdata, const uint8_t *key, size_t key_len,
			    const uint8_t *record, size_t len);

struct thaw_salvage_result {
	bool complete; /* the child came to the end, and to as many records as there should be */
	char why[160]; /* when not: what happened to it */
};
/*
 * Have a child read the LMDB file at path. Never fails for what the file is; the
 * result says how far it came. Errors: no child could be had, or fn's.
 */
_must_check_ int thaw_salvage(const char *path, size_t file_size, unsigned timeout_ms,
			      thaw_salvage_fn *fn, void *userdata, struct thaw_error *err,
			      struct thaw_salvage_result *ret_result);
