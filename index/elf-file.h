/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a 64-bit ELF file of this machine says about the libraries it loads. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ELF_NEEDED_MAX 64u

struct elf_file {
	char *needed[ELF_NEEDED_MAX]; /* point into the file */
	size_t needed_count;
	char *runpath; /* DT_RUNPATH or DT_RPATH, into the file; NULL: none */
};

/* Read headers out of data, which is somebody else's. False: no such ELF file, or damaged. */
bool elf_file_parse(uint8_t *data, size_t size, struct elf_file *ret_file);
