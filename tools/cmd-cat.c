/* SPDX-License-Identifier: Apache-2.0 */
/* thaw cat: the bytes of files. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "tool.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define CHUNK (1u << 20)

/* *ret_stop: nothing more can be written. */
static int cat_file(const char *file, const char *path, struct thaw_reader *reader,
		    const struct thaw_inode *inode, char *buf, bool *ret_stop)
{
	for (uint64_t offset = 0; offset < inode->size;) {
		struct thaw_error err = { 0 };
		size_t n;
		int r;

		r = thaw_reader_read(reader, inode, offset, buf, CHUNK, &err, &n);
		if (r < 0)
			return tool_fail_inside(file, path, &err);
		if (n == 0) /* cannot be: the index was checked */
			return tool_fail_path(file, path, -EIO);
		r = write_all(STDOUT_FILENO, buf, n);
		if (r < 0) {
			*ret_stop = true;
			return tool_fail_output(r);
		}
		offset += n;
	}
	return THAW_EXIT_OK;
}

static int cat_path(const char *file, const struct thaw_image *image,
		    struct thaw_reader *reader, const char *path, char *buf,
		    bool *ret_stop)
{
	struct thaw_inode inode;
	int r;

	r = tool_resolve(image, path, true, &inode);
	if (r == 0 && inode.type == THAW_DIRECTORY)
		r = -EISDIR;
	if (r < 0)
		return tool_fail_path(file, path, r);
	return cat_file(file, path, reader, &inode, buf, ret_stop);
}

static int run(int argc, char **argv)
{
	static const struct tool_option options[] = { { 0 } };
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;
	_cleanup_(freep) char *buf = NULL;
	int r, exit_code, worst = THAW_EXIT_OK;
	struct thaw_image *image;
	bool stop = false;
	const char *file;

	if (!tool_options(&tool_cat, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind < 2)
		return tool_usage("cat", "an image and at least one path are needed");
	file = argv[optind];
	r = tool_open_image(file, &image);
	if (r)
		return r;
	buf = malloc(CHUNK);
	r = buf ? tool_open_reader(file, image, &reader) : tool_fail_errno(file, -ENOMEM);
	/* As cat(1): the other files all the same, and the first failure's code. */
	for (int i = optind + 1; r == 0 && i < argc && !stop; i++) {
		int one = cat_path(file, image, reader, argv[i], buf, &stop);

		worst = worst ? worst : one;
	}
	reader = thaw_reader_free(reader);
	thaw_image_free(image);
	return r ? r : worst;
}

const struct tool_command tool_cat = {
	.name = "cat",
	.run = run,
	.summary = "write files of an image to standard output",
	.help = "Usage: thaw cat IMAGE PATH...\n"
		"\n"
		"Writes the bytes of files inside IMAGE to standard output, one after the\n"
		"other. Symlinks are followed where they stay inside the image.\n"
		"\n"
		"Options:\n"
		"  --help  show this help\n",
};
