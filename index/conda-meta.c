/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conda-meta/NAME.json: what the packages of a live prefix say about their files.
 *
 * A package names the files into which a path was built, how, and how long that
 * path was; by now the prefix stands there. Scripts that conda made for
 * a package's entry points, and files that no package names (pip's), are looked at
 * if they are text: that is what conda-pack does with them.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "conda.h"
#include "util/cleanup.h"

struct meta {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_error *err;
	struct thaw_conda_wants *wants;
	const char *prefix;
	uint8_t *managed; /* a bit for each inode: a package names it */
	uint64_t records, missing;
};

int thaw_conda_read(const struct thaw_image *image, struct thaw_reader *reader,
		    const struct thaw_inode *inode, uint64_t max, struct thaw_error *err,
		    char **ret_text, size_t *ret_size)
{
	_cleanup_(freep) char *text = NULL;
	char path[256];
	size_t n = 0;
	int r;

	if (inode->size > max) {
		thaw_image_path(image, inode->ino, path, sizeof(path));
		return thaw_refused(err, "%s: is larger than %llu bytes", path,
				    (unsigned long long)max);
	}
	text = malloc(inode->size + 1);
	if (!text)
		return thaw_oom(err);
	r = thaw_reader_read(reader, inode, 0, text, inode->size, err, &n);
	if (r < 0)
		return r;
	text[n] = '\0';
	*ret_text = steal_ptr(text);
	*ret_size = n;
	return 0;
}

static bool is_package(struct thaw_name name, const struct thaw_inode *inode)
{
	return inode->type == THAW_REGULAR && name.len > 5 &&
	       memcmp(name.text + name.len - 5, ".json", 5) == 0;
}

bool thaw_conda_meta_exists(const struct thaw_image *image)
{
	struct thaw_inode directory, inode;
	struct thaw_name name;

	if (thaw_image_find(image, "conda-meta", &directory) != 0 ||
	    directory.type != THAW_DIRECTORY)
		return false;
	for (uint64_t i = 0; i < directory.size; i++) {
		thaw_image_child(image, &directory, i, &name, &inode);
		if (is_package(name, &inode))
			return true;
	}
	return false;
}

/* -- packages -- */

static void mark(struct meta *meta, uint32_t ino)
{
	meta->managed[ino / 8] |= (uint8_t)(1u << ino % 8);
}

static bool marked(const struct meta *meta, uint32_t ino)
{
	return meta->managed[ino / 8] >> ino % 8 & 1;
}

/* A path that a package names, marked as such; false when there is no such file. */
static bool find_file(struct meta *meta, const char *path, struct thaw_inode *ret_inode)
{
	/* ".." is not followed, so a path cannot lead out. */
	if (thaw_image_find(meta->image, path, ret_inode) != 0)
		return false;
	mark(meta, ret_inode->ino);
	return ret_inode->type == THAW_REGULAR;
}

static int want(struct meta *meta, const struct thaw_inode *inode,
		enum thaw_conda_mode mode, uint32_t room)
{
	return thaw_conda_want(meta->wants, inode->ino, meta->prefix,
			       strlen(meta->prefix), mode, room, meta->err);
}

/* An element of paths_data.paths. */
static int add_path(struct meta *meta, const json_t *entry, bool made)
{
	const char *path = json_string_value(json_object_get(entry, "_path"));
	const json_t *placeholder = json_object_get(entry, "prefix_placeholder");
	const char *mode = json_string_value(json_object_get(entry, "file_mode"));
	const char *type = json_string_value(json_object_get(entry, "path_type"));
	size_t prefix_len = strlen(meta->prefix), room = json_string_length(placeholder);
	struct thaw_inode inode;

	if (!path)
		return 0;
	if (++meta->records > THAW_CONDA_RECORDS_MAX)
		return thaw_refused(meta->err, "conda-meta: names more than %u files",
				    THAW_CONDA_RECORDS_MAX);
	if (!find_file(meta, path, &inode)) {
		meta->missing += !type || strcmp(type, "softlink") != 0;
		return 0;
	}
	if (room >= THAW_PLACEHOLDER_MIN && room <= THAW_PATH_MAX) {
		if (mode && strcmp(mode, "binary") == 0)
			return want(meta, &inode, THAW_CONDA_BINARY,
				    room > prefix_len ? (uint32_t)room : 0);
		return want(meta, &inode, THAW_CONDA_TEXT, 0);
	}
	/* Scripts that were written, or whose first line was, when it was installed. */
	if (strncmp(path, "bin/", 4) == 0 &&
	    (made || (type && strcmp(type, "unix_python_entry_point") == 0)))
		return want(meta, &inode, THAW_CONDA_UNKNOWN, 0);
	return 0;
}

