/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Running an environment's own interpreter over it: to compile what has no valid
 * bytecode, and to try whether its packages can be imported. Both happen in a
 * private view with a scratch layer, confined: no network, no privileges, nothing
 * to write to but the scratch layer, which is removed afterwards.
 */
#include <stdbool.h>
#include <stdint.h>

#include "thaw/train.h"

struct thaw_compile_options {
	const char *
		python; /* of this node, for environments without; NULL: see thaw/binding.h */
	unsigned processes;	  /* 0: one for each CPU */
	int (*interrupted)(void); /* as for thaw_train() */
	/* Now and then: so many modules of all are done. May be NULL. */
	void (*progress)(void *userdata, uint64_t done, uint64_t total);
	void *progress_data;
};

struct thaw_compile_result {
	uint64_t valid;	   /* sources whose bytecode was good already */
	uint64_t compiled; /* files gathered */
	/*
	 * Relocated sources whose bytecode would not be right in each view: hidden
	 * there, if there is any.
	 */
	uint64_t hidden;
	uint64_t failed; /* sources that cannot be compiled: some are broken on purpose */
};

/*
 * Compile every module beneath lib/pythonX.Y whose .pyc is missing or stale:
 * unchecked-hash, so that it stays valid whatever becomes of mtimes. The files
 * come back in gathered, for thaw_rewrite(). Sources that carry the environment's
 * own path are always compiled, into bytecode that is relocated as they are
 * (thaw/bytecode.h). Errors: -EPERM when there is nothing to compile with or for,
 * -EINTR, I/O.
 */
_must_check_ int thaw_compile(const char *image,
			      const struct thaw_compile_options *options,
			      struct thaw_gathered *gathered, struct thaw_error *err,
			      struct thaw_compile_result *ret_result);

enum thaw_import_outcome {
	THAW_IMPORT_OK,
	THAW_IMPORT_LACKS, /* wants a module that the environment does not have: optional, mostly */
	THAW_IMPORT_FAILED, /* an exception */
	THAW_IMPORT_DIED,   /* a signal, or an exit */
	THAW_IMPORT_HUNG,   /* took longer than a minute */
};

struct thaw_import {
	const char *name; /* of the package or module */
	enum thaw_import_outcome outcome;
	const char *reason; /* one line; empty when all is well */
	double seconds;
};
typedef void thaw_import_fn(void *userdata, const struct thaw_import *import);

/*
 * Import every top-level package and module of site-packages (but those whose
 * names begin with "_"), each in a process of its own. note is called for each,
 * in the order of names. Errors as above.
 */
_must_check_ int thaw_check_imports(const char *image,
				    const struct thaw_compile_options *options,
				    thaw_import_fn *note, void *userdata,
				    struct thaw_error *err);
