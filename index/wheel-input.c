/* SPDX-License-Identifier: Apache-2.0 */
/* Wheels as an input: the virtual environment that they install. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/write-all.h"
#include "wheel.h"

/* A zip inside of a zip: it is written out before anything of it is believed. */
#define SPOOL_RATIO_MAX 250u
#define SPOOL_GRACE	(64ull << 20) /* bytes before the ratio counts */
#define WHEELS_MAX	4096u

static bool is_wheel_name(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && strcmp(name + len - 4, ".whl") == 0;
}

bool thaw_wheel_recognise(const struct thaw_folder *all, const char *name)
{
	if (!is_wheel_name(name))
		return false;
	for (size_t i = 0; i < all->count; i++) {
		const char *path = folder_path(all, &all->files[i]);
		size_t len = strlen(path);

		if (len > 16 && strcmp(path + len - 16, ".dist-info/WHEEL") == 0 &&
		    strcspn(path, "/") == len - 6)
			return true;
	}
	return false;
}

/* PEX-INFO beside code that starts it; or nothing but wheels. Errors make it a plain one. */
enum thaw_directory_kind thaw_directory_recognise(int fd)
{
	struct stat st;
	size_t wheels = 0;
	bool others = false;
	struct dirent *entry;
	int copy;
	DIR *dir;

