/* SPDX-License-Identifier: Apache-2.0 */
/* Gathering an interpreter and its standard library: see thaw/with-python.h. */
#include "thaw/with-python.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf-file.h"
#include "python-constraint.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define SIZE_MAX_ALL (1ull << 30) /* held in memory; real ones have 40 MB */
#define RUNPATH	     "$ORIGIN/../lib"

/*
 * Debian's interpreters look for packages in dist-packages, and a venv's are in
 * site-packages. A .pth file in the one leads to the other, and has the .pth files
 * there read as well.
 */
#define DEBIAN_PTH \
	"import os, site; site.addsitedir(os.path.join(sitedir, '..', 'site-packages'))\n"

/* Without "home" there is no virtual environment: Python looks from its own place. */
#define PYVENV_CFG                                                   \
	"# The interpreter and its library are in this directory.\n" \
	"include-system-site-packages = false\n"

struct gather {
	struct thaw_python_files files;
	const struct thaw_interpreter *interpreter;
	char lib[64];	   /* "lib/python3.11" */
	char tag[32];	   /* "cpython-311" */
	json_t *libraries; /* needed of nodes: names as keys */
};

static int add(struct gather *gather, const char *path, uint8_t *data, size_t size,
	       const struct stat *st, unsigned mode, const char *link,
	       struct thaw_error *err)
{
	struct thaw_python_files *files = &gather->files;
	struct thaw_addition addition = {
		.path = strdup(path),
		.data = data,
		.size = size,
		.mtime = st ? (uint32_t)st->st_mtim.tv_sec : 0,
		.mode = mode,
		.link = link ? strdup(link) : NULL,
	};

	files->size += size;
	if (!addition.path || (link && !addition.link) ||
	    grow(&files->files, &files->capacity, files->count + 1, sizeof(addition)) <
		    0) {
		free((void *)addition.path);
		free((void *)addition.link);
		free(data);
		return thaw_oom(err);
	}
	files->files[files->count++] = addition;
	if (files->size > SIZE_MAX_ALL)
		return thaw_limit(err, "the interpreter's library is larger than 1 GiB");
	return 0;
}

static int add_text(struct gather *gather, const char *path, const char *text,
		    struct thaw_error *err)
{
	size_t len = strlen(text);
	uint8_t *data = malloc(len + 1);

	if (!data)
		return thaw_oom(err);
	memcpy(data, text, len);
	return add(gather, path, data, len, NULL, 0644, NULL, err);
}

