/* SPDX-License-Identifier: Apache-2.0 */
/* thaw run: a command in a private view of an image. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "thaw/view.h"
#include "tool.h"
#include "util/cleanup.h"

/* As podman has it: everything else is the command's own. */
#define EXIT_THAW	125
#define EXIT_NOT_RUN	126
#define EXIT_NOT_FOUND	127

#ifdef THAW_WITH_FUSE
/* execvp() says "permission denied" for any directory of PATH that is closed to us. */
static bool is_in_path(const char *name)
{
	const char *path = getenv("PATH");

	for (; path && *path; path += strspn(path, ":")) {
		size_t len = strcspn(path, ":");
		char file[4096];

		if (snprintf(file, sizeof(file), "%.*s/%s", (int)len, path, name) < (int)sizeof(file) &&
		    access(file, F_OK) == 0)
			return true;
		path += len;
	}
	return false;
}

static int run_in_view(const struct thaw_view_options *view, char **argv)
{
	_cleanup_(freep) char *path = NULL;
	struct thaw_error err = { 0 };
	int error;

	if (thaw_view_enter(view, &err, &path) < 0 || thaw_view_environment(path, &err) < 0) {
		(void)tool_fail(view->image, &err);
		return EXIT_THAW;
	}
	(void)signal(SIGPIPE, SIG_DFL); /* main() ignores it, and exec keeps that */
	execvp(argv[0], argv);
	error = -errno;
	if (error == -EACCES && !strchr(argv[0], '/') && !is_in_path(argv[0]))
		error = -ENOENT;
	(void)tool_fail_errno(argv[0], error);
	return error == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUN;
}
#else
static int run_in_view(const struct thaw_view_options *view, char **argv)
{
	(void)tool_fail_text(THAW_EXIT_IO, view->image, "this thaw was built without FUSE");
	return EXIT_THAW;
}
#endif

static int run(int argc, char **argv)
{
	enum { OPT_WARM = TOOL_BAD_OPTION + 1, OPT_WAIT_WARM };
	static const struct option options[] = {
		{ "warm", required_argument, NULL, OPT_WARM },
		{ "wait-warm", no_argument, NULL, OPT_WAIT_WARM },
		{ "help", no_argument, NULL, TOOL_HELP },
		{ 0 },
	};
	struct thaw_view_options view = { 0 };
	char *image;
	int c;

	while ((c = tool_getopt(&tool_run, argc, argv, "+:", options)) != -1) {
		switch (c) {
		case OPT_WARM:
			view.warm = optarg;
			break;
		case OPT_WAIT_WARM:
			view.wait_warm = true;
			break;
		case TOOL_HELP:
			return THAW_EXIT_OK;
		default:
			return EXIT_THAW;
		}
	}
	image = optind < argc ? argv[optind++] : NULL;
	if (optind < argc && strcmp(argv[optind], "--") == 0)
		optind++;
	if (!image || optind == argc) {
		(void)tool_usage("run", "an image and a command are needed");
		return EXIT_THAW;
	}
	tool_split_alias(image, &view.alias);
	view.image = image;
	return run_in_view(&view, argv + optind);
}

const struct tool_command tool_run = {
	.name = "run",
	.run = run,
	.summary = "run a command in a private view of an image",
	.help = "Usage: thaw run [OPTION...] IMAGE[#ALIAS] [--] COMMAND [ARGUMENT...]\n"
		"\n"
		"Runs COMMAND with the image's environment in front of its PATH. Only COMMAND\n"
		"and what it starts see the environment, which is gone when they have ended.\n"
		"Needs no privileges. THAW_ENV tells COMMAND where the environment is.\n"
		"\n"
		"  IMAGE#ALIAS      at ./ALIAS (missing or empty); else at a place of thaw's\n"
		"  --warm=SETS      warm sets to use: all (default), none, or a name\n"
		"  --wait-warm      begin only when the warm set is in memory\n"
		"  --help           show this help\n"
		"\n"
		"Exit codes: COMMAND's own; 125 thaw failed, 126 COMMAND cannot be run,\n"
		"127 COMMAND was not found.\n"
		"\n"
		"Example: thaw run environment.thaw -- python -c 'import numpy'\n",
};
