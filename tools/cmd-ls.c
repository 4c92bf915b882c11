/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thaw ls: list an image in the manner of ls(1). A directory's records are
 * sorted already, so listing needs no memory beyond the column widths.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"
#include "util/cleanup.h"

static bool arg_long, arg_recursive, arg_all, arg_directory, arg_json, arg_columns;

struct listing {
	const char *file;
	const struct thaw_image *image;
	bool terminal;
	unsigned columns;
	time_t now;
	bool first; /* nothing printed yet: no blank line, no comma */
};

/* One thing to print: a name in a directory, or a path from the command line. */
struct item {
	struct thaw_name name;
	struct thaw_inode inode;
};

static size_t name_width(const struct listing *ls, struct thaw_name name)
{
	return ls->terminal ? tool_escaped_width(name.text, name.len) : name.len;
}

static void print_name(const struct listing *ls, const char *text, size_t len)
{
	if (ls->terminal)
		tool_print_escaped(stdout, text, len);
	else
		(void)fwrite(text, 1, len, stdout); /* ferror() is asked at the end */
}

static void mode_text(const struct thaw_inode *inode, char buf[11])
{
	static const char letters[] = "rwxrwxrwx";

	buf[0] = tool_type_letter(inode->type);
	for (unsigned i = 0; i < 9; i++)
		buf[1 + i] = inode->mode >> (8 - i) & 1 ? letters[i] : '-';
	buf[10] = '\0';
}

/* As ls(1): the time of day for the last half year, the year otherwise. */
static void date_text(const struct listing *ls, uint32_t mtime, char buf[TOOL_TIME_TEXT])
{
	const time_t half_year = 31556952 / 2;
	time_t when = (time_t)mtime;
	struct tm parts;
	bool recent = when <= ls->now && when > ls->now - half_year;

	if (!localtime_r(&when, &parts) ||
	    strftime(buf, TOOL_TIME_TEXT, recent ? "%b %e %H:%M" : "%b %e  %Y", &parts) ==
		    0)
		(void)snprintf(buf, TOOL_TIME_TEXT, "%12u", mtime); /* fits */
}

struct widths {
	int nlink, size;
};

static int digits(uint64_t value)
{
	int n = 1;

	for (; value >= 10; value /= 10)
		n++;
	return n;
}

static void widen(struct widths *widths, const struct thaw_inode *inode)
{
	int nlink = digits(inode->nlink), size = digits(inode->size);

	widths->nlink = nlink > widths->nlink ? nlink : widths->nlink;
	widths->size = size > widths->size ? size : widths->size;
}

static void print_long(const struct listing *ls, const struct item *item,
		       const struct widths *widths)
{
	char mode[11], date[TOOL_TIME_TEXT];

	mode_text(&item->inode, mode);
	date_text(ls, item->inode.mtime, date);
	printf("%s %*u root root %*llu %s ", mode, widths->nlink, item->inode.nlink,
	       widths->size, (unsigned long long)item->inode.size, date);
	print_name(ls, item->name.text, item->name.len);
	if (item->inode.type == THAW_SYMLINK) {
		const char *target = thaw_image_target(ls->image, &item->inode);

		fputs(" -> ", stdout);
		print_name(ls, target, strlen(target));
	}
	fputc('\n', stdout);
}

/* path is complete: directories' entries are named from the root. */
static int print_json(struct listing *ls, const char *path, size_t path_len,
		      const struct thaw_inode *inode)
{
	json_t *object = json_object();
	char mode[8];
	int r;

	(void)snprintf(mode, sizeof(mode), "%04o", inode->mode); /* fits */
	tool_json_name(object, "path", path, path_len);
	(void)json_object_set_new(object, "type",
				  json_string(tool_type_name(inode->type)));
	(void)json_object_set_new(object, "mode", json_string(mode));
	(void)json_object_set_new(object, "size", json_integer((json_int_t)inode->size));
	(void)json_object_set_new(object, "mtime", json_integer(inode->mtime));
	(void)json_object_set_new(object, "nlink", json_integer(inode->nlink));
	(void)json_object_set_new(object, "ino", json_integer(inode->ino));
	if (inode->type == THAW_SYMLINK) {
		const char *target = thaw_image_target(ls->image, inode);

		tool_json_name(object, "target", target, strlen(target));
	}
	fputs(ls->first ? "\n" : ",\n", stdout);
	ls->first = false;
	r = object ? json_dumpf(object, stdout, 0) : -1;
	json_decref(object);
	return r < 0 && !ferror(stdout) ? tool_fail_errno(ls->file, -ENOMEM)
					: THAW_EXIT_OK;
}

