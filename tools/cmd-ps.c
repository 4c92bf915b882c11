/* SPDX-License-Identifier: Apache-2.0 */
/* thaw ps: the views on this node, from the service or, without one, the mount table. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node.h"
#include "util/cleanup.h"

#ifdef THAW_WITH_FUSE

static void age_text(int64_t opened, char text[24])
{
	int64_t seconds = (int64_t)time(NULL) - opened;

	if (opened == 0)
		(void)snprintf(text, 24, "-");
	else if (seconds < 120)
		(void)snprintf(text, 24, "%llds", (long long)(seconds < 0 ? 0 : seconds));
	else if (seconds < 7200)
		(void)snprintf(text, 24, "%lldm", (long long)seconds / 60);
	else if (seconds < 172800)
		(void)snprintf(text, 24, "%lldh", (long long)seconds / 3600);
	else
		(void)snprintf(text, 24, "%lldd", (long long)seconds / 86400);
}

static void lease_text(const json_t *lease, char text[48])
{
	const char *kind = node_text(lease, "kind");
	const json_t *remaining = json_object_get(lease, "remaining");

	if (strcmp(kind, "process") == 0)
		(void)snprintf(text, 48, "pid %lld",
			       (long long)node_number(lease, "pid"));
	else if (remaining)
		(void)snprintf(text, 48, "%s %llds",
			       strcmp(kind, "ttl") == 0 ? "ttl" : "lost,",
			       (long long)json_integer_value(remaining));
	else
		(void)snprintf(text, 48, "%s",
			       strcmp(kind, "ttl") == 0 ? "until closed"
			       : kind[0]		? kind
							: "-");
}

static void print_labels(const json_t *labels)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)labels, key, value)
	{
		printf(" ");
		tool_print_escaped(stdout, key, strlen(key));
		printf("=");
		tool_print_escaped(stdout, json_string_value(value),
				   json_string_length(value));
	}
}

/* " (writable, 5.0 MiB of 1.0 GiB)" */
static void print_scratch(const json_t *view)
{
	char used[TOOL_SIZE_TEXT], size[TOOL_SIZE_TEXT];
	const json_t *bytes = json_object_get(view, "scratch_used"),
		     *limit = json_object_get(view, "scratch_size");

	if (!json_is_true(json_object_get(view, "writable")))
		return;
	printf(" (writable");
	if (bytes)
		printf(", %s", tool_size_text((uint64_t)json_integer_value(bytes), used));
	if (bytes && limit)
		printf(" of %s",
		       tool_size_text((uint64_t)json_integer_value(limit), size));
	printf(")");
}

#define HEADER "SESSION", "STATE", "UID", "AGE", "LEASE", "IMAGE", "DIRECTORY"

static void print_view(const json_t *view)
{
	const char *session = node_text(view, "session"),
		   *directory = node_text(view, "directory");
	const char *image = node_text(view, "image"), *slash = strrchr(image, '/');
	char age[24], lease[48], name[64];
	const json_t *labels = json_object_get(view, "labels");

	age_text(node_number(view, "opened"), age);
	lease_text(json_object_get(view, "lease"), lease);
	if (image[0] && strcmp(image, "?") != 0)
		(void)snprintf(name, sizeof(name), "%s", slash ? slash + 1 : image);
	else
		(void)snprintf(name, sizeof(name), "%.12s", node_text(view, "identity"));
	tool_print_escaped(stdout, session, strlen(session));
	printf("%*s ", (int)(strlen(session) < 20 ? 20 - strlen(session) : 0), "");
	printf("%-8s %6lld %5s %-14s ", node_text(view, "state"),
	       (long long)node_number(view, "uid"), age, lease);
	tool_print_escaped(stdout, name, strlen(name));
	printf("%*s ", (int)(strlen(name) < 20 ? 20 - strlen(name) : 0), "");
	tool_print_escaped(stdout, directory, strlen(directory));
	print_scratch(view);
	print_labels(labels);
	printf("\n");
	if (json_object_get(view, "trouble")) {
		const char *trouble = node_text(view, "trouble");

		printf("%-20s ", "");
		tool_print_escaped(stdout, trouble, strlen(trouble));
		printf("\n");
	}
}

