/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages installed in editable mode: what the environment holds of them is a
 * path to somebody's working copy, which stays behind. The marks are those that
 * conda-pack looks for.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conda.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define DIRECT_URL_MAX (1u << 20)
#define NAME_MAX_SHOWN 100

struct editable {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	thaw_conda_warn_fn *warn;
	void *warn_data;
	struct thaw_error *err;
	char (*names)[NAME_MAX_SHOWN +
		      1]; /* named already: one package has several marks */
	size_t count, capacity;
};

static bool starts(struct thaw_name name, const char *text)
{
	return name.len > strlen(text) && memcmp(name.text, text, strlen(text)) == 0;
}

static bool ends(struct thaw_name name, const char *text)
{
	size_t len = strlen(text);

	return name.len > len && memcmp(name.text + name.len - len, text, len) == 0;
}

/* "Foo_bar" and "foo-bar" are one package. */
static char normal(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c - 'A' + 'a');
	return c == '_' || c == '.' ? '-' : c;
}

static int note(struct editable *editable, const char *name, size_t len, const char *mark,
		size_t mark_len)
{
	char normalised[NAME_MAX_SHOWN + 1] = "", text[512];

	len = len < NAME_MAX_SHOWN ? len : NAME_MAX_SHOWN;
	for (size_t i = 0; i < len; i++)
		normalised[i] = normal(name[i]);
	for (size_t i = 0; i < editable->count; i++)
		if (strcmp(editable->names[i], normalised) == 0)
			return 0;
	if (grow(&editable->names, &editable->capacity, editable->count + 1,
		 sizeof(*editable->names)) < 0)
		return thaw_oom(editable->err);
	memcpy(editable->names[editable->count++], normalised, sizeof(normalised));
	(void)snprintf(
		text, sizeof(text),
		"%.*s is installed in editable mode (%.*s): its source is not in the "
		"environment",
		(int)len, name, (int)mark_len, mark);
	if (editable->warn)
		editable->warn(editable->warn_data, text);
	return 0;
}

/* NAME-VERSION.dist-info with a direct_url.json that says so. */
static int check_dist_info(struct editable *editable, struct thaw_name name,
			   const struct thaw_inode *directory)
{
	const char *dash = memchr(name.text, '-', name.len);
	_cleanup_(freep) char *text = NULL;
	struct thaw_inode inode;
	json_t *url;
	size_t size;
	int r = thaw_image_lookup(editable->image, directory->ino, "direct_url.json",
				  strlen("direct_url.json"), &inode);

	if (r != 0 || inode.type != THAW_REGULAR || inode.size > DIRECT_URL_MAX)
		return 0;
	r = thaw_conda_read(editable->image, editable->reader, &inode, DIRECT_URL_MAX,
			    editable->err, &text, &size);
	if (r < 0)
		return r;
	url = json_loadb(text, size, 0, NULL);
	if (json_is_true(json_object_get(json_object_get(url, "dir_info"), "editable"))) {
		const char *where = json_string_value(json_object_get(url, "url"));

		r = note(editable, name.text,
			 dash ? (size_t)(dash - name.text) : name.len, where ? where : "",
			 where ? strnlen(where, 200) : 0);
	}
	json_decref(url);
	return r;
}

static int check_site_packages(struct editable *editable,
			       const struct thaw_inode *directory)
{
	struct thaw_inode inode;
	struct thaw_name name;
	int r = 0;

	/* direct_url.json first: it says where the source is. */
	for (uint64_t i = 0; r == 0 && i < directory->size; i++) {
		thaw_image_child(editable->image, directory, i, &name, &inode);
		if (inode.type == THAW_DIRECTORY && ends(name, ".dist-info"))
			r = check_dist_info(editable, name, &inode);
	}
	for (uint64_t i = 0; r == 0 && i < directory->size; i++) {
		thaw_image_child(editable->image, directory, i, &name, &inode);
		if (inode.type != THAW_REGULAR)
			continue;
		if (ends(name, ".egg-link"))
			r = note(editable, name.text, name.len - strlen(".egg-link"),
				 name.text, name.len);
		else if (starts(name, "__editable__.") && ends(name, ".pth")) {
			const char *text = name.text + strlen("__editable__.");
			size_t len = name.len - strlen("__editable__.") - strlen(".pth");
			const char *dash = memchr(text, '-', len);

			r = note(editable, text, dash ? (size_t)(dash - text) : len,
				 name.text, name.len);
		}
	}
	return r;
}

int thaw_editable_installs(const struct thaw_image *image, struct thaw_reader *reader,
			   thaw_conda_warn_fn *warn, void *warn_data,
			   struct thaw_error *err, uint64_t *ret_count)
{
	struct editable editable = {
		.image = image,
		.reader = reader,
		.warn = warn,
		.warn_data = warn_data,
		.err = err,
	};
	struct thaw_inode lib, python, packages;
	struct thaw_name name;
	int r = 0;

	if (thaw_image_find(image, "lib", &lib) != 0 || lib.type != THAW_DIRECTORY)
		lib.size = 0;
	for (uint64_t i = 0; r == 0 && i < lib.size; i++) {
		thaw_image_child(image, &lib, i, &name, &python);
		if (python.type == THAW_DIRECTORY && starts(name, "python") &&
		    thaw_image_lookup(image, python.ino, "site-packages",
				      strlen("site-packages"), &packages) == 0 &&
		    packages.type == THAW_DIRECTORY)
			r = check_site_packages(&editable, &packages);
	}
	free(editable.names);
	if (r == 0)
		*ret_count = editable.count;
	return r;
}
