/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing an index with the tree that the stream gives anew. Mostly the bytes
 * are the same, and that is that; if not, both are walked to name what differs.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "image-internal.h"
#include "util/cleanup.h"
#include "verify-internal.h"

#define FAULTS_MAX 20u

struct comparison {
	const struct thaw_image *image, *fresh;
	thaw_verify_fault_fn *fault;
	void *fault_data;
	uint64_t faults;
};

/* path is of the image's record, or of the fresh one's when fresh is true. */
static void differ(struct comparison *c, bool fresh, uint32_t ino, const char *format,
		   ...) _printf_(4, 5);
static void differ(struct comparison *c, bool fresh, uint32_t ino, const char *format,
		   ...)
{
	char path[300], what[150];
	struct thaw_error escaped;
	va_list args;

	if (++c->faults > FAULTS_MAX)
		return;
	va_start(args, format);
	(void)vsnprintf(what, sizeof(what), format, args); /* cut when too long */
	va_end(args);
	thaw_image_path(fresh ? c->fresh : c->image, ino, path, sizeof(path));
	(void)thaw_damaged(&escaped, "index: %s: %s", path, what); /* for its escaping */
	c->fault(c->fault_data, escaped.text);
}

static void compare_inodes(struct comparison *c, const struct thaw_inode *a,
			   const struct thaw_inode *b)
{
	if (a->type != b->type) {
		differ(c, false, a->ino, "is of another type in the stream");
		return;
	}
	if (a->mode != b->mode)
		differ(c, false, a->ino, "mode %04o, in the stream %04o", a->mode,
		       b->mode);
	if (a->mtime != b->mtime)
		differ(c, false, a->ino, "mtime %" PRIu32 ", in the stream %" PRIu32,
		       a->mtime, b->mtime);
	if (a->type == THAW_REGULAR && (a->size != b->size || a->data != b->data))
		differ(c, false, a->ino,
		       "%" PRIu64 " bytes at %" PRIu64 ", in the stream %" PRIu64
		       " at %" PRIu64,
		       a->size, a->data, b->size, b->data);
	if (a->type != THAW_DIRECTORY && a->nlink != b->nlink)
		differ(c, false, a->ino, "%" PRIu32 " links, in the stream %" PRIu32,
		       a->nlink, b->nlink);
	if (a->type == THAW_SYMLINK &&
	    strcmp(thaw_image_target(c->image, a), thaw_image_target(c->fresh, b)) != 0)
		differ(c, false, a->ino, "another target in the stream");
}

/* May the image hold this although the stream does not? */
static bool from_annex(const struct thaw_image *image, const struct thaw_inode *inode)
{
	if (inode->type == THAW_REGULAR)
		return inode->data >= image->info.stream_size &&
		       image->info.annex_size > 0;
	/* Directories for such files: what is in them is looked at when they are walked. */
	return inode->type == THAW_DIRECTORY && image->info.annex_size > 0;
}

/*
 * Both directories' children are sorted. Directories are compared in the order
 * of the image's records, each found in the fresh tree through `twins`.
 */
static void compare_directory(struct comparison *c, const struct thaw_inode *a,
			      uint32_t fresh, uint32_t *twins)
{
	struct thaw_inode b = { 0 }, child_a, child_b;
	struct thaw_name name_a, name_b;
	uint64_t i = 0, j = 0;

	if (fresh && thaw_image_inode(c->fresh, fresh, &b) < 0)
		return; /* cannot be: it came from a look-up */
	while (i < a->size || j < b.size) {
		int order = i < a->size ? -1 : 1;

		if (i < a->size)
			thaw_image_child(c->image, a, i, &name_a, &child_a);
		if (j < b.size)
			thaw_image_child(c->fresh, &b, j, &name_b, &child_b);
		if (i < a->size && j < b.size)
			order = name_compare(name_a, name_b);
		if (order < 0 && !from_annex(c->image, &child_a))
			differ(c, false, child_a.ino, "is not in the stream");
		if (order > 0)
			differ(c, true, child_b.ino, "is only in the stream");
		if (order == 0) {
			/* a stale .pyc may have given way to one in the annex */
			if (child_a.type != THAW_REGULAR ||
			    !from_annex(c->image, &child_a))
				compare_inodes(c, &child_a, &child_b);
			if (child_a.type == THAW_DIRECTORY &&
			    child_b.type == THAW_DIRECTORY)
				twins[child_a.ino] = child_b.ino;
		}
		i += order <= 0;
		j += order >= 0;
	}
}

static int compare_trees(struct comparison *c, struct thaw_error *err)
{
	_cleanup_(freep) uint32_t *twins = calloc(c->image->info.inodes, sizeof(*twins));
	struct thaw_inode a, b;

	if (!twins)
		return thaw_oom(err);
	twins[THAW_ROOT] = THAW_ROOT;
	if (thaw_image_inode(c->image, THAW_ROOT, &a) == 0 &&
	    thaw_image_inode(c->fresh, THAW_ROOT, &b) == 0)
		compare_inodes(c, &a, &b);
	/* Parents come before their children: a directory's twin is known when it is its turn. */
	for (uint32_t i = THAW_ROOT; i < c->image->info.inodes; i++)
		if (thaw_image_inode(c->image, i, &a) == 0 && a.type == THAW_DIRECTORY)
			compare_directory(c, &a, twins[i], twins);
	if (c->faults > FAULTS_MAX) {
		char more[64];

		(void)snprintf(more, sizeof(more), "index: %" PRIu64 " more differences",
			       c->faults - FAULTS_MAX);
		c->fault(c->fault_data, more);
	}
	return 0;
}

int thaw_verify_index(const struct thaw_image *image, const struct thaw_tree *tree,
		      thaw_verify_fault_fn *fault, void *fault_data,
		      struct thaw_error *err, bool *ret_same)
{
	struct thaw_sections sections = { 0 };
	struct thaw_image fresh = { 0 };
	struct comparison c = {
		.image = image,
		.fresh = &fresh,
		.fault = fault,
		.fault_data = fault_data,
	};
	int r;

	r = thaw_tree_emit(tree, err, &sections);
	if (r < 0)
		return r;
	/* As much of an image as looking things up needs. */
	fresh.inodes = sections.inodes;
	fresh.strings = sections.strings;
	fresh.strings_size = sections.strings_size;
	fresh.info.inodes = (uint32_t)(sections.inodes_size / THAW_INODE_SIZE);
	if (fresh.info.inodes != image->info.inodes ||
	    sections.strings_size != image->strings_size ||
	    memcmp(fresh.inodes, image->inodes, sections.inodes_size) != 0 ||
	    memcmp(fresh.strings, image->strings, sections.strings_size) != 0) {
		r = compare_trees(&c, err);
		/* The same tree, put down in another way: not what the indexer would write. */
		if (r == 0 && c.faults == 0 && image->info.annex_size == 0) {
			c.faults++;
			fault(fault_data,
			      "index: its records are not those that the stream gives");
		}
	}
	thaw_sections_deinit(&sections);
	if (r == 0)
		*ret_same = c.faults == 0;
	return r;
}
