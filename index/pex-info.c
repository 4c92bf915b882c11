/* SPDX-License-Identifier: Apache-2.0 */
/* PEX-INFO, and the script that does what a PEX does when it is started. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pex.h"
#include "util/cleanup.h"
#include "wheel.h"

#define DISTRIBUTIONS_MAX 65536u

void thaw_pex_info_deinit(struct thaw_pex_info *info)
{
	for (size_t i = 0; i < info->distribution_count; i++)
		free(info->distributions[i]);
	free(info->distributions);
	free(info->entry_point);
	free(info->script);
	free(info->constraints);
	free(info->python_arguments);
	free(info->arguments);
	free(info->variables);
	*info = (struct thaw_pex_info){ 0 };
}

static int wrong_type(const char *key, struct thaw_error *err)
{
	return thaw_damaged(err, "PEX-INFO: \"%s\" is not what it should be", key);
}

/* A string that is not empty; NULL for null, "" and what is absent. */
static int take_string(const json_t *root, const char *key, struct thaw_error *err,
		       char **ret_value)
{
	const json_t *value = json_object_get(root, key);

	*ret_value = NULL;
	if (!value || json_is_null(value))
		return 0;
	if (!json_is_string(value))
		return wrong_type(key, err);
	if (json_string_length(value) == 0)
		return 0;
	*ret_value = strdup(json_string_value(value));
	return *ret_value ? 0 : thaw_oom(err);
}

static bool all_strings(const json_t *value)
{
	const json_t *item;
	const char *key;
	size_t i;

	if (json_is_array(value)) {
		json_array_foreach(value, i,
				   item) if (!json_is_string(item)) return false;
		return true;
	}
	if (!json_is_object(value))
		return false;
	json_object_foreach((json_t *)value, key,
			    item) if (!json_is_string(item)) return false;
	return true;
}

/*
 * A list or object of strings, as Python can read it: the escapes of JSON are
 * Python's as well, but for pairs of surrogates, and what is not ASCII is not escaped.
 */
static int take_literal(const json_t *root, const char *key, json_type type,
			struct thaw_error *err, char **ret_text)
{
	const json_t *value = json_object_get(root, key);

	*ret_text = NULL;
	if (!value || json_is_null(value))
		return 0;
	if (json_typeof(value) != type || !all_strings(value))
		return wrong_type(key, err);
	if ((type == JSON_ARRAY ? json_array_size(value) : json_object_size(value)) == 0)
		return 0;
	*ret_text = json_dumps(value, JSON_SORT_KEYS);
	return *ret_text ? 0 : thaw_oom(err);
}

/* One of them must hold, so that the Pythons that they allow add up. */
static int take_constraints(const json_t *root, struct thaw_error *err,
			    struct thaw_pex_info *info)
{
	const json_t *list = json_object_get(root, "interpreter_constraints"), *item;
	size_t i, len = 0;

	info->minors = THAW_MINORS_ALL;
	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list) || !all_strings(list))
		return wrong_type("interpreter_constraints", err);
	if (json_array_size(list) == 0)
		return 0;
	info->minors = 0;
	json_array_foreach(list, i, item)
	{
		char *joined;
		uint64_t minors;

		len += json_string_length(item) + strlen(" or ");
		if (len > THAW_CONSTRAINTS_MAX)
			return thaw_limit(err,
					  "PEX-INFO: more than %u bytes of constraints",
					  THAW_CONSTRAINTS_MAX);
		/* One for another interpreter (PyPy) is no choice here. */
		if (thaw_python_constraint(json_string_value(item),
					   json_string_length(item), &minors) == 0)
			info->minors |= minors;
		if (asprintf(
			    &joined, "%s%s%s", info->constraints ? info->constraints : "",
			    info->constraints ? " or " : "", json_string_value(item)) < 0)
			return thaw_oom(err);
		free(info->constraints);
		info->constraints = joined;
	}
	if (info->minors == 0)
		return thaw_refused(err, "is for \"%.200s\", which no CPython 3 is",
				    info->constraints);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int take_distributions(const json_t *root, struct thaw_error *err,
			      struct thaw_pex_info *info)
{
	json_t *object = json_object_get(root, "distributions"), *value;
	const char *name;

	if (!object || json_is_null(object))
		return 0;
	if (!json_is_object(object))
		return wrong_type("distributions", err);
	if (json_object_size(object) == 0)
		return 0;
	if (json_object_size(object) > DISTRIBUTIONS_MAX)
		return thaw_limit(err, "PEX-INFO: more than %u distributions",
				  DISTRIBUTIONS_MAX);
	info->distributions = calloc(json_object_size(object),
				     sizeof(*info->distributions));
	if (!info->distributions)
		return thaw_oom(err);
	json_object_foreach(object, name, value)
	{
		char *copy;

		(void)value; /* a fingerprint of PEX's own making */
		if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 ||
		    strcmp(name, "..") == 0)
			return thaw_refused(err, "PEX-INFO: distribution \"%.200s\"",
					    name);
		copy = strdup(name);
		if (!copy)
			return thaw_oom(err);
		info->distributions[info->distribution_count++] = copy;
	}
	qsort(info->distributions, info->distribution_count, sizeof(*info->distributions),
	      by_text);
	return 0;
}

static bool is_set(const json_t *root, const char *key)
{
	const json_t *value = json_object_get(root, key);

	if (json_is_array(value))
		return json_array_size(value) > 0;
	if (json_is_object(value))
		return json_object_size(value) > 0;
	return json_is_string(value) ? json_string_length(value) > 0
				     : json_is_true(value);
}

