/* SPDX-License-Identifier: Apache-2.0 */
/* Removing what nobody uses. */
#include "thaw/gc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "scratch.h"
#include "thaw/directories.h"
#include "thaw/mount.h"
#include "util/cleanup.h"
#include "util/growing.h"

struct gc {
	const struct thaw_gc_options *options;
	json_t *removed;
	uint64_t bytes;
	time_t before; /* what was used later stays */
	/* The mount tables of all namespaces, one behind the other. */
	char *mounts;
	size_t used, capacity;
	ino_t *namespaces;
	size_t namespace_count, namespace_capacity;
};

/* -- what is in use -- */

static bool seen_namespace(struct gc *gc, ino_t number)
{
	for (size_t i = 0; i < gc->namespace_count; i++)
		if (gc->namespaces[i] == number)
			return true;
	if (grow(&gc->namespaces, &gc->namespace_capacity, gc->namespace_count + 1,
		 sizeof(ino_t)) == 0)
		gc->namespaces[gc->namespace_count++] = number;
	return false;
}

static int add_mounts(struct gc *gc, const char *pid)
{
	_cleanup_(closep) int fd = -1;
	char path[64];
	struct stat st;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%.20s/ns/mnt", pid);
	if (stat(path, &st) < 0 || seen_namespace(gc, st.st_ino))
		return 0; /* ended, or another user's, who has layers of his own */
	(void)snprintf(path, sizeof(path), "/proc/%.20s/mountinfo", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	do {
		int r = grow(&gc->mounts, &gc->capacity, gc->used + 65536, 1);

		if (r < 0)
			return r;
		n = read(fd, gc->mounts + gc->used, 65535);
		if (n > 0)
			gc->used += (size_t)n;
	} while (n > 0);
	gc->mounts[gc->used] = '\0';
	return n < 0 && errno != EINVAL && errno != ESRCH ? -errno : 0;
}

static int read_all_mounts(struct gc *gc)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	int r = 0;

	if (!proc)
		return -errno;
	while (r == 0 && (entry = readdir(proc)) != NULL)
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			r = add_mounts(gc, entry->d_name);
	(void)closedir(proc);
	return r;
}

/* Keys and identities are 64 hexadecimal digits: nothing else has them in its name. */
static bool is_mounted(const struct gc *gc, const char *hex)
{
	return gc->mounts && strstr(gc->mounts, hex);
}

static bool is_recent(const struct gc *gc, const struct stat *st)
{
	time_t last = st->st_atime > st->st_mtime ? st->st_atime : st->st_mtime;

	return last >= gc->before;
}

static void note(struct gc *gc, const char *kind, const char *path, uint64_t bytes)
{
	json_t *entry = json_pack("{s:s, s:s, s:I}", "kind", kind, "path", path, "bytes",
				  (json_int_t)bytes);

	/* A path that is no UTF-8 is left out of the list, not of the work. */
	if (entry)
		(void)json_array_append_new(gc->removed, entry);
	gc->bytes += bytes;
}

/* -- trees with a lock beside them: rendered layers and extracted trees -- */

/* Renamed first: nobody finds half of it. Under its lock, so nobody is about to use it. */
static bool remove_tree(struct gc *gc, const char *store, const char *name)
{
	_cleanup_(closep) int lock = -1;
	char path[4096], old[4096], lock_path[4096];
	uint64_t bytes = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", store, name);
	(void)snprintf(old, sizeof(old), "%s/.%s.old", store, name);
	(void)snprintf(lock_path, sizeof(lock_path), "%s/.%s.lock", store, name);
	lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
		return false;
	if (thaw_scratch_usage(path, NULL, &bytes) < 0)
		bytes = 0;
	if (!gc->options->dry_run) {
		(void)!thaw_scratch_remove(old); /* of an earlier try */
		if (rename(path, old) < 0 || thaw_scratch_remove(old) < 0)
			return false;
		/* While it is held: who waits for it sees that it is another's name now. */
		(void)unlink(lock_path);
	}
	note(gc, strrchr(store, '/') + 1, path, bytes);
	return true;
}

static bool is_key(const char *name)
{
	return strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

static void collect_trees(struct gc *gc, const char *store, const char *marker)
{
	DIR *directory = opendir(store);
	const struct dirent *entry;

	while (directory && (entry = readdir(directory)) != NULL) {
		struct stat st;
		char path[4096];

		if (!is_key(entry->d_name) || is_mounted(gc, entry->d_name))
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s/%s", store, entry->d_name,
			       marker);
		if (lstat(path, &st) == 0 && is_recent(gc, &st))
			continue;
		(void)remove_tree(gc, store, entry->d_name);
	}
	if (directory)
		(void)closedir(directory);
}

static void collect_stores(struct gc *gc)
{
	_cleanup_(freep) char *layers = NULL, *small = NULL, *extracted = NULL;

	if (thaw_state_directory("layers", NULL, NULL, &layers) == 0)
		collect_trees(gc, layers, "manifest");
	if (thaw_runtime_directory("layers", NULL, NULL, &small) == 0)
		collect_trees(gc, small, "manifest");
	if (thaw_state_directory("extracted", NULL, NULL, &extracted) == 0)
		collect_trees(gc, extracted, ".");
}

