/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Paths as text: no file is looked at. */
#include <stdbool.h>
#include <string.h>

/* "..", alone or between slashes. */
static inline bool thaw_leads_up(const char *path)
{
	for (const char *part = path; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return true;
	}
	return false;
}

/* Whether path begins with directory, which has no slash at its end, and goes on below it. */
static inline bool thaw_is_below(const char *path, const char *directory)
{
	size_t len = strlen(directory);

	return strncmp(path, directory, len) == 0 && path[len] == '/';
}
