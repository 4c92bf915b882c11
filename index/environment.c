/* SPDX-License-Identifier: Apache-2.0 */
/* What an image is: see thaw/environment.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conda.h"
#include "environment-internal.h"
#include "pyvenv.h"
#include "util/cleanup.h"
#include "util/plain-text.h"

#define LINKS_MAX      40 /* as in Linux */
/* venv-pack writes an activate script of its own; its head comes from CPython's and says so. */
#define VENV_PACK_MARK "venv/scripts/common/activate"

static const struct {
	enum thaw_environment_kind kind;
	const char *name;
} kinds[] = {
	{ THAW_KIND_TREE, "tree" },	{ THAW_KIND_CONDA_PACK, "conda-pack" },
	{ THAW_KIND_CONDA, "conda" },	{ THAW_KIND_VENV_PACK, "venv-pack" },
	{ THAW_KIND_VENV, "venv" },	{ THAW_KIND_PEX, "pex" },
	{ THAW_KIND_WHEELS, "wheels" }, { THAW_KIND_PYTHON, "python" },
};

const char *thaw_kind_name(enum thaw_environment_kind kind)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	return "unknown";
}

enum thaw_environment_kind thaw_kind_by_name(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i].kind;
	return THAW_KIND_UNKNOWN;
}

bool thaw_kind_is_venv(enum thaw_environment_kind kind)
{
	return kind == THAW_KIND_VENV || kind == THAW_KIND_VENV_PACK ||
	       kind == THAW_KIND_PEX || kind == THAW_KIND_WHEELS;
}

void thaw_environment_hints_deinit(struct thaw_environment_hints *hints)
{
	free(hints->python);
	free(hints->constraints);
	free(hints->entry_point);
	free(hints->script);
	*hints = (struct thaw_environment_hints){ 0 };
}

/* -- for all parts of the analysis -- */

int analysis_warn(struct analysis *a, const char *format, ...)
{
	struct thaw_error escaped;
	char text[sizeof(escaped.text)];
	va_list args;

	if (json_array_size(a->found->warnings) >= WARNINGS_MAX) {
		a->dropped_warnings++;
		return 0;
	}
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args); /* cut when too long */
	va_end(args);
	(void)thaw_damaged(&escaped, "%s", text); /* for its escaping */
	return json_array_append_new(a->found->warnings, json_string(escaped.text)) < 0
		       ? -ENOMEM
		       : 0;
}

bool analysis_find(const struct analysis *a, const char *path,
		   struct thaw_inode *ret_inode)
{
	return thaw_image_find(a->image, path, ret_inode) == 0;
}

/* One step of following: the name goes, what it means comes. False: nothing more to do. */
static bool follow_step(const struct analysis *a, char *rest, char *done,
			struct thaw_inode *at, unsigned *links,
			enum analysis_end *ret_end)
{
	char queue[2 * THAW_PATH_MAX + 4];
	size_t len, done_len = strlen(done);
	struct thaw_inode next;
	char *slash;

	len = strspn(rest, "/");
	memmove(rest, rest + len, strlen(rest + len) + 1);
	len = strcspn(rest, "/");
	*ret_end = len == 0 ? ANALYSIS_INSIDE : ANALYSIS_NOWHERE;
	if (len == 0)
		return false;
	if (len == 1 && rest[0] == '.') {
		next = *at;
	} else if (len == 2 && rest[0] == '.' && rest[1] == '.') {
		if (at->ino == THAW_ROOT) {
			*ret_end = ANALYSIS_OUTSIDE;
			return false;
		}
		slash = strrchr(done, '/');
		*(slash ? slash : done) = '\0';
		if (thaw_image_inode(a->image, at->parent, &next) < 0)
			return false;
	} else {
		if (thaw_image_lookup(a->image, at->ino, rest, len, &next) != 0)
			return false;
		if (next.type == THAW_SYMLINK) {
			const char *target = thaw_image_target(a->image, &next);

			if (++*links > LINKS_MAX ||
			    snprintf(queue, sizeof(queue), "%s%s", target, rest + len) >
				    (int)THAW_PATH_MAX)
				return false;
			strcpy(rest, queue); /* checked: it fits */
			if (target[0] == '/') {
				*ret_end = ANALYSIS_OUTSIDE;
				return false;
			}
			return true;
		}
		if (done_len + 1 + len > THAW_PATH_MAX)
			return false;
		(void)sprintf(done + done_len, "%s%.*s", done_len ? "/" : "", (int)len,
			      rest);
	}
	*at = next;
	memmove(rest, rest + len, strlen(rest + len) + 1);
	return true;
}