	if (fstatat(fd, "PEX-INFO", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISREG(st.st_mode) && fstatat(fd, "__main__.py", &st, 0) == 0 &&
	    S_ISREG(st.st_mode))
		return THAW_DIRECTORY_PEX;
	copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		(void)safe_close(copy);
		return THAW_DIRECTORY_PLAIN;
	}
	while (!others && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (is_wheel_name(entry->d_name) &&
		    fstatat(fd, entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
			wheels++;
		else
			others = true;
	}
	(void)closedir(dir);
	return wheels > 0 && !others ? THAW_DIRECTORY_WHEELS : THAW_DIRECTORY_PLAIN;
}

/* -- zips inside of folders -- */

static int open_temporary(struct thaw_error *err)
{
	const char *directory = getenv("TMPDIR");
	_cleanup_(freep) char *name = NULL;
	int fd;

	if (!directory || directory[0] != '/')
		directory = "/tmp";
	fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	if (asprintf(&name, "%s/thaw-XXXXXX", directory) < 0) {
		name = NULL;
		return thaw_oom(err);
	}
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return thaw_io(err, -errno, "no temporary file in %.200s", directory);
	(void)unlink(name); /* nobody else needs it */
	return fd;
}

static int spool(struct thaw_gather *gather, const struct thaw_file *file,
		 struct thaw_error *err)
{
	struct thaw_file_reader *reader = thaw_gather_reader(gather);
	_cleanup_(closep) int fd = -1;
	int r;

	if (file->size > SPOOL_GRACE &&
	    file->size / SPOOL_RATIO_MAX > file->member->stored)
		return thaw_limit(err,
				  "\"%.200s\": unpacks to more than %u times its size",
				  file->path, SPOOL_RATIO_MAX);
	fd = open_temporary(err);
	if (fd < 0)
		return fd;
	r = thaw_file_begin(reader, file, err);
	while (r == 0) {
		const uint8_t *data;
		size_t len;

		r = thaw_file_next(reader, err, &data, &len);
		if (r < 0 || len == 0)
			break;
		r = write_all(fd, data, len);
		if (r < 0)
			return thaw_io(err, r, "temporary file");
	}
	return r < 0 ? r : steal_fd(&fd);
}

/* The descriptor, offset and size of the zip that a file is. */
static int find_zip(struct thaw_gather *gather, const struct thaw_file *file,
		    struct thaw_error *err, uint64_t *ret_offset)
{
	struct stat st;
	int fd;

	*ret_offset = 0;
	if (file->member && file->member->method == THAW_ZIP_DEFLATED)
		return spool(gather, file, err);
	if (file->member) {
		*ret_offset = file->member->offset;
		fd = fcntl(thaw_zip_fd(file->zip), F_DUPFD_CLOEXEC, 3);
		return fd < 0 ? thaw_io(err, -errno, "\"%.200s\": cannot be read",
					file->path)
			      : fd;
	}
	/* A symlink to a wheel elsewhere is what the user put there. */
	fd = openat(file->directory, file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int error = -errno;

		(void)safe_close(fd);
		return thaw_io(err, error, "\"%.200s\": cannot be read", file->path);
	}
	return fd;
}

int thaw_wheel_open(struct thaw_gather *gather, const struct thaw_file *file,
		    struct thaw_error *err, struct thaw_folder *ret_folder)
{
	struct thaw_folder_store *store;
	uint64_t offset, size = file->size;
	struct thaw_zip *zip;
	struct stat st;
	int fd, r;

	fd = find_zip(gather, file, err, &offset);
	if (fd < 0)
		return fd;
	if (!file->member)
		size = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size
								  : 0;
	r = thaw_gather_failure(file->path, thaw_zip_open(fd, offset, size, err, &zip),
				err);
	if (r < 0) {
		(void)safe_close(fd);
		return r;
	}
	r = thaw_folder_open_zip(fd, zip, err, &store);
	if (r < 0)
		return r;
	*ret_folder = thaw_folder_all(store);
	return thaw_gather_keep(gather, store, err);
}

/* -- inputs -- */

struct opened {
	const char *name; /* file name of the wheel */
	struct thaw_folder files;
	struct thaw_wheel_name said;
};

static int check_wheel(struct thaw_gather *gather, struct thaw_wheel_target *target,
		       const struct opened *wheels, size_t count, struct thaw_error *err)
{
	const struct opened *wheel = &wheels[count];
	uint64_t minors;
	int r;

	for (size_t i = 0; i < count; i++)
		if (thaw_same_project(wheels[i].said.project, wheel->said.project))
			return thaw_refused(err, "%.200s and %.200s are of one project",
					    wheels[i].name, wheel->name);
	r = thaw_wheel_requires(gather, &wheel->files, wheel->name, err, &minors);
	if (r < 0)
		return r;
	return thaw_wheel_target_narrow(target, minors & wheel->said.minors,
					wheel->said.platform, wheel->name, err);
}

/* Takes gather in any case. */
static int install(struct thaw_gather *gather, const struct opened *wheels, size_t count,
		   const struct thaw_wheel_target *target,
		   const struct thaw_input_options *options, struct thaw_error *err,
		   struct thaw_input **ret_input)
{
	struct thaw_input_environment *environment = calloc(1, sizeof(*environment));
	struct thaw_wheel_tree tree;
	unsigned minor = 0;
	int r;

	if (!environment) {
		thaw_gather_free(gather);
		return thaw_oom(err);
	}
	r = thaw_wheel_target_choose(target, options->python_minor, 0, err, &minor,
				     &environment->python_guessed);
	environment->hints.kind = THAW_KIND_WHEELS;
	if (r == 0 && asprintf(&environment->hints.python, "3.%u", minor) < 0) {
		environment->hints.python = NULL;
		r = thaw_oom(err);
	}
	if (r == 0)
		r = thaw_wheel_tree_init(&tree, gather, minor, false, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = thaw_wheel_add(&tree, &wheels[i].files, wheels[i].name, false, err);
	if (r == 0)
		r = thaw_wheel_tree_activate(&tree, err);
	if (r == 0)
		r = thaw_gather_finish(gather, true, err);
	if (r == 0 && tree.requires[0]) {
		environment->hints.constraints = strdup(tree.requires);
		if (!environment->hints.constraints)
			r = thaw_oom(err);
	}
	if (r < 0) {
		thaw_environment_hints_deinit(&environment->hints);
		free(environment);
		thaw_gather_free(gather);
		return r;
	}
	return thaw_gather_input(gather, environment, err, ret_input);
}

int thaw_wheel_input(struct thaw_folder_store *store, const char *name,
		     const struct thaw_input_options *options, struct thaw_error *err,
		     struct thaw_input **ret_input)
{
	_cleanup_(thaw_gather_freep) struct thaw_gather *gather = NULL;
	struct opened wheel = { .name = name, .files = thaw_folder_all(store) };
	struct thaw_wheel_target target;
	int r = thaw_gather_new("wheels", err, &gather);

	if (r < 0) {
		thaw_folder_free(store);
		return r;
	}
	r = thaw_gather_keep(gather, store, err);
	if (r == 0)
		r = thaw_wheel_name_parse(name, err, &wheel.said);
	thaw_wheel_target_init(&target);
	if (r == 0)
		r = check_wheel(gather, &target, &wheel, 0, err);
	if (r < 0)
		return r;
	return install(steal_ptr(gather), &wheel, 1, &target, options, err, ret_input);
}

int thaw_wheels_input(struct thaw_folder_store *store,
		      const struct thaw_input_options *options, struct thaw_error *err,
		      struct thaw_input **ret_input)
{
	_cleanup_(thaw_gather_freep) struct thaw_gather *gather = NULL;
	_cleanup_(freep) struct opened *wheels = NULL;
	struct thaw_folder all = thaw_folder_all(store);
	struct thaw_wheel_target target;
	int r = thaw_gather_new("wheels", err, &gather);

	if (r < 0) {
		thaw_folder_free(store);
		return r;
	}
	r = thaw_gather_keep(gather, store, err);
	if (r < 0)
		return r;
	if (all.count > WHEELS_MAX)
		return thaw_limit(err, "more than %u wheels", WHEELS_MAX);
	wheels = calloc(all.count, sizeof(*wheels));
	if (!wheels)
		return thaw_oom(err);
	thaw_wheel_target_init(&target);
	for (size_t i = 0; r == 0 && i < all.count; i++) {
		wheels[i].name = all.files[i].path;
		r = thaw_wheel_name_parse(wheels[i].name, err, &wheels[i].said);
		if (r == 0)
			r = thaw_wheel_open(gather, &all.files[i], err, &wheels[i].files);
		if (r == 0)
			r = check_wheel(gather, &target, wheels, i, err);
	}
	if (r < 0)
		return r;
	return install(steal_ptr(gather), wheels, all.count, &target, options, err,
		       ret_input);
}
