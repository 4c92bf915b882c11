/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytecode of relocated sources.
 *
 * Each is compiled three times: as it is in the stream, and as it is at two
 * prefixes that no view has. From the first comes the bytecode that is kept, with
 * the places of the path in it; and if that, rendered for the two, is what the
 * compiler made for them, byte for byte, it is right for others as well. A
 * compiler that folds a constant with the path's length, or its tenth character, is found
 * out by that, and so is a path that stands in something else than text.
 *
 * Positions of columns would be others at each prefix: they are left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compile-internal.h"
#include "thaw/bytecode.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

#define PYC_HEADER 16u /* PEP 552: magic, flags, and the hash of a source, which differs */

#define TEN(text) text text text text text text text text text text
/*
 * The stream's own; one that is shorter than most; one that makes short strings
 * long and ASCII ones UTF-8, with blanks in it.
 */
static const char *const prefixes[RELOCATED_STAGES] = {
	NULL,
	"/x/thaw",
	"/" TEN("a l\xc3\xb6ng path \xf0\x9f\x90\x8d/ with bl\xc3\xa4nks in it/"),
};

void relocated_deinit(struct relocated_sources *sources)
{
	for (size_t i = 0; i < sources->count; i++)
		free(sources->items[i].path);
	free(sources->items);
	*sources = (struct relocated_sources){ 0 };
}

int relocated_add(struct relocated_sources *sources, const struct subject *subject,
		  uint32_t directory, struct thaw_name name, uint32_t ino,
		  struct thaw_error *err)
{
	char path[THAW_PATH_MAX + 2];
	struct relocated_source source = { .ino = ino };
	_cleanup_(freep) char *text = NULL;
	size_t size;
	int r;

	r = thaw_bytecode_source(subject->image, subject->reader, ino, NULL, err, &text,
				 &size);
	if (r < 0)
		return r;
	if (r == THAW_NOT_FOUND) {
		sources->hidden++;
		return 0;
	}
	thaw_image_path(subject->image, directory, path, sizeof(path));
	if (strchr(path, '\n'))
		return 0; /* as for all others */
	if (asprintf(&source.path, "%s/%.*s", path, (int)name.len, name.text) < 0)
		return thaw_oom(err);
	if (grow(&sources->items, &sources->capacity, sources->count + 1,
		 sizeof(source)) < 0) {
		free(source.path);
		return thaw_oom(err);
	}
	sources->items[sources->count++] = source;
	return 0;
}

void relocated_choose(struct relocated_sources *sources, const struct subject *subject)
{
	struct thaw_inode inode;
	unsigned number = 0;

	do
		(void)snprintf(sources->directory, sizeof(sources->directory),
			       ".thaw-compile-%u", number++);
	while (thaw_image_lookup(subject->image, THAW_ROOT, sources->directory,
				 strlen(sources->directory), &inode) == 0);
}

/* -- in the child, inside of the view -- */

