/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives that Spark unpacks: .tar.gz and .zip, the same bytes for the same
 * content. Compressed by zlib alone: neither libarchive's gzip header nor its zip
 * writer (which a static executable does not have) is needed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "canonical-tar.h"
#include "stub-internal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/pread.h"

#define BLOCK	    (1u << 17)
#define LEVEL	    6 /* 9 takes three times as long for half a percent */
#define MODIFIED    315532800 /* 1980-01-01: the earliest time that a zip can tell */
#define DOS_DATE    0x21u     /* the same */
#define ZIP_LOCAL   30u
#define ZIP_CENTRAL 46u
#define ZIP_END	    22u
#define ZIP_UNIX    0x0314u /* version made by: Unix, 2.0 */
#define ZIP_VERSION 20u
#define ZIP_UTF8    0x800u
#define ZIP_DEFLATED 8u
#define ZIP_SIZE_MAX (UINT32_MAX - (16u << 20)) /* what is left is for the central directory */

struct thaw_stub_archive {
	enum thaw_stub_form form;
	struct thaw_output *output;
	uint8_t *block; /* BLOCK: what was read, then what was compressed */
	z_stream zlib;
	bool zlib_begun;
	/* .tar.gz */
	struct thaw_canonical *tar;
	/* .zip */
	uint8_t *central; /* the central directory so far */
	size_t central_size, central_capacity;
	unsigned members;
};

static int compressor_failed(struct thaw_error *err)
{
	return thaw_oom(err); /* deflate fails for nothing else */
}

