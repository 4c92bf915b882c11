/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What unit tests and fuzz targets share: tar streams and images built in
 * memory, byte by byte, so that a test can make exactly the fault it is about.
 *
 * Helpers abort when the test's own machinery fails (no memory, no temporary
 * directory): that is never what a test is about.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/image.h"
#include "thaw/pack.h"

/* -- bytes -- */

struct buffer {
	uint8_t *data;
	size_t size, capacity;
};

void buffer_add(struct buffer *buffer, const void *data, size_t len);
void buffer_add_zeros(struct buffer *buffer, size_t len);
void buffer_deinit(struct buffer *buffer);
#define _buffer_ __attribute__((cleanup(buffer_deinit))) struct buffer

/* Bytes that look random and are the same in every run. */
void fill_pattern(uint8_t *data, size_t len, uint32_t seed);

/* -- tar streams -- */

/* type: as in a tar header ('0', '5', ...); target may be NULL. Checksum and padding included. */
void tar_member(struct buffer *tar, const char *path, char type, unsigned mode, uint64_t mtime,
		const char *target, const void *data, size_t size);
void tar_file(struct buffer *tar, const char *path, const void *data, size_t size);
void tar_text(struct buffer *tar, const char *path, const char *text);
void tar_directory(struct buffer *tar, const char *path);
void tar_symlink(struct buffer *tar, const char *path, const char *target);
void tar_hardlink(struct buffer *tar, const char *path, const char *target);
/* A pax header (type x or g) of one record; its value may hold any bytes. */
void tar_pax(struct buffer *tar, char type, const char *key, const void *value, size_t len);
/* Compute the checksum of the header at offset anew. */
void tar_checksum(struct buffer *tar, size_t offset);
void tar_end(struct buffer *tar);
/* A small environment: directories, files, an empty one, a symlink, a hard link. */
void tar_sample(struct buffer *tar);

/* -- images, field by field -- */

struct spec_record {
	uint32_t name;
	uint8_t name_len, type;
	uint16_t mode;
	uint32_t mtime, parent, nlink, reserved;
	uint64_t size, data;
};

struct spec_frame {
	uint64_t data, file;
	uint32_t stored, size;
	uint8_t digest[THAW_DIGEST_SIZE];
};

struct spec_part {
	uint32_t type;
	const void *data; /* as stored; ignored for stream and index */
	size_t size;
	uint64_t raw_size;
	const char *name;
	uint32_t head_size; /* warm sets: what the digest covers */
};

struct spec_section {
	uint32_t type, flags;
	const void *data;
	size_t size;
};

/* Overwrite a field after building, but before the digests that cover it. */
enum spec_place {
	IN_INDEX,  /* of the decompressed index */
	IN_TABLE,
	IN_FOOTER,
	IN_IMAGE, /* any byte, last of all: what digests cover is then damaged */
};
struct spec_poke {
	enum spec_place place;
	uint64_t offset, value;
	unsigned width;
};

#define SPEC_MAX 96
struct spec {
	struct spec_record records[SPEC_MAX];
	unsigned record_count;
	char strings[16384];
	size_t strings_size;
	struct spec_frame frames[SPEC_MAX];
	unsigned frame_count;
	const char *meta;
	size_t meta_size;
	uint64_t stream_size, annex_size;
	uint8_t stream_digest[THAW_DIGEST_SIZE];
	struct buffer stream; /* as stored */
	struct buffer annex;
	bool has_annex;
	struct spec_section sections[8]; /* further ones, behind the four known */
	unsigned section_count;
	struct spec_part parts[SPEC_MAX]; /* further ones, behind stream, annex and index */
	unsigned part_count;
	uint64_t compat, incompat;
	const char *names; /* of incompatible features; names_size bytes */
	size_t names_size;
	uint64_t index_raw_size; /* what the table says; 0: the truth */
	bool index_is_not_zstd;
	struct spec_poke pokes[16];
	unsigned poke_count;
	size_t index_entry; /* set by spec_build(): offset in the table of the index's entry */
};

/*
 * A sound image of seven records over two frames of 4 KiB:
 *
 *	1 root, 2 "a" (5 bytes at 512), 3 "b/", 4 "c" -> "a", 5 "d" = "a" (hard link),
 *	6 "b/e" (5000 bytes at 1536: in both frames), 7 "b/f" (empty)
 *
 * The stream is fill_pattern(8192, 1).
 */
#define SAMPLE_STREAM 8192u
void spec_sample(struct spec *spec);
/*
 * One of two records, root and the file "f" of this content, which is the whole stream;
 * with a section of relocations. What is given is borrowed until spec_build().
 */
void spec_relocated(struct spec *spec, const void *content, size_t size, const void *section,
		    size_t section_size);
/* So that other frames can be added, or none. */
void spec_clear_stream(struct spec *spec);
/* Compress data and add it as a frame of the stream, or of the annex. */
void spec_add_frame(struct spec *spec, const void *data, size_t size, bool annex);
void spec_poke(struct spec *spec, enum spec_place place, uint64_t offset, unsigned width,
	       uint64_t value);
/* The whole image, with every digest right (but for IN_IMAGE and IN_FOOTER pokes). */
void spec_build(struct spec *spec, struct buffer *image);
void spec_deinit(struct spec *spec);
/* The same from a finished index: raw index and stored stream, as the fuzzers have them. */
void image_wrap(const uint8_t *raw, size_t raw_size, const uint8_t *stream, size_t stream_stored,
		uint64_t stream_size, struct buffer *image);

/*
 * Make the digests of an image, which may be damaged in any way, right again:
 * index -> table -> identity. Whatever cannot be found is left alone.
 */
void image_repair(uint8_t *image, size_t size);

/* Open an image in memory, which must outlive it. */
int open_memory(const struct buffer *bytes, struct thaw_error *err, struct thaw_image **ret_image);
/* Open the image in a file. */
int open_path(const char *path, struct thaw_error *err, struct thaw_image **ret_image);

/* -- files -- */

/* A new directory under TMPDIR; free with remove_directory(). */
char *make_directory(void);
void remove_directory(char *path);
char *join_path(const char *directory, const char *name); /* malloc'ed */
void write_file(const char *path, const void *data, size_t size);
void read_file(const char *path, struct buffer *ret_bytes);
unsigned count_entries(const char *directory);
/* A descriptor of an unnamed file with these bytes, at offset 0. */
int memory_file(const void *data, size_t size);

/* Add all that an input gives, from where it is now, to tar. */
struct thaw_input;
int read_input(struct thaw_input *input, struct thaw_error *err, struct buffer *tar);

/* Pack a tar in memory into the file output. */
int pack_bytes(const struct buffer *tar, const char *output, const struct thaw_pack_options *options,
	       struct thaw_error *err, struct thaw_pack_report *ret_report);
