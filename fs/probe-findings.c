/* SPDX-License-Identifier: Apache-2.0 */
/* What thaw doctor looks at, one by one, and what to do about what is missing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mountinfo.h"
#include "probe-internal.h"
#include "util/cleanup.h"

#define KERNEL_FLOOR   VERSION(5, 14)
#define KERNEL_BENEATH VERSION(6, 5)
#define VERSION(a, b)  ((a)*1000 + (b))

static struct thaw_finding *add(struct thaw_probe *probe, enum thaw_finding_state state,
				const char *what, const char *format, ...) _printf_(4, 5);
static struct thaw_finding *add(struct thaw_probe *probe, enum thaw_finding_state state,
				const char *what, const char *format, ...)
{
	/* The last is written over when there are too many; the table is larger than that. */
	struct thaw_finding *finding = &probe->findings[probe->count < THAW_FINDINGS_MAX
								? probe->count++
								: THAW_FINDINGS_MAX - 1];
	va_list args;

	*finding = (struct thaw_finding){ .state = state, .what = what };
	va_start(args, format);
	(void)vsnprintf(finding->why, sizeof(finding->why), format, args);
	va_end(args);
	return finding;
}

static void remedy(struct thaw_finding *finding, const char *format, ...) _printf_(2, 3);
static void remedy(struct thaw_finding *finding, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(finding->remedy, sizeof(finding->remedy), format, args);
	va_end(args);
}

/* The first bytes of a small file, without the newline at its end. False: not there. */
static bool read_text(const char *path, char *text, size_t size)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (n < 0)
		return false;
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\0'))
		n--;
	text[n] = '\0';
	return true;
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
		if ((at == text || strchr(" \t\n", at[-1])) &&
		    (at[len] == '\0' || strchr(" \t\n", at[len])))
			return true;
	return false;
}

static bool knows_filesystem(const char *name)
{
	char text[8192];

	return read_text("/proc/filesystems", text, sizeof(text)) && has_word(text, name);
}

static bool is_root(void)
{
	return geteuid() == 0;
}

/* -- kernel -- */

static void look_at_kernel(struct thaw_probe *probe)
{
	unsigned major = 0, minor = 0, version;
	struct utsname name;
	char uring[8] = "";

	if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return;
	version = VERSION(major, minor);
	if (version < KERNEL_FLOOR) {
		remedy(add(probe, THAW_FINDING_WARN, "kernel",
			   "Linux %s is older than 5.14, which views need", name.release),
		       "run a newer kernel; until then images can be extracted");
		return;
	}
	if (version < KERNEL_BENEATH)
		remedy(add(probe, THAW_FINDING_WARN, "kernel",
			   "Linux %s cannot mount beneath (6.5): a view is gone for a moment while its "
			   "image is swapped",
			   name.release),
		       "run Linux 6.5 or newer, if images are swapped under running sessions");
	else
		add(probe, THAW_FINDING_OK, "kernel", "Linux %s", name.release);
	if (read_text("/sys/module/fuse/parameters/enable_uring", uring, sizeof(uring)))
		add(probe, THAW_FINDING_OK, "io_uring",
		    "FUSE over io_uring is %s; thaw does not use it",
		    uring[0] == 'Y' ? "on" : "off");
}

/* -- FUSE -- */

static void look_at_device(struct thaw_probe *probe)
{
	_cleanup_(closep) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	struct thaw_finding *finding;
	struct stat st;

	if (fd >= 0) {
		add(probe, THAW_FINDING_OK, "device", "/dev/fuse can be opened");
		return;
	}
	finding = add(probe, THAW_FINDING_MISSING, "device", "/dev/fuse: %s",
		      strerror(errno));
	if (errno == ENOENT)
		remedy(finding, "modprobe fuse; in a container: --device /dev/fuse");
	else if (errno == EACCES && stat("/dev/fuse", &st) == 0)
		remedy(finding, "chmod 0666 /dev/fuse, as udev does");
	else if (errno == EPERM)
		remedy(finding,
		       "allow the device in the container's cgroup: --device /dev/fuse");
	else
		remedy(finding, "modprobe fuse; mknod -m 0666 /dev/fuse c 10 229");
}

static void look_at_module(struct thaw_probe *probe)
{
	if (knows_filesystem("fuse"))
		add(probe, THAW_FINDING_OK, "fuse", "the kernel knows FUSE");
	else
		remedy(add(probe, THAW_FINDING_MISSING, "fuse",
			   "the kernel does not know FUSE (yet)"),
		       "modprobe fuse; build the kernel with CONFIG_FUSE_FS");
}

