/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record list of a conda-unpack, and what it makes of a file.
 *
 * Input: a script. Whatever it is, each record must be one that can be acted
 * upon, and the list must lie in the script.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conda.h"

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

struct counted {
	size_t records;
};

static int note(void *userdata, const struct thaw_conda_record *record,
		struct thaw_error *err)
{
	struct counted *counted = userdata;

	(void)err;
	counted->records++;
	REQUIRE(record->path_len > 0 && record->path_len <= THAW_PATH_MAX);
	REQUIRE(record->path[0] != '/' && record->path[record->path_len - 1] != '/');
	REQUIRE(!memmem(record->path, record->path_len, "/../", 4));
	REQUIRE(!memmem(record->path, record->path_len, "//", 2));
	REQUIRE(!memchr(record->path, '\0', record->path_len));
	REQUIRE(!memchr(record->placeholder, '\0', record->placeholder_len));
	REQUIRE(record->placeholder_len >= THAW_PLACEHOLDER_MIN &&
		record->placeholder_len <= THAW_PATH_MAX);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct counted counted = { 0 };
	struct thaw_conda_list list;
	struct thaw_error err = { 0 };
	/* Without anything behind it: a read beyond the end is seen. */
	char *script = malloc(size ? size : 1);
	int r;

	REQUIRE(script);
	if (size)
		memcpy(script, data, size);
	r = thaw_conda_records(script, size, note, &counted, &err, &list);
	if (r == 0) {
		REQUIRE(list.records == counted.records);
		REQUIRE(list.start <= list.end && list.end < size);
		REQUIRE(script[list.start - 1] == '[' && script[list.end] == ']');
		REQUIRE(memmem(script, list.start, "_prefix_records", 15));
	} else {
		REQUIRE(r == -EPERM && err.exit_code == THAW_EXIT_REFUSED && err.text[0]);
	}
	free(script);
	return 0;
}
