/* SPDX-License-Identifier: Apache-2.0 */
/* What machine an environment is for, and what whoever uses it should know. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "environment-internal.h"

#define MODULES_LOOKED_AT \
	16u /* extension modules: they agree, or the environment is mixed */
#define SMALL_FILE 16384u

/* -- the machine -- */

static const struct {
	uint16_t machine;
	uint8_t bits, order; /* EI_CLASS, EI_DATA; 0: either */
	const char *name;
} machines[] = {
	{ 62, 2, 1, "x86_64" }, { 183, 2, 1, "aarch64" }, { 3, 1, 1, "i686" },
	{ 40, 1, 1, "armv7l" }, { 21, 2, 1, "ppc64le" },  { 21, 2, 2, "ppc64" },
	{ 22, 2, 2, "s390x" },	{ 243, 2, 1, "riscv64" }, { 258, 2, 1, "loongarch64" },
};

/* NULL: no ELF file, or of a machine without a name here. */
static const char *elf_machine(const char *head, size_t len)
{
	const uint8_t *p = (const uint8_t *)head;
	unsigned machine;

	if (len < 20 || memcmp(head, "\177ELF", 4) != 0)
		return NULL;
	machine = p[5] == 2 ? (unsigned)p[18] << 8 | p[19] : (unsigned)p[19] << 8 | p[18];
	for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++)
		if (machines[i].machine == machine && machines[i].bits == p[4] &&
		    machines[i].order == p[5])
			return machines[i].name;
	return NULL;
}

static bool ends_with(struct thaw_name name, const char *suffix)
{
	size_t len = strlen(suffix);

	return name.len > len && memcmp(name.text + name.len - len, suffix, len) == 0;
}

static int note_machine(struct analysis *a, const struct thaw_inode *inode,
			struct thaw_error *err)
{
	char head[32], path[200], platform[64];
	const char *machine;
	size_t len;
	int r;

	r = analysis_read(a, inode, head, sizeof(head), err, &len);
	if (r < 0)
		return r;
	machine = elf_machine(head, len);
	if (!machine)
		return 0;
	(void)snprintf(platform, sizeof(platform), "linux-%s", machine);
	if (!a->found->platform[0]) {
		strcpy(a->found->platform, platform);
		return 0;
	}
	if (strcmp(a->found->platform, platform) == 0)
		return 0;
	thaw_image_path(a->image, inode->ino, path, sizeof(path));
	return analysis_warn(a, "%s is for %s, other files for %s", path, platform,
			     a->found->platform) < 0
		       ? thaw_oom(err)
		       : 0;
}

static bool is_extension(struct thaw_name name)
{
	char text[THAW_NAME_MAX + 1];

	(void)snprintf(text, sizeof(text), "%.*s", (int)name.len,
		       name.text); /* fits, by the format */
	return ends_with(name, ".so") &&
	       (strstr(text, ".cpython-") || strstr(text, ".abi3."));
}

/* The interpreter first: modules for another machine are then the odd ones. */
static int find_machine(struct analysis *a, struct thaw_error *err)
{
	uint32_t inodes = thaw_image_info(a->image)->inodes;
	struct thaw_inode directory, child;
	char path[THAW_PATH_MAX + 1] = "bin/python3";
	struct thaw_name name;
	unsigned looked = 0;
	int r = 0;

	if (analysis_follow(a, path, &child) == ANALYSIS_INSIDE &&
	    child.type == THAW_REGULAR)
		r = note_machine(a, &child, err);
	for (uint32_t ino = THAW_ROOT;
	     r == 0 && ino < inodes && looked < MODULES_LOOKED_AT; ino++) {
		if (thaw_image_inode(a->image, ino, &directory) < 0 ||
		    directory.type != THAW_DIRECTORY)
			continue;
		for (uint64_t i = 0;
		     r == 0 && i < directory.size && looked < MODULES_LOOKED_AT; i++) {
			thaw_image_child(a->image, &directory, i, &name, &child);
			if (child.type != THAW_REGULAR || !is_extension(name))
				continue;
			looked++;
			r = note_machine(a, &child, err);
		}
	}
	return r;
}

/* -- the C library: the tags of wheels -- */

struct libc {
	unsigned glibc, musl; /* minor versions, major is 2 and 1; 0: not said */
};

/* Of one platform tag; "manylinux_2_17_x86_64", "manylinux2014_x86_64", "musllinux_1_2_...". */
static struct libc tag_libc(const char *tag)
{
	struct libc libc = { 0 };
	unsigned minor;

	if (sscanf(tag, "manylinux_2_%3u_", &minor) == 1)
		libc.glibc = minor;
	else if (strncmp(tag, "manylinux2014_", 14) == 0)
		libc.glibc = 17;
	else if (strncmp(tag, "manylinux2010_", 14) == 0)
		libc.glibc = 12;
	else if (strncmp(tag, "manylinux1_", 11) == 0)
		libc.glibc = 5;
	else if (sscanf(tag, "musllinux_1_%3u_", &minor) == 1)
		libc.musl = minor;
	return libc;
}

