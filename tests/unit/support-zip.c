/* SPDX-License-Identifier: Apache-2.0 */
/* Zip archives field by field. */
#include "support-zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "util/bytes.h"

static size_t compress_raw(const void *data, size_t size, uint8_t *out, size_t capacity)
{
	z_stream stream = { .next_in = (Bytef *)data, .avail_in = (uInt)size };

	if (deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) !=
	    Z_OK)
		abort();
	stream.next_out = out;
	stream.avail_out = (uInt)capacity;
	if (deflate(&stream, Z_FINISH) != Z_STREAM_END)
		abort();
	(void)deflateEnd(&stream);
	return stream.total_out;
}

static void put16(struct buffer *to, unsigned value)
{
	uint8_t bytes[2];

	put_le16(bytes, (uint16_t)value);
	buffer_add(to, bytes, 2);
}

static void put32(struct buffer *to, uint64_t value)
{
	uint8_t bytes[4];

	put_le32(bytes, (uint32_t)value);
	buffer_add(to, bytes, 4);
}

static void put64(struct buffer *to, uint64_t value)
{
	put32(to, value);
	put32(to, value >> 32);
}

/* What local and central header have in common, from the flags on. */
static void put_common(struct buffer *to, const struct zip_spec *spec, bool local)
{
	bool later = local && spec->descriptor;

	put16(to, spec->flags | (spec->descriptor ? 8 : 0));
	put16(to, spec->deflated ? 8 : 0);
	put16(to, spec->time);
	put16(to, spec->date ? spec->date : 0x21);
	put32(to, later ? 0 : spec->crc);
	put32(to, spec->zip64 ? UINT32_MAX : later ? 0 : spec->stored);
	put32(to, spec->zip64 ? UINT32_MAX : later ? 0 : spec->size);
	put16(to, (unsigned)spec->name_len);
}

static void put_zip64(struct buffer *to, const struct zip_spec *spec, bool local)
{
	bool later = local && spec->descriptor;

	put16(to, 1);
	put16(to, 16);
	put64(to, later ? 0 : spec->size);
	put64(to, later ? 0 : spec->stored);
}

static void put_descriptor(struct buffer *to, const struct zip_spec *spec)
{
	if (spec->descriptor % 8 == 0)
		put32(to, 0x08074b50);
	put32(to, spec->crc);
	if (spec->descriptor == 12 || spec->descriptor == 16) {
		put32(to, spec->stored);
		put32(to, spec->size);
	} else {
		put64(to, spec->stored);
		put64(to, spec->size);
	}
}

void zip_member(struct zip_builder *zip, struct zip_spec *spec)
{
	size_t capacity = spec->size + spec->size / 100 + 100;
	uint8_t *stored = malloc(capacity);

	if (!stored)
		abort();
	if (spec->name_len == 0)
		spec->name_len = strlen(spec->name);
	spec->crc = (uint32_t)crc32(0, spec->data, (uInt)spec->size);
	spec->stored = (uint32_t)spec->size;
	if (spec->deflated)
		spec->stored = (uint32_t)compress_raw(spec->data, spec->size, stored,
						      capacity);
	else if (spec->size > 0)
		memcpy(stored, spec->data, spec->size);

	spec->local = zip->bytes.size;
	put32(&zip->bytes, 0x04034b50);
	put16(&zip->bytes, 20);
	put_common(&zip->bytes, spec, true);
	put16(&zip->bytes, spec->zip64 ? 20 : 0);
	buffer_add(&zip->bytes, spec->name, spec->name_len);
	if (spec->zip64)
		put_zip64(&zip->bytes, spec, true);
	spec->data_at = zip->bytes.size;
	buffer_add(&zip->bytes, stored, spec->stored);
	if (spec->descriptor)
		put_descriptor(&zip->bytes, spec);
	free(stored);

	spec->central = zip->central.size;
	put32(&zip->central, 0x02014b50);
	put16(&zip->central, spec->mode ? 3 << 8 | 20 : 20);
	put16(&zip->central, 20);
	put_common(&zip->central, spec, false);
	put16(&zip->central, (unsigned)(spec->extra_size + (spec->zip64 ? 20 : 0)));
	put16(&zip->central, 0); /* comment */
	put16(&zip->central, 0); /* disk */
	put16(&zip->central, 0);
	put32(&zip->central, (uint64_t)spec->mode << 16);
	put32(&zip->central, spec->local - zip->base);
	buffer_add(&zip->central, spec->name, spec->name_len);
	if (spec->zip64)
		put_zip64(&zip->central, spec, false);
	buffer_add(&zip->central, spec->extra, spec->extra_size);
	zip->count++;
}

void zip_file(struct zip_builder *zip, const char *name, const char *text)
{
	struct zip_spec spec = {
		.name = name,
		.data = text,
		.size = strlen(text),
		.mode = 0100644,
	};

	zip_member(zip, &spec);
}

void zip_end(struct zip_builder *zip, bool zip64, const char *comment)
{
	size_t start = zip->bytes.size, size = zip->central.size;

	buffer_add(&zip->bytes, zip->central.data, size);
	if (zip64) {
		size_t record = zip->bytes.size;

		put32(&zip->bytes, 0x06064b50);
		put64(&zip->bytes, 44);
		put16(&zip->bytes, 45);
		put16(&zip->bytes, 45);
		put32(&zip->bytes, 0);
		put32(&zip->bytes, 0);
		put64(&zip->bytes, zip->count);
		put64(&zip->bytes, zip->count);
		put64(&zip->bytes, size);
		put64(&zip->bytes, start - zip->base);
		put32(&zip->bytes, 0x07064b50);
		put32(&zip->bytes, 0);
		put64(&zip->bytes, record - zip->base);
		put32(&zip->bytes, 1);
	}
	put32(&zip->bytes, 0x06054b50);
	put32(&zip->bytes, 0);
	put16(&zip->bytes, zip64 ? UINT16_MAX : zip->count);
	put16(&zip->bytes, zip64 ? UINT16_MAX : zip->count);
	put32(&zip->bytes, zip64 ? UINT32_MAX : size);
	put32(&zip->bytes, zip64 ? UINT32_MAX : start - zip->base);
	put16(&zip->bytes, (unsigned)strlen(comment));
	buffer_add(&zip->bytes, comment, strlen(comment));
}

void zip_deinit(struct zip_builder *zip)
{
	buffer_deinit(&zip->bytes);
	buffer_deinit(&zip->central);
}