/* The program as execvp(3) finds it. */
static bool find_program(const char *name, char *path, size_t size, struct stat *ret_st)
{
	const char *search = getenv("PATH");

	for (const char *at = search && *search ? search : "/usr/bin:/bin"; *at;) {
		size_t len = strcspn(at, ":");
		int n = snprintf(path, size, "%.*s/%s", (int)len, at, name);

		if (n > 0 && (size_t)n < size && stat(path, ret_st) == 0 &&
		    S_ISREG(ret_st->st_mode) && access(path, X_OK) == 0)
			return true;
		at += len + (at[len] == ':');
	}
	return false;
}

static void look_at_helper(struct thaw_probe *probe)
{
	/* Root mounts by itself. */
	enum thaw_finding_state bad = is_root() ? THAW_FINDING_WARN
						: THAW_FINDING_MISSING;
	char path[4096];
	struct stat st;

	if (!find_program("fusermount3", path, sizeof(path), &st))
		remedy(add(probe, bad, "fusermount3",
			   "not found: ordinary users have no thaw mount (thaw run does without)"),
		       "install fuse3");
	else if (st.st_uid != 0 || !(st.st_mode & S_ISUID))
		remedy(add(probe, bad, "fusermount3",
			   "%.200s is not setuid root: ordinary users have no thaw mount",
			   path),
		       "chown root %.100s && chmod u+s %.100s", path, path);
	else
		add(probe, THAW_FINDING_OK, "fusermount3", "%.200s is setuid root", path);
}

static void look_at_fuse_conf(struct thaw_probe *probe)
{
	_cleanup_(closefp) FILE *file = fopen("/etc/fuse.conf", "re");
	char line[256];
	bool allowed = false;

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, " \t\r\n")] = '\0';
		allowed = allowed || strcmp(line, "user_allow_other") == 0;
	}
	if (allowed)
		add(probe, THAW_FINDING_OK, "fuse.conf",
		    "users may let others into their mounts");
	else
		remedy(add(probe, THAW_FINDING_WARN, "fuse.conf",
			   "ordinary users cannot let others into what they mount (-o allow_other)"),
		       "if that is wanted: echo user_allow_other >>/etc/fuse.conf");
}

/* -- namespaces -- */

/* A limit of 0 forbids; where there is no such file, there is no limit. */
static void look_at_limit(struct thaw_probe *probe, enum thaw_finding_state bad,
			  const char *path, const char *sysctl, const char *good)
{
	char text[32];

	if (read_text(path, text, sizeof(text)) && strcmp(text, "0") == 0)
		remedy(add(probe, bad, "limit", "%s is 0", sysctl), "sysctl %s=%s",
		       sysctl, good);
}

static void look_at_namespaces(struct thaw_probing *probing, struct thaw_probe *probe)
{
	/* Who may mount needs none for itself. */
	enum thaw_finding_state bad = probing->may_mount ? THAW_FINDING_WARN
							 : THAW_FINDING_MISSING;
	const struct thaw_trial *trial = thaw_probing_trial(probing, true);
	char text[8];
	bool restricted;

	restricted = read_text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
			       text, sizeof(text)) &&
		     strcmp(text, "0") != 0;
	if (trial->failed > THAW_TRIAL_TMPFS) {
		add(probe, THAW_FINDING_OK, "user namespaces",
		    "one was made, and mounted in");
	} else {
		remedy(add(probe, bad, "user namespaces", "%s", trial->why), "%s",
		       restricted ? "see apparmor"
		       : trial->failed == THAW_TRIAL_USER_NAMESPACE && is_root()
			       ? "see the limits; root needs CAP_SETFCAP for it, and in a container unshare "
				 "must be allowed (seccomp)"
		       : trial->failed == THAW_TRIAL_MOUNT_NAMESPACE
			       ? "run where / is a mount of its own (not in a mere chroot), and mount "
				 "namespaces are allowed"
			       : "see the limits; in a container: allow unshare (seccomp), or run it "
				 "with CAP_SYS_ADMIN");
	}
	look_at_limit(probe, bad, "/proc/sys/user/max_user_namespaces",
		      "user.max_user_namespaces", "15000");
	look_at_limit(probe, THAW_FINDING_MISSING, "/proc/sys/user/max_mnt_namespaces",
		      "user.max_mnt_namespaces", "15000");
	look_at_limit(probe, bad, "/proc/sys/kernel/unprivileged_userns_clone",
		      "kernel.unprivileged_userns_clone", "1");
	if (restricted)
		remedy(add(probe,
			   trial->failed > THAW_TRIAL_TMPFS ? THAW_FINDING_OK : bad,
			   "apparmor",
			   "user namespaces are restricted to programs with a profile"),
		       "%s",
		       trial->failed > THAW_TRIAL_TMPFS
			       ? ""
			       : "give thaw a profile with 'userns,', or sysctl "
				 "kernel.apparmor_restrict_unprivileged_userns=0");
}

