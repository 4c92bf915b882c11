/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A section of relocations as somebody else wrote it, the file that it is about,
 * and a prefix to render that for.
 *
 * Input: u8 bytes of the prefix, u16 bytes of the section, prefix, section, the
 * contents of file 2. What opens must render, or fail with a reason; and a file
 * with nothing but binary sites must keep its size.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer-internal.h"
#include "support.h"
#include "util/bytes.h"

#define CONTENT_MAX (64u << 10)

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static bool only_binary(const struct thaw_image *image, const struct thaw_relocated *file)
{
	for (uint32_t i = 0; i < file->sites; i++) {
		struct thaw_site site;

		thaw_image_site(image, file, i, &site);
		if (site.rule.kind != THAW_RELOCATION_BINARY)
			return false;
	}
	return true;
}

static void render_all(const struct thaw_image *image, const char *prefix)
{
	struct thaw_reader *reader;
	struct thaw_renderer *renderer;
	struct thaw_error err = { 0 };
	int fd = memfd_create("rendered", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && thaw_reader_new(image, 0, &reader) == 0);
	REQUIRE(thaw_renderer_new(image, reader, prefix, &renderer) == 0);
	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;
		struct thaw_inode inode;
		struct stat st;
		int r;

		thaw_image_relocated(image, i, &file);
		REQUIRE(thaw_image_inode(image, file.ino, &inode) == 0);
		REQUIRE(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0);
		r = thaw_render(renderer, &file, fd, &err);
		if (r < 0) {
			REQUIRE((r == -EBADMSG || r == -EPERM) && err.text[0]);
			continue;
		}
		REQUIRE(fstat(fd, &st) == 0);
		REQUIRE(!only_binary(image, &file) || (uint64_t)st.st_size == inode.size);
		REQUIRE(thaw_render_fits(image, prefix, &err) == 0 ||
			thaw_image_relocated_count(image) > 1 ||
			!only_binary(image, &file));
	}
	thaw_renderer_free(renderer);
	thaw_reader_free(reader);
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spec *spec;
	struct thaw_image *image;
	struct thaw_error err = { 0 };
	_buffer_ bytes = { 0 };
	size_t prefix_len, section_size;
	char prefix[257];

	if (size < 3)
		return 0;
	prefix_len = data[0];
	section_size = get_le16(data + 1);
	data += 3;
	size -= 3;
	if (prefix_len + section_size >= size)
		return 0;
	prefix[0] = '/';
	memcpy(prefix + 1, data, prefix_len);
	prefix[1 + prefix_len] = '\0';
	data += prefix_len;
	size -= prefix_len + section_size;
	if (size > CONTENT_MAX)
		return 0;
	spec = calloc(1, sizeof(*spec));
	REQUIRE(spec);
	spec_relocated(spec, data + section_size, size, data, section_size);
	spec_build(spec, &bytes);
	spec_deinit(spec);
	free(spec);
	if (open_memory(&bytes, &err, &image) < 0) {
		REQUIRE(err.text[0] && err.exit_code >= THAW_EXIT_REFUSED);
		return 0;
	}
	render_all(image, prefix);
	thaw_image_free(image);
	return 0;
}
