/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an environment's compiled files are worth. On a read-only mount a .pyc
 * that Python does not accept is compiled again by every start, at two to three
 * times the cost of the import, so packing counts them.
 *
 * PEP 552: magic (4), flags (4), then source mtime (4) and size (4), or a hash.
 * The magic that most files of one tag share is taken for that interpreter's:
 * a table of magics would be wrong for the next Python.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"
#include "util/bytes.h"

#define TAG_MAX 32
#define CACHE_DIR "__pycache__"
#define FLAG_HASH 1u
#define FLAGS_KNOWN 3u /* Python refuses files with others */

static bool ends_with(const struct thaw_tree *tree, uint32_t node, const char *suffix)
{
	size_t len = tree->nodes[node].name_len, suffix_len = strlen(suffix);

	return len > suffix_len &&
	       memcmp(tree_name(tree, node) + len - suffix_len, suffix, suffix_len) == 0;
}

static bool is_named(const struct thaw_tree *tree, uint32_t node, const char *name)
{
	return strcmp(tree_name(tree, node), name) == 0;
}

/* lib/pythonX.Y with the most entries that look like a library's: site-packages or os.py. */
static void find_python(const struct thaw_tree *tree, char *ret_python, size_t size)
{
	uint32_t lib = thaw_tree_lookup(tree, 0, "lib", 3);
	unsigned best = 0;

	ret_python[0] = '\0';
	if (lib == THAW_NO_NODE)
		return;
	for (uint32_t i = 1; i < tree->node_count; i++) {
		unsigned major, minor;
		const char *rest;
		int end = 0;

		if (tree->nodes[i].parent != lib || tree_object(tree, i)->type != THAW_DIRECTORY)
			continue;
		if (sscanf(tree_name(tree, i), "python%1u.%3u%n", &major, &minor, &end) != 2)
			continue;
		rest = tree_name(tree, i) + end; /* "t": free-threaded */
		if (strcmp(rest, "") != 0 && strcmp(rest, "t") != 0)
			continue;
		if (thaw_tree_lookup(tree, i, "site-packages", 13) == THAW_NO_NODE &&
		    thaw_tree_lookup(tree, i, "os.py", 5) == THAW_NO_NODE)
			continue;
		if (major * 1000 + minor <= best)
			continue;
		best = major * 1000 + minor;
		(void)snprintf(ret_python, size, "%u.%u%s", major, minor, rest); /* 1 + 1 + 3 digits + 1 */
	}
}

/* "module.cpython-311.pyc" in a __pycache__: its source's name and the tag; false if it is no such. */
static bool split_cached(const struct thaw_tree *tree, uint32_t node, char *source, size_t size,
			 char tag[TAG_MAX])
{
	const char *name = tree_name(tree, node), *dot, *end;

	if (!ends_with(tree, node, ".pyc") || !is_named(tree, tree->nodes[node].parent, CACHE_DIR))
		return false;
	end = name + tree->nodes[node].name_len - 4;
	dot = memrchr(name, '.', (size_t)(end - name));
	if (!dot || dot == name || end - dot - 1 >= TAG_MAX || memmem(dot, (size_t)(end - dot), ".opt-", 5))
		return false;
	memcpy(tag, dot + 1, (size_t)(end - dot - 1));
	tag[end - dot - 1] = '\0';
	return snprintf(source, size, "%.*s.py", (int)(dot - name), name) < (int)size;
}

static uint32_t source_of(const struct thaw_tree *tree, uint32_t node, const char *source)
{
	uint32_t directory = tree->nodes[tree->nodes[node].parent].parent;
	uint32_t found = thaw_tree_lookup(tree, directory, source, strlen(source));

	return found != THAW_NO_NODE && tree_object(tree, found)->type == THAW_REGULAR ? found :
											 THAW_NO_NODE;
}

