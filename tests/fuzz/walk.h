/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Everything that can be asked of an image, with bounded work. */
#include "support.h"

/* Open and use an image; an image that does not open is no failure. */
void walk_image(const struct buffer *bytes);
