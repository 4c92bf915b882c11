/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a view of a venv that name an interpreter, or the view in a shell's quotes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pyvenv.h"
#include "thaw/binding.h"
#include "thaw/relocation.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

#define ACTIVATE_MAX (1u << 20)

struct render {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	const char *prefix, *interpreter;
	int directory;
	int bin; /* its "bin", or -1 as long as nothing was put there */
};

static int cannot(struct thaw_error *err, const char *name)
{
	return thaw_io(err, -errno, "\"%.200s\" cannot be rendered", name);
}

static int need_bin(struct render *render, struct thaw_error *err)
{
	if (render->bin >= 0)
		return 0;
	if (mkdirat(render->directory, "bin", 0755) < 0 && errno != EEXIST)
		return cannot(err, "bin");
	render->bin = openat(render->directory, "bin",
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return render->bin < 0 ? cannot(err, "bin") : 0;
}

static int remove_old(int directory, const char *name, struct thaw_error *err)
{
	return unlinkat(directory, name, 0) < 0 && errno != ENOENT ? cannot(err, name)
								   : 0;
}

/* As the image serves it: its mode and mtime, other bytes. inode NULL: it has none such. */
static int write_file(int directory, const char *name, const void *data, size_t len,
		      const struct thaw_inode *inode, struct thaw_error *err)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	_cleanup_(closep) int fd = -1;
	int r = remove_old(directory, name, err);

	if (r < 0)
		return r;
	fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    0644);
	if (fd < 0)
		return cannot(err, name);
	r = write_all(fd, data, len);
	if (r < 0)
		return thaw_io(err, r, "\"%.200s\" cannot be rendered", name);
	times[1].tv_sec = inode ? inode->mtime : 0;
	if (fchmod(fd, inode ? inode->mode : 0644) < 0 || futimens(fd, times) < 0)
		return cannot(err, name);
	return 0;
}

/* -- links -- */

static int link_interpreter(struct render *render, const char *name,
			    struct thaw_error *err)
{
	int r = remove_old(render->bin, name, err);

	if (r < 0)
		return r;
	return symlinkat(render->interpreter, render->bin, name) < 0 ? cannot(err, name)
								     : 0;
}

static int render_links(struct render *render, const struct thaw_binding *binding,
			struct thaw_error *err)
{
	char versioned[32];
	const char *const always[] = { "python", "python3", versioned };
	int r = need_bin(render, err);

	(void)snprintf(versioned, sizeof(versioned), "python%s", binding->python);
	for (size_t i = 0; r == 0 && i < binding->link_count; i++)
		r = link_interpreter(render, binding->links[i], err);
	for (size_t i = 0; r == 0 && i < sizeof(always) / sizeof(always[0]); i++)
		r = link_interpreter(render, always[i], err);
	return r;
}

/* -- pyvenv.cfg -- */

/*
 * home and executable are the interpreter's. Keys of other tools about the same
 * thing go, since they would contradict it; what else the file says stays.
 */
static int bind_config(struct pyvenv *config, const struct thaw_binding *binding,
		       const char *interpreter)
{
	static const char *const gone[] = { "command", "base-prefix", "base-exec-prefix",
					    "base-executable", "version_info" };
	const char *slash = strrchr(interpreter, '/');
	_cleanup_(freep) char *home = strndup(interpreter, (size_t)(slash - interpreter));
	const char *version = pyvenv_get(config, "version");
	char known[64];
	int r = 0;

	if (!home)
		return -ENOMEM;
	/* Of another interpreter only the minor version is known, without running it. */
	if (!version)
		version = pyvenv_get(config, "version_info");
	(void)snprintf(known, sizeof(known), "%s",
		       version && binding->recorded &&
				       strcmp(binding->recorded, interpreter) == 0
			       ? version
			       : binding->python);
	for (size_t i = 0; r == 0 && i < sizeof(gone) / sizeof(gone[0]); i++)
		r = pyvenv_set(config, gone[i], NULL);
	if (r == 0)
		r = pyvenv_set(config, "home", home);
	if (r == 0 && !pyvenv_get(config, "include-system-site-packages"))
		r = pyvenv_set(config, "include-system-site-packages", "false");
	if (r == 0)
		r = pyvenv_set(config, "version", known);
	return r == 0 ? pyvenv_set(config, "executable", interpreter) : r;
}

static int render_config(struct render *render, const struct thaw_binding *binding,
			 struct thaw_error *err)
{
	_cleanup_(freep) char *old = malloc(PYVENV_MAX);
	_cleanup_(freep) char *text = NULL;
	struct pyvenv config = { 0 };
	struct thaw_inode inode;
	bool exists;
	size_t len = 0;
	int r;

	if (!old)
		return thaw_oom(err);
	exists = thaw_image_find(render->image, "pyvenv.cfg", &inode) == 0 &&
		 inode.type == THAW_REGULAR;
	if (exists) {
		r = thaw_reader_read(render->reader, &inode, 0, old, PYVENV_MAX, err,
				     &len);
		if (r < 0)
			return r;
	}
	r = pyvenv_parse(old, len, &config);
	if (r == 0)
		r = bind_config(&config, binding, render->interpreter);
	if (r == 0)
		text = pyvenv_text(&config, &len);
	pyvenv_deinit(&config);
	if (!text)
		return thaw_oom(err);
	return write_file(render->directory, "pyvenv.cfg", text, len,
			  exists ? &inode : NULL, err);
}

/* -- activate, for prefixes that do not go into its quotes as they are -- */

struct text {
	char *data;
	size_t len, capacity;
};

