/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One wheel into the tree of a virtual environment, as an installer would put
 * it there (PEP 427, 491; the schemes of a Linux venv). No bytecode is made.
 */
#include "wheel.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "thaw/format.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/paths.h"

#define INTERPRETER_LINE "#!/usr/bin/env python3\n"
#define LAYOUT_MAX	 65536u	     /* of PEX's note */
#define SCRIPT_MAX	 (16u << 20) /* of one whose first line is rewritten */
#define STASH		 ".prefix" /* where PEX keeps what does not go to site-packages */
#define PEX_NOTES	 ".pex-info" /* ends the name of a directory of PEX's own */

/* Room for a path of an environment; check_path() in gather.c refuses what was cut. */
#define PATH_ROOM (2 * THAW_PATH_MAX)

/* One wheel being added. */
struct wheel {
	struct thaw_wheel_tree *tree;
	const struct thaw_folder *files;
	const char *name;
	bool installed;
	bool stash_by_scheme; /* .prefix has a directory for each further scheme */
	char info[THAW_NAME_MAX + 1]; /* name of its .dist-info directory */
	struct thaw_record record;
	char *rows; /* of the RECORD that we write */
	size_t rows_len, rows_capacity;
};

int thaw_wheel_tree_init(struct thaw_wheel_tree *tree, struct thaw_gather *gather,
			 unsigned minor, bool system_packages, struct thaw_error *err)
{
	char config[128], interpreter[32], name[32];
	int r;

	tree->gather = gather;
	tree->minor = minor;
	tree->requires[0] = '\0';
	(void)snprintf(tree->library, sizeof(tree->library),
		       "lib/python3.%u/site-packages", minor);
	(void)snprintf(interpreter, sizeof(interpreter), "/usr/bin/python3.%u", minor);
	(void)snprintf(name, sizeof(name), "bin/python3.%u", minor);
	(void)snprintf(
		config, sizeof(config),
		"home = /usr/bin\ninclude-system-site-packages = %s\nversion = 3.%u\n",
		system_packages ? "true" : "false", minor);
	r = thaw_gather_origin(gather, "thaw", err);
	if (r == 0)
		r = thaw_gather_bytes(gather, "pyvenv.cfg", config, strlen(config), 0644,
				      err);
	if (r == 0)
		r = thaw_gather_link(gather, "bin/python", interpreter, err);
	if (r == 0)
		r = thaw_gather_link(gather, "bin/python3", "python", err);
	if (r == 0)
		r = thaw_gather_link(gather, name, "python", err);
	if (r == 0) /* where a distribution keeps extension modules apart */
		r = thaw_gather_link(gather, "lib64", "lib", err);
	return r;
}

static bool ends_with(const char *text, size_t len, const char *end)
{
	size_t n = strlen(end);

	return len > n && memcmp(text + len - n, end, n) == 0;
}

/* Project names differ in case and in runs of "-", "_" and "." without meaning to (PEP 503). */
static bool same_project(const char *a, const char *a_end, const char *b,
			 const char *b_end)
{
	while (a < a_end && b < b_end) {
		bool separator_a = strchr("-_.", *a) != NULL,
		     separator_b = strchr("-_.", *b) != NULL;

		if (separator_a != separator_b)
			return false;
		if (!separator_a) {
			if (tolower((unsigned char)*a++) != tolower((unsigned char)*b++))
				return false;
			continue;
		}
		while (a < a_end && strchr("-_.", *a))
			a++;
		while (b < b_end && strchr("-_.", *b))
			b++;
	}
	return a == a_end && b == b_end;
}

bool thaw_same_project(const char *a, const char *b)
{
	return same_project(a, a + strlen(a), b, b + strlen(b));
}

bool thaw_wheels_of_one_project(const char *a, const char *b)
{
	return same_project(a, a + strcspn(a, "-"), b, b + strcspn(b, "-"));
}

/* The one .dist-info directory at the top. */
static int find_info(const struct thaw_folder *files, const char *name,
		     struct thaw_error *err, char *ret_info)
{
	ret_info[0] = '\0';
	for (size_t i = 0; i < files->count; i++) {
		const char *path = folder_path(files, &files->files[i]);
		size_t len = strcspn(path, "/");

		if (path[len] != '/' || !ends_with(path, len, ".dist-info"))
			continue;
		if (strncmp(ret_info, path, len) == 0 && ret_info[len] == '\0')
			continue;
		if (ret_info[0] != '\0' || len > THAW_NAME_MAX)
			return thaw_damaged(err, "%.200s: has two .dist-info directories",
					    name);
		memcpy(ret_info, path, len);
		ret_info[len] = '\0';
	}
	if (ret_info[0] == '\0')
		return thaw_damaged(err, "%.200s: has no .dist-info directory", name);
	return 0;
}

