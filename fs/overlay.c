/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlays.
 *
 * Layers are named by descriptor where the kernel can (6.13): then no character in
 * a path means anything, and the only limit is the kernel's 500 layers. Before, mount(2)
 * takes them as text, with a backslash before what overlayfs would split at.
 */
#include "overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "thaw/format.h"
#include "util/cleanup.h"
#include "util/growing.h"

#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x00000200
#endif

/* <sys/mount.h> and <linux/mount.h> exclude each other in some C libraries. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	  const void *data);
int umount2(const char *target, int flags);
#define MNT_DETACH	2
#define UMOUNT_NOFOLLOW 8

/* The kernel knows no way to do this that we know; not a failure. */
#define TOO_OLD 2

#define MOUNT_DATA_MAX 4095 /* mount(2) copies one page */

/* -- layers by descriptor -- */

/*
 * What the kernel says about a mount that failed, as " (overlay: ...)": messages come one
 * a read, "w " or "e " before them; the last error is the cause.
 */
static void kernels_words(int fs, char *buf, size_t size)
{
	char message[256];
	ssize_t n;

	buf[0] = '\0';
	while ((n = read(fs, message, sizeof(message) - 1)) > 0) {
		message[n] = '\0';
		message[strcspn(message, "\n")] = '\0';
		if (n > 2 && message[0] == 'e')
			(void)snprintf(buf, size, " (%s)", message + 2); /* may be cut */
	}
}

static int set_fd(int fs, const char *key, int fd)
{
	return syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, key, NULL, fd) < 0 ? -errno : 0;
}

/* fd may be O_PATH, which overlayfs takes from 6.15 on only. */
static int set_directory_fd(int fs, const char *key, int fd)
{
	_cleanup_(closep) int plain = -1;
	int r = set_fd(fs, key, fd);

	if (r != -EBADF)
		return r;
	plain = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return plain < 0 ? -errno : set_fd(fs, key, plain);
}

static int set_directory(int fs, const char *key, const char *path)
{
	_cleanup_(closep) int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : set_directory_fd(fs, key, fd);
}

static int set_scratch(int fs, const char *key, const char *scratch, const char *name)
{
	_cleanup_(closep) int fd = open(scratch, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(closep) int sub = -1;

	if (fd < 0)
		return -errno;
	sub = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return sub < 0 ? -errno : set_directory_fd(fs, key, sub);
}

static int set_layers(const struct thaw_overlay *overlay, int fs, struct thaw_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < overlay->count; i++) {
		const struct thaw_overlay_layer *layer = &overlay->layers[i];

		r = layer->path ? set_directory(fs, "lowerdir+", layer->path)
				: set_directory_fd(fs, "lowerdir+", layer->fd);
		if (r == -EINVAL && i == 0)
			return TOO_OLD;
		if (r < 0)
			return thaw_io(err, r, "a layer of the view, \"%.300s\"",
				       layer->path ? layer->path : "(by descriptor)");
	}
	if (!overlay->scratch && overlay->empty && overlay->count == 1) {
		r = set_directory(fs, "lowerdir+", overlay->empty);
		if (r < 0)
			return thaw_io(err, r, "\"%.300s\"", overlay->empty);
	}
	if (overlay->scratch) {
		r = set_scratch(fs, "upperdir", overlay->scratch, "upper");
		if (r == 0)
			r = set_scratch(fs, "workdir", overlay->scratch, "work");
		if (r < 0)
			return thaw_io(err, r, "the scratch layer \"%.300s\"",
				       overlay->scratch);
	}
	return 0;
}

/* A detached mount; TOO_OLD when this kernel wants text. */
static int make_by_fd(const struct thaw_overlay *overlay, struct thaw_error *err,
		      int *ret_mount)
{
	_cleanup_(closep) int fs = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
	unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
	char words[300];
	int fd, r;

	if (fs < 0 && errno == ENOSYS)
		return TOO_OLD;
	if (fs < 0)
		return thaw_io(err, -errno, "no view can be mounted%s",
			       errno == ENODEV ? ": overlayfs (modprobe overlay)" : "");
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", overlay->source, 0) <
	    0)
		return thaw_io(err, -errno, "the view's source \"%.300s\"",
			       overlay->source);
	r = set_layers(overlay, fs, err);
	if (r != 0)
		return r;
	if (overlay->userxattr &&
	    syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0)
		return thaw_io(err, -errno, "overlayfs (userxattr)");
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
		r = -errno;
		kernels_words(fs, words, sizeof(words));
		return thaw_io(err, r, "overlayfs%s", words);
	}
	if (!overlay->scratch)
		attributes |= MOUNT_ATTR_RDONLY;
	fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
	if (fd < 0)
		return thaw_io(err, -errno, "overlayfs");
	*ret_mount = fd;
	return 0;
}

/* -- layers as text -- */

struct text {
	char *data;
	size_t len, capacity;
	bool failed;
};