static int add_package(struct meta *meta, const struct thaw_inode *inode)
{
	_cleanup_(freep) char *text = NULL;
	json_error_t error;
	json_t *package;
	const json_t *entry;
	size_t size, i;
	bool made;
	int r;

	r = thaw_conda_read(meta->image, meta->reader, inode, THAW_CONDA_META_MAX,
			    meta->err, &text, &size);
	if (r < 0)
		return r;
	package = json_loadb(text, size, 0, &error);
	if (!package && json_error_code(&error) == json_error_out_of_memory)
		return thaw_oom(meta->err);
	/* Whatever is no record of a package says nothing about files. */
	made = json_is_string(json_object_get(package, "noarch"));
	json_array_foreach(
		json_object_get(json_object_get(package, "paths_data"), "paths"), i,
		entry)
	{
		r = add_path(meta, entry, made);
		if (r < 0)
			break;
	}
	if (r == 0)
		json_array_foreach(json_object_get(package, "files"), i, entry)
		{
			struct thaw_inode file;

			if (json_is_string(entry))
				(void)find_file(meta, json_string_value(entry), &file);
		}
	json_decref(package);
	return r;
}

static int add_packages(struct meta *meta)
{
	struct thaw_inode directory, inode;
	struct thaw_name name;
	int r = thaw_image_find(meta->image, "conda-meta", &directory);

	if (r != 0 || directory.type != THAW_DIRECTORY)
		return r < 0 ? r : 0;
	for (uint64_t i = 0; i < directory.size; i++) {
		thaw_image_child(meta->image, &directory, i, &name, &inode);
		mark(meta, inode.ino); /* history, too, is a record and stays as it is */
		if (!is_package(name, &inode))
			continue;
		r = add_package(meta, &inode);
		if (r < 0)
			return r;
	}
	return 0;
}

/* -- files that no package names -- */

static bool ends_with(struct thaw_name name, const char *end)
{
	size_t len = strlen(end);

	return name.len >= len && memcmp(name.text + name.len - len, end, len) == 0;
}

static int add_unmanaged(struct meta *meta)
{
	uint32_t count = thaw_image_info(meta->image)->inodes;

	for (uint32_t ino = THAW_ROOT; ino < count; ino++) {
		struct thaw_inode directory, inode;
		struct thaw_name name;

		if (thaw_image_inode(meta->image, ino, &directory) < 0 ||
		    directory.type != THAW_DIRECTORY)
			continue;
		for (uint64_t i = 0; i < directory.size; i++) {
			int r;

			thaw_image_child(meta->image, &directory, i, &name, &inode);
			if (inode.type != THAW_REGULAR || marked(meta, inode.ino) ||
			    ends_with(name, ".pyc"))
				continue;
			mark(meta, inode.ino); /* once, whatever its names */
			r = want(meta, &inode, THAW_CONDA_UNKNOWN, 0);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int thaw_conda_meta(const struct thaw_image *image, struct thaw_reader *reader,
		    const char *prefix, struct thaw_conda_wants *wants,
		    struct thaw_error *err, uint64_t *ret_records, uint64_t *ret_missing)
{
	_cleanup_(freep)
		uint8_t *managed = calloc(1, thaw_image_info(image)->inodes / 8 + 1);
	struct meta meta = {
		.image = image,
		.reader = reader,
		.err = err,
		.wants = wants,
		.prefix = prefix,
		.managed = managed,
	};
	int r;

	if (!managed)
		return thaw_oom(err);
	r = add_packages(&meta);
	if (r == 0)
		r = add_unmanaged(&meta);
	if (r < 0)
		return r;
	*ret_records = meta.records;
	*ret_missing = meta.missing;
	return 0;
}
