/* SPDX-License-Identifier: Apache-2.0 */
/* What interpreter a venv wants, and which of this node's it gets. */
#include "thaw/binding.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "python-constraint.h"
#include "util/cleanup.h"
#include "util/plain-text.h"

#define LINKS_MAX   64u
#define SEARCH_TEXT 200u /* of the places that an error names */

/* -- what the image says -- */

/* "3.11", "3.13t" */
static bool is_minor_version(const char *text)
{
	size_t digits;

	if (text[0] < '2' || text[0] > '9' || text[1] != '.')
		return false;
	digits = strspn(text + 2, "0123456789");
	text += 2 + digits;
	text += *text == 't';
	return digits >= 1 && digits <= 3 && *text == '\0';
}

/* A name in bin that may become a link: nothing else may be replaced by an image's word. */
static bool is_link_name(const char *name)
{
	size_t len = strlen(name);

	if (len > 32 || strncmp(name, "python", 6) != 0)
		return false;
	name += 6 + strspn(name + 6, "0123456789.");
	return *name == '\0' || strcmp(name, "t") == 0;
}

static int bad_meta(struct thaw_error *err, const char *what)
{
	return thaw_damaged(err, "damaged: its meta section: %s", what);
}

static int load_links(const json_t *links, struct thaw_binding *binding,
		      struct thaw_error *err)
{
	const json_t *link;
	size_t i;

	if (json_array_size(links) > LINKS_MAX)
		return bad_meta(err, "too many links to an interpreter");
	binding->links = calloc(json_array_size(links) + 1, sizeof(*binding->links));
	if (!binding->links)
		return thaw_oom(err);
	json_array_foreach(links, i, link)
	{
		const char *name = json_string_value(link);

		if (!name || !is_link_name(name))
			return bad_meta(err, "a link to an interpreter has no such name");
		binding->links[binding->link_count] = strdup(name);
		if (!binding->links[binding->link_count])
			return thaw_oom(err);
		binding->link_count++;
	}
	return 0;
}

static int load(const json_t *meta, struct thaw_error *err, struct thaw_binding *binding)
{
	const json_t *wanted = json_object_get(meta, "binding");
	const char *python = json_string_value(json_object_get(meta, "python"));
	const char *recorded = json_string_value(json_object_get(wanted, "executable"));
	const char *constraints = json_string_value(json_object_get(meta, "constraints"));

	if (!json_is_object(wanted) || json_is_true(json_object_get(meta, "interpreter")))
		return THAW_NOT_FOUND;
	if (!python)
		return thaw_refused(err, "nothing in it says which Python it is for");
	if (!is_minor_version(python))
		return bad_meta(err, "no version of Python");
	strcpy(binding->python, python); /* 6 bytes at most */
	if (recorded && is_plain_path(recorded)) {
		binding->recorded = strdup(recorded);
		if (!binding->recorded)
			return thaw_oom(err);
	}
	if (constraints) {
		if (strlen(constraints) > THAW_CONSTRAINTS_MAX ||
		    !is_plain_text(constraints))
			return bad_meta(err, "no constraints on an interpreter");
		binding->constraints = strdup(constraints);
		if (!binding->constraints)
			return thaw_oom(err);
	}
	return load_links(json_object_get(wanted, "links"), binding, err);
}

int thaw_binding_load(const struct thaw_image *image, struct thaw_error *err,
		      struct thaw_binding *ret_binding)
{
	struct thaw_binding binding = { 0 };
	size_t len;
	const char *text = thaw_image_meta(image, &len);
	json_t *meta;
	int r;

	/* Most images are no venvs: seen without a parser. */
	if (len == 0 || !memmem(text, len, "\"binding\"", 9))
		return THAW_NOT_FOUND;
	meta = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (!meta)
		return bad_meta(err, "no JSON");
	r = load(meta, err, &binding);
	json_decref(meta);
	if (r != 0)
		thaw_binding_deinit(&binding);
	else
		*ret_binding = binding;
	return r;
}

