/* SPDX-License-Identifier: Apache-2.0 */
/* Building the tree: which names an archive may hold, and what each comes to mean. */
#include "tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/growing.h"

#define ROOT 0u
#define SYMLINKS_MAX 40u /* as the kernel's MAXSYMLINKS */
#define MESSAGE_PATH 200 /* characters of a path in a message */

static int add_string(struct thaw_tree *tree, const char *text, size_t len, uint32_t *ret_offset)
{
	if (tree->strings_size + len + 1 > UINT32_MAX)
		return -EFBIG;
	if (grow(&tree->strings, &tree->strings_capacity, tree->strings_size + len + 1, 1) < 0)
		return -ENOMEM;
	*ret_offset = (uint32_t)tree->strings_size;
	memcpy(tree->strings + tree->strings_size, text, len);
	tree->strings[tree->strings_size + len] = '\0';
	tree->strings_size += len + 1;
	return 0;
}

static int add_object(struct thaw_tree *tree, uint32_t *ret_object)
{
	if (grow(&tree->objects, &tree->object_capacity, tree->object_count + 1,
		 sizeof(*tree->objects)) < 0)
		return -ENOMEM;
	*ret_object = (uint32_t)tree->object_count;
	memset(&tree->objects[tree->object_count++], 0, sizeof(*tree->objects));
	return 0;
}

/* FNV-1a with the parent mixed in and the bits spread at the end (murmur3's finaliser). */
static uint64_t hash_name(uint32_t parent, const char *name, size_t len)
{
	uint64_t h = 14695981039346656037ull ^ parent;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 1099511628211ull;
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	return h ^ h >> 33;
}

static uint32_t *bucket(const struct thaw_tree *tree, uint32_t parent, const char *name,
			size_t len)
{
	return &tree->hash[hash_name(parent, name, len) & (tree->hash_size - 1)];
}

static int rehash(struct thaw_tree *tree)
{
	size_t size = tree->hash_size ? tree->hash_size * 2 : 1024;
	uint32_t *hash;

	if (tree->node_count < tree->hash_size)
		return 0;
	hash = calloc(size, sizeof(*hash));
	if (!hash)
		return -ENOMEM;
	free(tree->hash);
	tree->hash = hash;
	tree->hash_size = size;
	for (uint32_t i = 0; i < tree->node_count; i++) {
		struct thaw_node *node = &tree->nodes[i];
		uint32_t *head = bucket(tree, node->parent, tree_name(tree, i), node->name_len);

		node->hash_next = *head;
		*head = i + 1;
	}
	return 0;
}

static int add_node(struct thaw_tree *tree, uint32_t parent, const char *name, size_t len,
		    uint32_t object, uint32_t *ret_node)
{
	struct thaw_node node = { .parent = parent, .object = object, .name_len = (uint8_t)len };
	uint32_t *head;
	int r;

	if (tree->node_count >= tree->max_nodes)
		return -EFBIG;
	r = add_string(tree, name, len, &node.name);
	if (r < 0)
		return r;
	if (grow(&tree->nodes, &tree->node_capacity, tree->node_count + 1,
		 sizeof(*tree->nodes)) < 0 ||
	    rehash(tree) < 0)
		return -ENOMEM;
	head = bucket(tree, parent, tree->strings + node.name, len);
	node.hash_next = *head;
	*ret_node = (uint32_t)tree->node_count;
	tree->nodes[tree->node_count++] = node;
	*head = *ret_node + 1;
	tree->objects[object].links++;
	return 0;
}

uint32_t thaw_tree_lookup(const struct thaw_tree *tree, uint32_t parent, const char *name,
			  size_t len)
{
	uint32_t next = *bucket(tree, parent, name, len);

	while (next != 0) {
		const struct thaw_node *node = &tree->nodes[next - 1];

		/* The root is its own parent, and no child of itself. */
		if (node->parent == parent && node->name_len == len && next - 1 != ROOT &&
		    memcmp(tree->strings + node->name, name, len) == 0)
			return next - 1;
		next = node->hash_next;
	}
	return THAW_NO_NODE;
}

static int add_directory(struct thaw_tree *tree, uint32_t parent, const char *name, size_t len,
			 uint32_t mtime, uint32_t *ret_node)
{
	uint32_t object;
	int r;

	r = add_object(tree, &object);
	if (r < 0)
		return r;
	tree->objects[object].type = THAW_DIRECTORY;
	tree->objects[object].mode = 0755;
	tree->objects[object].mtime = mtime;
	r = add_node(tree, parent, name, len, object, ret_node);
	if (r < 0)
		return r;
	tree->nodes[*ret_node].implied = true;
	return 0;
}