static void add_text(struct text *text, const char *more)
{
	size_t len = strlen(more);

	if (text->failed ||
	    grow(&text->data, &text->capacity, text->len + len + 1, 1) < 0) {
		text->failed = true;
		return;
	}
	memcpy(text->data + text->len, more, len + 1);
	text->len += len;
}

static void add_path(struct text *text, const char *path)
{
	for (; *path; path++) {
		char piece[3] = { *path, '\0', '\0' };

		if (strchr("\\:,", *path)) {
			piece[0] = '\\';
			piece[1] = *path;
		}
		add_text(text, piece);
	}
}

static void add_layers(struct text *text, const struct thaw_overlay *overlay)
{
	add_text(text, "lowerdir=");
	for (unsigned i = 0; i < overlay->count; i++) {
		char number[64];

		if (i > 0)
			add_text(text, ":");
		(void)snprintf(number, sizeof(number), "/proc/self/fd/%d",
			       overlay->layers[i].fd);
		add_path(text,
			 overlay->layers[i].path ? overlay->layers[i].path : number);
	}
	if (!overlay->scratch && overlay->empty && overlay->count == 1) {
		add_text(text, ":");
		add_path(text, overlay->empty);
	}
	if (overlay->scratch) {
		add_text(text, ",upperdir=");
		add_path(text, overlay->scratch);
		add_text(text, "/upper,workdir=");
		add_path(text, overlay->scratch);
		add_text(text, "/work");
	}
	if (overlay->userxattr)
		add_text(text, ",userxattr");
}

static int mount_by_text(const struct thaw_overlay *overlay, const char *directory,
			 struct thaw_error *err)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (overlay->scratch ? 0 : MS_RDONLY);
	struct text text = { 0 };
	int r = 0;

	add_layers(&text, overlay);
	if (text.failed)
		r = thaw_oom(err);
	else if (text.len > MOUNT_DATA_MAX)
		r = thaw_limit(
			err,
			"the view has too many layers for this kernel (before 6.13 their "
			"paths may have %d bytes in all)",
			MOUNT_DATA_MAX);
	else if (mount(overlay->source, directory, "overlay", flags, text.data) < 0)
		r = thaw_io(err, -errno, "overlayfs%s",
			    errno == ENODEV ? " (modprobe overlay)" : "");
	free(text.data);
	return r;
}

/* Mounted, cloned, unmounted: for a moment it is to be seen at directory. */
static int make_by_text(const struct thaw_overlay *overlay, const char *directory,
			struct thaw_error *err, int *ret_mount)
{
	int r = mount_by_text(overlay, directory, err), fd;

	if (r < 0)
		return r;
	fd = (int)syscall(SYS_open_tree, AT_FDCWD, directory,
			  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	r = fd < 0 ? thaw_io(err, -errno, "\"%.300s\"", directory) : 0;
	(void)umount2(directory,
		      MNT_DETACH | UMOUNT_NOFOLLOW); /* ours, on top: cannot fail */
	if (r == 0)
		*ret_mount = fd;
	return r;
}

/* -- mounting -- */

static int attach(int fd, const char *directory, unsigned flags)
{
	return syscall(SYS_move_mount, fd, "", AT_FDCWD, directory,
		       MOVE_MOUNT_F_EMPTY_PATH | flags) < 0
		       ? -errno
		       : 0;
}

static int on_directory(int r, const char *directory, struct thaw_error *err)
{
	return thaw_io(err, r, "the view cannot be mounted on \"%.300s\"", directory);
}

int thaw_overlay_mount(const struct thaw_overlay *overlay, const char *directory,
		       struct thaw_error *err)
{
	_cleanup_(closep) int fd = -1;
	int r;

	r = make_by_fd(overlay, err, &fd);
	if (r == TOO_OLD)
		return mount_by_text(overlay, directory, err);
	if (r < 0)
		return r;
	r = attach(fd, directory, 0);
	return r < 0 ? on_directory(r, directory, err) : 0;
}

/* Only a view may be taken away or replaced, and only as the topmost mount. */
static int find_view(const char *directory, struct thaw_error *err,
		     struct thaw_mountpoint *ret_view)
{
	int r = thaw_mountinfo_find(directory, err, ret_view);

	if (r == 0 && !ret_view->view)
		return thaw_refused(err, "\"%.300s\" is not a view of thaw's", directory);
	return r;
}

static int check_view(const char *directory, struct thaw_error *err)
{
	struct thaw_mountpoint view;

	return find_view(directory, err, &view);
}

/* The old one's files are free again only when nobody has it any more. */
static int replace_writable(const struct thaw_overlay *old,
			    const struct thaw_overlay *overlay, const char *directory,
			    struct thaw_error *err)
{
	struct thaw_error second = { 0 };
	int r;

