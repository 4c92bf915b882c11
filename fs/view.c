/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views of one command.
 *
 * Keepers are forked before the mount namespace is entered, so that they do not
 * see the mounts that they serve: then the mounts, and with them the keepers, end
 * with the last process inside. The device is opened inside of the user
 * namespace that mounts, because the kernel wants both to be one. All mounting
 * is done before the caller's exec, which gives the new capabilities up.
 */
#include "thaw/view.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "extracted.h"
#include "janitor.h"
#include "keeper-share.h"
#include "log.h"
#include "namespaces.h"
#include "overlay.h"
#include "scratch.h"
#include "thaw/directories.h"
#include "thaw/mount.h"
#include "thaw/stat.h"
#include "util/cleanup.h"
#include "util/paths.h"
#include "view-parts.h"

struct view {
	const struct thaw_view_options *options;
	struct thaw_parts parts;
	char *empty_directory;
	char *path; /* where the view is */
	bool made_alias;
	bool alias_is_link; /* left by an extracted view without namespaces */
	bool user_namespace;
	bool mount_namespace;
	bool shared; /* the images' mounts, with other views */
	/* The machine cannot do what was tried, whatever the image. */
	bool impossible;
	char *scratch; /* made for this view; or NULL */
	bool scratch_in_memory;
	struct thaw_janitor janitor;
};

/* -- places -- */

/*
 * Only looked at, and never removed and made anew: another view may stand on it,
 * in a namespace of its own, and would vanish with the directory.
 */
static int check_empty(const char *alias, struct thaw_error *err)
{
	int fd = open(alias, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const struct dirent *entry;
	unsigned names = 0;
	DIR *directory;

	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return thaw_refused(err, "alias \"%.200s\": exists and is no directory",
				    alias);
	directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		int r = thaw_io(err, -errno, "alias \"%.200s\"", alias);

		(void)safe_close(fd);
		return r;
	}
	errno = 0;
	while ((entry = readdir(directory)) != NULL)
		names += strcmp(entry->d_name, ".") != 0 &&
			 strcmp(entry->d_name, "..") != 0;
	(void)closedir(directory);
	return names ? thaw_refused(err,
				    "alias \"%.200s\": is a directory that is not empty",
				    alias)
		     : 0;
}

/* Made by link_tree() before, which compares what it leads to. */
static bool is_own_link(const char *alias)
{
	_cleanup_(freep) char *base = NULL;
	char target[4096];
	ssize_t n = readlink(alias, target, sizeof(target) - 1);

	if (n <= 0 || thaw_state_directory("extracted", NULL, NULL, &base) < 0)
		return false;
	target[n] = '\0';
	return thaw_is_below(target, base);
}

/* The alias: ours to mount on only when nothing is hidden by that. */
static int prepare_alias(struct view *view, const char *alias, struct thaw_error *err)
{
	int r;

	if (alias[0] == '\0' || alias[0] == '/' || thaw_leads_up(alias))
		return thaw_refused(
			err, "alias \"%.200s\": must be a name in the current directory",
			alias);
	view->made_alias = mkdir(alias, 0755) == 0;
	if (!view->made_alias && errno != EEXIST)
		return thaw_io(err, -errno, "alias \"%.200s\" cannot be made", alias);
	if (view->options->mode != THAW_VIEW_PRIVATE && is_own_link(alias)) {
		_cleanup_(freep) char *here = getcwd(NULL, 0);

		view->alias_is_link = true;
		if (!here || asprintf(&view->path, "%s/%s", here, alias) < 0) {
			view->path = NULL;
			return thaw_oom(err);
		}
		return 0;
	}
	r = check_empty(alias, err);
	if (r < 0)
		return r;
	view->path = realpath(alias, NULL);
	return view->path ? 0 : thaw_io(err, -errno, "alias \"%.200s\"", alias);
}

static int prepare_places(struct view *view, struct thaw_error *err)
{
	char id[17];
	int r;

	(void)snprintf(id, sizeof(id), "%.16s", view->parts.part[0].identity);
	r = thaw_runtime_directory("empty", NULL, err, &view->empty_directory);
	if (r < 0)
		return r;
	if (view->options->alias)
		return prepare_alias(view, view->options->alias, err);
	return thaw_runtime_directory("view", id, err, &view->path);
}

/* -- scratch -- */

/* On disk: before any namespace is entered, where the directory is seen as it is. */
static int make_scratch(struct view *view, struct thaw_error *err)
{
	_cleanup_(freep) char *base = NULL;
	int lock, r;

	r = thaw_state_directory("scratch", NULL, err, &base);
	if (r == 0)
		r = thaw_scratch_new(base, geteuid(), getegid(), err, &view->scratch,
				     &lock);
	if (r == 0)
		r = thaw_janitor_start(view->scratch, lock, err, &view->janitor);
	return r;
}