static void look_at_selinux(struct thaw_probe *probe)
{
	char enforce[8], context[128];

	if (!read_text("/sys/fs/selinux/enforce", enforce, sizeof(enforce)))
		return;
	if (!read_text("/proc/self/attr/current", context, sizeof(context)))
		(void)snprintf(context, sizeof(context), "unknown");
	if (enforce[0] != '1' || !strstr(context, "container"))
		add(probe, THAW_FINDING_OK, "selinux", "%s, in the context %s",
		    enforce[0] == '1' ? "enforcing" : "permissive", context);
	else
		remedy(add(probe, THAW_FINDING_WARN, "selinux",
			   "enforcing, in the context %s, which may lack FUSE mounts",
			   context),
		       "if mounting is denied: --security-opt label=disable, or a policy that allows it");
}

/* -- overlay -- */

static void look_at_overlay(struct thaw_probing *probing, struct thaw_probe *probe)
{
	const struct thaw_trial *trial = thaw_probing_trial(probing, !probing->may_mount);
	enum thaw_trial_step failed = trial->failed;

	if (failed == THAW_TRIAL_OVERLAY)
		remedy(add(probe, THAW_FINDING_MISSING, "overlay", "%s", trial->why),
		       "%s",
		       knows_filesystem("overlay")
			       ? "mounting is denied to us: see namespaces and containers' rules"
			       : "modprobe overlay");
	else if (failed < THAW_TRIAL_OVERLAY)
		remedy(add(probe, THAW_FINDING_MISSING, "overlay",
			   "could not be tried: %s", trial->why),
		       "see above");
	else if (failed == THAW_TRIAL_OVERLAY_FUSE)
		remedy(add(probe, THAW_FINDING_MISSING, "overlay", "%s", trial->why),
		       "run Linux 5.14 or newer");
	else if (failed < THAW_TRIAL_OVERLAY_FUSE)
		remedy(add(probe, THAW_FINDING_MISSING, "views",
			   "overlayfs works, but not over FUSE: %s", trial->why),
		       "see device and fuse");
	else
		add(probe, THAW_FINDING_OK, "overlay", "was mounted over a FUSE mount%s",
		    probing->may_mount ? "" : " in a user namespace");
	if (failed == THAW_TRIAL_SCRATCH)
		remedy(add(probe, THAW_FINDING_WARN, "scratch",
			   "no writable views in %.200s: %s", probing->state.path,
			   trial->why),
		       "set THAW_STATE_DIR to a directory on a local file system that is no overlay");
	else if (failed == THAW_TRIAL_DONE && probing->state.path)
		add(probe, THAW_FINDING_OK, "scratch", "writable views work in %.200s",
		    probing->state.path);
}

/* -- cgroups -- */

static void look_at_cgroups(struct thaw_probe *probe)
{
	char controllers[512];

	if (!read_text("/sys/fs/cgroup/cgroup.controllers", controllers,
		       sizeof(controllers))) {
		remedy(add(probe, THAW_FINDING_WARN, "cgroup",
			   "no cgroup version 2 at /sys/fs/cgroup: memory pressure of a session is not "
			   "seen"),
		       "boot with systemd.unified_cgroup_hierarchy=1");
		return;
	}
	if (has_word(controllers, "memory"))
		add(probe, THAW_FINDING_OK, "cgroup",
		    "version 2, with the memory controller");
	else
		remedy(add(probe, THAW_FINDING_WARN, "cgroup",
			   "version 2, but without the memory controller: memory pressure of a session "
			   "is not seen"),
		       "boot without cgroup_disable=memory; in a container: delegate it");
}

/* -- places -- */

