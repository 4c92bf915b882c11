/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers in their store: rendered once, shared, verified.
 *
 * Whoever wants a layer takes its lock, shared, and looks: is it there, and is it
 * what its manifest says? Otherwise the lock is taken for itself, and the layer
 * rendered beside its place and renamed. A whole verification reads every
 * byte; what was verified since the machine started, and not touched since, is told by
 * its times of change.
 */
#include "thaw/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "digest.h"
#include "image-internal.h"
#include "layer-internal.h"
#include "thaw/binding.h"
#include "util/cleanup.h"
#include "util/write-all.h"

/* What this thaw renders; another number where its result is another one. */
#define LAYER_VERSION "thaw-layer 1"

/* With the names of the layer in front it is still a path. */
#define PATH_IN_LAYER_MAX (THAW_PATH_MAX - 128u)

struct layer {
	const struct thaw_layer_options *options;
	const uint8_t *index_digest;
	thaw_layer_fill_fn *fill;
	void *userdata;
	char *prefix;
	int store;
	int lock;
	char key[THAW_DIGEST_HEX];
	char temporary[THAW_DIGEST_HEX + 8], lock_name[THAW_DIGEST_HEX + 8];
	char *head; /* of the manifest */
	struct thaw_error *err;
};

/* -- the tree -- */

struct tree {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	const struct thaw_layer_options *options;
	struct thaw_layer_plan plan;
	struct thaw_error *err;
	int fd;
	struct thaw_renderer *renderer;
	uint8_t *made; /* by record: this directory has been made */
	uint32_t last; /* directory that was made last */
	char path[THAW_PATH_MAX + 2];
};

static int fail_at(struct tree *tree, const char *what)
{
	return thaw_io(tree->err, -errno, "%s: cannot be %s in its layer",
		       tree->path, what);
}

static int set_path(struct tree *tree, uint32_t record)
{
	thaw_image_path(tree->image, record, tree->path, sizeof(tree->path));
	if (strlen(tree->path) > PATH_IN_LAYER_MAX)
		return thaw_limit(tree->err,
				  "a path in the image is longer than %u bytes",
				  PATH_IN_LAYER_MAX);
	return 0;
}

/* A directory and those above it; set_path() has been called for something in it. */
static int make_directories(struct tree *tree, uint32_t directory)
{
	const struct thaw_image *image = tree->image;
	int r;

	if (tree->made[directory])
		return 0;
	r = make_directories(
		tree, get_le32(inode_record(image, directory) + THAW_INODE_OFF_PARENT));
	if (r == 0)
		r = set_path(tree, directory);
	if (r == 0 && mkdirat(tree->fd, tree->path, 0700) < 0)
		r = fail_at(tree, "made");
	if (r == 0)
		tree->made[directory] = 1;
	return r;
}

static void times_of(const uint8_t *record, struct timespec times[2])
{
	times[0] = times[1] = (struct timespec){
		.tv_sec = (time_t)get_le32(record + THAW_INODE_OFF_MTIME),
	};
}

