/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files as they are at a prefix.
 *
 * A file is copied piece by piece, with the placeholders replaced in passing: its
 * size does not matter. What the sites of an image say is checked against the
 * file's bytes on the way, since an image may come from anybody.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "layer-internal.h"
#include "thaw/bytecode.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define PIECE	      (128u << 10)
/* A first line is looked at this far behind the interpreter; kernels read 256 bytes. */
#define LINE_MAX_READ 4096u

struct thaw_renderer {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	const char *prefix;
	size_t prefix_len;
	uint8_t *in, *out;
	size_t used; /* of out */
	/* Of the current file. */
	int fd;
	struct thaw_inode inode;
	struct thaw_error *err;
	bool in_string; /* BINARY: between a site and its string's NUL */
	int64_t shift;	/* bytes by which this string has grown so far */
	uint64_t skip;	/* zeros behind it that are still to be taken */
};

int thaw_renderer_new(const struct thaw_image *image, struct thaw_reader *reader,
		      const char *prefix, struct thaw_renderer **ret_renderer)
{
	struct thaw_renderer *renderer = calloc(1, sizeof(*renderer));

	if (!renderer)
		return -ENOMEM;
	renderer->image = image;
	renderer->reader = reader;
	renderer->prefix = prefix;
	renderer->prefix_len = strlen(prefix);
	renderer->in = malloc(PIECE);
	renderer->out = malloc(PIECE);
	if (!renderer->in || !renderer->out) {
		thaw_renderer_free(renderer);
		return -ENOMEM;
	}
	*ret_renderer = renderer;
	return 0;
}

struct thaw_renderer *thaw_renderer_free(struct thaw_renderer *renderer)
{
	if (renderer) {
		free(renderer->in);
		free(renderer->out);
		free(renderer);
	}
	return NULL;
}

static int damaged(const struct thaw_renderer *renderer, const char *what)
{
	char path[256];

	thaw_image_path(renderer->image, renderer->inode.ino, path, sizeof(path));
	return thaw_damaged(renderer->err, "%s: its relocations do not fit it: %s", path,
			    what);
}

/* -- output -- */

static int flush(struct thaw_renderer *renderer)
{
	char path[256];
	int r = write_all(renderer->fd, renderer->out, renderer->used);

	renderer->used = 0;
	if (r == 0)
		return 0;
	thaw_image_path(renderer->image, renderer->inode.ino, path, sizeof(path));
	return thaw_io(renderer->err, r, "%s: cannot be written", path);
}

static int put(struct thaw_renderer *renderer, const void *data, size_t len)
{
	const uint8_t *from = data;

	while (len > 0) {
		size_t n = PIECE - renderer->used;

		if (n == 0) {
			int r = flush(renderer);

			if (r < 0)
				return r;
			continue;
		}
		n = n < len ? n : len;
		memcpy(renderer->out + renderer->used, from, n);
		renderer->used += n;
		from += n;
		len -= n;
	}
	return 0;
}

static int put_text(struct thaw_renderer *renderer, const char *text)
{
	return put(renderer, text, strlen(text));
}

static int put_zeros(struct thaw_renderer *renderer, uint64_t count)
{
	static const uint8_t zeros[512];
	int r = 0;

	for (uint64_t n; r == 0 && count > 0; count -= n) {
		n = count < sizeof(zeros) ? count : sizeof(zeros);
		r = put(renderer, zeros, (size_t)n);
	}
	return r;
}

/* -- copying -- */

static int skip_zeros(struct thaw_renderer *renderer, const uint8_t **data, size_t *len)
{
	size_t n = renderer->skip < *len ? (size_t)renderer->skip : *len;

	if (!all_zero(*data, n))
		return damaged(renderer, "no room behind a string");
	*data += n;
	*len -= n;
	renderer->skip -= n;
	return 0;
}

/* Bytes between sites. Where a string ends, its change of length is made good. */
static int copy(struct thaw_renderer *renderer, const uint8_t *data, size_t len)
{
	const uint8_t *nul;
	int r;

	r = skip_zeros(renderer, &data, &len);
	if (r < 0)
		return r;
	nul = renderer->in_string ? memchr(data, '\0', len) : NULL;
	if (!nul)
		return put(renderer, data, len);
	r = put(renderer, data, (size_t)(nul - data));
	len -= (size_t)(nul - data);
	data = nul;
	if (r == 0 && renderer->shift < 0)
		r = put_zeros(renderer, (uint64_t)-renderer->shift);
	else if (r == 0)
		renderer->skip = (uint64_t)renderer->shift;
	renderer->in_string = false;
	renderer->shift = 0;
	if (r == 0)
		r = skip_zeros(renderer, &data, &len);
	return r < 0 ? r : put(renderer, data, len);
}