/* A wheel with several tags runs where any of them holds: the oldest counts. */
static void wheel_libc(char *text, struct libc *ret_libc)
{
	struct libc least = { 0 };
	char *save, *tags, *line = strtok_r(text, "\r\n", &save);

	for (; line; line = strtok_r(NULL, "\r\n", &save)) {
		char *dash = strrchr(line, '-');

		if (strncmp(line, "Tag:", 4) != 0 || !dash)
			continue;
		for (char *tag = strtok_r(dash + 1, ".", &tags); tag;
		     tag = strtok_r(NULL, ".", &tags)) {
			struct libc libc = tag_libc(tag);

			if (libc.glibc && (!least.glibc || libc.glibc < least.glibc))
				least.glibc = libc.glibc;
			if (libc.musl && (!least.musl || libc.musl < least.musl))
				least.musl = libc.musl;
		}
	}
	*ret_libc = least;
}

/* -- site-packages -- */

/* For each child of each site-packages directory of this Python. */
typedef int content_fn(struct analysis *a, struct thaw_name name,
		       const struct thaw_inode *inode, void *data,
		       struct thaw_error *err);

static int each_in_site_packages(struct analysis *a, content_fn *note, void *data,
				 struct thaw_error *err)
{
	static const char *const libs[] = { "lib", "lib64" };
	int r = 0;

	for (size_t i = 0; i < 2 && r == 0 && a->found->python[0]; i++) {
		struct thaw_inode directory, child;
		struct thaw_name name;
		char path[64];

		(void)snprintf(path, sizeof(path), "%s/python%s/site-packages", libs[i],
			       a->found->python);
		if (!analysis_find(a, path, &directory) ||
		    directory.type != THAW_DIRECTORY)
			continue;
		for (uint64_t j = 0; r == 0 && j < directory.size; j++) {
			thaw_image_child(a->image, &directory, j, &name, &child);
			r = note(a, name, &child, data, err);
		}
	}
	return r;
}

static int note_wheel(struct analysis *a, struct thaw_name name,
		      const struct thaw_inode *inode, void *data, struct thaw_error *err)
{
	struct libc *needed = data, libc;
	struct thaw_inode file;
	char text[SMALL_FILE];
	size_t len;
	int r;

	if (!ends_with(name, ".dist-info") || inode->type != THAW_DIRECTORY ||
	    thaw_image_lookup(a->image, inode->ino, "WHEEL", 5, &file) != 0 ||
	    file.type != THAW_REGULAR)
		return 0;
	r = analysis_read(a, &file, text, sizeof(text), err, &len);
	if (r < 0)
		return r;
	wheel_libc(text, &libc);
	if (libc.glibc && libc.musl)
		return 0; /* for either */
	needed->glibc = libc.glibc > needed->glibc ? libc.glibc : needed->glibc;
	needed->musl = libc.musl > needed->musl ? libc.musl : needed->musl;
	return 0;
}

int analysis_platform(struct analysis *a, struct thaw_error *err)
{
	struct libc needed = { 0 };
	int r;

	r = find_machine(a, err);
	if (r == 0)
		r = each_in_site_packages(a, note_wheel, &needed, err);
	if (r < 0)
		return r;
	if (needed.glibc && needed.musl)
		return analysis_warn(a, "has wheels for glibc and wheels for musl") < 0
			       ? thaw_oom(err)
			       : 0;
	if (needed.glibc)
		(void)snprintf(a->found->libc, sizeof(a->found->libc), "glibc >= 2.%u",
			       needed.glibc);
	else if (needed.musl)
		(void)snprintf(a->found->libc, sizeof(a->found->libc), "musl >= 1.%u",
			       needed.musl);
	return 0;
}

/* -- warnings -- */

/* Lines of a .pth file that lead out of the environment: sources on the builder's disk. */
static int note_pth(struct analysis *a, struct thaw_name name, char *text)
{
	char *save;
	int r = 0;

	for (char *line = strtok_r(text, "\r\n", &save); line && r == 0;
	     line = strtok_r(NULL, "\r\n", &save))
		if (line[0] == '/')
			r = analysis_warn(a,
					  "%.*s adds \"%s\", which is not in the image "
					  "(an editable install?)",
					  (int)name.len, name.text, line);
	return r;
}

static int note_direct_url(struct analysis *a, struct thaw_name name, const char *text,
			   size_t len)
{
	json_t *object = json_loadb(text, len, 0, NULL);
	json_t *info = json_object_get(object, "dir_info");
	const char *url = json_string_value(json_object_get(object, "url"));
	int r = 0;

	if (json_is_true(json_object_get(info, "editable")))
		r = analysis_warn(a, "%.*s is an editable install of %s",
				  (int)(name.len - strlen(".dist-info")), name.text,
				  url ? url : "something elsewhere");
	json_decref(object);
	return r;
}

