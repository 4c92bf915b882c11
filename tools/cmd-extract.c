/* SPDX-License-Identifier: Apache-2.0 */
/* thaw extract: an image as a plain tree, or as its tar stream. */
#include "thaw/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "progress.h"
#include "tool.h"
#include "util/cleanup.h"

static int extract_tree(const char *file, const char *directory, const char *prefix,
			struct thaw_pass_options *options, struct tool_progress *progress)
{
	struct thaw_error err = { 0 };
	struct thaw_image *image;
	int r;

	r = tool_open_image(file, &image);
	if (r)
		return r;
	r = thaw_extract_at(image, directory, prefix, options, &err);
	tool_progress_clear(progress);
	thaw_image_free(image);
	if (r == -EINTR && tool_interrupted())
		return tool_fail_interrupted(directory, "nothing is left of the tree");
	return r < 0 ? tool_fail(file, &err) : THAW_EXIT_OK;
}

/* *ret_made: a file that was not there before, to be removed on failure. */
static int open_output(const char *path, int *ret_fd, bool *ret_made)
{
	struct stat st;
	int fd;

	*ret_made = false;
	if (strcmp(path, "-") == 0) {
		fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	} else {
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		*ret_made = fd >= 0;
		if (fd < 0 && errno == EEXIST) {
			/* A pipe or a device is there to be written to; a file is not. */
			if (stat(path, &st) == 0 &&
			    (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
				return tool_fail_text(
					THAW_EXIT_REFUSED, path,
					"exists already, and is left alone");
			fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
		}
	}
	if (fd < 0)
		return tool_fail_errno(path, -errno);
	*ret_fd = fd;
	return THAW_EXIT_OK;
}

static int extract_tar(const char *file, const char *output,
		       struct thaw_pass_options *options, struct tool_progress *progress)
{
	struct thaw_source *source;
	struct thaw_error err = { 0 };
	_cleanup_(closep) int fd = -1;
	bool made;
	int r;

	r = thaw_source_open(file, &err, &source);
	if (r < 0)
		return tool_fail(file, &err);
	r = open_output(output, &fd, &made);
	if (r) {
		thaw_source_free(source);
		return r;
	}
	r = thaw_extract_stream(source, fd, options, &err);
	tool_progress_clear(progress);
	thaw_source_free(source);
	/* Network file systems report a failed write when the file is closed. */
	if (r == 0 && close(steal_fd(&fd)) < 0)
		r = thaw_io(&err, -errno, "the output cannot be written");
	if (r < 0 && made)
		(void)unlink(output); /* the first failure is the one to report */
	if (r == -EINTR && tool_interrupted())
		return tool_fail_interrupted(output, made ? "nothing is left of it"
							  : "the stream is not complete");
	return r < 0 ? tool_fail(file, &err) : THAW_EXIT_OK;
}

static int run(int argc, char **argv)
{
	struct thaw_pass_options pass = { 0 };
	struct tool_progress progress;
	const char *prefix = NULL;
	bool tar = false, quiet = false;
	const struct tool_option options[] = {
		TOOL_THREADS(&pass.threads),
		TOOL_FLAG("tar", 0, &tar),
		TOOL_TEXT("prefix", 0, &prefix),
		TOOL_FLAG("quiet", 0, &quiet),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_extract, argc, argv, options, &exit_code))
		return exit_code;
	if (prefix && prefix[0] != '/')
		return tool_bad_value("extract", "prefix", prefix, "absolute");
	if (argc - optind != 2)
		return tool_usage("extract", "an image and a %s are needed",
				  tar ? "file (or -)" : "directory");
	if (tar && prefix)
		return tool_usage("extract", "--tar and --prefix exclude each other");
	tool_catch_interrupts();
	tool_progress_start(&progress, "extracting", quiet);
	pass.progress = tool_progress_pass;
	pass.progress_data = &progress;
	if (tar)
		return extract_tar(argv[optind], argv[optind + 1], &pass, &progress);
	return extract_tree(argv[optind], argv[optind + 1], prefix, &pass, &progress);
}

const struct tool_command tool_extract = {
	.name = "extract",
	.run = run,
	.summary = "write an image out as a plain tree, or as a tar file",
	.help = "Usage: thaw extract [--threads N] [--prefix PATH] IMAGE DIR\n"
		"       thaw extract --tar IMAGE FILE\n"
		"\n"
		"Writes the environment in IMAGE into DIR, which must not exist, or be\n"
		"empty. Every byte is verified. On failure nothing is left behind.\n"
		"\n"
		"Options:\n"
		"  --threads N  threads to use (default: one for each CPU)\n"
		"  --prefix PATH\n"
		"               write files that hold the environment's own path as they\n"
		"               must be when it stands at PATH (default: as packed)\n"
		"  --tar        write the tar stream to FILE (- is standard output); this\n"
		"               works for images that need a newer thaw, too\n"
		"  --quiet      no progress bar\n"
		"  --help       show this help\n",
};