/* File bytes [from, to), which are in the file. */
static int copy_range(struct thaw_renderer *renderer, uint64_t from, uint64_t to)
{
	while (from < to) {
		size_t n = to - from < PIECE ? (size_t)(to - from) : PIECE;
		int r = thaw_reader_read(renderer->reader, &renderer->inode, from,
					 renderer->in, n, renderer->err, &n);

		if (r == 0)
			r = copy(renderer, renderer->in, n);
		if (r < 0)
			return r;
		from += n;
	}
	return 0;
}

/* -- first lines -- */

static size_t find_blank(const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && text[n] != ' ' && text[n] != '\t')
		n++;
	return n;
}

static bool has(const char *text, size_t len, const char *any)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] != '\0' && strchr(any, text[i]))
			return true;
	return false;
}

/*
 * A word that both a shell and a Python string in ''' take as it is: double
 * quotes, what is special to shells within them in single ones, and never three
 * single ones in a row. A backslash is always followed by a quote, with which it is no
 * escape that Python would complain about.
 */
static int put_quoted(struct thaw_renderer *renderer, const char *text, size_t len)
{
	int r = put_text(renderer, "\"");

	for (size_t i = 0; r == 0 && i < len; i++) {
		if (strchr("$`\"\\", text[i])) {
			r = put_text(renderer, "\"'");
			if (r == 0)
				r = put(renderer, text + i, 1);
			if (r == 0)
				r = put_text(renderer, "'\"");
		} else {
			if (i > 0 && text[i] == '\'' && text[i - 1] == '\'')
				r = put_text(renderer, "\"\"");
			if (r == 0)
				r = put(renderer, text + i, 1);
		}
	}
	return r < 0 ? r : put_text(renderer, "\"");
}

/*
 * The form that pip writes: a shell runs the second line; to Python, the lines
 * that the shell reads are a string.
 */
static int put_exec(struct thaw_renderer *renderer, const char *interpreter, size_t len,
		    const char *arguments, size_t arguments_len, const char *rest,
		    size_t rest_len)
{
	bool quote = has(interpreter, len, " \t'\"\\$`&|;<>()*?[]{}\r\v\f");
	int r = put_text(renderer, "#!/bin/sh\n'''exec' ");

	if (r == 0)
		r = quote ? put_quoted(renderer, interpreter, len)
			  : put(renderer, interpreter, len);
	if (r == 0)
		r = put(renderer, arguments, arguments_len);
	if (r == 0)
		r = put(renderer, rest, rest_len);
	return r < 0 ? r : put_text(renderer, " \"$0\" \"$@\"\n' '''\n");
}

/* Does the kernel take a first line with this path behind what is before it? */
static bool line_fits(uint64_t offset, const char *path, size_t path_len,
		      size_t argument_len, size_t rest_len)
{
	return !has(path, path_len, " \t\r\v\f") &&
	       offset + path_len + argument_len + rest_len + 1 <= THAW_SHEBANG_LINE_MAX;
}

/* The first line up to and with the interpreter; *ret_next is where copying goes on. */
static int put_shebang(struct thaw_renderer *renderer, const struct thaw_site *site,
		       uint64_t *ret_next)
{
	const struct thaw_relocation_rule *rule = &site->rule;
	size_t behind = (size_t)site->offset + rule->placeholder_len;
	size_t path_len = renderer->prefix_len +
			  find_blank(rule->suffix, rule->suffix_len);
	size_t argument_len = renderer->prefix_len + rule->suffix_len - path_len;
	_cleanup_(freep) char *head = malloc(behind + LINE_MAX_READ);
	_cleanup_(freep) char *path = malloc(renderer->prefix_len + rule->suffix_len + 1);
	const char *rest, *end;
	size_t n = 0, rest_len;
	int r;

	if (!head || !path)
		return thaw_oom(renderer->err);
	r = thaw_reader_read(renderer->reader, &renderer->inode, 0, head,
			     behind + LINE_MAX_READ, renderer->err, &n);
	if (r < 0)
		return r;
	if (memcmp(head, "#!", 2) != 0 || strspn(head + 2, " ") < site->offset - 2)
		return damaged(renderer, "no first line");
	memcpy(path, renderer->prefix, renderer->prefix_len);
	memcpy(path + renderer->prefix_len, rule->suffix, rule->suffix_len);
	rest = head + behind;
	end = memchr(rest, '\n', n - behind);
	rest_len = (size_t)((end ? end : head + n) - rest);

	if (line_fits(site->offset, path, path_len, argument_len, rest_len)) {
		*ret_next = behind;
		r = put(renderer, head, (size_t)site->offset);
		return r < 0 ? r : put(renderer, path, path_len + argument_len);
	}
	if (!end && n == behind + LINE_MAX_READ)
		return damaged(renderer, "a first line without an end");
	*ret_next = behind + rest_len + (end ? 1 : 0);
	return put_exec(renderer, path, path_len, path + path_len, argument_len, rest,
			rest_len);
}

