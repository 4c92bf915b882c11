/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a tree out as inode records and strings: breadth first, the children
 * of each directory side by side and sorted, which is what makes look-up a
 * binary search and listing a walk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "thaw/image.h"
#include "tree.h"
#include "util/bytes.h"
#include "util/cleanup.h"

struct emit {
	const struct thaw_tree *tree;
	uint32_t *first;	/* by node: where its children begin in children; one more at the end */
	uint32_t *children;	/* nodes, by parent, sorted by name */
	uint32_t *order;	/* nodes, by record number less THAW_ROOT */
	uint32_t *object_record; /* by object: the record that holds it, or 0 */
};

static int compare_nodes(const void *a, const void *b, void *userdata)
{
	const struct thaw_tree *tree = userdata;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	size_t x_len = tree->nodes[x].name_len, y_len = tree->nodes[y].name_len;
	int order = memcmp(tree_name(tree, x), tree_name(tree, y), x_len < y_len ? x_len : y_len);

	return order ? order : (x_len > y_len) - (x_len < y_len);
}

/* Nodes by parent (a counting sort), then each directory's by name. */
static void sort_children(struct emit *emit)
{
	const struct thaw_tree *tree = emit->tree;
	size_t count = tree->node_count;

	for (size_t i = 1; i < count; i++)
		emit->first[tree->nodes[i].parent + 1]++;
	for (size_t i = 0; i < count; i++)
		emit->first[i + 1] += emit->first[i];
	/* first[i] moves to the end of its run while filling, and back after. */
	for (uint32_t i = 1; i < count; i++)
		emit->children[emit->first[tree->nodes[i].parent]++] = i;
	memmove(emit->first + 1, emit->first, count * sizeof(*emit->first));
	emit->first[0] = 0;
	for (size_t i = 0; i < count; i++)
		qsort_r(emit->children + emit->first[i], emit->first[i + 1] - emit->first[i],
			sizeof(*emit->children), compare_nodes, (void *)tree);
}

static void put_record(struct emit *emit, uint32_t number, uint32_t parent_record,
		       uint32_t first_child, struct thaw_sections *sections)
{
	const struct thaw_tree *tree = emit->tree;
	uint32_t node = emit->order[number - THAW_ROOT];
	const struct thaw_object *object = tree_object(tree, node);
	uint8_t *record = sections->inodes + (size_t)number * THAW_INODE_SIZE;
	uint32_t *holder = &emit->object_record[tree->nodes[node].object];
	uint8_t name_len = tree->nodes[node].name_len;
	uint8_t type = *holder ? THAW_HARDLINK : object->type;
	uint64_t size = object->size, data = object->data;

	put_le32(record + THAW_INODE_OFF_NAME, (uint32_t)sections->strings_size);
	memcpy(sections->strings + sections->strings_size, tree_name(tree, node), name_len);
	sections->strings_size += name_len;
	if (type == THAW_DIRECTORY) {
		size = emit->first[node + 1] - emit->first[node];
		data = first_child;
	} else if (type == THAW_SYMLINK) {
		data = sections->strings_size;
		memcpy(sections->strings + data, tree->strings + object->data, size + 1);
		sections->strings_size += size + 1;
	} else if (type == THAW_HARDLINK) {
		size = 0;
		data = *holder;
	}
	if (type != THAW_HARDLINK)
		*holder = number;
	record[THAW_INODE_OFF_NAME_LEN] = name_len;
	record[THAW_INODE_OFF_TYPE] = type;
	put_le16(record + THAW_INODE_OFF_MODE, object->mode);
	put_le32(record + THAW_INODE_OFF_MTIME, object->mtime);
	put_le32(record + THAW_INODE_OFF_PARENT, parent_record);
	/* A directory's links: its name, its own ".", and the ".." of each directory in it. */
	put_le32(record + THAW_INODE_OFF_NLINK, type == THAW_DIRECTORY ? 2 : object->links);
	put_le64(record + THAW_INODE_OFF_SIZE, size);
	put_le64(record + THAW_INODE_OFF_DATA, data);
}

static void put_records(struct emit *emit, struct thaw_sections *sections)
{
	const struct thaw_tree *tree = emit->tree;
	uint32_t next = THAW_ROOT + 1;

	emit->order[0] = 0;
	put_record(emit, THAW_ROOT, THAW_ROOT, next, sections);
	for (uint32_t number = THAW_ROOT; number <= tree->node_count; number++) {
		uint32_t node = emit->order[number - THAW_ROOT];
		uint8_t *record = sections->inodes + (size_t)number * THAW_INODE_SIZE;
		uint32_t subdirectories = 0;

		if (tree_object(tree, node)->type != THAW_DIRECTORY)
			continue;
		put_le64(record + THAW_INODE_OFF_DATA, next);
		for (uint32_t i = emit->first[node]; i < emit->first[node + 1]; i++) {
			emit->order[next - THAW_ROOT] = emit->children[i];
			put_record(emit, next++, number, 0, sections);
			subdirectories += tree_object(tree, emit->children[i])->type == THAW_DIRECTORY;
		}
		put_le32(record + THAW_INODE_OFF_NLINK, 2 + subdirectories);
	}
}

void thaw_sections_deinit(struct thaw_sections *sections)
{
	free(sections->inodes);
	free(sections->strings);
	*sections = (struct thaw_sections){ 0 };
}

int thaw_tree_emit(const struct thaw_tree *tree, struct thaw_error *err,
		   struct thaw_sections *ret_sections)
{
	size_t count = tree->node_count;
	_cleanup_(freep) uint32_t *first = calloc(count + 2, sizeof(uint32_t));
	_cleanup_(freep) uint32_t *children = calloc(count, sizeof(uint32_t));
	_cleanup_(freep) uint32_t *order = calloc(count, sizeof(uint32_t));
	_cleanup_(freep) uint32_t *object_record = calloc(tree->object_count, sizeof(uint32_t));
	struct thaw_sections sections = {
		.inodes = calloc(count + 1, THAW_INODE_SIZE),
		.inodes_size = (count + 1) * THAW_INODE_SIZE,
		/* Names and targets without what replaced members left behind: never more. */
		.strings = malloc(tree->strings_size + 1),
	};
	struct emit emit = {
		.tree = tree,
		.first = first,
		.children = children,
		.order = order,
		.object_record = object_record,
	};

	if (!first || !children || !order || !object_record || !sections.inodes ||
	    !sections.strings) {
		thaw_sections_deinit(&sections);
		return thaw_oom(err);
	}
	sort_children(&emit);
	put_records(&emit, &sections);
	*ret_sections = sections;
	return 0;
}
