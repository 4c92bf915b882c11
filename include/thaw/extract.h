/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Whole passes over an image: writing it out as a tree or as the tar stream,
 * and checking every byte. All use every CPU, and no cache.
 */
#include "thaw/image.h"

/* A nonzero result cancels: the call returns -EINTR. Called from one thread at a time. */
typedef int thaw_pass_progress_fn(void *userdata, uint64_t done, uint64_t total);

struct thaw_pass_options {
	unsigned threads; /* 0: one for each CPU */
	thaw_pass_progress_fn *progress; /* bytes of data space; may be NULL */
	void *progress_data;
};

/*
 * Write the tree into directory, which is created, or must be an empty
 * directory. Served modes and mtimes, hard links and symlinks as in the image;
 * nothing is ever written through a symlink or outside. On failure what was
 * written is removed again, the directory too if it was made here.
 */
_must_check_ int thaw_extract(const struct thaw_image *image, const char *directory,
			      const struct thaw_pass_options *options, struct thaw_error *err);
/*
 * The same for a tree that will stand at prefix: its files as a view there has
 * them (see thaw/layer.h), without the bytecode of those that differ. Where an
 * environment has no interpreter of its own, its links stay as they were packed.
 */
_must_check_ int thaw_extract_at(const struct thaw_image *image, const char *directory,
				 const char *prefix, const struct thaw_pass_options *options,
				 struct thaw_error *err);

/*
 * Write the decompressed tar stream of an image to fd. Needs no index and knows
 * no features: zstd frames in order, skippable ones skipped, so it works for
 * images that this thaw cannot serve. Frame digests are not looked at (zstd's
 * own checksums are).
 */
_must_check_ int thaw_extract_stream(struct thaw_source *source, int fd,
				     const struct thaw_pass_options *options,
				     struct thaw_error *err);

struct thaw_verify_result {
	uint64_t frames, files; /* checked */
	uint64_t bad_frames, bad_files;
	uint64_t warm_pages, bad_warm_pages;
	uint64_t sites, bad_sites; /* of relocations: what they say stands there, or not */
	bool stream_ok; /* the stream's own digest */
	bool index_ok;	/* indexing the stream anew gives the same records */
};
/* One line about each thing that is wrong; called from one thread at a time. */
typedef void thaw_verify_fault_fn(void *userdata, const char *fault);

/*
 * Check every frame's digest and decompress it, the stream's digest, and that
 * the index says of the stream what a fresh look at the tar says. Returns 0
 * when all was read, also when faults were found (see the result).
 */
_must_check_ int thaw_verify(const struct thaw_image *image,
			     const struct thaw_pass_options *options,
			     thaw_verify_fault_fn *fault, void *fault_data,
			     struct thaw_error *err, struct thaw_verify_result *ret_result);
