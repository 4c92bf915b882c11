/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The indexer: from a source to an image, in one pass. The index is written
 * twice: what is found by looking at the image belongs into it.
 */
#include "thaw/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "digest.h"
#include "image-writer.h"
#include "pack-internal.h"
#include "tree.h"
#include "util/cleanup.h"
#include "util/cpus.h"

#define LEVEL_DEFAULT	    9
#define FRAME_SIZE_DEFAULT  (256u << 10)
#define MAX_BYTES_DEFAULT   (256ull << 30)
#define MAX_ENTRIES_DEFAULT (4ull << 20)
/* gzip cannot exceed 1032; real environments stay below 10. */
#define MAX_RATIO_DEFAULT   250u
#define RATIO_GRACE	    (64ull << 20) /* stream bytes before the ratio counts */
#define PROGRESS_STEP	    (1ull << 20)

struct pack {
	const struct thaw_pack_options *options; /* complete: no zeros left */
	struct thaw_input *input;
	struct thaw_frames *frames;
	struct thaw_digest *digest;
	uint64_t size; /* stream bytes seen */
	uint64_t reported;
	/* A directory: where it stands. Paths to look for in its files. */
	char *prefixes[2];
	size_t prefix_count;
};

static int check_limits(struct pack *pack, struct thaw_error *err)
{
	const struct thaw_pack_options *options = pack->options;

	if (pack->size > options->max_bytes)
		return thaw_limit(
			err, "more than %" PRIu64 " bytes when unpacked (--max-bytes)",
			options->max_bytes);
	if (pack->size > RATIO_GRACE &&
	    pack->size / options->max_ratio > pack->input->consumed)
		return thaw_limit(err,
				  "unpacks to more than %" PRIu64
				  " times its size (--max-ratio)",
				  options->max_ratio);
	return 0;
}

static int report_progress(struct pack *pack, struct thaw_error *err)
{
	const struct thaw_pack_options *options = pack->options;

	if (!options->progress || pack->size - pack->reported < PROGRESS_STEP)
		return 0;
	pack->reported = pack->size;
	if (options->progress(options->progress_data, pack->input->consumed,
			      pack->input->total, pack->size) == 0)
		return 0;
	return thaw_io(err, -EINTR, "stopped");
}

/* While the source has nothing for us. */
static int asked_to_stop(void *userdata)
{
	struct pack *pack = userdata;
	const struct thaw_pack_options *options = pack->options;

	if (!options->progress)
		return 0;
	return options->progress(options->progress_data,
				 pack->input ? pack->input->consumed : 0,
				 pack->input ? pack->input->total : 0, pack->size);
}

/* Each block of the stream passes here once: to the compressors, then to the parser. */
static int pull(void *userdata, struct thaw_error *err, const uint8_t **ret_data,
		size_t *ret_len)
{
	struct pack *pack = userdata;
	int r;

	r = pack->input->next(pack->input, err, ret_data, ret_len);
	if (r < 0)
		return r;
	pack->size += *ret_len;
	r = check_limits(pack, err);
	if (r < 0)
		return r;
	if (thaw_digest_add(pack->digest, *ret_data, *ret_len) < 0)
		return thaw_oom(err);
	r = thaw_frames_add(pack->frames, *ret_data, *ret_len, err);
	if (r < 0)
		return r;
	return report_progress(pack, err);
}

static int complete_options(const struct thaw_pack_options *given,
			    struct thaw_pack_options *options, struct thaw_error *err)
{
	*options = *given;
	if (!options->level)
		options->level = LEVEL_DEFAULT;
	if (!options->frame_size)
		options->frame_size = FRAME_SIZE_DEFAULT;
	if (!options->threads)
		options->threads = cpu_count();
	if (!options->max_bytes || options->max_bytes > THAW_DATA_MAX)
		options->max_bytes = options->max_bytes ? THAW_DATA_MAX
							: MAX_BYTES_DEFAULT;
	if (!options->max_entries)
		options->max_entries = MAX_ENTRIES_DEFAULT;
	if (!options->max_ratio)
		options->max_ratio = MAX_RATIO_DEFAULT;
	if (options->level < ZSTD_minCLevel() || options->level > ZSTD_maxCLevel())
		return thaw_limit(err, "zstd has levels up to %d", ZSTD_maxCLevel());
	if (options->frame_size < THAW_FRAME_USIZE_MIN ||
	    options->frame_size > THAW_FRAME_USIZE_MAX)
		return thaw_limit(err, "frames hold %u bytes to %u MiB",
				  THAW_FRAME_USIZE_MIN, THAW_FRAME_USIZE_MAX >> 20);
	return 0;
}