static int make_file(struct tree *tree, uint32_t record, bool empty)
{
	const uint8_t *inode = inode_record(tree->image, record);
	_cleanup_(closep) int fd = -1;
	struct timespec times[2];
	int r;

	if (inode[THAW_INODE_OFF_TYPE] == THAW_HARDLINK)
		inode = inode_record(tree->image,
				     (uint32_t)get_le64(inode + THAW_INODE_OFF_DATA));
	fd = openat(tree->fd, tree->path,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_at(tree, "made");
	if (!empty) {
		r = thaw_layer_write(&tree->plan, tree->renderer, record, fd,
				     tree->err);
		if (r < 0)
			return r;
	}
	times_of(inode, times);
	if (fchmod(fd, get_le16(inode + THAW_INODE_OFF_MODE)) < 0 ||
	    futimens(fd, times) < 0)
		return fail_at(tree, "given its attributes");
	/* Some file systems find out only now that there is no space. */
	if (close(steal_fd(&fd)) < 0)
		return fail_at(tree, "written");
	return 0;
}

/*
 * A whiteout; where we may not make one (on an overlay, in some containers), an empty
 * file: that is no bytecode, and Python goes to the source.
 */
static int hide(struct tree *tree, uint32_t record)
{
	if (mknodat(tree->fd, tree->path, S_IFCHR, makedev(0, 0)) == 0)
		return 0;
	if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
		return fail_at(tree, "made");
	return make_file(tree, record, true);
}

/* A further name of a file that has been written under its own record. */
static int make_link(struct tree *tree, uint32_t record)
{
	_cleanup_(freep) char *target = malloc(THAW_PATH_MAX + 2);
	uint64_t file =
		get_le64(inode_record(tree->image, record) + THAW_INODE_OFF_DATA);
	int r;

	if (!target)
		return thaw_oom(tree->err);
	r = set_path(tree, (uint32_t)file);
	if (r < 0)
		return r;
	memcpy(target, tree->path, THAW_PATH_MAX + 2);
	r = set_path(tree, record);
	if (r < 0)
		return r;
	return linkat(tree->fd, target, tree->fd, tree->path, 0) < 0
		       ? fail_at(tree, "linked")
		       : 0;
}

static int make_entry(struct tree *tree, uint32_t record, bool links)
{
	const uint8_t *inode = inode_record(tree->image, record);
	bool link = inode[THAW_INODE_OFF_TYPE] == THAW_HARDLINK &&
		    tree->plan.actions[record] == THAW_LAYER_RENDER;
	int r;

	if (link != links)
		return 0;
	r = make_directories(tree, get_le32(inode + THAW_INODE_OFF_PARENT));
	if (r == 0)
		r = set_path(tree, record);
	if (r < 0)
		return r;
	if (link)
		return make_link(tree, record);
	return tree->plan.actions[record] == THAW_LAYER_HIDE
		       ? hide(tree, record)
		       : make_file(tree, record, false);
}

/* Deepest first, since work in a directory changes its mtime. */
static int finish_directories(struct tree *tree)
{
	const struct thaw_image *image = tree->image;

	for (uint32_t i = image->info.inodes - 1; i >= THAW_ROOT; i--) {
		const uint8_t *record = inode_record(image, i);
		struct timespec times[2];
		int r;

		if (!tree->made[i])
			continue;
		r = set_path(tree, i);
		if (r < 0)
			return r;
		times_of(record, times);
		if (fchmodat(tree->fd, tree->path, get_le16(record + THAW_INODE_OFF_MODE),
			     0) < 0 ||
		    utimensat(tree->fd, tree->path, times, AT_SYMLINK_NOFOLLOW) < 0)
			return fail_at(tree, "given its attributes");
	}
	return 0;
}

/* What the binding to an interpreter adds; its directory is one of ours then. */
static int bind(struct tree *tree)
{
	struct thaw_inode bin;
	struct stat st;
	int r = thaw_binding_render(tree->image, tree->reader, tree->plan.prefix,
				    tree->options->interpreter, tree->fd, tree->err);

	if (r == 0 && thaw_image_find(tree->image, "bin", &bin) == 0 &&
	    bin.type == THAW_DIRECTORY &&
	    fstatat(tree->fd, "bin", &st, AT_SYMLINK_NOFOLLOW) == 0)
		tree->made[bin.ino] = 1;
	return r;
}

struct entry {
	uint64_t data; /* where its bytes lie in the image */
	uint32_t record;
};

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->data != y->data)
		return x->data < y->data ? -1 : 1;
	return x->record < y->record ? -1 : x->record > y->record;
}

/*
 * All entries of the plan, in the order in which they lie in the image, so that
 * no frame is decompressed twice; then further names of what was written.
 */
static int make_entries(struct tree *tree)
{
	const struct thaw_layer_plan *plan = &tree->plan;
	_cleanup_(freep) struct entry *entries = calloc(plan->count + 1,
							sizeof(*entries));
	size_t count = 0;
	int r = 0;

	if (!entries)
		return thaw_oom(tree->err);
	for (uint32_t i = THAW_ROOT; plan->actions && i < plan->image->info.inodes; i++)
		if (plan->actions[i])
			entries[count++] = (struct entry){
				.data = get_le64(inode_record(plan->image, i) +
						 THAW_INODE_OFF_DATA),
				.record = i,
			};
	if (count > 0)
		qsort(entries, count, sizeof(*entries), compare_entries);
	for (int links = 0; links < 2; links++)
		for (size_t i = 0; r == 0 && i < count; i++)
			r = make_entry(tree, entries[i].record, links);
	return r;
}

