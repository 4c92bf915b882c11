/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Extracted trees, for where there is no FUSE: an image as plain files in the state
 * directory, one tree for an image, an interpreter and a user, shared by all views of it.
 *
 *	STATE/extracted/KEY/tree	the files, relocated to where they are and
 *					bound to the interpreter
 *	STATE/extracted/KEY/complete	what KEY is made of, and the boot that it
 *					was made in; its mtime: the last use
 *	STATE/extracted/.KEY.lock	stays; held (flock) while the tree is made
 *					or removed
 *	STATE/extracted/.KEY.new	one being made, or left by who was killed
 *
 * Nothing is synced to the disk, which would take longer than extracting: a tree that
 * was made in another boot may be damaged, and is made anew. A view that can be mounted
 * lays what is rendered for its own place above the tree.
 */
#include "thaw/image.h"

/*
 * Find or make the tree of an image (every frame is verified), waiting for others who
 * make it. interpreter: for an environment that has none (thaw_binding_find()), or
 * NULL. *ret_tree is its path, malloc'ed. Errors as for thaw_extract(); class refused
 * when what is there is not ours alone.
 */
_must_check_ int thaw_extracted_get(const struct thaw_image *image,
				    const char *interpreter, struct thaw_error *err,
				    char **ret_tree);