/* Which children are shown: entry 0 and 1 are "." and ".." with -a. */
static uint64_t item_count(const struct thaw_inode *directory)
{
	return directory->size + (arg_all && !arg_json ? 2 : 0);
}

static bool get_item(const struct listing *ls, const struct thaw_inode *directory,
		     uint64_t position, struct item *ret_item)
{
	if (arg_all && !arg_json) {
		if (position < 2) {
			ret_item->name = (struct thaw_name){ .text = "..",
							     .len = position + 1 };
			ret_item->inode = *directory;
			/* the parent of a directory is one: cannot fail */
			return position == 0 ||
			       thaw_image_inode(ls->image, directory->parent,
						&ret_item->inode) == 0;
		}
		position -= 2;
	}
	thaw_image_child(ls->image, directory, position, &ret_item->name,
			 &ret_item->inode);
	return arg_all || ret_item->name.text[0] != '.';
}

/* Column by column, as many columns as fit. */
static int print_columns(const struct listing *ls, const struct thaw_inode *directory)
{
	uint64_t total = item_count(directory), count = 0, rows;
	_cleanup_(freep) size_t *widths = NULL;
	_cleanup_(freep) uint64_t *shown = NULL;
	size_t columns, narrowest = SIZE_MAX;
	struct item item;

	if (total == 0)
		return THAW_EXIT_OK;
	widths = calloc(total, sizeof(*widths));
	shown = calloc(total, sizeof(*shown));
	if (!widths || !shown)
		return tool_fail_errno(ls->file, -ENOMEM);
	for (uint64_t i = 0; i < total; i++) {
		if (!get_item(ls, directory, i, &item))
			continue;
		widths[count] = name_width(ls, item.name);
		narrowest = widths[count] < narrowest ? widths[count] : narrowest;
		shown[count++] = i;
	}
	if (count == 0)
		return THAW_EXIT_OK;
	columns = ls->columns / (narrowest + 2) + 1;
	columns = columns > count ? count : columns;
	for (;; columns--) {
		size_t used = 0;

		rows = (count + columns - 1) / columns;
		for (uint64_t first = 0; first < count && used <= ls->columns;
		     first += rows) {
			size_t widest = 0;

			for (uint64_t i = first; i < first + rows && i < count; i++)
				widest = widths[i] > widest ? widths[i] : widest;
			used += widest + (first + rows < count ? 2 : 0);
		}
		if (used <= ls->columns || columns == 1)
			break;
	}
	for (uint64_t row = 0; row < rows; row++) {
		for (uint64_t at = row; at < count; at += rows) {
			uint64_t first = at - row;
			size_t widest = 0;

			(void)get_item(ls, directory, shown[at],
				       &item); /* shown, as before */
			print_name(ls, item.name.text, item.name.len);
			if (at + rows >= count)
				break;
			for (uint64_t i = first; i < first + rows; i++)
				widest = widths[i] > widest ? widths[i] : widest;
			printf("%*s", (int)(widest + 2 - widths[at]), "");
		}
		fputc('\n', stdout);
	}
	return THAW_EXIT_OK;
}

