/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The catalogue: what one machine knows about images, leases and learned traces
 * (LMDB). Two files: leases, in the run-time directory, end with the boot; images,
 * sources and traces, in the state directory, survive it.
 *
 * The catalogue is a hint. It may miss what is there, and name what is gone, so
 * whoever uses it asks the mount table and opens the image. It never returns
 * what was not put: each record carries a checksum over its table, key and value.
 *
 * LMDB cannot be opened safely on a damaged file. So a file is opened in this
 * process only when its bytes are those of the last orderly close (a marker file
 * holds their digest), or when this process made it. Any other file is read
 * by a child, record by record, into a new one; the child may crash or hang, and
 * what it handed over before that is kept. The report says so.
 *
 * One process has a catalogue open, once (-EBUSY for others). Functions may be
 * called from any thread; none may be called in a forked child. Results are
 * copies and belong to the caller.
 *
 * Errors, for all: -ENOSPC when the file system or the bound of the file is full
 * (nothing that was there is lost, and reading goes on), -EBADMSG when a record
 * was damaged (it has been dropped: log it, and go on as if it had not been found),
 * -EFBIG for keys and values over a limit, -ENOMEM, I/O errors.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "thaw/error.h"
#include "thaw/image.h"

#define THAW_LEASE_ID_MAX	200u /* bytes of a lease's id; keys of LMDB end at 511 */
#define THAW_CATALOGUE_JSON_MAX (1u << 20) /* bytes of a lease or image */
#define THAW_CATALOGUE_TRACE_MAX \
	(32u << 20)		   /* bytes of a trace: 500,000 entries and more */
#define THAW_CATALOGUE_TRACES 256u /* the oldest goes when another comes */

struct thaw_catalogue;

enum thaw_catalogue_state {
	THAW_CATALOGUE_OK,	/* all that was there is there */
	THAW_CATALOGUE_CREATED, /* there was none: refill it */
	THAW_CATALOGUE_REBUILT, /* some or all of it was lost: refill it */
};

struct thaw_catalogue_report {
	enum thaw_catalogue_state state;
	bool unclean; /* whoever had it last did not close it */
	bool in_memory; /* cannot be written to disk: what is put is gone with the process */
	uint64_t kept, dropped; /* records, when it was read by a child */
	char why[256];		/* of REBUILT and in_memory: one line, else empty */
};

struct thaw_catalogue_options {
	/*
	 * Directories that exist (thaw_runtime_directory("catalogue", ...) and
	 * thaw_state_directory("catalogue", ...)). NULL: in memory.
	 */
	const char *leases;
	const char *images;
	unsigned timeout_ms; /* a child that says nothing for this long hangs; 0: 5 s */
};

/*
 * Open or make both files. Whatever is wrong with the files or, for images, with
 * the directory ends in a report, not in an error; -EBUSY when another process has
 * the leases open (another that has the images open: in memory). Forks; so
 * call it before threads are started.
 */
_must_check_ int thaw_catalogue_open(const struct thaw_catalogue_options *options,
				     struct thaw_error *err,
				     struct thaw_catalogue_report *ret_leases,
				     struct thaw_catalogue_report *ret_images,
				     struct thaw_catalogue **ret_catalogue);
/* An orderly end: writes the markers. NULL is allowed. Returns NULL. */
struct thaw_catalogue *thaw_catalogue_close(struct thaw_catalogue *catalogue);
static inline void thaw_catalogue_closep(struct thaw_catalogue **catalogue)
{
	*catalogue = thaw_catalogue_close(*catalogue);
}
/* "ok", "created", "rebuilt" */
const char *thaw_catalogue_state_name(enum thaw_catalogue_state state);

/* -- leases: the service's own JSON objects, by id (1 to THAW_LEASE_ID_MAX bytes) -- */

_must_check_ int thaw_catalogue_put_lease(struct thaw_catalogue *catalogue,
					  const char *id, const json_t *lease,
					  struct thaw_error *err);
