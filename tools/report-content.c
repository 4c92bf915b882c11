/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose files are whose. Distributions say so in RECORD, a line a file; what
 * none claims (a .pyc that was compiled later) goes with its directory. The
 * rest is standard library, programs, or other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "tool.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define RECORD_MAX (64u << 20) /* larger ones are no list of files */
#define NOBODY	   UINT32_MAX
#define OTHER	   0u /* the group that is added first */

struct content {
	struct report *report;
	uint32_t *owner; /* by inode: a group, or NOBODY; files and directories */
	size_t capacity; /* of report->groups */
};

static bool is_name(struct thaw_name name, const char *text)
{
	return name.len == strlen(text) && memcmp(name.text, text, name.len) == 0;
}

static bool holds_packages(struct thaw_name name)
{
	return is_name(name, "site-packages") || is_name(name, "dist-packages");
}

static int add_group(struct content *content, enum report_kind kind, const char *name,
		     size_t len, const char *version, uint32_t *ret_group)
{
	struct report *report = content->report;
	struct report_group group = { .kind = kind, .version = version };
	void *groups = report->groups;

	for (size_t i = 0; i < report->group_count; i++) {
		const struct report_group *old = &report->groups[i];

		if (old->kind == kind && strlen(old->name) == len &&
		    memcmp(old->name, name, len) == 0) {
			*ret_group = (uint32_t)i;
			return 0;
		}
	}
	if (grow(&groups, &content->capacity, report->group_count + 1, sizeof(group)) < 0)
		return -ENOMEM;
	report->groups = groups;
	group.name = strndup(name, len);
	group.warm = calloc(report->set_count + 1, sizeof(*group.warm));
	if (!group.name || !group.warm) {
		free(group.name);
		free(group.warm);
		return -ENOMEM;
	}
	*ret_group = (uint32_t)report->group_count;
	report->groups[report->group_count++] = group;
	return 0;
}

/* -- what distributions claim -- */

/* The path of a line: up to a comma, or quoted with doubled quotes. In place. */
static char *record_path(char *line)
{
	char *to = line, *from = line + 1;

	if (line[0] != '"') {
		line[strcspn(line, ",")] = '\0';
		return line;
	}
	for (; *from && (*from != '"' || from[1] == '"'); from++) {
		if (*from == '"')
			from++;
		*to++ = *from;
	}
	*to = '\0';
	return line;
}

/* Follow path from a directory; ".." is common here: "../../../bin/tool". */
static bool find_from(const struct thaw_image *image, struct thaw_inode inode,
		      const char *path, struct thaw_inode *ret_inode)
{
	while (*path) {
		size_t len = strcspn(path, "/");
		int r = 0;

		if (len == 2 && path[0] == '.' && path[1] == '.')
			r = thaw_image_inode(image, inode.parent, &inode);
		else if (len > 0 && !(len == 1 && path[0] == '.'))
			r = thaw_image_lookup(image, inode.ino, path, len, &inode);
		if (r != 0)
			return false;
		path += len + (path[len] == '/');
	}
	*ret_inode = inode;
	return true;
}

/* Directories below `above` that hold a claimed file are the claimer's, if nobody's before. */
static void claim(struct content *content, const struct thaw_inode *file, uint32_t above,
		  uint32_t group)
{
	uint32_t ino = file->parent;

	if (file->type != THAW_REGULAR || content->owner[file->ino] != NOBODY)
		return;
	content->owner[file->ino] = group;
	while (ino != above && ino != THAW_ROOT && content->owner[ino] == NOBODY) {
		struct thaw_inode directory;

		content->owner[ino] = group;
		if (thaw_image_inode(content->report->image, ino, &directory) < 0)
			return;
		ino = directory.parent;
	}
}

static int read_record(struct content *content, const struct thaw_inode *record,
		       char **ret_text)
{
	_cleanup_(freep) char *text = NULL;
	struct thaw_error err = { 0 };
	size_t n;

	text = malloc(record->size + 1);
	if (!text)
		return tool_fail_errno(content->report->file, -ENOMEM);
	if (thaw_reader_read(content->report->reader, record, 0, text, record->size, &err,
			     &n) < 0)
		return tool_fail(content->report->file, &err);
	text[n] = '\0';
	*ret_text = steal_ptr(text);
	return THAW_EXIT_OK;
}

static int claim_package(struct content *content, const struct tool_package *package)
{
	const struct thaw_image *image = content->report->image;
	struct thaw_inode metadata, base, file;
	_cleanup_(freep) char *text = NULL;
	char *line, *save = NULL;
	uint32_t group;
	int r;

	if (add_group(content, REPORT_PACKAGE, package->name, strlen(package->name),
		      package->version, &group) < 0)
		return tool_fail_errno(content->report->file, -ENOMEM);
	content->owner[package->ino] = group;
	if (thaw_image_inode(image, package->ino, &metadata) < 0 ||
	    thaw_image_inode(image, metadata.parent, &base) < 0 ||
	    thaw_image_lookup(image, package->ino, "RECORD", 6, &file) != 0 ||
	    file.type != THAW_REGULAR || file.size > RECORD_MAX)
		return THAW_EXIT_OK;
	r = read_record(content, &file, &text);
	if (r)
		return r;
	for (line = strtok_r(text, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save))
		if (find_from(image, base, record_path(line), &file)) {
			bool inside = strncmp(line, "../", 3) != 0;

			/* bin/ is not one package's, whoever has a program in it */
			claim(content, &file, inside ? base.ino : file.parent, group);
		}
	return THAW_EXIT_OK;
}

