/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adding to an image.
 *
 * Files and warm sets are added in two steps, each of which gives a complete
 * image: first the annex and a new index into a file without a name, then, over
 * that, the warm sets. Files change inode numbers in the first step; the second
 * can then look everything up in the image that it writes for.
 */
#include "thaw/rewrite.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "digest.h"
#include "image-internal.h"
#include "image-writer.h"
#include "stub-internal.h"
#include "thaw/reader.h"
#include "thaw/relocation.h"
#include "thaw/warm.h"
#include "tree.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define ANNEX_FRAME_SIZE (256u << 10)
#define ANNEX_LEVEL	 15 /* little data, written once */
#define ANNEX_LARGE	 (16u << 20) /* of an interpreter that is taken in, say: */
#define ANNEX_LARGE_LEVEL 9	     /* six times as fast, 7 % larger */
#define COPY_SIZE	 (1u << 20)

static const struct thaw_part_info *find_part(const struct thaw_image *image,
					      enum thaw_part_type type)
{
	for (unsigned i = 0; i < image->part_count; i++)
		if (image->parts[i].type == type)
			return &image->parts[i];
	return NULL;
}

/* Bytes of the old image, as stored. */
static int copy_range(const struct thaw_image *image, uint64_t offset, uint64_t len,
		      struct thaw_output *output, struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *buf = NULL;
	int r;

	if (image->source->fd >= 0)
		return thaw_output_copy(output, image->source->fd,
					image->info.image_start + offset, len, err);
	buf = malloc(COPY_SIZE);
	if (!buf)
		return thaw_oom(err);
	while (len > 0) {
		size_t n = len < COPY_SIZE ? (size_t)len : COPY_SIZE;

		r = thaw_image_pread(image, offset, buf, n);
		if (r < 0)
			return thaw_io(err, r, "cannot be read");
		r = thaw_output_write(output, buf, n, err);
		if (r < 0)
			return r;
		offset += n;
		len -= n;
	}
	return 0;
}

/* -- the first step: annex and index -- */

struct annex {
	uint8_t *stored; /* new frames, one after the other */
	size_t stored_size, stored_capacity;
	uint8_t *records; /* of all frames of the image */
	size_t records_size, records_capacity;
	uint64_t size; /* decompressed, old frames included */
};

static void annex_deinit(struct annex *annex)
{
	free(annex->stored);
	free(annex->records);
}

static int add_record(struct annex *annex, uint64_t data, uint64_t file, uint32_t stored,
		      uint32_t size, const uint8_t *digest)
{
	uint8_t *record;

	if (grow(&annex->records, &annex->records_capacity,
		 annex->records_size + THAW_FRAME_SIZE, 1) < 0)
		return -ENOMEM;
	record = annex->records + annex->records_size;
	put_le64(record + THAW_FRAME_OFF_DATA, data);
	put_le64(record + THAW_FRAME_OFF_FILE, file);
	put_le32(record + THAW_FRAME_OFF_CSIZE, stored);
	put_le32(record + THAW_FRAME_OFF_USIZE, size);
	memcpy(record + THAW_FRAME_OFF_DIGEST, digest, THAW_DIGEST_SIZE);
	annex->records_size += THAW_FRAME_SIZE;
	return 0;
}

/* Old frames: the stream's stay where they are, the annex's move with it. */
static int old_records(const struct thaw_image *image, uint64_t annex_offset,
		       struct annex *annex, struct thaw_error *err)
{
	const struct thaw_part_info *old = find_part(image, THAW_PART_ANNEX);

	for (uint32_t i = 0; i < image->info.frames; i++) {
		struct thaw_frame frame;
		uint64_t file;

		thaw_image_frame(image, i, &frame);
		file = frame.file_offset;
		if (frame.data_offset >= image->info.stream_size)
			file = file - old->offset + annex_offset;
		if (add_record(annex, frame.data_offset, file, frame.stored, frame.size,
			       frame.digest) < 0)
			return thaw_oom(err);
	}
	return 0;
}

