/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes: capabilities, Landlock, seccomp.
 *
 * A call that is not on the list fails with EPERM and does not kill: a C library
 * that uses a new one for something by the way (naming a thread, looking at the
 * number of CPUs) has a way around it, whereas a worker that dies of it would
 * die again and again. An attacker gains nothing by the difference. Built with
 * -Dsandbox-kills=true it kills, so that tests find what is missing from the list.
 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/cleanup.h"

/* Sanitizers want more than a worker does: their threads, files and signals. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WITH_SECCOMP 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	__has_feature(memory_sanitizer)
#define WITH_SECCOMP 0
#endif
#endif
#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#else
#undef WITH_SECCOMP
#define WITH_SECCOMP 0 /* numbers of calls differ; nobody has tried these */
#endif
#ifndef WITH_SECCOMP
#define WITH_SECCOMP 1
#endif

/* The kernel's own number for users that are not mapped, too. */
#define NOBODY 65534

/* -- capabilities -- */

static void drop_bounding_set(void)
{
	/* Fails behind the last one, and for those who may not, who have none either. */
	for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
}

static void drop_capabilities(bool may_mount)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct left[2] = { 0 };

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* valid: cannot fail */
	if (may_mount && syscall(SYS_capget, &header, left) == 0) {
		left[0].effective &= 1u << CAP_SYS_ADMIN;
		left[0].permitted &= 1u << CAP_SYS_ADMIN;
		left[0].inheritable = 0;
		left[1] = (struct __user_cap_data_struct){ 0 };
	}
	(void)syscall(SYS_capset, &header, left); /* fewer: cannot fail */
}

/* Whoever only has what everybody has. */
static int become_nobody(void)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	    setresuid(NOBODY, NOBODY, NOBODY) < 0)
		return -errno;
	return 0;
}

/* -- Landlock -- */

/* As the newest kernels have it, whichever headers this is built with. */
struct ruleset {
	uint64_t fs, net, scoped;
};

/* What each version of the interface can forbid: all of it is forbidden. */
static size_t all_rights(int abi, struct ruleset *ruleset)
{
	*ruleset = (struct ruleset){ .fs = (1ull << 13) - 1 };
	if (abi >= 2)
		ruleset->fs |= 1ull << 13; /* linking and renaming elsewhere */
	if (abi >= 3)
		ruleset->fs |= 1ull << 14; /* truncating */
	if (abi >= 5)
		ruleset->fs |= 1ull << 15; /* ioctl on devices, if opened from now on */
	if (abi >= 4)
		ruleset->net = 3; /* TCP: binding, connecting */
	/* Not signals (2): the one that ends a child with its parent counts among them. */
	if (abi >= 6)
		ruleset->scoped = 1; /* abstract sockets of others */
	return abi >= 6 ? sizeof(*ruleset) : abi >= 4 ? 16 : 8;
}

static void allow(int ruleset_fd, int place, uint64_t rights)
{
	struct landlock_path_beneath_attr beneath = { .allowed_access = rights,
						      .parent_fd = place };

	if (place >= 0)
		(void)syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH,
			      &beneath, 0); /* what cannot be allowed is forbidden */
}

static void allow_path(int ruleset_fd, const char *path, uint64_t rights)
{
	_cleanup_(closep) int fd = open(path, O_PATH | O_CLOEXEC);

	allow(ruleset_fd, fd, rights);
}

