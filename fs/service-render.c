/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding, finding an interpreter, rendering: for jobs of the node service. */
#include "service-render.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "confined-child.h"
#include "thaw/binding.h"
#include "util/cleanup.h"

/* Rendering reads each file once. */
#define RENDER_CACHE (8u << 20)
#define RENDER_SECONDS 3600u
/* Each candidate that has to be asked may take ten. */
#define FIND_SECONDS 120u

int service_decode(const struct service_image *image, struct thaw_error *err, int *ret_fd,
		   struct thaw_facts *ret_facts)
{
	struct thaw_decoding decoding = {
		.identity = image->identity,
		.name = "",
		.warm = "none",
		.learned_fd = -1,
		.view = true,
	};
	int r = thaw_source_from_fd(image->fd, err, &decoding.source);

	if (r < 0)
		return r;
	r = thaw_decode(&decoding, err, ret_fd, ret_facts);
	thaw_source_free(decoding.source);
	return r;
}

/* -- an interpreter -- */

struct finding {
	const struct thaw_facts *facts;
	char *path; /* shared */
};

static int find(void *userdata, struct thaw_error *err)
{
	const struct finding *finding = userdata;
	const struct thaw_facts *facts = finding->facts;
	struct thaw_binding binding = {
		.recorded = facts->recorded[0] ? (char *)facts->recorded : NULL,
		.constraints = facts->constraints[0] ? (char *)facts->constraints : NULL,
	};
	_cleanup_(freep) char *path = NULL;
	int r;

	memcpy(binding.python, facts->python, sizeof(binding.python));
	r = thaw_binding_find(&binding, NULL, THAW_BINDING_SHARED, err, &path);
	if (r == 0 && strlen(path) > THAW_PATH_MAX)
		r = thaw_io(err, -ENAMETOOLONG, "the interpreter's path");
	if (r == 0)
		strcpy(finding->path, path); /* fits */
	return r;
}

static bool is_possible(const char *path)
{
	size_t len = strnlen(path, THAW_PATH_MAX + 1);

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)path[i] < 32 || path[i] == 127)
			return false;
	return path[0] == '/' && len <= THAW_PATH_MAX;
}

int service_find_interpreter(const struct thaw_facts *facts, struct thaw_error *err,
			     char **ret_interpreter)
{
	struct finding finding = { .facts = facts };
	const struct thaw_confined_child child = {
		.kind = THAW_SANDBOX_FINDER,
		.place = -1,
		.seconds = FIND_SECONDS,
		.what = "looks for an interpreter",
		.work = find,
		.userdata = &finding,
	};
	int r;

	*ret_interpreter = NULL;
	if (!facts->bound)
		return 0;
	finding.path = thaw_shared_memory(THAW_PATH_MAX + 1);
	if (!finding.path)
		return thaw_oom(err);
	r = thaw_confined_child(&child, err);
	if (r > 0 || (r == 0 && !is_possible(finding.path)))
		r = thaw_io(err, -EIO, "no interpreter was found that can be");
	if (r == 0) {
		*ret_interpreter = strndup(finding.path, THAW_PATH_MAX);
		if (!*ret_interpreter)
			r = thaw_oom(err);
	}
	(void)munmap(finding.path, THAW_PATH_MAX + 1); /* as it was mapped: cannot fail */
	return r;
}

/* -- a layer -- */

struct rendering {
	const struct service_image *image;
	const struct thaw_layer_options *options;
	struct thaw_source *source;
	int tree;
};

/* In the child, whose root is the layer. */
static int render(void *userdata, struct thaw_error *err)
{
	struct rendering *rendering = userdata;
	struct thaw_image *image;
	struct thaw_reader *reader;
	int r = thaw_decoded_open(rendering->image->index_fd, rendering->image->index_size,
				  rendering->source, err, &image, NULL);

	if (r == 0 && thaw_reader_new(image, RENDER_CACHE, &reader) < 0)
		r = thaw_oom(err);
	return r < 0 ? r
		     : thaw_layer_fill(image, reader, rendering->options, rendering->tree, err);
}

static int fill(void *userdata, int tree, struct thaw_error *err)
{
	struct rendering *rendering = userdata;
	const int keep[] = { rendering->source->fd, rendering->image->index_fd };
	const struct thaw_confined_child child = {
		.kind = THAW_SANDBOX_RENDERER,
		.place = tree,
		.root = true,
		.keep = keep,
		.keep_count = sizeof(keep) / sizeof(keep[0]),
		.seconds = RENDER_SECONDS,
		.what = "renders a layer",
		.work = render,
		.userdata = rendering,
	};

	rendering->tree = tree;
	return thaw_confined_child(&child, err);
}

int service_render(const struct service_image *image, const struct thaw_layer_options *options,
		   struct thaw_error *err, char **ret_directory)
{
	struct rendering rendering = { .image = image, .options = options };
	int r = thaw_source_from_fd(image->fd, err, &rendering.source);

	if (r < 0)
		return r;
	r = thaw_layer_find(image->index_digest, options, fill, &rendering, err, ret_directory);
	thaw_source_free(rendering.source);
	return r;
}