static int compress_frame(struct annex *annex, const uint8_t *raw, uint32_t size, int level,
			  uint64_t data, uint64_t file, struct thaw_error *err)
{
	size_t capacity = ZSTD_compressBound(size), n;
	uint8_t digest[THAW_DIGEST_SIZE];

	if (grow(&annex->stored, &annex->stored_capacity, annex->stored_size + capacity,
		 1) < 0)
		return thaw_oom(err);
	n = ZSTD_compress(annex->stored + annex->stored_size, capacity, raw, size, level);
	if (ZSTD_isError(n) ||
	    thaw_digest_once(annex->stored + annex->stored_size, n, digest) < 0 ||
	    add_record(annex, data, file + annex->stored_size, (uint32_t)n, size,
		       digest) < 0)
		return thaw_oom(err); /* nothing else makes it fail */
	annex->stored_size += n;
	return 0;
}

/* The added files, one after the other, in frames of their own. */
static int compress_additions(const struct thaw_image *image,
			      const struct thaw_rewrite *what, uint64_t new_offset,
			      struct annex *annex, struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *raw = malloc(ANNEX_FRAME_SIZE);
	uint64_t data = image->info.stream_size + image->info.annex_size;
	uint64_t total = 0;
	uint32_t used = 0;
	int level;

	if (!raw)
		return thaw_oom(err);
	for (size_t i = 0; i < what->addition_count; i++)
		total += what->additions[i].size;
	level = total > ANNEX_LARGE ? ANNEX_LARGE_LEVEL : ANNEX_LEVEL;
	annex->size = image->info.annex_size;
	for (size_t i = 0; i < what->addition_count; i++) {
		const struct thaw_addition *addition = &what->additions[i];

		for (size_t done = 0, n; done < addition->size; done += n) {
			int r;

			n = addition->size - done;
			if (n > ANNEX_FRAME_SIZE - used)
				n = ANNEX_FRAME_SIZE - used;
			memcpy(raw + used, addition->data + done, n);
			used += (uint32_t)n;
			if (used < ANNEX_FRAME_SIZE)
				continue;
			r = compress_frame(annex, raw, used, level, data, new_offset, err);
			if (r < 0)
				return r;
			data += used;
			used = 0;
		}
		annex->size += addition->size;
	}
	return used ? compress_frame(annex, raw, used, level, data, new_offset, err) : 0;
}

/* The image's records as members again. */
static int tree_of_image(const struct thaw_image *image, struct thaw_tree *tree,
			 struct thaw_error *err)
{
	char path[THAW_PATH_MAX + 2], target[THAW_PATH_MAX + 2];

