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

#include "digest.h"
#include "scratch.h"
#include "thaw/binding.h"
#include "thaw/directories.h"
#include "thaw/extract.h"
#include "thaw/reader.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define KEY_HEX	   32u	      /* of a digest */
#define BIND_CACHE (1u << 20) /* binding reads a few small files */

struct place {
	char *final, *new, *lock, *tree; /* see the header; tree: where it will be */
	char *marker;			 /* what "complete" has to say */
};

static void place_deinit(struct place *place)
{
	free(place->final);
	free(place->new);
	free(place->lock);
	free(place->tree);
	free(place->marker);
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
		      const char *interpreter, struct thaw_error *err)
{
	char identity[THAW_DIGEST_HEX], boot[64], key[THAW_DIGEST_HEX];
	_cleanup_(freep) char *base = NULL;
	uint8_t sum[THAW_DIGEST_SIZE];
	int n, r;

	*place = (struct place){ 0 };
	r = thaw_state_directory("extracted", NULL, err, &base);
	if (r < 0)
		return r;
	thaw_digest_hex(thaw_image_info(image)->identity, identity);
	boot_id(boot, sizeof(boot));
	n = asprintf(&place->marker, "thaw extracted 1\n%s\n%s\n%s\n", identity,
		     interpreter ? interpreter : "", boot);
	if (n < 0)
		place->marker = NULL;
	/* Without the boot: the same place in each. */
	if (n < 0 || thaw_digest_once(place->marker, (size_t)n - strlen(boot), sum) < 0)
		return thaw_oom(err);
	thaw_digest_hex(sum, key);
	key[KEY_HEX] = '\0';
	if (asprintf(&place->final, "%s/%s", base, key) < 0)
		place->final = NULL;
	if (asprintf(&place->tree, "%s/%s/tree", base, key) < 0)
		place->tree = NULL;
	if (asprintf(&place->new, "%s/.%s.new", base, key) < 0)
		place->new = NULL;
	if (asprintf(&place->lock, "%s/.%s.lock", base, key) < 0)
		place->lock = NULL;
	return place->final && place->tree && place->new && place->lock ? 0
									: thaw_oom(err);
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
	size_t len = strlen(place->marker);
	_cleanup_(freep) char *text = malloc(len + 1);
	struct stat st;
	ssize_t n;

	if (!text)
		return thaw_oom(err);
	if (directory < 0 && errno == ENOENT)
		return 0;
	if (directory < 0 && errno != ELOOP && errno != ENOTDIR)
		return thaw_io(err, -errno, "\"%.300s\"", place->final);
	if (directory < 0 || fstat(directory, &st) < 0 || st.st_uid != geteuid() ||
	    (st.st_mode & 022))
		return thaw_refused(err, "\"%.300s\": is not a directory of our own",
				    place->final);
	marker = openat(directory, "complete", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	n = marker < 0 ? 0 : read(marker, text, len + 1);
	if (n != (ssize_t)len || memcmp(text, place->marker, (size_t)n) != 0)
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

/* As for a view at the place where the tree will be. */
static int write_tree(const struct place *place, const struct thaw_image *image,
		      const char *interpreter, const char *tree, struct thaw_error *err)
{
	static const struct thaw_pass_options options = { 0 };
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;
	_cleanup_(closep) int directory = -1;
	int r;

	r = thaw_extract_at(image, tree, place->tree, &options, err);
	if (r < 0 || !interpreter)
		return r;
	directory = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return thaw_io(err, -errno, "\"%.300s\"", tree);
	if (thaw_reader_new(image, BIND_CACHE, &reader) < 0)
		return thaw_oom(err);
	r = thaw_binding_render(image, reader, place->tree, interpreter, directory, err);
	return r < 0 ? r : 0;
}

static int make_tree(const struct place *place, const struct thaw_image *image,
		     const char *interpreter, struct thaw_error *err)
{
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
	r = write_tree(place, image, interpreter, tree, err);
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

int thaw_extracted_get(const struct thaw_image *image, const char *interpreter,
		       struct thaw_error *err, char **ret_tree)
{
	_cleanup_(place_deinit) struct place place;
	_cleanup_(closep) int lock = -1;
	int r;

	r = place_init(&place, image, interpreter, err);
	if (r == 0)
		r = is_complete(&place, err); /* without waiting for who makes another */
	if (r == 0)
		r = lock_place(&place, err, &lock);
	if (r == 0 && lock >= 0)
		r = is_complete(&place, err);
	if (r == 0)
		r = make_tree(&place, image, interpreter, err);
	if (r < 0)
		return r;
	*ret_tree = steal_ptr(place.tree);
	return 0;
}
