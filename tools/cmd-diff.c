/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thaw diff: what one image has and another has not. Both trees are sorted, so
 * they are merged in one walk; contents are compared afterwards, in the order
 * in which they lie in the first image, so that each frame is read once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packages.h"
#include "thaw/relocation.h"
#include "tool.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define CHUNK (256u << 10)

static bool arg_json, arg_quiet, arg_mtime;

enum change {
	CHANGE_ADDED = 1,
	CHANGE_REMOVED = 2,
	CHANGE_TYPE = 4,
	CHANGE_MODE = 8,
	CHANGE_SIZE = 16,
	CHANGE_CONTENT = 32,
	CHANGE_TARGET = 64,
	CHANGE_MTIME = 128,
	CHANGE_RELOCATIONS = 256,
};

struct difference {
	char *path;
	struct thaw_inode a, b; /* ino 0: not there */
	unsigned changes;	/* enum change; 0 until contents turn out to differ */
	uint64_t beneath; /* entries beneath a directory that was added or removed */
};

struct side {
	const char *file;
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct tool_packages packages;
};

struct diff {
	struct side a, b;
	struct difference *items;
	size_t count, capacity;
	bool same_stream;
	char path[THAW_PATH_MAX + 1];
	size_t path_len;
};

static int record(struct diff *diff, const struct thaw_inode *a,
		  const struct thaw_inode *b, unsigned changes)
{
	struct difference item = { .changes = changes };
	void *items = diff->items;

	if (grow(&items, &diff->capacity, diff->count + 1, sizeof(item)) < 0)
		return tool_fail_errno(NULL, -ENOMEM);
	diff->items = items;
	item.path = strndup(diff->path, diff->path_len);
	if (!item.path)
		return tool_fail_errno(NULL, -ENOMEM);
	if (a)
		item.a = *a;
	if (b)
		item.b = *b;
	diff->items[diff->count++] = item;
	return THAW_EXIT_OK;
}

static int push_name(struct diff *diff, struct thaw_name name)
{
	size_t slash = diff->path_len > 0;

	if (diff->path_len + slash + name.len > THAW_PATH_MAX)
		return tool_fail_path(diff->a.file, "a path", -ENAMETOOLONG);
	if (slash)
		diff->path[diff->path_len++] = '/';
	memcpy(diff->path + diff->path_len, name.text, name.len);
	diff->path_len += name.len;
	return THAW_EXIT_OK;
}

/* A whole side: the entry, and beneath it in JSON each of its own. Depth is bounded by the path. */
static int record_alone(struct diff *diff, const struct side *side,
			const struct thaw_inode *inode, unsigned change)
{
	bool added = change == CHANGE_ADDED;
	size_t at = diff->count, len = diff->path_len;
	int r;

	r = record(diff, added ? NULL : inode, added ? inode : NULL, change);
	for (uint64_t i = 0; r == 0 && inode->type == THAW_DIRECTORY && i < inode->size;
	     i++) {
		struct thaw_inode child;
		struct thaw_name name;

		thaw_image_child(side->image, inode, i, &name, &child);
		r = push_name(diff, name);
		if (r == 0)
			r = record_alone(diff, side, &child, change);
		diff->path_len = len;
	}
	if (r == 0)
		diff->items[at].beneath = diff->count - at - 1;
	return r;
}

/* The same bytes, as far as the indexes tell: same frames in the same places. */
static bool surely_same(const struct diff *diff, const struct thaw_inode *a,
			const struct thaw_inode *b)
{
	uint64_t at_a = a->data, at_b = b->data, left = a->size;

	if (diff->same_stream && a->data == b->data &&
	    a->data + a->size <= thaw_image_info(diff->a.image)->stream_size)
		return true;
	while (left > 0) {
		struct thaw_frame fa, fb;
		uint64_t n;

		thaw_image_frame(diff->a.image, thaw_image_frame_at(diff->a.image, at_a),
				 &fa);
		thaw_image_frame(diff->b.image, thaw_image_frame_at(diff->b.image, at_b),
				 &fb);
		if (fa.size != fb.size ||
		    at_a - fa.data_offset != at_b - fb.data_offset ||
		    memcmp(fa.digest, fb.digest, THAW_DIGEST_SIZE) != 0)
			return false;
		n = fa.data_offset + fa.size - at_a;
		n = n < left ? n : left;
		at_a += n;
		at_b += n;
		left -= n;
	}
	return true;
}

