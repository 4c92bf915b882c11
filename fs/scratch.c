/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scratch layers.
 *
 *	BASE/.lock		held while one is made or looked for: short
 *	BASE/s-XXXXXX/		0700, so that nobody gets at the files past the view
 *		lock		held (flock) by who looks after it
 *		namespace	where its view is: see scratch.h
 *		upper/, work/
 */
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

#define NAME_PREFIX "s-"

/* -- removing -- */

/*
 * What was written may be deeper than any path or number of descriptors allows:
 * directories are moved up to the top as they are met, so the tree never gets
 * deeper than two. Nobody else gets at it: its top directory is ours alone.
 */
struct removal {
	int top;
	unsigned number; /* for the next directory that is moved up */
	bool progress;
	int error; /* the first */
};

static void note_error(struct removal *removal, int error)
{
	if (removal->error == 0)
		removal->error = error;
}

static bool is_directory(int parent, const char *name)
{
	struct stat st;

	return fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(st.st_mode);
}

/* Its owner may have closed it, and overlayfs leaves one of mode 0 behind. */
static DIR *open_directory(int parent, const char *name)
{
	int fd;
	DIR *directory;

	if (is_directory(parent, name))
		(void)fchmodat(parent, name, 0700, 0); /* if that fails, opening tells */
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory)
		(void)safe_close(fd);
	return directory;
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void move_up(struct removal *removal, int parent, const char *name)
{
	char number[32];

	(void)fchmodat(parent, name, 0700, 0); /* its ".." changes */
	do
		(void)snprintf(number, sizeof(number), "d-%u", removal->number++);
	while (faccessat(removal->top, number, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
	if (renameat(parent, name, removal->top, number) < 0)
		note_error(removal, -errno);
	else
		removal->progress = true;
}

static void remove_entry(struct removal *removal, const char *name)
{
	const struct dirent *entry;
	DIR *directory;

	if (unlinkat(removal->top, name, 0) == 0) {
		removal->progress = true;
		return;
	}
	if (errno != EISDIR && errno != EPERM) {
		note_error(removal, -errno);
		return;
	}
	directory = open_directory(removal->top, name);
	if (!directory) {
		note_error(removal, -errno);
		return;
	}
	while ((entry = readdir(directory)) != NULL) {
		if (is_dot(entry->d_name))
			continue;
		if (unlinkat(dirfd(directory), entry->d_name, 0) == 0)
			removal->progress = true;
		else if (is_directory(dirfd(directory), entry->d_name))
			move_up(removal, dirfd(directory), entry->d_name);
		else
			note_error(removal, -errno);
	}
	(void)closedir(directory); /* nothing that was read is lost */
	if (unlinkat(removal->top, name, AT_REMOVEDIR) == 0)
		removal->progress = true;
	else if (errno != ENOTEMPTY)
		note_error(removal, -errno);
}

int thaw_scratch_remove(const char *path)
{
	struct removal removal = { .progress = true };
	DIR *top = open_directory(AT_FDCWD, path);
	unsigned left = 1;

	if (!top)
		return errno == ENOENT ? 0 : -errno;
	removal.top = dirfd(top);
	while (left > 0 && removal.progress) {
		const struct dirent *entry;

		left = 0;
		removal.progress = false;
		rewinddir(top);
		while ((entry = readdir(top)) != NULL) {
			/*
			 * The lock goes last, with everything: until then it is seen to
			 * be held.
			 */
			if (is_dot(entry->d_name) || strcmp(entry->d_name, "lock") == 0)
				continue;
			left++;
			remove_entry(&removal, entry->d_name);
		}
	}
	if (left == 0) {
		(void)unlinkat(removal.top, "lock", 0); /* there is none in memory */
		if (rmdir(path) < 0 && errno != ENOENT)
			note_error(&removal, -errno);
		else
			removal.error =
				0; /* what a first pass could not do, a later one did */
	}
	(void)closedir(top);
	return removal.error;
}

/* -- locks -- */

/* BASE/.lock, or -errno. Held only while names are made or looked at. */
static int lock_base(const char *base)
{
	_cleanup_(freep) char *path = NULL;
	_cleanup_(closep) int fd = -1;

	if (asprintf(&path, "%s/.lock", base) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	return steal_fd(&fd);
}

/* The lock of one that is there: a descriptor, -EBUSY, or another -errno. */
static int try_lock(const char *path)
{
	_cleanup_(freep) char *lock = NULL;
	_cleanup_(closep) int fd = -1;

	if (asprintf(&lock, "%s/lock", path) < 0) {
		lock = NULL;
		return -ENOMEM;
	}
	fd = open(lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return steal_fd(&fd);
}

/* "BOOT NUMBER" of the caller's mount namespace; numbers begin anew with each boot. */
static int describe_namespace(char *buf, size_t size)
{
	_cleanup_(closep) int fd = open("/proc/sys/kernel/random/boot_id",
					O_RDONLY | O_CLOEXEC);
	struct stat st;
	char boot[64] = "";
	ssize_t n = fd < 0 ? 0 : read(fd, boot, sizeof(boot) - 1);

	boot[n > 0 ? strcspn(boot, "\n") : 0] = '\0';
	if (stat("/proc/self/ns/mnt", &st) < 0)
		return -errno;
	(void)snprintf(buf, size, "%s %llu", boot, (unsigned long long)st.st_ino);
	return 0;
}

int thaw_scratch_note_namespace(const char *path)
{
	_cleanup_(freep) char *file = NULL;
	_cleanup_(closep) int fd = -1;
	char text[128];
	int r;

	r = describe_namespace(text, sizeof(text));
	if (r < 0)
		return r;
	if (asprintf(&file, "%s/" THAW_SCRATCH_NAMESPACE, path) < 0) {
		file = NULL;
		return -ENOMEM;
	}
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : write_all(fd, text, strlen(text));
}

/* Whether any process that we can look at is in that namespace. */
static bool namespace_lives(unsigned long long number)
{
	const struct dirent *entry;
	DIR *proc = opendir("/proc");
	bool lives = !proc; /* unknown is taken to be alive */

	while (proc && !lives && (entry = readdir(proc)) != NULL) {
		char path[300];
		struct stat st;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		(void)snprintf(path, sizeof(path), "/proc/%s/ns/mnt",
			       entry->d_name); /* fits */
		lives = stat(path, &st) == 0 && st.st_ino == number;
	}
	if (proc)
		(void)closedir(proc);
	return lives;
}

bool thaw_scratch_is_in_use(const char *path)
{
	_cleanup_(freep) char *file = NULL;
	_cleanup_(closep) int fd = -1;
	char then[128] = "", now[128], *number;
	ssize_t n;

	if (asprintf(&file, "%s/" THAW_SCRATCH_NAMESPACE, path) < 0) {
		file = NULL;
		return true;
	}
	fd = open(file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, then, sizeof(then) - 1);
	if (n <= 0 || describe_namespace(now, sizeof(now)) < 0)
		return false; /* never got so far as to be used */
	number = strchr(then, ' ');
	if (!number || strncmp(then, now, (size_t)(number + 1 - then)) != 0)
		return false; /* another boot's */
	return namespace_lives(strtoull(number + 1, NULL, 10));
}

/* One that nobody uses, and that is held by us from now on. */
struct stale {
	char *path;
	int lock;
};

static unsigned find_stale(const char *base, struct stale **ret_stale)
{
	size_t count = 0, capacity = 0;
	const struct dirent *entry;
	DIR *directory = opendir(base);

	*ret_stale = NULL;
	while (directory && (entry = readdir(directory)) != NULL) {
		struct stale stale;

		if (strncmp(entry->d_name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0 ||
		    asprintf(&stale.path, "%s/%s", base, entry->d_name) < 0)
			continue;
		stale.lock = try_lock(stale.path);
		/* The lock is free: was its holder killed, and the view lives on? */
		if (stale.lock < 0 || thaw_scratch_is_in_use(stale.path) ||
		    grow(ret_stale, &capacity, count + 1, sizeof(stale)) < 0) {
			(void)safe_close(stale.lock);
			free(stale.path);
			continue;
		}
		(*ret_stale)[count++] = stale;
	}
	if (directory)
		(void)closedir(directory);
	return (unsigned)count;
}

/* Removed without the base's lock: it may take a while. */
static unsigned remove_stale(struct stale *stale, unsigned count)
{
	unsigned removed = 0;

	for (unsigned i = 0; i < count; i++) {
		removed += thaw_scratch_remove(stale[i].path) == 0;
		(void)safe_close(stale[i].lock);
		free(stale[i].path);
	}
	free(stale);
	return removed;
}

unsigned thaw_scratch_sweep(const char *base)
{
	int lock = lock_base(base);
	struct stale *stale;
	unsigned count;

	if (lock < 0)
		return 0;
	count = find_stale(base, &stale);
	(void)safe_close(lock);
	return remove_stale(stale, count);
}

/* -- making -- */

static int make_layer(const char *path, uid_t uid, gid_t gid)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (mkdirat(fd, "upper", 0755) < 0 || mkdirat(fd, "work", 0700) < 0 ||
	    fchmodat(fd, "upper", 0755, 0) < 0)
		return -errno;
	/*
	 * The view's top directory is the upper layer's; nothing to do where it is ours
	 * anyway.
	 */
	if ((uid != geteuid() || gid != getegid()) &&
	    fchownat(fd, "upper", uid, gid, 0) < 0)
		return -errno;
	return 0;
}

static int make_locked(const char *base, uid_t uid, gid_t gid, char **ret_path,
		       int *ret_lock)
{
	_cleanup_(freep) char *path = NULL;
	int lock, r;

	if (asprintf(&path, "%s/" NAME_PREFIX "XXXXXX", base) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (!mkdtemp(path))
		return -errno;
	lock = try_lock(path);
	r = lock < 0 ? lock : make_layer(path, uid, gid);
	if (r == 0)
		r = thaw_scratch_note_namespace(path);
	if (r < 0) {
		(void)!thaw_scratch_remove(path); /* the error that matters is known */
		(void)safe_close(lock);
		return r;
	}
	*ret_path = steal_ptr(path);
	*ret_lock = lock;
	return 0;
}

int thaw_scratch_new(const char *base, uid_t uid, gid_t gid, struct thaw_error *err,
		     char **ret_path, int *ret_lock)
{
	int base_lock, r;

	(void)thaw_scratch_sweep(base);
	base_lock = lock_base(base);
	if (base_lock < 0)
		return thaw_io(err, base_lock,
			       "no scratch layer can be made in \"%.300s\"", base);
	r = make_locked(base, uid, gid, ret_path, ret_lock);
	(void)safe_close(base_lock);
	return r < 0 ? thaw_io(err, r, "no scratch layer can be made in \"%.300s\"", base)
		     : 0;
}

int thaw_scratch_adopt(const char *path, struct thaw_error *err, int *ret_lock)
{
	int lock = try_lock(path);

	if (lock < 0)
		return thaw_io(err, lock, "the scratch layer \"%.300s\"", path);
	*ret_lock = lock;
	return 0;
}

int thaw_scratch_mount(const char *directory, uint64_t size, uid_t uid, gid_t gid,
		       struct thaw_error *err)
{
	char data[64] = "mode=0700";
	int r;

	if (size)
		(void)snprintf(data, sizeof(data), "mode=0700,size=%llu",
			       (unsigned long long)size);
	if (mount("thaw:scratch", directory, "tmpfs", MS_NOSUID | MS_NODEV, data) < 0)
		return thaw_io(err, -errno,
			       "no scratch layer can be made in memory (tmpfs)");
	r = make_layer(directory, uid, gid);
	if (r < 0) {
		(void)umount2(directory,
			      MNT_DETACH | UMOUNT_NOFOLLOW); /* ours, and empty */
		return thaw_io(err, r, "no scratch layer can be made in memory (tmpfs)");
	}
	return 0;
}

/* -- size -- */

static uint64_t tree_bytes(const char *path)
{
	char *const roots[] = { (char *)path, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	const FTSENT *entry;
	uint64_t total = 0;

	while (fts && (entry = fts_read(fts)) != NULL)
		if (entry->fts_info != FTS_DP && entry->fts_info != FTS_NS &&
		    entry->fts_info != FTS_ERR)
			total += (uint64_t)entry->fts_statp->st_blocks * 512 /
				 (S_ISDIR(entry->fts_statp->st_mode) ||
						  !entry->fts_statp->st_nlink
					  ? 1
					  : entry->fts_statp->st_nlink);
	if (fts)
		(void)fts_close(fts);
	return total;
}

int thaw_scratch_usage(const char *path, struct thaw_error *err, uint64_t *ret_bytes)
{
	_cleanup_(freep) char *upper = NULL;

	if (asprintf(&upper, "%s/upper", path) < 0) {
		upper = NULL;
		return thaw_oom(err);
	}
	if (access(upper, F_OK) < 0)
		return thaw_io(err, -errno, "the scratch layer \"%.300s\"", path);
	*ret_bytes = tree_bytes(upper);
	return 0;
}
