/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Taking an interpreter and its standard library into an image of a virtual
 * environment, so that no node needs one: the image becomes a prefix, with
 * bin/pythonX.Y and lib/pythonX.Y where Python looks for them from its own place,
 * wherever that is. The packages of the interpreter's own site are not taken.
 *
 * Shared libraries of the machine that the interpreter and its extension modules
 * need (libssl, libffi, ...) are not taken either, only libpython.
 */
#include "thaw/binding.h"
#include "thaw/rewrite.h"

struct thaw_python_files {
	struct thaw_addition *files; /* for thaw_rewrite(); all malloc'ed */
	size_t count, capacity;
	uint64_t size;
	char *meta;	 /* the changes of the meta section */
	char *libraries; /* names of shared libraries that nodes must have, for people */
};

/*
 * Gather the files of the interpreter that executable belongs to, which must fit
 * the image. Runs it once. Errors: -EPERM when the image has an interpreter, when
 * this one does not fit, or cannot be moved (a libpython that it finds by an
 * absolute path that is too short); -EFBIG, I/O.
 */
_must_check_ int thaw_python_gather(const struct thaw_image *image,
				    const char *executable, struct thaw_error *err,
				    struct thaw_python_files *ret_files);
void thaw_python_files_deinit(struct thaw_python_files *files);
