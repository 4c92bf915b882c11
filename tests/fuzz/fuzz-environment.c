/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts that an environment holds, read to find out what it is. The first byte
 * says which: pyvenv.cfg, an ELF file, the meta section of an image, or a text in
 * all places of an environment at once.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "elf-file.h"
#include "pyvenv.h"
#include "support.h"
#include "thaw/binding.h"
#include "thaw/environment.h"
#include "thaw/library.h"

/* What is written is read as the same again, and no line of it can be another's. */
static void try_pyvenv(const char *text, size_t size)
{
	struct pyvenv config, again;
	char *written, *twice;
	size_t len, len_again;

	if (pyvenv_parse(text, size, &config) < 0)
		abort();
	written = pyvenv_text(&config, &len);
	if (!written || pyvenv_parse(written, len, &again) < 0)
		abort();
	twice = pyvenv_text(&again, &len_again);
	if (!twice || len != len_again || memcmp(written, twice, len) != 0)
		abort();
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)written[i] < 32 && !strchr("\n\t\r\f\v", written[i]))
			abort();
	pyvenv_deinit(&config);
	pyvenv_deinit(&again);
	free(written);
	free(twice);
}

static void try_elf(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct thaw_extent extents[THAW_LIBRARY_EXTENTS];
	struct elf_file file;

	if (!copy)
		abort();
	memcpy(copy, data, size);
	if (thaw_library_extents(copy, size, extents) > THAW_LIBRARY_EXTENTS)
		abort();
	if (elf_file_parse(copy, size, &file)) {
		for (size_t i = 0; i < file.needed_count; i++)
			if (file.needed[i] + strlen(file.needed[i]) >= (char *)copy + size)
				abort();
		if (file.runpath && file.runpath + strlen(file.runpath) >= (char *)copy + size)
			abort();
	}
	free(copy);
}

static void try_meta(const char *text, size_t size)
{
	struct thaw_image *image = NULL;
	struct thaw_binding binding;
	struct thaw_error err = { 0 };
	struct spec spec;
	_buffer_ bytes = { 0 };

	spec_sample(&spec);
	spec.meta = text;
	spec.meta_size = size;
	spec_build(&spec, &bytes);
	if (open_memory(&bytes, &err, &image) == 0 &&
	    thaw_binding_load(image, &err, &binding) == 0) {
		for (size_t i = 0; i < binding.link_count; i++)
			if (strncmp(binding.links[i], "python", 6) != 0 ||
			    strchr(binding.links[i], '/'))
				abort();
		if (binding.recorded && binding.recorded[0] != '/')
			abort();
		thaw_binding_deinit(&binding);
	}
	thaw_image_free(image);
	spec_deinit(&spec);
}

/* Also checks that each relocation's placeholder is what stands in its file. */
static void check_sites(const struct thaw_image *image, const char *text, size_t size)
{
	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;

		thaw_image_relocated(image, i, &file);
		for (uint32_t j = 0; j < file.sites; j++) {
			struct thaw_site site;

			thaw_image_site(image, &file, j, &site);
			if (site.offset + site.rule.placeholder_len > size ||
			    memcmp(text + site.offset, site.rule.placeholder,
				   site.rule.placeholder_len) != 0)
				abort();
		}
	}
}

static void try_everywhere(const char *text, size_t size)
{
	static const char *const places[] = {
		"pyvenv.cfg",
		"bin/activate",
		"bin/activate.fish",
		"bin/python",
		"bin/script",
		"lib/python3.11/site-packages/a.pth",
		"lib/python3.11/site-packages/a-1.dist-info/WHEEL",
		"lib/python3.11/site-packages/a-1.dist-info/direct_url.json",
		"lib/python3.11/site-packages/a.cpython-311-x86_64-linux-gnu.so",
	};
	struct thaw_pack_options options = { .level = 1, .threads = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	char *directory = make_directory(), *path = join_path(directory, "image");
	struct thaw_image *image = NULL;
	_buffer_ tar = { 0 }, bytes = { 0 };

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		tar_file(&tar, places[i], text, size);
	tar_end(&tar);
	if (pack_bytes(&tar, path, &options, &err, &report) < 0)
		abort(); /* such a tree can be packed, whatever its files say */
	read_file(path, &bytes);
	if (open_memory(&bytes, &err, &image) < 0)
		abort();
	check_sites(image, text, size);
	thaw_image_free(image);
	remove_directory(directory);
	free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0 || size > 65536)
		return 0;
	text = malloc(size);
	if (!text)
		abort();
	memcpy(text, data + 1, size - 1);
	switch (data[0] % 4) {
	case 0:
		try_pyvenv(text, size - 1);
		break;
	case 1:
		try_elf(data + 1, size - 1);
		break;
	case 2:
		try_meta(text, size - 1);
		break;
	default:
		try_everywhere(text, size - 1);
	}
	free(text);
	return 0;
}