enum analysis_end analysis_follow(const struct analysis *a, char path[THAW_PATH_MAX + 1],
				  struct thaw_inode *ret_inode)
{
	char done[THAW_PATH_MAX + 2] = "";
	struct thaw_inode at;
	enum analysis_end end;
	unsigned links = 0;

	if (thaw_image_inode(a->image, THAW_ROOT, &at) < 0)
		return ANALYSIS_NOWHERE;
	while (follow_step(a, path, done, &at, &links, &end))
		;
	if (end == ANALYSIS_INSIDE) {
		strcpy(path, done); /* as long as the other at most */
		*ret_inode = at;
	}
	return end;
}

int analysis_read(const struct analysis *a, const struct thaw_inode *inode, char *buf,
		  size_t size, struct thaw_error *err, size_t *ret_len)
{
	size_t len = 0;
	int r = thaw_reader_read(a->reader, inode, 0, buf, size - 1, err, &len);

	if (r < 0)
		return r;
	buf[len] = '\0';
	*ret_len = len;
	return 0;
}

bool analysis_is_python_name(const char *name, size_t len)
{
	size_t at = 6;

	if (len < 6 || memcmp(name, "python", 6) != 0)
		return false;
	while (at < len && ((name[at] >= '0' && name[at] <= '9') || name[at] == '.'))
		at++;
	at += at < len && at > 6 && name[at] == 't'; /* free-threaded: python3.13t */
	return at == len;
}

/* -- Python -- */

/* "3.11" or "3.13t" at the beginning of text; its length, or 0. */
static size_t minor_version(const char *text)
{
	size_t at = 0, dot;

	if (text[0] < '2' || text[0] > '9' || text[1] != '.')
		return 0;
	dot = at = 2;
	while (text[at] >= '0' && text[at] <= '9' && at < dot + 3)
		at++;
	return at == dot ? 0 : at + (text[at] == 't');
}

static int compare_versions(const char *a, const char *b)
{
	int x = atoi(a) * 1000 + atoi(a + 2), y = atoi(b) * 1000 + atoi(b + 2);

	return (x > y) - (x < y);
}

/*
 * lib/pythonX.Y, and whether the standard library is in it. Of several the newest
 * counts that has site-packages or a library.
 */
static void find_library(struct analysis *a, const char *lib, bool *ret_stdlib)
{
	struct thaw_environment *found = a->found;
	struct thaw_inode directory, child, inner;
	struct thaw_name name;

	if (!analysis_find(a, lib, &directory) || directory.type != THAW_DIRECTORY)
		return;
	for (uint64_t i = 0; i < directory.size; i++) {
		char version[16];
		bool stdlib;

		thaw_image_child(a->image, &directory, i, &name, &child);
		if (child.type != THAW_DIRECTORY || name.len < 9 || name.len > 12 ||
		    memcmp(name.text, "python", 6) != 0)
			continue;
		(void)snprintf(version, sizeof(version), "%.*s", (int)name.len - 6,
			       name.text + 6);
		if (minor_version(version) != name.len - 6)
			continue;
		stdlib = thaw_image_lookup(a->image, child.ino, "os.py", 5, &inner) == 0;
		if (!stdlib && thaw_image_lookup(a->image, child.ino, "site-packages", 13,
						 &inner) != 0)
			continue;
		if (found->python[0] && compare_versions(version, found->python) < 0)
			continue;
		if (strcmp(found->python, version) != 0)
			*ret_stdlib = false;
		*ret_stdlib |= stdlib;
		strcpy(found->python, version); /* 6 bytes at most */
	}
}