static int print_directory(struct listing *ls, const struct thaw_inode *directory,
			   const char *path, size_t path_len)
{
	uint64_t total = item_count(directory);
	struct widths widths = { 0 };
	struct item item;

	if (arg_columns && !arg_long && !arg_json)
		return print_columns(ls, directory);
	for (uint64_t i = 0; arg_long && i < total; i++)
		if (get_item(ls, directory, i, &item))
			widen(&widths, &item.inode);
	for (uint64_t i = 0; i < total; i++) {
		int r = THAW_EXIT_OK;

		if (!get_item(ls, directory, i, &item))
			continue;
		if (arg_json) {
			char full[THAW_PATH_MAX + THAW_NAME_MAX + 2];
			size_t used = path_len;

			memcpy(full, path, path_len);
			if (used > 0)
				full[used++] = '/';
			memcpy(full + used, item.name.text, item.name.len);
			r = print_json(ls, full, used + item.name.len, &item.inode);
		} else if (arg_long) {
			print_long(ls, &item, &widths);
		} else {
			print_name(ls, item.name.text, item.name.len);
			fputc('\n', stdout);
		}
		if (r)
			return r;
	}
	return THAW_EXIT_OK;
}

static void print_header(struct listing *ls, const char *path, size_t len)
{
	if (arg_json)
		return;
	if (!ls->first)
		fputc('\n', stdout);
	print_name(ls, path, len);
	fputs(":\n", stdout);
}

/*
 * The directory and, with -R, those beneath it: depth first, without recursion
 * and without a stack, since a child knows its parent and its place there. Its
 * path is kept in one buffer, cut and extended as the walk goes.
 */
static int list_directory(struct listing *ls, const char *shown,
			  const struct thaw_inode *top, bool header)
{
	char path[THAW_PATH_MAX + 1];
	struct thaw_inode directory = *top;
	size_t len = strlen(shown);
	uint64_t position = 0;
	int r;

	if (len > THAW_PATH_MAX)
		return tool_fail_path(ls->file, shown, -ENAMETOOLONG);
	if (arg_json) {
		/* named from the root, however the command line put it */
		thaw_image_path(ls->image, top->ino, path, sizeof(path));
		len = top->ino == THAW_ROOT ? 0 : strlen(path);
	} else {
		memcpy(path, shown, len + 1);
		while (len > 1 && path[len - 1] == '/')
			len--;
	}
	if (header)
		print_header(ls, path, len);
	r = print_directory(ls, &directory, path, len);
	ls->first = ls->first && arg_json;
	while (r == 0 && arg_recursive) {
		struct thaw_inode child;
		struct thaw_name name;

		if (position < directory.size) {
			bool slash = len > 0 && path[len - 1] != '/';

			thaw_image_child(ls->image, &directory, position, &name, &child);
			if (child.type != THAW_DIRECTORY ||
			    (!arg_all && name.text[0] == '.')) {
				position++;
				continue;
			}
			if (len + slash + name.len > THAW_PATH_MAX)
				return tool_fail_path(ls->file, path, -ENAMETOOLONG);
			if (slash)
				path[len++] = '/';
			memcpy(path + len, name.text, name.len);
			len += name.len;
			directory = child;
			position = 0;
			print_header(ls, path, len);
			r = print_directory(ls, &directory, path, len);
			continue;
		}
		if (directory.ino == top->ino)
			break;
		/* Back up. A directory's number is its record's, so its place is known. */
		position = directory.ino;
		if (thaw_image_inode(ls->image, directory.parent, &directory) < 0)
			break; /* cannot be: the index was checked */
		position = position - directory.data + 1;
		while (len > 0 && path[len - 1] != '/')
			len--;
		if (len > 1)
			len--;
	}
	return r;
}

static bool only_name(const struct thaw_inode *inode)
{
	return arg_directory || inode->type != THAW_DIRECTORY;
}

/* Paths of the command line that are no directories: one group, before the others. */
static int list_files(struct listing *ls, char **paths, const struct thaw_inode *inodes,
		      const int *errors, int count)
{
	struct widths widths = { 0 };
	int r = THAW_EXIT_OK;

	for (int i = 0; i < count; i++)
		if (!errors[i] && only_name(&inodes[i]))
			widen(&widths, &inodes[i]);
	for (int i = 0; r == 0 && i < count; i++) {
		struct item item = {
			.name = { .text = paths[i], .len = strlen(paths[i]) },
			.inode = inodes[i],
		};

		if (errors[i] || !only_name(&inodes[i]))
			continue;
		if (arg_json) {
			const char *path = paths[i] + strspn(paths[i], "/");

			r = print_json(ls, path, strlen(path), &inodes[i]);
			continue;
		}
		if (arg_long) {
			print_long(ls, &item, &widths);
		} else {
			print_name(ls, item.name.text, item.name.len);
			fputc('\n', stdout);
		}
		ls->first = false;
	}
	return r;
}

