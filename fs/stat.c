/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a worker for its counters. */
#include "thaw/stat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "mountinfo.h"
#include "util/cleanup.h"

const char *thaw_warm_source_name(uint32_t source)
{
	static const char *const names[] = { "none", "image", "learned", "learning" };

	return source < sizeof(names) / sizeof(names[0]) ? names[source] : "unknown";
}

static int ask(const char *directory, struct thaw_error *err, struct thaw_stat *ret_stat)
{
	_cleanup_(closep) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct thaw_stat st;

	if (fd < 0)
		return thaw_io(err, -errno, "cannot be opened");
	if (ioctl(fd, THAW_IOCTL_STAT, &st) < 0) {
		if (errno == ENOTTY)
			return -ENOTTY;
		return thaw_io(err, -errno, "its worker does not answer");
	}
	if (st.version != THAW_STAT_VERSION)
		return thaw_refused(err, "is served by another version of thaw");
	*ret_stat = st;
	return 0;
}

int thaw_stat_directory(const char *directory, struct thaw_error *err, struct thaw_stat *ret_stat)
{
	_cleanup_(freep) char *path = realpath(directory, NULL);
	struct thaw_mountpoint mountpoint;
	int found, r;

	if (!path)
		return thaw_io(err, -errno, "cannot be opened");
	r = ask(path, err, ret_stat);
	if (r != -ENOTTY)
		return r;
	/* A view answers for itself; images are mounted beneath it, the environment's below others. */
	r = thaw_mountinfo_find(path, err, &mountpoint);
	if (r < 0)
		return r;
	found = -ENOTTY;
	for (const char *lower = mountpoint.lower; r == 0 && *lower;
	     lower = thaw_mountinfo_next_lower(lower)) {
		int asked = ask(lower, err, ret_stat);

		found = asked == -ENOTTY ? found : asked;
	}
	return found == -ENOTTY ? thaw_refused(err, "is not a mount of thaw's") : found;
}
