/* SPDX-License-Identifier: Apache-2.0 */
/* Reading /proc/self/mountinfo; see proc_pid_mountinfo(5). */
#include "mountinfo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thaw/mount.h"
#include "util/cleanup.h"
#include "util/growing.h"

/* Undo the kernel's escapes: a backslash and three octal digits. In place. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
		    from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
			*to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 |
				       (from[3] - '0'));
			from += 3;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
}

/* Append a layer's path to the list that ends at *end; false when it does not fit. */
static bool add_lower(char *lower, size_t size, size_t *end, const char *path)
{
	size_t len = strlen(path);

	if (len == 0 || len + 2 > size - *end)
		return false;
	memcpy(lower + *end, path, len + 1);
	*end += len + 1;
	lower[*end] = '\0';
	return true;
}

/*
 * The old way to name layers: "FIRST:SECOND", a backslash before what is meant
 * literally.
 */
static void add_lowers(char *lower, size_t size, size_t *end, char *value)
{
	char *to = value, *path = value;
	bool more = true;

	for (const char *from = value; more; from++) {
		if (from[0] == '\\' && from[1] != '\0') {
			*to++ = *++from;
			continue;
		}
		more = *from != '\0';
		if (more && *from != ':') {
			*to++ = *from;
			continue;
		}
		*to++ = '\0';
		if (!add_lower(lower, size, end, path))
			return;
		path = to;
	}
}

/*
 * "rw,lowerdir=FIRST:SECOND,upperdir=..." or "ro,lowerdir+=FIRST,lowerdir+=SECOND":
 * the paths, as described in the header. What does not fit is left out.
 */
static void lower_list(char *super, char *lower, size_t size)
{
	size_t end = 0;
	char *save = NULL;

	lower[0] = '\0';
	if (super)
		super[strcspn(super, "\n")] = '\0';
	for (char *option = super ? strtok_r(super, ",", &save) : NULL; option;
	     option = strtok_r(NULL, ",", &save)) {
		if (strncmp(option, "lowerdir=", 9) == 0) {
			unescape(option + 9);
			add_lowers(lower, size, &end, option + 9);
		} else if (strncmp(option, "lowerdir+=", 10) == 0) {
			unescape(option + 10);
			if (!add_lower(lower, size, &end, option + 10))
				return;
		}
	}
}

const char *thaw_mountinfo_next_lower(const char *lower)
{
	return lower + strlen(lower) + 1;
}

/* One line, cut up; all but super are unescaped. */
struct line {
	char *id, *parent, *device, *path, *type, *source;
	char *super; /* NULL when there is none */
};

static bool parse(char *text, struct line *line)
{
	char *save = NULL, *field;
	int number = 0;

	*line = (struct line){ 0 };
	/* id parent major:minor root MOUNTPOINT options fields... - TYPE SOURCE super */
	for (field = strtok_r(text, " ", &save); field && strcmp(field, "-") != 0;
	     field = strtok_r(NULL, " ", &save)) {
		switch (++number) {
		case 1:
			line->id = field;
			break;
		case 2:
			line->parent = field;
			break;
		case 3:
			line->device = field;
			break;
		case 5:
			line->path = field;
			break;
		}
	}
	line->type = strtok_r(NULL, " ", &save);
	line->source = strtok_r(NULL, " ", &save);
	line->super = strtok_r(NULL, " ", &save);
	if (!line->path || !line->type || !line->source)
		return false;
	unescape(line->path);
	unescape(line->source);
	return true;
}

static enum thaw_mount_kind kind_of(const struct line *line)
{
	if (strcmp(line->type, THAW_MOUNT_TYPE) == 0)
		return THAW_MOUNT_IMAGE;
	if (strcmp(line->type, "overlay") == 0 &&
	    strncmp(line->source, THAW_MOUNT_SOURCE, strlen(THAW_MOUNT_SOURCE)) == 0)
		return THAW_MOUNT_VIEW;
	return THAW_MOUNT_OTHER;
}

int thaw_mountinfo_find(const char *path, struct thaw_error *err,
			struct thaw_mountpoint *ret_mountpoint)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/self/mountinfo", "re");
	_cleanup_(freep) char *text = NULL;
	size_t capacity = 0;
	bool found = false;

	if (!file)
		return thaw_io(err, -errno, "the table of mounts cannot be read");
	while (getline(&text, &capacity, file) > 0) {
		struct thaw_mountpoint *to = ret_mountpoint;
		struct line line;

		if (!parse(text, &line) || strcmp(line.path, path) != 0)
			continue;
		found = true; /* a later line lies on top */
		to->id = atoi(line.id);
		to->ours = kind_of(&line) == THAW_MOUNT_IMAGE;
		to->view = kind_of(&line) == THAW_MOUNT_VIEW;
		(void)snprintf(to->device, sizeof(to->device), "%s", line.device);
		(void)snprintf(to->source, sizeof(to->source), "%s", line.source);
		lower_list(strcmp(line.type, "overlay") == 0 ? line.super : NULL, to->lower,
			   sizeof(to->lower));
	}
	if (ferror(file))
		return thaw_io(err, -EIO, "the table of mounts cannot be read");
	return found ? 0 : THAW_NOT_FOUND;
}

/* -- all of them -- */

static void entry_free(struct thaw_mount_entry *entry)
{
	free((void *)entry->path);
	free((void *)entry->type);
	free((void *)entry->source);
	free((void *)entry->lower);
}

void thaw_mount_table_deinit(struct thaw_mount_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		entry_free(&table->entries[i]);
	free(table->entries);
	*table = (struct thaw_mount_table){ 0 };
}

static int add_entry(struct thaw_mount_table *table, struct line *line)
{
	struct thaw_mount_entry entry = {
		.kind = kind_of(line),
		.id = atoi(line->id),
		.parent = atoi(line->parent),
		.path = strdup(line->path),
		.type = strdup(line->type),
		.source = strdup(line->source),
	};
	bool overlay = strcmp(line->type, "overlay") == 0 && line->super;
	size_t size = (overlay ? strlen(line->super) : 0) + 2;
	char *lower = malloc(size); /* no list is longer than its text */

	entry.lower = lower;
	if (lower)
		lower_list(overlay ? line->super : NULL, lower, size);
	(void)snprintf(entry.device, sizeof(entry.device), "%s", line->device);
	if (!entry.path || !entry.type || !entry.source || !lower ||
	    grow(&table->entries, &table->capacity, table->count + 1, sizeof(entry)) < 0) {
		entry_free(&entry);
		return -ENOMEM;
	}
	table->entries[table->count++] = entry;
	return 0;
}

int thaw_mount_table_read(struct thaw_mount_table *table, struct thaw_error *err)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/self/mountinfo", "re");
	_cleanup_(freep) char *text = NULL;
	size_t capacity = 0;

	*table = (struct thaw_mount_table){ 0 };
	if (!file)
		return thaw_io(err, -errno, "the table of mounts cannot be read");
	while (getline(&text, &capacity, file) > 0) {
		struct line line;

		if (parse(text, &line) && add_entry(table, &line) < 0) {
			thaw_mount_table_deinit(table);
			return thaw_oom(err);
		}
	}
	if (ferror(file)) {
		thaw_mount_table_deinit(table);
		return thaw_io(err, -EIO, "the table of mounts cannot be read");
	}
	return 0;
}
