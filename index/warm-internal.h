/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What making warm sets and reading them share. */
#include "thaw/learned.h"

/*
 * The head of a set of what learned names in image: operations and the sizes of
 * frames, which have no bytes of their own. malloc'ed. -EFBIG, -ENOMEM.
 */
_must_check_ int thaw_warm_plan(const struct thaw_image *image,
				const struct thaw_learned *learned,
				struct thaw_error *err, uint8_t **ret_head,
				size_t *ret_size);