void thaw_binding_deinit(struct thaw_binding *binding)
{
	for (size_t i = 0; i < binding->link_count; i++)
		free(binding->links[i]);
	free(binding->links);
	free(binding->recorded);
	free(binding->constraints);
	*binding = (struct thaw_binding){ 0 };
}

/* -- candidates -- */

struct search {
	const struct thaw_binding *binding;
	unsigned flags;
	char *found;
	char looked[SEARCH_TEXT]; /* where, for the error */
};

/* An ELF executable of the machine that we run on? */
static bool is_executable_here(const char *path)
{
	_cleanup_(closep) int fd = open(path,
					O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	_cleanup_(closep) int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	unsigned char theirs[20], ours[20];

	if (fd < 0 || read(fd, theirs, sizeof(theirs)) != sizeof(theirs) ||
	    memcmp(theirs, ELFMAG, SELFMAG) != 0)
		return false;
	if (self < 0 || read(self, ours, sizeof(ours)) != sizeof(ours))
		return true; /* no /proc: the kernel will say */
	return memcmp(theirs + EI_CLASS, ours + EI_CLASS, 2) == 0 &&
	       memcmp(theirs + 18, ours + 18, 2) == 0; /* e_machine */
}

/* May everybody run it? Directories on the way included. */
static bool is_for_everybody(const char *path)
{
	char part[THAW_PATH_MAX + 1];
	struct stat st;

	for (const char *slash = strchr(path + 1, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		(void)snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (stat(part, &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
	}
	return stat(path, &st) == 0 && (st.st_mode & S_IXOTH) && (st.st_mode & S_IROTH);
}

/* PREFIX/lib/pythonX.Y/os.py beside PREFIX/bin. */
static bool has_library(const char *path, const char *python)
{
	static const char *const libs[] = { "lib", "lib64" };
	const char *slash = strrchr(path, '/');
	char name[THAW_PATH_MAX + 64];

	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(name, sizeof(name), "%.*s/../%s/python%s/os.py",
			       (int)(slash - path), path, libs[i], python);
		if (access(name, R_OK) == 0)
			return true;
	}
	return false;
}

/* Run it and ask; what it is itself, not what led to it. */
static char *ask(const struct search *search, const char *path, struct thaw_error *err)
{
	struct thaw_interpreter interpreter;
	char *executable = NULL;

	if (thaw_interpreter_ask(path, err, &interpreter) < 0)
		return NULL;
	if (strcmp(interpreter.python, search->binding->python) != 0)
		(void)thaw_refused(err, "\"%.300s\" is Python %s, not %s", path,
				   interpreter.python, search->binding->python);
	else if (!thaw_python_allowed(search->binding->constraints, interpreter.version))
		(void)thaw_refused(err, "\"%.300s\" is Python %s, not %.200s", path,
				   interpreter.version, search->binding->constraints);
	else
		executable = strdup(interpreter.executable);
	thaw_interpreter_deinit(&interpreter);
	return executable;
}

/*
 * Does this one fit? may_run: whoever named it may have it run. Returns its real
 * path, or NULL and err.
 */
static char *fits(const struct search *search, const char *path, bool may_run,
		  struct thaw_error *err)
{
	_cleanup_(freep) char *real = realpath(path, NULL);
	const char *name;

	if (!real || !is_plain_path(real)) {
		(void)thaw_io(err, real ? -EINVAL : -errno, "\"%.300s\"", path);
		return NULL;
	}
	if (access(real, X_OK) < 0) {
		(void)thaw_io(err, -errno, "\"%.300s\"", path);
		return NULL;
	}
	if (search->flags & THAW_BINDING_SHARED && !is_for_everybody(real)) {
		(void)thaw_refused(err, "\"%.300s\" cannot be run by everybody", path);
		return NULL;
	}
	name = strrchr(real, '/') + 1;
	if (is_executable_here(real) && is_link_name(name) && name[6] != '\0' &&
	    strchr(name, '.')) {
		if (strcmp(name + 6, search->binding->python) != 0) {
			(void)thaw_refused(err, "\"%.300s\" is Python %s, not %s", path,
					   name + 6, search->binding->python);
			return NULL;
		}
		/* Its name does not tell the patch level. */
		if (has_library(real, search->binding->python) &&
		    thaw_python_allowed(search->binding->constraints,
					search->binding->python))
			return steal_ptr(real);
	}
	if (may_run)
		return ask(search, path, err);
	(void)thaw_refused(err, "\"%.300s\" is no Python %s", path,
			   search->binding->python);
	return NULL;
}

/* -- the search -- */

/* pythonX.Y, python3 and python of a directory, in this order. Scripts (pyenv's shims) are not run. */
static bool try_directory(struct search *search, const char *directory)
{
	char path[THAW_PATH_MAX + 64], name[32];
	const char *const names[] = { name, "python3", "python" };
	struct thaw_error ignored;

	(void)snprintf(name, sizeof(name), "python%s", search->binding->python);
	for (size_t i = 0; i < 3 && !search->found; i++) {
		if (snprintf(path, sizeof(path), "%s/%s", directory, names[i]) >=
			    (int)sizeof(path) ||
		    access(path, X_OK) < 0)
			continue;
		search->found = fits(search, path, is_executable_here(path), &ignored);
	}
	return search->found != NULL;
}

static void note_place(struct search *search, const char *place)
{
	size_t len = strlen(search->looked);

	(void)snprintf(search->looked + len, sizeof(search->looked) - len, "%s%s",
		       len ? ", " : "", place); /* cut when too long: it is for people */
}

/* A list as in PATH; parts that are not absolute are passed over. */
static bool try_list(struct search *search, const char *variable)
{
	const char *value = getenv(variable);
	_cleanup_(freep) char *list = value ? strdup(value) : NULL;
	char *save;

	if (!list || !list[0])
		return false;
	note_place(search, variable[0] == 'P' ? "$PATH" : "$THAW_PYTHON_PATH");
	for (char *part = strtok_r(list, ":", &save); part;
	     part = strtok_r(NULL, ":", &save)) {
		struct thaw_error ignored;
		struct stat st;

		if (part[0] != '/' || stat(part, &st) < 0)
			continue;
		if (S_ISREG(st.st_mode))
			search->found = fits(search, part, true, &ignored);
		else
			(void)try_directory(search, part);
		if (search->found)
			return true;
	}
	return false;
}

/* Directories by pattern, the last of the alphabet first: newer ones, mostly. */
static bool try_pattern(struct search *search, const char *place, const char *format, ...)
	_printf_(3, 4);
static bool try_pattern(struct search *search, const char *place, const char *format, ...)
{
	_cleanup_(freep) char *pattern = NULL;
	glob_t found;
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(&pattern, format, args);
	va_end(args);
	if (n < 0) {
		pattern = NULL;
		return false;
	}
	note_place(search, place);
	if (glob(pattern, GLOB_ONLYDIR, NULL, &found) == 0) {
		for (size_t i = found.gl_pathc; i-- > 0 && !search->found;)
			(void)try_directory(search, found.gl_pathv[i]);
		globfree(&found);
	}
	return search->found != NULL;
}

static bool try_home(struct search *search)
{
	const char *home = getenv("HOME"), *pyenv = getenv("PYENV_ROOT");
	const char *uv = getenv("UV_PYTHON_INSTALL_DIR"), *data = getenv("XDG_DATA_HOME");
	const char *python = search->binding->python;
	int plain = (int)strcspn(
		python, "t"); /* "3.13t" lies in 3.13.0t, cpython-3.13.0+freethreaded */

	if (pyenv && pyenv[0] == '/') {
		if (try_pattern(search, "$PYENV_ROOT", "%s/versions/%.*s*/bin", pyenv,
				plain, python))
			return true;
	} else if (home && home[0] == '/' &&
		   try_pattern(search, "~/.pyenv", "%s/.pyenv/versions/%.*s*/bin", home,
			       plain, python)) {
		return true;
	}
	if (uv && uv[0] == '/')
		return try_pattern(search, "$UV_PYTHON_INSTALL_DIR",
				   "%s/cpython-%.*s*/bin", uv, plain, python);
	if (data && data[0] == '/')
		return try_pattern(search, "uv's", "%s/uv/python/cpython-%.*s*/bin", data,
				   plain, python);
	return home && home[0] == '/' &&
	       try_pattern(search, "uv's", "%s/.local/share/uv/python/cpython-%.*s*/bin",
			   home, plain, python);
}

static void search_all(struct search *search)
{
	bool own = !(search->flags & THAW_BINDING_SHARED);

	if (try_list(search, "THAW_PYTHON_PATH") || (own && try_list(search, "PATH")))
		return;
	note_place(search, "/usr/bin, /usr/local/bin");
	if (try_directory(search, "/usr/bin") ||
	    try_directory(search, "/usr/local/bin") ||
	    try_pattern(search, "/opt", "/opt/*/bin") ||
	    try_pattern(search, "/opt/*", "/opt/*/*/bin"))
		return;
	if (own)
		(void)try_home(search);
}

/* --python NAME: as a shell would find it. */
static char *find_named(const char *name)
{
	const char *path = getenv("PATH");
	_cleanup_(freep) char *list = path ? strdup(path) : NULL;
	char *save;

	if (strchr(name, '/') || !list)
		return strdup(name);
	for (char *part = strtok_r(list, ":", &save); part;
	     part = strtok_r(NULL, ":", &save)) {
		char *candidate;

		if (asprintf(&candidate, "%s/%s", part, name) < 0)
			return NULL;
		if (access(candidate, X_OK) == 0)
			return candidate;
		free(candidate);
	}
	return strdup(name);
}

static int find_wanted(const struct search *search, const char *wanted,
		       struct thaw_error *err, char **ret_path)
{
	_cleanup_(freep) char *path = find_named(wanted);

	if (!path)
		return thaw_oom(err);
	*ret_path = fits(search, path, true, err);
	if (*ret_path)
		return 0;
	if (err)
		err->exit_code = THAW_EXIT_REFUSED;
	return -ENOENT;
}

int thaw_binding_find(const struct thaw_binding *binding, const char *wanted,
		      unsigned flags, struct thaw_error *err, char **ret_path)
{
	struct search search = { .binding = binding, .flags = flags };
	struct thaw_error ignored;

	if (wanted)
		return find_wanted(&search, wanted, err, ret_path);
	if (binding->recorded) {
		search.found = fits(&search, binding->recorded, false, &ignored);
		note_place(&search, binding->recorded);
	}
	if (!search.found)
		search_all(&search);
	if (!search.found) {
		const char *only = binding->constraints ? binding->constraints : "";

		(void)thaw_refused(
			err,
			"needs Python %s%s%.200s%s, which is not on this node (looked for "
			"in %s); --python names one",
			binding->python, *only ? " (" : "", only, *only ? ")" : "",
			search.looked);
		return -ENOENT;
	}
	*ret_path = search.found;
	return 0;
}

int thaw_binding_find_for(const struct thaw_image *image, const char *wanted,
			  unsigned flags, struct thaw_error *err, char **ret_path)
{
	struct thaw_binding binding;
	int r = thaw_binding_load(image, err, &binding);

	if (r == THAW_NOT_FOUND) {
		*ret_path = NULL;
		return 0;
	}
	if (r < 0)
		return r;
	r = thaw_binding_find(&binding, wanted, flags, err, ret_path);
	thaw_binding_deinit(&binding);
	return r;
}
