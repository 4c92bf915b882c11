/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the images of a directory again, for a catalogue that has lost them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "thaw/catalogue.h"
#include "thaw/source.h"
#include "util/cleanup.h"

#define SUFFIX ".thaw"

static bool is_candidate(const char *name)
{
	size_t len = strlen(name), suffix = strlen(SUFFIX);

	/* Unfinished ones are hidden. */
	return name[0] != '.' && len > suffix && strcmp(name + len - suffix, SUFFIX) == 0;
}

/* THAW_NOT_FOUND: it is no image, or cannot be read. */
static int look_at(int directory, const char *name, struct thaw_catalogue_image *image)
{
	/* Neither through a link nor waiting for a fifo's other end. */
	_cleanup_(closep) int fd = openat(directory, name,
					  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct thaw_source *source;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return THAW_NOT_FOUND;
	r = thaw_source_from_fd(fd, NULL, &source);
	if (r == 0)
		r = thaw_image_identify(source, NULL, image->identity);
	if (r < 0)
		return r == -ENOMEM ? r : THAW_NOT_FOUND;
	image->size = (uint64_t)st.st_size;
	image->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	image->used = (int64_t)st.st_mtim.tv_sec; /* nothing later is known */
	return 0;
}

static int add_unknown(struct thaw_catalogue *catalogue, int directory, const char *path,
		       const char *name, struct thaw_error *err, unsigned *added)
{
	struct thaw_catalogue_image image = { 0 }, known;
	_cleanup_(freep) char *full = NULL;
	int r = look_at(directory, name, &image);

	if (r != 0)
		return r < 0 ? thaw_oom(err) : 0;
	r = thaw_catalogue_get_image(catalogue, image.identity, err, &known);
	if (r == 0)
		thaw_catalogue_image_deinit(&known);
	/* A damaged one has been dropped: it is not known any more. */
	if (r != THAW_NOT_FOUND && r != -EBADMSG)
		return r;
	if (asprintf(&full, "%s/%s", path, name) < 0) {
		full = NULL;
		return thaw_oom(err);
	}
	image.name = (char *)name; /* not written to */
	image.path = full;
	r = thaw_catalogue_put_image(catalogue, &image, err);
	*added += r == 0;
	return r;
}

int thaw_catalogue_refill(struct thaw_catalogue *catalogue, const char *directory,
			  struct thaw_error *err, unsigned *ret_added)
{
	const struct dirent *entry;
	unsigned added = 0;
	DIR *list;
	int r = 0;

	list = opendir(directory);
	if (!list)
		return thaw_io(err, -errno, "\"%.300s\"", directory);
	while (r == 0) {
		errno = 0;
		entry = readdir(list);
		if (!entry && errno)
			r = thaw_io(err, -errno, "\"%.300s\"", directory);
		if (!entry)
			break;
		if (is_candidate(entry->d_name))
			r = add_unknown(catalogue, dirfd(list), directory, entry->d_name,
					err, &added);
	}
	(void)closedir(list);
	if (r == 0)
		*ret_added = added;
	return r;
}