/* A file of .dist-info; *ret_text is NULL when there is none. */
static int load_info(struct thaw_gather *gather, const struct thaw_folder *files,
		     const char *info, const char *which, size_t limit,
		     struct thaw_error *err, char **ret_text, size_t *ret_len)
{
	char path[2 * THAW_NAME_MAX];
	const struct thaw_file *file;

	(void)snprintf(path, sizeof(path), "%s/%s", info, which); /* fits */
	file = thaw_folder_find(files, path);
	*ret_text = NULL;
	*ret_len = 0;
	if (!file || !S_ISREG(file->mode))
		return 0;
	return thaw_file_load(thaw_gather_reader(gather), file, limit, err, ret_text,
			      ret_len);
}

/* Its Requires-Python; *ret_value lies in *ret_text, and is NULL when there is none. */
static int load_requires(struct thaw_gather *gather, const struct thaw_folder *files,
			 const char *info, struct thaw_error *err, char **ret_text,
			 const char **ret_value, size_t *ret_len)
{
	int r = load_info(gather, files, info, "METADATA", THAW_WHEEL_TEXT_MAX, err,
			  ret_text, ret_len);

	*ret_value = NULL;
	if (r == 0 && *ret_text)
		*ret_value = thaw_metadata_find(*ret_text, *ret_len, "Requires-Python",
						ret_len);
	return r;
}

int thaw_wheel_requires(struct thaw_gather *gather, const struct thaw_folder *files,
			const char *name, struct thaw_error *err, uint64_t *ret_minors)
{
	_cleanup_(freep) char *text = NULL;
	char info[THAW_NAME_MAX + 1];
	const char *value;
	uint64_t minors;
	size_t len;
	int r;

	*ret_minors = THAW_MINORS_ALL;
	r = find_info(files, name, err, info);
	if (r == 0)
		r = load_requires(gather, files, info, err, &text, &value, &len);
	/* What cannot be understood rules nothing out: the tags have been checked. */
	if (r == 0 && value && thaw_python_constraint(value, len, &minors) == 0)
		*ret_minors = minors;
	return r;
}

/* One of "A, B, ..." without its blanks; false when it cannot be a constraint. */
static bool copy_clause(const char *text, size_t len, char *ret, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == ' ' || text[i] == '\t')
			continue;
		if (n + 1 >= size || !(isalnum((unsigned char)text[i]) ||
				       (text[i] && strchr("<>=!~.*+", text[i]))))
			return false;
		ret[n++] = text[i];
	}
	ret[n] = '\0';
	return n > 0;
}

static bool has_clause(const char *clauses, const char *clause)
{
	size_t len = strlen(clause);

	for (const char *at = clauses; (at = strstr(at, clause)); at++)
		if ((at == clauses || at[-1] == ',') &&
		    (at[len] == ',' || at[len] == '\0'))
			return true;
	return false;
}

/* What a wheel asks of the patch level must hold when an interpreter is bound. */
static int note_requires(struct wheel *wheel, struct thaw_error *err)
{
	_cleanup_(freep) char *text = NULL;
	char *requires = wheel->tree->requires, version[32], clause[64];
	const char *value, *stop;
	uint64_t minors;
	size_t len;
	int r = load_requires(wheel->tree->gather, wheel->files, wheel->info, err, &text,
			      &value, &len);

	if (r < 0 || !value || thaw_python_constraint(value, len, &minors) != 0)
		return r;
	(void)snprintf(version, sizeof(version), "3.%u", wheel->tree->minor);
	for (const char *end = value + len; value < end; value = stop + 1) {
		size_t used = strlen(requires);

		stop = memchr(value, ',', (size_t)(end - value));
		stop = stop ? stop : end;
		if (!copy_clause(value, (size_t)(stop - value), clause, sizeof(clause)) ||
		    thaw_python_allowed(clause, version) || has_clause(requires, clause))
			continue;
		if (used + strlen(clause) + 2 > sizeof(wheel->tree->requires))
			return thaw_limit(err, "more than %u bytes of Requires-Python",
					  THAW_CONSTRAINTS_MAX);
		(void)snprintf(requires + used, sizeof(wheel->tree->requires) - used,
			       "%s%s", used ? "," : "", clause);
	}
	return 0;
}

