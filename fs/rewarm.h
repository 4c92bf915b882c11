/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Warming an image that is mounted already: what its warm sets name is listed, looked
 * up and read through the mount, as whoever uses it would. Slower than the warmer,
 * which pushes pages before anybody asks; but it needs no rights over the mount.
 */
#include <stdint.h>

#include "thaw/error.h"

/*
 * directory: where the image is mounted. warm: as for thaw_mount_options. The pages
 * asked for are added to *pages; an image without a warm set adds none.
 */
_must_check_ int thaw_rewarm(const char *directory, const char *warm,
			     struct thaw_error *err, uint64_t *pages);
