/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 by libcrypto; its result codes end here.
 *
 * By the functions that are called deprecated since OpenSSL 3, and are the same code:
 * through EVP a static executable carries every algorithm that there is, half of its
 * seven megabytes, and every stub ships it.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "digest.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>

#include "thaw/image.h"

struct thaw_digest {
	SHA256_CTX context;
};

int thaw_digest_new(struct thaw_digest **ret_digest)
{
	struct thaw_digest *digest = calloc(1, sizeof(*digest));

	if (!digest)
		return -ENOMEM;
	*ret_digest = digest;
	return 0;
}

struct thaw_digest *thaw_digest_free(struct thaw_digest *digest)
{
	free(digest);
	return NULL;
}

int thaw_digest_start(struct thaw_digest *digest)
{
	return SHA256_Init(&digest->context) == 1 ? 0 : -ENOMEM;
}

int thaw_digest_add(struct thaw_digest *digest, const void *data, size_t len)
{
	return SHA256_Update(&digest->context, data, len) == 1 ? 0 : -ENOMEM;
}

int thaw_digest_end(struct thaw_digest *digest, uint8_t ret_sum[32])
{
	return SHA256_Final(ret_sum, &digest->context) == 1 ? 0 : -ENOMEM;
}

int thaw_digest_of(struct thaw_digest *digest, const void *data, size_t len, uint8_t ret_sum[32])
{
	int r = thaw_digest_start(digest);

	if (r == 0)
		r = thaw_digest_add(digest, data, len);
	if (r == 0)
		r = thaw_digest_end(digest, ret_sum);
	return r;
}

int thaw_digest_once(const void *data, size_t len, uint8_t ret_sum[32])
{
	struct thaw_digest *digest = NULL;
	int r = thaw_digest_new(&digest);

	if (r == 0)
		r = thaw_digest_of(digest, data, len, ret_sum);
	thaw_digest_free(digest);
	return r;
}

void thaw_digest_hex(const uint8_t digest[THAW_DIGEST_SIZE], char ret_hex[THAW_DIGEST_HEX])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < THAW_DIGEST_SIZE; i++) {
		ret_hex[2 * i] = digits[digest[i] >> 4];
		ret_hex[2 * i + 1] = digits[digest[i] & 15];
	}
	ret_hex[2 * THAW_DIGEST_SIZE] = '\0';
}
