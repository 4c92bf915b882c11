/* SPDX-License-Identifier: Apache-2.0 */
/* Installed distributions of an image. */
#include "packages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/growing.h"

/* Names and versions come first in these files; descriptions can be long. */
#define HEADERS_MAX 65536u
#define FIELD_MAX   256u

static bool ends_with(struct thaw_name name, const char *suffix)
{
	size_t len = strlen(suffix);

	return name.len > len && memcmp(name.text + name.len - len, suffix, len) == 0;
}

/* A copy that is printable ASCII: metadata is what somebody wrote. */
static char *copy_field(const char *text, size_t len)
{
	char *copy;

	len = len > FIELD_MAX ? FIELD_MAX : len;
	copy = malloc(len + 1);
	if (!copy)
		return NULL;
	for (size_t i = 0; i < len; i++)
		copy[i] = text[i] > 32 && text[i] < 127 ? text[i] : '?';
	copy[len] = '\0';
	return copy;
}

static char *make_key(const char *name)
{
	char *key = malloc(strlen(name) + 1), *to = key;

	if (!key)
		return NULL;
	for (const char *p = name; *p; p++) {
		if (*p == '-' || *p == '_' || *p == '.') {
			if (to > key && to[-1] != '-')
				*to++ = '-';
		} else {
			*to++ = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
		}
	}
	*to = '\0';
	return key;
}

static void deinit_package(struct tool_package *package)
{
	free(package->name);
	free(package->key);
	free(package->version);
}

static int add_package(struct tool_packages *packages, uint32_t ino, const char *name,
		       size_t name_len, const char *version, size_t version_len)
{
	struct tool_package package = { .ino = ino };
	void *items = packages->items;

	if (grow(&items, &packages->capacity, packages->count + 1, sizeof(package)) < 0)
		return -ENOMEM;
	packages->items = items;
	package.name = copy_field(name, name_len);
	package.version = copy_field(version, version_len);
	package.key = package.name ? make_key(package.name) : NULL;
	if (!package.key || !package.version) {
		deinit_package(&package);
		return -ENOMEM;
	}
	packages->items[packages->count++] = package;
	return 0;
}

/* The value of "Field: value" among the headers, which end with an empty line. */
static bool find_field(const char *text, size_t len, const char *field,
		       const char **ret_value, size_t *ret_len)
{
	const char *end = text + len;
	size_t field_len = strlen(field);

	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;

		if (stop > text && stop[-1] == '\r')
			stop--;
		if (stop == text)
			return false;
		if ((size_t)(stop - text) > field_len && text[field_len] == ':' &&
		    strncasecmp(text, field, field_len) == 0) {
			text += field_len + 1;
			while (text < stop && (*text == ' ' || *text == '\t'))
				text++;
			while (stop > text && (stop[-1] == ' ' || stop[-1] == '\t'))
				stop--;
			*ret_value = text;
			*ret_len = (size_t)(stop - text);
			return stop > text;
		}
		text = newline ? newline + 1 : end;
	}
	return false;
}

/* NAME-VERSION of the directory's own name; a version is not obligatory. */
static int add_by_directory(struct tool_packages *packages, uint32_t ino,
			    struct thaw_name directory)
{
	size_t len = directory.len - strlen(".dist-info"); /* .egg-info is no longer */
	const char *dash, *version;

	if (ends_with(directory, ".egg-info"))
		len = directory.len - strlen(".egg-info");
	dash = memchr(directory.text, '-', len);
	if (!dash)
		return add_package(packages, ino, directory.text, len, "", 0);
	version = dash + 1;
	/* eggs: NAME-VERSION-pyX.Y */
	len -= (size_t)(version - directory.text);
	dash = memchr(version, '-', len);
	return add_package(packages, ino, directory.text,
			   (size_t)(version - 1 - directory.text), version,
			   dash ? (size_t)(dash - version) : len);
}

static int add_directory(const struct thaw_image *image, struct thaw_reader *reader,
			 char *buf, const struct thaw_inode *inode,
			 struct thaw_name directory, struct tool_packages *packages,
			 struct thaw_error *err)
{
	const char *file = ends_with(directory, ".dist-info") ? "METADATA" : "PKG-INFO";
	const char *name, *version;
	size_t n = 0, name_len, version_len;
	struct thaw_inode metadata;
	int r;

