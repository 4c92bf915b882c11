/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Writing an image anew with something added: files (into the annex) and warm
 * sets. The stream's bytes are copied, or shared where the file system can, and
 * never change; nothing is recompressed. What precedes the image in its file is
 * carried on: an executable image stays one, whose launcher knows the new identity.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/image.h"
#include "thaw/relocation.h"
#include "thaw/trace.h"

/* A file to add, or to put in the place of one. All borrowed. */
struct thaw_addition {
	const char *path;
	const uint8_t *data;
	size_t size;
	uint32_t mtime;
	unsigned mode; /* permission bits; 0: 0644 */
	/* Path of a file, of the image or added before: this is a further name of it. */
	const char *link;
	/* Where paths stand in it (thaw_bytecode_sites()). */
	const struct thaw_site *sites;
	size_t site_count;
};

struct thaw_workload {
	const char *name; /* of the warm set; one of this name is replaced */
	const struct thaw_trace *trace; /* recorded on the image that is rewritten */
};

struct thaw_rewrite {
	bool force; /* replace output, which may be the image itself */
	const struct thaw_addition *additions;
	size_t addition_count;
	const struct thaw_workload *workloads;
	size_t workload_count;
	/* A JSON object whose keys take the place of those in the meta section; or NULL. */
	const char *meta;
};

/*
 * Write image, changed, to output. Appears complete and synced or not at all;
 * errors as for thaw_pack(). *ret_info describes the new image.
 */
_must_check_ int thaw_rewrite(const struct thaw_image *image, const char *output,
			      const struct thaw_rewrite *what, struct thaw_error *err,
			      struct thaw_image_info *ret_info);