/* -- the rest -- */

/* Where a walk is: what a file belongs to that nobody claimed. */
struct place {
	uint32_t group;
	bool packages; /* directly in site-packages */
	bool library;  /* in lib/, or lib64/ */
};

static int add_file(struct content *content, const struct thaw_inode *inode,
		    uint32_t group)
{
	struct report *report = content->report;
	struct report_group *to = &report->groups[group];
	uint64_t begin, end;

	to->files++;
	to->bytes += inode->size;
	report_page_range(report, inode->ino, 0, UINT64_MAX, &begin, &end);
	for (uint64_t page = begin; page < end; page++) {
		uint64_t bytes = report_page_bytes(inode->size, page - begin);
		bool any = false;

		for (unsigned i = 0; i < report->set_count; i++)
			if (report_bit(report->sets[i].bits, page)) {
				to->warm[i] += bytes;
				any = true;
			}
		if (any)
			to->warm_any += bytes;
		if (report->run && report_bit(report->run->bits, page))
			to->touched += bytes;
	}
	return 0;
}

/* Where the children of a directory are. */
static int enter(struct content *content, const struct thaw_inode *directory,
		 struct thaw_name name, const struct place *outer,
		 struct place *ret_place)
{
	struct place place = { .group = outer->group };
	int r = 0;

	if (holds_packages(name))
		place = (struct place){ .group = OTHER, .packages = true };
	else if (content->owner[directory->ino] != NOBODY)
		place.group = content->owner[directory->ino];
	else if (outer->packages)
		r = add_group(content, REPORT_PACKAGE, name.text, name.len, NULL,
			      &place.group);
	else if (directory->parent == THAW_ROOT &&
		 (is_name(name, "bin") || is_name(name, "sbin") ||
		  is_name(name, "Scripts")))
		r = add_group(content, REPORT_PROGRAMS, "programs (bin)", 14, NULL,
			      &place.group);
	else if (directory->parent == THAW_ROOT &&
		 (is_name(name, "lib") || is_name(name, "lib64"))) {
		place.library = true;
		r = add_group(content, REPORT_OTHER, "libraries (lib)", 15, NULL,
			      &place.group);
	} else if (outer->library && name.len > 6 && memcmp(name.text, "python", 6) == 0)
		r = add_group(content, REPORT_STDLIB, "standard library", 16, NULL,
			      &place.group);
	*ret_place = place;
	return r;
}

static int walk(struct content *content, const struct thaw_inode *directory,
		const struct place *place, unsigned depth)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < directory->size; i++) {
		struct thaw_inode inode;
		struct thaw_name name;
		struct place inner;

		thaw_image_child(content->report->image, directory, i, &name, &inode);
		if (inode.type == THAW_DIRECTORY && depth < THAW_PATH_MAX) {
			r = enter(content, &inode, name, place, &inner);
			if (r == 0)
				r = walk(content, &inode, &inner, depth + 1);
		} else if (inode.type == THAW_REGULAR) {
			uint32_t *owner = &content->owner[inode.ino];

			/* A hard link is met once for each name, and counted once. */
			if (*owner == NOBODY - 1)
				continue;
			r = add_file(content, &inode,
				     *owner != NOBODY ? *owner : place->group);
			*owner = NOBODY - 1;
		}
	}
	return r;
}

static int by_size(const void *a, const void *b)
{
	const struct report_group *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return strcmp(x->name, y->name);
}

int report_find_groups(struct report *report)
{
	uint32_t inodes = thaw_image_info(report->image)->inodes;
	_cleanup_(freep) uint32_t *owner = malloc((size_t)inodes * sizeof(*owner));
	struct content content = { .report = report, .owner = owner };
	struct place place = { 0 };
	struct thaw_inode root;
	size_t kept = 0;
	int r = THAW_EXIT_OK;

	if (!owner ||
	    add_group(&content, REPORT_OTHER, "other files", 11, NULL, &place.group) < 0)
		return tool_fail_errno(report->file, -ENOMEM);
	memset(owner, 0xff, (size_t)inodes * sizeof(*owner));
	for (size_t i = 0; r == 0 && i < report->packages.count; i++)
		r = claim_package(&content, &report->packages.items[i]);
	if (r)
		return r;
	if (thaw_image_inode(report->image, THAW_ROOT, &root) < 0 ||
	    walk(&content, &root, &place, 0) < 0)
		return tool_fail_errno(report->file, -ENOMEM);
	qsort(report->groups, report->group_count, sizeof(*report->groups), by_size);
	for (size_t i = 0; i < report->group_count; i++) {
		if (report->groups[i].files > 0) {
			report->groups[kept++] = report->groups[i];
			continue;
		}
		free(report->groups[i].name);
		free(report->groups[i].warm);
	}
	report->group_count = kept;
	return THAW_EXIT_OK;
}

void report_groups_deinit(struct report *report)
{
	for (size_t i = 0; i < report->group_count; i++) {
		free(report->groups[i].name);
		free(report->groups[i].warm);
	}
	free(report->groups);
}

const char *report_kind_name(enum report_kind kind)
{
	static const char *const names[] = { "package", "stdlib", "programs", "other" };

	return names[kind];
}