/* 0, THAW_NOT_FOUND */
_must_check_ int thaw_catalogue_get_lease(struct thaw_catalogue *catalogue,
					  const char *id, struct thaw_error *err,
					  json_t **ret_lease);
_must_check_ int thaw_catalogue_remove_lease(struct thaw_catalogue *catalogue,
					     const char *id, struct thaw_error *err);
/* A nonzero result ends the iteration, and is its result. lease is borrowed. */
typedef int thaw_catalogue_lease_fn(void *userdata, const char *id, json_t *lease);
/* Of a copy: fn may call the catalogue. *ret_dropped: damaged ones (log it). */
_must_check_ int thaw_catalogue_each_lease(struct thaw_catalogue *catalogue,
					   thaw_catalogue_lease_fn *fn, void *userdata,
					   struct thaw_error *err, unsigned *ret_dropped);

/* -- images, by identity -- */

struct thaw_catalogue_image {
	uint8_t identity[THAW_DIGEST_SIZE];
	uint8_t index_digest
		[THAW_DIGEST_SIZE]; /* what traces are kept by; zero: unknown */
	/* Any bytes but NUL; kind and python may be NULL. malloc'ed in results. */
	char *name;
	char *path;    /* absolute */
	char *kind;    /* "conda", "venv", ... */
	char *python;  /* "3.11" */
	uint64_t size; /* of the file */
	int64_t mtime_ns;
	int64_t used; /* seconds since 1970; see thaw_catalogue_touch_image() */
};
void thaw_catalogue_image_deinit(struct thaw_catalogue_image *image);

/* Add or replace. */
_must_check_ int thaw_catalogue_put_image(struct thaw_catalogue *catalogue,
					  const struct thaw_catalogue_image *image,
					  struct thaw_error *err);
/* 0, THAW_NOT_FOUND. Use thaw_catalogue_image_deinit(). */
_must_check_ int thaw_catalogue_get_image(struct thaw_catalogue *catalogue,
					  const uint8_t identity[THAW_DIGEST_SIZE],
					  struct thaw_error *err,
					  struct thaw_catalogue_image *ret_image);
/*
 * It was used at this time. Written only when that changes the hour: writing
 * waits for the disk, and opening a view must not.
 */
_must_check_ int thaw_catalogue_touch_image(struct thaw_catalogue *catalogue,
					    const uint8_t identity[THAW_DIGEST_SIZE],
					    int64_t now, struct thaw_error *err);
/* With the sources that lead to it; traces stay (other images have the same index). */
_must_check_ int thaw_catalogue_remove_image(struct thaw_catalogue *catalogue,
					     const uint8_t identity[THAW_DIGEST_SIZE],
					     struct thaw_error *err);
typedef int thaw_catalogue_image_fn(void *userdata,
				    const struct thaw_catalogue_image *image);
/* As thaw_catalogue_each_lease(). */
_must_check_ int thaw_catalogue_each_image(struct thaw_catalogue *catalogue,
					   thaw_catalogue_image_fn *fn, void *userdata,
					   struct thaw_error *err, unsigned *ret_dropped);

/*
 * After a catalogue was created or rebuilt: put the images (*.thaw) of a directory
 * that are not known. Their index digest stays zero, since only their ends are read.
 * What is no image is passed over. *ret_added: how many.
 */
_must_check_ int thaw_catalogue_refill(struct thaw_catalogue *catalogue,
				       const char *directory, struct thaw_error *err,
				       unsigned *ret_added);

/* -- sources: which image an archive was packed into -- */

struct thaw_catalogue_source {
	const char *path;    /* absolute, resolved; any bytes but NUL */
	const char *options; /* whatever else decides what is packed; "" for defaults */
	uint64_t size, inode;
	int64_t mtime_ns;
	/*
	 * Where the image lies, absolute; NULL: where the image's own record says. Whoever
	 * may not be believed has it here: the image's record is everybody's.
	 */
	const char *image;
};
/* Fill in from what fstat(2) says of the archive. */
void thaw_catalogue_source_init(struct thaw_catalogue_source *source, const char *path,
				const char *options, const struct stat *st);
