/* SPDX-License-Identifier: Apache-2.0 */
/* thaw report: one page about an image, or a mount. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "report.h"
#include "tool.h"
#include "util/cleanup.h"

struct arguments {
	const char *output, *bench;
	bool json, force;
	char *const *command; /* NULL-terminated; or NULL */
};

/* -- writing -- */

/* The whole of it in memory: a page is written only once nothing can fail any more. */
static int render(const struct report *report, bool json, char **ret_text,
		  size_t *ret_len)
{
	FILE *memory = open_memstream(ret_text, ret_len);
	json_t *object;
	int r = 0;

	if (!memory)
		return -ENOMEM;
	if (json) {
		object = report_json(report);
		r = json_dumpf(object, memory, JSON_INDENT(2));
		json_decref(object);
		fputc('\n', memory);
	} else {
		report_write_page(report, memory);
	}
	if (ferror(memory))
		r = -1;
	return fclose(memory) == 0 && r == 0 ? 0 : -ENOMEM;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Whole or not at all; what is there is replaced only when asked for. */
static int write_file(const char *path, bool force, const char *text, size_t len)
{
	_cleanup_(freep) char *temporary = NULL;
	_cleanup_(closep) int fd = -1;
	int r;

	if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (r == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0))
		r = -errno;
	if (r == 0 && force)
		r = rename(temporary, path) < 0 ? -errno : 0;
	else if (r == 0)
		r = renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) < 0
			    ? -errno
			    : 0;
	if (r < 0)
		(void)unlink(temporary); /* it is ours; r says what went wrong */
	return r;
}

static int refuse_existing(const char *path)
{
	return tool_fail_text(THAW_EXIT_REFUSED, path, "exists (--force replaces it)");
}

static int write_report(const struct report *report, const struct arguments *arguments)
{
	_cleanup_(freep) char *text = NULL;
	size_t len = 0;
	int r = render(report, arguments->json, &text, &len);

	if (r < 0)
		return tool_fail_errno(report->name, r);
	if (!arguments->output) {
		(void)fwrite(text, 1, len, stdout); /* main() finds failures */
		return THAW_EXIT_OK;
	}
	r = write_file(arguments->output, arguments->force, text, len);
	if (r == -EEXIST)
		return refuse_existing(arguments->output);
	return r < 0 ? tool_fail_errno(arguments->output, r) : THAW_EXIT_OK;
}

/* -- gathering -- */

static int load_meta(struct report *report)
{
	size_t len;
	const char *text = thaw_image_meta(report->image, &len);

	report->meta = len ? json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL)
			   : json_object();
	if (!json_is_object(report->meta))
		return tool_fail_text(THAW_EXIT_DAMAGED, report->name,
				      "damaged: its meta section is no JSON object");
	return THAW_EXIT_OK;
}

static int load_bench(struct report *report, const char *path)
{
	json_error_t where;
	int fd;

	if (!path)
		return THAW_EXIT_OK;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return tool_fail_errno(path, -errno);
	report->bench = json_loadfd(fd, JSON_REJECT_DUPLICATES, &where);
	(void)safe_close(fd);
	if (!json_is_object(report->bench) ||
	    !json_is_array(json_object_get(report->bench, "tables")))
		return tool_fail_text(THAW_EXIT_DAMAGED, path,
				      "is no result of tools/bench --json");
	return THAW_EXIT_OK;
}

/* A directory is a mount: then its worker's counters, and the image that it serves. */
static int find_image(struct report *report, char **ret_path)
{
	struct stat st;

	report->file = report->name;
	if (stat(report->name, &st) < 0 || !S_ISDIR(st.st_mode))
		return THAW_EXIT_OK;
#ifdef THAW_WITH_FUSE
	struct thaw_error err = { 0 };

	if (thaw_stat_directory(report->name, &err, &report->live) < 0 ||
	    thaw_mounted_image(&report->live, &err, ret_path) < 0)
		return tool_fail(report->name, &err);
	report->has_live = true;
	report->file = *ret_path;
	return THAW_EXIT_OK;
#else
	return tool_fail_text(THAW_EXIT_IO, report->name,
			      "this thaw was built without FUSE");
#endif
}

