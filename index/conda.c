/* SPDX-License-Identifier: Apache-2.0 */
/* The sites of a conda environment, from a pack's records or a prefix's. */
#include "conda.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define SCRIPTS_LOOKED_AT 4096u
#define CANDIDATES	  8u

struct analysis {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_relocations *relocations;
	struct thaw_error *err;
	struct thaw_conda_wants wants;
	struct thaw_conda_report report;
};

/* -- packs -- */

static int note_record(void *userdata, const struct thaw_conda_record *record,
		       struct thaw_error *err)
{
	struct analysis *analysis = userdata;
	char path[THAW_PATH_MAX + 1];
	struct thaw_inode inode;

	memcpy(path, record->path, record->path_len);
	path[record->path_len] = '\0';
	analysis->report.records++;
	if (thaw_image_find(analysis->image, path, &inode) != 0 ||
	    inode.type != THAW_REGULAR) {
		analysis->report.missing++;
		return 0;
	}
	return thaw_conda_want(
		&analysis->wants, inode.ino, record->placeholder, record->placeholder_len,
		record->binary ? THAW_CONDA_BINARY : THAW_CONDA_TEXT, 0, err);
}

static int search(struct analysis *analysis)
{
	size_t before = thaw_relocations_count(analysis->relocations);
	int r = thaw_conda_search(analysis->image, analysis->reader, &analysis->wants,
				  analysis->relocations, analysis->err,
				  &analysis->report.files);

	if (r == 0)
		analysis->report.sites = thaw_relocations_count(analysis->relocations) -
					 before;
	thaw_conda_wants_deinit(&analysis->wants);
	return r;
}

static int analyse_pack(struct analysis *analysis, const struct thaw_inode *script)
{
	_cleanup_(freep) char *text = NULL;
	struct thaw_conda_list list;
	size_t size;
	int r;

	r = thaw_conda_read(analysis->image, analysis->reader, script,
			    THAW_CONDA_SCRIPT_MAX, analysis->err, &text, &size);
	if (r == 0)
		r = thaw_conda_records(text, size, note_record, analysis, analysis->err,
				       &list);
	if (r == 0)
		analysis->report.kind = THAW_CONDA_PACK;
	return r < 0 ? r : search(analysis);
}

/* -- live prefixes -- */

struct candidate {
	char prefix[THAW_PATH_MAX + 1];
	unsigned scripts;
};