int thaw_tree_new(uint64_t max_nodes, struct thaw_tree **ret_tree)
{
	_cleanup_(thaw_tree_freep) struct thaw_tree *tree = calloc(1, sizeof(*tree));
	uint32_t root;
	int r;

	if (!tree)
		return -ENOMEM;
	tree->max_nodes = max_nodes < THAW_INODES_MAX - 2 ? max_nodes + 1 : THAW_INODES_MAX - 1;
	r = rehash(tree);
	if (r == 0)
		r = add_directory(tree, ROOT, "", 0, 0, &root);
	if (r < 0)
		return r;
	*ret_tree = steal_ptr(tree);
	return 0;
}

struct thaw_tree *thaw_tree_free(struct thaw_tree *tree)
{
	if (tree) {
		free(tree->nodes);
		free(tree->objects);
		free(tree->strings);
		free(tree->heads);
		free(tree->hash);
		free(tree);
	}
	return NULL;
}

/* What a member's attributes become for those who look: see design.md, "Attributes". */
static uint16_t served_mode(enum thaw_inode_type type, unsigned mode)
{
	if (type == THAW_DIRECTORY)
		return 0755;
	if (type == THAW_SYMLINK)
		return 0777;
	return (uint16_t)(0444 | (mode & 0200) | (mode & 0100 ? 0111 : 0));
}

static uint32_t served_mtime(int64_t mtime)
{
	return mtime < 0 ? 0 : mtime > UINT32_MAX ? UINT32_MAX : (uint32_t)mtime;
}

static int explain_entries(const struct thaw_tree *tree, struct thaw_error *err)
{
	return thaw_limit(err, "more than %llu entries (--max-entries)",
			  (unsigned long long)tree->max_nodes - 1);
}

/* The text for a failure of memory or of a limit, which the small functions leave out. */
static int explain(struct thaw_tree *tree, int r, struct thaw_error *err)
{
	if (r == -ENOMEM)
		return thaw_oom(err);
	if (tree->node_count >= tree->max_nodes)
		return explain_entries(tree, err);
	return thaw_limit(err, "more than 4 GiB of names");
}

static int quoted(int (*fail)(struct thaw_error *, const char *, ...), struct thaw_error *err,
		  const char *path, size_t len, const char *what)
{
	return fail(err, "\"%.*s%s\": %s", (int)(len < MESSAGE_PATH ? len : MESSAGE_PATH), path,
		    len < MESSAGE_PATH ? "" : "...", what);
}

#define REFUSE(what) quoted(thaw_refused, err, path, len, what)

/* A leading "./" and a trailing "/" are habits of archivers and mean nothing. */
static void trim_path(const char **path, size_t *len)
{
	while (*len >= 2 && (*path)[0] == '.' && (*path)[1] == '/') {
		*path += 2;
		*len -= 2;
	}
	while (*len > 1 && (*path)[*len - 1] == '/')
		--*len;
	if (*len == 1 && (*path)[0] == '.')
		*len = 0; /* the root itself */
}

static int check_component(const char *path, size_t len, const char *name, size_t name_len,
			   struct thaw_error *err)
{
	if (name_len == 0)
		return REFUSE("has an empty component");
	if (name_len == 1 && name[0] == '.')
		return REFUSE("has a component \".\"");
	if (name_len == 2 && name[0] == '.' && name[1] == '.')
		return REFUSE("leads out of the environment (\"..\")");
	if (memchr(name, '\0', name_len))
		return REFUSE("has a NUL byte in it");
	if (name_len > THAW_NAME_MAX)
		return quoted(thaw_limit, err, path, len, "a component is longer than 255 bytes");
	return 0;
}

/*
 * Walk to the directory that holds path's last component, making directories
 * that are only implied if make is given. *ret_parent is THAW_NO_NODE when they
 * are missing and not to be made.
 */
