/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What is read of a shared library by loading it alone, whatever is called of it
 * later: the tables before its code (symbols, strings, relocations), which the dynamic
 * loader goes through, and all that can be written to, which relocations go to.
 * Measured on an import of libarrow, libparquet, OpenBLAS and libpython: every page of
 * these, and of the others from 2 % to 98 %.
 */
#include <stddef.h>
#include <stdint.h>

#define THAW_LIBRARY_EXTENTS 8u

struct thaw_extent {
	uint64_t offset, size; /* bytes of the file */
};

/*
 * Of an ELF file of 64 bits, little-endian, by its first len bytes, which may be anybody's:
 * what they say need not be within the file. How many there are, at most
 * THAW_LIBRARY_EXTENTS; 0 for other files.
 */
unsigned thaw_library_extents(const uint8_t *head, size_t len,
			      struct thaw_extent ret_extents[THAW_LIBRARY_EXTENTS]);
