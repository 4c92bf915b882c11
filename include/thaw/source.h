/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A source: bytes at offsets, from wherever an image lies.
 *
 * The reader never maps an image: a file that is cut short under it must be an
 * error, not a SIGBUS. Sources are immutable after creation and may be read
 * from any number of threads at once.
 */
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"

struct thaw_source {
	uint64_t size; /* bytes, as of creation */
	/*
	 * Read exactly len bytes at offset into buf, or fail: -EIO when the source
	 * ends early or the medium fails, other negative errno otherwise.
	 */
	int (*read)(struct thaw_source *source, uint64_t offset, void *buf, size_t len);
	void (*free)(struct thaw_source *source);
	int fd; /* of a file, for copy_file_range(2); -1 otherwise */
};

/* Open a regular file (or block device) for reading; symbolic links are followed. */
_must_check_ int thaw_source_open(const char *path, struct thaw_error *err,
				  struct thaw_source **ret_source);
/* The same for a descriptor, which is duplicated: the caller keeps its own. */
_must_check_ int thaw_source_from_fd(int fd, struct thaw_error *err,
				     struct thaw_source **ret_source);
/* Bytes in memory, borrowed: they must outlive the source. For tests and fuzzing. */
_must_check_ int thaw_source_from_memory(const void *data, size_t size,
					 struct thaw_source **ret_source);
/* NULL is allowed. Returns NULL. */
struct thaw_source *thaw_source_free(struct thaw_source *source);