static int print_list(json_t *answer, bool json)
{
	json_t *view;
	size_t i;

	if (json)
		return tool_json_print(answer);
	printf("%-20s %-8s %6s %5s %-14s %-20s %s\n", HEADER);
	json_array_foreach(json_object_get(answer, "views"), i, view) print_view(view);
	json_decref(answer);
	return THAW_EXIT_OK;
}

/* How much was written, Show counts. One that is gone meanwhile stays without. */
static void add_scratch_used(struct thaw_client *client, const json_t *answer)
{
	json_t *view, *shown;
	size_t i;

	json_array_foreach(json_object_get(answer, "views"), i, view)
	{
		json_t *used;

		if (!json_is_true(json_object_get(view, "writable")) ||
		    thaw_client_call(client, "Show",
				     json_pack("{s:s, s:s}", "session",
					       node_text(view, "session"), "directory",
					       node_text(view, "directory")),
				     NULL, 0, NULL, &shown) < 0)
			continue;
		used = json_object_get(json_object_get(shown, "view"), "scratch_used");
		if (used)
			(void)json_object_set(view, "scratch_used", used);
		json_decref(shown);
	}
}

/* -- without a service: mounts and views that can be seen from here -- */

static int list_mounts(bool json)
{
	struct thaw_error err = { 0 };
	json_t *views;

	if (thaw_local_views(&err, &views) < 0)
		return tool_fail("ps", &err);
	return print_list(json_pack("{s:o, s:b}", "views", views, "service", false),
			  json);
}

/* -- events -- */

static int print_event(void *userdata, json_t *event)
{
	const bool *json = userdata;
	const json_t *view = json_object_get(event, "view");
	const char *name = node_text(event, "event");

	if (*json) {
		char *text = json_dumps(event, JSON_COMPACT);

		puts(text ? text : "");
		free(text);
	} else if (view) {
		printf("%-8s ", name);
		print_view(view);
	}
	/* Whoever reads us line by line wants it now; and when nobody does, it is over. */
	return fflush(stdout) == 0 ? 0 : 1;
}

static int show(const char *socket, const char *session, bool watch, bool json)
{
	_cleanup_(thaw_client_freep) struct thaw_client *client = NULL;
	struct thaw_error err = { 0 };
	json_t *answer;
	int r = thaw_client_connect(socket, &err, &client);

	session = session ? node_session(session) : NULL;
	if (r == THAW_NOT_FOUND && !socket && !watch && !session)
		return list_mounts(json);
	if (r != 0)
		return tool_fail("ps", &err);
	if (watch) {
		r = thaw_client_watch(client, "Watch",
				      json_pack("{s:b}", "initial", true), print_event,
				      &json, &err);
		return r < 0 ? tool_fail("ps", &err) : THAW_EXIT_OK;
	}
	r = thaw_client_call(client, "List",
			     session ? json_pack("{s:s}", "session", session) : NULL,
			     NULL, 0, &err, &answer);
	if (r < 0)
		return tool_fail("ps", &err);
	add_scratch_used(client, answer);
	return print_list(answer, json);
}
#else
static int show(const char *socket, const char *session, bool watch, bool json)
{
	return tool_fail_text(THAW_EXIT_IO, "ps", "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	const char *socket = NULL;
	bool watch = false, json = false;
	const struct tool_option options[] = {
		TOOL_FLAG("watch", 'w', &watch),
		NODE_OPTIONS(&socket, &json),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_ps, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind > 1)
		return tool_usage("ps", "one session at a time");
	if (watch && argc > optind)
		return tool_usage("ps", "--watch shows all sessions");
	return show(socket, argv[optind], watch, json);
}

const struct tool_command tool_ps = {
	.name = "ps",
	.run = run,
	.summary = "list the views on this node",
	.help = "Usage: thaw ps [OPTION...] [SESSION]\n"
		"\n"
		"Lists the views that the node service holds, of SESSION or of all: whose they\n"
		"are, what ends them, and what is wrong with their workers, if anything. An\n"
		"ordinary user sees what is shared and his own. Where there is no service, the\n"
		"mount table tells what it knows.\n"
		"\n"
		"  -w, --watch        go on, and print a line for each change\n"
		"      --socket=PATH  of the node service\n"
		"      --json         print JSON (with --watch, one line for each event)\n"
		"      --help         show this help\n",
};
