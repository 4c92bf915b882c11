/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Growing arrays and buffers from malloc(). */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 * Make *array hold at least `needed` elements of `size` bytes, doubling, so that
 * n appends cost O(n). *capacity is in elements. -ENOMEM leaves all as it was.
 */
static inline int grow(void *array, size_t *capacity, size_t needed, size_t size)
{
	void **p = array, *q;
	size_t n = *capacity ? *capacity : 16;

	if (needed <= *capacity)
		return 0;
	while (n < needed) {
		if (n > SIZE_MAX / 2 / size)
			return -ENOMEM;
		n *= 2;
	}
	q = realloc(*p, n * size);
	if (!q)
		return -ENOMEM;
	*p = q;
	*capacity = n;
	return 0;
}

/* Make *buf hold size bytes; what it held is lost. -ENOMEM leaves it empty. */
static inline int make_room(uint8_t **buf, size_t *capacity, size_t size)
{
	if (size <= *capacity)
		return 0;
	free(*buf);
	*capacity = 0;
	*buf = malloc(size);
	if (!*buf)
		return -ENOMEM;
	*capacity = size;
	return 0;
}