static int take_entry(const json_t *root, struct thaw_error *err,
		      struct thaw_pex_info *info)
{
	_cleanup_(freep) char *module = NULL;
	_cleanup_(freep) char *object = NULL;
	int r;

	r = take_string(root, "entry_point", err, &info->entry_point);
	if (r == 0)
		r = take_string(root, "script", err, &info->script);
	if (r < 0)
		return r;
	if (info->script && (strchr(info->script, '/') || info->script[0] == '.'))
		return thaw_refused(err, "PEX-INFO: script \"%.200s\"", info->script);
	if (!info->entry_point)
		return 0;
	r = thaw_entry_point_split(info->entry_point, &module, &object);
	if (r == -ENOMEM)
		return thaw_oom(err);
	return r < 0 ? thaw_damaged(err, "PEX-INFO: entry point \"%.200s\"",
				    info->entry_point)
		     : 0;
}

static int take_all(const json_t *root, struct thaw_error *err,
		    struct thaw_pex_info *info)
{
	int r;

	if (is_set(root, "pex_path") || is_set(root, "pex_paths"))
		return thaw_refused(err, "needs other PEX files to run (PEX_PATH)");
	if (is_set(root, "bind_resource_paths"))
		return thaw_refused(err, "binds variables to paths of its resources, "
					 "which only PEX's own start can do");
	info->system_packages = is_set(root, "venv_system_site_packages");
	r = take_entry(root, err, info);
	if (r == 0)
		r = take_constraints(root, err, info);
	if (r == 0)
		r = take_distributions(root, err, info);
	if (r == 0)
		r = take_literal(root, "inject_python_args", JSON_ARRAY, err,
				 &info->python_arguments);
	if (r == 0)
		r = take_literal(root, "inject_args", JSON_ARRAY, err, &info->arguments);
	if (r == 0)
		r = take_literal(root, "inject_env", JSON_OBJECT, err, &info->variables);
	return r;
}

int thaw_pex_info_parse(const char *text, size_t len, struct thaw_error *err,
			struct thaw_pex_info *ret_info)
{
	struct thaw_pex_info info = { 0 };
	json_error_t failure;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &failure);
	int r;

	if (!root || !json_is_object(root))
		r = thaw_damaged(err, "PEX-INFO is no JSON object");
	else
		r = take_all(root, err, &info);
	json_decref(root);
	if (r < 0)
		thaw_pex_info_deinit(&info);
	else
		*ret_info = info;
	return r;
}

/* -- the script -- */

/* What to do when all is set. Everything in it has been checked to be names. */
static int write_body(FILE *out, const struct thaw_pex_info *info)
{
	_cleanup_(freep) char *module = NULL;
	_cleanup_(freep) char *object = NULL;
	json_t *name;
	char *quoted;
	int r;

	if (info->script) {
		name = json_string(info->script);
		quoted = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL;
		json_decref(name);
		if (!quoted)
			return -ENOMEM;
		fprintf(out,
			"    script = os.path.join(sys.prefix, \"bin\", %s)\n"
			"    os.execv(script, [script, *sys.argv[1:]])\n",
			quoted);
		free(quoted);
		return 0;
	}
	r = thaw_entry_point_split(info->entry_point, &module, &object);
	if (r < 0)
		return r;
	if (object)
		fprintf(out,
			"    from %s import %.*s\n"
			"    sys.exit(%s())\n",
			module, (int)strcspn(object, "."), object, object);
	else
		fprintf(out,
			"    import runpy\n"
			"    runpy.run_module(\"%s\", run_name=\"__main__\", alter_sys=True)\n",
			module);
	return 0;
}

static void write_settings(FILE *out, const struct thaw_pex_info *info)
{
	if (info->python_arguments)
		fprintf(out,
			"    if not os.environ.pop(\"__THAW_PEX__\", \"\"):\n"
			"        os.environ[\"__THAW_PEX__\"] = \"1\"\n"
			"        os.execv(sys.executable, [sys.executable, *%s,\n"
			"                 os.path.abspath(__file__), *sys.argv[1:]])\n",
			info->python_arguments);
	if (info->variables)
		fprintf(out,
			"    for name, value in %s.items():\n"
			"        os.environ.setdefault(name, value)\n",
			info->variables);
	if (info->arguments)
		fprintf(out,
			"    class Variables:\n"
			"        def __getattr__(self, name):\n"
			"            return os.environ.get(name, \"\")\n"
			"        __getitem__ = __getattr__\n"
			"    class Replacements:\n"
			"        env = Variables()\n"
			"    sys.argv[1:1] = [text.format(pex=Replacements) for text in %s]\n",
			info->arguments);
}

int thaw_pex_start(const struct thaw_pex_info *info, struct thaw_error *err,
		   char **ret_text)
{
	char *text = NULL;
	size_t size;
	FILE *out;
	int r;

	*ret_text = NULL;
	if (!info->script && !info->entry_point)
		return 0;
	out = open_memstream(&text, &size);
	if (!out)
		return thaw_oom(err);
	fputs("#!/usr/bin/env python3\n"
	      "import os\n"
	      "import sys\n"
	      "\n"
	      "if __name__ == \"__main__\":\n",
	      out);
	write_settings(out, info);
	r = write_body(out, info);
	if (ferror(out))
		r = -ENOMEM;
	if (fclose(out) != 0 || r < 0) {
		free(text);
		return thaw_oom(err);
	}
	*ret_text = text;
	return 0;
}
