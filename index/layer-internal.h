/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What relocating an image for a prefix means, file by file. */
#include "thaw/layer.h"
#include "thaw/relocation.h"

/* -- relocation-render.c -- */

struct thaw_renderer;

/* All borrowed. A renderer is used by one thread. */
_must_check_ int thaw_renderer_new(const struct thaw_image *image,
				   struct thaw_reader *reader, const char *prefix,
				   struct thaw_renderer **ret_renderer);
struct thaw_renderer *thaw_renderer_free(struct thaw_renderer *renderer);
static inline void thaw_renderer_freep(struct thaw_renderer **renderer)
{
	thaw_renderer_free(*renderer);
}
/*
 * Write a file as it is at the prefix to fd, from its beginning. -EBADMSG when
 * something else than the placeholder stands at a site; -EPERM when the prefix
 * does not fit; I/O.
 */
_must_check_ int thaw_render(struct thaw_renderer *renderer,
			     const struct thaw_relocated *file, int fd,
			     struct thaw_error *err);
/* Would it differ from what is stored? */
bool thaw_render_changes(const struct thaw_image *image,
			 const struct thaw_relocated *file, const char *prefix);
/*
 * 1: each line of the source stands where it does in the stream; 0: its first
 * becomes several. Errors of the reader, -ENOMEM.
 */
_must_check_ int thaw_render_keeps_lines(const struct thaw_image *image,
					 struct thaw_reader *reader,
					 const struct thaw_relocated *file,
					 const char *prefix, struct thaw_error *err);
/* Refuse (-EPERM) a prefix that some binary has no room for. */
_must_check_ int thaw_render_fits(const struct thaw_image *image, const char *prefix,
				  struct thaw_error *err);

/* -- layer-plan.c -- */

enum thaw_layer_action {
	THAW_LAYER_KEEP = 0,
	THAW_LAYER_RENDER, /* write it with thaw_render() */
	THAW_LAYER_UNPACK, /* bin/conda-unpack: write it without its records */
	THAW_LAYER_HIDE,   /* bytecode of a source that changes */
};

struct thaw_layer_plan {
	const struct thaw_image *image; /* borrowed, as is the reader */
	struct thaw_reader *reader;
	char *prefix;
	/*
	 * By record, so by name: every name of a file that changes has its action.
	 * NULL when there is nothing to do.
	 */
	uint8_t *actions;
	uint64_t count; /* records with an action */
	char *script;	/* bin/conda-unpack, and the part of it that goes */
	size_t script_size, cut_start, cut_end;
};

/* Errors: -EPERM (the prefix), -EBADMSG, I/O, -ENOMEM. */
_must_check_ int thaw_layer_plan(const struct thaw_image *image,
				 struct thaw_reader *reader, const char *prefix,
				 struct thaw_error *err,
				 struct thaw_layer_plan *ret_plan);
void thaw_layer_plan_deinit(struct thaw_layer_plan *plan);
/* Write what a record with the action RENDER or UNPACK is to hold. */
_must_check_ int thaw_layer_write(const struct thaw_layer_plan *plan,
				  struct thaw_renderer *renderer, uint32_t record, int fd,
				  struct thaw_error *err);

/* -- layer-store.c: trees in a store -- */

/*
 * What stands in a tree, as text, a line each: its kind, mode, size, mtime and
 * digest or target, and its name; sorted. quick: what tells cheaply whether
 * anything was touched (inode and times of change) in place of digests. Nothing is
 * followed; anything that does not belong to whom the tree itself does is -EPERM.
 */
enum thaw_manifest_mode {
	THAW_MANIFEST_WRITE,   /* to fd */
	THAW_MANIFEST_COMPARE, /* with what fd holds: -ESTALE when it differs */
};
_must_check_ int thaw_manifest(int tree, const char *head, bool quick,
			       enum thaw_manifest_mode mode, int fd,
			       struct thaw_error *err);
/* Give all in a tree, and the tree, to another user. */
_must_check_ int thaw_tree_give(int tree, uid_t uid, gid_t gid, struct thaw_error *err);
/* Remove a tree, whatever it is; it may be missing. */
_must_check_ int thaw_remove_tree(int directory, const char *name,
				  struct thaw_error *err);
