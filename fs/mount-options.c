/* SPDX-License-Identifier: Apache-2.0 */
/* Which mount options pass, which are fstab's own, and which are refused. */
#include "mount-options.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "thaw/mount.h"
#include "util/cleanup.h"

/* A name that ends in '=' or '.' or '-' stands for all that begin with it. */
static const char *const passed[] = {
	"allow_other", "allow_root", "exec",	  "noexec",    "atime",	   "noatime",
	"diratime",    "nodiratime", "relatime",  "context=",  "fscontext=", "defcontext=",
	"rootcontext=", "max_read=", NULL,
};
/* Said anyway, or for others: mount(8), systemd, the boot. */
static const char *const ignored[] = {
	"ro",	  "nosuid", "nodev",  "defaults", "auto",    "noauto", "user",	  "nouser",
	"users",  "owner",  "group",  "_netdev",  "nofail",  "async",  "x-",	  "comment=",
	"norelatime", "strictatime", "default_permissions", "X-", NULL,
};
static const char *const forbidden[] = { "rw", "suid", "dev", NULL };

static bool listed(const char *const *list, const char *option, size_t len)
{
	for (; *list; list++) {
		size_t n = strlen(*list);
		bool prefix = strchr("=-", (*list)[n - 1]) != NULL;

		if ((prefix ? len >= n : len == n) && strncmp(option, *list, n) == 0)
			return true;
	}
	return false;
}

int thaw_mount_options_parse(const char *given, const char *identity, struct thaw_error *err,
			     char **ret_options)
{
	_cleanup_(freep) char *options = NULL;
	size_t used, size;

	/* What others may see is decided by the modes, which anybody may read. */
	size = 256 + strlen(identity) + (given ? strlen(given) : 0);
	options = malloc(size);
	if (!options)
		return thaw_oom(err);
	used = (size_t)snprintf(options, size,
				"ro,nosuid,nodev,default_permissions,subtype=thaw,fsname=%s%s%s",
				THAW_MOUNT_SOURCE_PREFIX, identity,
				getuid() == 0 ? ",allow_other" : "");
	while (given && *given) {
		size_t len = strcspn(given, ",");

		if (listed(forbidden, given, len))
			return thaw_refused(err, "mount option \"%.*s\": images are mounted "
						 "ro,nosuid,nodev", (int)len, given);
		if (listed(passed, given, len)) {
			used += (size_t)snprintf(options + used, size - used, ",%.*s", (int)len, given);
		} else if (len > 0 && !listed(ignored, given, len)) {
			(void)thaw_io(err, 0, "unknown mount option \"%.*s\"",
				      (int)(len < 100 ? len : 100), given);
			if (err)
				err->exit_code = THAW_EXIT_USAGE;
			return -EINVAL;
		}
		given += len + (given[len] == ',');
	}
	*ret_options = steal_ptr(options);
	return 0;
}