static bool is_elf(const struct analysis *a, const struct thaw_inode *inode)
{
	struct thaw_error err;
	char head[5];
	size_t len;

	return inode->type == THAW_REGULAR &&
	       analysis_read(a, inode, head, sizeof(head), &err, &len) == 0 && len == 4 &&
	       memcmp(head, "\177ELF", 4) == 0;
}

/* Does bin/python, or python3, or python3.N, lead to an executable inside? */
static bool has_interpreter(const struct analysis *a)
{
	static const char *const names[] = { "python3", "python" };
	char path[THAW_PATH_MAX + 1];
	struct thaw_inode inode;

	for (size_t i = 0; i <= sizeof(names) / sizeof(names[0]); i++) {
		if (i < sizeof(names) / sizeof(names[0]))
			(void)snprintf(path, sizeof(path), "bin/%s", names[i]);
		else
			(void)snprintf(path, sizeof(path), "bin/python%s",
				       a->found->python);
		if (analysis_follow(a, path, &inode) == ANALYSIS_INSIDE &&
		    is_elf(a, &inode) && inode.mode & 0100)
			return true;
	}
	return false;
}

static int find_python(struct analysis *a)
{
	bool stdlib = false;

	find_library(a, "lib", &stdlib);
	find_library(a, "lib64", &stdlib);
	a->found->own_interpreter = stdlib && has_interpreter(a);
	return 0;
}

/* -- the kind -- */

static bool is_directory(const struct analysis *a, const char *path)
{
	struct thaw_inode inode;

	return analysis_find(a, path, &inode) && inode.type == THAW_DIRECTORY;
}

static bool is_file(const struct analysis *a, const char *path)
{
	struct thaw_inode inode;

	return analysis_find(a, path, &inode) && inode.type == THAW_REGULAR;
}

static int is_venv_pack(const struct analysis *a, struct thaw_error *err, bool *ret_is)
{
	struct thaw_inode inode;
	char head[4096];
	size_t len;
	int r;

	*ret_is = false;
	if (!analysis_find(a, "bin/activate", &inode) || inode.type != THAW_REGULAR)
		return 0;
	r = analysis_read(a, &inode, head, sizeof(head), err, &len);
	if (r == 0)
		*ret_is = memmem(head, len, VENV_PACK_MARK, strlen(VENV_PACK_MARK)) !=
			  NULL;
	return r;
}

/*
 * A virtual environment has pyvenv.cfg, which names a home elsewhere. With an
 * interpreter and its library inside, the file says nothing (thaw pack --with-python).
 */
static int is_venv(const struct analysis *a, struct thaw_error *err, bool *ret_is)
{
	struct pyvenv config = { 0 };
	struct thaw_inode inode;
	char text[PYVENV_MAX];
	size_t len;
	int r;

	*ret_is = false;
	if (!analysis_find(a, "pyvenv.cfg", &inode) || inode.type != THAW_REGULAR ||
	    !is_directory(a, "bin"))
		return 0;
	*ret_is = true;
	if (!a->found->own_interpreter)
		return 0;
	r = analysis_read(a, &inode, text, sizeof(text), err, &len);
	if (r < 0)
		return r;
	if (pyvenv_parse(text, len, &config) < 0)
		return thaw_oom(err);
	*ret_is = pyvenv_get(&config, "home") != NULL;
	pyvenv_deinit(&config);
	return 0;
}