void thaw_gc_layer(const char *tree)
{
	static const struct thaw_gc_options options = { 0 };
	struct gc gc = { .options = &options, .removed = json_array() };
	_cleanup_(freep) char *store = strdup(tree);
	char *name = store ? strrchr(store, '/') : NULL;

	/* STORE/KEY/tree */
	if (name && strcmp(name, "/tree") == 0) {
		*name = '\0';
		name = strrchr(store, '/');
	}
	if (name && gc.removed && is_key(name + 1) && read_all_mounts(&gc) == 0 &&
	    !is_mounted(&gc, name + 1)) {
		*name = '\0';
		(void)remove_tree(&gc, store, name + 1);
	}
	json_decref(gc.removed);
	free(gc.mounts);
	free(gc.namespaces);
}

/* -- images -- */

static bool identify(const char *path, char hex[THAW_DIGEST_HEX])
{
	uint8_t identity[THAW_DIGEST_SIZE];
	struct thaw_source *source;

	if (thaw_source_open(path, NULL, &source) < 0 ||
	    thaw_image_identify(source, NULL, identity) < 0)
		return false;
	thaw_digest_hex(identity, hex);
	return true;
}

/* The catalogue writes it down when a view is opened; the file's own times may stand still. */
static bool used_lately(const struct gc *gc, const char *path)
{
	for (unsigned i = 0; i < gc->options->image_count; i++)
		if (strcmp(gc->options->images[i].path, path) == 0 &&
		    gc->options->images[i].used >= (int64_t)gc->before)
			return true;
	return false;
}

static void collect_images(struct gc *gc)
{
	_cleanup_(freep) char *store = NULL;
	const struct dirent *entry;
	DIR *directory;

	if (thaw_state_directory("images", NULL, NULL, &store) < 0)
		return;
	directory = opendir(store);
	while (directory && (entry = readdir(directory)) != NULL) {
		size_t len = strlen(entry->d_name);
		char path[4096], hex[THAW_DIGEST_HEX];
		struct stat st;

		if (len < 5 || strcmp(entry->d_name + len - 5, ".thaw") != 0)
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", store, entry->d_name);
		if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || is_recent(gc, &st) ||
		    used_lately(gc, path) || (identify(path, hex) && is_mounted(gc, hex)))
			continue;
		if (gc->options->dry_run || unlink(path) == 0)
			note(gc, "images", path, (uint64_t)st.st_blocks * 512);
	}
	if (directory)
		(void)closedir(directory);
}

/* -- scratch layers -- */

/* Those whose lock is free. Whether a view lives on without who held it, the sweep finds out. */
static void list_scratch(struct gc *gc, const char *base, json_t *found)
{
	DIR *directory = opendir(base);
	const struct dirent *entry;

	while (directory && (entry = readdir(directory)) != NULL) {
		_cleanup_(closep) int lock = -1;
		char path[4096];
		uint64_t bytes = 0;

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", base, entry->d_name);
		if (thaw_scratch_adopt(path, NULL, &lock) < 0)
			continue;
		if (thaw_scratch_usage(path, NULL, &bytes) < 0)
			bytes = 0;
		(void)json_object_set_new(found, path, json_integer((json_int_t)bytes));
	}
	if (directory)
		(void)closedir(directory);
}

static void collect_scratch(struct gc *gc, const char *base)
{
	json_t *found = json_object(), *bytes;
	const char *path;

	list_scratch(gc, base, found);
	if (!gc->options->dry_run)
		(void)thaw_scratch_sweep(base);
	json_object_foreach(found, path,
			    bytes) if (gc->options->dry_run || access(path, F_OK) < 0)
		note(gc, "scratch", path, (uint64_t)json_integer_value(bytes));
	json_decref(found);
}

int thaw_gc(const struct thaw_gc_options *options, struct thaw_error *err, json_t *report)
{
	struct gc gc = {
		.options = options,
		.removed = json_array(),
		.before = time(NULL) - (time_t)options->days * 86400,
	};
	_cleanup_(freep) char *scratch = NULL;
	int r;

	if (options->days == 0)
		gc.before++; /* what was used this second goes too */
	if (!gc.removed)
		return thaw_oom(err);
	r = read_all_mounts(&gc);
	if (r < 0) {
		json_decref(gc.removed);
		r = thaw_io(err, r,
			    "the tables of mounts cannot be read: nothing is removed");
	} else {
		collect_stores(&gc);
		collect_images(&gc);
		if (thaw_state_directory("scratch", NULL, err, &scratch) == 0)
			collect_scratch(&gc, scratch);
		if (options->scratch)
			collect_scratch(&gc, options->scratch);
		(void)json_object_set_new(report, "removed", gc.removed);
		(void)json_object_set_new(report, "bytes",
					  json_integer((json_int_t)gc.bytes));
	}
	free(gc.mounts);
	free(gc.namespaces);
	return r;
}
