/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Removing from the state directory what nobody uses: rendered layers, extracted
 * trees, images that thaw packed by itself, and scratch layers that were left.
 *
 * What is in use, the mount tables say, of every mount namespace that can be
 * seen: private views stand in namespaces of their own. What is merely not used now
 * stays for some days, since it cost time to make.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/error.h"
#include "thaw/image.h"

#define THAW_GC_DAYS 30

struct thaw_gc_image {
	char *path;
	uint8_t identity[THAW_DIGEST_SIZE];
	int64_t used; /* Unix time */
};

struct thaw_gc_options {
	bool dry_run;  /* only say what would be removed */
	unsigned days; /* since it was used */
	/* What the catalogue knows of images, and when they were used. */
	const struct thaw_gc_image *images;
	unsigned image_count;
	const char *scratch; /* further scratch layers than `thaw run`'s, or NULL */
};

/*
 * Sets "removed", an array of {"kind", "path", "bytes"}, and "bytes", their sum, in
 * report. What cannot be removed stays and is left out.
 */
_must_check_ int thaw_gc(const struct thaw_gc_options *options, struct thaw_error *err,
			 json_t *report);

/*
 * Remove one rendered layer (its "tree", as the mount table shows it) unless it is in use:
 * of a view whose directory is gone for good, nobody else has that prefix. Does nothing for
 * what is no layer.
 */
void thaw_gc_layer(const char *tree);
