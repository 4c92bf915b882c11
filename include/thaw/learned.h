/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Learned traces on their way: from a recorder to the catalogue, and from there to
 * the next mount. A keeper writes a file, the node service stores what is in it; the
 * service writes one, the next keeper reads it. Neither believes the other: a file
 * carries a checksum, and paths, pages and names are looked up in the image again.
 */
#include <stdint.h>

#include "thaw/catalogue.h"
#include "thaw/error.h"
#include "thaw/image.h"
#include "thaw/trace.h"
#include "thaw/warm.h"

/* The workload's name in the catalogue. */
#define THAW_LEARNED_WORKLOAD "learned"

/*
 * What trace names, by path. Events that make no sense in image are left out: the
 * recorder is not trusted. -ENOMEM.
 */
_must_check_ int thaw_learned_from_trace(const struct thaw_image *image,
					 const struct thaw_trace *trace,
					 struct thaw_error *err,
					 struct thaw_learned *ret_learned);

/* Write to an empty file. index_digest is the image's. -EFBIG, -ENOMEM, I/O errors. */
_must_check_ int thaw_learned_save(int fd, const uint8_t index_digest[THAW_DIGEST_SIZE],
				   const struct thaw_learned *learned,
				   struct thaw_error *err);
/* Read all of fd, from its beginning. -EBADMSG, -EFBIG, -ENOMEM, I/O errors. */
_must_check_ int thaw_learned_load(int fd, struct thaw_error *err,
				   uint8_t ret_index_digest[THAW_DIGEST_SIZE],
				   struct thaw_learned *ret_learned);

/*
 * A warm set without frames of its own: pages are read from the image's, verified,
 * each of which is decoded when its first page is due. So pages come in the order
 * of first touch as far as that leaves those of one frame together. At most 256 MiB;
 * what image does not have is left out. 0, THAW_NOT_FOUND (nothing is left), -EFBIG,
 * -ENOMEM.
 */
_must_check_ int thaw_warm_from_learned(const struct thaw_image *image,
					const struct thaw_learned *learned,
					struct thaw_error *err,
					struct thaw_warm **ret_warm);
