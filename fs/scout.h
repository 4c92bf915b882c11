/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The scout: what it is told by the worker, and what it makes of that.
 *
 * - Who lists a package will look its bytecode up, name after name, and import packages
 *   within it. So their directories are listed, and of each package the names looked up
 *   that Python tries before __init__.py, and that have not existed elsewhere.
 * - Who reads a module's bytecode imports others of the package: their bytecode is read.
 *   (Of the directories that an import of numpy, pandas, pyarrow and scikit-learn
 *   touched, it read 1,163 of 1,566 files, 33 of 41 MiB.)
 * - Who opens a library reads its tables and what relocations go to (thaw/library.h), and
 *   nearly all of a small one (195 libraries of up to 1 MiB: 48 of 53 MiB).
 *
 * It reads by steps, and waits for each: what Python asks for itself never has to queue
 * behind more than one of its reads. Whatever an image says, it reads 64 MiB at most for
 * one hint, and nothing any more two seconds after the last.
 */
#include <stdint.h>

struct thaw_lookahead;

enum thaw_hint_kind {
	THAW_HINT_LISTED = 1, /* ino: a directory that has bytecode */
	THAW_HINT_BYTECODE,   /* ino: a file that was read, and begins like bytecode */
	THAW_HINT_LIBRARY,    /* likewise, an ELF file */
	THAW_HINT_MISSED,     /* name */
};

struct thaw_hint {
	enum thaw_hint_kind kind;
	uint32_t ino;
	char name[52]; /* terminated */
};

/*
 * The directory of bytecode in a package, and how the names begin that Python looks up in
 * vain: __init__.cpython-311-x86_64-linux-gnu.so, and so on.
 */
#define THAW_BYTECODE "__pycache__"
#define THAW_MISSED_PREFIX "__init__."

/* In a process of its own, which has the FUSE descriptor no more. socket: takes hints. */
void __attribute__((noreturn)) thaw_scout_run(const struct thaw_lookahead *lookahead,
					      int socket);
