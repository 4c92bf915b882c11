/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Extracted trees, for where there is no FUSE: an image as plain files in the state
 * directory, one tree for an image and a user, shared by all views of it.
 *
 *	STATE/extracted/ID/tree		the files; ID: how the image's identity begins
 *	STATE/extracted/ID/complete	the whole identity, and the boot that it was made in;
 *					its mtime is that of the last use
 *	STATE/extracted/.ID.lock	stays; held (flock) while the tree is made or removed
 *	STATE/extracted/.ID.new		one being made, or left by who was killed
 *
 * Nothing is synced to the disk, which would take longer than extracting: a tree that
 * was made in another boot may be damaged, and is made anew.
 */
#include "thaw/image.h"

/*
 * Find or make the tree of an image (every frame is verified), waiting for others who
 * make it. *ret_tree is its path, malloc'ed. Errors as for thaw_extract(); class refused
 * when what is there is not ours alone.
 */
_must_check_ int thaw_extracted_get(const struct thaw_image *image,
				    struct thaw_error *err, char **ret_tree);