/* 0, or THAW_NOT_FOUND when there was nothing to put into it. */
static int fill_tree(struct tree *tree)
{
	int bound, r;

	tree->made[THAW_ROOT] = 1;
	r = make_entries(tree);
	if (r < 0)
		return r;
	bound = bind(tree);
	if (bound < 0)
		return bound;
	if (bound == THAW_NOT_FOUND && tree->plan.count == 0)
		return THAW_NOT_FOUND;
	return finish_directories(tree);
}

static int write_tree(struct tree *tree)
{
	int r;

	tree->made = calloc(tree->image->info.inodes, 1);
	if (!tree->made || thaw_renderer_new(tree->image, tree->reader, tree->plan.prefix,
					     &tree->renderer) < 0)
		r = thaw_oom(tree->err);
	else
		r = fill_tree(tree);
	thaw_renderer_free(tree->renderer);
	free(tree->made);
	return r;
}

/* Planned already. */
static int fill_planned(void *userdata, int fd, struct thaw_error *err)
{
	struct tree *tree = userdata;

	tree->fd = fd;
	tree->err = err;
	return write_tree(tree);
}

static int plan_tree(struct tree *tree, struct thaw_error *err)
{
	return thaw_layer_plan(tree->image, tree->reader, tree->options->prefix, err,
			       &tree->plan);
}

static bool is_needed(const struct tree *tree)
{
	return tree->plan.count > 0 || tree->options->interpreter;
}

int thaw_layer_fill(const struct thaw_image *image, struct thaw_reader *reader,
		    const struct thaw_layer_options *options, int directory,
		    struct thaw_error *err)
{
	struct tree tree = { .image = image, .reader = reader, .options = options };
	struct thaw_error own;
	int r;

	err = err ? err : &own;
	r = plan_tree(&tree, err);
	if (r == 0)
		r = is_needed(&tree) ? fill_planned(&tree, directory, err) : THAW_NOT_FOUND;
	thaw_layer_plan_deinit(&tree.plan);
	return r;
}

/* -- names and locks -- */

/*
 * The index pins every byte of every file, and stays the same when warm sets are
 * added: so its digest stands for the image.
 */
static int choose_key(struct layer *layer)
{
	const char *interpreter = layer->options->interpreter
					  ? layer->options->interpreter
					  : "";
	char index[THAW_DIGEST_HEX], owner[64] = "";
	uint8_t sum[THAW_DIGEST_SIZE];
	_cleanup_(freep) char *what = NULL;

	thaw_digest_hex(layer->index_digest, index);
	if (layer->options->uid)
		(void)snprintf(owner, sizeof(owner), "owner %u:%u\n",
			       (unsigned)layer->options->uid,
			       (unsigned)layer->options->gid);
	if (asprintf(&what, LAYER_VERSION "\nindex %s\nprefix %s\ninterpreter %s\n%s",
		     index, layer->prefix, interpreter, owner) < 0) {
		what = NULL;
		return thaw_oom(layer->err);
	}
	if (thaw_digest_once(what, strlen(what), sum) < 0)
		return thaw_oom(layer->err);
	thaw_digest_hex(sum, layer->key);
	(void)snprintf(layer->temporary, sizeof(layer->temporary), ".%s.new", layer->key);
	(void)snprintf(layer->lock_name, sizeof(layer->lock_name), ".%s.lock",
		       layer->key);
	layer->head = steal_ptr(what);
	return 0;
}

/* The store is ours, and nobody else can put anything into it. */
static int open_store(struct layer *layer)
{
	const char *path = layer->options->store;
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return thaw_io(layer->err, -errno, "%s: cannot be created", path);
	layer->store = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (layer->store < 0) {
		if (errno == ELOOP || errno == ENOTDIR)
			return thaw_refused(layer->err, "%s: is no directory", path);
		return thaw_io(layer->err, -errno, "%s: cannot be opened", path);
	}
	if (fstat(layer->store, &st) < 0)
		return thaw_io(layer->err, -errno, "%s: cannot be opened", path);
	if (st.st_uid != geteuid() || (st.st_mode & 0022))
		return thaw_refused(
			layer->err,
			"%s: a store of layers must be ours, and nobody else's "
			"to write to",
			path);
	return 0;
}