static int list_paths(struct listing *ls, char **paths, int count)
{
	_cleanup_(freep) struct thaw_inode *inodes = calloc((size_t)count,
							    sizeof(*inodes));
	_cleanup_(freep) int *errors = calloc((size_t)count, sizeof(*errors));
	int r, worst = THAW_EXIT_OK;

	if (!inodes || !errors)
		return tool_fail_errno(ls->file, -ENOMEM);
	for (int i = 0; i < count; i++) {
		/* As ls(1): a link to a directory is listed, unless asked about itself. */
		errors[i] = tool_resolve(ls->image, paths[i], !arg_long && !arg_directory,
					 &inodes[i]);
		/* A link that leads nowhere is still a link. */
		if (errors[i] == -ENOENT || errors[i] == -EXDEV || errors[i] == -ELOOP)
			if (tool_resolve(ls->image, paths[i], false, &inodes[i]) == 0)
				errors[i] = 0;
		if (errors[i])
			worst = tool_fail_path(ls->file, paths[i], errors[i]);
	}
	if (arg_json)
		fputc('[', stdout);
	r = list_files(ls, paths, inodes, errors, count);
	for (int i = 0; r == 0 && i < count; i++)
		if (!errors[i] && !only_name(&inodes[i]))
			r = list_directory(ls, paths[i], &inodes[i],
					   count > 1 || arg_recursive);
	if (arg_json)
		fputs(ls->first ? "]\n" : "\n]\n", stdout);
	return r ? r : worst;
}

static int run(int argc, char **argv)
{
	static char root[] = ".";
	char *top = root;
	struct listing ls = { .first = true, .columns = 80 };
	struct thaw_image *image;
	struct winsize size;
	bool single = false;
	const struct tool_option options[] = {
		TOOL_FLAG("long", 'l', &arg_long),
		TOOL_FLAG("recursive", 'R', &arg_recursive),
		TOOL_FLAG("all", 'a', &arg_all),
		TOOL_FLAG("directory", 'd', &arg_directory),
		TOOL_FLAG(NULL, '1', &single),
		TOOL_FLAG("json", 0, &arg_json),
		{ 0 },
	};
	int r, exit_code;

	if (!tool_options(&tool_ls, argc, argv, options, &exit_code))
		return exit_code;
	if (optind == argc)
		return tool_usage("ls", "an image is needed");
	ls.file = argv[optind++];
	ls.terminal = isatty(STDOUT_FILENO);
	ls.now = time(NULL);
	arg_columns = ls.terminal && !single;
	/* A program that asks for JSON wants every name. */
	arg_all = arg_all || arg_json;
	if (ls.terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
	    size.ws_col > 0)
		ls.columns = size.ws_col;
	r = tool_open_image(ls.file, &image);
	if (r)
		return r;
	ls.image = image;
	r = optind < argc ? list_paths(&ls, argv + optind, argc - optind)
			  : list_paths(&ls, &top, 1);
	thaw_image_free(image);
	return r;
}

const struct tool_command tool_ls = {
	.name = "ls",
	.run = run,
	.summary = "list what is inside an image",
	.help = "Usage: thaw ls [OPTION...] IMAGE [PATH...]\n"
		"\n"
		"Lists files inside IMAGE in the manner of ls(1); by default its top\n"
		"directory: one name a line, in columns on a terminal.\n"
		"\n"
		"Options:\n"
		"  -l, --long       mode, links, owner, size, date, name and link target\n"
		"                   (a directory's size is its number of entries)\n"
		"  -R, --recursive  directories beneath as well\n"
		"  -a, --all        names that begin with a dot as well\n"
		"  -d, --directory  directories themselves, not what is in them\n"
		"  -1               one name a line\n"
		"  --json           an array with one object an entry (implies --all)\n"
		"  --help           show this help\n",
};
