/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Layers: an environment's relocated files, rendered for one prefix.
 *
 * A layer is a tree of plain files that an overlay lays above the image: the
 * files that carry the environment's own path, with the view's path in them; a
 * bin/conda-unpack that has nothing left to do; the links to an interpreter
 * that a venv needs; and whiteouts over the bytecode of sources that changed.
 * It is rendered once for each image, prefix and interpreter, into a store of
 * layers, and shared by every view with that prefix (and
 * owner, where it has one of its own). What is in the store is
 * verified against the layer's manifest before it is used, and rendered anew
 * when it is damaged. Any number of processes may ask for one layer at once.
 *
 * A store is a directory of its owner's alone:
 *
 *	STORE/KEY/tree		the layer
 *	STORE/KEY/manifest	what is in it, with sizes and digests; its first
 *				lines give the digest of the image's index (which
 *				stays the same when warm sets are added), the
 *				prefix and the interpreter
 *	STORE/KEY/verified	that it was good since the machine started
 *	STORE/.KEY.lock		stays; held (flock) while a layer is rendered or verified
 *	STORE/.KEY.new		a layer being rendered, or left by who was killed
 *	STORE/.KEY.old		a damaged layer being removed
 *
 * A layer may be removed, under its lock, while no overlay uses it.
 */
#include <sys/types.h>

#include "thaw/image.h"
#include "thaw/reader.h"

struct thaw_layer_options {
	/*
	 * Where the view will stand. Absolute; no NUL, no newline, no "..".
	 * Doubled slashes, "." and slashes at the end are taken out.
	 */
	const char *prefix;
	/*
	 * For environments without an interpreter of their own: the one to use, as
	 * thaw_binding_find() chose it; otherwise NULL.
	 */
	const char *interpreter;
	/*
	 * Whose the files are to be, where they are not the caller's own (uid 0): of a
	 * view that its user writes into, which must be able to change them.
	 */
	uid_t uid;
	gid_t gid;
	const char *store; /* created, mode 0700, when missing; its parent must exist */
};

/*
 * Render the layer of an image, or find it. *ret_directory is its tree, to be
 * freed, or NULL when the image needs none. Errors: -EPERM refused (a prefix
 * that does not fit a binary, naming both lengths; an impossible prefix; a store
 * that is not ours), -EBADMSG damage of the image, I/O and no space, of which
 * nothing is left.
 */
_must_check_ int thaw_layer_render(const struct thaw_image *image,
				   struct thaw_reader *reader,
				   const struct thaw_layer_options *options,
				   struct thaw_error *err, char **ret_directory);

/*
 * The two halves of that, for whoever keeps the image's bytes and the store apart. First:
 * find the layer of the image with this index, and where it is missing or damaged, make an
 * empty directory, have fill() fill it, and look through what is there then: anything but
 * plain files, directories, links and whiteouts of ours is -EPERM. fill() returns as
 * thaw_layer_fill(). *ret_directory is NULL when that found nothing to put into it.
 */
typedef int thaw_layer_fill_fn(void *userdata, int tree, struct thaw_error *err);
_must_check_ int thaw_layer_find(const uint8_t index_digest[THAW_DIGEST_SIZE],
				 const struct thaw_layer_options *options,
				 thaw_layer_fill_fn *fill, void *userdata,
				 struct thaw_error *err, char **ret_directory);
/*
 * Second: render into an open, empty directory. options->store is not used. 0, or
 * THAW_NOT_FOUND when the image needs no layer; errors as of thaw_layer_render().
 */
_must_check_ int thaw_layer_fill(const struct thaw_image *image, struct thaw_reader *reader,
				 const struct thaw_layer_options *options, int tree,
				 struct thaw_error *err);

/*
 * The prefix as it will be written into files, or -EPERM with the reason. No
 * file is looked at.
 */
_must_check_ int thaw_layer_prefix(const char *prefix, struct thaw_error *err,
				   char **ret_prefix);
/*
 * Would a layer for this prefix be refused because of its length? For those who
 * choose a prefix: bytes that a prefix may have at most, THAW_PATH_MAX when
 * nothing bounds it.
 */
size_t thaw_layer_prefix_max(const struct thaw_image *image);
/* What the relocated files take, in bytes; their prefix's length apart. */
uint64_t thaw_layer_size(const struct thaw_image *image);