/* -- sites -- */

static bool fits(const struct thaw_relocation_rule *rule, size_t prefix_len)
{
	return rule->kind != THAW_RELOCATION_BINARY ||
	       prefix_len + rule->suffix_len <= rule->room;
}

static int refuse(const struct thaw_image *image, uint32_t ino,
		  const struct thaw_relocation_rule *rule, size_t prefix_len,
		  struct thaw_error *err)
{
	char path[256];

	thaw_image_path(image, ino, path, sizeof(path));
	return thaw_refused(err,
			    "the prefix is %zu bytes long, but %s has room for %zu: a "
			    "shorter path is needed",
			    prefix_len, path,
			    rule->room > rule->suffix_len ? rule->room - rule->suffix_len
							  : (size_t)0);
}

static int check_placeholder(struct thaw_renderer *renderer, const struct thaw_site *site)
{
	size_t len = site->rule.placeholder_len, n = 0;
	int r = thaw_reader_read(renderer->reader, &renderer->inode, site->offset,
				 renderer->in, len, renderer->err, &n);

	if (r < 0)
		return r;
	if (n != len || memcmp(renderer->in, site->rule.placeholder, len) != 0)
		return damaged(renderer, "another text stands there");
	return 0;
}

static int put_site(struct thaw_renderer *renderer, const struct thaw_site *site,
		    uint64_t *ret_next)
{
	const struct thaw_relocation_rule *rule = &site->rule;
	int r;

	if (!fits(rule, renderer->prefix_len))
		return refuse(renderer->image, renderer->inode.ino, rule,
			      renderer->prefix_len, renderer->err);
	if (renderer->skip > 0)
		return damaged(renderer, "no room behind a string");
	r = check_placeholder(renderer, site);
	if (r < 0)
		return r;
	if (rule->kind == THAW_RELOCATION_SHEBANG)
		return put_shebang(renderer, site, ret_next);
	r = put(renderer, renderer->prefix, renderer->prefix_len);
	if (r == 0)
		r = put(renderer, rule->suffix, rule->suffix_len);
	if (rule->kind == THAW_RELOCATION_BINARY) {
		renderer->in_string = true;
		renderer->shift += (int64_t)(renderer->prefix_len + rule->suffix_len) -
				   (int64_t)rule->placeholder_len;
	}
	*ret_next = site->offset + rule->placeholder_len;
	return r;
}

/* -- bytecode: in memory, since a string's length stands in front of it -- */

static int render_bytecode(struct thaw_renderer *renderer,
			   const struct thaw_relocated *file)
{
	const struct thaw_bytecode_sites sites = { renderer->image, *file, NULL, 0 };
	size_t size = (size_t)renderer->inode.size, n = 0, rendered_size;
	_cleanup_(freep) uint8_t *pyc = malloc(size + 1), *rendered = NULL;
	int r;

	if (!pyc)
		return thaw_oom(renderer->err);
	r = thaw_reader_read(renderer->reader, &renderer->inode, 0, pyc, size,
			     renderer->err, &n);
	if (r < 0)
		return r;
	r = thaw_bytecode_render(pyc, n, &sites, renderer->prefix, &rendered,
				 &rendered_size);
	if (r == -EBADMSG)
		return damaged(renderer, "no such bytecode");
	if (r < 0)
		return thaw_oom(renderer->err);
	r = put(renderer, rendered, rendered_size);
	return r < 0 ? r : flush(renderer);
}

int thaw_render(struct thaw_renderer *renderer, const struct thaw_relocated *file, int fd,
		struct thaw_error *err)
{
	uint64_t at = 0;
	int r;

