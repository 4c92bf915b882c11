/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The parts of the analysis:
 *
 *	environment.c		the kind, the interpreter, the Python version
 *	environment-content.c	platform, and what users should be warned of
 *	environment-scripts.c	first lines of scripts, and activate: relocations
 */
#include "thaw/environment.h"

struct analysis {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	const struct thaw_environment_options *options;
	struct thaw_environment *found;
	unsigned dropped_warnings;
};

#define WARNINGS_MAX 100u

/* Add a warning; bytes that are not printable are escaped. -ENOMEM. */
_must_check_ int analysis_warn(struct analysis *a, const char *format, ...)
	_printf_(2, 3);

/* The file or link of this path itself; symlinks on the way are not followed. */
bool analysis_find(const struct analysis *a, const char *path,
		   struct thaw_inode *ret_inode);

/* What a path leads to, symlinks followed as a kernel would that has the image at a mount. */
enum analysis_end {
	ANALYSIS_INSIDE,  /* *ret_inode; path is where it is, from the root */
	ANALYSIS_OUTSIDE, /* path is absolute, outside of the image */
	ANALYSIS_NOWHERE, /* dangling, or too many links */
};
enum analysis_end analysis_follow(const struct analysis *a, char path[THAW_PATH_MAX + 1],
				  struct thaw_inode *ret_inode);

/* The first bytes of a regular file, at most size - 1, NUL-terminated. Errors of the reader. */
_must_check_ int analysis_read(const struct analysis *a, const struct thaw_inode *inode,
			       char *buf, size_t size, struct thaw_error *err,
			       size_t *ret_len);

/* Names in bin: "python", "python3", "python3.11", "python3.13t". */
bool analysis_is_python_name(const char *name, size_t len);

_must_check_ int analysis_platform(struct analysis *a, struct thaw_error *err);
_must_check_ int analysis_warnings(struct analysis *a, struct thaw_error *err);
/* Of venv-shaped environments and prefixes; conda's are thaw_conda_relocations()'s. */
_must_check_ int analysis_scripts(struct analysis *a, struct thaw_error *err);