/* Can the content be this? For what a user says, and, in this order, for what we find. */
static int can_be(const struct analysis *a, enum thaw_environment_kind kind,
		  struct thaw_error *err, bool *ret_can)
{
	const struct thaw_environment_hints *hints = a->options->hints;

	*ret_can = true;
	switch (kind) {
	case THAW_KIND_PEX:
	case THAW_KIND_WHEELS:
		*ret_can = hints && hints->kind == kind;
		return 0;
	case THAW_KIND_CONDA_PACK:
		*ret_can = is_file(a, "bin/conda-unpack");
		return 0;
	case THAW_KIND_CONDA:
		*ret_can = is_directory(a, "conda-meta");
		return 0;
	case THAW_KIND_VENV_PACK:
	case THAW_KIND_VENV:
		return is_venv(a, err, ret_can);
	case THAW_KIND_PYTHON:
		*ret_can = a->found->own_interpreter;
		return 0;
	default:
		return 0;
	}
}

static int find_kind(struct analysis *a, struct thaw_error *err)
{
	static const enum thaw_environment_kind order[] = {
		THAW_KIND_PEX,	 THAW_KIND_WHEELS,    THAW_KIND_CONDA_PACK,
		THAW_KIND_CONDA, THAW_KIND_VENV_PACK, THAW_KIND_PYTHON,
		THAW_KIND_TREE,
	};
	enum thaw_environment_kind wanted = a->options->wanted;
	bool can = false, venv_pack;
	int r;

	if (wanted != THAW_KIND_UNKNOWN) {
		r = can_be(a, wanted, err, &can);
		if (r < 0)
			return r;
		if (!can)
			return thaw_refused(err,
					    "its content is not of the kind %s (--kind)",
					    thaw_kind_name(wanted));
		a->found->kind = wanted;
		return 0;
	}
	for (size_t i = 0; !can; i++) {
		r = can_be(a, order[i], err, &can);
		if (r < 0)
			return r;
		a->found->kind = order[i];
	}
	if (a->found->kind != THAW_KIND_VENV_PACK)
		return 0;
	r = is_venv_pack(a, err, &venv_pack);
	if (r == 0 && !venv_pack)
		a->found->kind = THAW_KIND_VENV;
	return r;
}

/* -- venv-shaped: which interpreter -- */

/* The builder's interpreter: what pyvenv.cfg says, or where the link leads. */
static int find_recorded(struct analysis *a, const struct pyvenv *config)
{
	const char *executable = pyvenv_get(config, "executable");
	const char *home = pyvenv_get(config, "home");
	char path[THAW_PATH_MAX + 1] = "bin/python";
	struct thaw_inode inode;
	char *recorded = NULL;

	if (executable && is_plain_path(executable)) {
		recorded = strdup(executable);
	} else if (home && is_plain_path(home) && a->found->python[0]) {
		if (asprintf(&recorded, "%s/python%s", home, a->found->python) < 0)
			recorded = NULL;
	} else if (analysis_follow(a, path, &inode) == ANALYSIS_OUTSIDE &&
		   is_plain_path(path)) {
		recorded = strdup(path);
	} else {
		return 0;
	}
	if (!recorded)
		return -ENOMEM;
	a->found->recorded = recorded;
	return 0;
}

/* What in bin is to be the interpreter: what is one by its name, and is no script. */
static int find_links(struct analysis *a)
{
	struct thaw_inode directory, child;
	struct thaw_name name;

	if (!analysis_find(a, "bin", &directory) || directory.type != THAW_DIRECTORY)
		return 0;
	for (uint64_t i = 0; i < directory.size; i++) {
		thaw_image_child(a->image, &directory, i, &name, &child);
		if (!analysis_is_python_name(name.text, name.len) || name.len > 32 ||
		    (child.type != THAW_SYMLINK && !is_elf(a, &child)))
			continue;
		if (json_array_append_new(a->found->links,
					  json_stringn(name.text, name.len)) < 0)
			return -ENOMEM;
	}
	return 0;
}

