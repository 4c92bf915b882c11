/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The marshal format of CPython, as far as compiled modules (.pyc) use it: a tree
 * of objects, each a type byte (bit 7: it can be referred to), for some a length,
 * and contents. Later objects refer to earlier ones by number, never by offset,
 * so an object may change its length without any other being touched.
 *
 * The format is CPython's Python/marshal.c (w_object(), r_object()); code objects
 * are as its w_complex_object() writes them. Which Python wrote a file is told by
 * its first four bytes, PEP 552's magic; the numbers are in the table of
 * Lib/importlib/_bootstrap_external.py (since 3.14 in
 * Include/internal/pycore_magic_number.h). Of each version that of its release
 * is known here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"

#define MARSHAL_REF 0x80u   /* FLAG_REF */
#define MARSHAL_SHORT 256u  /* shorter ASCII strings have a length of one byte */
#define PYC_HEADER 16u	    /* PEP 552: magic, flags, then mtime and size, or a hash */
#define PYC_UNCHECKED 1u    /* flags: by hash, which is not to be checked */

/* The string types, without the flag. A long length has four bytes. */
enum marshal_string_type {
	MARSHAL_BYTES = 's',		/* long length; bytes */
	MARSHAL_ASCII = 'a',		/* long length */
	MARSHAL_SHORT_ASCII = 'z',	/* short length */
	MARSHAL_UNICODE = 'u',		/* long length; UTF-8, with surrogates */
	MARSHAL_ASCII_INTERNED = 'A',	/* the same three, interned */
	MARSHAL_SHORT_ASCII_INTERNED = 'Z',
	MARSHAL_INTERNED = 't',
};

struct marshal_string {
	uint8_t type; /* enum marshal_string_type */
	bool ref;     /* MARSHAL_REF was set */
	size_t text;  /* where its bytes begin in the data */
	size_t len;
};

/* The string object at `at`; false: there is none, or it is not whole. */
bool marshal_string(const uint8_t *data, size_t size, size_t at,
		    struct marshal_string *ret_string);

/*
 * Called for each string object, in the order of offsets. constant: it is a
 * constant of some code, not a name, a file's name or a table. A result other
 * than 0 ends the walk.
 */
typedef int marshal_string_fn(void *userdata, size_t at,
			      const struct marshal_string *string, bool constant);
/*
 * Walk a whole .pyc, header included. 0; THAW_NOT_FOUND when it is none that we
 * understand to the last byte; or what fn returned.
 */
_must_check_ int marshal_walk(const uint8_t *pyc, size_t size, marshal_string_fn *fn,
			      void *userdata);
