/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as a file of any compression: what comes out, up to a bound. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pack-internal.h"
#include "support.h"

#define STREAM_MAX (8u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memory_file(data, size), r;
	struct thaw_input *input;
	struct thaw_error err = { 0 };
	uint64_t total = 0;
	volatile uint8_t sum = 0; /* so that reading is not optimised away */
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = thaw_input_open(path, &err, &input);
	if (r == 0) {
		for (;;) {
			const uint8_t *block = NULL;
			size_t len = 0;

			r = input->next(input, &err, &block, &len);
			if (r < 0 || len == 0 || total > STREAM_MAX)
				break;
			for (size_t i = 0; i < len; i++) /* all of it can be read */
				sum = sum ^ block[i];
			total += len;
		}
		/* The end is the end: asking again gives the same. */
		if (r == 0 && total <= STREAM_MAX) {
			const uint8_t *block;
			size_t len = 1;

			if (input->next(input, &err, &block, &len) < 0 || len != 0)
				abort();
			/* Of a zip, the members are read, and not what is around them. */
			if (strncmp(input->kind, "tar", 3) == 0 && input->consumed != size)
				abort();
		}
		thaw_input_free(input);
	}
	if (r < 0 && (err.text[0] == '\0' || err.exit_code < THAW_EXIT_REFUSED))
		abort();
	(void)close(fd);
	return 0;
}
