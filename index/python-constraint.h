/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Constraints on the version of an interpreter, as PEX files and wheels have them. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"

#define THAW_CONSTRAINTS_MAX 4096u /* bytes of all alternatives; a real one has 20 */

/* "CPython>=3.9,<3.12", ">=3.8": the minors of Python 3 with a patch level that fits. */
_must_check_ int thaw_python_constraint(const char *text, size_t len,
					uint64_t *ret_minors);
/*
 * Does one of the constraints, "A or B", hold for this version? "3.11.7": for
 * this one; "3.11": for every patch level. NULL allows all; an alternative that
 * is no constraint on CPython allows none.
 */
bool thaw_python_allowed(const char *constraints, const char *version);