/* Prefixes of systems, whose paths say nothing about where an environment was. */
static bool is_system(const char *prefix, size_t len)
{
	static const char *const systems[] = { "", "/usr", "/usr/local" };

	for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
		if (strlen(systems[i]) == len && memcmp(prefix, systems[i], len) == 0)
			return true;
	return false;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/*
 * "#!PREFIX/bin/NAME", where bin/ has a NAME: the length of PREFIX, or 0. PREFIX may
 * have blanks in it (no kernel runs such a script, but conda-pack writes it).
 */
static size_t prefix_of_script(const struct thaw_image *image,
			       const struct thaw_inode *bin, const char *text, size_t len,
			       const char **ret_prefix)
{
	const char *end = memchr(text, '\n', len), *path = text + 2;
	struct thaw_inode inode;

	if (len < 2 || memcmp(text, "#!", 2) != 0 || !end)
		return 0;
	while (path < end && *path == ' ')
		path++;
	if (*path != '/')
		return 0;
	for (const char *name = path; name < end; name++) {
		const char *behind;
		size_t prefix = (size_t)(name - path);

		if ((size_t)(end - name) < 5 || memcmp(name, "/bin/", 5) != 0)
			continue;
		for (behind = name + 5; behind < end && !is_blank(*behind);)
			behind++;
		/* A system's, also in "/usr/bin/env /opt/x/bin/python". */
		if (is_system(path, prefix))
			return 0;
		if (thaw_image_lookup(image, bin->ino, name + 5,
				      (size_t)(behind - name - 5), &inode) != 0)
			continue;
		*ret_prefix = path;
		return prefix;
	}
	return 0;
}

static void vote(struct candidate *candidates, const char *prefix, size_t len)
{
	for (unsigned i = 0; i < CANDIDATES; i++) {
		struct candidate *candidate = &candidates[i];

		if (candidate->scripts == 0) {
			memcpy(candidate->prefix, prefix, len);
			candidate->prefix[len] = '\0';
		} else if (strlen(candidate->prefix) != len ||
			   memcmp(candidate->prefix, prefix, len) != 0) {
			continue;
		}
		candidate->scripts++;
		return;
	}
}

/* The prefix that most scripts in bin/ name; empty when none does. */
static int prefix_of_scripts(struct analysis *analysis, char prefix[THAW_PATH_MAX + 1])
{
	_cleanup_(freep) struct candidate *candidates = calloc(CANDIDATES,
							       sizeof(*candidates));
	const struct candidate *best = candidates;
	char line[THAW_PATH_MAX];
	struct thaw_inode bin, inode;
	struct thaw_name name;

	if (!candidates)
		return thaw_oom(analysis->err);
	if (thaw_image_find(analysis->image, "bin", &bin) != 0 ||
	    bin.type != THAW_DIRECTORY)
		bin.size = 0;
	for (uint64_t i = 0; i < bin.size && i < SCRIPTS_LOOKED_AT; i++) {
		const char *found;
		size_t len = 0;
		int r;

		thaw_image_child(analysis->image, &bin, i, &name, &inode);
		if (inode.type != THAW_REGULAR)
			continue;
		r = thaw_reader_read(analysis->reader, &inode, 0, line, sizeof(line),
				     analysis->err, &len);
		if (r < 0)
			return r;
		len = prefix_of_script(analysis->image, &bin, line, len, &found);
		if (len >= THAW_PLACEHOLDER_MIN)
			vote(candidates, found, len);
	}
	for (unsigned i = 1; i < CANDIDATES; i++)
		if (candidates[i].scripts > best->scripts)
			best = &candidates[i];
	memcpy(prefix, best->prefix, sizeof(best->prefix));
	return 0;
}

static int try_prefix(struct analysis *analysis, const char *prefix)
{
	size_t len = strlen(prefix);
	int r;

	if (len < THAW_PLACEHOLDER_MIN || len > THAW_PATH_MAX)
		return 0;
	analysis->wants.shebangs = true;
	r = thaw_conda_meta(analysis->image, analysis->reader, prefix, &analysis->wants,
			    analysis->err, &analysis->report.records,
			    &analysis->report.missing);
	if (r == 0)
		r = search(analysis);
	if (r == 0 && analysis->report.sites > 0)
		memcpy(analysis->report.prefix, prefix, len + 1);
	return r;
}

static int analyse_prefix(struct analysis *analysis,
			  const struct thaw_conda_options *options)
{
	char prefix[THAW_PATH_MAX + 1];
	int r = 0;

	analysis->report.kind = THAW_CONDA_PREFIX;
	for (size_t i = 0; i < options->prefix_count; i++) {
		r = try_prefix(analysis, options->prefixes[i]);
		if (r < 0 || analysis->report.sites > 0)
			return r;
	}
	r = prefix_of_scripts(analysis, prefix);
	return r < 0 ? r : try_prefix(analysis, prefix);
}

int thaw_conda_relocations(const struct thaw_image *image, struct thaw_reader *reader,
			   struct thaw_relocations *relocations,
			   const struct thaw_conda_options *options,
			   struct thaw_error *err, struct thaw_conda_report *ret_report)
{
	struct analysis analysis = {
		.image = image,
		.reader = reader,
		.relocations = relocations,
		.err = err,
	};
	struct thaw_inode script;
	bool meta = thaw_conda_meta_exists(image);
	int r = 0;

	if (thaw_image_find(image, "bin/conda-unpack", &script) == 0 &&
	    script.type == THAW_REGULAR)
		r = analyse_pack(&analysis, &script);
	/* No records, or none that are true any more: it was unpacked before. */
	if (r == 0 && meta && analysis.report.sites == 0) {
		struct thaw_conda_report pack = analysis.report;

		r = analyse_prefix(&analysis, options);
		if (r == 0 && analysis.report.sites == 0 && pack.kind == THAW_CONDA_PACK)
			analysis.report = pack;
	}
	thaw_conda_wants_deinit(&analysis.wants);
	if (r == 0 && analysis.report.kind != THAW_CONDA_NONE)
		r = thaw_editable_installs(image, reader, options->warn,
					   options->warn_data, err,
					   &analysis.report.editable);
	if (r == 0)
		*ret_report = analysis.report;
	return r;
}
