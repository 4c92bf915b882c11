/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Writing the canonical tar: what sources that are no tar themselves become.
 * Owner root, times in whole seconds, no extended headers; the same members in
 * the same order give the same bytes. Whoever writes hands members over sorted:
 * thaw_canonical_compare() is the order of a walk, children by name.
 *
 * Bytes gather in a buffer, from which thaw_canonical_take() hands them out.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "thaw/error.h"

struct thaw_canonical;

struct thaw_canonical_member {
	const char *path;   /* without a leading slash; "." for the root */
	mode_t mode;	    /* S_IFREG, S_IFDIR or S_IFLNK, and the permission bits */
	int64_t mtime;	    /* seconds */
	uint64_t size;	    /* regular files: bytes that thaw_canonical_data() will get */
	const char *target; /* symlinks */
	const char
		*hardlink; /* an earlier member's path, for a further name of its file */
};

_must_check_ int thaw_canonical_new(struct thaw_error *err,
				    struct thaw_canonical **ret_tar);
struct thaw_canonical *thaw_canonical_free(struct thaw_canonical *tar);
static inline void thaw_canonical_freep(struct thaw_canonical **tar)
{
	thaw_canonical_free(*tar);
}

/* Errors: -EPERM for what a tar cannot hold, -ENOMEM. */
_must_check_ int thaw_canonical_member(struct thaw_canonical *tar,
				       const struct thaw_canonical_member *member,
				       struct thaw_error *err);
/* The next bytes of the last member; path is for messages. */
_must_check_ int thaw_canonical_data(struct thaw_canonical *tar, const char *path,
				     const void *data, size_t len,
				     struct thaw_error *err);
/* The two blocks that end an archive. */
_must_check_ int thaw_canonical_end(struct thaw_canonical *tar, struct thaw_error *err);

/* What has gathered, valid until the next call of anything here; it is then forgotten. */
size_t thaw_canonical_take(struct thaw_canonical *tar, const uint8_t **ret_data);

/* The order of members: a directory before what is in it, siblings by name as bytes. */
int thaw_canonical_compare(const char *a, const char *b);