/* Do the same things at the same places of a file become the view's path? */
static bool same_relocations(const struct diff *diff, const struct thaw_inode *a,
			     const struct thaw_inode *b)
{
	struct thaw_relocated x = { 0 }, y = { 0 };
	bool any = thaw_image_relocated_find(diff->a.image, a->ino, &x) == 0;

	any |= thaw_image_relocated_find(diff->b.image, b->ino, &y) == 0;
	if (!any || x.sites != y.sites)
		return !any;
	for (uint32_t i = 0; i < x.sites; i++) {
		struct thaw_site s, t;

		thaw_image_site(diff->a.image, &x, i, &s);
		thaw_image_site(diff->b.image, &y, i, &t);
		if (s.offset != t.offset || s.rule.kind != t.rule.kind ||
		    s.rule.room != t.rule.room ||
		    s.rule.placeholder_len != t.rule.placeholder_len ||
		    s.rule.suffix_len != t.rule.suffix_len ||
		    memcmp(s.rule.placeholder, t.rule.placeholder, s.rule.placeholder_len) !=
			    0 ||
		    memcmp(s.rule.suffix, t.rule.suffix, s.rule.suffix_len) != 0)
			return false;
	}
	return true;
}

static int compare_pair(struct diff *diff, const struct thaw_inode *a,
			const struct thaw_inode *b)
{
	unsigned changes = 0;
	bool content = false;

	if (a->type != b->type)
		changes |= CHANGE_TYPE;
	if (a->mode != b->mode && a->type != THAW_SYMLINK)
		changes |= CHANGE_MODE;
	if (a->mtime != b->mtime)
		changes |= CHANGE_MTIME;
	if (!(changes & CHANGE_TYPE)) {
		if (a->type == THAW_REGULAR && a->size != b->size)
			changes |= CHANGE_SIZE;
		else if (a->type == THAW_REGULAR)
			content = !surely_same(diff, a, b);
		if (a->type == THAW_REGULAR && !same_relocations(diff, a, b))
			changes |= CHANGE_RELOCATIONS;
		if (a->type == THAW_SYMLINK &&
		    strcmp(thaw_image_target(diff->a.image, a),
			   thaw_image_target(diff->b.image, b)) != 0)
			changes |= CHANGE_TARGET;
	}
	return changes || content ? record(diff, a, b, changes) : THAW_EXIT_OK;
}

