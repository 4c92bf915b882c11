/* SPDX-License-Identifier: Apache-2.0 */
/* Making the run-time directories. */
#include "runtime-directory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

static int base_directory(struct thaw_error *err, char **ret_path)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	if (geteuid() == 0)
		n = asprintf(ret_path, "/run/thaw");
	else if (runtime && runtime[0] == '/' && access(runtime, W_OK) == 0)
		n = asprintf(ret_path, "%s/thaw", runtime);
	else
		n = asprintf(ret_path, "/tmp/thaw-%u", (unsigned)geteuid());
	return n < 0 ? thaw_oom(err) : 0;
}

/* Somebody else's directory, or a symlink, in the place of ours: never used. */
static int make(const char *path, struct thaw_error *err)
{
	struct stat st;

	if (mkdir(path, geteuid() == 0 ? 0755 : 0700) < 0 && errno != EEXIST)
		return thaw_io(err, -errno, "\"%.300s\" cannot be made", path);
	if (lstat(path, &st) < 0)
		return thaw_io(err, -errno, "\"%.300s\"", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return thaw_refused(err, "\"%.300s\": is not a directory of our own", path);
	return 0;
}

int thaw_runtime_directory(const char *kind, const char *name, struct thaw_error *err,
			   char **ret_path)
{
	_cleanup_(freep) char *base = NULL;
	_cleanup_(freep) char *middle = NULL;
	char *path = NULL;
	int r;

	r = base_directory(err, &base);
	if (r == 0)
		r = make(base, err);
	if (r < 0)
		return r;
	if (strpbrk(base, ":,\\"))
		return thaw_refused(err, "\"%.300s\": overlayfs needs a path without : , and \\", base);
	if (asprintf(&middle, "%s/%s", base, kind) < 0) {
		middle = NULL;
		return thaw_oom(err);
	}
	r = make(middle, err);
	if (r == 0 && !name) {
		*ret_path = steal_ptr(middle);
		return 0;
	}
	if (r < 0)
		return r;
	if (asprintf(&path, "%s/%s", middle, name) < 0)
		return thaw_oom(err);
	r = make(path, err);
	if (r < 0) {
		free(path);
		return r;
	}
	*ret_path = path;
	return 0;
}