static void take_version(struct analysis *a, const char *version)
{
	struct thaw_environment *found = a->found;
	size_t len = version ? minor_version(version) : 0, full;

	if (len == 0)
		return;
	if (!found->python[0])
		(void)snprintf(found->python, sizeof(found->python), "%.*s", (int)len,
			       version);
	/* "3.13.1" is 3.13t's version too: a free-threaded build has no number of its own */
	if (strncmp(found->python, version, len) != 0 ||
	    (found->python[len] != '\0' && strcmp(found->python + len, "t") != 0))
		return;
	full = strspn(version, "0123456789.");
	while (full > 0 && version[full - 1] == '.') /* "3.11.7.final.0" */
		full--;
	(void)snprintf(found->python_version, sizeof(found->python_version), "%.*s",
		       (int)full, version);
}

static int find_binding(struct analysis *a, struct thaw_error *err)
{
	struct pyvenv config = { 0 };
	struct thaw_inode inode;
	char text[PYVENV_MAX];
	const char *version, *system;
	size_t len = 0;
	int r;

	if (analysis_find(a, "pyvenv.cfg", &inode) && inode.type == THAW_REGULAR) {
		r = analysis_read(a, &inode, text, sizeof(text), err, &len);
		if (r < 0)
			return r;
	}
	if (pyvenv_parse(text, len, &config) < 0)
		return thaw_oom(err);
	version = pyvenv_get(&config, "version");
	if (!version)
		version = pyvenv_get(&config, "version_info");
	take_version(a, version);
	r = find_recorded(a, &config);
	if (r == 0)
		r = find_links(a);
	if (r == 0 && version && minor_version(version) &&
	    a->found->python_version[0] == '\0')
		r = analysis_warn(a,
				  "pyvenv.cfg says Python %.20s, its packages are for %s",
				  version, a->found->python);
	system = pyvenv_get(&config, "include-system-site-packages");
	if (r == 0 && system && strcasecmp(system, "true") == 0)
		r = analysis_warn(a, "sees the packages of the node's Python as well "
				     "(include-system-site-packages)");
	pyvenv_deinit(&config);
	return r < 0 ? thaw_oom(err) : 0;
}

/* conda-meta/python-3.11.7-BUILD.json */
static void find_conda_version(struct analysis *a)
{
	struct thaw_inode directory, child;
	struct thaw_name name;
	char version[32];

	if (!analysis_find(a, "conda-meta", &directory) ||
	    directory.type != THAW_DIRECTORY)
		return;
	for (uint64_t i = 0; i < directory.size; i++) {
		thaw_image_child(a->image, &directory, i, &name, &child);
		if (name.len < 10 || memcmp(name.text, "python-", 7) != 0)
			continue;
		(void)snprintf(version, sizeof(version), "%.*s", (int)name.len - 7,
			       name.text + 7);
		take_version(a, version);
	}
}

/* -- all of it -- */

static void note_conda_warning(void *userdata, const char *warning)
{
	struct analysis *a = userdata;

	if (analysis_warn(a, "%s", warning) < 0)
		a->dropped_warnings++; /* short of memory: one of those that are only counted */
}

static int conda(struct analysis *a, struct thaw_error *err)
{
	struct thaw_conda_options options = {
		.prefixes = a->options->prefixes,
		.prefix_count = a->options->prefix_count,
		.warn = note_conda_warning,
		.warn_data = a,
	};
	struct thaw_conda_report report;

	find_conda_version(a);
	return thaw_conda_relocations(a->image, a->reader, a->found->relocations,
				      &options, err, &report);
}

