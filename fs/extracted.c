/* SPDX-License-Identifier: Apache-2.0 */
/* Making and finding extracted trees. */
#include "extracted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"
#include "thaw/directories.h"
#include "thaw/extract.h"
#include "util/cleanup.h"
#include "util/write-all.h"

struct place {
	char *final, *new, *lock;	    /* see the header */
	char marker[THAW_DIGEST_HEX + 128]; /* what "complete" has to say */
};

static void place_deinit(struct place *place)
{
	free(place->final);
	free(place->new);
	free(place->lock);
}

static void boot_id(char *buf, size_t size)
{
	_cleanup_(closep) int fd = open("/proc/sys/kernel/random/boot_id",
					O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
}

static int place_init(struct place *place, const struct thaw_image *image,
		      struct thaw_error *err)
{
	char identity[THAW_DIGEST_HEX], boot[64];
	_cleanup_(freep) char *base = NULL;
	int r;

	*place = (struct place){ 0 };
	r = thaw_state_directory("extracted", NULL, err, &base);
	if (r < 0)
		return r;
	thaw_digest_hex(thaw_image_info(image)->identity, identity);
	boot_id(boot, sizeof(boot));
	(void)snprintf(place->marker, sizeof(place->marker), "thaw extracted 1\n%s\n%s\n",
		       identity, boot); /* fits */
	if (asprintf(&place->final, "%s/%.32s", base, identity) < 0)
		place->final = NULL;
	if (asprintf(&place->new, "%s/.%.32s.new", base, identity) < 0)
		place->new = NULL;
	if (asprintf(&place->lock, "%s/.%.32s.lock", base, identity) < 0)
		place->lock = NULL;
	return place->final && place->new && place->lock ? 0 : thaw_oom(err);
}

static int lock_place(const struct place *place, struct thaw_error *err, int *ret_lock)
{
	int fd = open(place->lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return thaw_io(err, -errno, "\"%.300s\"", place->lock);
	while (flock(fd, LOCK_EX) < 0) {
		if (errno != EINTR) {
			int r = thaw_io(err, -errno, "\"%.300s\"", place->lock);

			(void)safe_close(fd);
			return r;
		}
	}
	*ret_lock = fd;
	return 0;
}

/* 1: complete; 0: not there, or not to be trusted; negative: not ours. */
static int is_complete(const struct place *place, struct thaw_error *err)
{
	_cleanup_(closep) int directory =
		open(place->final, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(closep) int marker = -1;
	char text[sizeof(place->marker) + 1];
	struct stat st;
	ssize_t n;

	if (directory < 0 && errno == ENOENT)
		return 0;
	if (directory < 0 && errno != ELOOP && errno != ENOTDIR)
		return thaw_io(err, -errno, "\"%.300s\"", place->final);
	if (directory < 0 || fstat(directory, &st) < 0 || st.st_uid != geteuid() ||
	    (st.st_mode & 022))
		return thaw_refused(err, "\"%.300s\": is not a directory of our own",
				    place->final);
	marker = openat(directory, "complete", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	n = marker < 0 ? 0 : read(marker, text, sizeof(text));
	if (n != (ssize_t)strlen(place->marker) ||
	    memcmp(text, place->marker, (size_t)n) != 0)
		return 0;
	(void)futimens(marker, NULL); /* who cleans up sees that it is used */
	return 1;
}

static int write_marker(const struct place *place)
{
	_cleanup_(freep) char *path = NULL;
	_cleanup_(closep) int fd = -1;

	if (asprintf(&path, "%s/complete", place->new) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : write_all(fd, place->marker, strlen(place->marker));
}

static int make_tree(const struct place *place, const struct thaw_image *image,
		     struct thaw_error *err)
{
	static const struct thaw_pass_options options = { 0 };
	_cleanup_(freep) char *tree = NULL;
	int r;

	if (asprintf(&tree, "%s/tree", place->new) < 0) {
		tree = NULL;
		return thaw_oom(err);
	}
	r = thaw_scratch_remove(place->new);
	if (r == 0)
		r = thaw_scratch_remove(place->final);
	if (r == 0 && mkdir(place->new, 0755) < 0)
		r = -errno;
	if (r < 0)
		return thaw_io(err, r, "\"%.300s\"", place->new);
	r = thaw_extract(image, tree, &options, err);
	if (r == 0) {
		r = write_marker(place);
		if (r == 0 && rename(place->new, place->final) < 0)
			r = -errno;
		if (r < 0)
			(void)thaw_io(err, r, "\"%.300s\"", place->final);
	}
	if (r < 0)
		(void)!thaw_scratch_remove(
			place->new); /* as far as it goes: err says why */
	return r;
}

int thaw_extracted_get(const struct thaw_image *image, struct thaw_error *err,
		       char **ret_tree)
{
	_cleanup_(place_deinit) struct place place;
	_cleanup_(closep) int lock = -1;
	char *tree = NULL;
	int r;

	r = place_init(&place, image, err);
	if (r == 0)
		r = is_complete(&place, err); /* without waiting for who makes another */
	if (r == 0)
		r = lock_place(&place, err, &lock);
	if (r == 0 && lock >= 0)
		r = is_complete(&place, err);
	if (r == 0)
		r = make_tree(&place, image, err);
	if (r < 0)
		return r;
	if (asprintf(&tree, "%s/tree", place.final) < 0)
		return thaw_oom(err);
	*ret_tree = tree;
	return 0;
}
