/* SPDX-License-Identifier: Apache-2.0 */
/* thaw run: a command in a view of its own. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "thaw/view.h"
#include "tool.h"
#include "util/cleanup.h"

/* As podman has it: everything else is the command's own. */
#define EXIT_THAW      125
#define EXIT_NOT_RUN   126
#define EXIT_NOT_FOUND 127

#ifdef THAW_WITH_FUSE
/* execvp() says "permission denied" for any directory of PATH that is closed to us. */
static bool is_in_path(const char *name)
{
	const char *path = getenv("PATH");

	for (; path && *path; path += strspn(path, ":")) {
		size_t len = strcspn(path, ":");
		char file[4096];

		if (snprintf(file, sizeof(file), "%.*s/%s", (int)len, path, name) <
			    (int)sizeof(file) &&
		    access(file, F_OK) == 0)
			return true;
		path += len;
	}
	return false;
}

/* On standard error, once: standard output is the command's alone. */
static void notice(const char *image, const char *text)
{
	fputs("thaw: ", stderr);
	tool_print_escaped(stderr, image, strlen(image));
	fprintf(stderr, ": %s\n", text);
}

static int run_in_view(struct thaw_view_options *view, char **argv)
{
	_cleanup_(freep) char *path = NULL;
	struct thaw_error err = { 0 };
	int error;

	view->notice = notice;
	if (thaw_view_enter(view, &err, &path) < 0 ||
	    thaw_view_environment(path, &err) < 0) {
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
static int run_in_view(struct thaw_view_options *view, char **argv)
{
	(void)tool_fail_text(THAW_EXIT_IO, view->image,
			     "this thaw was built without FUSE");
	return EXIT_THAW;
}
#endif

static int take_mode(void *userdata, const char *option, char *value)
{
	static const char *const names[] = {
		[THAW_VIEW_AUTO] = "auto",
		[THAW_VIEW_PRIVATE] = "private",
		[THAW_VIEW_EXTRACTED] = "extracted",
	};
	struct thaw_view_options *view = userdata;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], value) == 0) {
			view->mode = (enum thaw_view_mode)i;
			return THAW_EXIT_OK;
		}
	}
	return tool_bad_value("run", option, value, "auto, private or extracted");
}

static int run(int argc, char **argv)
{
	_cleanup_(freep) const char **layers = calloc((size_t)argc, sizeof(*layers));
	struct thaw_view_options view = { .layers = layers };
	size_t layer_count = 0;
	const struct tool_option options[] = {
		TOOL_TEXT("warm", 0, &view.warm),
		TOOL_FLAG("wait-warm", 0, &view.wait_warm),
		TOOL_FLAG("writable", 0, &view.writable),
		TOOL_SIZE("scratch-size", 0, &view.scratch_size),
		TOOL_LIST("layer", 0, layers, &layer_count, (size_t)argc),
		TOOL_CALL("mode", 0, take_mode, &view),
		TOOL_TEXT("python", 0, &view.python),
		TOOL_STOP,
		{ 0 },
	};
	int exit_code;
	char *image;

	if (!layers) {
		(void)tool_fail_errno("run", -ENOMEM);
		return EXIT_THAW;
	}
	if (!tool_options(&tool_run, argc, argv, options, &exit_code))
		return exit_code == THAW_EXIT_OK ? THAW_EXIT_OK : EXIT_THAW;
	view.layer_count = (unsigned)layer_count;
	view.writable = view.writable || view.scratch_size > 0;
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
		"  --writable       with a scratch layer of its own, which ends with it\n"
		"  --scratch-size=SIZE  the same, in memory, of at most SIZE\n"
		"  --layer=IMAGE    lay another image on top; may be given several times\n"
		"  --mode=MODE      private, extracted (without FUSE), or auto (default)\n"
		"  --python=PATH    interpreter for an environment that has none of its own\n"
		"  --help           show this help\n"
		"\n"
		"Exit codes: COMMAND's own; 125 thaw failed, 126 COMMAND cannot be run,\n"
		"127 COMMAND was not found.\n"
		"\n"
		"Example: thaw run environment.thaw -- python -c 'import numpy'\n",
};