static int compare_names(struct thaw_name a, struct thaw_name b)
{
	size_t shorter = a.len < b.len ? a.len : b.len;
	int order = shorter ? memcmp(a.text, b.text, shorter) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Children of a directory of which only the other side's entry is no directory. */
static int walk_alone(struct diff *diff, const struct side *side,
		      const struct thaw_inode *directory, unsigned change)
{
	size_t len = diff->path_len;
	int r = THAW_EXIT_OK;

	for (uint64_t i = 0; r == 0 && i < directory->size; i++) {
		struct thaw_inode child;
		struct thaw_name name;

		thaw_image_child(side->image, directory, i, &name, &child);
		r = push_name(diff, name);
		if (r == 0)
			r = record_alone(diff, side, &child, change);
		diff->path_len = len;
	}
	return r;
}

static int walk(struct diff *diff, const struct thaw_inode *a, const struct thaw_inode *b)
{
	uint64_t i = 0, j = 0;
	size_t len = diff->path_len;
	int r = THAW_EXIT_OK;

	while (r == 0 && (i < a->size || j < b->size)) {
		struct thaw_inode child_a, child_b;
		struct thaw_name name_a, name_b;
		int order = i < a->size ? -1 : 1;

		if (i < a->size)
			thaw_image_child(diff->a.image, a, i, &name_a, &child_a);
		if (j < b->size)
			thaw_image_child(diff->b.image, b, j, &name_b, &child_b);
		if (i < a->size && j < b->size)
			order = compare_names(name_a, name_b);
		r = push_name(diff, order <= 0 ? name_a : name_b);
		if (r)
			return r;
		if (order < 0) {
			r = record_alone(diff, &diff->a, &child_a, CHANGE_REMOVED);
		} else if (order > 0) {
			r = record_alone(diff, &diff->b, &child_b, CHANGE_ADDED);
		} else {
			r = compare_pair(diff, &child_a, &child_b);
			if (r == 0 && child_a.type == THAW_DIRECTORY &&
			    child_b.type == THAW_DIRECTORY)
				r = walk(diff, &child_a, &child_b);
			else if (r == 0 && child_a.type == THAW_DIRECTORY)
				r = walk_alone(diff, &diff->a, &child_a, CHANGE_REMOVED);
			else if (r == 0 && child_b.type == THAW_DIRECTORY)
				r = walk_alone(diff, &diff->b, &child_b, CHANGE_ADDED);
		}
		diff->path_len = len;
		i += order <= 0;
		j += order >= 0;
	}
	return r;
}

static int read_chunk(const struct side *side, const char *path,
		      const struct thaw_inode *inode, uint64_t offset, char *buf,
		      size_t len)
{
	struct thaw_error err = { 0 };
	size_t n;
	int r;

	r = thaw_reader_read(side->reader, inode, offset, buf, len, &err, &n);
	if (r < 0)
		return tool_fail_inside(side->file, path, &err);
	return n == len ? THAW_EXIT_OK : tool_fail_path(side->file, path, -EIO);
}

static int compare_content(const struct diff *diff, struct difference *item, char *buf_a,
			   char *buf_b)
{
	uint64_t size = item->a.size;

	for (uint64_t offset = 0; offset < size; offset += CHUNK) {
		size_t len = size - offset < CHUNK ? (size_t)(size - offset) : CHUNK;
		int r;

		r = read_chunk(&diff->a, item->path, &item->a, offset, buf_a, len);
		if (r == 0)
			r = read_chunk(&diff->b, item->path, &item->b, offset, buf_b,
				       len);
		if (r)
			return r;
		if (memcmp(buf_a, buf_b, len) != 0) {
			item->changes |= CHANGE_CONTENT;
			break;
		}
	}
	return THAW_EXIT_OK;
}

static bool content_open(const struct difference *item)
{
	return item->a.type == THAW_REGULAR && item->b.type == THAW_REGULAR &&
	       item->a.size == item->b.size && item->a.size > 0;
}

static int compare_places(const void *x, const void *y)
{
	const struct difference *a = *(struct difference *const *)x;
	const struct difference *b = *(struct difference *const *)y;

	return (a->a.data > b->a.data) - (a->a.data < b->a.data);
}

static int compare_contents(struct diff *diff)
{
	_cleanup_(freep) struct difference **open = calloc(diff->count + 1,
							   sizeof(*open));
	_cleanup_(freep) char *buf = malloc(2 * CHUNK);
	size_t count = 0;
	int r = THAW_EXIT_OK;

	if (!open || !buf)
		return tool_fail_errno(NULL, -ENOMEM);
	for (size_t i = 0; i < diff->count; i++)
		if (content_open(&diff->items[i]) &&
		    !surely_same(diff, &diff->items[i].a, &diff->items[i].b))
			open[count++] = &diff->items[i];
	qsort(open, count, sizeof(*open), compare_places);
	for (size_t i = 0; r == 0 && i < count; i++) {
		r = compare_content(diff, open[i], buf, buf + CHUNK);
		/* Only whether they differ is asked: the first answer will do. */
		if (arg_quiet && open[i]->changes)
			break;
	}
	return r;
}

struct totals {
	uint64_t added, removed, changed, mtime;
};

static void count_difference(struct totals *totals, const struct difference *item)
{
	if (item->changes & CHANGE_ADDED)
		totals->added++;
	else if (item->changes & CHANGE_REMOVED)
		totals->removed++;
	else if (item->changes & ~(unsigned)CHANGE_MTIME)
		totals->changed++;
	else if (item->changes)
		totals->mtime++;
}

static void print_text(const char *text)
{
	if (isatty(STDOUT_FILENO))
		tool_print_escaped(stdout, text, strlen(text));
	else
		fputs(text, stdout);
}

static void print_changes(const struct diff *diff, const struct difference *item)
{
	const char *separator = ": ";
	char from[TOOL_TIME_TEXT], to[TOOL_TIME_TEXT];

#define NEXT() (fputs(separator, stdout), separator = ", ")
	if (item->changes & CHANGE_TYPE)
		NEXT(), printf("%s -> %s", tool_type_name(item->a.type),
			       tool_type_name(item->b.type));
	if (item->changes & CHANGE_MODE)
		NEXT(), printf("mode %04o -> %04o", item->a.mode, item->b.mode);
	if (item->changes & CHANGE_SIZE)
		NEXT(), printf("size %llu -> %llu", (unsigned long long)item->a.size,
			       (unsigned long long)item->b.size);
	if (item->changes & CHANGE_CONTENT)
		NEXT(), fputs("content", stdout);
	if (item->changes & CHANGE_RELOCATIONS)
		NEXT(), fputs("relocations", stdout);
	if (item->changes & CHANGE_TARGET) {
		NEXT(), fputs("target ", stdout);
		print_text(thaw_image_target(diff->a.image, &item->a));
		fputs(" -> ", stdout);
		print_text(thaw_image_target(diff->b.image, &item->b));
	}
	if (item->changes & CHANGE_MTIME && arg_mtime)
		NEXT(), printf("mtime %s -> %s", tool_time_text(item->a.mtime, from),
			       tool_time_text(item->b.mtime, to));
#undef NEXT
	fputc('\n', stdout);
}

static void print_human(const struct diff *diff, const struct totals *totals)
{
	for (size_t i = 0; i < diff->count; i++) {
		const struct difference *item = &diff->items[i];
		bool alone = item->changes & (CHANGE_ADDED | CHANGE_REMOVED);
		const struct thaw_inode *inode = item->a.ino ? &item->a : &item->b;

		/* All files of a rebuilt environment have another: only counted, unless asked for. */
		if (!item->changes || (item->changes == CHANGE_MTIME && !arg_mtime))
			continue;
		fputs(item->changes & CHANGE_ADDED     ? "+ "
		      : item->changes & CHANGE_REMOVED ? "- "
		      : item->changes == CHANGE_MTIME  ? "t "
						       : "* ",
		      stdout);
		print_text(item->path[0] ? item->path : ".");
		if (!alone) {
			print_changes(diff, item);
			continue;
		}
		if (inode->type == THAW_DIRECTORY)
			fputc('/', stdout);
		if (item->beneath)
			printf(" (and %llu beneath)", (unsigned long long)item->beneath);
		fputc('\n', stdout);
		i += item->beneath;
	}
	if (diff->count)
		printf("%llu added, %llu removed, %llu changed, %llu with another mtime only\n",
		       (unsigned long long)totals->added,
		       (unsigned long long)totals->removed,
		       (unsigned long long)totals->changed,
		       (unsigned long long)totals->mtime);
}

/* One package on either side or on both; NULL where it is missing. */
typedef void package_fn(void *userdata, const struct tool_package *a,
			const struct tool_package *b);

/*
 * Merge by name. Of several versions of one name on a side, equal ones cancel
 * out first, then the rest are paired in their order.
 */
static bool walk_packages(const struct tool_packages *a, const struct tool_packages *b,
			  package_fn *fn, void *userdata)
{
	size_t i = 0, j = 0;
	bool different = false;

	while (i < a->count || j < b->count) {
		const struct tool_package *x = i < a->count ? &a->items[i] : NULL;
		const struct tool_package *y = j < b->count ? &b->items[j] : NULL;
		int order = !x ? 1 : !y ? -1 : strcmp(x->key, y->key);

		if (order == 0 && strcmp(x->version, y->version) == 0) {
			i++;
			j++;
			continue;
		}
		if (order == 0) {
			/* is one of the two versions yet to come on the other side? */
			bool x_later = false, y_later = false;

			for (size_t k = j;
			     k < b->count && strcmp(b->items[k].key, x->key) == 0; k++)
				x_later = x_later ||
					  strcmp(b->items[k].version, x->version) == 0;
			for (size_t k = i;
			     k < a->count && strcmp(a->items[k].key, y->key) == 0; k++)
				y_later = y_later ||
					  strcmp(a->items[k].version, y->version) == 0;
			order = x_later && !y_later ? 1 : y_later && !x_later ? -1 : 0;
		}
		fn(userdata, order <= 0 ? x : NULL, order >= 0 ? y : NULL);
		different = true;
		i += order <= 0;
		j += order >= 0;
	}
	return different;
}

static void print_package(void *userdata, const struct tool_package *a,
			  const struct tool_package *b)
{
	bool *first = userdata;

	if (*first)
		puts("packages:");
	*first = false;
	if (a && b)
		printf("* %s %s -> %s\n", b->name, a->version, b->version);
	else
		printf("%c %s %s\n", a ? '-' : '+', a ? a->name : b->name,
		       a ? a->version : b->version);
}

static void ignore_package(void *userdata, const struct tool_package *a,
			   const struct tool_package *b)
{
}

static void collect_package(void *userdata, const struct tool_package *a,
			    const struct tool_package *b)
{
	json_t *object = json_object();

	(void)json_object_set_new(object, "name", json_string(b ? b->name : a->name));
	(void)json_object_set_new(object, "a", a ? json_string(a->version) : json_null());
	(void)json_object_set_new(object, "b", b ? json_string(b->version) : json_null());
	(void)json_array_append_new(userdata, object);
}

static json_t *inode_json(const struct thaw_image *image, const struct thaw_inode *inode)
{
	json_t *object = json_object();
	char mode[8];

	(void)snprintf(mode, sizeof(mode), "%04o", inode->mode); /* fits */
	(void)json_object_set_new(object, "type",
				  json_string(tool_type_name(inode->type)));
	(void)json_object_set_new(object, "mode", json_string(mode));
	(void)json_object_set_new(object, "size", json_integer((json_int_t)inode->size));
	(void)json_object_set_new(object, "mtime", json_integer(inode->mtime));
	if (inode->type == THAW_SYMLINK) {
		const char *target = thaw_image_target(image, inode);

		tool_json_name(object, "target", target, strlen(target));
	}
	return object;
}

static int print_json(const struct diff *diff, bool different)
{
	static const struct {
		unsigned change;
		const char *name;
	} names[] = {
		{ CHANGE_TYPE, "type" },     { CHANGE_MODE, "mode" },
		{ CHANGE_SIZE, "size" },     { CHANGE_CONTENT, "content" },
		{ CHANGE_TARGET, "target" }, { CHANGE_MTIME, "mtime" },
		{ CHANGE_RELOCATIONS, "relocations" },
	};
	json_t *top = json_object(), *added = json_array(), *removed = json_array();
	json_t *changed = json_array(), *packages = json_array();

	for (size_t i = 0; i < diff->count; i++) {
		const struct difference *item = &diff->items[i];
		json_t *object, *what;

		if (!item->changes)
			continue;
		object = json_object();
		tool_json_name(object, "path", item->path, strlen(item->path));
		if (item->changes & (CHANGE_ADDED | CHANGE_REMOVED)) {
			bool is_added = item->changes & CHANGE_ADDED;

			what = inode_json(is_added ? diff->b.image : diff->a.image,
					  is_added ? &item->b : &item->a);
			(void)json_object_update(object, what);
			json_decref(what);
			(void)json_array_append_new(is_added ? added : removed, object);
			continue;
		}
		what = json_array();
		for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++)
			if (item->changes & names[k].change)
				(void)json_array_append_new(what,
							    json_string(names[k].name));
		(void)json_object_set_new(object, "changes", what);
		(void)json_object_set_new(object, "a",
					  inode_json(diff->a.image, &item->a));
		(void)json_object_set_new(object, "b",
					  inode_json(diff->b.image, &item->b));
		(void)json_array_append_new(changed, object);
	}
	(void)walk_packages(&diff->a.packages, &diff->b.packages, collect_package,
			    packages);
	(void)json_object_set_new(top, "different", json_boolean(different));
	(void)json_object_set_new(top, "added", added);
	(void)json_object_set_new(top, "removed", removed);
	(void)json_object_set_new(top, "changed", changed);
	(void)json_object_set_new(top, "packages", packages);
	return tool_json_print(top);
}