static int gather(struct report *report, const struct arguments *arguments,
		  char **ret_path)
{
	struct thaw_error err = { 0 };
	int r;

	r = load_bench(report, arguments->bench);
	if (r == 0)
		r = find_image(report, ret_path);
	if (r == 0)
		r = tool_open_image(report->file, &report->image);
	if (r == 0)
		r = load_meta(report);
	if (r == 0)
		r = report_find_pages(report);
	/* Before the reader is used: what it reads would be in the cache already. */
	if (r == 0 && arguments->command)
		r = report_run(report, arguments->command);
	if (r == 0)
		r = tool_open_reader(report->file, report->image, &report->reader);
	if (r == 0 && tool_packages_find(report->image, report->reader, &err,
					 &report->packages) < 0)
		r = tool_fail(report->name, &err);
	if (r == 0)
		r = report_find_groups(report);
	return r;
}

static int make_report(const char *name, const struct arguments *arguments)
{
	_cleanup_(freep) char *path = NULL;
	struct report report = { .name = name };
	int r;

	r = gather(&report, arguments, &path);
	if (r == 0)
		r = write_report(&report, arguments);
	report_groups_deinit(&report);
	report_pages_deinit(&report);
	if (report.run)
		free(report.run->bits);
	free(report.run);
	tool_packages_deinit(&report.packages);
	json_decref(report.meta);
	json_decref(report.bench);
	thaw_reader_free(report.reader);
	thaw_image_free(report.image);
	return r;
}

static int run(int argc, char **argv)
{
	struct arguments arguments = { 0 };
	const char *name = NULL;
	const struct tool_option options[] = {
		TOOL_TEXT("output", 'o', &arguments.output),
		TOOL_TEXT("bench", 0, &arguments.bench),
		TOOL_FLAG("force", 0, &arguments.force),
		TOOL_FLAG("json", 0, &arguments.json),
		TOOL_ARGUMENT(&name),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_report, argc, argv, options, &exit_code))
		return exit_code;
	if (optind < argc)
		arguments.command = argv + optind;
	if (!name)
		return tool_usage("report", "an image or a mount is needed");
	if (!arguments.output && !arguments.json && isatty(STDOUT_FILENO))
		return tool_usage("report", "name a file for the page with -o");
	/* Now, not after the work; that nobody is faster is checked when it is written. */
	if (arguments.output && !arguments.force && access(arguments.output, F_OK) == 0)
		return refuse_existing(arguments.output);
	return make_report(name, &arguments);
}

const struct tool_command tool_report = {
	.name = "report",
	.run = run,
	.summary = "make a page with pictures of an image and of a first run",
	.help = "Usage: thaw report [OPTION...] IMAGE|DIR [-- COMMAND [ARGUMENT...]]\n"
		"\n"
		"Writes one HTML page, which needs nothing else, about IMAGE, or about what is\n"
		"mounted at DIR (then with the counters of its worker): the environment by\n"
		"package, with what warm sets hold of it. With COMMAND, also how a first run of\n"
		"it goes in a fresh private view: requests, pushes, decompression, what COMMAND\n"
		"waits for, and how well the warm sets fit. COMMAND is run three times; what it\n"
		"prints goes to standard error. When it fails, no page is written.\n"
		"\n"
		"  -o, --output=FILE  write to FILE (default: standard output, if no terminal)\n"
		"  --bench=FILE       show the results of tools/bench --json=FILE as well\n"
		"  --force            replace FILE\n"
		"  --json             the figures as JSON instead of a page\n"
		"  --help             show this help\n"
		"\n"
		"Example: thaw report -o page.html environment.thaw -- python -c 'import pandas'\n",
};