	if (umount2(directory, UMOUNT_NOFOLLOW) < 0) {
		if (errno == EBUSY)
			return thaw_io(err, -EBUSY,
				       "the view at \"%.300s\" is writable and in use",
				       directory);
		return thaw_io(err, -errno, "the view at \"%.300s\"", directory);
	}
	r = thaw_overlay_mount(overlay, directory, err);
	if (r < 0 && thaw_overlay_mount(old, directory, &second) < 0)
		return thaw_io(err, r, "the view at \"%.200s\" is lost: %.200s",
			       directory, second.text);
	return r;
}

int thaw_overlay_replace(const struct thaw_overlay *old,
			 const struct thaw_overlay *overlay, const char *directory,
			 struct thaw_error *err)
{
	_cleanup_(closep) int fd = -1;
	int r;

	r = check_view(directory, err);
	if (r == THAW_NOT_FOUND)
		return thaw_refused(err, "\"%.300s\" is not a view of thaw's", directory);
	if (r < 0)
		return r;
	if (old->scratch)
		return replace_writable(old, overlay, directory, err);
	r = make_by_fd(overlay, err, &fd);
	if (r == TOO_OLD)
		r = make_by_text(overlay, directory, err, &fd);
	if (r < 0)
		return r;
	if (attach(fd, directory, MOVE_MOUNT_BENEATH) == 0) {
		if (umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
			return thaw_io(err, -errno, "the old view at \"%.300s\"",
				       directory);
		return 0;
	}
	/*
	 * Before 6.5, or where mounts propagate in a way that the kernel does not like.
	 */
	if (umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		return thaw_io(err, -errno, "the old view at \"%.300s\"", directory);
	r = attach(fd, directory, 0);
	return r < 0 ? on_directory(r, directory, err) : 0;
}

/*
 * Which mount a name in a directory leads to; -errno. Who serves it is not asked: it may be
 * dead, which must not keep it from being unmounted.
 */
static int mount_at(int directory, const char *name)
{
	_cleanup_(closep) int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(closefp) FILE *file = NULL;
	char path[64], line[128];
	int id = -ENOENT;

	if (fd < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	while (id < 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, "mnt_id: %d", &id) != 1)
			id = -ENOENT;
	return id;
}

/*
 * A mount in a directory that we hold: the way to that may have been exchanged since the table
 * of mounts was read, by whoever owns a part of it, for one that leads to somebody else's.
 */
static int unmount_in(int parent, const char *name, const struct thaw_mountpoint *view,
		      int flags)
{
	char place[THAW_NAME_MAX + 64];
	int id = mount_at(parent, name);

	if (id < 0)
		return id;
	if (id != view->id)
		return -EAGAIN;
	/* Descriptors of the mount itself would make it busy. */
	(void)snprintf(place, sizeof(place), "/proc/self/fd/%d/%s", parent, name);
	return umount2(place, UMOUNT_NOFOLLOW | flags) < 0 ? -errno : 0;
}

int thaw_overlay_unmount(const char *directory, bool lazy, struct thaw_error *err)
{
	const char *slash = strrchr(directory, '/');
	_cleanup_(freep) char *parent = NULL;
	_cleanup_(closep) int fd = -1;
	struct thaw_mountpoint view;
	int r = find_view(directory, err, &view);

	if (r != 0)
		return r;
	parent = slash ? strndup(directory, (size_t)(slash - directory) + 1) : NULL;
	if (!parent)
		return slash ? thaw_oom(err) : thaw_refused(err, "\"%.300s\"", directory);
	fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? -errno
		   : strlen(slash + 1) > THAW_NAME_MAX
		   ? -ENAMETOOLONG
		   : unmount_in(fd, slash + 1, &view, lazy ? MNT_DETACH : 0);
	if (r == -EAGAIN)
		return thaw_refused(err, "\"%.300s\" was moved while it was unmounted", directory);
	if (r == -EBUSY)
		return thaw_io(err, -EBUSY, "the view at \"%.300s\" is in use",
			       directory);
	return r < 0 ? thaw_io(err, r, "the view at \"%.300s\" cannot be unmounted",
			       directory)
		     : 0;
}

/* The topmost mount at path: its number, or 0; whether entry is among those there. */
static int topmost_at(const struct thaw_mount_entry *entry, struct thaw_error *err,
		      bool *ret_there, int *ret_top)
{
	struct thaw_mount_table table;
	int r = thaw_mount_table_read(&table, err);

	*ret_there = false;
	*ret_top = 0;
	if (r < 0)
		return r;
	for (size_t i = 0; i < table.count; i++) {
		if (strcmp(table.entries[i].path, entry->path) != 0)
			continue;
		*ret_top = table.entries[i].id;
		/*
		 * Numbers are used again; the device tells that it is still that mount.
		 */
		*ret_there |= table.entries[i].id == entry->id &&
			      strcmp(table.entries[i].device, entry->device) == 0;
	}
	thaw_mount_table_deinit(&table);
	return 0;
}

int thaw_overlay_detach(const struct thaw_mount_entry *entry, struct thaw_error *err)
{
	bool there;
	int top, r;

	for (;;) {
		r = topmost_at(entry, err, &there, &top);
		if (r < 0 || !there)
			return r;
		if (umount2(entry->path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
			return thaw_io(err, -errno, "\"%.300s\" cannot be detached",
				       entry->path);
		if (top == entry->id)
			return 0;
	}
}