static int analyse(struct analysis *a, struct thaw_error *err)
{
	const struct thaw_environment_hints *hints = a->options->hints;
	struct thaw_environment *found = a->found;
	int r;

	r = find_python(a);
	if (r == 0)
		r = find_kind(a, err);
	if (r < 0)
		return r;
	if (hints && hints->python)
		take_version(a, hints->python);
	if (thaw_kind_is_venv(found->kind))
		r = find_binding(a, err);
	if (r == 0 && found->kind != THAW_KIND_TREE)
		r = analysis_platform(a, err);
	if (r == 0 &&
	    (found->kind == THAW_KIND_CONDA || found->kind == THAW_KIND_CONDA_PACK))
		r = conda(a, err);
	else if (r == 0 && found->kind != THAW_KIND_TREE)
		r = analysis_scripts(a, err);
	if (r == 0)
		r = analysis_warnings(a, err);
	if (r == 0 && a->dropped_warnings)
		/* over the bound by one: that they are not all is worth a line */
		r = json_array_append_new(found->warnings,
					  json_sprintf("%u more warnings of this kind",
						       a->dropped_warnings)) < 0
			    ? thaw_oom(err)
			    : 0;
	return r;
}

int thaw_environment_analyse(const struct thaw_image *image, struct thaw_reader *reader,
			     const struct thaw_environment_options *options,
			     struct thaw_error *err,
			     struct thaw_environment *ret_environment)
{
	struct thaw_environment found = {
		.links = json_array(),
		.warnings = json_array(),
	};
	struct analysis a = {
		.image = image,
		.reader = reader,
		.options = options,
		.found = &found,
	};
	int r;

	if (!found.links || !found.warnings ||
	    thaw_relocations_new(&found.relocations) < 0)
		r = thaw_oom(err);
	else
		r = analyse(&a, err);
	if (r < 0)
		thaw_environment_deinit(&found);
	else
		*ret_environment = found;
	return r;
}

void thaw_environment_deinit(struct thaw_environment *environment)
{
	json_decref(environment->links);
	json_decref(environment->warnings);
	free(environment->recorded);
	thaw_relocations_free(environment->relocations);
	*environment = (struct thaw_environment){ 0 };
}

static int set_string(json_t *object, const char *key, const char *value)
{
	json_t *string;

	if (!value || !value[0])
		return 0;
	string = json_string(value);
	if (!string) /* no UTF-8: JSON cannot hold it, and nobody needs it that much */
		return 0;
	return json_object_set_new(object, key, string) < 0 ? -ENOMEM : 0;
}

int thaw_environment_describe(const struct thaw_environment *environment,
			      const struct thaw_environment_hints *hints, json_t *meta)
{
	json_t *binding;
	int r;

	r = set_string(meta, "kind", thaw_kind_name(environment->kind));
	if (r == 0)
		r = set_string(meta, "python", environment->python);
	if (r == 0)
		r = set_string(meta, "python_version", environment->python_version);
	if (r == 0)
		r = set_string(meta, "platform", environment->platform);
	if (r == 0)
		r = set_string(meta, "libc", environment->libc);
	if (r == 0 && hints)
		r = set_string(meta, "constraints", hints->constraints);
	if (r == 0 && hints)
		r = set_string(meta, "entry_point", hints->entry_point);
	if (r == 0 && hints)
		r = set_string(meta, "script", hints->script);
	if (r == 0 && environment->kind != THAW_KIND_TREE)
		r = json_object_set_new(meta, "interpreter",
					json_boolean(environment->own_interpreter));
	if (r == 0 && json_array_size(environment->warnings) > 0)
		r = json_object_set(meta, "warnings", environment->warnings);
	if (r < 0 || !thaw_kind_is_venv(environment->kind))
		return r < 0 ? -ENOMEM : 0;
	binding = json_pack("{s:O}", "links", environment->links);
	if (!binding || set_string(binding, "executable", environment->recorded) < 0 ||
	    json_object_set(meta, "binding", binding) < 0)
		r = -ENOMEM;
	json_decref(binding);
	return r;
}
