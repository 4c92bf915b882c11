/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * PEX files, in each of their layouts: a zip (zipapp), a directory of zips
 * (packed), a directory (loose); what they depend on as installed trees or as
 * wheels. A PEX becomes the virtual environment that it would make at its first
 * run: nothing of its own start-up is left.
 */
#include "folder.h"
#include "pack-internal.h"

#define THAW_PEX_INFO_MAX (16u << 20) /* bytes; a real one has some thousand */

/* PEX-INFO, with what thaw needs of it. Strings are owned. */
struct thaw_pex_info {
	char *entry_point;    /* "module:function" or "module", or NULL */
	char *script;	      /* name of a console script, or NULL */
	char *constraints;    /* joined by " or ", or NULL */
	uint64_t minors;      /* Python 3.N that they allow: bit N */
	char **distributions; /* names of what lies in .deps, sorted */
	size_t distribution_count;
	bool system_packages; /* the machine's own packages can be imported too */
	/* JSON, which Python reads as the same literals; NULL when empty. */
	char *python_arguments; /* of the interpreter: a list */
	char *arguments;	/* put in front of the user's: a list */
	char *variables;	/* of the environment, unless set: an object */
};

/* Hostile text: -EBADMSG when it is no PEX-INFO, -EPERM for what thaw cannot be true to. */
_must_check_ int thaw_pex_info_parse(const char *text, size_t len, struct thaw_error *err,
				     struct thaw_pex_info *ret_info);
void thaw_pex_info_deinit(struct thaw_pex_info *info);
/* A script that does what starting the PEX does; NULL for one without an entry point. */
_must_check_ int thaw_pex_start(const struct thaw_pex_info *info, struct thaw_error *err,
				char **ret_text);

/* PEX-INFO, and the code that starts it. */
bool thaw_pex_recognise(const struct thaw_folder *all);
/* Takes store in any case. */
_must_check_ int thaw_pex_input(struct thaw_folder_store *store,
				const struct thaw_input_options *options,
				struct thaw_error *err, struct thaw_input **ret_input);