static int compare_magic(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The magic that most .pyc of this tag carry; 0 if there are none. */
static uint32_t common_magic(const struct thaw_tree *tree, const char *tag)
{
	uint32_t *magics = malloc((tree->head_count + 1) * sizeof(*magics)), best = 0;
	size_t count = 0, best_run = 0, run = 0;
	char source[THAW_NAME_MAX + 4], own[TAG_MAX];

	if (!magics)
		return 0;
	for (uint32_t i = 1; i < tree->node_count && count < tree->head_count; i++) {
		uint32_t head = tree_object(tree, i)->head;

		if (head && split_cached(tree, i, source, sizeof(source), own) && !strcmp(own, tag))
			magics[count++] = get_le32(tree->heads[head - 1]);
	}
	qsort(magics, count, sizeof(*magics), compare_magic);
	for (size_t i = 0; i < count; i++) {
		run = i && magics[i] == magics[i - 1] ? run + 1 : 1;
		if (run > best_run) {
			best_run = run;
			best = magics[i];
		}
	}
	free(magics);
	return best;
}

static bool is_valid(const struct thaw_tree *tree, uint32_t pyc, uint32_t source, uint32_t magic)
{
	const struct thaw_object *object = tree_object(tree, source);
	uint32_t number = tree_object(tree, pyc)->head;
	const uint8_t *head;

	if (number == 0)
		return false; /* shorter than a header */
	head = tree->heads[number - 1];
	if (get_le32(head) != magic || (get_le32(head + 4) & ~FLAGS_KNOWN))
		return false;
	/* Hash-based: unchecked ones always count, checked ones do as long as the source is its own. */
	if (get_le32(head + 4) & FLAG_HASH)
		return true;
	return get_le32(head + 8) == object->mtime &&
	       get_le32(head + 12) == (uint32_t)object->size;
}

static bool has_cached(const struct thaw_tree *tree, uint32_t source, const char *tag)
{
	uint32_t directory = tree->nodes[source].parent;
	uint32_t cache = thaw_tree_lookup(tree, directory, CACHE_DIR, sizeof(CACHE_DIR) - 1);
	char name[THAW_NAME_MAX + TAG_MAX + 8];
	int len;

	if (cache == THAW_NO_NODE)
		return false;
	len = snprintf(name, sizeof(name), "%.*s.%s.pyc", tree->nodes[source].name_len - 3,
		       tree_name(tree, source), tag);
	return len > 0 && thaw_tree_lookup(tree, cache, name, (size_t)len) != THAW_NO_NODE;
}

/* Does a node lie beneath lib/pythonX.Y? Only what can be imported needs bytecode. */
static bool is_beneath(const struct thaw_tree *tree, uint32_t node, uint32_t directory)
{
	while (node != 0 && node != directory)
		node = tree->nodes[node].parent;
	return node == directory;
}

void thaw_tree_bytecode(const struct thaw_tree *tree, struct thaw_bytecode *ret_bytecode)
{
	struct thaw_bytecode found = { 0 };
	char source_name[THAW_NAME_MAX + 4], tag[TAG_MAX], wanted[TAG_MAX] = "", directory[32];
	uint32_t magic, lib, library = THAW_NO_NODE;
	unsigned major, minor;

	find_python(tree, found.python, sizeof(found.python));
	if (sscanf(found.python, "%u.%u", &major, &minor) != 2) {
		*ret_bytecode = found;
		return;
	}
	(void)snprintf(wanted, sizeof(wanted), "cpython-%u%u%s", major, minor,
		       strchr(found.python, 't') ? "t" : ""); /* bounded above */
	(void)snprintf(directory, sizeof(directory), "python%s", found.python);
	lib = thaw_tree_lookup(tree, 0, "lib", 3);
	if (lib != THAW_NO_NODE)
		library = thaw_tree_lookup(tree, lib, directory, strlen(directory));
	magic = common_magic(tree, wanted);

	for (uint32_t i = 1; i < tree->node_count; i++) {
		uint32_t source;

		if (tree_object(tree, i)->type != THAW_REGULAR)
			continue;
		if (split_cached(tree, i, source_name, sizeof(source_name), tag)) {
			source = source_of(tree, i, source_name);
			if (source == THAW_NO_NODE || strcmp(tag, wanted) != 0)
				continue; /* Python never looks at it */
			if (is_valid(tree, i, source, magic))
				found.valid++;
			else
				found.stale++;
		} else if (ends_with(tree, i, ".py") && is_beneath(tree, i, library) &&
			   !has_cached(tree, i, wanted)) {
			found.missing++;
		}
	}
	*ret_bytecode = found;
}