/* -- the RECORD that we write -- */

static int append(struct wheel *wheel, const char *text, size_t len,
		  struct thaw_error *err)
{
	if (grow(&wheel->rows, &wheel->rows_capacity, wheel->rows_len + len + 1, 1) < 0)
		return thaw_oom(err);
	memcpy(wheel->rows + wheel->rows_len, text, len);
	wheel->rows_len += len;
	wheel->rows[wheel->rows_len] = '\0';
	return 0;
}

static int append_quoted(struct wheel *wheel, const char *text, struct thaw_error *err)
{
	int r;

	if (!strpbrk(text, ",\"\r\n"))
		return append(wheel, text, strlen(text), err);
	r = append(wheel, "\"", 1, err);
	for (; r == 0 && *text != '\0'; text++) {
		r = append(wheel, text, 1, err);
		if (r == 0 && *text == '"')
			r = append(wheel, text, 1, err);
	}
	return r < 0 ? r : append(wheel, "\"", 1, err);
}

static void format_sha256(const uint8_t *sum, char *ret_text)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t bits = 0;
	unsigned have = 0;

	for (unsigned i = 0; i < 32; i++) {
		bits = bits << 8 | sum[i];
		have += 8;
		while (have >= 6) {
			have -= 6;
			*ret_text++ = digits[bits >> have & 63];
		}
	}
	*ret_text++ = digits[bits << (6 - have) & 63];
	*ret_text = '\0';
}

/* path is where it went; proof NULL: nothing is said of its bytes. */
static int append_row(struct wheel *wheel, const char *path,
		      const struct thaw_gather_proof *proof, struct thaw_error *err)
{
	const char *library = wheel->tree->library;
	size_t len = strlen(library);
	bool inside = thaw_is_below(path, library);
	char relative[PATH_ROOM + 16], hash[48] = "", tail[96];
	int r;

	(void)snprintf(relative, sizeof(relative), "%s%s", inside ? "" : "../../../",
		       inside ? path + len + 1 : path); /* fits */
	r = append_quoted(wheel, relative, err);
	if (r < 0)
		return r;
	if (proof && proof->has_sha256) {
		format_sha256(proof->sha256, hash);
		(void)snprintf(tail, sizeof(tail), ",sha256=%s,%" PRIu64 "\n", hash,
			       proof->size);
	} else {
		(void)snprintf(tail, sizeof(tail), ",,\n");
	}
	return append(wheel, tail, strlen(tail), err);
}

/* -- files -- */

/*
 * Where does a file of .data/SCHEME/ go? rest is the path below the scheme.
 * 0, or THAW_NOT_FOUND for a scheme that there is not.
 */
static int place_in_scheme(const struct wheel *wheel, const char *scheme, size_t len,
			   const char *rest, char *ret_path)
{
	const char *dash = strchr(wheel->info, '-');

#define IS(word) (len == strlen(word) && memcmp(scheme, word, len) == 0)
	if (IS("purelib") || IS("platlib"))
		(void)snprintf(ret_path, PATH_ROOM, "%s/%s", wheel->tree->library, rest);
	else if (IS("scripts"))
		(void)snprintf(ret_path, PATH_ROOM, "bin/%s", rest);
	else if (IS("headers"))
		(void)snprintf(ret_path, PATH_ROOM, "include/site/python3.%u/%.*s/%s",
			       wheel->tree->minor, dash ? (int)(dash - wheel->info) : 0,
			       wheel->info, rest);
	else if (IS("data"))
		(void)snprintf(ret_path, PATH_ROOM, "%s/%s",
			       strncmp(rest, "lib64/", 6) == 0 ? "lib" : "",
			       strncmp(rest, "lib64/", 6) == 0 ? rest + 6 : rest);
	else
		return THAW_NOT_FOUND;
#undef IS
	if (ret_path[0] == '/') /* data goes to the top */
		memmove(ret_path, ret_path + 1, strlen(ret_path));
	return 0;
}