/* A second fence where there is seccomp, the first where there is not: as far as it goes. */
static void restrict_files(enum thaw_sandbox kind, int place)
{
	_cleanup_(closep) int fd = -1;
	struct ruleset ruleset;
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0,
			       LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 1)
		return; /* an older kernel, or switched off */
	if (abi < 2 && kind == THAW_SANDBOX_RENDERER)
		return; /* it could not link a file into another directory */
	fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, all_rights(abi, &ruleset), 0);
	if (fd < 0)
		return;
	if (kind == THAW_SANDBOX_READER || kind == THAW_SANDBOX_CLONER)
		allow(fd, place, LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_READ_FILE);
	if (kind == THAW_SANDBOX_RENDERER)
		allow(fd, place, ruleset.fs & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE);
	if (kind == THAW_SANDBOX_FINDER) {
		allow_path(fd, "/", LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_READ_FILE |
					    LANDLOCK_ACCESS_FS_EXECUTE);
		allow_path(fd, "/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE);
	}
	if (kind == THAW_SANDBOX_PUSHER) {
		allow_path(fd, "/proc", LANDLOCK_ACCESS_FS_READ_FILE);
		allow_path(fd, "/sys/fs/cgroup", LANDLOCK_ACCESS_FS_READ_FILE);
	}
	(void)syscall(SYS_landlock_restrict_self, fd, 0); /* after NO_NEW_PRIVS: cannot fail */
}

/* -- seccomp -- */

#if WITH_SECCOMP

#ifdef THAW_SANDBOX_KILLS
#define REFUSE SECCOMP_RET_KILL_PROCESS
#else
#define REFUSE (SECCOMP_RET_ERRNO | EPERM)
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(field))
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n)) /* its low half: little-endian */
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define ALLOW(call)                                           \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
		RETURN(SECCOMP_RET_ALLOW)

/* Begins with the number of the call loaded, and leaves it so. */
#define PROLOGUE                                                             \
	LOAD(offsetof(struct seccomp_data, arch)),                            \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0),          \
		RETURN(SECCOMP_RET_KILL_PROCESS),                             \
		LOAD(offsetof(struct seccomp_data, nr))

/* Descriptors that are there, memory, time, signals to ourselves, an end. */
#define COMMON                                                                             \
	ALLOW(read), ALLOW(readv), ALLOW(write), ALLOW(writev), ALLOW(pread64), ALLOW(close),   \
		ALLOW(fstat), ALLOW(futex), ALLOW(mmap), ALLOW(munmap), ALLOW(mremap),          \
		ALLOW(mprotect), ALLOW(madvise), ALLOW(brk), ALLOW(rt_sigaction),               \
		ALLOW(rt_sigprocmask), ALLOW(rt_sigreturn), ALLOW(sigaltstack),                 \
		ALLOW(restart_syscall), ALLOW(clock_gettime), ALLOW(clock_nanosleep),           \
		ALLOW(nanosleep), ALLOW(ppoll), ALLOW(getpid), ALLOW(gettid), ALLOW(tgkill),    \
		ALLOW(sched_yield), ALLOW(sched_getaffinity), ALLOW(getrandom), ALLOW(exit),    \
		ALLOW(exit_group), ALLOW(sysinfo) /* qsort(3), for the size of memory */

/* Calls that only the older of the two architectures has. */
#ifdef __x86_64__
#define COMMON_OLD ALLOW(poll), ALLOW(time), ALLOW(gettimeofday),
#else
#define COMMON_OLD ALLOW(gettimeofday),
#endif

static const struct sock_filter worker_filter[] = {
	PROLOGUE,
	COMMON,
	COMMON_OLD
	/* The log, which is a socket connected before; hints to the scout. */
	ALLOW(sendto), ALLOW(sendmsg), ALLOW(recvfrom),
	/* Threads: what they need when they start. */
	ALLOW(set_robust_list), ALLOW(rseq),
	/* Its flags are in memory, where they cannot be looked at: "use clone". */
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
	RETURN(SECCOMP_RET_ERRNO | ENOSYS),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4),
	LOAD(ARGUMENT(0)),
	BPF_STMT(BPF_ALU | BPF_AND | BPF_K, CLONE_THREAD | CLONE_VM | CLONE_NEWUSER),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLONE_THREAD | CLONE_VM, 0, 1),
	RETURN(SECCOMP_RET_ALLOW),
	RETURN(REFUSE),
};

