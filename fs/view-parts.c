/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and mounting the images of a view. */
#include "view-parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connect.h"
#include "keeper.h"
#include "mount-options.h"
#include "thaw/binding.h"
#include "thaw/directories.h"
#include "thaw/layer.h"
#include "thaw/relocation.h"
#include "util/cleanup.h"

/* Rendering reads each file once. */
#define RENDER_CACHE (8u << 20)

static int open_part(struct thaw_part *part, const char *image,
		     const struct thaw_view_options *options, bool first,
		     struct thaw_error *err)
{
	char id[17];
	int r;

	part->fuse_fd = part->keeper = -1;
	/* A warm set that is asked for by name is the environment's. */
	r = thaw_serving_init(&part->serving, image,
			      first || !options->warm ||
					      strcmp(options->warm, "none") == 0
				      ? options->warm
				      : "all",
			      err);
	if (r < 0)
		return r;
	if (first) {
		part->serving.trace = options->trace;
		part->serving.timeline = options->timeline;
	}
	part->serving.no_readahead = options->trace != NULL;
	thaw_digest_hex(thaw_image_info(part->serving.image)->identity, part->identity);
	(void)snprintf(id, sizeof(id), "%.16s", part->identity);
	r = thaw_runtime_directory("image", id, err, &part->directory);
	if (r == 0)
		r = thaw_mount_options_parse("allow_other", part->identity, err,
					     &part->fuse_options);
	return r;
}

/* Which of several images is wrong: only the environment's name is said anyway. */
static void name_it(const char *image, struct thaw_error *err)
{
	struct thaw_error cause = *err;

	(void)thaw_io(err, 0, "layer %.150s: %.300s", image, cause.text);
	err->exit_code = cause.exit_code;
}

int thaw_parts_open(struct thaw_parts *parts, const struct thaw_view_options *options,
		    struct thaw_error *err)
{
	*parts = (struct thaw_parts){ 0 };
	parts->part = calloc(1 + options->layer_count, sizeof(*parts->part));
	if (!parts->part)
		return thaw_oom(err);
	for (unsigned i = 0; i <= options->layer_count; i++) {
		const char *image = i == 0 ? options->image : options->layers[i - 1];
		struct thaw_part *part = &parts->part[parts->count++];
		int r = open_part(part, image, options, i == 0, err);

		for (unsigned j = 0; r == 0 && j < i; j++)
			if (strcmp(parts->part[j].identity, part->identity) == 0)
				r = thaw_refused(err, "is in the view already");
		if (r < 0 && i > 0 && err)
			name_it(image, err);
		if (r < 0)
			return r;
	}
	return 0;
}

void thaw_parts_deinit(struct thaw_parts *parts)
{
	for (unsigned i = 0; i < parts->count; i++) {
		struct thaw_part *part = &parts->part[i];

		thaw_serving_deinit(&part->serving);
		free(part->fuse_options);
		free(part->directory);
		free(part->interpreter);
		free(part->rendered);
		(void)safe_close(part->fuse_fd);
		(void)safe_close(part->keeper);
	}
	free(parts->part);
	*parts = (struct thaw_parts){ 0 };
}

static int render_part(struct thaw_part *part, struct thaw_layer_options *options,
		       const char *python, struct thaw_error *err)
{
	const struct thaw_image *image = part->serving.image;
	struct thaw_reader *reader;
	int r;

	r = thaw_binding_find_for(image, python, 0, err, &part->interpreter);
	if (r < 0 || (!part->interpreter && thaw_image_relocated_count(image) == 0))
		return r;
	if (thaw_reader_new(image, RENDER_CACHE, &reader) < 0)
		return thaw_oom(err);
	options->interpreter = part->interpreter;
	r = thaw_layer_render(image, reader, options, err, &part->rendered);
	thaw_reader_free(reader);
	return r;
}

int thaw_parts_render(struct thaw_parts *parts, const char *prefix, const char *python,
		      struct thaw_error *err)
{
	_cleanup_(freep) char *store = NULL;
	struct thaw_layer_options options = { .prefix = prefix };
	int r;

	r = thaw_state_directory("layers", NULL, err, &store);
	options.store = store;
	for (unsigned i = 0; r == 0 && i < parts->count; i++)
		r = render_part(&parts->part[i], &options, python, err);
	return r;
}

int thaw_parts_connect(struct thaw_parts *parts, struct thaw_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < parts->count; i++) {
		struct thaw_part *part = &parts->part[i];

		r = thaw_connect_open(err, &part->fuse_fd);
		if (r == 0)
			r = thaw_keeper_start(&part->serving, part->fuse_fd, err,
					      &part->keeper);
	}
	return r;
}

int thaw_parts_mount(struct thaw_parts *parts, struct thaw_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < parts->count; i++) {
		struct thaw_part *part = &parts->part[i];

		r = thaw_connect_mount(part->fuse_fd, part->directory, part->fuse_options,
				       err);
		if (r == 0)
			r = thaw_keeper_begin(&part->serving, part->keeper,
					      part->directory, err);
	}
	/* The keepers' now. From here on we wait for answers: see warmer.h. */
	for (unsigned i = 0; i < parts->count; i++)
		parts->part[i].fuse_fd = safe_close(parts->part[i].fuse_fd);
	return r;
}
