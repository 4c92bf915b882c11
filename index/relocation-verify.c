/* SPDX-License-Identifier: Apache-2.0 */
/* Verifying relocations: does what they say stand in the files? */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image-internal.h"
#include "thaw/bytecode.h"
#include "thaw/reader.h"
#include "thaw/relocation.h"
#include "util/cleanup.h"
#include "verify-internal.h"

#define FAULTS_SHOWN 20u
#define PIECE	     4096u

struct site_check {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	thaw_verify_fault_fn *fault;
	void *fault_data;
	struct thaw_verify_result *result;
	uint8_t *bytes; /* THAW_PLACEHOLDER_MAX */
};

/* 1: they are there; 0: others are; negative: they cannot be read, and are reported elsewhere. */
static int stands_there(struct site_check *check, const struct thaw_inode *inode,
			uint64_t offset, const char *bytes, size_t len)
{
	size_t n = 0;
	int r = thaw_reader_read(check->reader, inode, offset, check->bytes, len, NULL,
				 &n);

	return r < 0 ? r : n == len && memcmp(check->bytes, bytes, len) == 0;
}

/* A string ends in its file. */
static int string_ends(struct site_check *check, const struct thaw_inode *inode,
		       uint64_t offset)
{
	for (;;) {
		size_t n = 0;
		int r = thaw_reader_read(check->reader, inode, offset, check->bytes,
					 PIECE, NULL, &n);

		if (r < 0 || n == 0)
			return r;
		if (memchr(check->bytes, '\0', n))
			return 1;
		offset += n;
	}
}

/* All of a .pyc's sites at once: they must be whole strings, apart from each other. */
static int bytecode_fits(struct site_check *check, const struct thaw_inode *inode,
			 const struct thaw_relocated *file)
{
	const struct thaw_bytecode_sites sites = { check->image, *file, NULL, 0 };
	_cleanup_(freep) uint8_t *pyc = malloc(inode->size + 1), *rendered = NULL;
	size_t n = 0;
	int r;

	if (!pyc)
		return -ENOMEM;
	r = thaw_reader_read(check->reader, inode, 0, pyc, inode->size, NULL, &n);
	if (r < 0)
		return r;
	r = thaw_bytecode_render(pyc, n, &sites, "/", &rendered, &n);
	return r == -EBADMSG ? 0 : r < 0 ? r : 1;
}

static int check_site(struct site_check *check, const struct thaw_inode *inode,
		      const struct thaw_site *site)
{
	const struct thaw_relocation_rule *rule = &site->rule;
	int r = stands_there(check, inode, site->offset, rule->placeholder,
			     rule->placeholder_len);

	if (r > 0 && rule->kind == THAW_RELOCATION_SHEBANG)
		return stands_there(check, inode, 0, "#!", 2);
	if (r > 0 && rule->kind == THAW_RELOCATION_BINARY)
		return string_ends(check, inode, site->offset + rule->placeholder_len);
	return r;
}

static void report(struct site_check *check, uint32_t ino, uint64_t offset)
{
	char path[256], text[512];

	if (check->result->bad_sites++ >= FAULTS_SHOWN)
		return;
	thaw_image_path(check->image, ino, path, sizeof(path));
	(void)snprintf(text, sizeof(text),
		       "%s: what its relocations say does not stand at %" PRIu64, path,
		       offset);
	check->fault(check->fault_data, text);
}

int thaw_verify_relocations(const struct thaw_image *image, thaw_verify_fault_fn *fault,
			    void *fault_data, struct thaw_error *err,
			    struct thaw_verify_result *result)
{
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;
	_cleanup_(freep) uint8_t *bytes = malloc(THAW_PLACEHOLDER_MAX);
	struct site_check check = {
		.image = image,
		.fault = fault,
		.fault_data = fault_data,
		.result = result,
		.bytes = bytes,
	};

	if (thaw_image_relocated_count(image) == 0)
		return 0;
	if (!bytes || thaw_reader_new(image, 0, &reader) < 0)
		return thaw_oom(err);
	check.reader = reader;
	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;
		struct thaw_inode inode;

		thaw_image_relocated(image, i, &file);
		if (thaw_image_inode(image, file.ino, &inode) < 0)
			continue; /* checked at open */
		if (thaw_is_bytecode(image, &file)) {
			int r = bytecode_fits(&check, &inode, &file);

			result->sites += file.sites;
			if (r == -ENOMEM)
				return thaw_oom(err);
			if (r == 0)
				report(&check, file.ino, 0);
			continue;
		}
		for (uint32_t j = 0; j < file.sites; j++) {
			struct thaw_site site;
			int r;

			thaw_image_site(image, &file, j, &site);
			result->sites++;
			r = check_site(&check, &inode, &site);
			if (r == -ENOMEM)
				return thaw_oom(err);
			if (r == 0)
				report(&check, file.ino, site.offset);
		}
	}
	return 0;
}