static const struct sock_filter pusher_filter[] = {
	PROLOGUE,
	COMMON,
	COMMON_OLD
	ALLOW(openat), ALLOW(newfstatat), ALLOW(lseek),
	RETURN(REFUSE),
};

static const struct sock_filter reader_filter[] = {
	PROLOGUE,
	COMMON,
	COMMON_OLD
	ALLOW(openat), ALLOW(newfstatat), ALLOW(getdents64), ALLOW(readlinkat), ALLOW(readahead),
	ALLOW(lseek), ALLOW(fcntl), ALLOW(recvfrom), ALLOW(open_tree),
	RETURN(REFUSE),
};

static const struct sock_filter renderer_filter[] = {
	PROLOGUE,
	COMMON,
	COMMON_OLD
	ALLOW(openat), ALLOW(newfstatat), ALLOW(lseek), ALLOW(mkdirat), ALLOW(mknodat),
	ALLOW(linkat), ALLOW(symlinkat), ALLOW(unlinkat), ALLOW(readlinkat), ALLOW(fchmod),
	ALLOW(fchmodat), ALLOW(utimensat), ALLOW(ftruncate), ALLOW(pwrite64),
	RETURN(REFUSE),
};

/*
 * It runs interpreters, which call for all sorts of things: so a list of what is not
 * wanted. Others are for those who have privileges, and it has none.
 */
#define FORBID(call)                                          \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
		RETURN(SECCOMP_RET_ERRNO | EPERM)

static const struct sock_filter finder_filter[] = {
	PROLOGUE,
#ifdef __x86_64__
	/* x32 has numbers of its own. */
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
	RETURN(SECCOMP_RET_ERRNO | EPERM),
#endif
	FORBID(socket), FORBID(socketpair), FORBID(io_uring_setup), FORBID(unshare), FORBID(setns),
	FORBID(ptrace), FORBID(process_vm_readv), FORBID(process_vm_writev), FORBID(bpf),
	FORBID(keyctl), FORBID(add_key), FORBID(request_key), FORBID(userfaultfd),
	FORBID(perf_event_open),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
	RETURN(SECCOMP_RET_ERRNO | ENOSYS),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
	LOAD(ARGUMENT(0)),
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER, 0, 1),
	RETURN(SECCOMP_RET_ERRNO | EPERM),
	RETURN(SECCOMP_RET_ALLOW),
};

#define PROGRAM(list) \
	{ .len = sizeof(list) / sizeof((list)[0]), .filter = (struct sock_filter *)(list) }

static int restrict_calls(enum thaw_sandbox kind)
{
	static const struct sock_fprog programs[] = {
		[THAW_SANDBOX_WORKER] = PROGRAM(worker_filter),
		[THAW_SANDBOX_PUSHER] = PROGRAM(pusher_filter),
		[THAW_SANDBOX_READER] = PROGRAM(reader_filter),
		[THAW_SANDBOX_CLONER] = PROGRAM(reader_filter),
		[THAW_SANDBOX_RENDERER] = PROGRAM(renderer_filter),
		[THAW_SANDBOX_FINDER] = PROGRAM(finder_filter),
	};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &programs[kind]) == 0)
		return 0;
	return errno == ENOSYS || errno == EINVAL ? 0 : -errno; /* a kernel built without */
}

#else

static int restrict_calls(enum thaw_sandbox kind)
{
	return 0;
}

#endif

int thaw_sandbox_enter(enum thaw_sandbox kind, int place)
{
	const struct rlimit no_core = { 0 };

	/* What is in memory may be somebody's private packages. */
	(void)setrlimit(RLIMIT_CORE, &no_core); /* lower: cannot fail */
	drop_bounding_set();
	if (kind == THAW_SANDBOX_FINDER) {
		int r = become_nobody();

		if (r < 0)
			return r;
	}
	drop_capabilities(kind == THAW_SANDBOX_CLONER);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	restrict_files(kind, place);
	return restrict_calls(kind);
}