static int open_side(struct side *side)
{
	struct thaw_error err = { 0 };
	int r;

	r = tool_open_image(side->file, &side->image);
	if (r == 0)
		r = tool_open_reader(side->file, side->image, &side->reader);
	if (r == 0 && !arg_quiet &&
	    tool_packages_find(side->image, side->reader, &err, &side->packages) < 0)
		r = tool_fail(side->file, &err);
	return r;
}

static void close_side(struct side *side)
{
	tool_packages_deinit(&side->packages);
	side->reader = thaw_reader_free(side->reader);
	side->image = thaw_image_free(side->image);
}

static int compare(struct diff *diff)
{
	struct thaw_inode a, b;
	struct totals totals = { 0 };
	bool different, first = true;
	int r;

	diff->same_stream = memcmp(thaw_image_info(diff->a.image)->stream_digest,
				   thaw_image_info(diff->b.image)->stream_digest,
				   THAW_DIGEST_SIZE) == 0;
	if (thaw_image_inode(diff->a.image, THAW_ROOT, &a) < 0 ||
	    thaw_image_inode(diff->b.image, THAW_ROOT, &b) < 0)
		return tool_fail_errno(NULL,
				       -EINVAL); /* cannot be: every image has a root */
	r = compare_pair(diff, &a, &b);
	if (r == 0)
		r = walk(diff, &a, &b);
	for (size_t i = 0; i < diff->count; i++)
		count_difference(&totals, &diff->items[i]);
	different = totals.added || totals.removed || totals.changed || totals.mtime;
	if (r == 0 && !(arg_quiet && different)) {
		r = compare_contents(diff);
		totals = (struct totals){ 0 };
		for (size_t i = 0; i < diff->count; i++)
			count_difference(&totals, &diff->items[i]);
		different = totals.added || totals.removed || totals.changed ||
			    totals.mtime;
	}
	if (r)
		return r;
	different = walk_packages(&diff->a.packages, &diff->b.packages, ignore_package,
				  NULL) ||
		    different;
	if (arg_json) {
		r = print_json(diff, different);
	} else if (!arg_quiet && different) {
		print_human(diff, &totals);
		(void)walk_packages(&diff->a.packages, &diff->b.packages, print_package,
				    &first);
	}
	return r ? r : different ? THAW_EXIT_DIFFERENT : THAW_EXIT_OK;
}