static int walk(struct thaw_tree *tree, const char *path, size_t len, bool make, uint32_t mtime,
		struct thaw_error *err, uint32_t *ret_parent, const char **ret_name,
		size_t *ret_name_len)
{
	uint32_t at = ROOT;
	const char *name = path, *end = path + len;

	if (path[0] == '/')
		return REFUSE("is an absolute name");
	if (len > THAW_PATH_MAX)
		return quoted(thaw_limit, err, path, len, "is longer than 4095 bytes");
	for (;;) {
		const char *slash = memchr(name, '/', (size_t)(end - name));
		size_t name_len = (size_t)((slash ? slash : end) - name);
		uint32_t node;
		int r;

		r = check_component(path, len, name, name_len, err);
		if (r < 0)
			return r;
		if (!slash) {
			*ret_parent = at;
			*ret_name = name;
			*ret_name_len = name_len;
			return 0;
		}
		node = at == THAW_NO_NODE ? at : thaw_tree_lookup(tree, at, name, name_len);
		if (node == THAW_NO_NODE && make) {
			r = add_directory(tree, at, name, name_len, mtime, &node);
			if (r < 0)
				return explain(tree, r, err);
			tree->implied++;
		}
		if (node != THAW_NO_NODE) {
			uint8_t type = tree_object(tree, node)->type;

			if (type == THAW_SYMLINK)
				return REFUSE("lies beneath a symlink");
			if (type != THAW_DIRECTORY)
				return REFUSE("lies beneath something that is a file");
		}
		at = node;
		name = slash + 1;
	}
}

/* The object that a hard link's target names now. */
static int find_link_target(struct thaw_tree *tree, const struct thaw_member *member,
			    const char *path, size_t len, struct thaw_error *err,
			    uint32_t *ret_object)
{
	const char *target = member->target, *name;
	size_t target_len = member->target_len, name_len;
	uint32_t parent, node = THAW_NO_NODE;
	int r;

	trim_path(&target, &target_len);
	if (target_len == len && memcmp(target, path, len) == 0)
		return REFUSE("is a hard link to itself");
	if (target_len == 0)
		return REFUSE("is a hard link to a directory");
	r = walk(tree, target, target_len, false, 0, err, &parent, &name, &name_len);
	if (r < 0)
		return r;
	if (parent != THAW_NO_NODE)
		node = thaw_tree_lookup(tree, parent, name, name_len);
	if (node == THAW_NO_NODE)
		return REFUSE("is a hard link to something that does not precede it");
	if (tree_object(tree, node)->type == THAW_DIRECTORY)
		return REFUSE("is a hard link to a directory");
	*ret_object = tree->nodes[node].object;
	return 0;
}

static int make_object(struct thaw_tree *tree, const struct thaw_member *member, const char *path,
		       size_t len, struct thaw_error *err, uint32_t *ret_object)
{
	struct thaw_object object = {
		.type = member->type,
		.mode = served_mode(member->type, member->mode),
		.mtime = served_mtime(member->mtime),
	};
	int r;

	if (member->type == THAW_REGULAR) {
		object.size = member->size;
		object.data = member->data;
	} else if (member->type == THAW_SYMLINK) {
		uint32_t offset;

		if (member->target_len == 0)
			return REFUSE("is a symlink without a target");
		if (memchr(member->target, '\0', member->target_len))
			return REFUSE("is a symlink to a name with a NUL byte in it");
		if (member->target_len > THAW_PATH_MAX)
			return quoted(thaw_limit, err, path, len,
				      "is a symlink to a name longer than 4095 bytes");
		r = add_string(tree, member->target, member->target_len, &offset);
		if (r < 0)
			return explain(tree, r, err);
		object.size = member->target_len;
		object.data = offset;
	}
	if (member->head) {
		if (grow(&tree->heads, &tree->head_capacity, tree->head_count + 1,
			 sizeof(*tree->heads)) < 0)
			return thaw_oom(err);
		memcpy(tree->heads[tree->head_count++], member->head, THAW_PYC_HEADER);
		object.head = (uint32_t)tree->head_count;
	}
	r = add_object(tree, ret_object);
	if (r < 0)
		return explain(tree, r, err);
	tree->objects[*ret_object] = object;
	return 0;
}

static void set_directory(struct thaw_tree *tree, uint32_t node, const struct thaw_member *member)
{
	tree->objects[tree->nodes[node].object].mtime = served_mtime(member->mtime);
	if (!tree->nodes[node].implied)
		tree->duplicates++;
	else if (node != ROOT)
		tree->implied--;
	tree->nodes[node].implied = false;
}

