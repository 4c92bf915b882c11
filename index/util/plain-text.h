/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Text of somebody else's that is shown, or written into a file of lines. */
#include <stdbool.h>
#include <string.h>

#include "thaw/format.h"

/* Nothing that ends a line or that terminals act on. */
static inline bool is_plain_text(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 32 || *text == 127)
			return false;
	return true;
}

static inline bool is_plain_path(const char *path)
{
	return path[0] == '/' && strlen(path) <= THAW_PATH_MAX && is_plain_text(path);
}
