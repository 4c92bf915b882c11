/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Binding a virtual environment to an interpreter of this node.
 *
 * A venv has no interpreter, only links to one, and a pyvenv.cfg that names its
 * directory: both those of the machine that built it. In a view, bin/python,
 * bin/python3, bin/python3.N and whatever else was a link to it are links to an
 * interpreter of the same minor version here, and pyvenv.cfg names that. So
 * sys.prefix is the view, sys.base_prefix the node's Python.
 *
 * What an image asks for is in its meta section, which is somebody else's text:
 * everything in it is checked, and nothing that it names is ever run to find out
 * what it is.
 */
#include <stdbool.h>
#include <stddef.h>

#include "thaw/image.h"
#include "thaw/reader.h"

struct thaw_binding {
	char python[16];   /* minor version: "3.11", "3.13t" */
	char *recorded;	   /* the builder's interpreter, absolute; or NULL */
	char *constraints; /* of a PEX: "CPython>=3.11.4 or CPython==3.12.*"; or NULL */
	char **links;	   /* names in bin, besides python, python3 and python3.N */
	size_t link_count;
};

/*
 * What an image asks for: 0, THAW_NOT_FOUND when it needs no interpreter of the
 * node's, -EBADMSG, -EPERM when nothing says which Python it is for.
 */
_must_check_ int thaw_binding_load(const struct thaw_image *image, struct thaw_error *err,
				   struct thaw_binding *ret_binding);
void thaw_binding_deinit(struct thaw_binding *binding);

enum thaw_binding_flags {
	/*
	 * For views that other users see: only interpreters that everybody may run,
	 * and nothing is looked for in $HOME and $PATH.
	 */
	THAW_BINDING_SHARED = 1,
};

/*
 * Choose an interpreter: wanted (--python), which must fit and may be a name for
 * PATH; else the recorded one, if it is here and fits; else the first that fits
 * of $THAW_PYTHON_PATH, $PATH, /usr/bin, /usr/local/bin, /opt/.../bin, and the
 * directories of pyenv and uv. It fits when it is an ELF executable for this
 * machine, is called pythonX.Y with the right X.Y and has that standard library
 * beside it. Others are run (-I -S) and asked: the wanted one, and what is found,
 * but never what the image names. All are asked when constraints tell patch levels
 * apart. Takes some ten system calls, or 15 ms to ask.
 *
 * *ret_path is absolute, without symlinks, to be freed. Errors: -ENOENT, class
 * refused, naming the version and where it was looked for.
 */
_must_check_ int thaw_binding_find(const struct thaw_binding *binding, const char *wanted,
				   unsigned flags, struct thaw_error *err,
				   char **ret_path);
/* All of it for an image: *ret_path NULL when it needs no interpreter. */
_must_check_ int thaw_binding_find_for(const struct thaw_image *image, const char *wanted,
				       unsigned flags, struct thaw_error *err,
				       char **ret_path);

/*
 * Write what differs from the image in a view at prefix into an open directory:
 * the links in bin, pyvenv.cfg, and activate scripts whose quotes the prefix does
 * not fit into (those replace what is there). interpreter: as found above; NULL
 * for images that need none. The directory may hold a bin already. Returns 0, or
 * THAW_NOT_FOUND when nothing was to be written; -EPERM, -EBADMSG, I/O.
 */
_must_check_ int thaw_binding_render(const struct thaw_image *image,
				     struct thaw_reader *reader, const char *prefix,
				     const char *interpreter, int directory,
				     struct thaw_error *err);

/*
 * An interpreter, asked: absolute path of the executable itself (not of a venv's
 * link to it), version, base prefix. Runs path -I -S, for ten seconds at most.
 */
struct thaw_interpreter {
	char *executable; /* sys._base_executable, without symlinks */
	char *prefix;	  /* sys.base_prefix */
	char *library;	  /* its standard library's directory */
	char *dynload;	  /* where its extension modules are, or NULL */
	char *shared;	  /* libpythonX.Y.so.1.0 that it loads, or NULL */
	char *platlibdir; /* "lib", "lib64" */
	char python[16];  /* "3.11" */
	char version[32]; /* "3.11.7" */
};
_must_check_ int thaw_interpreter_ask(const char *path, struct thaw_error *err,
				      struct thaw_interpreter *ret_interpreter);
void thaw_interpreter_deinit(struct thaw_interpreter *interpreter);