static int append(struct text *text, const char *data, size_t len)
{
	if (grow(&text->data, &text->capacity, text->len + len + 1, 1) < 0)
		return -ENOMEM;
	memcpy(text->data + text->len, data, len);
	text->len += len;
	return 0;
}

static bool is_plain_prefix(const char *prefix)
{
	for (const char *p = prefix; *p; p++)
		if (strchr(" \t\"'`$\\!;&|<>()*?[]#~{}", *p))
			return false;
	return true;
}

/*
 * The prefix, for the kind of quotes that it stands in. Out of the quotes, the
 * character in quotes of the other kind, and in again: that is understood by
 * sh, csh and fish.
 */
static int append_quoted(struct text *text, const char *prefix, char quote)
{
	int r = quote ? 0 : append(text, "'", 1);

	for (const char *p = prefix; *p && r == 0; p++) {
		bool breaks = quote == '"' ? strchr("\"$`\\", *p) != NULL : *p == '\'';
		char piece[8];
		int n = breaks && quote == '"' ? sprintf(piece, "\"'%c'\"", *p)
			: breaks	       ? sprintf(piece, "'\"%c\"'", *p)
					       : sprintf(piece, "%c", *p);

		r = append(text, piece, (size_t)n);
	}
	return r == 0 && !quote ? append(text, "'", 1) : r;
}

static int render_quoted(const struct render *render, const struct thaw_relocated *file,
			 const char *old, size_t len, struct text *text)
{
	size_t at = 0;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < file->sites; i++) {
		struct thaw_site site;
		char quote;

		thaw_image_site(render->image, file, i, &site);
		if (site.rule.kind != THAW_RELOCATION_TEXT || site.offset < at ||
		    site.offset + site.rule.placeholder_len > len)
			return -EBADMSG;
		quote = site.offset > 0 ? old[site.offset - 1] : 0;
		quote = quote == '"' || quote == '\'' ? quote : 0;
		r = append(text, old + at, site.offset - at);
		if (r == 0)
			r = append_quoted(text, render->prefix, quote);
		if (r == 0)
			r = append(text, site.rule.suffix, site.rule.suffix_len);
		at = site.offset + site.rule.placeholder_len;
	}
	return r == 0 ? append(text, old + at, len - at) : r;
}

static int render_activate(struct render *render, const char *name,
			   const struct thaw_inode *inode,
			   const struct thaw_relocated *file, struct thaw_error *err)
{
	_cleanup_(freep) char *old = malloc(inode->size + 1);
	struct text text = { 0 };
	size_t len;
	int r;

	if (!old)
		return thaw_oom(err);
	r = thaw_reader_read(render->reader, inode, 0, old, inode->size, err, &len);
	if (r < 0)
		return r;
	r = render_quoted(render, file, old, len, &text);
	if (r == -EBADMSG)
		r = thaw_damaged(err, "damaged: relocations of bin/%.100s", name);
	else if (r < 0)
		r = thaw_oom(err);
	if (r == 0)
		r = need_bin(render, err);
	if (r == 0)
		r = write_file(render->bin, name, text.data, text.len, inode, err);
	free(text.data);
	return r;
}

/* *ret_any: whether there was any. */
static int render_activates(struct render *render, struct thaw_error *err, bool *ret_any)
{
	static const char *const names[] = { "activate", "activate.csh",
					     "activate.fish" };
	int r = 0;

	*ret_any = false;
	if (is_plain_prefix(render->prefix))
		return 0;
	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
		struct thaw_relocated file;
		struct thaw_inode inode;
		char path[32];

		(void)snprintf(path, sizeof(path), "bin/%s", names[i]);
		if (thaw_image_find(render->image, path, &inode) != 0 ||
		    inode.type != THAW_REGULAR || inode.size > ACTIVATE_MAX ||
		    thaw_image_relocated_find(render->image, inode.ino, &file) != 0)
			continue;
		r = render_activate(render, names[i], &inode, &file, err);
		*ret_any = true;
	}
	return r;
}

static bool is_venv(const struct thaw_image *image)
{
	size_t len;
	const char *text = thaw_image_meta(image, &len);

	return len > 0 && memmem(text, len, "\"binding\"", 9);
}

static int render_all(struct render *render, struct thaw_error *err)
{
	struct thaw_binding binding;
	bool activates = false;
	int r;

	if (!is_venv(render->image))
		return THAW_NOT_FOUND; /* a conda environment's activate is conda's */
	r = render_activates(render, err, &activates);
	if (r < 0)
		return r;
	r = thaw_binding_load(render->image, err, &binding);
	if (r == THAW_NOT_FOUND)
		return activates ? 0 : THAW_NOT_FOUND;
	if (r < 0)
		return r;
	if (!render->interpreter)
		r = thaw_refused(err, "needs Python %s of this node, and none was chosen",
				 binding.python);
	else if (render->interpreter[0] != '/' || strchr(render->interpreter, '\n'))
		r = thaw_refused(err, "\"%.200s\": an interpreter's path is absolute",
				 render->interpreter);
	if (r == 0)
		r = render_links(render, &binding, err);
	if (r == 0)
		r = render_config(render, &binding, err);
	thaw_binding_deinit(&binding);
	return r;
}

int thaw_binding_render(const struct thaw_image *image, struct thaw_reader *reader,
			const char *prefix, const char *interpreter, int directory,
			struct thaw_error *err)
{
	struct render render = {
		.image = image,
		.reader = reader,
		.prefix = prefix,
		.interpreter = interpreter,
		.directory = directory,
		.bin = -1,
	};
	int r = render_all(&render, err);

	render.bin = safe_close(render.bin);
	return r;
}
