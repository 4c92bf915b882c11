/* SPDX-License-Identifier: Apache-2.0 */
/* Reading /proc/self/mountinfo; see proc_pid_mountinfo(5). */
#include "mountinfo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thaw/mount.h"
#include "util/cleanup.h"

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

/* "rw,lowerdir=FIRST:SECOND,upperdir=...": FIRST, which is where views have the image. */
static void first_lower(char *super, char *lower, size_t size)
{
	char *from = super ? strstr(super, "lowerdir=") : NULL;

	lower[0] = '\0';
	if (!from)
		return;
	from += strlen("lowerdir=");
	from[strcspn(from, ":,\n")] = '\0';
	unescape(from);
	if (strlen(from) < size)
		(void)snprintf(lower, size, "%s", from);
}

int thaw_mountinfo_find(const char *path, struct thaw_error *err,
			struct thaw_mountpoint *ret_mountpoint)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/self/mountinfo", "re");
	_cleanup_(freep) char *line = NULL;
	size_t capacity = 0;
	bool found = false;

	if (!file)
		return thaw_io(err, -errno, "the table of mounts cannot be read");
	while (getline(&line, &capacity, file) > 0) {
		char *save = NULL, *field, *mountpoint = NULL, *device = NULL, *type, *source, *super;
		int number = 0;

		/* id parent major:minor root MOUNTPOINT options fields... - TYPE SOURCE super */
		for (field = strtok_r(line, " ", &save); field && strcmp(field, "-") != 0;
		     field = strtok_r(NULL, " ", &save))
			if (++number == 3)
				device = field;
			else if (number == 5)
				mountpoint = field;
		type = strtok_r(NULL, " ", &save);
		source = strtok_r(NULL, " ", &save);
		super = strtok_r(NULL, " ", &save);
		if (!device || !mountpoint || !type || !source)
			continue;
		unescape(mountpoint);
		if (strcmp(mountpoint, path) != 0)
			continue;
		unescape(source);
		found = true; /* a later line lies on top */
		ret_mountpoint->ours = strcmp(type, THAW_MOUNT_TYPE) == 0;
		(void)snprintf(ret_mountpoint->device, sizeof(ret_mountpoint->device), "%s", device);
		(void)snprintf(ret_mountpoint->source, sizeof(ret_mountpoint->source), "%s", source);
		first_lower(strcmp(type, "overlay") == 0 ? super : NULL, ret_mountpoint->lower,
			    sizeof(ret_mountpoint->lower));
	}
	if (ferror(file))
		return thaw_io(err, -EIO, "the table of mounts cannot be read");
	return found ? 0 : THAW_NOT_FOUND;
}
