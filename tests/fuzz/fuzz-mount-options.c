/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as mount options: what passes must never contain what is refused. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "mount-options.h"

#define IDENTITY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *given = malloc(size + 1), *options = NULL, *save = NULL;
	struct thaw_error err = { 0 };

	if (!given)
		abort();
	memcpy(given, data, size);
	given[size] = '\0';
	if (thaw_mount_options_parse(given, IDENTITY, &err, &options) == 0) {
		if (strncmp(options, "ro,nosuid,nodev,", 16) != 0)
			abort();
		for (char *option = strtok_r(options, ",", &save); option;
		     option = strtok_r(NULL, ",", &save))
			if (!strcmp(option, "rw") || !strcmp(option, "suid") || !strcmp(option, "dev"))
				abort();
	} else if (err.text[0] == '\0') {
		abort();
	}
	free(options);
	free(given);
	return 0;
}
