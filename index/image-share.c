/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open image's index for other processes: the image as it is in our memory, and behind
 * it the index; whoever maps it moves the pointers.
 */
#include <errno.h>
#include <stdlib.h>

#include "image-internal.h"
#include "util/cleanup.h"
#include "util/write-all.h"

/* Both are written padded: what follows stays aligned. */
static size_t size_of(const struct thaw_image *image)
{
	return padded(sizeof(*image)) + padded(image->info.index_size);
}

int thaw_image_share(const struct thaw_image *image, int fd, struct thaw_error *err)
{
	int r = write_padded(fd, image, sizeof(*image));

	if (r == 0)
		r = write_padded(fd, image->raw, image->info.index_size);
	return r < 0 ? thaw_io(err, r, "the index cannot be shared") : 0;
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

int thaw_image_open_shared(struct thaw_source *source, const void *data, size_t size,
			   struct thaw_error *err, struct thaw_image **ret_image,
			   size_t *ret_used)
{
	_cleanup_(thaw_image_freep) struct thaw_image *image = calloc(1, sizeof(*image));
	struct thaw_image theirs;

	if (!image) {
		thaw_source_free(source);
		return thaw_oom(err);
	}
	image->source = source;
	if (size < sizeof(theirs))
		return thaw_damaged(err, "the shared index is none");
	memcpy(&theirs, data, sizeof(theirs));
	if (theirs.info.index_size > size || size_of(&theirs) > size)
		return thaw_damaged(err, "the shared index is none");
	if (source->size < theirs.info.image_size)
		return thaw_damaged(err, "the shared index is another image's");
	theirs.source = source;
	/* The same image, perhaps in another file. */
	theirs.info.image_start = source->size - theirs.info.image_size;
	theirs.borrowed = true;
	move_pointers(&theirs, theirs.raw, (uint8_t *)data + padded(sizeof(theirs)));
	*image = theirs;
	*ret_image = steal_ptr(image);
	*ret_used = size_of(&theirs);
	return 0;
}
