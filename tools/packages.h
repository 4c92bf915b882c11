/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The Python distributions installed in an image, as their metadata
 * directories say (NAME.dist-info with METADATA, NAME.egg-info with PKG-INFO).
 * What others carry inside of themselves (beneath `_vendor`) does not count.
 * Of conda environments also what conda-meta names and is no Python package.
 */
#include "thaw/image.h"
#include "thaw/reader.h"

struct tool_package {
	char *name; /* as written; one line, printable */
	char *key;  /* as compared: lower case, runs of -_. are one - (PEP 503) */
	char *version;
	uint32_t ino; /* its metadata directory, or its file in conda-meta */
};

struct tool_packages {
	struct tool_package *items; /* sorted by key, then version */
	size_t count, capacity;
};

/* -ENOMEM, or -EIO when metadata cannot be read (err says which). */
_must_check_ int tool_packages_find(const struct thaw_image *image,
				    struct thaw_reader *reader, struct thaw_error *err,
				    struct tool_packages *ret_packages);
void tool_packages_deinit(struct tool_packages *packages);
