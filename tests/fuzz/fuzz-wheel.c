/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as the texts of wheels and PEX files; the first one says which: RECORD,
 * entry_points.txt, PEX-INFO, the name of a wheel, a constraint, METADATA.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "pex.h"
#include "wheel.h"

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_error(int r, const struct thaw_error *err)
{
	require(r == 0 || (err->text[0] != '\0' && err->exit_code >= THAW_EXIT_REFUSED));
}

/* What generated scripts are made of: it must not be able to end a line, or a string. */
static void check_name(const char *name)
{
	require(thaw_is_dotted_name(name));
	require(!strpbrk(name, "\n\r\"'\\ ;()"));
}

static void record(char *text, size_t len)
{
	struct thaw_record rows;
	struct thaw_error err = { 0 };
	int r = thaw_record_parse(text, len, &err, &rows);

	check_error(r, &err);
	if (r < 0)
		return;
	for (size_t i = 0; i < rows.count; i++)
		require(thaw_record_find(&rows, rows.rows[i].path) != NULL);
	thaw_record_deinit(&rows);
}

static void scripts(const char *text, size_t len)
{
	struct thaw_scripts found;
	struct thaw_error err = { 0 };
	int r = thaw_scripts_parse(text, len, &err, &found);

	check_error(r, &err);
	if (r < 0)
		return;
	for (size_t i = 0; i < found.count; i++) {
		require(!strchr(found.scripts[i].name, '/'));
		check_name(found.scripts[i].module);
		check_name(found.scripts[i].object);
	}
	thaw_scripts_deinit(&found);
}

static void pex_info(const char *text, size_t len)
{
	struct thaw_pex_info info;
	struct thaw_error err = { 0 };
	char *start = NULL;
	int r = thaw_pex_info_parse(text, len, &err, &info);

	check_error(r, &err);
	if (r < 0)
		return;
	require(thaw_pex_start(&info, &err, &start) == 0);
	require(!start == (!info.entry_point && !info.script));
	free(start);
	thaw_pex_info_deinit(&info);
}

static void name(const char *text)
{
	struct thaw_wheel_name found;
	struct thaw_error err = { 0 };
	int r = thaw_wheel_name_parse(text, &err, &found);

	check_error(r, &err);
	if (r < 0)
		return;
	require(found.minors != 0);
	require(memchr(found.project, '\0', sizeof(found.project)) != NULL);
	require(memchr(found.platform, '\0', sizeof(found.platform)) != NULL);
	require(thaw_same_project(found.project, found.project));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t minors;
	const char *value;
	char *text;
	size_t len;

	if (size == 0)
		return 0;
	len = size - 1;
	text = malloc(len + 1);
	require(text != NULL);
	memcpy(text, data + 1, len);
	text[len] = '\0';
	switch (data[0] % 6) {
	case 0:
		record(text, len); /* takes it */
		return 0;
	case 1:
		scripts(text, len);
		break;
	case 2:
		pex_info(text, len);
		break;
	case 3:
		name(text);
		break;
	case 4:
		(void)!thaw_python_constraint(text, len,
					      &minors); /* either answer will do */
		/* What holds for every patch level holds for one. */
		require(!thaw_python_allowed(text, "3.11") ||
			thaw_python_allowed(text, "3.11.99"));
		break;
	default:
		value = thaw_metadata_find(text, len, "Requires-Python", &size);
		require(!value || (value >= text && value + size <= text + len));
	}
	free(text);
	return 0;
}
