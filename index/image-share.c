/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open image's index for other processes. The memory holds the image as it is in
 * ours, and behind it the index; whoever maps it moves the pointers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image-internal.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

int thaw_image_share(const struct thaw_image *image, struct thaw_error *err, int *ret_fd)
{
	_cleanup_(closep) int fd = memfd_create("thaw-index", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return thaw_io(err, -errno, "the index cannot be shared");
	r = write_all(fd, image, sizeof(*image));
	if (r == 0)
		r = write_all(fd, image->raw, image->info.index_size);
	if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		r = -errno;
	if (r < 0)
		return thaw_io(err, r, "the index cannot be shared");
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* What points into the index of the process that shared it points into ours then. */
static void move_pointers(struct thaw_image *image, const uint8_t *theirs, uint8_t *ours)
{
	const void **const pointers[] = {
		(const void **)&image->inodes,	   (const void **)&image->strings,
		(const void **)&image->frames,	   (const void **)&image->meta,
		(const void **)&image->rules,	   (const void **)&image->relocated,
		(const void **)&image->sites,	   (const void **)&image->relocation_strings,
	};

	for (unsigned i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++)
		if (*pointers[i])
			*pointers[i] = ours + ((const uint8_t *)*pointers[i] - theirs);
	image->raw = ours;
}

/* Into image, whose table has been read: the rest. */
static int map_shared(struct thaw_image *image, int fd, struct thaw_error *err)
{
	struct thaw_image theirs;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *map;

	if (fstat(fd, &st) < 0)
		return thaw_io(err, -errno, "the shared index");
	/* The kernel may have added one of its own. */
	if ((size_t)st.st_size < sizeof(theirs) || seals < 0 || (seals & SEALS) != SEALS)
		return thaw_damaged(err, "the shared index is none");
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return thaw_io(err, -errno, "the shared index");
	image->mapped = map;
	image->mapped_size = (size_t)st.st_size;
	memcpy(&theirs, map, sizeof(theirs));
	if (memcmp(theirs.info.identity, image->info.identity, THAW_DIGEST_SIZE) != 0 ||
	    theirs.info.index_size != image->mapped_size - sizeof(theirs))
		return thaw_damaged(err, "the shared index is another image's");
	theirs.source = image->source;
	theirs.info.image_start = image->info.image_start; /* the same image, in another file */
	theirs.mapped = map;
	theirs.mapped_size = image->mapped_size;
	move_pointers(&theirs, theirs.raw, (uint8_t *)map + sizeof(theirs));
	*image = theirs;
	return 0;
}

int thaw_image_open_shared(struct thaw_source *source, int fd, struct thaw_error *err,
			   struct thaw_image **ret_image)
{
	_cleanup_(thaw_image_freep) struct thaw_image *image = calloc(1, sizeof(*image));
	int r;

	if (!image) {
		thaw_source_free(source);
		return thaw_oom(err);
	}
	image->source = source;
	r = thaw_image_read_table(image, err);
	if (r == 0)
		r = map_shared(image, fd, err);
	if (r < 0)
		return r;
	*ret_image = steal_ptr(image);
	return 0;
}
