/* SPDX-License-Identifier: Apache-2.0 */
/* A PEX as an input: the virtual environment that is in it. */
#include "pex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "wheel.h"

#define START "bin/__pex__" /* what runs the PEX's own entry point */

bool thaw_pex_recognise(const struct thaw_folder *all)
{
	const struct thaw_file *info = thaw_folder_find(all, "PEX-INFO");
	const struct thaw_file *start = thaw_folder_find(all, "__main__.py");

	return info && S_ISREG(info->mode) && start && S_ISREG(start->mode);
}

/* What a PEX has at its top beside its user's code. */
static bool is_own(const char *path)
{
	static const char *const names[] = {
		".bootstrap",  ".deps",	  ".last-access", "PEX-INFO", "PEX-LAYOUT",
		"__main__.py", "__pex__", "__pycache__",  "pex",
	};
	size_t len = strcspn(path, "/");

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == len && memcmp(path, names[i], len) == 0)
			return true;
	return false;
}

struct pex {
	struct thaw_gather *gather;
	struct thaw_folder all;
	struct thaw_pex_info info;
	struct thaw_folder *wheels; /* of info.distributions */
	bool *installed;
	struct thaw_wheel_target target;
	struct thaw_input_environment *environment; /* NULL: given away */
};

static void pex_deinit(struct pex *pex)
{
	if (pex->environment)
		thaw_environment_hints_deinit(&pex->environment->hints);
	free(pex->environment);
	thaw_gather_free(pex->gather);
	thaw_pex_info_deinit(&pex->info);
	free(pex->wheels);
	free(pex->installed);
}

static int read_info(struct pex *pex, struct thaw_error *err)
{
	const struct thaw_file *file = thaw_folder_find(&pex->all, "PEX-INFO");
	_cleanup_(freep) char *text = NULL;
	size_t len;
	int r = thaw_file_load(thaw_gather_reader(pex->gather), file, THAW_PEX_INFO_MAX,
			       err, &text, &len);

	return r < 0 ? r : thaw_pex_info_parse(text, len, err, &pex->info);
}

/* A distribution is a directory or a zip; and installed, or a wheel as it came. */
static int open_distribution(struct pex *pex, size_t number,
			     const struct thaw_folder *deps, struct thaw_error *err)
{
	const char *name = pex->info.distributions[number];
	const struct thaw_file *file = thaw_folder_find(deps, name);
	struct thaw_folder *wheel = &pex->wheels[number];
	struct thaw_wheel_name said;
	uint64_t minors;
	int r = 0;

	if (file && S_ISREG(file->mode))
		r = thaw_wheel_open(pex->gather, file, err, wheel);
	else
		*wheel = thaw_folder_below(deps, name);
	if (r < 0)
		return r;
	if (wheel->count == 0)
		return thaw_damaged(
			err, "PEX-INFO names \"%.200s\", which is not in .deps", name);
	pex->installed[number] = thaw_folder_find(wheel, THAW_WHEEL_LAYOUT) != NULL ||
				 !(file && S_ISREG(file->mode));
	r = thaw_wheel_name_parse(name, err, &said);
	if (r == 0)
		r = thaw_wheel_requires(pex->gather, wheel, name, err, &minors);
	if (r < 0)
		return r;
	return thaw_wheel_target_narrow(&pex->target, minors & said.minors, said.platform,
					name, err);
}

static int open_distributions(struct pex *pex, struct thaw_error *err)
{
	struct thaw_folder deps = thaw_folder_below(&pex->all, ".deps");
	size_t count = pex->info.distribution_count;
	int r;

	pex->wheels = calloc(count ? count : 1, sizeof(*pex->wheels));
	pex->installed = calloc(count ? count : 1, sizeof(*pex->installed));
	if (!pex->wheels || !pex->installed)
		return thaw_oom(err);
	thaw_wheel_target_init(&pex->target);
	r = thaw_wheel_target_narrow(&pex->target, pex->info.minors, "",
				     "interpreter_constraints", err);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = open_distribution(pex, i, &deps, err);
	return r;
}

/*
 * The Python of the line that starts it, "#!/usr/bin/env python3.11": what it was
 * built with, and would run with. 0 when it does not say.
 */
static int built_with(struct pex *pex, struct thaw_error *err, unsigned *ret_minor)
{
	const struct thaw_file *start = thaw_folder_find(&pex->all, "__main__.py");
	_cleanup_(freep) char *text = NULL;
	const char *found;
	size_t len;
	int r = thaw_file_load(thaw_gather_reader(pex->gather), start, THAW_PEX_INFO_MAX,
			       err, &text, &len);

	*ret_minor = 0;
	if (r < 0)
		return r;
	text[strcspn(text, "\n")] = '\0';
	found = strncmp(text, "#!", 2) == 0 ? strstr(text, "python3.") : NULL;
	if (found)
		*ret_minor = (unsigned)strtoul(found + strlen("python3."), NULL, 10);
	return 0;
}

