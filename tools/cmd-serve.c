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
	enum {
		OPT_SOCKET = TOOL_BAD_OPTION + 1,
		OPT_METRICS,
		OPT_LINGER,
		OPT_GRACE,
		OPT_NO_LEARN
	};
	static const struct option options[] = {
		{ "socket", required_argument, NULL, OPT_SOCKET },
		{ "metrics", required_argument, NULL, OPT_METRICS },
		{ "linger", required_argument, NULL, OPT_LINGER },
		{ "grace", required_argument, NULL, OPT_GRACE },
		{ "no-learn", no_argument, NULL, OPT_NO_LEARN },
		{ "help", no_argument, NULL, TOOL_HELP },
		{ 0 },
	};
	struct thaw_serve_options serving = { .linger = -1, .grace = -1 };
	uint64_t number;
	int c;

	while ((c = tool_getopt(&tool_serve, argc, argv, ":", options)) != -1) {
		switch (c) {
		case OPT_SOCKET:
			serving.socket = optarg;
			break;
		case OPT_METRICS:
			serving.metrics = optarg;
			break;
		case OPT_NO_LEARN:
			serving.no_learn = true;
			break;
		case OPT_LINGER:
		case OPT_GRACE:
			if (!tool_parse_number(optarg, 0, 86400, &number))
				return tool_usage(
					"serve",
					"'%s' is no number of seconds (0 to 86400)",
					optarg);
			if (c == OPT_LINGER)
				serving.linger = (int)number;
			else
				serving.grace = (int)number;
			break;
		default:
			return c == TOOL_HELP ? THAW_EXIT_OK : THAW_EXIT_USAGE;
		}
	}
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
