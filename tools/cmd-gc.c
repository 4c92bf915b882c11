/* SPDX-License-Identifier: Apache-2.0 */
/* thaw gc: remove what nobody uses. */
#include <string.h>

#include "node.h"
#include "util/cleanup.h"

#ifdef THAW_WITH_FUSE
#include "thaw/gc.h"

static int print_report(json_t *report, bool dry, bool json)
{
	const char *verb = dry ? "would be removed" : "removed";
	const json_t *removed = json_object_get(report, "removed");
	char size[TOOL_SIZE_TEXT];
	json_t *entry;
	size_t i;

	if (json)
		return tool_json_print(report);
	json_array_foreach((json_t *)removed, i, entry)
	{
		const char *path = node_text(entry, "path");

		printf("%-9s %10s  ", node_text(entry, "kind"),
		       tool_size_text((uint64_t)node_number(entry, "bytes"), size));
		tool_print_escaped(stdout, path, strlen(path));
		printf("\n");
	}
	printf("%zu %s, %s\n", json_array_size(removed), verb,
	       tool_size_text((uint64_t)node_number(report, "bytes"), size));
	json_decref(report);
	return THAW_EXIT_OK;
}

/* Without a service nobody else knows of our directories: what is in use, mounts tell. */
static int collect_here(bool dry, unsigned days, bool json)
{
	struct thaw_gc_options options = { .dry_run = dry, .days = days };
	struct thaw_error err = { 0 };
	json_t *report = json_object();

	if (thaw_gc(&options, &err, report) < 0) {
		json_decref(report);
		return tool_fail("gc", &err);
	}
	return print_report(report, dry, json);
}

static int collect(const char *socket, bool dry, unsigned days, bool json)
{
	_cleanup_(thaw_client_freep) struct thaw_client *client = NULL;
	struct thaw_error err = { 0 };
	json_t *report;
	int r = thaw_client_connect(socket, &err, &client);

	if (r == THAW_NOT_FOUND && !socket)
		return collect_here(dry, days, json);
	if (r != 0)
		return tool_fail("gc", &err);
	r = thaw_client_call(client, "Gc",
			     json_pack("{s:b, s:i}", "dry_run", dry, "days", (int)days),
			     NULL, 0, &err, &report);
	/* Root's service is not ours to tidy up after; our own directories are. */
	if (r < 0 && !socket && thaw_client_error(client) &&
	    strcmp(thaw_client_error(client), "Denied") == 0)
		return collect_here(dry, days, json);
	return r < 0 ? tool_fail("gc", &err) : print_report(report, dry, json);
}
#else
#define THAW_GC_DAYS 30
static int collect(const char *socket, bool dry, unsigned days, bool json)
{
	return tool_fail_text(THAW_EXIT_IO, "gc", "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	const char *socket = NULL;
	bool dry = false, json = false;
	unsigned days = THAW_GC_DAYS;
	const struct tool_option options[] = {
		TOOL_FLAG("dry-run", 0, &dry),
		TOOL_NUMBER("days", 0, &days, 0, 36500),
		NODE_OPTIONS(&socket, &json),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_gc, argc, argv, options, &exit_code))
		return exit_code;
	if (argc != optind)
		return tool_usage("gc", "no argument is taken");
	return collect(socket, dry, days, json);
}

const struct tool_command tool_gc = {
	.name = "gc",
	.run = run,
	.summary = "remove from this node what nobody uses",
	.help = "Usage: thaw gc [OPTION...]\n"
		"\n"
		"Removes from the state directory what no view uses and was not used for some\n"
		"days: rendered layers, extracted trees, images that thaw open has packed, and\n"
		"what the service has learned of images; and scratch layers that were left.\n"
		"\n"
		"  --dry-run      only say what would be removed\n"
		"  --days=N       what was used within the last N days stays (30)\n"
		"  --socket=PATH  of the node service\n"
		"  --json         print JSON\n"
		"  --help         show this help\n",
};
