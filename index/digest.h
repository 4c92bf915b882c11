/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * SHA-256 (libcrypto). Setting a context up costs more than hashing a small
 * frame, so each thread keeps one.
 */
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"

struct thaw_digest; /* one running SHA-256; used by one thread at a time */

_must_check_ int thaw_digest_new(struct thaw_digest **ret_digest); /* -ENOMEM */
struct thaw_digest *thaw_digest_free(struct thaw_digest *digest);
/* Begin anew. -ENOMEM when libcrypto fails, here and below. */
_must_check_ int thaw_digest_start(struct thaw_digest *digest);
_must_check_ int thaw_digest_add(struct thaw_digest *digest, const void *data, size_t len);
_must_check_ int thaw_digest_end(struct thaw_digest *digest, uint8_t ret_sum[32]);
/* start, add, end */
_must_check_ int thaw_digest_of(struct thaw_digest *digest, const void *data, size_t len,
				uint8_t ret_sum[32]);
/* The same with a context made for the purpose. */
_must_check_ int thaw_digest_once(const void *data, size_t len, uint8_t ret_sum[32]);
