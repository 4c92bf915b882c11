/* SPDX-License-Identifier: Apache-2.0 */
/* thaw serve: the node service. */
#include <string.h>

#include "thaw/service.h"
#include "tool.h"

#ifdef THAW_WITH_FUSE
static int serve(const struct thaw_serve_options *options)
{
	struct thaw_error err = { 0 };
	int r = thaw_serve(options, &err);

	return r < 0 ? tool_fail("serve", &err) : THAW_EXIT_OK;
}
#else
static int serve(const struct thaw_serve_options *options)
{
	return tool_fail_text(THAW_EXIT_IO, "serve", "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	struct thaw_serve_options serving = { .linger = -1, .grace = -1 };
	const struct tool_option options[] = {
		TOOL_TEXT("socket", 0, &serving.socket),
		TOOL_TEXT("metrics", 0, &serving.metrics),
		TOOL_NUMBER("linger", 0, &serving.linger, 0, 86400),
		TOOL_NUMBER("grace", 0, &serving.grace, 0, 86400),
		TOOL_FLAG("no-learn", 0, &serving.no_learn),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_serve, argc, argv, options, &exit_code))
		return exit_code;
	if (argc != optind)
		return tool_usage("serve", "no argument is taken");
	return serve(&serving);
}

const struct tool_command tool_serve = {
	.name = "serve",
	.run = run,
	.summary = "run the node service",
	.help = "Usage: thaw serve [OPTION...]\n"
		"\n"
		"Runs the node service: it opens views of images for sessions, lets all views\n"
		"of an image share one worker, and ends each view when its session is over.\n"
		"As root, views are overlays; as an ordinary user, plain mounts. Stopping or\n"
		"restarting the service leaves all views as they are.\n"
		"\n"
		"  --socket=PATH     listen there (default: socket in the run-time directory,\n"
		"                    /run/thaw for root)\n"
		"  --metrics=FILE    keep metrics in FILE, as Prometheus text\n"
		"  --linger=SECONDS  how long an image stays mounted after its last view (10)\n"
		"  --grace=SECONDS   how long views outlive a lost connection (60)\n"
		"  --no-learn        record nothing of what is touched in images without a\n"
		"                    warm set, and use nothing that was recorded\n"
		"  --help            show this help\n",
};