/*
 * A stashed path, in which PEX has left the version open. Other schemes than
 * scripts and headers have directories of their own, since PEX looks for modules
 * there; what older versions stashed stands as it is to be.
 */
static void place_stashed(const struct wheel *wheel, const char *rest, char *ret_path)
{
	const char *open = strstr(rest, "pythonX.Y");
	size_t len = strcspn(rest, "/");

	if (wheel->stash_by_scheme && rest[len] == '/' && strncmp(rest, "bin/", 4) != 0 &&
	    strncmp(rest, "include/", 8) != 0 &&
	    place_in_scheme(wheel, rest, len, rest + len + 1, ret_path) == 0)
		return;
	if (open && (open == rest || open[-1] == '/') &&
	    (open[9] == '/' || open[9] == '\0'))
		(void)snprintf(ret_path, PATH_ROOM, "%.*spython3.%u%s",
			       (int)(open - rest), rest, wheel->tree->minor, open + 9);
	else
		(void)snprintf(ret_path, PATH_ROOM, "%s", rest);
}

/* Where a file of the wheel goes; an empty path: nowhere. */
static int place(const struct wheel *wheel, const char *path, char *ret_path,
		 struct thaw_error *err)
{
	size_t len = strcspn(path, "/");
	const char *rest = path + len + (path[len] == '/');
	size_t scheme = strcspn(rest, "/");

	if (wheel->installed &&
	    (strcmp(path, THAW_WHEEL_LAYOUT) == 0 || ends_with(path, len, PEX_NOTES))) {
		ret_path[0] = '\0';
	} else if (wheel->installed && len == strlen(STASH) &&
		   memcmp(path, STASH, len) == 0) {
		place_stashed(wheel, rest, ret_path);
	} else if (!wheel->installed && ends_with(path, len, ".data")) {
		if (rest[scheme] != '/' ||
		    place_in_scheme(wheel, rest, scheme, rest + scheme + 1, ret_path) !=
			    0)
			return thaw_refused(
				err, "\"%.200s\" of %.120s: there is no such scheme",
				path, wheel->name);
	} else {
		(void)snprintf(ret_path, PATH_ROOM, "%s/%s", wheel->tree->library, path);
	}
	return 0;
}

/* A script whose first line is "#!python...": to be found by the environment's own name. */
static int rewrite_script(struct wheel *wheel, const char *path,
			  const struct thaw_file *file, struct thaw_error *err)
{
	_cleanup_(freep) char *text = NULL;
	_cleanup_(freep) char *script = NULL;
	char *rest;
	size_t len;
	int r, n;

	r = thaw_file_load(thaw_gather_reader(wheel->tree->gather), file, SCRIPT_MAX, err,
			   &text, &len);
	if (r < 0)
		return r;
	rest = memchr(text, '\n', len);
	len = rest ? len - (size_t)(rest + 1 - text) : 0;
	n = (int)strlen(INTERPRETER_LINE);
	script = malloc((size_t)n + len);
	if (!script)
		return thaw_oom(err);
	memcpy(script, INTERPRETER_LINE, (size_t)n);
	if (len > 0)
		memcpy(script + n, rest + 1, len);
	return thaw_gather_bytes(wheel->tree->gather, path, script, (size_t)n + len, 0755,
				 err);
}

static int is_python_script(struct wheel *wheel, const struct thaw_file *file,
			    struct thaw_error *err)
{
	struct thaw_file_reader *reader = thaw_gather_reader(wheel->tree->gather);
	const uint8_t *data;
	size_t len;
	int r = thaw_file_begin(reader, file, err);

	if (r == 0)
		r = thaw_file_next(reader, err, &data, &len);
	return r < 0 ? r : len >= 8 && memcmp(data, "#!python", 8) == 0;
}

static int add_file(struct wheel *wheel, const struct thaw_file *file,
		    struct thaw_error *err)
{
	const char *path = folder_path(wheel->files, file);
	struct thaw_gather_proof proof = { 0 };
	const struct thaw_record_row *row = thaw_record_find(&wheel->record, path);
	char to[PATH_ROOM] = "";
	mode_t mode = file->mode;
	int r = 0;

