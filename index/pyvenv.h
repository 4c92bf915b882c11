/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * pyvenv.cfg: "key = value" lines. Keys count without regard to case, and of a
 * key that comes twice (venv-pack writes the whole file twice) the last value,
 * as Python's site module reads them.
 */
#include <stdbool.h>
#include <stddef.h>

#include "thaw/error.h"

/* Bytes that are read: a real one has 300, and Python refuses one of 32 KiB. */
#define PYVENV_MAX	16384u
#define PYVENV_LINE_MAX 4200u /* a path, and what it is for */

struct pyvenv_line {
	char *key;   /* lower case */
	char *value; /* without space at either end */
};

struct pyvenv {
	struct pyvenv_line *lines; /* in the order of first appearance */
	size_t count, capacity;
};

/*
 * Lines that are no "key = value", too long, or hold control characters, are left out:
 * Python does not use them, and what is rendered must not. -ENOMEM.
 */
_must_check_ int pyvenv_parse(const char *text, size_t len, struct pyvenv *ret_config);
void pyvenv_deinit(struct pyvenv *config);
/* NULL when there is no such key. */
const char *pyvenv_get(const struct pyvenv *config, const char *key);
/* value NULL removes the key. -ENOMEM. */
_must_check_ int pyvenv_set(struct pyvenv *config, const char *key, const char *value);
/* As a file; malloc'ed, NULL when memory is short. */
char *pyvenv_text(const struct pyvenv *config, size_t *ret_len);