static int read_file(const char *path, struct thaw_error *err, uint8_t **ret_data,
		     struct stat *ret_st)
{
	_cleanup_(closep) int fd = open(path,
					O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	_cleanup_(freep) uint8_t *data = NULL;
	size_t done = 0;

	if (fd < 0 || fstat(fd, ret_st) < 0)
		return thaw_io(err, -errno, "\"%.300s\" cannot be read", path);
	if (!S_ISREG(ret_st->st_mode) || (uint64_t)ret_st->st_size > SIZE_MAX_ALL)
		return thaw_refused(err, "\"%.300s\" is no file of a library", path);
	data = malloc((size_t)ret_st->st_size + 1);
	if (!data)
		return thaw_oom(err);
	while (done < (size_t)ret_st->st_size) {
		ssize_t n = read(fd, data + done, (size_t)ret_st->st_size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return thaw_io(err, n < 0 ? -errno : -EIO,
				       "\"%.300s\" cannot be read", path);
		done += (size_t)n;
	}
	*ret_data = steal_ptr(data);
	return 0;
}

/* -- executables -- */

/* The parts of the C library are everywhere, and those of one machine do not fit another. */
static bool is_of_libc(const char *name)
{
	static const char *const names[] = { "libc.so",	   "libm.so",	 "libpthread.so",
					     "libdl.so",   "libutil.so", "librt.so",
					     "ld-linux",   "libgcc_s",	 "libstdc++",
					     "libpython",  "linux-vdso", "libresolv.so",
					     "libcrypt.so" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(name, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static void note_libraries(struct gather *gather, uint8_t *data, size_t size)
{
	struct elf_file elf;

	if (size < 4 || memcmp(data, "\177ELF", 4) != 0 ||
	    !elf_file_parse(data, size, &elf))
		return;
	for (size_t i = 0; i < elf.needed_count; i++)
		if (!is_of_libc(elf.needed[i]))
			/* short of memory: a name less for people */
			(void)json_object_set_new(gather->libraries, elf.needed[i],
						  json_true());
}

/*
 * An executable that loads libpython must find it beside itself. Its run path
 * names the directory of the original; "$ORIGIN/../lib" is mostly shorter, so
 * that it can be written over it.
 */
static int point_at_own_library(const struct elf_file *elf, struct thaw_error *err)
{
	size_t len = elf->runpath ? strlen(elf->runpath) : 0;

	if (elf->runpath && strstr(elf->runpath, RUNPATH))
		return 0;
	if (len < strlen(RUNPATH))
		return thaw_refused(
			err,
			"this interpreter loads its libpython by a path that cannot be "
			"changed; --python names another (uv's and pyenv's can be "
			"taken along)");
	memset(elf->runpath, 0, len);
	memcpy(elf->runpath, RUNPATH, strlen(RUNPATH));
	return 0;
}

static int add_libpython(struct gather *gather, struct thaw_error *err)
{
	const char *shared = gather->interpreter->shared, *slash;
	uint8_t *data = NULL;
	char path[THAW_PATH_MAX + 1];
	struct stat st;
	int r;

	if (!shared)
		return thaw_refused(err,
				    "the interpreter's libpython is not where it says");
	slash = strrchr(shared, '/');
	r = read_file(shared, err, &data, &st);
	if (r < 0)
		return r;
	note_libraries(gather, data, (size_t)st.st_size);
	(void)snprintf(path, sizeof(path), "lib%s", slash); /* shorter than it was */
	return add(gather, path, data, (size_t)st.st_size, &st, 0755, NULL, err);
}

static int add_executable(struct gather *gather, const struct thaw_binding *binding,
			  struct thaw_error *err)
{
	const struct thaw_interpreter *interpreter = gather->interpreter;
	static const char *const always[] = { "python3", "python" };
	char path[64], link[64];
	struct elf_file elf;
	uint8_t *data = NULL;
	bool shared = false;
	struct stat st;
	int r;

	r = read_file(interpreter->executable, err, &data, &st);
	if (r < 0)
		return r;
	if (!elf_file_parse(data, (size_t)st.st_size, &elf)) {
		free(data);
		return thaw_refused(err,
				    "\"%.300s\" is no executable of a 64-bit machine",
				    interpreter->executable);
	}
	note_libraries(gather, data, (size_t)st.st_size);
	for (size_t i = 0; i < elf.needed_count; i++)
		shared |= strncmp(elf.needed[i], "libpython", 9) == 0;
	r = shared ? point_at_own_library(&elf, err) : 0;
	if (r < 0) {
		free(data);
		return r;
	}
	(void)snprintf(path, sizeof(path), "bin/python%s", interpreter->python);
	r = add(gather, path, data, (size_t)st.st_size, &st, 0755, NULL, err);
	if (r == 0 && shared)
		r = add_libpython(gather, err);
	for (size_t i = 0; r == 0 && i < 2; i++) {
		(void)snprintf(link, sizeof(link), "bin/%s", always[i]);
		r = add(gather, link, NULL, 0, NULL, 0755, path, err);
	}
	for (size_t i = 0; r == 0 && i < binding->link_count; i++) {
		(void)snprintf(link, sizeof(link), "bin/%s", binding->links[i]);
		if (strcmp(link, path) != 0 && strcmp(binding->links[i], "python") != 0 &&
		    strcmp(binding->links[i], "python3") != 0)
			r = add(gather, link, NULL, 0, NULL, 0755, path, err);
	}
	return r;
}

/* -- the library -- */

/* What no environment carries: the machine's packages, tests, the static library. */
static bool is_left_out(const FTSENT *entry)
{
	static const char *const top[] = {
		"site-packages",      "dist-packages",	 "test", "idlelib", "turtledemo",
		"EXTERNALLY-MANAGED", "sitecustomize.py"
	};
	const char *name = entry->fts_name;

	if (entry->fts_level == 1) {
		for (size_t i = 0; i < sizeof(top) / sizeof(top[0]); i++)
			if (strcmp(name, top[i]) == 0)
				return true;
		if (strncmp(name, "config-", 7) == 0)
			return true;
	}
	return (entry->fts_info == FTS_D &&
		(strcmp(name, "tests") == 0 || strcmp(name, "idle_test") == 0)) ||
	       (strncmp(name, "libpython", 9) == 0 && strstr(name, ".a"));
}

/* A .pyc that this interpreter takes, of a source that is beside it with this mtime. */
static bool is_wanted_pyc(const struct gather *gather, const FTSENT *entry)
{
	char name[300];

	if (strncmp(entry->fts_name, "sitecustomize.", 14) == 0)
		return false; /* its source is left out */
	(void)snprintf(name, sizeof(name), ".%s.pyc", gather->tag);
	return strlen(entry->fts_name) > strlen(name) &&
	       strcmp(entry->fts_name + strlen(entry->fts_name) - strlen(name), name) ==
		       0;
}

static int add_library_file(struct gather *gather, const char *root, const char *to,
			    const FTSENT *entry, struct thaw_error *err)
{
	char path[THAW_PATH_MAX + 1];
	const char *relative = entry->fts_path + strlen(root);
	uint8_t *data = NULL;
	struct stat st;
	int r;

	if (strcmp(entry->fts_parent->fts_name, "__pycache__") == 0 &&
	    !is_wanted_pyc(gather, entry))
		return 0;
	if (snprintf(path, sizeof(path), "%s%s", to, relative) > (int)THAW_PATH_MAX)
		return thaw_refused(err, "\"%.300s\": too long a path", entry->fts_path);
	r = read_file(entry->fts_accpath, err, &data, &st);
	if (r < 0)
		return r;
	note_libraries(gather, data, (size_t)st.st_size);
	return add(gather, path, data, (size_t)st.st_size, &st,
		   st.st_mode & 0100 ? 0755 : 0644, NULL, err);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* All below root, as below `to`. Symlinks to files are files; dangling ones are left out. */
static int add_tree(struct gather *gather, const char *root, const char *to,
		    struct thaw_error *err)
{
	char *const roots[] = { (char *)root, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	FTSENT *entry;
	int r = 0;

	if (!fts)
		return thaw_io(err, -errno, "\"%.300s\" cannot be read", root);
	while (r == 0 && (entry = fts_read(fts)) != NULL) {
		struct stat st;

		if (entry->fts_level > 0 && is_left_out(entry))
			(void)fts_set(fts, entry, FTS_SKIP); /* an option that exists */
		else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR)
			r = thaw_io(err, -entry->fts_errno, "\"%.300s\" cannot be read",
				    entry->fts_path);
		else if (entry->fts_info == FTS_F ||
			 (entry->fts_info == FTS_SL &&
			  stat(entry->fts_accpath, &st) == 0 && S_ISREG(st.st_mode)))
			r = add_library_file(gather, root, to, entry, err);
	}
	(void)fts_close(fts);
	return r;
}

/* Its site module asks for dist-packages? */
static int add_debian(struct gather *gather, struct thaw_error *err)
{
	char path[128], site[100];

	(void)snprintf(site, sizeof(site), "%s/site.py", gather->lib);
	for (size_t i = 0; i < gather->files.count; i++) {
		const struct thaw_addition *file = &gather->files.files[i];

		if (strcmp(file->path, site) != 0 ||
		    !memmem(file->data, file->size, "dist-packages", 13))
			continue;
		(void)snprintf(path, sizeof(path), "%s/dist-packages/site-packages.pth",
			       gather->lib);
		return add_text(gather, path, DEBIAN_PTH, err);
	}
	return 0;
}

static int add_all(struct gather *gather, const struct thaw_binding *binding,
		   struct thaw_error *err)
{
	const struct thaw_interpreter *interpreter = gather->interpreter;
	char dynload[80];
	int r;

	r = add_executable(gather, binding, err);
	if (r == 0)
		r = add_tree(gather, interpreter->library, gather->lib, err);
	(void)snprintf(dynload, sizeof(dynload), "%s/lib-dynload", gather->lib);
	/* Elsewhere on some: lib64 beside lib. */
	if (r == 0 && interpreter->dynload &&
	    strncmp(interpreter->dynload, interpreter->library,
		    strlen(interpreter->library)) != 0)
		r = add_tree(gather, interpreter->dynload, dynload, err);
	if (r == 0)
		r = add_debian(gather, err);
	return r == 0 ? add_text(gather, "pyvenv.cfg", PYVENV_CFG, err) : r;
}

/* -- */

static char *list_libraries(const json_t *libraries)
{
	char *text = NULL, *longer;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)libraries, name, value)
	{
		if (asprintf(&longer, "%s%s%s", text ? text : "", text ? ", " : "",
			     name) < 0)
			break;
		free(text);
		text = longer;
	}
	return text;
}

static int describe(struct gather *gather, struct thaw_error *err)
{
	json_t *meta = json_pack("{s:b, s:s}", "interpreter", 1, "python_version",
				 gather->interpreter->version);

	gather->files.meta = meta ? json_dumps(meta, JSON_COMPACT | JSON_SORT_KEYS)
				  : NULL;
	json_decref(meta);
	gather->files.libraries = list_libraries(gather->libraries);
	return gather->files.meta ? 0 : thaw_oom(err);
}

/* Venvs have lib64 as a link to lib: then what belongs to either is in lib. */
static bool has_lib64(const struct thaw_image *image)
{
	struct thaw_inode inode;

	return thaw_image_find(image, "lib64", &inode) != 0 ||
	       inode.type == THAW_DIRECTORY;
}

static int gather_files(const struct thaw_image *image,
			const struct thaw_binding *binding, const char *executable,
			struct gather *gather, struct thaw_error *err)
{
	struct thaw_interpreter interpreter;
	unsigned major, minor;
	int r;

	r = thaw_interpreter_ask(executable, err, &interpreter);
	if (r < 0)
		return r;
	gather->interpreter = &interpreter;
	(void)snprintf(gather->lib, sizeof(gather->lib), "%s/python%s",
		       strcmp(interpreter.platlibdir, "lib64") == 0 && has_lib64(image)
			       ? "lib64"
			       : "lib",
		       interpreter.python);
	if (sscanf(interpreter.python, "%1u.%3u", &major, &minor) == 2)
		(void)snprintf(gather->tag, sizeof(gather->tag), "cpython-%u%u%s", major,
			       minor, strchr(interpreter.python, 't') ? "t" : "");
	if (strcmp(interpreter.python, binding->python) != 0)
		r = thaw_refused(err, "\"%.300s\" is Python %s, not %s", executable,
				 interpreter.python, binding->python);
	else if (!thaw_python_allowed(binding->constraints, interpreter.version))
		r = thaw_refused(err, "\"%.300s\" is Python %s, not %.200s", executable,
				 interpreter.version, binding->constraints);
	if (r == 0)
		r = add_all(gather, binding, err);
	if (r == 0)
		r = describe(gather, err);
	thaw_interpreter_deinit(&interpreter);
	return r;
}

int thaw_python_gather(const struct thaw_image *image, const char *executable,
		       struct thaw_error *err, struct thaw_python_files *ret_files)
{
	struct gather gather = { .libraries = json_object() };
	struct thaw_binding binding;
	int r = gather.libraries ? thaw_binding_load(image, err, &binding)
				 : thaw_oom(err);

	if (r == THAW_NOT_FOUND)
		r = thaw_refused(err,
				 "is no virtual environment that lacks an interpreter");
	if (r == 0) {
		r = gather_files(image, &binding, executable, &gather, err);
		thaw_binding_deinit(&binding);
	}
	json_decref(gather.libraries);
	if (r < 0)
		thaw_python_files_deinit(&gather.files);
	else
		*ret_files = gather.files;
	return r;
}

void thaw_python_files_deinit(struct thaw_python_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		free((void *)files->files[i].path);
		free((void *)files->files[i].data);
		free((void *)files->files[i].link);
	}
	free(files->files);
	free(files->meta);
	free(files->libraries);
	*files = (struct thaw_python_files){ 0 };
}
