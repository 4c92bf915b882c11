/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the service's jobs want of an image that somebody has handed them, done by confined
 * processes: they have root's rights, and do not look into it.
 */
#include "decoder.h"
#include "thaw/layer.h"

/* An image in a job. */
struct service_image {
	int fd;	      /* of its file; borrowed */
	int index_fd; /* see thaw_decode(); borrowed; -1: not decoded yet */
	uint64_t index_size;
	uint8_t identity[THAW_DIGEST_SIZE];
	uint8_t index_digest[THAW_DIGEST_SIZE];
};

/* Decode it; *ret_fd is to be closed. Errors as of thaw_decode(). */
_must_check_ int service_decode(const struct service_image *image, struct thaw_error *err,
				int *ret_fd, struct thaw_facts *ret_facts);
/*
 * The interpreter that its views use, one that everybody may run, or NULL when it needs
 * none: as thaw_binding_find(). A process looks for it that may do what everybody may.
 */
_must_check_ int service_find_interpreter(const struct thaw_facts *facts,
					  struct thaw_error *err, char **ret_interpreter);
/* As thaw_layer_render(), of a decoded image. */
_must_check_ int service_render(const struct service_image *image,
				const struct thaw_layer_options *options,
				struct thaw_error *err, char **ret_directory);
