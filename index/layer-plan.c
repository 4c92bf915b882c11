/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes in an environment when it stands at a prefix: files with sites,
 * bin/conda-unpack, and the bytecode of sources that change.
 *
 * A .pyc says when its source was written and how long it was. A rendered source
 * keeps its mtime, and its length when the paths are equally long: the bytecode, with
 * the old path in it, would be taken for valid (and unchecked bytecode always
 * is). So it is hidden, but for that which is relocated itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conda.h"
#include "image-internal.h"
#include "layer-internal.h"
#include "thaw/bytecode.h"
#include "util/cleanup.h"
#include "util/write-all.h"

void thaw_layer_plan_deinit(struct thaw_layer_plan *plan)
{
	free(plan->prefix);
	free(plan->actions);
	free(plan->script);
	*plan = (struct thaw_layer_plan){ 0 };
}

static void set(struct thaw_layer_plan *plan, uint32_t record,
		enum thaw_layer_action action)
{
	plan->count += plan->actions[record] == THAW_LAYER_KEEP;
	plan->actions[record] = (uint8_t)action;
}

static enum thaw_inode_type type_of(const struct thaw_image *image, uint32_t record)
{
	return inode_record(image, record)[THAW_INODE_OFF_TYPE];
}

/* Files with sites that do not say what they say already; *ret_linked: one has more names. */
static void plan_files(struct thaw_layer_plan *plan, bool *ret_linked)
{
	for (uint32_t i = 0; i < thaw_image_relocated_count(plan->image); i++) {
		struct thaw_relocated file;
		const uint8_t *record;

		thaw_image_relocated(plan->image, i, &file);
		/* Bytecode goes with its source. */
		if (thaw_is_bytecode(plan->image, &file) ||
		    !thaw_render_changes(plan->image, &file, plan->prefix))
			continue;
		record = inode_record(plan->image, file.ino);
		set(plan, file.ino, THAW_LAYER_RENDER);
		*ret_linked |= get_le32(record + THAW_INODE_OFF_NLINK) > 1;
	}
}

/*
 * What conda-unpack would do has been done, and could not be done again: it is
 * left without records. A script that conda-pack did not write stays as it is, and
 * so does one in an image whose relocations nobody looked for.
 */
static int plan_script(struct thaw_layer_plan *plan, struct thaw_error *err)
{
	struct thaw_conda_list list;
	struct thaw_inode inode;
	int r;

	if (thaw_image_relocated_count(plan->image) == 0 ||
	    thaw_image_find(plan->image, "bin/conda-unpack", &inode) != 0 ||
	    inode.type != THAW_REGULAR || inode.nlink > 1 ||
	    inode.size > THAW_CONDA_SCRIPT_MAX)
		return 0;
	r = thaw_conda_read(plan->image, plan->reader, &inode, THAW_CONDA_SCRIPT_MAX, err,
			    &plan->script, &plan->script_size);
	if (r < 0)
		return r;
	if (thaw_conda_records(plan->script, plan->script_size, NULL, NULL, NULL, &list) <
		    0 ||
	    list.records == 0)
		return 0;
	plan->cut_start = list.start;
	plan->cut_end = list.end;
	set(plan, inode.ino, THAW_LAYER_UNPACK);
	return 0;
}

/* Further names of files that change. */
static void plan_links(struct thaw_layer_plan *plan)
{
	for (uint32_t i = THAW_ROOT; i < plan->image->info.inodes; i++) {
		uint64_t file =
			get_le64(inode_record(plan->image, i) + THAW_INODE_OFF_DATA);

		if (type_of(plan->image, i) == THAW_HARDLINK && plan->actions[file])
			set(plan, i, plan->actions[file]);
	}
}

/* -- bytecode -- */