	for (uint32_t i = THAW_ROOT; i < image->info.inodes; i++) {
		const uint8_t *record = inode_record(image, i);
		struct thaw_member member = {
			.path = path,
			.type = record[THAW_INODE_OFF_TYPE],
			.mode = get_le16(record + THAW_INODE_OFF_MODE),
			.mtime = get_le32(record + THAW_INODE_OFF_MTIME),
			.size = get_le64(record + THAW_INODE_OFF_SIZE),
			.data = get_le64(record + THAW_INODE_OFF_DATA),
		};
		int r;

		thaw_image_path(image, i, path, sizeof(path));
		member.path_len = strlen(path);
		if (member.type == THAW_SYMLINK) {
			member.target = image->strings + member.data;
			member.target_len = member.size;
		} else if (member.type == THAW_HARDLINK) {
			thaw_image_path(image, (uint32_t)member.data, target,
					sizeof(target));
			member.target = target;
			member.target_len = strlen(target);
		}
		r = thaw_tree_add(tree, &member, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_additions(const struct thaw_image *image, const struct thaw_rewrite *what,
			 struct thaw_tree *tree, struct thaw_error *err)
{
	uint64_t data = image->info.stream_size + image->info.annex_size;

	for (size_t i = 0; i < what->addition_count; i++) {
		const struct thaw_addition *addition = &what->additions[i];
		struct thaw_member member = {
			.path = addition->path,
			.path_len = strlen(addition->path),
			.type = addition->link ? THAW_HARDLINK : THAW_REGULAR,
			.mode = addition->mode ? addition->mode : 0644,
			.mtime = addition->mtime,
			.size = addition->size,
			.data = data,
			.target = addition->link,
			.target_len = addition->link ? strlen(addition->link) : 0,
		};
		int r = thaw_tree_add(tree, &member, err);

		if (r < 0)
			return r;
		data += addition->size;
	}
	return 0;
}

/* What pack counted, corrected for the .pyc files that are there now. */
static char *adjust_meta(const struct thaw_image *image, const struct thaw_rewrite *what)
{
	json_t *meta = json_loadb(image->meta, image->meta_size, JSON_REJECT_DUPLICATES,
				  NULL);
	json_t *bytecode = json_object_get(meta, "bytecode");
	json_int_t valid = json_integer_value(json_object_get(bytecode, "valid"));
	json_int_t stale = json_integer_value(json_object_get(bytecode, "stale"));
	json_int_t missing = json_integer_value(json_object_get(bytecode, "missing"));
	struct thaw_inode inode;
	char *text;

	for (size_t i = 0; i < what->addition_count; i++) {
		if (!strstr(what->additions[i].path, ".pyc"))
			continue;
		valid++;
		if (thaw_image_find(image, what->additions[i].path, &inode) == 0)
			stale -= stale > 0;
		else
			missing -= missing > 0;
	}
	if (json_is_object(bytecode)) {
		(void)json_object_set_new(bytecode, "valid", json_integer(valid));
		(void)json_object_set_new(bytecode, "stale", json_integer(stale));
		(void)json_object_set_new(bytecode, "missing", json_integer(missing));
	}
	if (what->meta) {
		json_t *changes = json_loads(what->meta, JSON_REJECT_DUPLICATES, NULL);

		(void)json_object_update(meta, changes);
		json_decref(changes);
	}
	text = meta ? json_dumps(meta, JSON_COMPACT | JSON_SORT_KEYS) : strdup("{}");
	json_decref(meta);
	return text;
}

static int write_annex(const struct thaw_image *image, const struct annex *annex,
		       struct thaw_writer *writer, struct thaw_error *err)
{
	const struct thaw_part_info *old = find_part(image, THAW_PART_ANNEX);
	struct thaw_part_info part = { .type = THAW_PART_ANNEX, .raw_size = annex->size };
	int r;

	r = thaw_writer_begin(writer, (old ? old->size : 0) + annex->stored_size, err);
	if (r == 0 && old)
		r = copy_range(image, old->offset, old->size, writer->output, err);
	if (r == 0)
		r = thaw_output_write(writer->output, annex->stored, annex->stored_size,
				      err);
	if (r == 0)
		thaw_writer_end(writer, &part);
	return r;
}

struct relocation_section {
	uint8_t *data;
	size_t size;
};

static int write_index(const struct thaw_image *image, const struct thaw_rewrite *what,
		       const struct annex *annex,
		       const struct relocation_section *relocations,
		       struct thaw_writer *writer, struct thaw_error *err)
{
	_cleanup_(thaw_tree_freep) struct thaw_tree *tree = NULL;
	_cleanup_(freep) char *meta = adjust_meta(image, what);
	struct thaw_index_contents contents = {
		.stream_size = image->info.stream_size,
		.annex_size = annex->size,
		.frames = annex->records,
		.frames_size = annex->records_size,
		.relocations = relocations->data,
		.relocations_size = relocations->size,
		.meta = meta,
	};
	struct thaw_sections sections = { 0 };
	int r;

	if (!meta || thaw_tree_new(THAW_INODES_MAX, &tree) < 0)
		return thaw_oom(err);
	r = tree_of_image(image, tree, err);
	if (r == 0)
		r = add_additions(image, what, tree, err);
	if (r == 0)
		r = thaw_tree_emit(tree, err, &sections);
	if (r < 0)
		return r;
	memcpy(contents.stream_digest, image->info.stream_digest, THAW_DIGEST_SIZE);
	contents.inodes = sections.inodes;
	contents.inodes_size = sections.inodes_size;
	contents.strings = sections.strings;
	contents.strings_size = sections.strings_size;
	contents.meta_size = strlen(meta);
	r = thaw_writer_index(writer, &contents, err);
	thaw_sections_deinit(&sections);
	return r;
}

/* Where each of the old image's files is in the new one; 0 if nowhere. */
static uint32_t *map_inodes(const struct thaw_image *old, const struct thaw_image *new)
{
	uint32_t *map = calloc(old->info.inodes, sizeof(*map));
	char path[THAW_PATH_MAX + 2];

	for (uint32_t i = THAW_ROOT; map && i < old->info.inodes; i++) {
		struct thaw_inode inode;

		if (thaw_image_inode(old, i, &inode) < 0)
			continue;
		thaw_image_path(old, i, path, sizeof(path));
		if (thaw_image_find(new, path, &inode) == 0)
			map[i] = inode.ino;
	}
	return map;
}

/* Index, table and footer behind the annex; writer stays as it is. */
static int write_tail(const struct thaw_image *image, const struct thaw_rewrite *what,
		      const struct annex *annex,
		      const struct relocation_section *relocations,
		      const struct thaw_writer *writer, struct thaw_error *err,
		      struct thaw_image **ret_image)
{
	struct thaw_writer tail = *writer;
	int r;

	r = write_index(image, what, annex, relocations, &tail, err);
	if (r == 0)
		r = thaw_writer_finish(&tail, err);
	return r == 0 ? thaw_writer_read_back(tail.output, err, ret_image) : r;
}

/* Where paths stand in a file that is added. */
static int add_sites(const struct thaw_image *new, const struct thaw_addition *addition,
		     struct thaw_relocations *relocations, struct thaw_error *err)
{
	struct thaw_inode inode;
	int r = 0;

	if (addition->site_count == 0)
		return 0;
	if (thaw_image_find(new, addition->path, &inode) != 0)
		return thaw_io(err, -EINVAL, "an added file is not there");
	for (size_t i = 0; r == 0 && i < addition->site_count; i++)
		r = thaw_relocations_add(relocations, inode.ino,
					 addition->sites[i].offset,
					 &addition->sites[i].rule, err);
	return r;
}

static bool has_relocations(const struct thaw_image *image,
			    const struct thaw_rewrite *what)
{
	if (thaw_image_relocated_count(image) > 0)
		return true;
	for (size_t i = 0; i < what->addition_count; i++)
		if (what->additions[i].site_count > 0)
			return true;
	return false;
}

/* The relocations of image, for the files that new has of it. */
static int carry_relocations(const struct thaw_image *image, const struct thaw_image *new,
			     const struct thaw_rewrite *what, struct thaw_error *err,
			     struct relocation_section *ret_section)
{
	_cleanup_(thaw_relocations_freep) struct thaw_relocations *relocations = NULL;
	_cleanup_(freep) uint32_t *map = map_inodes(image, new);
	struct thaw_inode inode;
	int r;

	if (!map || thaw_relocations_new(&relocations) < 0)
		return thaw_oom(err);
	/* Other bytes stand there now. */
	for (size_t i = 0; i < what->addition_count; i++)
		if (thaw_image_find(image, what->additions[i].path, &inode) == 0)
			map[inode.ino] = 0;
	r = thaw_relocations_carry(relocations, image, map, err);
	for (size_t i = 0; r == 0 && i < what->addition_count; i++)
		r = add_sites(new, &what->additions[i], relocations, err);
	return r == 0 ? thaw_relocations_emit(relocations, err, &ret_section->data,
					      &ret_section->size)
		      : r;
}

/*
 * The image with the additions and without warm sets, into output. Relocations
 * need the new inode numbers: the index is written without, and then again.
 */
static int write_annexed(const struct thaw_image *image, const struct thaw_rewrite *what,
			 struct thaw_output *output, struct thaw_error *err,
			 struct thaw_image **ret_image)
{
	const struct thaw_part_info *old = find_part(image, THAW_PART_ANNEX);
	uint64_t annex_offset = image->parts[0].size + THAW_SKIPPABLE_HEADER;
	_cleanup_(thaw_image_freep) struct thaw_image *first = NULL;
	struct relocation_section relocations = { 0 };
	struct annex annex = { 0 };
	struct thaw_writer writer;
	uint64_t behind_annex;
	int r;

	r = old_records(image, annex_offset, &annex, err);
	if (r == 0)
		r = compress_additions(image, what, annex_offset + (old ? old->size : 0),
				       &annex, err);
	if (r == 0)
		r = copy_range(image, 0, image->parts[0].size, output, err);
	if (r == 0) {
		thaw_writer_stream(&writer, output, image->info.stream_size);
		r = write_annex(image, &annex, &writer, err);
	}
	behind_annex = thaw_output_offset(output);
	if (r == 0)
		r = write_tail(image, what, &annex, &relocations, &writer, err, &first);
	if (r == 0 && has_relocations(image, what)) {
		r = carry_relocations(image, first, what, err, &relocations);
		if (r == 0 && relocations.data) {
			first = thaw_image_free(first);
			r = thaw_output_truncate(output, behind_annex, err);
			if (r == 0)
				r = write_tail(image, what, &annex, &relocations, &writer,
					       err, &first);
		}
	}
	free(relocations.data);
	annex_deinit(&annex);
	if (r == 0)
		*ret_image = steal_ptr(first);
	return r;
}

/* -- the second step: warm sets -- */

/* "a/__pycache__/b.cpython-311.pyc" -> "a/b.py"; false for other paths. */
static bool source_path(const char *pyc, char *source, size_t size)
{
	const char *cache = strstr(pyc, "__pycache__/"), *name, *dot;

	if (!cache)
		return false;
	name = cache + strlen("__pycache__/");
	dot = strchr(name, '.');
	return dot && !strchr(name, '/') &&
	       snprintf(source, size, "%.*s%.*s.py", (int)(cache - pyc), pyc,
			(int)(dot - name), name) < (int)size;
}

/* For each source that has got a .pyc: that. */
static uint32_t *map_sources(const struct thaw_image *image,
			     const struct thaw_rewrite *what)
{
	uint32_t *instead = calloc(image->info.inodes, sizeof(*instead));
	char path[THAW_PATH_MAX + 2];

	for (size_t i = 0; instead && i < what->addition_count; i++) {
		struct thaw_inode source, pyc;

		if (source_path(what->additions[i].path, path, sizeof(path)) &&
		    thaw_image_find(image, path, &source) == 0 &&
		    thaw_image_find(image, what->additions[i].path, &pyc) == 0)
			instead[source.ino] = pyc.ino;
	}
	return instead;
}

static int write_set(struct thaw_writer *writer, const struct thaw_warm_part *set,
		     struct thaw_error *err)
{
	struct thaw_part_info part = {
		.type = THAW_PART_WARM,
		.raw_size = set->head_raw_size,
		.head_size = set->head_size,
	};
	int r;

	memcpy(part.digest, set->head_digest, sizeof(part.digest));
	memcpy(part.name, set->name, sizeof(part.name));
	r = thaw_writer_begin(writer, set->size, err);
	if (r == 0)
		r = thaw_output_write(writer->output, set->payload, set->size, err);
	if (r == 0)
		thaw_writer_end(writer, &part);
	return r;
}

/* A part as it is. */
static int copy_part(const struct thaw_image *image, const struct thaw_part_info *part,
		     struct thaw_writer *writer, struct thaw_error *err)
{
	int r = thaw_writer_begin(writer, part->size, err);

	if (r == 0)
		r = copy_range(image, part->offset, part->size, writer->output, err);
	if (r == 0)
		thaw_writer_end(writer, part);
	return r;
}

/* The sets that image has and that are not replaced, renumbered if there is a map. */
static int keep_sets(const struct thaw_image *image, const struct thaw_rewrite *what,
		     const uint32_t *map, struct thaw_writer *writer,
		     struct thaw_error *err)
{
	for (unsigned i = 0; i < image->part_count; i++) {
		_cleanup_(thaw_warm_freep) struct thaw_warm *warm = NULL;
		struct thaw_warm_part set = { 0 };
		bool replaced = false;
		int r;

		if (image->parts[i].type != THAW_PART_WARM)
			continue;
		for (size_t j = 0; j < what->workload_count; j++)
			replaced |= strcmp(what->workloads[j].name,
					   image->parts[i].name) == 0;
		if (replaced)
			continue;
		if (!map) {
			r = copy_part(image, &image->parts[i], writer, err);
			if (r < 0)
				return r;
			continue;
		}
		r = thaw_warm_open(image, i, err, &warm);
		if (r == 0)
			r = thaw_warm_renumber(warm, map, err, &set);
		if (r == 0)
			r = write_set(writer, &set, err);
		thaw_warm_part_deinit(&set);
		if (r < 0)
			return r;
	}
	return 0;
}

static int new_sets(const struct thaw_image *base, const struct thaw_image *traced,
		    const struct thaw_rewrite *what, const uint32_t *map,
		    struct thaw_writer *writer, struct thaw_error *err)
{
	_cleanup_(freep) uint32_t *instead = map_sources(base, what);
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;

	if (!instead || thaw_reader_new(base, 0, &reader) < 0)
		return thaw_oom(err);
	for (size_t i = 0; i < what->workload_count; i++) {
		struct thaw_warm_options options = {
			.name = what->workloads[i].name,
			.map = map,
			.trace_inodes = traced->info.inodes,
			.instead = instead,
		};
		struct thaw_warm_part set = { 0 };
		int r;

		r = thaw_warm_build(base, reader, what->workloads[i].trace, &options, err,
				    &set);
		if (r == 0)
			r = write_set(writer, &set, err);
		thaw_warm_part_deinit(&set);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Stream, annex and index of base as they are, then the warm sets. */
static int write_final(const struct thaw_image *base, const struct thaw_image *image,
		       const struct thaw_rewrite *what, struct thaw_output *output,
		       struct thaw_error *err)
{
	_cleanup_(freep) uint32_t *map = NULL;
	struct thaw_writer writer;
	uint64_t behind_stream;
	int r;

	if (base != image) {
		map = map_inodes(image, base);
		if (!map)
			return thaw_oom(err);
	}
	r = copy_range(base, 0, base->parts[0].size, output, err);
	if (r < 0)
		return r;
	thaw_writer_stream(&writer, output, base->info.stream_size);
	behind_stream = thaw_output_offset(output) + THAW_SKIPPABLE_HEADER;
	for (unsigned i = 1; i < base->part_count; i++) {
		const struct thaw_part_info *part = &base->parts[i];

		if (part->type != THAW_PART_ANNEX && part->type != THAW_PART_INDEX)
			continue;
		/* The index says where the annex's frames are: it must stay there. */
		if (part->type == THAW_PART_ANNEX && part->offset != behind_stream)
			return thaw_refused(err, "its annex is not where thaw puts it");
		r = copy_part(base, part, &writer, err);
		if (r < 0)
			return r;
	}
	r = keep_sets(image, what, map, &writer, err);
	if (r == 0)
		r = new_sets(base, image, what, map, &writer, err);
	if (r == 0)
		r = thaw_writer_finish(&writer, err);
	return r;
}

/* Beside the output, under a name that nobody sees. */
static int open_between(const char *path, const char *suffix, struct thaw_error *err,
			struct thaw_output **ret_output)
{
	_cleanup_(freep) char *name = NULL;

	if (asprintf(&name, "%s.%s", path, suffix) < 0) {
		name = NULL;
		return thaw_oom(err);
	}
	return thaw_output_open(name, true, err, ret_output);
}

/* Who could read the file that is replaced, and nobody else, can read the new one. */
static int keep_attributes(const char *path, int fd, struct thaw_error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return 0;			 /* a new file, as the umask has it */
	(void)!fchown(fd, st.st_uid, st.st_gid); /* as far as our rights go */
	return fchmod(fd, st.st_mode & 0777) < 0
		       ? thaw_io(err, -errno, "cannot be written")
		       : 0;
}

/*
 * An image that follows other bytes: a launcher says which image it is for, and that is
 * known only when the image is complete. So it is written by itself first.
 */
static int write_behind(const struct thaw_image *base, const struct thaw_image *image,
			const char *path, const struct thaw_rewrite *what,
			struct thaw_output *output, struct thaw_error *err)
{
	_cleanup_(thaw_output_freep) struct thaw_output *alone = NULL;
	_cleanup_(thaw_image_freep) struct thaw_image *written = NULL;
	int r = open_between(path, "image", err, &alone);

	if (r == 0)
		r = write_final(base, image, what, alone, err);
	if (r == 0)
		r = thaw_writer_read_back(alone, err, &written);
	if (r == 0)
		r = thaw_stub_carry(image, written->info.identity, output, err);
	if (r == 0)
		r = thaw_output_copy(output, thaw_output_fd(alone), 0,
				     thaw_output_offset(alone), err);
	return r;
}

int thaw_rewrite(const struct thaw_image *image, const char *path,
		 const struct thaw_rewrite *what, struct thaw_error *err,
		 struct thaw_image_info *ret_info)
{
	_cleanup_(thaw_output_freep) struct thaw_output *between = NULL;
	_cleanup_(thaw_output_freep) struct thaw_output *output = NULL;
	_cleanup_(thaw_image_freep) struct thaw_image *annexed = NULL;
	_cleanup_(thaw_image_freep) struct thaw_image *written = NULL;
	int r;

	r = thaw_output_open(path, what->force, err, &output);
	if (r == 0)
		r = keep_attributes(path, thaw_output_fd(output), err);
	if (r == 0 && what->addition_count > 0) {
		r = open_between(path, "annex", err, &between);
		if (r == 0)
			r = write_annexed(image, what, between, err, &annexed);
	}
	if (r == 0 && image->info.image_start > 0)
		r = write_behind(annexed ? annexed : image, image, path, what, output, err);
	else if (r == 0)
		r = write_final(annexed ? annexed : image, image, what, output, err);
	if (r == 0)
		r = thaw_writer_read_back(output, err, &written);
	if (r == 0)
		r = thaw_output_commit(output, err);
	if (r == 0)
		*ret_info = written->info;
	return r;
}
