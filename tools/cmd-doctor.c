/* SPDX-License-Identifier: Apache-2.0 */
/* thaw doctor: which way of presenting images works here, and what is missing. */
#include <string.h>

#include "tool.h"

#ifdef THAW_WITH_FUSE
#include "thaw/probe.h"

static const char *const state_names[] = { "ok", "warn", "missing" };

static const char *way_line(const struct thaw_way_report *ways, unsigned way)
{
	return ways->why_not[way][0] ? ways->why_not[way] : "works";
}

static void print_escaped(const char *text)
{
	tool_print_escaped(stdout, text, strlen(text));
}

static void print_text(const struct thaw_probe *probe)
{
	printf("auto chooses: %s\n", thaw_way_name(probe->ways.way));
	for (unsigned i = 0; i < THAW_WAYS; i++) {
		printf("  %-10s ", thaw_way_name((enum thaw_way)i));
		print_escaped(way_line(&probe->ways, i));
		putchar('\n');
	}
	putchar('\n');
	for (size_t i = 0; i < probe->count; i++) {
		const struct thaw_finding *finding = &probe->findings[i];

		printf("%-8s%-20s", state_names[finding->state], finding->what);
		print_escaped(finding->why);
		if (finding->remedy[0]) {
			fputs(" → ", stdout);
			print_escaped(finding->remedy);
		}
		putchar('\n');
	}
}

static json_t *text_json(const char *text)
{
	/* Paths need not be UTF-8; what is meant for people may lose that. */
	json_t *holder = json_object(), *value;

	tool_json_name(holder, "text", text, strlen(text));
	value = json_incref(json_object_get(holder, "text"));
	json_decref(holder);
	return value;
}

static int print_json(const struct thaw_probe *probe)
{
	json_t *object = json_object(), *ways = json_object(), *findings = json_array();

	for (unsigned i = 0; i < THAW_WAYS; i++) {
		bool works = probe->ways.why_not[i][0] == '\0';
		json_t *way = json_pack("{s:b}", "works", works);

		if (!works)
			(void)json_object_set_new(way, "why",
						  text_json(probe->ways.why_not[i]));
		(void)json_object_set_new(ways, thaw_way_name((enum thaw_way)i), way);
	}
	for (size_t i = 0; i < probe->count; i++) {
		const struct thaw_finding *finding = &probe->findings[i];
		json_t *item = json_pack("{s:s,s:s}", "state",
					 state_names[finding->state], "what",
					 finding->what);

		(void)json_object_set_new(item, "why", text_json(finding->why));
		if (finding->remedy[0])
			(void)json_object_set_new(item, "remedy",
						  text_json(finding->remedy));
		(void)json_array_append_new(findings, item);
	}
	(void)json_object_set_new(object, "way",
				  json_string(thaw_way_name(probe->ways.way)));
	(void)json_object_set_new(object, "ways", ways);
	(void)json_object_set_new(object, "findings", findings);
	return tool_json_print(object);
}

static int examine(bool json)
{
	static struct thaw_probe probe; /* some KiB */
	int r = THAW_EXIT_OK;

	thaw_probe(&probe);
	if (json)
		r = print_json(&probe);
	else
		print_text(&probe);
	return r == THAW_EXIT_OK && probe.ways.way == THAW_WAY_NONE ? THAW_EXIT_IO : r;
}
#else
static int examine(bool json)
{
	return tool_fail_text(THAW_EXIT_IO, NULL, "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	bool json = false;
	const struct tool_option options[] = { TOOL_FLAG("json", 0, &json), { 0 } };
	int exit_code;

	if (!tool_options(&tool_doctor, argc, argv, options, &exit_code))
		return exit_code;
	if (argc != optind)
		return tool_usage("doctor", "no argument is wanted");
	return examine(json);
}

const struct tool_command tool_doctor = {
	.name = "doctor",
	.run = run,
	.summary = "say how images can be presented here, and what is missing",
	.help = "Usage: thaw doctor [OPTION...]\n"
		"\n"
		"Tries out what views need, in processes that leave nothing behind, and says\n"
		"which way of presenting images `auto` chooses here, why not another, and what\n"
		"to do about each piece that is missing. Exit code 6 when no way works.\n"
		"\n"
		"  --json   print JSON\n"
		"  --help   show this help\n",
};