	if (S_ISDIR(mode))
		return 0;
	r = place(wheel, path, to, err);
	if (r < 0)
		return r;
	if (to[0] == '\0') /* left out, but a damaged archive is a damaged one */
		return thaw_file_check(thaw_gather_reader(wheel->tree->gather), file,
				       err);
	if (row)
		proof = row->proof;
	if (S_ISREG(mode)) {
		bool script = strncmp(to, "bin/", 4) == 0;

		mode = S_IFREG | (script || (mode & 0111) ? 0755 : 0644);
		if (script)
			r = is_python_script(wheel, file, err);
	}
	if (r > 0) {
		r = rewrite_script(wheel, to, file, err);
		proof.has_sha256 = false;
	} else if (r == 0) {
		r = thaw_gather_file(wheel->tree->gather, to, file, mode, &proof, err);
		proof.size = file->size;
	}
	return r < 0 ? r : append_row(wheel, to, &proof, err);
}

/* Names in .dist-info that belong to whoever installs. */
static bool is_installers(const struct wheel *wheel, const char *path)
{
	size_t len = strlen(wheel->info);

	return thaw_is_below(path, wheel->info) &&
	       (strcmp(path + len + 1, "RECORD") == 0 ||
		strcmp(path + len + 1, "INSTALLER") == 0);
}

static int add_files(struct wheel *wheel, struct thaw_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < wheel->files->count; i++) {
		const struct thaw_file *file = &wheel->files->files[i];

		if (!is_installers(wheel, folder_path(wheel->files, file)))
			r = add_file(wheel, file, err);
	}
	return r;
}

/* What RECORD names must be there: else the wheel was cut short, or is a lie. */
static int check_complete(const struct wheel *wheel, struct thaw_error *err)
{
	for (size_t i = 0; i < wheel->record.count; i++) {
		const char *path = wheel->record.rows[i].path;
		size_t len = strlen(path);

		if (path[len - 1] != '/' && !thaw_folder_find(wheel->files, path))
			return thaw_damaged(
				err, "%.200s: has no \"%.200s\", which its RECORD names",
				wheel->name, path);
	}
	return 0;
}

/* -- scripts -- */

int thaw_wheel_start(const char *module, const char *object, char **ret_text)
{
	int head = object ? (int)strcspn(object, ".") : 0;
	int n;

	if (object)
		n = asprintf(ret_text,
			     INTERPRETER_LINE "import sys\n"
					      "\n"
					      "from %s import %.*s\n"
					      "\n"
					      "if __name__ == \"__main__\":\n"
					      "    sys.exit(%s())\n",
			     module, head, object, object);
	else
		n = asprintf(ret_text,
			     INTERPRETER_LINE
			     "import runpy\n"
			     "\n"
			     "if __name__ == \"__main__\":\n"
			     "    runpy.run_module(\"%s\", run_name=\"__main__\", "
			     "alter_sys=True)\n",
			     module);
	return n < 0 ? -ENOMEM : 0;
}

static int add_scripts(struct wheel *wheel, struct thaw_error *err)
{
	_cleanup_(freep) char *text = NULL;
	struct thaw_gather *gather = wheel->tree->gather;
	struct thaw_scripts scripts;
	size_t len;
	int r;

	r = load_info(gather, wheel->files, wheel->info, "entry_points.txt",
		      THAW_WHEEL_TEXT_MAX, err, &text, &len);
	if (r < 0 || !text)
		return r;
	r = thaw_gather_failure(wheel->name, thaw_scripts_parse(text, len, err, &scripts),
				err);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < scripts.count; i++) {
		_cleanup_(freep) char *script = NULL;
		char path[THAW_NAME_MAX + 8];

		(void)snprintf(path, sizeof(path), "bin/%s",
			       scripts.scripts[i].name); /* fits */
		/* PEX may have kept the script that its installer made. */
		if (thaw_gather_has_own(gather, path))
			continue;
		if (thaw_wheel_start(scripts.scripts[i].module, scripts.scripts[i].object,
				     &script) < 0)
			r = thaw_oom(err);
		if (r == 0)
			r = thaw_gather_bytes(gather, path, script, strlen(script), 0755,
					      err);
		if (r == 0)
			r = append_row(wheel, path, NULL, err);
	}
	thaw_scripts_deinit(&scripts);
	return r;
}

/* -- all of it -- */