/* What the index says of the image as a whole; keys are documented in doc/format.md. */
static int make_meta(const struct pack *pack, const struct thaw_pack_report *report,
		     const struct thaw_environment *environment, struct thaw_error *err,
		     char **ret_meta)
{
	const struct thaw_input_environment *known = pack->input->environment;
	json_t *meta = json_pack(
		"{s:s, s:s, s:{s:I, s:I, s:I}, s:{s:I, s:I}, s:I, s:I}", "tool",
		"thaw " THAW_VERSION_STRING, "source", report->source_kind, "bytecode",
		"valid", (json_int_t)report->pyc_valid, "stale",
		(json_int_t)report->pyc_stale, "missing", (json_int_t)report->pyc_missing,
		"dropped", "xattrs", (json_int_t)report->dropped_xattrs, "setid",
		(json_int_t)report->dropped_setid, "duplicates",
		(json_int_t)report->duplicates, "implied_directories",
		(json_int_t)report->implied);

	if (meta && (thaw_environment_describe(environment, known ? &known->hints : NULL,
					       meta) < 0 ||
		     (known && known->command &&
		      json_object_set_new(meta, "command", json_string(known->command)) < 0))) {
		json_decref(meta);
		meta = NULL;
	}
	*ret_meta = meta ? json_dumps(meta, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(meta);
	return *ret_meta ? 0 : thaw_oom(err);
}

/* Index, table and footer behind the stream's frames. */
static int write_index(struct pack *pack, struct thaw_index_contents *contents,
		       const char *meta, struct thaw_output *output, struct thaw_error *err)
{
	struct thaw_writer writer;
	int r;

	contents->meta = meta;
	contents->meta_size = strlen(meta);
	thaw_writer_stream(&writer, output, pack->size);
	r = thaw_writer_index(&writer, contents, err);
	return r == 0 ? thaw_writer_finish(&writer, err) : r;
}

static int analyse(const struct pack *pack, const struct thaw_image *image,
		   struct thaw_error *err, struct thaw_environment *ret_environment)
{
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;
	const struct thaw_input_environment *known = pack->input->environment;
	struct thaw_environment_options options = {
		.wanted = pack->options->kind,
		.hints = known ? &known->hints : NULL,
		.prefixes = (const char *const *)pack->prefixes,
		.prefix_count = pack->prefix_count,
	};
	int r;

	if (thaw_reader_new(image, 0, &reader) < 0)
		return thaw_oom(err);
	r = thaw_environment_analyse(image, reader, &options, err, ret_environment);
	if (r == 0 && known && known->python_guessed &&
	    json_array_append_new(
		    ret_environment->warnings,
		    json_sprintf("its wheels are for any Python: it was made for %s, the newest "
				 "here (--python-version)",
				 ret_environment->python)) < 0) {
		thaw_environment_deinit(ret_environment);
		return thaw_oom(err);
	}
	return r;
}

static void report_environment(const struct thaw_environment *environment,
			       struct thaw_pack_report *report)
{
	report->kind = environment->kind;
	report->own_interpreter = environment->own_interpreter;
	report->warnings = json_array_size(environment->warnings);
	strcpy(report->python, environment->python); /* arrays of the same size */
	strcpy(report->platform, environment->platform);
}

/* A first index to look at the image through, and in its place the one that says what was seen. */
static int write_indexes(struct pack *pack, struct thaw_index_contents *contents,
			 struct thaw_output *output, struct thaw_error *err,
			 struct thaw_pack_report *report)
{
	_cleanup_(thaw_image_freep) struct thaw_image *image = NULL;
	_cleanup_(freep) uint8_t *relocations = NULL;
	_cleanup_(freep) char *meta = NULL;
	uint64_t behind_stream = thaw_output_offset(output);
	struct thaw_environment environment;
	int r;

	r = write_index(pack, contents, "{}", output, err);
	if (r == 0)
		r = thaw_writer_read_back(output, err, &image);
	if (r == 0)
		r = analyse(pack, image, err, &environment);
	if (r < 0)
		return r;
	report_environment(&environment, report);
	r = thaw_relocations_emit(environment.relocations, err, &relocations,
				  &contents->relocations_size);
	if (r == 0)
		r = make_meta(pack, report, &environment, err, &meta);
	thaw_environment_deinit(&environment);
	contents->relocations = relocations;
	if (r == 0)
		r = thaw_output_truncate(output, behind_stream, err);
	return r == 0 ? write_index(pack, contents, meta, output, err) : r;
}

static int write_image(struct pack *pack, const struct thaw_tree *tree,
		       struct thaw_output *output, struct thaw_error *err,
		       struct thaw_pack_report *report)
{
	struct thaw_index_contents contents = { .stream_size = pack->size };
	struct thaw_sections sections = { 0 };
	int r;

	if (thaw_digest_end(pack->digest, contents.stream_digest) < 0)
		return thaw_oom(err);
	r = thaw_tree_emit(tree, err, &sections);
	if (r < 0)
		return r;
	contents.inodes = sections.inodes;
	contents.inodes_size = sections.inodes_size;
	contents.strings = sections.strings;
	contents.strings_size = sections.strings_size;
	contents.frames = thaw_frames_table(pack->frames, &contents.frames_size);
	r = write_indexes(pack, &contents, output, err, report);
	thaw_sections_deinit(&sections);
	return r;
}

static void fill_report(const struct pack *pack, const struct thaw_tree *tree,
			const struct thaw_tar_counts *counts,
			struct thaw_pack_report *report)
{
	struct thaw_bytecode bytecode;

	thaw_tree_bytecode(tree, &bytecode);
	*report = (struct thaw_pack_report){
		.source_size = pack->input->consumed,
		.pyc_valid = bytecode.valid,
		.pyc_stale = bytecode.stale,
		.pyc_missing = bytecode.missing,
		.dropped_xattrs = counts->dropped_xattrs,
		.dropped_setid = counts->dropped_setid,
		.duplicates = tree->duplicates,
		.implied = tree->implied,
	};
	(void)snprintf(report->source_kind, sizeof(report->source_kind), "%s",
		       pack->input->kind);
}

static int pack_stream(struct pack *pack, struct thaw_output *output,
		       struct thaw_error *err, struct thaw_pack_report *report)
{
	_cleanup_(thaw_tree_freep) struct thaw_tree *tree = NULL;
	struct thaw_tar_counts counts;
	int r;

	if (thaw_tree_new(pack->options->max_entries, &tree) < 0 ||
	    thaw_digest_start(pack->digest) < 0)
		return thaw_oom(err);
	r = thaw_tar_index(pull, pack, tree, err, &counts);
	if (r == 0 && pack->options->links_contained)
		r = thaw_tree_check_links(tree, err);
	if (r == 0)
		r = thaw_frames_end(pack->frames, err);
	if (r < 0)
		return r;
	fill_report(pack, tree, &counts, report);
	return write_image(pack, tree, output, err, report);
}

/* A directory's files may name it: as it was called, and as it is. */
static int note_prefixes(struct pack *pack, const char *source, struct thaw_error *err)
{
	_cleanup_(freep) char *real = NULL;
	struct stat st;

	if (strcmp(source, "-") == 0 || stat(source, &st) < 0 || !S_ISDIR(st.st_mode))
		return 0;
	real = realpath(source, NULL);
	if (!real)
		return 0; /* it has moved by now: then nothing names it any more */
	if (source[0] == '/' && strcmp(source, real) != 0) {
		pack->prefixes[0] = strdup(source);
		if (!pack->prefixes[0])
			return thaw_oom(err);
		for (size_t len = strlen(source); len > 1 && source[len - 1] == '/'; len--)
			pack->prefixes[0][len - 1] = '\0';
		pack->prefix_count++;
	}
	pack->prefixes[pack->prefix_count++] = steal_ptr(real);
	return 0;
}

int thaw_pack(const char *source, const char *output_path,
	      const struct thaw_pack_options *given, struct thaw_error *err,
	      struct thaw_pack_report *ret_report)
{
	_cleanup_(thaw_input_freep) struct thaw_input *input = NULL;
	_cleanup_(thaw_output_freep) struct thaw_output *output = NULL;
	_cleanup_(thaw_image_freep) struct thaw_image *image = NULL;
	_cleanup_(thaw_frames_freep) struct thaw_frames *frames = NULL;
	struct thaw_pack_options options;
	struct thaw_pack_report report;
	struct pack pack = { .options = &options };
	int r;

	r = complete_options(given, &options, err);
	if (r == 0) {
		const struct thaw_input_options how = {
			.stop = asked_to_stop,
			.stop_data = &pack,
			.plain = options.kind != THAW_KIND_UNKNOWN &&
				 options.kind != THAW_KIND_PEX &&
				 options.kind != THAW_KIND_WHEELS,
			.python_minor = options.python_minor,
		};

		r = thaw_input_open_with(source, &how, err, &input);
	}
	if (r == 0)
		r = thaw_output_open(output_path, options.force, err, &output);
	if (r == 0)
		r = thaw_frames_new(output, options.level, options.frame_size,
				    options.threads, err, &frames);
	if (r < 0)
		return r;
	if (thaw_digest_new(&pack.digest) < 0)
		return thaw_oom(err);
	pack.input = input;
	pack.frames = frames;
	r = note_prefixes(&pack, source, err);
	if (r == 0)
		r = pack_stream(&pack, output, err, &report);
	thaw_digest_free(pack.digest);
	free(pack.prefixes[0]);
	free(pack.prefixes[1]);
	if (r == 0)
		r = thaw_writer_read_back(output, err, &image);
	if (r == 0)
		r = thaw_output_commit(output, err);
	if (r == 0) {
		report.image = *thaw_image_info(image);
		report.relocated = thaw_image_relocated_count(image);
		report.sites = thaw_image_site_count(image);
		*ret_report = report;
	}
	return r;
}
