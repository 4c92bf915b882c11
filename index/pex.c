/* SPDX-License-Identifier: Apache-2.0 */
/* A PEX as an input: the virtual environment that is in it. */
#include "pex.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "thaw/format.h"
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

/* A PEX for several Pythons or platforms has several of one project: one is taken. */
struct distribution {
	struct thaw_folder wheel;
	struct thaw_wheel_name said;
	uint64_t minors; /* 0: for another kind of Python, or of system */
	bool installed, left_out;
};

struct pex {
	struct thaw_gather *gather;
	struct thaw_folder all;
	struct thaw_pex_info info;
	struct distribution *distributions; /* of info.distributions */
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
	free(pex->distributions);
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

/* How many distributions of its project there are, and the number of the first. */
static size_t count_alternatives(const struct pex *pex, size_t number, size_t *ret_first)
{
	size_t count = 0;

	*ret_first = number;
	for (size_t i = pex->info.distribution_count; i-- > 0;)
		if (thaw_wheels_of_one_project(pex->info.distributions[i],
					       pex->info.distributions[number])) {
			*ret_first = i;
			count++;
		}
	return count;
}

/* A distribution is a directory or a zip; and installed, or a wheel as it came. */
static int open_distribution(struct pex *pex, size_t number,
			     const struct thaw_folder *deps, struct thaw_error *err)
{
	const char *name = pex->info.distributions[number];
	const struct thaw_file *file = thaw_folder_find(deps, name);
	struct distribution *found = &pex->distributions[number];
	uint64_t minors;
	size_t first;
	int r = 0;

	if (file && S_ISREG(file->mode))
		r = thaw_wheel_open(pex->gather, file, err, &found->wheel);
	else
		found->wheel = thaw_folder_below(deps, name);
	if (r < 0)
		return r;
	if (found->wheel.count == 0)
		return thaw_damaged(
			err, "PEX-INFO names \"%.200s\", which is not in .deps", name);
	found->installed = thaw_folder_find(&found->wheel, THAW_WHEEL_LAYOUT) != NULL ||
			   !(file && S_ISREG(file->mode));
	r = thaw_wheel_name_parse(name, err, &found->said);
	if (r == -EPERM && count_alternatives(pex, number, &first) > 1)
		return 0; /* another one of the project may be for us */
	if (r == 0)
		r = thaw_wheel_requires(pex->gather, &found->wheel, name, err, &minors);
	if (r == 0)
		found->minors = minors & found->said.minors;
	return r;
}

/* What the distributions leave of Pythons; of several of one project, any will do. */
static int narrow(struct pex *pex, struct thaw_error *err)
{
	int r = thaw_wheel_target_narrow(&pex->target, pex->info.minors, "",
					 "interpreter_constraints", err);

	for (size_t i = 0; r == 0 && i < pex->info.distribution_count; i++) {
		const char *name = pex->info.distributions[i];
		size_t first, count = count_alternatives(pex, i, &first);
		uint64_t minors = pex->distributions[i].minors;

		for (size_t j = i + 1; count > 1 && j < pex->info.distribution_count; j++)
			if (thaw_wheels_of_one_project(name, pex->info.distributions[j]))
				minors |= pex->distributions[j].minors;
		if (first == i)
			r = thaw_wheel_target_narrow(
				&pex->target, minors,
				count > 1 ? "" : pex->distributions[i].said.platform,
				name, err);
	}
	return r;
}

/* Its platform, and how closely it was made for it; less is worse, 0 is nothing. */
static int fitness(const struct pex *pex, const struct distribution *found,
		   unsigned minor, const char *machine)
{
	const char *platform = found->said.platform, *of = strchr(platform, '_');
	const char *wanted = strchr(pex->target.platform, '_');

	if (!((found->minors >> minor) & 1))
		return 0;
	if (!of)
		return 1;
	if (strcmp(of + 1, wanted ? wanted + 1 : machine) != 0)
		return 0;
	if (wanted && strcmp(pex->target.platform, platform) != 0 &&
	    strncmp(platform, "linux_", 6) != 0)
		return 2; /* for another C library: refused unless there is a better one */
	return 200 - 2 * __builtin_popcountll(found->minors) +
	       (strncmp(platform, "many", 4) == 0);
}

/* Of several of one project, that for this Python; and where there is a choice, this machine. */
static int choose(struct pex *pex, unsigned minor, struct thaw_error *err)
{
	struct utsname system;
	int r = 0;

	if (uname(&system) < 0)
		return thaw_io(err, -errno, "the kind of this machine is not known");
	for (size_t i = 0; r == 0 && i < pex->info.distribution_count; i++) {
		size_t first, best = i;
		int most = 0;

		if (count_alternatives(pex, i, &first) == 1 || first != i)
			continue;
		for (size_t j = i; j < pex->info.distribution_count; j++) {
			struct distribution *found = &pex->distributions[j];
			int fit;

			if (!thaw_wheels_of_one_project(pex->info.distributions[i],
							pex->info.distributions[j]))
				continue;
			found->left_out = true;
			fit = fitness(pex, found, minor, system.machine);
			if (fit == most && fit > 0 &&
			    strcmp(found->said.version,
				   pex->distributions[best].said.version) != 0)
				return thaw_refused(err, "%.200s and %.200s both fit",
						    pex->info.distributions[best],
						    pex->info.distributions[j]);
			if (fit > most) {
				most = fit;
				best = j;
			}
		}
		if (most == 0)
			return thaw_refused(
				err,
				"%.200s: none of this project is for Python 3.%u on %.60s",
				pex->info.distributions[i], minor, system.machine);
		pex->distributions[best].left_out = false;
		r = thaw_wheel_target_narrow(&pex->target,
					     pex->distributions[best].minors,
					     pex->distributions[best].said.platform,
					     pex->info.distributions[best], err);
	}
	return r;
}

static int open_distributions(struct pex *pex, struct thaw_error *err)
{
	struct thaw_folder deps = thaw_folder_below(&pex->all, ".deps");
	size_t count = pex->info.distribution_count;
	int r = 0;

	pex->distributions = calloc(count ? count : 1, sizeof(*pex->distributions));
	if (!pex->distributions)
		return thaw_oom(err);
	thaw_wheel_target_init(&pex->target);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = open_distribution(pex, i, &deps, err);
	return r < 0 ? r : narrow(pex, err);
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

/* Each of its constraints, "A or B", and what the wheels require: "A,C or B,C". */
static int require(struct pex *pex, const char *clauses, struct thaw_error *err)
{
	const char *text = pex->info.constraints ? pex->info.constraints : "";
	char *joined = NULL;
	size_t size;
	FILE *file = open_memstream(&joined, &size);
	bool failed;

	if (!file)
		return thaw_oom(err);
	for (const char *next; text; text = next) {
		size_t len;

		next = strstr(text, " or ");
		len = next ? (size_t)(next - text) : strlen(text);
		(void)fprintf(file, "%.*s%s%s%s", (int)len, text, len ? "," : "", clauses,
			      next ? " or " : "");
		next = next ? next + strlen(" or ") : NULL;
	}
	failed = ferror(file);
	if (fclose(file) != 0 || failed) {
		free(joined);
		return thaw_oom(err);
	}
	free(pex->info.constraints);
	pex->info.constraints = joined;
	return size <= THAW_CONSTRAINTS_MAX
		       ? 0
		       : thaw_limit(err, "more than %u bytes of constraints on Python",
				    THAW_CONSTRAINTS_MAX);
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
		r = choose(pex, minor, err);
	if (r == 0)
		r = thaw_wheel_tree_init(&tree, pex->gather, minor,
					 pex->info.system_packages, err);
	for (size_t i = 0; r == 0 && i < pex->info.distribution_count; i++)
		if (!pex->distributions[i].left_out)
			r = thaw_wheel_add(&tree, &pex->distributions[i].wheel,
					   pex->info.distributions[i],
					   pex->distributions[i].installed, err);
	if (r == 0)
		r = add_code(pex, &tree, err);
	if (r == 0)
		r = add_start(pex, err);
	if (r == 0)
		r = thaw_wheel_tree_activate(&tree, err);
	if (r == 0)
		r = thaw_gather_finish(pex->gather, true, err);
	if (r == 0 && tree.requires[0])
		r = require(pex, tree.requires, err);
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