static int mount_scratch(struct view *view, struct thaw_error *err)
{
	_cleanup_(freep) char *directory = NULL;
	int r;

	r = thaw_runtime_directory("scratch", NULL, err, &directory);
	if (r == 0)
		r = thaw_scratch_mount(directory, view->options->scratch_size, geteuid(),
				       getegid(), err);
	if (r < 0)
		return r;
	thaw_janitor_deinit(
		&view->janitor); /* removes what is on disk, if there is any */
	free(view->scratch);
	view->scratch = steal_ptr(directory);
	view->scratch_in_memory = true;
	return 0;
}

/* -- mounting -- */

static int mount_layers(struct view *view, const struct thaw_overlay_layer *layers,
			unsigned count, struct thaw_error *err)
{
	char source[sizeof(THAW_MOUNT_SOURCE_PREFIX) + THAW_DIGEST_HEX];
	struct thaw_overlay overlay = {
		.layers = layers,
		.count = count,
		.scratch = view->options->scratch ? view->options->scratch
						  : view->scratch,
		.empty = view->empty_directory,
		.source = source,
		.userxattr = view->user_namespace,
	};
	int r;

	(void)snprintf(source, sizeof(source), THAW_MOUNT_SOURCE_PREFIX "%s",
		       view->parts.part[0].identity);
	r = thaw_overlay_mount(&overlay, view->path, err);
	/* NFS, another overlay...: not every file system can be written through. */
	if (r == -EINVAL && view->scratch && !view->scratch_in_memory) {
		r = mount_scratch(view, err);
		overlay.scratch = view->scratch;
		if (r == 0)
			r = thaw_overlay_mount(&overlay, view->path, err);
	}
	if (r == 0 && view->scratch && !view->scratch_in_memory)
		r = thaw_janitor_watch(&view->janitor, view->scratch, view->path, err);
	return r;
}

/* Over trees, or over the parts' mounts: each with what was rendered for it above it. */
static int mount_view(struct view *view, char *const *trees, struct thaw_error *err)
{
	_cleanup_(freep) struct thaw_overlay_layer *layers = NULL;
	unsigned count = 0;
	int r = 0;

	layers = calloc(2 * view->parts.count, sizeof(*layers));
	if (!layers)
		return thaw_oom(err);
	for (unsigned i = view->parts.count; i-- > 0;) {
		const struct thaw_part *part = &view->parts.part[i];

		if (part->rendered)
			layers[count++].path = part->rendered;
		layers[count++].path = trees ? trees[i] : part->directory;
	}
	if (view->options->scratch_size)
		r = mount_scratch(view, err);
	return r < 0 ? r : mount_layers(view, layers, count, err);
}

/*
 * The worker of a shared mount is asked: it may have begun long ago, for somebody else.
 */
static int wait_warm_shared(const struct thaw_part *part, struct thaw_error *err)
{
	const struct timespec moment = { .tv_nsec = 2000000 };
	struct thaw_stat now;
	int r;

	while ((r = thaw_stat_directory(part->directory, err, &now)) == 0 &&
	       now.warm_state == THAW_WARM_RUNNING)
		(void)nanosleep(&moment, NULL); /* interrupted: asked a little earlier */
	return r;
}

static int wait_warm(struct view *view, struct thaw_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < view->parts.count; i++) {
		struct thaw_part *part = &view->parts.part[i];

		if (view->shared)
			r = wait_warm_shared(part, err);
		else if (!thaw_serving_wait_warm(&part->serving, part->keeper))
			r = thaw_io(err, -ENOTCONN,
				    "the worker ended while the view was being warmed");
	}
	return r;
}

/* By ourselves: the mounts are of this view alone. */
static int mount_parts(struct view *view, struct thaw_error *err)
{
	bool may_mount = thaw_may_mount();
	int r;

	view->impossible = true;
	r = may_mount ? 0 : thaw_enter_user_namespace(err);
	view->user_namespace = r == 0 && !may_mount;
	if (r == 0)
		r = thaw_parts_connect(&view->parts, err);
	if (r == 0)
		r = thaw_enter_mount_namespace(err);
	if (r < 0)
		return r;
	view->mount_namespace = true;
	r = thaw_parts_mount(&view->parts, err);
	view->impossible = r < 0;
	return r;
}

/*
 * With others, unless this view is watched, which must see all requests and only its
 * own.
 */
static int share_parts(struct view *view, struct thaw_error *err)
{
	const struct thaw_view_options *options = view->options;
	struct thaw_share share;
	int r;

	if (options->trace || options->timeline || options->scratch)
		return mount_parts(view, err);
	r = thaw_share_enter(&view->parts, options->warm, err, &share);
	if (r < 0 && share.alone)
		return mount_parts(view, err);
	view->user_namespace = share.user_namespace;
	view->mount_namespace = share.mount_namespace;
	view->impossible = share.impossible;
	view->shared = r == 0;
	return r;
}

static int enter_private(struct view *view, struct thaw_error *err)
{
	int r;

	view->impossible = true;
	if (view->alias_is_link)
		return thaw_refused(err,
				    "alias \"%.200s\" is a symlink of an extracted view",
				    view->options->alias);
	r = share_parts(view, err);
	if (r < 0)
		return r;
	r = mount_view(view, NULL, err);
	view->impossible = r == -ENODEV || r == -EPERM;
	if (r == 0 && view->options->wait_warm)
		r = wait_warm(view, err);
	return r;
}

