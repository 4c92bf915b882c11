/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of the builder's machine in an environment's bin: the first lines of
 * scripts, and the activate scripts. Scripts get the view's own interpreter:
 * with "#!/usr/bin/env python3" they would run whatever is first on PATH, and
 * bin/pip would act on another Python.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "environment-internal.h"

#define SCRIPT_HEAD    8192u	   /* two lines with paths; a path has 4,095 bytes */
#define ACTIVATE_MAX   (1u << 20)  /* real ones have 3 KiB */
#define EXEC_FORM      "'''exec' " /* pip's second line, when the first is "#!/bin/sh" */
#define EXEC_FORM_TAIL "\n' '''"

struct span {
	const char *text;
	size_t len;
};

static struct span next_word(const char **at, const char *end)
{
	struct span word;

	while (*at < end && (**at == ' ' || **at == '\t'))
		(*at)++;
	word.text = *at;
	while (*at < end && **at != ' ' && **at != '\t')
		(*at)++;
	word.len = (size_t)(*at - word.text);
	return word;
}

static struct span base_name(struct span path)
{
	const char *slash = memrchr(path.text, '/', path.len);

	if (!slash)
		return path;
	return (struct span){ slash + 1, (size_t)(path.text + path.len - slash - 1) };
}

/* "/usr/bin/python3": whoever writes that means the machine's Python. */
static bool is_system_path(struct span path)
{
	static const char *const directories[] = { "/usr/bin/", "/bin/",
						   "/usr/local/bin/" };

	for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
		size_t len = strlen(directories[i]);

		if (path.len > len && memcmp(path.text, directories[i], len) == 0 &&
		    !memchr(path.text + len, '/', path.len - len))
			return true;
	}
	return false;
}

/* "/bin/NAME" of the interpreter that a view has under that name. */
static void interpreter_suffix(const struct analysis *a, struct span name, char *suffix,
			       size_t size)
{
	const struct thaw_environment *found = a->found;
	struct thaw_inode inode;
	char wanted[40] = "python", full[40], path[64];

	if (name.len < sizeof(wanted))
		(void)snprintf(wanted, sizeof(wanted), "%.*s", (int)name.len, name.text);
	(void)snprintf(full, sizeof(full), "python%s", found->python);
	(void)snprintf(path, sizeof(path), "bin/%s", wanted);
	/* These are made in each view of a venv, whatever is in the image. */
	if (strcmp(wanted, "python3") != 0 && strcmp(wanted, full) != 0 &&
	    !analysis_find(a, path, &inode))
		(void)snprintf(wanted, sizeof(wanted), "python");
	(void)snprintf(suffix, size, "/bin/%s", wanted);
}

static int add(struct analysis *a, uint32_t ino, uint64_t offset,
	       enum thaw_relocation_kind kind, struct span placeholder,
	       const char *suffix, struct thaw_error *err)
{
	struct thaw_relocation_rule rule = {
		.kind = kind,
		.placeholder = placeholder.text,
		.placeholder_len = placeholder.len,
		.suffix = suffix,
		.suffix_len = strlen(suffix),
	};
	int r = thaw_relocations_add(a->found->relocations, ino, offset, &rule, err);

	/* A line that the format has no room for is left as it is: it could not run here either. */
	return r == -EINVAL ? 0 : r;
}

/* "#!/usr/bin/env python3", "#!/build/bin/python": what is to be replaced, or length 0. */
static struct span plain_form(const char *line, const char *end, struct span *ret_name)
{
	const char *at = line + 2;
	struct span first = next_word(&at, end), word = first;

	if (first.len == 0 || first.text[0] != '/')
		return (struct span){ 0 };
	*ret_name = base_name(first);
	if (ret_name->len == 3 && memcmp(ret_name->text, "env", 3) == 0) {
		word = next_word(&at, end);
		if (word.len == 2 && memcmp(word.text, "-S", 2) == 0)
			word = next_word(&at, end);
		*ret_name = word;
	} else if (is_system_path(first)) {
		return (struct span){ 0 };
	}
	if (!analysis_is_python_name(ret_name->text, ret_name->len))
		return (struct span){ 0 };
	return (struct span){ first.text, (size_t)(word.text + word.len - first.text) };
}

/*
 * pip, for paths that the kernel cannot take:
 *
 *	#!/bin/sh
 *	'''exec' "/build path/bin/python" "$0" "$@"
 *	' '''
 *
 * All of it up to the last quote is one placeholder: what comes in its place is
 * written anew, in whichever of the two forms fits.
 */
static struct span exec_form(const char *text, const char *line_end, const char *end,
			     struct span *ret_name)
{
	const char *second = line_end + 1, *stop, *tail;
	struct span path;

