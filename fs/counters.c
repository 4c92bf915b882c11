/* SPDX-License-Identifier: Apache-2.0 */
/* The names of what is counted. */
#include "counters.h"

#include <linux/fuse.h>

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