/* -- extracted -- */

static int get_trees(const struct thaw_parts *parts, char **trees, struct thaw_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < parts->count; i++)
		r = thaw_extracted_get(parts->part[i].serving.image,
				       parts->part[i].interpreter, err, &trees[i]);
	return r;
}

/* No namespaces: the tree itself, or a symlink to it, which stays. */
static int link_tree(struct view *view, const char *tree, struct thaw_error *err)
{
	const struct thaw_view_options *options = view->options;
	char target[4096];
	ssize_t n;

	if (options->writable || options->layer_count || options->scratch)
		return thaw_refused(
			err, "a view that is writable or has layers needs namespaces, "
			     "which cannot be had here");
	if (!options->alias) {
		free(view->path);
		view->path = strdup(tree);
		return view->path ? 0 : thaw_oom(err);
	}
	if (view->made_alias && rmdir(options->alias) < 0)
		return thaw_io(err, -errno, "alias \"%.200s\"", options->alias);
	view->made_alias = false;
	if (symlink(tree, options->alias) == 0)
		return 0;
	n = errno == EEXIST ? readlink(options->alias, target, sizeof(target)) : -1;
	if (n == (ssize_t)strlen(tree) && memcmp(target, tree, (size_t)n) == 0)
		return 0;
	return thaw_refused(
		err, "alias \"%.200s\": exists (without namespaces it becomes a symlink)",
		options->alias);
}

static int enter_extracted(struct view *view, struct thaw_error *err)
{
	char **trees = calloc(view->parts.count, sizeof(*trees));
	struct thaw_error lacking = { 0 };
	bool user_namespace = false;
	int r;

	if (!trees)
		return thaw_oom(err);
	view->impossible = false;
	r = get_trees(&view->parts, trees, err);
	if (r == 0 && !view->alias_is_link) {
		if (!view->mount_namespace) {
			r = thaw_enter_namespaces_or_stay(&lacking, &user_namespace);
			view->mount_namespace = r == 0;
			view->user_namespace |=
				user_namespace; /* one may have been entered before */
		}
		view->impossible = r < 0;
		if (r == 0) {
			r = mount_view(view, trees, err);
			view->impossible = r == -ENODEV || r == -EPERM;
		}
	}
	/* Linked also where a namespace could be made, but nothing mounted in it. */
	if (view->alias_is_link || (r < 0 && view->impossible))
		r = link_tree(view, trees[0], err);
	for (unsigned i = 0; i < view->parts.count; i++)
		free(trees[i]);
	free(trees);
	return r;
}

/* -- all of it -- */

static int enter(struct view *view, struct thaw_error *err)
{
	const struct thaw_view_options *options = view->options;
	struct thaw_error why = { 0 };
	char text[sizeof(why.text) + 64];
	int r;

	if (options->mode != THAW_VIEW_EXTRACTED) {
		r = enter_private(view, &why);
		if (r == 0)
			return 0;
		/* What is recorded is requests: without FUSE there are none. */
		if (!view->impossible || options->mode == THAW_VIEW_PRIVATE ||
		    options->trace || options->timeline) {
			if (err)
				*err = why;
			return r;
		}
		(void)snprintf(text, sizeof(text), "extracted, since %s", why.text);
	} else {
		(void)snprintf(text, sizeof(text), "extracted");
	}
	r = enter_extracted(view, err);
	if (r == 0 && options->notice)
		options->notice(options->image, text);
	return r;
}

int thaw_view_enter(const struct thaw_view_options *options, struct thaw_error *err,
		    char **ret_path)
{
	struct view view = { .options = options, .janitor.socket = -1 };
	int r;

	thaw_log_open(true);
	r = thaw_parts_open(&view.parts, options, err);
	if (r == 0)
		r = prepare_places(&view, err);
	if (r == 0)
		r = thaw_parts_render(&view.parts, view.path, options->python, err);
	if (r == 0 && options->writable && !options->scratch_size)
		r = make_scratch(&view, err);
	if (r == 0)
		r = enter(&view, err);
	if (r == 0) {
		*ret_path = view.path;
		view.path = NULL;
	} else if (view.made_alias) {
		(void)rmdir(
			options->alias); /* as it was; may be somebody else's by now */
	}
	thaw_janitor_deinit(&view.janitor);
	thaw_parts_deinit(&view.parts);
	free(view.empty_directory);
	free(view.scratch);
	free(view.path);
	return r;
}

int thaw_view_environment(const char *path, struct thaw_error *err)
{
	const char *old = getenv("PATH");
	_cleanup_(freep) char *new = NULL;

	if (strchr(path, ':'))
		return thaw_refused(err, "PATH cannot hold \"%.300s\": it has a colon",
				    path);
	if (asprintf(&new, "%s/bin%s%s", path, old && *old ? ":" : "", old ? old : "") <
	    0) {
		new = NULL;
		return thaw_oom(err);
	}
	if (setenv("PATH", new, 1) < 0 || setenv("THAW_ENV", path, 1) < 0)
		return thaw_oom(err);
	return 0;
}