int thaw_tree_add(struct thaw_tree *tree, const struct thaw_member *member, struct thaw_error *err)
{
	const char *path = member->path, *name;
	size_t len = member->path_len, name_len;
	uint32_t parent, node, object = 0;
	int r;

	if (++tree->members >= tree->max_nodes) /* which counts the root */
		return explain_entries(tree, err);
	if (len == 0)
		return thaw_refused(err, "a member has an empty name");
	trim_path(&path, &len);
	if (len == 0) {
		if (member->type != THAW_DIRECTORY)
			return thaw_refused(err, "\".\": is not a directory");
		set_directory(tree, ROOT, member);
		return 0;
	}
	/* Archives seldom name the root; 1970 would be no better a guess than this. */
	if (tree->nodes[ROOT].implied && tree_object(tree, ROOT)->mtime == 0)
		tree->objects[tree->nodes[ROOT].object].mtime = served_mtime(member->mtime);
	r = walk(tree, path, len, true, served_mtime(member->mtime), err, &parent, &name,
		 &name_len);
	if (r < 0)
		return r;
	node = thaw_tree_lookup(tree, parent, name, name_len);
	if (node != THAW_NO_NODE) {
		bool is_directory = tree_object(tree, node)->type == THAW_DIRECTORY;

		if (is_directory != (member->type == THAW_DIRECTORY))
			return REFUSE("is both a directory and a file");
		if (is_directory) {
			set_directory(tree, node, member);
			return 0;
		}
	}
	if (member->type == THAW_HARDLINK)
		r = find_link_target(tree, member, path, len, err, &object);
	else
		r = make_object(tree, member, path, len, err, &object);
	if (r < 0)
		return r;
	if (node != THAW_NO_NODE) {
		tree->objects[tree->nodes[node].object].links--;
		tree->objects[object].links++;
		tree->nodes[node].object = object;
		tree->duplicates++;
		return 0;
	}
	r = add_node(tree, parent, name, name_len, object, &node);
	return r < 0 ? explain(tree, r, err) : 0;
}

void thaw_tree_path(const struct thaw_tree *tree, uint32_t node, char *buf, size_t size)
{
	size_t at = size - 1;

	buf[at] = '\0';
	for (; node != ROOT; node = tree->nodes[node].parent) {
		size_t len = tree->nodes[node].name_len;
		size_t slash = buf[at] != '\0';

		if (len + slash > at)
			break;
		if (slash)
			buf[--at] = '/';
		at -= len;
		memcpy(buf + at, tree_name(tree, node), len);
	}
	memmove(buf, buf + at, size - at);
}

/*
 * Follow target from a directory as a kernel would, symlinks on the way
 * included; true if that leads above the root. What is missing ends the walk.
 */
static bool leads_out(const struct thaw_tree *tree, uint32_t at, const char *target,
		      unsigned *budget)
{
	const char *name = target;

	if (target[0] == '/')
		return true;
	while (*name != '\0') {
		size_t len = strcspn(name, "/");
		const char *next = name + len + strspn(name + len, "/");
		const struct thaw_object *object;
		uint32_t node;

		if (len == 2 && name[0] == '.' && name[1] == '.') {
			if (at == ROOT)
				return true;
			at = tree->nodes[at].parent;
			name = next;
			continue;
		}
		if (len == 1 && name[0] == '.') {
			name = next;
			continue;
		}
		node = thaw_tree_lookup(tree, at, name, len);
		if (node == THAW_NO_NODE)
			return false;
		object = tree_object(tree, node);
		if (object->type == THAW_SYMLINK) {
			char joined[2 * THAW_PATH_MAX + 2];
			const char *inner = tree->strings + object->data;
			size_t inner_len = strlen(inner), rest = strlen(next);

			if (inner[0] == '/')
				return true;
			/* Loops, and names longer than a kernel takes, lead nowhere. */
			if ((*budget)-- == 0 || inner_len + rest > THAW_PATH_MAX)
				return false;
			memcpy(joined, inner, inner_len);
			joined[inner_len] = '/';
			memcpy(joined + inner_len + 1, next, rest + 1);
			return leads_out(tree, at, joined, budget); /* at most SYMLINKS_MAX deep */
		}
		if (object->type != THAW_DIRECTORY)
			return false;
		at = node;
		name = next;
	}
	return false;
}

int thaw_tree_check_links(const struct thaw_tree *tree, struct thaw_error *err)
{
	for (uint32_t i = 0; i < tree->node_count; i++) {
		const struct thaw_object *object = tree_object(tree, i);
		unsigned budget = SYMLINKS_MAX;
		char path[MESSAGE_PATH];

		if (object->type != THAW_SYMLINK ||
		    !leads_out(tree, tree->nodes[i].parent, tree->strings + object->data, &budget))
			continue;
		thaw_tree_path(tree, i, path, sizeof(path));
		return thaw_refused(err, "\"%s\": is a symlink out of the environment (to \"%.200s\")",
				    path, tree->strings + object->data);
	}
	return 0;
}
