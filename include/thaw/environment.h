/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What an image is: which kind of packed environment, for which Python and
 * platform, what in it names the machine that built it, and what its users
 * should know. Found by looking at the content, when the image is packed.
 *
 * Nothing of the environment is ever executed for this, and everything that is
 * read is bounded: an image's files are somebody else's.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/image.h"
#include "thaw/reader.h"
#include "thaw/relocation.h"

enum thaw_environment_kind {
	THAW_KIND_UNKNOWN = 0, /* in hints: find out */
	THAW_KIND_TREE,	       /* files, no environment that thaw knows */
	THAW_KIND_CONDA_PACK,  /* bin/conda-unpack and conda-meta */
	THAW_KIND_CONDA,       /* a live prefix: conda-meta */
	THAW_KIND_VENV_PACK,   /* pyvenv.cfg, and venv-pack's own activate script */
	THAW_KIND_VENV,	       /* pyvenv.cfg */
	THAW_KIND_PEX,	       /* made from a PEX by the input; venv-shaped */
	THAW_KIND_WHEELS,      /* made from wheels by the input; venv-shaped */
	THAW_KIND_PYTHON,      /* a prefix with an interpreter and its standard library */
};

/* "conda-pack", "venv", ...; as in the meta section and for --kind. */
const char *thaw_kind_name(enum thaw_environment_kind kind);
/* THAW_KIND_UNKNOWN for other words. */
enum thaw_environment_kind thaw_kind_by_name(const char *name);
/* Needs a node's interpreter, unless one was taken in (a venv's shape). */
bool thaw_kind_is_venv(enum thaw_environment_kind kind);

/*
 * What whoever opened the source knows already. Strings are malloc'ed and owned
 * by the struct, or NULL.
 */
struct thaw_environment_hints {
	enum thaw_environment_kind kind; /* THAW_KIND_PEX, THAW_KIND_WHEELS, or unknown */
	char *python;			 /* "3.11" */
	char *constraints; /* interpreter constraints as the PEX has them, "CPython>=3.9,<3.13" */
	char *entry_point; /* "module:function" or "module" */
	char *script;	   /* the console script to run instead of an entry point */
};
void thaw_environment_hints_deinit(struct thaw_environment_hints *hints);

/* What was found. */
struct thaw_environment {
	enum thaw_environment_kind kind;
	char python[16];	 /* "3.11", or empty */
	char python_version[32]; /* "3.11.7" where something says so, or empty */
	char platform[64];	 /* "linux-x86_64", or empty: nothing in it is for one */
	char libc[32];		 /* "glibc >= 2.17", "musl >= 1.2", or empty */
	bool own_interpreter;	 /* bin/python* and the standard library are inside */
	char *recorded;	  /* venv-shaped: path of the builder's interpreter, or NULL */
	json_t *links;	  /* venv-shaped: names in bin that are to be the interpreter */
	json_t *warnings; /* array of strings: printable, one line each */
	struct thaw_relocations *relocations;
};

struct thaw_environment_options {
	/* The kind that its user says it is, which is checked; or THAW_KIND_UNKNOWN. */
	enum thaw_environment_kind wanted;
	const struct thaw_environment_hints *hints; /* or NULL */
	/* A directory that was packed: where it stood, as it was named and resolved. */
	const char *const *prefixes;
	size_t prefix_count;
};

/*
 * Look at an image. Errors: -EPERM (its content cannot be what is wanted; conda
 * records that cannot be meant), -EBADMSG, -EFBIG, -ENOMEM, errors of the reader.
 * *ret_environment is to be deinit'ed.
 */
_must_check_ int thaw_environment_analyse(const struct thaw_image *image,
					  struct thaw_reader *reader,
					  const struct thaw_environment_options *options,
					  struct thaw_error *err,
					  struct thaw_environment *ret_environment);
void thaw_environment_deinit(struct thaw_environment *environment);

/*
 * Add what was found to a meta object (doc/format.md, "Meta"): kind, python,
 * platform, warnings, binding. -ENOMEM.
 */
_must_check_ int thaw_environment_describe(const struct thaw_environment *environment,
					   const struct thaw_environment_hints *hints,
					   json_t *meta);