	r = thaw_image_lookup(image, inode->ino, file, strlen(file), &metadata);
	if (r == 0 && metadata.type == THAW_REGULAR) {
		r = thaw_reader_read(reader, &metadata, 0, buf, HEADERS_MAX, err, &n);
		if (r < 0)
			return r;
	}
	if (n > 0 && find_field(buf, n, "Name", &name, &name_len) &&
	    find_field(buf, n, "Version", &version, &version_len))
		return add_package(packages, inode->ino, name, name_len, version,
				   version_len);
	return add_by_directory(packages, inode->ino, directory);
}

/*
 * What conda installed: conda-meta/NAME-VERSION-BUILD.json. A Python package has
 * metadata of its own as well, and is there already: once is enough.
 */
static int add_conda(const struct thaw_image *image, struct tool_packages *packages)
{
	size_t found_before = packages->count;
	struct thaw_inode directory, child;
	struct thaw_name name;

	if (thaw_image_lookup(image, THAW_ROOT, "conda-meta", 10, &directory) != 0 ||
	    directory.type != THAW_DIRECTORY)
		return 0;
	for (uint64_t i = 0; i < directory.size; i++) {
		const char *build, *version;
		bool known = false;
		size_t len;
		int r;

		thaw_image_child(image, &directory, i, &name, &child);
		if (child.type != THAW_REGULAR || !ends_with(name, ".json"))
			continue;
		len = name.len - strlen(".json");
		build = memrchr(name.text, '-', len);
		version = build ? memrchr(name.text, '-', (size_t)(build - name.text)) : NULL;
		if (!version || version == name.text)
			continue;
		version++;
		r = add_package(packages, child.ino, name.text,
				(size_t)(version - 1 - name.text), version,
				(size_t)(build - version));
		if (r < 0)
			return r;
		for (size_t j = 0; j < found_before && !known; j++)
			known = strcmp(packages->items[j].key,
				       packages->items[packages->count - 1].key) == 0;
		if (known)
			deinit_package(&packages->items[--packages->count]);
	}
	return 0;
}

static int compare_packages(const void *a, const void *b)
{
	const struct tool_package *x = a, *y = b;
	int order = strcmp(x->key, y->key);

	if (order == 0)
		order = strcmp(x->version, y->version);
	return order ? order : (x->ino > y->ino) - (x->ino < y->ino);
}

/* A directory that lies in somebody's own copies of others' packages. */
static bool is_vendored(const struct thaw_image *image, struct thaw_inode inode)
{
	while (inode.ino != THAW_ROOT) {
		struct thaw_inode parent, child;
		struct thaw_name name;

		if (thaw_image_inode(image, inode.parent, &parent) < 0)
			return false; /* cannot be: the index was checked */
		thaw_image_child(image, &parent, inode.ino - parent.data, &name, &child);
		if (name.len == 7 && memcmp(name.text, "_vendor", 7) == 0)
			return true;
		inode = parent;
	}
	return false;
}

int tool_packages_find(const struct thaw_image *image, struct thaw_reader *reader,
		       struct thaw_error *err, struct tool_packages *ret_packages)
{
	uint32_t inodes = thaw_image_info(image)->inodes;
	_cleanup_(freep) char *buf = malloc(HEADERS_MAX);
	struct tool_packages packages = { 0 };
	int r = buf ? 0 : thaw_oom(err);

	for (uint32_t ino = THAW_ROOT; r == 0 && ino < inodes; ino++) {
		struct thaw_inode directory, child;
		struct thaw_name name;

		if (thaw_image_inode(image, ino, &directory) < 0 ||
		    directory.type != THAW_DIRECTORY)
			continue;
		for (uint64_t i = 0; r == 0 && i < directory.size; i++) {
			thaw_image_child(image, &directory, i, &name, &child);
			if (child.type != THAW_DIRECTORY ||
			    (!ends_with(name, ".dist-info") &&
			     !ends_with(name, ".egg-info")) ||
			    is_vendored(image, child))
				continue;
			r = add_directory(image, reader, buf, &child, name, &packages,
					  err);
			if (r == -ENOMEM)
				r = thaw_oom(err);
		}
	}
	if (r == 0 && add_conda(image, &packages) < 0)
		r = thaw_oom(err);
	if (r < 0) {
		tool_packages_deinit(&packages);
		return r;
	}
	if (packages.count)
		qsort(packages.items, packages.count, sizeof(*packages.items),
		      compare_packages);
	*ret_packages = packages;
	return 0;
}

void tool_packages_deinit(struct tool_packages *packages)
{
	for (size_t i = 0; i < packages->count; i++)
		deinit_package(&packages->items[i]);
	free(packages->items);
	*packages = (struct tool_packages){ 0 };
}