static int note_editable(struct analysis *a, struct thaw_name name,
			 const struct thaw_inode *inode, void *data,
			 struct thaw_error *err)
{
	bool conda = a->found->kind ==
		     THAW_KIND_CONDA; /* has been told of them already */
	struct thaw_inode file = *inode;
	bool pth = ends_with(name, ".pth");
	char text[SMALL_FILE];
	size_t len;
	int r;

	(void)data;
	if (conda)
		return 0;
	if (ends_with(name, ".egg-link")) {
		r = analysis_warn(a, "%.*s: an editable install", (int)name.len,
				  name.text);
		return r < 0 ? thaw_oom(err) : 0;
	}
	if (ends_with(name, ".dist-info") && inode->type == THAW_DIRECTORY) {
		if (thaw_image_lookup(a->image, inode->ino, "direct_url.json", 15,
				      &file) != 0)
			return 0;
	} else if (!pth) {
		return 0;
	}
	if (file.type != THAW_REGULAR)
		return 0;
	r = analysis_read(a, &file, text, sizeof(text), err, &len);
	if (r < 0)
		return r;
	r = pth ? note_pth(a, name, text) : note_direct_url(a, name, text, len);
	return r < 0 ? thaw_oom(err) : 0;
}

/* Is this one of the links that a view binds to its interpreter? */
static bool is_bound(const struct analysis *a, const char *path)
{
	return thaw_kind_is_venv(a->found->kind) && strncmp(path, "bin/", 4) == 0 &&
	       analysis_is_python_name(path + 4, strlen(path + 4));
}

static int warn_of_links(struct analysis *a, struct thaw_error *err)
{
	uint32_t inodes = thaw_image_info(a->image)->inodes;
	char path[THAW_PATH_MAX + 1], first[300] = "";
	const char *target = "";
	uint64_t count = 0;

	for (uint32_t ino = THAW_ROOT; ino < inodes; ino++) {
		struct thaw_inode inode;

		if (thaw_image_inode(a->image, ino, &inode) < 0 ||
		    inode.type != THAW_SYMLINK ||
		    thaw_image_target(a->image, &inode)[0] != '/')
			continue;
		thaw_image_path(a->image, ino, path, sizeof(path));
		if (is_bound(a, path))
			continue;
		if (count++ == 0) {
			(void)snprintf(first, sizeof(first), "%.290s",
				       path); /* for a message */
			target = thaw_image_target(a->image, &inode);
		}
	}
	if (count == 0)
		return 0;
	return analysis_warn(
		       a,
		       "%llu symlinks lead out of the environment, first \"%.200s\" to "
		       "\"%.150s\"",
		       (unsigned long long)count, first, target) < 0
		       ? thaw_oom(err)
		       : 0;
}

/* A tree whose environment lies one directory deeper than views and PATH expect. */
static int warn_of_depth(struct analysis *a, struct thaw_error *err)
{
	struct thaw_inode root, child, inner;
	struct thaw_name name;
	int r;

	if (thaw_image_inode(a->image, THAW_ROOT, &root) < 0 || root.size != 1)
		return 0;
	thaw_image_child(a->image, &root, 0, &name, &child);
	if (child.type != THAW_DIRECTORY ||
	    (thaw_image_lookup(a->image, child.ino, "pyvenv.cfg", 10, &inner) != 0 &&
	     thaw_image_lookup(a->image, child.ino, "conda-meta", 10, &inner) != 0))
		return 0;
	r = analysis_warn(
		a,
		"the environment lies in the directory \"%.*s\" of the archive: thaw "
		"binds and relocates only what lies at its root",
		(int)name.len, name.text);
	return r < 0 ? thaw_oom(err) : 0;
}

static int warn_of_interpreter(struct analysis *a, struct thaw_error *err)
{
	const struct thaw_environment *found = a->found;
	int r = 0;

	if (thaw_kind_is_venv(found->kind)) {
		if (!found->python[0])
			r = analysis_warn(
				a, "which Python it is for cannot be told: it has no "
				   "lib/pythonX.Y/site-packages");
	} else if (found->python[0] && !found->own_interpreter) {
		r = analysis_warn(a,
				  "has no interpreter with its standard library inside");
	}
	return r < 0 ? thaw_oom(err) : 0;
}

int analysis_warnings(struct analysis *a, struct thaw_error *err)
{
	int r;

	r = warn_of_interpreter(a, err);
	if (r == 0)
		r = warn_of_depth(a, err);
	if (r == 0)
		r = each_in_site_packages(a, note_editable, NULL, err);
	if (r == 0)
		r = warn_of_links(a, err);
	return r;
}
