/* SPDX-License-Identifier: Apache-2.0 */
/* Shared counters, and the names of what they count. */
#include "counters.h"

#include <linux/fuse.h>
#include <sys/mman.h>

struct thaw_counters *thaw_counters_new(void)
{
	void *p = mmap(NULL, sizeof(struct thaw_counters), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void thaw_counters_free(struct thaw_counters *counters)
{
	if (counters)
		(void)munmap(counters,
			     sizeof(*counters)); /* a whole mapping: cannot fail */
}

const char *thaw_stat_request_name(unsigned opcode)
{
	static const char *const names[THAW_STAT_OPCODES] = {
		[FUSE_LOOKUP] = "lookup",
		[FUSE_FORGET] = "forget",
		[FUSE_GETATTR] = "getattr",
		[FUSE_READLINK] = "readlink",
		[FUSE_OPEN] = "open",
		[FUSE_READ] = "read",
		[FUSE_STATFS] = "statfs",
		[FUSE_RELEASE] = "release",
		[FUSE_GETXATTR] = "getxattr",
		[FUSE_LISTXATTR] = "listxattr",
		[FUSE_FLUSH] = "flush",
		[FUSE_INIT] = "init",
		[FUSE_OPENDIR] = "opendir",
		[FUSE_READDIR] = "readdir",
		[FUSE_RELEASEDIR] = "releasedir",
		[FUSE_ACCESS] = "access",
		[FUSE_INTERRUPT] = "interrupt",
		[FUSE_DESTROY] = "destroy",
		[FUSE_IOCTL] = "ioctl",
		[FUSE_BATCH_FORGET] = "batch_forget",
		[FUSE_READDIRPLUS] = "readdirplus",
		[FUSE_LSEEK] = "lseek",
		[52] = "statx", /* FUSE_STATX, newer than some headers */
	};

	return opcode < THAW_STAT_OPCODES ? names[opcode] : NULL;
}
