/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Zip archives field by field, so that a test can make exactly the fault it is about. */
#include "support.h"

struct zip_spec {
	const char *name;
	size_t name_len; /* 0: of the string */
	const void *data;
	size_t size;
	bool deflated;
	uint32_t mode; /* of Unix; 0: made on another system */
	uint16_t flags;
	unsigned descriptor; /* bytes of a data descriptor: 0, 12, 16, 20 or 24 */
	bool zip64;	     /* sizes in an extra field, in both headers */
	const void *extra;   /* of the central header */
	size_t extra_size;
	uint16_t date, time; /* of DOS; 0: 1980-01-01 */

	/* filled in by zip_member() */
	size_t local, central, data_at; /* offsets in the archive, in the directory */
	uint32_t crc, stored;
};

struct zip_builder {
	struct buffer bytes;   /* members so far, prefix included */
	struct buffer central; /* records so far */
	unsigned count;
	size_t base; /* bytes in front of the archive that offsets do not count */
};

void zip_member(struct zip_builder *zip, struct zip_spec *spec);
/* A stored regular file. */
void zip_file(struct zip_builder *zip, const char *name, const char *text);
/* Directory and end record behind the members; zip64: with its end record and locator. */
void zip_end(struct zip_builder *zip, bool zip64, const char *comment);
void zip_deinit(struct zip_builder *zip);
#define _zip_ __attribute__((cleanup(zip_deinit))) struct zip_builder
