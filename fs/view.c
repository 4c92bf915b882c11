/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private views.
 *
 * The keeper is forked before the mount namespace is left, so that it does not
 * see the mount that it serves: then the mount, and with it the keeper, ends
 * with the last process inside. The device is opened inside of the user
 * namespace that mounts, because the kernel wants both to be one. All mounting
 * is done before the caller's exec, which gives the new capabilities up.
 */
#include "thaw/view.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "connect.h"
#include "keeper.h"
#include "log.h"
#include "mount-options.h"
#include "runtime-directory.h"
#include "serving.h"
#include "util/cleanup.h"

struct view {
	const struct thaw_view_options *options;
	struct thaw_serving serving;
	char identity[THAW_DIGEST_HEX];
	char *fuse_options;
	char *image_directory; /* where the image is mounted */
	char *empty_directory;
	char *path; /* where the view is */
	bool made_alias;
	bool user_namespace;
	int fuse_fd;
	int keeper; /* socket to it */
};

static bool may_mount(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[0].effective & 1u << CAP_SYS_ADMIN;
}

static int write_file(const char *path, const char *text)
{
	_cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/*
 * A user namespace in which we are who we are. Mapped to ourselves, not to
 * root: programs inside see the ids that they expect, and own their files.
 */
static int enter_user_namespace(struct thaw_error *err)
{
	unsigned uid = geteuid(), gid = getegid();
	char map[64];
	int r;

	if (unshare(CLONE_NEWUSER) < 0)
		return thaw_io(err, -errno,
			       "no user namespace can be made (see sysctl user.max_user_namespaces, "
			       "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_"
			       "unprivileged_userns)");
	(void)write_file("/proc/self/setgroups", "deny"); /* before the group map, where it exists */
	(void)snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	r = write_file("/proc/self/uid_map", map);
	(void)snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	if (r == 0)
		r = write_file("/proc/self/gid_map", map);
	return r < 0 ? thaw_io(err, r, "the user namespace cannot be set up") : 0;
}

/* -- places -- */

/* "..", alone or between slashes. */
static bool leads_up(const char *path)
{
	for (const char *part = path; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return true;
	}
	return false;
}

/*
 * Only looked at, and never removed and made anew: another view may stand on it,
 * in a namespace of its own, and would vanish with the directory.
 */
static int check_empty(const char *alias, struct thaw_error *err)
{
	int fd = open(alias, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const struct dirent *entry;
	unsigned names = 0;
	DIR *directory;

	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return thaw_refused(err, "alias \"%.200s\": exists and is no directory", alias);
	directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		int r = thaw_io(err, -errno, "alias \"%.200s\"", alias);

		(void)safe_close(fd);
		return r;
	}
	errno = 0;
	while ((entry = readdir(directory)) != NULL)
		names += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	(void)closedir(directory);
	return names ? thaw_refused(err, "alias \"%.200s\": is a directory that is not empty", alias) :
		       0;
}

/* The alias: ours to mount on only when nothing is hidden by that. */
static int prepare_alias(struct view *view, const char *alias, struct thaw_error *err)
{
	int r;

	if (alias[0] == '\0' || alias[0] == '/' || leads_up(alias))
		return thaw_refused(err, "alias \"%.200s\": must be a name in the current directory",
				    alias);
	view->made_alias = mkdir(alias, 0755) == 0;
	if (!view->made_alias && errno != EEXIST)
		return thaw_io(err, -errno, "alias \"%.200s\" cannot be made", alias);
	r = check_empty(alias, err);
	if (r < 0)
		return r;
	view->path = realpath(alias, NULL);
	return view->path ? 0 : thaw_io(err, -errno, "alias \"%.200s\"", alias);
}

static int prepare_places(struct view *view, struct thaw_error *err)
{
	char id[17];
	int r;

	(void)snprintf(id, sizeof(id), "%.16s", view->identity);
	r = thaw_runtime_directory("image", id, err, &view->image_directory);
	if (r == 0)
		r = thaw_runtime_directory("empty", NULL, err, &view->empty_directory);
	if (r < 0)
		return r;
	if (view->options->alias)
		return prepare_alias(view, view->options->alias, err);
	return thaw_runtime_directory("view", id, err, &view->path);
}

/* -- mounting -- */

static int mount_overlay(struct view *view, struct thaw_error *err)
{
	const char *scratch = view->options->scratch;
	_cleanup_(freep) char *data = NULL;
	char source[sizeof("thaw:sha256:") + THAW_DIGEST_HEX];
	unsigned long flags = MS_NOSUID | MS_NODEV;
	int n;

	/* Without an upper layer overlayfs wants two lower ones; the second is empty. */
	if (scratch)
		n = asprintf(&data, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work%s",
			     view->image_directory, scratch, scratch,
			     view->user_namespace ? ",userxattr" : "");
	else
		n = asprintf(&data, "lowerdir=%s:%s%s", view->image_directory, view->empty_directory,
			     view->user_namespace ? ",userxattr" : "");
	if (n < 0) {
		data = NULL;
		return thaw_oom(err);
	}
	(void)snprintf(source, sizeof(source), "thaw:sha256:%s", view->identity);
	if (mount(source, view->path, "overlay", flags | (scratch ? 0 : MS_RDONLY), data) < 0)
		return thaw_io(err, -errno, "the view cannot be mounted on \"%.300s\" (overlayfs)",
			       view->path);
	return 0;
}

static int mount_all(struct view *view, struct thaw_error *err)
{
	int r;

	if (unshare(CLONE_NEWNS) < 0)
		return thaw_io(err, -errno, "no mount namespace can be made");
	/* What is mounted or unmounted outside still arrives; what we mount does not leave. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return thaw_io(err, -errno, "mounts cannot be made private");
	r = thaw_connect_mount(view->fuse_fd, view->image_directory, view->fuse_options, err);
	if (r == 0)
		r = thaw_keeper_begin(&view->serving, view->keeper, view->image_directory, err);
	/* The keeper's now. From here on we wait for answers: see warmer.h. */
	view->fuse_fd = safe_close(view->fuse_fd);
	if (r == 0)
		r = mount_overlay(view, err);
	return r;
}

static int view_setup(struct view *view, struct thaw_error *err)
{
	int r;

	r = thaw_serving_init(&view->serving, view->options->image, view->options->warm, err);
	if (r < 0)
		return r;
	view->serving.trace = view->options->trace;
	view->serving.timeline = view->options->timeline;
	view->serving.no_readahead = view->options->trace != NULL;
	thaw_digest_hex(thaw_image_info(view->serving.image)->identity, view->identity);
	r = prepare_places(view, err);
	if (r == 0)
		r = thaw_mount_options_parse("allow_other", view->identity, err,
					     &view->fuse_options);
	if (r < 0)
		return r;
	view->user_namespace = !may_mount();
	r = view->user_namespace ? enter_user_namespace(err) : 0;
	if (r == 0)
		r = thaw_connect_open(err, &view->fuse_fd);
	if (r == 0)
		r = thaw_keeper_start(&view->serving, view->fuse_fd, err, &view->keeper);
	if (r == 0)
		r = mount_all(view, err);
	if (r == 0 && view->options->wait_warm &&
	    !thaw_serving_wait_warm(&view->serving, view->keeper))
		return thaw_io(err, -ENOTCONN, "the worker ended while the view was being warmed");
	return r;
}

int thaw_view_enter(const struct thaw_view_options *options, struct thaw_error *err,
		    char **ret_path)
{
	struct view view = { .options = options, .fuse_fd = -1, .keeper = -1 };
	int r;

	thaw_log_open(true);
	r = view_setup(&view, err);
	if (r == 0) {
		*ret_path = view.path;
		view.path = NULL;
	} else if (view.made_alias) {
		(void)rmdir(options->alias); /* as it was; may be somebody else's by now */
	}
	view.fuse_fd = safe_close(view.fuse_fd);
	view.keeper = safe_close(view.keeper);
	thaw_serving_deinit(&view.serving);
	free(view.fuse_options);
	free(view.image_directory);
	free(view.empty_directory);
	free(view.path);
	return r;
}

int thaw_view_environment(const char *path, struct thaw_error *err)
{
	const char *old = getenv("PATH");
	_cleanup_(freep) char *new = NULL;

	if (strchr(path, ':'))
		return thaw_refused(err, "PATH cannot hold \"%.300s\": it has a colon", path);
	if (asprintf(&new, "%s/bin%s%s", path, old && *old ? ":" : "", old ? old : "") < 0) {
		new = NULL;
		return thaw_oom(err);
	}
	if (setenv("PATH", new, 1) < 0 || setenv("THAW_ENV", path, 1) < 0)
		return thaw_oom(err);
	return 0;
}