/* The first child of a directory whose name is not before `name`. */
static uint32_t lower_bound(const struct thaw_image *image, const uint8_t *directory,
			    struct thaw_name name)
{
	uint32_t low = (uint32_t)get_le64(directory + THAW_INODE_OFF_DATA);
	uint32_t high = low + (uint32_t)get_le64(directory + THAW_INODE_OFF_SIZE);

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (name_compare(record_name(image, inode_record(image, middle)), name) <
		    0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* May relocated bytecode stand for a source that changes? Negative: errors. */
static int may_relocate(const struct thaw_layer_plan *plan, uint32_t source,
			struct thaw_error *err)
{
	struct thaw_relocated file;

	if (!thaw_bytecode_prefix(plan->prefix))
		return 0;
	if (type_of(plan->image, source) == THAW_HARDLINK)
		source = (uint32_t)get_le64(inode_record(plan->image, source) +
					    THAW_INODE_OFF_DATA);
	if (thaw_image_relocated_find(plan->image, source, &file) != 0)
		return 0; /* not reached: it is rendered */
	return thaw_render_keeps_lines(plan->image, plan->reader, &file, plan->prefix,
				       err);
}

static void plan_pyc(struct thaw_layer_plan *plan, uint32_t record, bool relocate)
{
	struct thaw_relocated file;

	if (!relocate || type_of(plan->image, record) != THAW_REGULAR ||
	    thaw_image_relocated_find(plan->image, record, &file) != 0 ||
	    !thaw_is_bytecode(plan->image, &file))
		set(plan, record, THAW_LAYER_HIDE);
	else if (thaw_render_changes(plan->image, &file, plan->prefix))
		set(plan, record, THAW_LAYER_RENDER);
}

/* STEM.TAG.pyc and STEM.TAG.opt-1.pyc in __pycache__, for STEM.py. */
static int plan_bytecode(struct thaw_layer_plan *plan, uint32_t source,
			 struct thaw_error *err)
{
	const struct thaw_image *image = plan->image;
	const uint8_t *record = inode_record(image, source), *directory;
	struct thaw_name name = record_name(image, record);
	struct thaw_name stem = { .text = name.text, .len = name.len - 2 }; /* "STEM." */
	struct thaw_inode cache;
	uint32_t end;
	int relocate;

	if (name.len <= 3 || memcmp(name.text + name.len - 3, ".py", 3) != 0 ||
	    thaw_image_lookup(image, get_le32(record + THAW_INODE_OFF_PARENT),
			      "__pycache__", strlen("__pycache__"), &cache) != 0 ||
	    cache.type != THAW_DIRECTORY)
		return 0;
	relocate = may_relocate(plan, source, err);
	if (relocate < 0)
		return relocate;
	directory = inode_record(image, cache.ino);
	end = (uint32_t)(cache.data + cache.size);
	for (uint32_t i = lower_bound(image, directory, stem); i < end; i++) {
		name = record_name(image, inode_record(image, i));
		if (name.len < stem.len || memcmp(name.text, stem.text, stem.len) != 0)
			break;
		if (name.len >= stem.len + 4 &&
		    memcmp(name.text + name.len - 4, ".pyc", 4) == 0 &&
		    (type_of(image, i) == THAW_REGULAR ||
		     type_of(image, i) == THAW_HARDLINK))
			plan_pyc(plan, i, relocate);
	}
	return 0;
}

int thaw_layer_plan(const struct thaw_image *image, struct thaw_reader *reader,
		    const char *prefix, struct thaw_error *err,
		    struct thaw_layer_plan *ret_plan)
{
	struct thaw_layer_plan plan = { .image = image, .reader = reader };
	bool linked = false;
	int r = thaw_layer_prefix(prefix, err, &plan.prefix);

	if (r == 0) {
		plan.actions = calloc(image->info.inodes, 1);
		if (!plan.actions)
			r = thaw_oom(err);
	}
	if (r == 0)
		r = thaw_render_fits(image, plan.prefix, err);
	if (r == 0) {
		plan_files(&plan, &linked);
		r = plan_script(&plan, err);
	}
	if (r == 0 && linked)
		plan_links(&plan);
	/* A .pyc that is planned here is no source: its name ends otherwise. */
	for (uint32_t i = THAW_ROOT; r == 0 && plan.count > 0 && i < image->info.inodes;
	     i++)
		if (plan.actions[i] == THAW_LAYER_RENDER)
			r = plan_bytecode(&plan, i, err);
	if (r < 0) {
		thaw_layer_plan_deinit(&plan);
		return r;
	}
	if (plan.count == 0) {
		free(plan.actions);
		plan.actions = NULL;
	}
	*ret_plan = plan;
	return 0;
}

int thaw_layer_write(const struct thaw_layer_plan *plan, struct thaw_renderer *renderer,
		     uint32_t record, int fd, struct thaw_error *err)
{
	struct thaw_relocated file;
	int r;

	if (plan->actions[record] == THAW_LAYER_RENDER) {
		if (type_of(plan->image, record) == THAW_HARDLINK)
			record = (uint32_t)get_le64(inode_record(plan->image, record) +
						    THAW_INODE_OFF_DATA);
		r = thaw_image_relocated_find(plan->image, record, &file);
		return r == 0 ? thaw_render(renderer, &file, fd, err)
			      : thaw_io(err, -EINVAL, "no such file to render");
	}
	r = write_all(fd, plan->script, plan->cut_start);
	if (r == 0)
		r = write_all(fd, plan->script + plan->cut_end,
			      plan->script_size - plan->cut_end);
	return r < 0 ? thaw_io(err, r, "bin/conda-unpack: cannot be written") : 0;
}

/* -- prefixes -- */

int thaw_layer_prefix(const char *prefix, struct thaw_error *err, char **ret_prefix)
{
	_cleanup_(freep) char *clean = malloc(strlen(prefix) + 2);
	size_t len = 0;

	if (!clean)
		return thaw_oom(err);
	if (prefix[0] != '/')
		return thaw_refused(err, "the prefix '%s' is not absolute", prefix);
	if (strchr(prefix, '\n'))
		return thaw_refused(err, "the prefix '%s' has a line break in it",
				    prefix);
	for (const char *name = prefix; *name;) {
		size_t n;

		name += strspn(name, "/");
		n = strcspn(name, "/");
		if (n == 2 && name[0] == '.' && name[1] == '.')
			return thaw_refused(err, "the prefix '%s' has a '..' in it",
					    prefix);
		if (n > 0 && !(n == 1 && name[0] == '.')) {
			clean[len++] = '/';
			memcpy(clean + len, name, n);
			len += n;
		}
		name += n;
	}
	if (len == 0)
		clean[len++] = '/';
	clean[len] = '\0';
	if (len > THAW_PATH_MAX)
		return thaw_refused(
			err, "the prefix is %zu bytes long, which no path can be", len);
	*ret_prefix = steal_ptr(clean);
	return 0;
}