	renderer->fd = fd;
	renderer->err = err;
	renderer->used = 0;
	renderer->in_string = false;
	renderer->shift = 0;
	renderer->skip = 0;
	r = thaw_image_inode(renderer->image, file->ino, &renderer->inode);
	if (r < 0)
		return thaw_io(err, r, "no such file in the image");
	if (thaw_is_bytecode(renderer->image, file))
		return render_bytecode(renderer, file);
	for (uint32_t i = 0; i < file->sites; i++) {
		struct thaw_site site;

		thaw_image_site(renderer->image, file, i, &site);
		if (site.offset < at)
			return damaged(renderer, "a place in a line that is replaced");
		/* put_shebang() writes what is before it, too. */
		if (site.rule.kind != THAW_RELOCATION_SHEBANG) {
			r = copy_range(renderer, at, site.offset);
			if (r < 0)
				return r;
		}
		r = put_site(renderer, &site, &at);
		if (r < 0)
			return r;
	}
	r = copy_range(renderer, at, renderer->inode.size);
	if (r == 0 &&
	    ((renderer->in_string && renderer->shift != 0) || renderer->skip > 0))
		return damaged(renderer, "a string without an end");
	return r < 0 ? r : flush(renderer);
}

bool thaw_render_changes(const struct thaw_image *image,
			 const struct thaw_relocated *file, const char *prefix)
{
	size_t len = strlen(prefix);

	for (uint32_t i = 0; i < file->sites; i++) {
		struct thaw_site site;
		const struct thaw_relocation_rule *rule = &site.rule;

		thaw_image_site(image, file, i, &site);
		if (rule->kind == THAW_RELOCATION_BYTECODE)
			continue;
		if (rule->placeholder_len != len + rule->suffix_len ||
		    memcmp(rule->placeholder, prefix, len) != 0 ||
		    memcmp(rule->placeholder + len, rule->suffix, rule->suffix_len) != 0)
			return true;
	}
	return false;
}

int thaw_render_keeps_lines(const struct thaw_image *image, struct thaw_reader *reader,
			    const struct thaw_relocated *file, const char *prefix,
			    struct thaw_error *err)
{
	size_t prefix_len = strlen(prefix), behind, path_len, n = 0;
	_cleanup_(freep) char *head = NULL, *path = NULL;
	struct thaw_inode inode;
	struct thaw_site site;
	const char *end;
	int r;

	thaw_image_site(image, file, 0, &site);
	if (site.rule.kind != THAW_RELOCATION_SHEBANG)
		return 1;
	behind = (size_t)site.offset + site.rule.placeholder_len;
	head = malloc(behind + LINE_MAX_READ);
	path = malloc(prefix_len + site.rule.suffix_len + 1);
	if (!head || !path)
		return thaw_oom(err);
	r = thaw_image_inode(image, file->ino, &inode);
	if (r == 0)
		r = thaw_reader_read(reader, &inode, 0, head, behind + LINE_MAX_READ, err,
				     &n);
	if (r < 0)
		return r;
	memcpy(path, prefix, prefix_len);
	memcpy(path + prefix_len, site.rule.suffix, site.rule.suffix_len);
	path_len = prefix_len + find_blank(site.rule.suffix, site.rule.suffix_len);
	end = memchr(head + behind, '\n', n - behind);
	return line_fits(site.offset, path, path_len,
			 prefix_len + site.rule.suffix_len - path_len,
			 end ? (size_t)(end - (head + behind)) : n - behind);
}

int thaw_render_fits(const struct thaw_image *image, const char *prefix,
		     struct thaw_error *err)
{
	size_t len = strlen(prefix);

	if (len <= thaw_layer_prefix_max(image))
		return 0;
	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;

		thaw_image_relocated(image, i, &file);
		for (uint32_t j = 0; j < file.sites; j++) {
			struct thaw_site site;

			thaw_image_site(image, &file, j, &site);
			if (!fits(&site.rule, len))
				return refuse(image, file.ino, &site.rule, len, err);
		}
	}
	return thaw_refused(err, "the prefix is %zu bytes long, which no path can be",
			    len);
}

size_t thaw_layer_prefix_max(const struct thaw_image *image)
{
	size_t max = THAW_PATH_MAX;

	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;

		thaw_image_relocated(image, i, &file);
		for (uint32_t j = 0; j < file.sites; j++) {
			struct thaw_site site;
			size_t room;

			thaw_image_site(image, &file, j, &site);
			if (site.rule.kind != THAW_RELOCATION_BINARY)
				continue;
			room = site.rule.room > site.rule.suffix_len
				       ? site.rule.room - site.rule.suffix_len
				       : 0;
			max = room < max ? room : max;
		}
	}
	return max;
}

uint64_t thaw_layer_size(const struct thaw_image *image)
{
	uint64_t size = 0;

	for (uint32_t i = 0; i < thaw_image_relocated_count(image); i++) {
		struct thaw_relocated file;
		struct thaw_inode inode;

		thaw_image_relocated(image, i, &file);
		if (thaw_image_inode(image, file.ino, &inode) == 0)
			size += inode.size;
	}
	return size;
}