/* The directories of a path; what is there already is ours. */
static int make_directories(char *path, size_t from)
{
	for (char *slash = strchr(path + from, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		int r;

		*slash = '\0';
		r = mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
		*slash = '/';
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_source(const struct subject *subject,
			const struct relocated_source *source, const char *prefix,
			const char *path, struct thaw_error *err)
{
	_cleanup_(closep) int fd = open(
		path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	_cleanup_(freep) char *text = NULL;
	size_t size = 0;
	int r;

	if (fd < 0)
		return thaw_io(err, -errno, "%s: cannot be copied", source->path);
	r = thaw_bytecode_source(subject->image, subject->reader, source->ino, prefix,
				 err, &text, &size);
	if (r < 0)
		return r;
	r = r == 0 ? write_all(fd, text, size) : -EINVAL; /* it was one before */
	return r < 0 ? thaw_io(err, r, "%s: cannot be copied", source->path) : 0;
}

int relocated_stage(const struct relocated_sources *sources, const struct subject *subject,
		    const char *view, unsigned stage, int list, char **ret_top,
		    struct thaw_error *err)
{
	_cleanup_(freep) char *top = NULL;
	FILE *file;
	bool ok;
	int copy, r = 0;

	if (asprintf(&top, "%s/%s/%u", view, sources->directory, stage) < 0)
		return thaw_oom(err);
	copy = dup(list);
	file = copy < 0 ? NULL : fdopen(copy, "w");
	if (!file) {
		(void)safe_close(copy);
		return thaw_oom(err);
	}
	for (size_t i = 0; r == 0 && i < sources->count; i++) {
		_cleanup_(freep) char *path = NULL;

		if (asprintf(&path, "%s/%s", top, sources->items[i].path) < 0) {
			path = NULL;
			r = thaw_oom(err);
			break;
		}
		r = make_directories(path, strlen(view) + 1);
		if (r < 0)
			r = thaw_io(err, r, "%s: cannot be copied",
				    sources->items[i].path);
		else
			r = write_source(subject, &sources->items[i], prefixes[stage],
					 path, err);
		(void)fprintf(file, "%s\n", path); /* checked by ferror() */
	}
	ok = !ferror(file);
	if ((fclose(file) != 0 || !ok || lseek(list, 0, SEEK_SET) < 0) && r == 0)
		r = thaw_io(err, -EIO, "no list can be written");
	if (r == 0)
		*ret_top = steal_ptr(top);
	return r;
}

/* -- what came of it -- */

/* "a/b.py" -> "a/__pycache__/b.TAG.pyc", beneath top if there is one. */
static char *pyc_path(const struct subject *subject, const char *top, const char *source)
{
	const char *name = strrchr(source, '/') + 1; /* none is at the top */
	char *path;

	return asprintf(&path, "%s%.*s__pycache__/%.*s.%s.pyc", top,
			(int)(name - source), source, (int)strlen(name) - 3, name,
			subject->tag) < 0
		       ? NULL
		       : path;
}

static int find_pyc(const struct thaw_gathered *gathered,
		    const struct relocated_sources *sources,
		    const struct subject *subject, const struct relocated_source *source,
		    unsigned stage, struct thaw_addition **ret_file)
{
	_cleanup_(freep) char *path = NULL;
	char top[sizeof(sources->directory) + 16];

	(void)snprintf(top, sizeof(top), "%s/%u/", sources->directory, stage);
	path = pyc_path(subject, top, source->path);
	if (!path)
		return -ENOMEM;
	for (size_t i = 0; i < gathered->count; i++) {
		if (strcmp(gathered->files[i].path, path) != 0)
			continue;
		*ret_file = &gathered->files[i];
		return 0;
	}
	return THAW_NOT_FOUND;
}

/* Is the bytecode, rendered, what was compiled at this prefix? 0, or THAW_NOT_FOUND. */
static int compare_stage(const struct thaw_addition *pyc, const struct thaw_site *sites,
			 size_t count, const struct thaw_addition *expected,
			 const char *prefix)
{
	const struct thaw_bytecode_sites all = { .array = sites, .count = count };
	_cleanup_(freep) uint8_t *data = NULL;
	size_t size;
	int r = thaw_bytecode_render(pyc->data, pyc->size, &all, prefix, &data, &size);

	if (r == 0 &&
	    (size != expected->size || size < PYC_HEADER ||
	     memcmp(data + PYC_HEADER, expected->data + PYC_HEADER, size - PYC_HEADER)))
		return THAW_NOT_FOUND;
	return r == -EBADMSG ? THAW_NOT_FOUND : r;
}

/* 0: it is right at every prefix; THAW_NOT_FOUND: it is not; *ret_compiled: there is any. */
static int prove(const struct relocated_sources *sources, const struct subject *subject,
		 const struct relocated_source *source, struct thaw_gathered *gathered,
		 bool *ret_compiled)
{
	struct thaw_addition *pyc, *other;
	struct thaw_site *sites;
	size_t count;
	char *path;
	int r;

	*ret_compiled = false;
	r = find_pyc(gathered, sources, subject, source, 0, &pyc);
	if (r != 0)
		return r;
	*ret_compiled = true;
	r = thaw_bytecode_sites(subject->image, source->ino, pyc->data, pyc->size, &sites,
				&count);
	if (r != 0)
		return r;
	for (unsigned stage = 1; r == 0 && stage < RELOCATED_STAGES; stage++) {
		r = find_pyc(gathered, sources, subject, source, stage, &other);
		if (r == 0)
			r = compare_stage(pyc, sites, count, other, prefixes[stage]);
	}
	path = r == 0 ? pyc_path(subject, "", source->path) : NULL;
	if (!path) {
		free(sites);
		return r == 0 ? -ENOMEM : r;
	}
	free((void *)pyc->path);
	pyc->path = path;
	pyc->sites = sites;
	pyc->site_count = count;
	return 0;
}

int relocated_gather(const struct relocated_sources *sources,
		     const struct subject *subject, struct thaw_gathered *gathered,
		     struct relocated_result *ret_result, struct thaw_error *err)
{
	struct relocated_result result = { .hidden = sources->hidden };

	for (size_t i = 0; i < sources->count; i++) {
		bool compiled;
		int r = prove(sources, subject, &sources->items[i], gathered, &compiled);

		if (r < 0)
			return thaw_oom(err); /* nothing else makes it fail */
		result.compiled += r == 0;
		result.hidden += r != 0 && compiled;
		result.failed += !compiled;
	}
	*ret_result = result;
	return 0;
}