/* identity need not be in the catalogue yet. A path has one source for each options. */
_must_check_ int thaw_catalogue_put_source(struct thaw_catalogue *catalogue,
					   const struct thaw_catalogue_source *source,
					   const uint8_t identity[THAW_DIGEST_SIZE],
					   struct thaw_error *err);
/*
 * The image that exactly this source was packed into: 0, THAW_NOT_FOUND. Whether
 * the image's file is still there and is that image is for the caller to see. Of a source
 * with an image of its own, *ret_image has identity, name and path only.
 */
_must_check_ int thaw_catalogue_find_source(struct thaw_catalogue *catalogue,
					    const struct thaw_catalogue_source *source,
					    struct thaw_error *err,
					    struct thaw_catalogue_image *ret_image);
typedef int thaw_catalogue_source_fn(void *userdata,
				     const struct thaw_catalogue_source *source,
				     const uint8_t identity[THAW_DIGEST_SIZE]);
_must_check_ int thaw_catalogue_each_source(struct thaw_catalogue *catalogue,
					    thaw_catalogue_source_fn *fn, void *userdata,
					    struct thaw_error *err,
					    unsigned *ret_dropped);

/* -- learned traces, by the digest of an index and the name of a workload -- */

/* As struct thaw_trace_event, but by path: inode numbers differ between images. */
struct thaw_learned_entry {
	uint8_t kind;	   /* enum thaw_trace_kind */
	const char *path;  /* inside the image, without leading slash; not terminated */
	const char *name;  /* FOUND, MISSED: name in the directory path; not terminated */
	uint16_t path_len; /* at most THAW_PATH_MAX; 0 for the root */
	uint16_t name_len; /* at most THAW_NAME_MAX */
	uint32_t first, count; /* READ: pages */
};

struct thaw_learned {
	struct thaw_learned_entry *entries; /* their text lies in data */
	size_t count;
	void *data;
};
void thaw_learned_deinit(struct thaw_learned *learned);

/* workload: 1 to THAW_NAME_MAX bytes. Replaces what was there. */
_must_check_ int thaw_catalogue_put_trace(struct thaw_catalogue *catalogue,
					  const uint8_t index_digest[THAW_DIGEST_SIZE],
					  const char *workload,
					  const struct thaw_learned_entry *entries,
					  size_t count, struct thaw_error *err);
/* 0, THAW_NOT_FOUND. Every entry of a result is within the limits above. */
_must_check_ int thaw_catalogue_get_trace(struct thaw_catalogue *catalogue,
					  const uint8_t index_digest[THAW_DIGEST_SIZE],
					  const char *workload, struct thaw_error *err,
					  struct thaw_learned *ret_learned);
/* It was used at this time. Written only when that changes the day. THAW_NOT_FOUND is 0. */
_must_check_ int thaw_catalogue_touch_trace(struct thaw_catalogue *catalogue,
					    const uint8_t index_digest[THAW_DIGEST_SIZE],
					    const char *workload, int64_t now,
					    struct thaw_error *err);
/*
 * Remove those that were neither stored nor used since before; dry_run: only count them.
 * fn is called for each with the index's digest and its size; may be NULL.
 */
typedef void thaw_catalogue_old_trace_fn(void *userdata,
					 const uint8_t index_digest[THAW_DIGEST_SIZE],
					 size_t size);
_must_check_ int thaw_catalogue_remove_old_traces(struct thaw_catalogue *catalogue,
						  int64_t before, bool dry_run,
						  thaw_catalogue_old_trace_fn *fn,
						  void *userdata, struct thaw_error *err);
_must_check_ int thaw_catalogue_remove_trace(struct thaw_catalogue *catalogue,
					     const uint8_t index_digest[THAW_DIGEST_SIZE],
					     const char *workload,
					     struct thaw_error *err);