/* The lock's file may be removed by its holder: then it is taken anew. */
static int take_lock(struct layer *layer, int how)
{
	for (;;) {
		_cleanup_(closep) int fd =
			openat(layer->store, layer->lock_name,
			       O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		struct stat ours, there;
		int r;

		if (fd < 0)
			return thaw_io(layer->err, -errno, "a layer cannot be locked");
		do
			r = flock(fd, how);
		while (r < 0 && errno == EINTR);
		if (r < 0 || fstat(fd, &ours) < 0)
			return thaw_io(layer->err, -errno, "a layer cannot be locked");
		if (fstatat(layer->store, layer->lock_name, &there,
			    AT_SYMLINK_NOFOLLOW) == 0 &&
		    there.st_ino == ours.st_ino && there.st_dev == ours.st_dev) {
			layer->lock = steal_fd(&fd);
			return 0;
		}
	}
}

static void drop_lock(struct layer *layer)
{
	layer->lock = safe_close(layer->lock);
}

/* -- verification of what is there -- */

/* The head of the quick manifest: it counts until the machine starts again. */
static char *quick_head(const struct layer *layer)
{
	_cleanup_(closep) int fd = open("/proc/sys/kernel/random/boot_id",
					O_RDONLY | O_CLOEXEC);
	char boot[64], *head;
	ssize_t n = fd < 0 ? -1 : read(fd, boot, sizeof(boot) - 1);

	if (n <= 0)
		return NULL;
	boot[n] = '\0';
	return asprintf(&head, "%sboot %s", layer->head, boot) < 0 ? NULL : head;
}

/* Is what `name` says of the tree true? -ESTALE, and other errors, when not. */
static int compare(int directory, int tree, const char *name, const char *head,
		   bool quick)
{
	_cleanup_(closep) int fd = openat(directory, name,
					  O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return -EPERM;
	return thaw_manifest(tree, head, quick, THAW_MANIFEST_COMPARE, fd, NULL);
}

static int write_manifest(int directory, int tree, const char *name, const char *head,
			  bool quick, struct thaw_error *err)
{
	_cleanup_(closep) int fd =
		openat(directory, name,
		       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return thaw_io(err, -errno, "a layer's manifest cannot be written");
	r = thaw_manifest(tree, head, quick, THAW_MANIFEST_WRITE, fd, err);
	if (r == 0 && close(steal_fd(&fd)) < 0)
		r = thaw_io(err, -errno, "a layer's manifest cannot be written");
	return r;
}

/* Remember that the tree is good. It saves time, so failure is no failure. */
static void note_verified(const struct layer *layer, int directory, int tree)
{
	_cleanup_(freep) char *head = quick_head(layer);
	char name[32];

	(void)snprintf(name, sizeof(name), ".verified.%d", (int)gettid());
	(void)unlinkat(directory, name, 0);
	if (head && write_manifest(directory, tree, name, head, true, NULL) == 0 &&
	    renameat(directory, name, directory, "verified") == 0)
		return;
	(void)unlinkat(directory, name, 0);
}

static uid_t owner_of(const struct layer *layer)
{
	return layer->options->uid ? layer->options->uid : geteuid();
}

/* 0 when the layer is there and good. Anything else: it must be rendered. */
static int check_layer(const struct layer *layer)
{
	_cleanup_(closep) int directory = -1;
	_cleanup_(closep) int tree = -1;
	_cleanup_(freep) char *head = quick_head(layer);
	struct stat st;
	int r;

	directory = openat(layer->store, layer->key,
			   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0)
		return -errno;
	if (fstat(directory, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 0022))
		return -EPERM;
	tree = openat(directory, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (tree < 0)
		return -errno;
	if (fstat(tree, &st) < 0 || st.st_uid != owner_of(layer))
		return -EPERM;
	if (head && compare(directory, tree, "verified", head, true) == 0)
		return 0;
	r = compare(directory, tree, "manifest", layer->head, false);
	if (r == 0)
		note_verified(layer, directory, tree);
	return r;
}

/* -- rendering -- */

/* 0, or THAW_NOT_FOUND when the image needs no layer. */
static int render_new(struct layer *layer)
{
	_cleanup_(closep) int directory = -1;
	_cleanup_(closep) int tree = -1;
	int r;

	if (mkdirat(layer->store, layer->temporary, 0700) < 0)
		return thaw_io(layer->err, -errno, "a layer cannot be made");
	directory = openat(layer->store, layer->temporary,
			   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0 || mkdirat(directory, "tree", 0700) < 0 ||
	    (tree = openat(directory, "tree",
			   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
		return thaw_io(layer->err, -errno, "a layer cannot be made");
	r = layer->fill(layer->userdata, tree, layer->err);
	if (r != 0)
		return r;
	r = write_manifest(directory, tree, "manifest", layer->head, false, layer->err);
	if (r == 0 && layer->options->uid)
		r = thaw_tree_give(tree, layer->options->uid, layer->options->gid,
				   layer->err);
	if (r == 0)
		note_verified(layer, directory, tree);
	return r;
}

/* Put the new layer into its place, and what was there, being damaged, away. */
static int publish(struct layer *layer)
{
	char old[THAW_DIGEST_HEX + 8];
	int r;

	(void)snprintf(old, sizeof(old), ".%s.old", layer->key);
	r = thaw_remove_tree(layer->store, old, layer->err);
	if (r < 0)
		return r;
	if (renameat(layer->store, layer->key, layer->store, old) < 0 && errno != ENOENT)
		return thaw_io(layer->err, -errno, "a damaged layer cannot be put away");
	if (renameat(layer->store, layer->temporary, layer->store, layer->key) < 0)
		return thaw_io(layer->err, -errno, "a layer cannot be named");
	(void)!thaw_remove_tree(layer->store, old,
				NULL); /* the next who comes here tries again */
	return 0;
}

static int render(struct layer *layer)
{
	struct thaw_error ignored;
	int r;

	/* Of somebody who was killed: the lock is ours. */
	r = thaw_remove_tree(layer->store, layer->temporary, layer->err);
	if (r == 0)
		r = render_new(layer);
	if (r == 0)
		r = publish(layer);
	if (r != 0) {
		/* The first failure is the one to report. */
		(void)!thaw_remove_tree(layer->store, layer->temporary, &ignored);
		(void)unlinkat(layer->store, layer->lock_name, 0);
	}
	return r;
}

static int find_or_render(struct layer *layer)
{
	int r = take_lock(layer, LOCK_SH);

	if (r < 0)
		return r;
	if (check_layer(layer) == 0)
		return 0;
	drop_lock(layer);
	r = take_lock(layer, LOCK_EX);
	if (r < 0)
		return r;
	/* Somebody may have rendered it while we waited. */
	return check_layer(layer) == 0 ? 0 : render(layer);
}

int thaw_layer_find(const uint8_t index_digest[THAW_DIGEST_SIZE],
		    const struct thaw_layer_options *options, thaw_layer_fill_fn *fill,
		    void *userdata, struct thaw_error *err, char **ret_directory)
{
	struct thaw_error own;
	struct layer layer = {
		.options = options,
		.index_digest = index_digest,
		.fill = fill,
		.userdata = userdata,
		.store = -1,
		.lock = -1,
		.err = err ? err : &own,
	};
	int r;

	*ret_directory = NULL;
	r = thaw_layer_prefix(options->prefix, layer.err, &layer.prefix);
	if (r == 0)
		r = open_store(&layer);
	if (r == 0)
		r = choose_key(&layer);
	if (r == 0)
		r = find_or_render(&layer);
	if (r == 0 &&
	    asprintf(ret_directory, "%s/%s/tree", options->store, layer.key) < 0) {
		*ret_directory = NULL;
		r = thaw_oom(layer.err);
	}
	drop_lock(&layer);
	(void)safe_close(layer.store);
	free(layer.head);
	free(layer.prefix);
	return r == THAW_NOT_FOUND ? 0 : r;
}

int thaw_layer_render(const struct thaw_image *image, struct thaw_reader *reader,
		      const struct thaw_layer_options *options, struct thaw_error *err,
		      char **ret_directory)
{
	struct tree tree = { .image = image, .reader = reader, .options = options };
	struct thaw_error own;
	int r;

	err = err ? err : &own;
	r = plan_tree(&tree, err);
	if (r < 0)
		return r;
	*ret_directory = NULL;
	if (is_needed(&tree))
		r = thaw_layer_find(image->info.index_digest, options, fill_planned, &tree, err,
				    ret_directory);
	thaw_layer_plan_deinit(&tree.plan);
	return r;
}
