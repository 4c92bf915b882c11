/* SPDX-License-Identifier: Apache-2.0 */
/* thaw images: what is mounted on this node. */
#include <string.h>

#include "node.h"
#include "util/cleanup.h"

#ifdef THAW_WITH_FUSE
static void print_images(const json_t *images)
{
	json_t *image;
	size_t i;

	printf("%-16s %-9s %5s %7s  %s\n", "IDENTITY", "STATE", "VIEWS", "KEEPER",
	       "IMAGE");
	json_array_foreach((json_t *)images, i, image)
	{
		const char *name = node_text(image, "image");
		int64_t keeper = node_number(image, "keeper");
		char pid[24] = "-";

		if (strcmp(node_text(image, "state"), "known") == 0)
			name = node_text(image, "path");
		if (keeper > 0)
			(void)snprintf(pid, sizeof(pid), "%lld", (long long)keeper);
		printf("%-16.16s %-9s %5lld %7s  ", node_text(image, "identity"),
		       node_text(image, "state"), (long long)node_number(image, "views"),
		       pid);
		tool_print_escaped(stdout, name, strlen(name));
		printf("\n");
		if (json_object_get(image, "trouble")) {
			const char *trouble = node_text(image, "trouble");

			printf("%-16s ", "");
			tool_print_escaped(stdout, trouble, strlen(trouble));
			printf("\n");
		}
	}
}

static int show_images(const char *socket, bool json)
{
	_cleanup_(thaw_client_freep) struct thaw_client *client = NULL;
	json_t *answer;
	int r = node_connect(socket, &client);

	if (r == THAW_EXIT_OK)
		r = node_call(client, "images", "Images", NULL, NULL, 0, &answer);
	if (r != THAW_EXIT_OK)
		return r;
	if (json)
		return tool_json_print(answer);
	print_images(json_object_get(answer, "images"));
	json_decref(answer);
	return THAW_EXIT_OK;
}
#else
static int show_images(const char *socket, bool json)
{
	return tool_fail_text(THAW_EXIT_IO, "images", "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	const char *socket = NULL;
	bool json = false;
	const struct tool_option options[] = { NODE_OPTIONS(&socket, &json), { 0 } };
	int exit_code;

	if (!tool_options(&tool_images, argc, argv, options, &exit_code))
		return exit_code;
	if (argc != optind)
		return tool_usage("images", "no argument is taken");
	return show_images(socket, json);
}

const struct tool_command tool_images = {
	.name = "images",
	.run = run,
	.summary = "list the images that the node service knows",
	.help = "Usage: thaw images [OPTION...]\n"
		"\n"
		"Lists the images that the node service has mounted, with the number of views\n"
		"over each, and those that thaw open has packed. An image stays mounted for\n"
		"some seconds after its last view.\n"
		"\n"
		"  --socket=PATH  of the node service\n"
		"  --json         print JSON\n"
		"  --help         show this help\n",
};
