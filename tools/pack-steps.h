/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What thaw pack does with an image after it was made: --with-python, --compile, --check,
 * --executable.
 */
#include <jansson.h>
#include <stdbool.h>

#include "thaw/compile.h"
#include "thaw/pack.h"

struct pack_steps {
	/* given */
	const char *python;
	bool quiet; /* no progress bars */
	bool with_python, compile, check, executable;
	/* done */
	char *taken;	 /* the interpreter that was taken in */
	char *libraries; /* that nodes must have for it */
	bool compiled;
	struct thaw_compile_result result;
	bool checked;
	json_t *imports; /* of the check: all of them */
	unsigned ok, lacking, failed;
	uint64_t launcher; /* bytes in front of the image */
};

/*
 * Do them, each replacing the image and updating its report. When one cannot be
 * done it says so, removes the image and returns the exit code. A check that finds
 * something broken returns THAW_EXIT_DAMAGED, and the image stays.
 */
int pack_steps_run(struct pack_steps *steps, const char *image,
		   struct thaw_pack_report *report);
void pack_steps_print(const struct pack_steps *steps);
void pack_steps_json(const struct pack_steps *steps, json_t *object);
void pack_steps_deinit(struct pack_steps *steps);