	if (line_end - text != 9 || memcmp(text, "#!/bin/sh", 9) != 0 ||
	    (size_t)(end - second) < strlen(EXEC_FORM) ||
	    memcmp(second, EXEC_FORM, strlen(EXEC_FORM)) != 0)
		return (struct span){ 0 };
	path.text = second + strlen(EXEC_FORM);
	if (*path.text == '"' || *path.text == '\'') {
		char quote = *path.text++;

		stop = memchr(path.text, quote, (size_t)(end - path.text));
	} else {
		stop = memchr(path.text, ' ', (size_t)(end - path.text));
	}
	tail = stop ? memmem(stop, (size_t)(end - stop), EXEC_FORM_TAIL,
			     strlen(EXEC_FORM_TAIL))
		    : NULL;
	if (!tail || path.text[0] != '/' || memchr(stop, '\n', (size_t)(tail - stop)))
		return (struct span){ 0 };
	path.len = (size_t)(stop - path.text);
	*ret_name = base_name(path);
	if (!analysis_is_python_name(ret_name->text, ret_name->len))
		return (struct span){ 0 };
	return (struct span){ text + 2,
			      (size_t)(tail + strlen(EXEC_FORM_TAIL) - text - 2) };
}

static int note_script(struct analysis *a, const struct thaw_inode *inode,
		       struct thaw_error *err)
{
	char head[SCRIPT_HEAD + 1], suffix[64];
	struct span placeholder, name;
	const char *end, *line_end;
	size_t len;
	int r;

	r = analysis_read(a, inode, head, sizeof(head), err, &len);
	if (r < 0 || len < 4 || memcmp(head, "#!", 2) != 0)
		return r;
	end = head + len;
	line_end = memchr(head, '\n', len);
	if (!line_end)
		return 0; /* no script has a first line of 8 KiB */
	placeholder = plain_form(head, line_end, &name);
	if (placeholder.len == 0)
		placeholder = exec_form(head, line_end, end, &name);
	if (placeholder.len == 0)
		return 0;
	interpreter_suffix(a, name, suffix, sizeof(suffix));
	return add(a, inode->ino, (uint64_t)(placeholder.text - head),
		   THAW_RELOCATION_SHEBANG, placeholder, suffix, err);
}

/* -- activate -- */

static bool starts_activate(struct thaw_name name)
{
	return name.len >= 8 && memcmp(name.text, "activate", 8) == 0;
}

/* The path that bin/activate assigns to VIRTUAL_ENV; empty when it computes it. */
static int find_home(const struct analysis *a, char *home, size_t size,
		     struct thaw_error *err)
{
	struct thaw_inode inode;
	char *text, *at;
	size_t len;
	int r;

	home[0] = '\0';
	if (!analysis_find(a, "bin/activate", &inode) || inode.type != THAW_REGULAR ||
	    inode.size > ACTIVATE_MAX)
		return 0;
	text = malloc(inode.size + 1);
	if (!text)
		return thaw_oom(err);
	r = analysis_read(a, &inode, text, inode.size + 1, err, &len);
	for (at = text; r == 0 && (at = strstr(at, "VIRTUAL_ENV=")) != NULL;) {
		size_t n;

		at += strlen("VIRTUAL_ENV=");
		at += strncmp(at, "$(cygpath ", 10) == 0
			      ? 10
			      : 0; /* of Python 3.12 and newer */
		at += *at == '"' || *at == '\'';
		if (*at != '/')
			continue;
		n = at[-1] == '"' || at[-1] == '\''
			    ? strcspn(at, at[-1] == '"' ? "\"\n" : "'\n")
			    : strcspn(at, " \t\r\n;)\"'");
		if (n < 2 || n >= size)
			continue;
		memcpy(home, at, n);
		home[n] = '\0';
		break;
	}
	free(text);
	return r;
}

/* Every place where that path stands, and is not the beginning of another name. */
static int note_activate(struct analysis *a, const struct thaw_inode *inode,
			 const char *home, struct thaw_error *err)
{
	size_t home_len = strlen(home), len;
	char *text, *at;
	int r;

	if (inode->size > ACTIVATE_MAX)
		return 0;
	text = malloc(inode->size + 1);
	if (!text)
		return thaw_oom(err);
	r = analysis_read(a, inode, text, inode->size + 1, err, &len);
	for (at = text;
	     r == 0 && (at = memmem(at, (size_t)(text + len - at), home, home_len));
	     at += home_len) {
		if (at[home_len] != '\0' && !strchr("\"'/ \t\r\n;:)", at[home_len]))
			continue;
		r = add(a, inode->ino, (uint64_t)(at - text), THAW_RELOCATION_TEXT,
			(struct span){ home, home_len }, "", err);
	}
	free(text);
	return r;
}

int analysis_scripts(struct analysis *a, struct thaw_error *err)
{
	char home[THAW_PATH_MAX + 1];
	struct thaw_inode bin, child;
	struct thaw_name name;
	int r;

	if (!analysis_find(a, "bin", &bin) || bin.type != THAW_DIRECTORY)
		return 0;
	r = find_home(a, home, sizeof(home), err);
	for (uint64_t i = 0; r == 0 && i < bin.size; i++) {
		thaw_image_child(a->image, &bin, i, &name, &child);
		if (child.type != THAW_REGULAR)
			continue;
		if (!starts_activate(name))
			r = note_script(a, &child, err);
		else if (home[0])
			r = note_activate(a, &child, home, err);
	}
	return r;
}
