/* SPDX-License-Identifier: Apache-2.0 */
/* thaw close: end a session's views. */
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "util/cleanup.h"

#ifdef THAW_WITH_FUSE
static int close_views(const char *socket, const char *session, const char *directory,
		       bool force, bool json)
{
	_cleanup_(thaw_client_freep) struct thaw_client *client = NULL;
	_cleanup_(freep) char *path = NULL;
	json_t *parameters, *answer;
	int r;

	session = node_session(session);
	r = node_check_text(session, session);

	if (r == THAW_EXIT_OK && directory)
		r = node_directory(directory, &path);
	if (r == THAW_EXIT_OK)
		r = node_connect(socket, &client);
	if (r != THAW_EXIT_OK)
		return r;
	parameters = json_pack("{s:s, s:b}", "session", session, "force", force);
	if (path)
		(void)json_object_set_new(parameters, "directory", json_string(path));
	r = node_call(client, session, "Close", parameters, NULL, 0, &answer);
	if (r != THAW_EXIT_OK)
		return r;
	if (json)
		return tool_json_print(answer);
	json_decref(answer);
	return THAW_EXIT_OK;
}
#else
static int close_views(const char *socket, const char *session, const char *directory,
		       bool force, bool json)
{
	return tool_fail_text(THAW_EXIT_IO, session, "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	const char *socket = NULL;
	bool force = false, json = false;
	const struct tool_option options[] = {
		TOOL_FLAG("force", 'f', &force),
		NODE_OPTIONS(&socket, &json),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_close, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind < 1 || argc - optind > 2)
		return tool_usage("close",
				  "a session is needed, and perhaps a directory");
	return close_views(socket, argv[optind], argv[optind + 1], force, json);
}

const struct tool_command tool_close = {
	.name = "close",
	.run = run,
	.summary = "end the views of a session",
	.help = "Usage: thaw close [OPTION...] SESSION [DIR]\n"
		"\n"
		"Ends the view that SESSION has at DIR, or all of its views. A view that is in\n"
		"use stays, and that is an error.\n"
		"\n"
		"  -f, --force        also when in use: it vanishes at once, and those who use\n"
		"                     it keep what they have open\n"
		"      --socket=PATH  of the node service\n"
		"      --json         print JSON\n"
		"      --help         show this help\n",
};
