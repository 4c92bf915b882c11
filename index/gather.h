/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A canonical tar from files that come from several places: first everything is
 * said that will be in it, then it is an input. Two files at one path must have
 * the same bytes.
 */
#include <stdbool.h>
#include <stdint.h>

#include "folder.h"
#include "pack-internal.h"

#define THAW_GATHER_TIME 315532800 /* of what thaw makes itself: 1980, as packers write */

struct thaw_gather;

_must_check_ int thaw_gather_new(const char *kind, struct thaw_error *err,
				 struct thaw_gather **ret_gather);
struct thaw_gather *thaw_gather_free(struct thaw_gather *gather);
static inline void thaw_gather_freep(struct thaw_gather **gather)
{
	thaw_gather_free(*gather);
}
/* Files of a store may be added until the gather is freed; takes store in any case. */
_must_check_ int thaw_gather_keep(struct thaw_gather *gather,
				  struct thaw_folder_store *store,
				  struct thaw_error *err);
/* Reads files while all is being said. */
struct thaw_file_reader *thaw_gather_reader(struct thaw_gather *gather);

/*
 * What comes from now on is this one's (a wheel's): for messages. The number
 * tells two apart. Copied.
 */
_must_check_ int thaw_gather_origin(struct thaw_gather *gather, const char *name,
				    struct thaw_error *err);

/* What a wheel's RECORD says of a file, to be compared when it is read. */
struct thaw_gather_proof {
	bool has_size, has_sha256;
	uint64_t size;
	uint8_t sha256[32];
};

/*
 * Add one. Paths are copied; mode is what the tar will hold. -EPERM for a path
 * that an environment cannot have (absolute, "..", too long).
 */
_must_check_ int thaw_gather_file(struct thaw_gather *gather, const char *path,
				  const struct thaw_file *file, mode_t mode,
				  const struct thaw_gather_proof *proof, /* may be NULL */
				  struct thaw_error *err);
_must_check_ int thaw_gather_bytes(struct thaw_gather *gather, const char *path,
				   const void *data, size_t len, mode_t mode,
				   struct thaw_error *err);
_must_check_ int thaw_gather_link(struct thaw_gather *gather, const char *path,
				  const char *target, struct thaw_error *err);
/* Has the current origin added something at this path? */
bool thaw_gather_has_own(const struct thaw_gather *gather, const char *path);
/* Has any? Looks at all that was added. */
bool thaw_gather_has(const struct thaw_gather *gather, const char *path);

/*
 * Sort, and compare what stands at one path. With directories, those that are
 * only implied are made. Errors: -EPERM (different files at one path; the text
 * names both origins), those of reading.
 */
_must_check_ int thaw_gather_finish(struct thaw_gather *gather, bool directories,
				    struct thaw_error *err);
/* Say in front of a failure's text in which of several zips it is; returns r. */
int thaw_gather_failure(const char *where, int r, struct thaw_error *err);

/*
 * As an input; takes gather, which must be finished. environment may be NULL; it
 * is taken too, and its hints' strings with it.
 */
_must_check_ int thaw_gather_input(struct thaw_gather *gather,
				   struct thaw_input_environment *environment,
				   struct thaw_error *err, struct thaw_input **ret_input);