static int begin_deflate(struct thaw_stub_archive *archive, int window, struct thaw_error *err)
{
	if (deflateInit2(&archive->zlib, LEVEL, Z_DEFLATED, window, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return compressor_failed(err);
	archive->zlib_begun = true;
	return 0;
}

int thaw_stub_archive_new(enum thaw_stub_form form, struct thaw_output *output,
			  struct thaw_error *err, struct thaw_stub_archive **ret_archive)
{
	_cleanup_(thaw_stub_archive_freep) struct thaw_stub_archive *archive = NULL;
	int r = 0;

	archive = calloc(1, sizeof(*archive));
	if (!archive)
		return thaw_oom(err);
	archive->form = form;
	archive->output = output;
	archive->block = malloc(2 * BLOCK);
	if (!archive->block)
		return thaw_oom(err);
	if (form == THAW_STUB_TAR_GZ) {
		r = thaw_canonical_new(err, &archive->tar);
		/* 16: a gzip header, in which zlib leaves time and name empty */
		if (r == 0)
			r = begin_deflate(archive, MAX_WBITS + 16, err);
	}
	if (r == 0)
		*ret_archive = steal_ptr(archive);
	return r;
}

struct thaw_stub_archive *thaw_stub_archive_free(struct thaw_stub_archive *archive)
{
	if (!archive)
		return NULL;
	if (archive->zlib_begun)
		(void)deflateEnd(&archive->zlib); /* says only that it was not finished */
	thaw_canonical_free(archive->tar);
	free(archive->block);
	free(archive->central);
	free(archive);
	return NULL;
}

/* Give zlib bytes, and the output what comes out. flush: Z_NO_FLUSH, Z_BLOCK, Z_FINISH. */
static int deflate_into(struct thaw_stub_archive *archive, const void *data, size_t len,
			int flush, struct thaw_error *err)
{
	uint8_t *out = archive->block + BLOCK;
	int r = 0, z;

	archive->zlib.next_in = (uint8_t *)(uintptr_t)data;
	archive->zlib.avail_in = (uInt)len;
	do {
		archive->zlib.next_out = out;
		archive->zlib.avail_out = BLOCK;
		z = deflate(&archive->zlib, flush);
		if (z == Z_STREAM_ERROR)
			return compressor_failed(err);
		r = thaw_output_write(archive->output, out, BLOCK - archive->zlib.avail_out, err);
	} while (r == 0 && archive->zlib.avail_out == 0);
	return r;
}

/* The next len bytes from position on, in memory. */
static int get_bytes(struct thaw_stub_archive *archive, const struct thaw_stub_bytes *bytes,
		     uint64_t position, size_t len, struct thaw_error *err,
		     const uint8_t **ret_data)
{
	int r;

	*ret_data = archive->block;
	if (bytes->data) {
		*ret_data = (const uint8_t *)bytes->data + position;
		return 0;
	}
	r = pread_all(bytes->fd, archive->block, len, bytes->offset + position);
	return r < 0 ? thaw_io(err, r, "cannot be read") : 0;
}

/* Hand all bytes to sink(), block by block. */
typedef int sink_fn(struct thaw_stub_archive *archive, const uint8_t *data, size_t len,
		    struct thaw_error *err, void *userdata);
static int for_each_block(struct thaw_stub_archive *archive,
			  const struct thaw_stub_bytes *bytes, sink_fn *sink, void *userdata,
			  struct thaw_error *err)
{
	int r = 0;

	for (uint64_t done = 0; r == 0 && done < bytes->size;) {
		uint64_t left = bytes->size - done;
		size_t len = left < BLOCK ? (size_t)left : BLOCK;
		const uint8_t *data;

		r = get_bytes(archive, bytes, done, len, err, &data);
		if (r == 0)
			r = sink(archive, data, len, err, userdata);
		done += len;
	}
	return r;
}

/* -- .tar.gz -- */

static int tar_flush(struct thaw_stub_archive *archive, int flush, struct thaw_error *err)
{
	const uint8_t *data;
	size_t len = thaw_canonical_take(archive->tar, &data);

	return deflate_into(archive, data, len, flush, err);
}

static int tar_data(struct thaw_stub_archive *archive, const uint8_t *data, size_t len,
		    struct thaw_error *err, void *userdata)
{
	int r = thaw_canonical_data(archive->tar, userdata, data, len, err);

	return r == 0 ? tar_flush(archive, Z_NO_FLUSH, err) : r;
}

/* Level 0 for what is compressed already; the rest of the stream as before. */
static int tar_level(struct thaw_stub_archive *archive, int level, struct thaw_error *err)
{
	int r = tar_flush(archive, Z_BLOCK, err);

	if (r < 0)
		return r;
	archive->zlib.next_out = archive->block + BLOCK;
	archive->zlib.avail_out = BLOCK;
	if (deflateParams(&archive->zlib, level, Z_DEFAULT_STRATEGY) != Z_OK)
		return compressor_failed(err);
	return thaw_output_write(archive->output, archive->block + BLOCK,
				 BLOCK - archive->zlib.avail_out, err);
}

static int tar_member(struct thaw_stub_archive *archive,
		      const struct thaw_canonical_member *member,
		      const struct thaw_stub_bytes *bytes, struct thaw_error *err)
{
	bool packed = bytes && bytes->packed;
	int r = thaw_canonical_member(archive->tar, member, err);

	if (r == 0 && packed)
		r = tar_level(archive, Z_NO_COMPRESSION, err);
	if (r == 0 && bytes)
		r = for_each_block(archive, bytes, tar_data, (void *)(uintptr_t)member->path,
				   err);
	if (r == 0 && packed)
		r = tar_level(archive, LEVEL, err);
	return r == 0 ? tar_flush(archive, Z_NO_FLUSH, err) : r;
}

/* -- .zip -- */

struct zip_entry {
	uint32_t crc, stored;
	uint16_t method;
};

static int zip_crc(struct thaw_stub_archive *archive, const uint8_t *data, size_t len,
		   struct thaw_error *err, void *userdata)
{
	struct zip_entry *entry = userdata;

	entry->crc = (uint32_t)crc32(entry->crc, data, (uInt)len);
	return 0;
}

static int zip_store(struct thaw_stub_archive *archive, const uint8_t *data, size_t len,
		     struct thaw_error *err, void *userdata)
{
	return thaw_output_write(archive->output, data, len, err);
}

/* Into memory: the header in front tells the size. Launchers are a few MB, images are stored. */
static int zip_compress(struct thaw_stub_archive *archive, const struct thaw_stub_bytes *bytes,
			struct thaw_error *err, uint8_t **ret_packed, uint32_t *ret_size)
{
	_cleanup_(freep) uint8_t *raw = malloc(bytes->size), *packed = NULL;
	z_stream *z = &archive->zlib;
	uint64_t bound;
	int r = raw ? 0 : thaw_oom(err);

	if (r == 0 && bytes->data)
		memcpy(raw, bytes->data, bytes->size);
	else if (r == 0 && pread_all(bytes->fd, raw, bytes->size, bytes->offset) < 0)
		r = thaw_io(err, -EIO, "cannot be read");
	if (r == 0)
		r = begin_deflate(archive, -MAX_WBITS, err);
	if (r < 0)
		return r;
	bound = deflateBound(z, (uLong)bytes->size);
	packed = malloc(bound);
	z->next_in = raw;
	z->avail_in = (uInt)bytes->size;
	z->next_out = packed;
	z->avail_out = packed ? (uInt)bound : 0;
	r = packed && deflate(z, Z_FINISH) == Z_STREAM_END ? 0 : compressor_failed(err);
	*ret_size = (uint32_t)z->total_out;
	(void)deflateEnd(z); /* complete, or of no use */
	archive->zlib_begun = false;
	if (r == 0)
		*ret_packed = steal_ptr(packed);
	return r;
}

/* What local and central header share, from the version needed on. */
static void zip_common(uint8_t *p, const struct zip_entry *entry, uint64_t size, size_t name_len)
{
	put_le16(p, ZIP_VERSION);
	put_le16(p + 2, ZIP_UTF8);
	put_le16(p + 4, entry->method);
	put_le16(p + 6, 0); /* time */
	put_le16(p + 8, DOS_DATE);
	put_le32(p + 10, entry->crc);
	put_le32(p + 14, entry->stored);
	put_le32(p + 18, (uint32_t)size);
	put_le16(p + 22, (uint16_t)name_len);
	put_le16(p + 24, 0); /* extra field */
}

static int zip_central(struct thaw_stub_archive *archive, const char *name, mode_t mode,
		       const struct zip_entry *entry, uint64_t size, uint64_t offset,
		       struct thaw_error *err)
{
	size_t len = strlen(name), need = archive->central_size + ZIP_CENTRAL + len;
	uint8_t *p;

	if (grow(&archive->central, &archive->central_capacity, need, 1) < 0)
		return thaw_oom(err);
	p = archive->central + archive->central_size;
	memset(p, 0, ZIP_CENTRAL);
	put_le32(p, 0x02014b50);
	put_le16(p + 4, ZIP_UNIX);
	zip_common(p + 6, entry, size, len);
	put_le32(p + 38, (uint32_t)mode << 16 | (S_ISDIR(mode) ? 0x10 : 0));
	put_le32(p + 42, (uint32_t)offset);
	memcpy(p + ZIP_CENTRAL, name, len);
	archive->central_size = need;
	archive->members++;
	return 0;
}

/*
 * The local header comes first and has to tell sizes: what reads a stream has
 * nothing else, and Java's refuses stored members without.
 */
static int zip_member(struct thaw_stub_archive *archive, const char *name, mode_t mode,
		      const struct thaw_stub_bytes *bytes, struct thaw_error *err)
{
	struct zip_entry entry = { .stored = (uint32_t)bytes->size };
	uint64_t offset = thaw_output_offset(archive->output);
	_cleanup_(freep) uint8_t *packed = NULL;
	uint8_t header[ZIP_LOCAL] = { 0 };
	int r;

	if (bytes->size > ZIP_SIZE_MAX || offset > ZIP_SIZE_MAX - bytes->size ||
	    archive->members == UINT16_MAX - 1)
		return thaw_limit(err, "too large for a .zip: use .tar.gz");
	r = for_each_block(archive, bytes, zip_crc, &entry, err);
	if (r == 0 && bytes->size > 0 && !bytes->packed) {
		entry.method = ZIP_DEFLATED;
		r = zip_compress(archive, bytes, err, &packed, &entry.stored);
	}
	put_le32(header, 0x04034b50);
	zip_common(header + 4, &entry, bytes->size, strlen(name));
	if (r == 0)
		r = thaw_output_write(archive->output, header, sizeof(header), err);
	if (r == 0)
		r = thaw_output_write(archive->output, name, strlen(name), err);
	if (r == 0)
		r = packed ? thaw_output_write(archive->output, packed, entry.stored, err) :
			     for_each_block(archive, bytes, zip_store, NULL, err);
	return r == 0 ? zip_central(archive, name, mode, &entry, bytes->size, offset, err) : r;
}

static int zip_end(struct thaw_stub_archive *archive, struct thaw_error *err)
{
	uint64_t offset = thaw_output_offset(archive->output);
	uint8_t end[ZIP_END] = { 0 };
	int r = 0;

	if (archive->central_size > 0)
		r = thaw_output_write(archive->output, archive->central, archive->central_size,
				      err);
	put_le32(end, 0x06054b50);
	put_le16(end + 8, (uint16_t)archive->members);
	put_le16(end + 10, (uint16_t)archive->members);
	put_le32(end + 12, (uint32_t)archive->central_size);
	put_le32(end + 16, (uint32_t)offset);
	return r == 0 ? thaw_output_write(archive->output, end, sizeof(end), err) : r;
}

/* -- both -- */

int thaw_stub_archive_directory(struct thaw_stub_archive *archive, const char *path,
				struct thaw_error *err)
{
	const struct thaw_canonical_member member = {
		.path = path,
		.mode = S_IFDIR | 0755,
		.mtime = MODIFIED,
	};
	const struct thaw_stub_bytes nothing = { .data = "" };
	char name[256];

	if (archive->form == THAW_STUB_TAR_GZ)
		return tar_member(archive, &member, NULL, err);
	(void)snprintf(name, sizeof(name), "%s/", path); /* "bin", "thaw" */
	return zip_member(archive, name, S_IFDIR | 0755, &nothing, err);
}

int thaw_stub_archive_file(struct thaw_stub_archive *archive, const char *path, mode_t mode,
			   const struct thaw_stub_bytes *bytes, struct thaw_error *err)
{
	const struct thaw_canonical_member member = {
		.path = path,
		.mode = S_IFREG | mode,
		.mtime = MODIFIED,
		.size = bytes->size,
	};

	if (archive->form == THAW_STUB_TAR_GZ)
		return tar_member(archive, &member, bytes, err);
	return zip_member(archive, path, S_IFREG | mode, bytes, err);
}

int thaw_stub_archive_again(struct thaw_stub_archive *archive, const char *path,
			    const char *first, mode_t mode, const struct thaw_stub_bytes *bytes,
			    struct thaw_error *err)
{
	const struct thaw_canonical_member member = {
		.path = path,
		.mode = S_IFREG | mode,
		.mtime = MODIFIED,
		.hardlink = first,
	};

	if (archive->form == THAW_STUB_TAR_GZ)
		return tar_member(archive, &member, NULL, err);
	return thaw_stub_archive_file(archive, path, mode, bytes, err);
}

int thaw_stub_archive_symlink(struct thaw_stub_archive *archive, const char *path,
			      const char *target, struct thaw_error *err)
{
	const struct thaw_canonical_member member = {
		.path = path,
		.mode = S_IFLNK | 0777,
		.mtime = MODIFIED,
		.target = target,
	};

	if (archive->form != THAW_STUB_TAR_GZ)
		return thaw_refused(err, "links need a .tar.gz: Spark unpacks those of a .zip as "
					 "files");
	return tar_member(archive, &member, NULL, err);
}

int thaw_stub_archive_end(struct thaw_stub_archive *archive, struct thaw_error *err)
{
	int r;

	if (archive->form != THAW_STUB_TAR_GZ)
		return zip_end(archive, err);
	r = thaw_canonical_end(archive->tar, err);
	return r == 0 ? tar_flush(archive, Z_FINISH, err) : r;
}
