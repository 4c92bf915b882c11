/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Calls that fail at the n-th time, for one test program, which is linked with --wrap
 * of each. Before it is included, enum fault names the kinds of faults, FAULTS last,
 * and fault_errors[] what each is.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Other threads allocate, too: hence atomic. */
static atomic_int countdown[FAULTS]; /* 1: the next call fails; 0: none does */
static atomic_uint fired;

static bool fails(enum fault fault)
{
	if (atomic_load(&countdown[fault]) <= 0 || atomic_fetch_sub(&countdown[fault], 1) != 1)
		return false;
	atomic_fetch_add(&fired, 1);
	errno = fault_errors[fault];
	return true;
}

#define WRAP(type, name, fault, failure, arguments, ...)                    \
	type __real_##name arguments;                                       \
	type __wrap_##name arguments;                                       \
	type __wrap_##name arguments                                        \
	{                                                                   \
		return fails(fault) ? failure : __real_##name(__VA_ARGS__); \
	}

WRAP(void *, malloc, FAULT_MEMORY, NULL, (size_t size), size)
WRAP(void *, calloc, FAULT_MEMORY, NULL, (size_t count, size_t size), count, size)
WRAP(void *, realloc, FAULT_MEMORY, NULL, (void *old, size_t size), old, size)
WRAP(char *, strdup, FAULT_MEMORY, NULL, (const char *text), text)
WRAP(ssize_t, read, FAULT_READ, -1, (int fd, void *buf, size_t len), fd, buf, len)
WRAP(ssize_t, write, FAULT_WRITE, -1, (int fd, const void *buf, size_t len), fd, buf, len)