static void look_at_places(struct thaw_probing *probing, struct thaw_probe *probe)
{
	struct thaw_error err = { 0 };
	struct thaw_place place;

	if (thaw_runtime_place(&err, &place) < 0) {
		remedy(add(probe, THAW_FINDING_MISSING, "run-time directory", "%.300s",
			   err.text),
		       "set THAW_RUNTIME_DIR to a directory of your own");
	} else {
		add(probe, THAW_FINDING_OK, "run-time directory", "%.200s (%s)",
		    place.path, place.rule);
		free(place.path);
	}
	if (!probing->state.path)
		remedy(add(probe, THAW_FINDING_MISSING, "state directory", "%s",
			   probing->state.why),
		       "set THAW_STATE_DIR to a directory of your own");
	else if (probing->state.fallback)
		remedy(add(probe, THAW_FINDING_WARN, "state directory",
			   "%.160s, which ends with the boot (%.160s)",
			   probing->state.path, probing->state.why),
		       "set THAW_STATE_DIR to a directory that stays");
	else
		add(probe, THAW_FINDING_OK, "state directory", "%.200s (%s)",
		    probing->state.path, probing->state.rule);
}

static void look_at_service(struct thaw_probe *probe)
{
	char text[256];

	if (thaw_probe_service(text, sizeof(text)))
		add(probe, THAW_FINDING_OK, "node service", "%s", text);
	else
		remedy(add(probe, THAW_FINDING_WARN, "node service", "none: %s", text),
		       "thaw serve, for views that sessions share");
}

static void look_at_executable(struct thaw_probe *probe)
{
	/* The dynamic linker's address: a static executable has none. */
	if (getauxval(AT_BASE) == 0)
		add(probe, THAW_FINDING_OK, "executable", "static");
	else
		remedy(add(probe, THAW_FINDING_WARN, "executable",
			   "linked dynamically: every command starts some milliseconds later"),
		       "build with -Dstatic=true");
}

/* -- leftovers -- */

#define LEFTOVER_MS 2000

/*
 * Ask a mount whether it is alive: statfs(2) always goes to its worker. In a process of
 * nobody's, since what hangs there cannot even be killed. 0, errno, or ETIMEDOUT.
 */
static int ask_mount(const char *path)
{
	int pipes[2], error = ETIMEDOUT;
	struct pollfd pollfd;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return 0;
	pid = fork();
	if (pid == 0) {
		struct statfs st;

		pid = fork();
		if (pid != 0)
			_exit(0);
		error = statfs(path, &st) < 0 ? errno : 0;
		_exit(write(pipes[1], &error, sizeof(error)) < 0);
	}
	(void)safe_close(pipes[1]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	pollfd = (struct pollfd){ .fd = pipes[0], .events = POLLIN };
	if (pid < 0 || (poll(&pollfd, 1, LEFTOVER_MS) > 0 &&
			read(pipes[0], &error, sizeof(error)) != sizeof(error)))
		error = 0; /* cannot be found out */
	(void)safe_close(pipes[0]);
	return error;
}

static void look_at_leftovers(struct thaw_probe *probe)
{
	struct thaw_mount_table table = { 0 };
	unsigned alive = 0, dead = 0;

	if (thaw_mount_table_read(&table, NULL) < 0)
		return;
	for (size_t i = 0; i < table.count; i++) {
		const struct thaw_mount_entry *entry = &table.entries[i];
		int error;

		if (entry->kind != THAW_MOUNT_IMAGE)
			continue;
		error = ask_mount(entry->path);
		if (error != ENOTCONN && error != ETIMEDOUT) {
			alive++;
		} else if (dead++ < 5) {
			struct thaw_finding *finding =
				add(probe, THAW_FINDING_WARN, "leftover", "%.200s: %s",
				    entry->path,
				    error == ENOTCONN ? "its worker is gone"
						      : "does not answer");
			remedy(finding, "thaw umount --lazy %.200s", entry->path);
		}
	}
	if (dead == 0)
		add(probe, THAW_FINDING_OK, "mounts", "%u image%s mounted, none dead",
		    alive, alive == 1 ? "" : "s");
	thaw_mount_table_deinit(&table);
}

void thaw_probe_findings(struct thaw_probing *probing, struct thaw_probe *probe)
{
	look_at_kernel(probe);
	look_at_device(probe);
	look_at_module(probe);
	look_at_helper(probe);
	look_at_fuse_conf(probe);
	look_at_namespaces(probing, probe);
	look_at_selinux(probe);
	look_at_overlay(probing, probe);
	look_at_cgroups(probe);
	look_at_places(probing, probe);
	look_at_service(probe);
	look_at_executable(probe);
	look_at_leftovers(probe);
}

void thaw_probe(struct thaw_probe *ret_probe)
{
	struct thaw_probing probing;

	memset(ret_probe, 0, sizeof(*ret_probe));
	thaw_probing_init(&probing);
	probing.with_scratch = true;
	thaw_probing_ways(&probing, THAW_WAYS_ALL, true, &ret_probe->ways);
	thaw_probe_findings(&probing, ret_probe);
	thaw_probing_deinit(&probing);
}