/* The format of wheels has a version; another major one would mean other things. */
static int check_version(struct wheel *wheel, struct thaw_error *err)
{
	_cleanup_(freep) char *text = NULL;
	const char *value = NULL;
	size_t len;
	int r = load_info(wheel->tree->gather, wheel->files, wheel->info, "WHEEL",
			  THAW_WHEEL_TEXT_MAX, err, &text, &len);

	if (r < 0)
		return r;
	if (text)
		value = thaw_metadata_find(text, len, "Wheel-Version", &len);
	if (!value)
		return thaw_damaged(err,
				    "%.200s: does not say which version of wheel it is",
				    wheel->name);
	if (len < 2 || memcmp(value, "1.", 2) != 0)
		return thaw_refused(err,
				    "%.200s: is a wheel of version %.*s; thaw knows 1",
				    wheel->name, (int)len, value);
	return 0;
}

static int check_name(const struct wheel *wheel, struct thaw_error *err)
{
	const char *dash = strchr(wheel->name, '-');
	size_t len = strlen(wheel->info) - strlen(".dist-info");
	const char *version = memrchr(wheel->info, '-', len);

	if (!dash || !version || !same_project(wheel->name, dash, wheel->info, version))
		return thaw_damaged(err, "%.200s: holds another project, \"%.200s\"",
				    wheel->name, wheel->info);
	return 0;
}

static int add_record(struct wheel *wheel, struct thaw_error *err)
{
	struct thaw_gather *gather = wheel->tree->gather;
	char path[PATH_ROOM];
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s/INSTALLER", wheel->tree->library,
		       wheel->info);
	r = thaw_gather_bytes(gather, path, "thaw\n", 5, 0644, err);
	if (r == 0)
		r = append_row(wheel, path, NULL, err);
	(void)snprintf(path, sizeof(path), "%s/%s/RECORD", wheel->tree->library,
		       wheel->info);
	if (r == 0)
		r = append_row(wheel, path, NULL, err);
	return r < 0 ? r
		     : thaw_gather_bytes(gather, path, wheel->rows, wheel->rows_len, 0644,
					 err);
}

/* Which version of PEX stashed it shows in what it notes about the installation. */
static int read_layout(struct wheel *wheel, struct thaw_error *err)
{
	const struct thaw_file *file = thaw_folder_find(wheel->files, THAW_WHEEL_LAYOUT);
	_cleanup_(freep) char *text = NULL;
	json_t *layout;
	size_t len;
	int r;

	if (!file)
		return 0;
	r = thaw_file_load(thaw_gather_reader(wheel->tree->gather), file, LAYOUT_MAX, err,
			   &text, &len);
	if (r < 0)
		return r;
	layout = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (!layout)
		return thaw_damaged(err, "\"%.200s\": is no JSON", file->path);
	wheel->stash_by_scheme = json_object_get(layout, "sys_path_entries") != NULL;
	json_decref(layout);
	return 0;
}

static int add_all(struct wheel *wheel, struct thaw_error *err)
{
	struct thaw_gather *gather = wheel->tree->gather;
	char *text;
	size_t len;
	int r;

	r = wheel->installed ? read_layout(wheel, err) : check_name(wheel, err);
	if (r == 0 && !wheel->installed)
		r = check_version(wheel, err);
	if (r < 0)
		return r;
	r = load_info(gather, wheel->files, wheel->info, "RECORD", THAW_RECORD_MAX, err,
		      &text, &len);
	if (r < 0)
		return r;
	if (text)
		r = thaw_gather_failure(wheel->name,
					thaw_record_parse(text, len, err, &wheel->record),
					err);
	else if (!wheel->installed)
		r = thaw_damaged(err, "%.200s: has no RECORD", wheel->name);
	if (r == 0 && !wheel->installed)
		r = check_complete(wheel, err);
	if (r == 0)
		r = note_requires(wheel, err);
	if (r == 0)
		r = add_files(wheel, err);
	if (r == 0)
		r = add_scripts(wheel, err);
	return r < 0 ? r : add_record(wheel, err);
}

int thaw_wheel_add(struct thaw_wheel_tree *tree, const struct thaw_folder *files,
		   const char *name, bool installed, struct thaw_error *err)
{
	struct wheel wheel = {
		.tree = tree,
		.files = files,
		.name = name,
		.installed = installed,
	};
	int r = thaw_gather_origin(tree->gather, name, err);

	if (r == 0)
		r = find_info(files, name, err, wheel.info);
	if (r == 0)
		r = add_all(&wheel, err);
	thaw_record_deinit(&wheel.record);
	free(wheel.rows);
	return r;
}