static int run(int argc, char **argv)
{
	static const struct tool_option options[] = {
		TOOL_FLAG("json", 0, &arg_json),
		TOOL_FLAG("quiet", 'q', &arg_quiet),
		TOOL_FLAG("mtime", 0, &arg_mtime),
		{ 0 },
	};
	_cleanup_(freep) struct diff *diff = NULL;
	int r, exit_code;

	if (!tool_options(&tool_diff, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 2)
		return tool_usage("diff", "two images are needed");
	if (arg_json && arg_quiet)
		return tool_usage("diff", "--json and --quiet exclude each other");
	diff = calloc(1, sizeof(*diff));
	if (!diff)
		return tool_fail_errno(NULL, -ENOMEM);
	diff->a.file = argv[optind];
	diff->b.file = argv[optind + 1];
	r = open_side(&diff->a);
	if (r == 0)
		r = open_side(&diff->b);
	if (r == 0)
		r = compare(diff);
	for (size_t i = 0; i < diff->count; i++)
		free(diff->items[i].path);
	free(diff->items);
	close_side(&diff->a);
	close_side(&diff->b);
	return r;
}

const struct tool_command tool_diff = {
	.name = "diff",
	.run = run,
	.summary = "show what differs between two images",
	.help = "Usage: thaw diff [OPTION...] A B\n"
		"\n"
		"Shows what was added (+), removed (-) or changed (*) from image A to image\n"
		"B, how much has merely another mtime, and installed packages by version.\n"
		"The exit code is 0 when they are the same, 1 when they differ.\n"
		"\n"
		"Options:\n"
		"  -q, --quiet  print nothing, only tell by the exit code\n"
		"      --mtime  show each mtime that differs, too (t: nothing else does)\n"
		"      --json   print the differences as JSON\n"
		"      --help   show this help\n",
};