static int add_code(struct pex *pex, const struct thaw_wheel_tree *tree,
		    struct thaw_error *err)
{
	int r = thaw_gather_origin(pex->gather, "the PEX's own code", err);

	for (size_t i = 0; r == 0 && i < pex->all.count; i++) {
		const struct thaw_file *file = &pex->all.files[i];
		_cleanup_(freep) char *to = NULL;
		mode_t mode = file->mode;

		if (S_ISDIR(mode) || strncmp(file->path, ".deps/", 6) == 0)
			continue;
		if (is_own(file->path)) { /* left out, but a damaged archive is a damaged one */
			r = thaw_file_check(thaw_gather_reader(pex->gather), file, err);
			continue;
		}
		if (asprintf(&to, "%s/%s", tree->library, file->path) < 0) {
			to = NULL;
			return thaw_oom(err);
		}
		if (S_ISREG(mode))
			mode = S_IFREG | ((mode & 0111) ? 0755 : 0644);
		r = thaw_gather_file(pex->gather, to, file, mode, NULL, err);
	}
	return r;
}

/* What starts it, in bin and where PEX itself has it in a virtual environment. */
static int add_start(struct pex *pex, struct thaw_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r = thaw_pex_start(&pex->info, err, &text);

	if (r < 0 || !text)
		return r;
	pex->environment->command = strrchr(START, '/') + 1;
	r = thaw_gather_origin(pex->gather, "thaw", err);
	if (r == 0)
		r = thaw_gather_bytes(pex->gather, START, text, strlen(text), 0755, err);
	if (r == 0)
		r = thaw_gather_bytes(pex->gather, "__main__.py", text, strlen(text),
				      0644, err);
	return r;
}

static int describe(struct pex *pex, unsigned minor, struct thaw_error *err)
{
	struct thaw_environment_hints *hints = &pex->environment->hints;

	hints->kind = THAW_KIND_PEX;
	hints->constraints = steal_ptr(pex->info.constraints);
	hints->entry_point = steal_ptr(pex->info.entry_point);
	hints->script = steal_ptr(pex->info.script);
	if (asprintf(&hints->python, "3.%u", minor) < 0) {
		hints->python = NULL;
		return thaw_oom(err);
	}
	return 0;
}

static int build(struct pex *pex, const struct thaw_input_options *options,
		 struct thaw_error *err)
{
	struct thaw_wheel_tree tree;
	unsigned minor = 0, built = 0;
	int r;

	r = read_info(pex, err);
	if (r == 0)
		r = open_distributions(pex, err);
	if (r == 0)
		r = built_with(pex, err, &built);
	if (r == 0)
		r = thaw_wheel_target_choose(&pex->target, options->python_minor, built,
					     err, &minor,
					     &pex->environment->python_guessed);
	if (r == 0)
		r = thaw_wheel_tree_init(&tree, pex->gather, minor,
					 pex->info.system_packages, err);
	for (size_t i = 0; r == 0 && i < pex->info.distribution_count; i++)
		r = thaw_wheel_add(&tree, &pex->wheels[i], pex->info.distributions[i],
				   pex->installed[i], err);
	if (r == 0)
		r = add_code(pex, &tree, err);
	if (r == 0)
		r = add_start(pex, err);
	if (r == 0)
		r = thaw_wheel_tree_activate(&tree, err);
	if (r == 0)
		r = thaw_gather_finish(pex->gather, true, err);
	return r < 0 ? r : describe(pex, minor, err);
}

int thaw_pex_input(struct thaw_folder_store *store,
		   const struct thaw_input_options *options, struct thaw_error *err,
		   struct thaw_input **ret_input)
{
	struct pex pex = { .all = thaw_folder_all(store) };
	int r = thaw_gather_new("pex", err, &pex.gather);

	if (r < 0) {
		thaw_folder_free(store);
		return r;
	}
	r = thaw_gather_keep(pex.gather, store, err);
	pex.environment = calloc(1, sizeof(*pex.environment));
	if (r == 0 && !pex.environment)
		r = thaw_oom(err);
	if (r == 0)
		r = build(&pex, options, err);
	if (r == 0)
		r = thaw_gather_input(steal_ptr(pex.gather), steal_ptr(pex.environment),
				      err, ret_input);
	pex_deinit(&pex);
	return r;
}
