/* SPDX-License-Identifier: Apache-2.0 */
/* Confining what is run out of an image: see confine.h. */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MOUNT_ATTR_RDONLY
#error "linux/mount.h of Linux 5.12 or newer is needed"
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

static int set_mount(const char *path, unsigned flags, uint64_t set, uint64_t clear)
{
	struct mount_attr attributes = { .attr_set = set, .attr_clr = clear };

	return (int)syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &attributes,
			    sizeof(attributes));
}

/* Our own mount namespace: nobody else sees that. The view was mounted in it, so it can be opened. */
static int close_file_systems(const char *path, struct thaw_error *err)
{
	if (set_mount("/", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0) < 0)
		return thaw_io(err, -errno, "file systems cannot be made read-only");
	if (set_mount(path, 0, 0, MOUNT_ATTR_RDONLY) < 0)
		return thaw_io(err, -errno, "the view cannot be made writable");
	return 0;
}

static int drop_capabilities(struct thaw_error *err)
{
	struct __user_cap_header_struct header = { .version =
							   _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	/* Root would have them all again after an exec: hence the bounding set too. */
	for (int capability = 0; capability < 64; capability++)
		(void)prctl(PR_CAPBSET_DROP, capability, 0, 0,
			    0); /* EINVAL behind the last one */
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, none) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return thaw_io(err, -errno, "privileges cannot be given up");
	return 0;
}

/*
 * Sockets with a name in the file system (a container engine's, say) are reached
 * through a read-only mount and without a network as well, and io_uring makes
 * sockets without socket(2). In a user namespace of its own a process would have
 * all capabilities again, though over nothing that is ours.
 */
static int restrict_calls(struct thaw_error *err)
{
#define LOAD(field) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define NO(number)                                           \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
	static const struct sock_filter filter[] = {
		LOAD(arch),
#if defined(__x86_64__)
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
#elif defined(__aarch64__)
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_AARCH64, 1, 0),
#else
		BPF_JUMP(BPF_JMP | BPF_JA, 0, 0,
			 0), /* system calls as we were compiled with */
#endif
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
#if defined(__x86_64__)
		/* x32 has numbers of its own */
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
#endif
		NO(SYS_socket),
		NO(425), /* io_uring_setup */
		NO(SYS_unshare),
		NO(SYS_setns),
		/* clone3() has its flags where a filter cannot see them; the C library can do without */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 435, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
		LOAD(args[0]),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(filter[0]),
		.filter = (struct sock_filter *)filter,
	};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 && errno != EINVAL)
		return thaw_io(err, -errno, "system calls cannot be restricted");
	return 0; /* EINVAL: a kernel without seccomp has no other means either */
}

int thaw_confine(const char *path, struct thaw_error *err)
{
	const struct rlimit no_core = { 0, 0 };
	int r;

	if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID) < 0)
		return thaw_io(err, -errno, "no namespaces can be made to confine it in");
	r = close_file_systems(path, err);
	if (r == 0)
		r = drop_capabilities(err);
	if (r == 0)
		r = restrict_calls(err);
	(void)setrlimit(RLIMIT_CORE, &no_core); /* lowering is always allowed */
	return r;
}
