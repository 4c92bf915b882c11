/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Wheels, and what they install: the tree of a virtual environment.
 *
 *	wheel-tags.c	which Python and platform a wheel is for
 *	wheel-text.c	RECORD, entry_points.txt, METADATA
 *	wheel.c		one wheel into the tree
 *	wheel-activate.c	the tree's activate scripts
 *	wheel-input.c	a directory of wheels, or one, as an input
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "folder.h"
#include "gather.h"
#include "pack-internal.h"
#include "python-constraint.h"

/* -- wheel-tags.c -- */

#define THAW_MINORS_ALL UINT64_MAX /* bit N stands for Python 3.N */

struct thaw_wheel_name {
	char project[128], version[128];
	uint64_t minors; /* Python 3.N that the tags allow */
	char platform
		[64]; /* "linux_x86_64", "manylinux_x86_64", "musllinux_x86_64"; empty: any */
};
/*
 * NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl. Errors: -EBADMSG (no such name),
 * -EPERM (for no CPython 3, or not for Linux).
 */
_must_check_ int thaw_wheel_name_parse(const char *name, struct thaw_error *err,
				       struct thaw_wheel_name *ret_name);

/* Wheels met so far, and what they leave of Pythons and platforms. */
struct thaw_wheel_target {
	uint64_t minors;
	char narrowed_by[64][128]; /* for each minor: what ruled it out */
	char platform[64], platform_by[128];
};
void thaw_wheel_target_init(struct thaw_wheel_target *target);
/* -EPERM, naming both, when nothing is left. platform may be "". */
_must_check_ int thaw_wheel_target_narrow(struct thaw_wheel_target *target,
					  uint64_t minors, const char *platform,
					  const char *by, struct thaw_error *err);
/*
 * Choose the Python: wanted if not 0 (-EPERM when it is ruled out), the only one
 * left, preferred if not 0 and left, else the newest of this machine that is
 * left (*ret_guessed).
 */
_must_check_ int thaw_wheel_target_choose(const struct thaw_wheel_target *target,
					  unsigned wanted, unsigned preferred,
					  struct thaw_error *err, unsigned *ret_minor,
					  bool *ret_guessed);

/* -- wheel-text.c -- */

#define THAW_RECORD_MAX	    (64u << 20) /* bytes */
#define THAW_WHEEL_TEXT_MAX (8u << 20)	/* entry_points.txt, METADATA, WHEEL */

struct thaw_record_row {
	const char *path;
	struct thaw_gather_proof proof;
};
struct thaw_record {
	struct thaw_record_row *rows; /* sorted by path */
	size_t count, capacity;
	char *text; /* that paths lie in */
};
/* Takes text, malloc'ed with a NUL behind it, in any case. -EBADMSG when it is no such table. */
_must_check_ int thaw_record_parse(char *text, size_t len, struct thaw_error *err,
				   struct thaw_record *ret_record);
const struct thaw_record_row *thaw_record_find(const struct thaw_record *record,
					       const char *path);
void thaw_record_deinit(struct thaw_record *record);

struct thaw_script {
	char *name;   /* a file name */
	char *module; /* "package.module" */
	char *object; /* "function", "class.method" */
};
struct thaw_scripts {
	struct thaw_script *scripts;
	size_t count, capacity;
};
/* console_scripts and gui_scripts of an entry_points.txt. -EBADMSG, -EPERM (not identifiers). */
_must_check_ int thaw_scripts_parse(const char *text, size_t len, struct thaw_error *err,
				    struct thaw_scripts *ret_scripts);
void thaw_scripts_deinit(struct thaw_scripts *scripts);
/* "a.b.c": nothing but identifiers and dots. */
bool thaw_is_dotted_name(const char *text);
/* "module:object" or "module", apart; -EBADMSG. Both may point to free()able copies. */
_must_check_ int thaw_entry_point_split(const char *text, char **ret_module,
					char **ret_object);
/* The value of a header of METADATA or WHEEL, without space around it; NULL when absent. */
const char *thaw_metadata_find(const char *text, size_t len, const char *header,
			       size_t *ret_len);

/* -- wheel.c -- */

/* Where a tree of wheels stands. */
struct thaw_wheel_tree {
	struct thaw_gather *gather;
	char library[32]; /* "lib/python3.11/site-packages" */
	unsigned minor;
	/* Clauses of the wheels' Requires-Python that not every 3.minor.N fulfils: ">=3.11.4". */
	char requires[THAW_CONSTRAINTS_MAX + 1];
};

/* What every such environment has: interpreter links, pyvenv.cfg. The origin is thaw. */
_must_check_ int thaw_wheel_tree_init(struct thaw_wheel_tree *tree,
				      struct thaw_gather *gather, unsigned minor,
				      bool system_packages, struct thaw_error *err);
/* bin/activate and those of other shells, unless a wheel has brought them; after all wheels. */
_must_check_ int thaw_wheel_tree_activate(struct thaw_wheel_tree *tree,
					  struct thaw_error *err);
/*
 * Install a wheel, as it came (name as messages have it); or one that was
 * installed already, into a directory of its own, as a PEX has it.
 */
_must_check_ int thaw_wheel_add(struct thaw_wheel_tree *tree,
				const struct thaw_folder *wheel, const char *name,
				bool installed, struct thaw_error *err);
/* What Requires-Python of a wheel allows; THAW_MINORS_ALL when it says nothing. */
_must_check_ int thaw_wheel_requires(struct thaw_gather *gather,
				     const struct thaw_folder *wheel, const char *name,
				     struct thaw_error *err, uint64_t *ret_minors);
/* Do both names mean one project? */
bool thaw_same_project(const char *a, const char *b);
/* The same of file names of wheels. */
bool thaw_wheels_of_one_project(const char *a, const char *b);
/* A script that starts an entry point; object NULL: the module itself. -ENOMEM; free() it. */
_must_check_ int thaw_wheel_start(const char *module, const char *object,
				  char **ret_text);
/* What PEX puts beside an installed wheel: it tells one from a wheel as it came. */
#define THAW_WHEEL_LAYOUT ".layout.json"

/* -- wheel-input.c -- */

bool thaw_wheel_recognise(const struct thaw_folder *all, const char *name);
/* One wheel; takes store in any case. */
_must_check_ int thaw_wheel_input(struct thaw_folder_store *store, const char *name,
				  const struct thaw_input_options *options,
				  struct thaw_error *err, struct thaw_input **ret_input);
/* A directory of wheels; takes store in any case. */
_must_check_ int thaw_wheels_input(struct thaw_folder_store *store,
				   const struct thaw_input_options *options,
				   struct thaw_error *err, struct thaw_input **ret_input);
/*
 * Open what a file of a folder holds: another zip. A stored member is read where
 * it lies, a deflated one from an unnamed temporary file. *ret_folder is kept by
 * gather.
 */
_must_check_ int thaw_wheel_open(struct thaw_gather *gather, const struct thaw_file *file,
				 struct thaw_error *err, struct thaw_folder *ret_folder);

enum thaw_directory_kind {
	THAW_DIRECTORY_PLAIN,
	THAW_DIRECTORY_PEX,
	THAW_DIRECTORY_WHEELS,
};
/* By what lies at its top. */
enum thaw_directory_kind thaw_directory_recognise(int fd);
