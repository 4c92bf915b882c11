/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The tree that an archive's members add up to.
 *
 * Members arrive in the archive's order. A later member of the same name
 * replaces an earlier one; hard links hold on to the file that their target
 * named at that moment. Names are byte strings. A tree is used by one thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"
#include "thaw/format.h"

#define THAW_PYC_HEADER 16u /* bytes of a .pyc that say what it was compiled from (PEP 552) */

struct thaw_member {
	const char *path; /* as the archive has it; not NUL-terminated */
	size_t path_len;
	enum thaw_inode_type type;
	unsigned mode;	/* as the archive has it */
	int64_t mtime;	/* floor of seconds */
	uint64_t size;	/* regular files */
	uint64_t data;	/* regular files: offset in the data space */
	const char *target; /* symlinks: as it is; hard links: path of the file */
	size_t target_len;
	const uint8_t *head; /* regular files: first THAW_PYC_HEADER bytes of a .pyc, or NULL */
};

/* A name; the object says what it names. */
struct thaw_node {
	uint32_t parent; /* node; the root's is itself */
	uint32_t name;	 /* offset in the tree's strings */
	uint32_t object;
	uint32_t hash_next; /* chain of the name table; node + 1, 0 ends it */
	uint8_t name_len;
	bool implied; /* a directory that no member has named yet */
};

/* What names name: attributes as they will be served. */
struct thaw_object {
	uint64_t size, data; /* symlinks: length and offset of the target in strings */
	uint32_t mtime;
	uint32_t links; /* names */
	uint32_t head;	/* .pyc header: number + 1 in heads, or 0 */
	uint16_t mode;
	uint8_t type; /* enum thaw_inode_type, never THAW_HARDLINK */
};

struct thaw_tree {
	struct thaw_node *nodes; /* 0 is the root */
	size_t node_count, node_capacity;
	struct thaw_object *objects;
	size_t object_count, object_capacity;
	char *strings;
	size_t strings_size, strings_capacity;
	uint8_t (*heads)[THAW_PYC_HEADER];
	size_t head_count, head_capacity;
	uint32_t *hash; /* by (parent, name): node + 1 */
	size_t hash_size; /* power of two */
	uint64_t max_nodes;
	uint64_t members; /* seen, replaced ones included: they cost time and memory as well */
	uint64_t duplicates, implied;
};

/* max_nodes bounds memory: names beyond it are refused with -EFBIG. */
_must_check_ int thaw_tree_new(uint64_t max_nodes, struct thaw_tree **ret_tree);
struct thaw_tree *thaw_tree_free(struct thaw_tree *tree);
static inline void thaw_tree_freep(struct thaw_tree **tree)
{
	thaw_tree_free(*tree);
}

/* Everything is copied. Errors, with the path in the text: -EPERM, -EFBIG, -ENOMEM. */
_must_check_ int thaw_tree_add(struct thaw_tree *tree, const struct thaw_member *member,
			       struct thaw_error *err);
/* The node of a name in a directory, or THAW_NO_NODE. */
#define THAW_NO_NODE UINT32_MAX
uint32_t thaw_tree_lookup(const struct thaw_tree *tree, uint32_t parent, const char *name,
			  size_t len);
static inline const struct thaw_object *tree_object(const struct thaw_tree *tree, uint32_t node)
{
	return &tree->objects[tree->nodes[node].object];
}
static inline const char *tree_name(const struct thaw_tree *tree, uint32_t node)
{
	return tree->strings + tree->nodes[node].name;
}
/* Refuse (-EPERM) symlinks that lead out of the tree, following them as a kernel would. */
_must_check_ int thaw_tree_check_links(const struct thaw_tree *tree, struct thaw_error *err);
/* For messages: the path of a node, cut to fit. */
void thaw_tree_path(const struct thaw_tree *tree, uint32_t node, char *buf, size_t size);

/* -- tree-emit.c: the tree as inode and string sections -- */

struct thaw_sections {
	uint8_t *inodes;
	size_t inodes_size;
	char *strings;
	size_t strings_size;
};
_must_check_ int thaw_tree_emit(const struct thaw_tree *tree, struct thaw_error *err,
				struct thaw_sections *ret_sections);
void thaw_sections_deinit(struct thaw_sections *sections);

/* -- bytecode.c -- */

struct thaw_bytecode {
	char python[16]; /* "3.11", or empty */
	uint64_t valid, stale, missing;
};
/* Which Python this is for, and what its compiled files are worth. */
void thaw_tree_bytecode(const struct thaw_tree *tree, struct thaw_bytecode *ret_bytecode);

/* -- tar.c: the members of a tar stream, into a tree -- */

struct thaw_tar_counts {
	uint64_t size;	       /* bytes of the stream */
	uint64_t dropped_xattrs, dropped_setid;
};
/* The stream's next block, valid until the next call; length 0 is the end. */
typedef int thaw_tar_pull_fn(void *userdata, struct thaw_error *err, const uint8_t **ret_data,
			     size_t *ret_len);
/*
 * Pulls the whole stream, also what follows the end-of-archive marker. Errors:
 * those of pull, unchanged; -EPERM, -EBADMSG, -EFBIG with the member's name.
 */
_must_check_ int thaw_tar_index(thaw_tar_pull_fn *pull, void *userdata, struct thaw_tree *tree,
				struct thaw_error *err, struct thaw_tar_counts *ret_counts);
