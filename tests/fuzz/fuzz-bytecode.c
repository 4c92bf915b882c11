/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytecode as a compiler, or anybody, wrote it, of a source that carries a path.
 *
 * Input: u8 bytes of the path, u8 bytes of the prefix, path, prefix, a .pyc. What
 * is understood must render, and what is rendered must be understood again, with
 * as many strings. Otherwise the same bytes are rendered with sites that nobody
 * checked: at every string, and at every other offset.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "marshal.h"
#include "support.h"
#include "thaw/bytecode.h"
#include "util/bytes.h"

#define CONTENT_MAX (64u << 10)
#define LIES_MAX    64u

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

/* The root, and one file, which is the path and nothing else; one site. */
static struct thaw_image *make_image(const char *path, size_t len, struct buffer *bytes)
{
	uint8_t section[THAW_RELOCATIONS_HEADER + THAW_RULE_SIZE + THAW_RELOCATED_SIZE +
			THAW_SITE_SIZE + 256] = { 0 };
	uint8_t *rule = section + THAW_RELOCATIONS_HEADER;
	uint8_t *file = rule + THAW_RULE_SIZE;
	uint8_t *strings = file + THAW_RELOCATED_SIZE + THAW_SITE_SIZE;
	struct spec *spec = calloc(1, sizeof(*spec));
	struct thaw_image *image;

	REQUIRE(spec);
	put_le32(section + THAW_RELOCATIONS_OFF_RULES, 1);
	put_le32(section + THAW_RELOCATIONS_OFF_FILES, 1);
	put_le32(section + THAW_RELOCATIONS_OFF_SITES, 1);
	put_le32(section + THAW_RELOCATIONS_OFF_STRINGS, (uint32_t)len);
	put_le32(rule + THAW_RULE_OFF_KIND, THAW_RELOCATION_TEXT);
	put_le32(rule + THAW_RULE_OFF_PLACEHOLDER_LEN, (uint32_t)len);
	put_le32(file + THAW_RELOCATED_OFF_INO, 2);
	put_le32(file + THAW_RELOCATED_OFF_SITES, 1);
	memcpy(strings, path, len);
	spec_relocated(spec, path, len, section, (size_t)(strings - section) + len);
	spec_build(spec, bytes);
	spec_deinit(spec);
	free(spec);
	REQUIRE(open_memory(bytes, NULL, &image) == 0);
	return image;
}

static int count_string(void *userdata, size_t at, const struct marshal_string *string,
			bool constant)
{
	size_t *count = userdata;

	(void)at;
	(void)string;
	(void)constant;
	++*count;
	return 0;
}

static void render_found(const uint8_t *pyc, size_t size, struct thaw_site *sites,
			 size_t count, const char *prefix)
{
	const struct thaw_bytecode_sites all = { .array = sites, .count = count };
	size_t rendered_size, before = 0, after = 0;
	uint8_t *rendered;

	REQUIRE(thaw_bytecode_render(pyc, size, &all, prefix, &rendered,
				     &rendered_size) == 0);
	REQUIRE(marshal_walk(pyc, size, count_string, &before) == 0);
	REQUIRE(marshal_walk(rendered, rendered_size, count_string, &after) == 0);
	REQUIRE(before == after);
	free(rendered);
	free(sites);
}

/* Sites as an image may claim them. */
static void render_lies(const uint8_t *pyc, size_t size, const char *path, size_t len,
			const char *prefix, size_t step)
{
	struct thaw_site sites[LIES_MAX] = { 0 };
	struct thaw_bytecode_sites all = { .array = sites, .count = 1 };
	uint8_t *rendered;
	size_t rendered_size;
	struct marshal_string string;

	if (size < THAW_BYTECODE_HEAD)
		return;
	sites[0].rule = (struct thaw_relocation_rule){ THAW_RELOCATION_BYTECODE,
						       (const char *)pyc,
						       THAW_BYTECODE_HEAD, "", 0, 0 };
	for (size_t at = 0; at < size && all.count < LIES_MAX; at += step)
		if (step > 1 || (marshal_string(pyc, size, at, &string) &&
				 memmem(pyc + string.text, string.len, path, len)))
			sites[all.count++] = (struct thaw_site){
				at, { THAW_RELOCATION_CONSTANT, path, len, "/s", 2, 0 }
			};
	if (thaw_bytecode_render(pyc, size, &all, prefix, &rendered, &rendered_size) == 0)
		free(rendered);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct thaw_site *sites;
	struct thaw_image *image;
	size_t path_len, prefix_len, count;
	char path[256], prefix[257];
	_buffer_ bytes = { 0 };
	uint8_t *pyc;
	int r;

	if (size < 2)
		return 0;
	path_len = data[0];
	prefix_len = data[1];
	data += 2;
	size -= 2;
	if (path_len < THAW_PLACEHOLDER_MIN || path_len + prefix_len > size)
		return 0;
	memcpy(path, data, path_len);
	prefix[0] = '/';
	memcpy(prefix + 1, data + path_len, prefix_len);
	prefix[1 + prefix_len] = '\0';
	(void)thaw_bytecode_prefix(prefix);
	data += path_len + prefix_len;
	size -= path_len + prefix_len;
	if (size > CONTENT_MAX)
		return 0;
	pyc = malloc(size); /* of its own: reading beyond it is seen */
	REQUIRE(pyc || size == 0);
	if (size)
		memcpy(pyc, data, size);
	image = make_image(path, path_len, &bytes);
	r = thaw_bytecode_sites(image, 2, pyc, size, &sites, &count);
	REQUIRE(r == 0 || r == THAW_NOT_FOUND);
	if (r == 0)
		render_found(pyc, size, sites, count, prefix);
	render_lies(pyc, size, path, path_len, prefix, 1);
	render_lies(pyc, size, path, path_len, prefix, 61);
	thaw_image_free(image);
	free(pyc);
	return 0;
}
