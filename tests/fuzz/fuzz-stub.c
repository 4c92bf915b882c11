/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte chooses: the rest is a stub's description, or an executable file that
 * may have one behind it. What is accepted must keep the promises of stub.h.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "thaw/stub.h"

static void check(struct thaw_stub *stub)
{
	if (stub->image_count == 0 || stub->image_count > THAW_STUB_IMAGES_MAX ||
	    stub->search_count > THAW_STUB_SEARCH_MAX || stub->machine[0] == '\0')
		abort();
	for (size_t i = 0; i < stub->image_count; i++) {
		const struct thaw_stub_image *image = &stub->images[i];

		if (strlen(image->identity) != THAW_DIGEST_HEX - 1 || strchr(image->name, '/') ||
		    image->name[0] == '\0' || (image->path && image->path[0] != '/'))
			abort();
	}
	for (size_t i = 0; i < stub->search_count; i++)
		if (stub->search[i][0] != '/')
			abort();
	thaw_stub_deinit(stub);
}

static int find(const uint8_t *data, size_t size, struct thaw_error *err, struct thaw_stub *stub)
{
	int fd = memfd_create("stub", MFD_CLOEXEC), r;
	uint64_t end = 0;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	r = thaw_stub_find(fd, err, stub, &end);
	if (r == 0 && end >= size)
		abort();
	(void)close(fd);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct thaw_stub stub = { 0 };
	struct thaw_error err = { 0 };
	int r;

	if (size == 0)
		return 0;
	if (data[0] & 1)
		r = find(data + 1, size - 1, &err, &stub);
	else
		r = thaw_stub_parse((const char *)data + 1, size - 1, &err, &stub);
	if (r == 0)
		check(&stub);
	else if (r < 0 && err.text[0] == '\0')
		abort();
	return 0;
}
