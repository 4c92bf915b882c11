/* SPDX-License-Identifier: Apache-2.0 */
/* thaw stat: what the worker of a mount has done so far. */
#include <string.h>

#include "node.h"
#include "thaw/stat.h"

#ifdef THAW_WITH_FUSE
static const char *const warm_states[] = { "none", "running", "finished", "stopped" };

static const char *warm_state(const struct thaw_stat *st)
{
	return st->warm_state < 4 ? warm_states[st->warm_state] : "unknown";
}

static void request_name(unsigned opcode, char name[16])
{
	const char *known = thaw_stat_request_name(opcode);

	if (known)
		(void)snprintf(name, 16, "%s", known);
	else
		(void)snprintf(name, 16, "request_%u", opcode);
}

static json_t *to_json(const struct thaw_stat *st)
{
	json_t *object = json_object(), *requests = json_object(), *latency = json_array();
	uint64_t total = 0;
	char name[16];

	tool_json_digest(object, "identity", st->identity);
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		total += st->requests[i];
		if (st->requests[i] == 0)
			continue;
		request_name(i, name);
		(void)json_object_set_new(requests, name, json_integer((json_int_t)st->requests[i]));
	}
	for (unsigned i = 0; i < THAW_STAT_LATENCIES; i++)
		(void)json_array_append_new(latency, json_integer((json_int_t)st->latency[i]));
	(void)json_object_set_new(object, "requests_total", json_integer((json_int_t)total));
	(void)json_object_set_new(object, "requests", requests);
	(void)json_object_set_new(object, "latency_us_log2", latency);
	(void)json_object_set_new(object, "last_death",
				  st->death[0] ? json_string(st->death) : json_null());
	(void)json_object_set_new(object, "warm_state", json_string(warm_state(st)));
	(void)json_object_set_new(object, "warm_source",
				  json_string(thaw_warm_source_name(st->warm_source)));
#define COUNT(key) \
	(void)json_object_set_new(object, #key, json_integer((json_int_t)st->key));
	COUNT(worker)
	COUNT(keeper)
	COUNT(restarts)
	COUNT(refused)
	THAW_STAT_COUNTS(COUNT)
#undef COUNT
	return object;
}

/* The time below which this share of all requests was answered. */
static uint64_t percentile(const struct thaw_stat *st, double share)
{
	uint64_t total = 0, seen = 0;

	for (unsigned i = 0; i < THAW_STAT_LATENCIES; i++)
		total += st->latency[i];
	for (unsigned i = 0; i < THAW_STAT_LATENCIES; i++) {
		seen += st->latency[i];
		if (total && (double)seen >= share * (double)total)
			return 1ull << i;
	}
	return 0;
}

static void print_text(const char *directory, const struct thaw_stat *st)
{
	char identity[THAW_DIGEST_HEX], size[TOOL_SIZE_TEXT], stored[TOOL_SIZE_TEXT], name[16];
	uint64_t total = 0;

	thaw_digest_hex(st->identity, identity);
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++)
		total += st->requests[i];
	printf("mount      ");
	tool_print_escaped(stdout, directory, strlen(directory));
	printf("\nidentity   sha256:%s\n", identity);
	printf("worker     process %llu, for %llu s\n", (unsigned long long)st->worker,
	       (unsigned long long)st->seconds);
	if (st->keeper)
		printf("keeper     process %llu", (unsigned long long)st->keeper);
	else
		printf("keeper     none: it has ended");
	printf("; workers restarted %llu, requests refused %llu\n",
	       (unsigned long long)st->restarts, (unsigned long long)st->refused);
	if (st->death[0])
		printf("last death the worker %s\n", st->death);
	printf("requests   %llu (half within %llu us, 99 %% within %llu us)\n",
	       (unsigned long long)total, (unsigned long long)percentile(st, 0.5),
	       (unsigned long long)percentile(st, 0.99));
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		if (st->requests[i] == 0)
			continue;
		request_name(i, name);
		printf("  %-14s %llu\n", name, (unsigned long long)st->requests[i]);
	}
	printf("read       %s\n", tool_size_text(st->bytes_read, size));
	printf("decoded    %s from %s; frames found in the cache %llu, not found %llu, bad %llu\n",
	       tool_size_text(st->bytes_decompressed, size), tool_size_text(st->bytes_stored, stored),
	       (unsigned long long)st->cache_hits, (unsigned long long)st->cache_misses,
	       (unsigned long long)st->frame_errors);
	printf("warmer     %s", warm_state(st));
	if (st->warm_pages_total)
		printf(": %llu of %llu pages pushed; asked for nevertheless %llu, before it came %llu",
		       (unsigned long long)st->warm_pages, (unsigned long long)st->warm_pages_total,
		       (unsigned long long)st->warm_pages_read,
		       (unsigned long long)st->warm_overtaken);
	if (st->warm_source == THAW_SOURCE_LEARNED)
		printf("; learned from an earlier mount");
	else if (st->warm_source == THAW_SOURCE_LEARNING)
		printf("; learning for the next mount");
	printf("\n");
}

static int show(const char *directory, bool json)
{
	struct thaw_error err = { 0 };
	struct thaw_stat st;

	if (thaw_stat_directory(directory, &err, &st) < 0)
		return tool_fail(directory, &err);
	if (json)
		return tool_json_print(to_json(&st));
	print_text(directory, &st);
	return THAW_EXIT_OK;
}

/* Several views of one session: an array, since JSON is one value. */
static int show_all(const struct node_places *places, bool json)
{
	json_t *array = json_array();

	for (size_t i = 0; i < places->count; i++) {
		const char *directory = places->paths[i];
		struct thaw_error err = { 0 };
		struct thaw_stat st;
		json_t *object;

		if (thaw_stat_directory(directory, &err, &st) < 0) {
			json_decref(array);
			return tool_fail(directory, &err);
		}
		if (!json) {
			printf("%s", i ? "\n" : "");
			print_text(directory, &st);
			continue;
		}
		object = to_json(&st);
		tool_json_name(object, "directory", directory, strlen(directory));
		(void)json_array_append_new(array, object);
	}
	if (json)
		return tool_json_print(array);
	json_decref(array);
	return THAW_EXIT_OK;
}

static int show_named(const char *name, bool json)
{
	struct node_places places = { 0 };
	int r = node_resolve(name, &places);

	if (r == TOOL_NODE_NONE)
		r = show(name, json);
	else if (r == THAW_EXIT_OK && places.count == 1)
		r = show(places.paths[0], json);
	else if (r == THAW_EXIT_OK)
		r = show_all(&places, json);
	node_places_deinit(&places);
	return r;
}
#else
static int show_named(const char *directory, bool json)
{
	return tool_fail_text(THAW_EXIT_IO, directory, "this thaw was built without FUSE");
}
#endif

static int run(int argc, char **argv)
{
	bool json = false;
	const struct tool_option options[] = { TOOL_FLAG("json", 0, &json), { 0 } };
	int exit_code;

	if (!tool_options(&tool_stat, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 1)
		return tool_usage("stat", "one directory, session or image is needed");
	return show_named(argv[optind], json);
}

const struct tool_command tool_stat = {
	.name = "stat",
	.run = run,
	.summary = "show what the worker of a mount has done",
	.help = "Usage: thaw stat [OPTION...] DIR | session/ID | image/NAME\n"
		"\n"
		"Shows what the worker of the image that is mounted at DIR, or below the view\n"
		"at DIR, has done since it was mounted: requests by type and time, bytes read\n"
		"and decompressed, the frame cache, and how far the warmer was of use; and how\n"
		"often the keeper had to start another worker. A session or image that the\n"
		"node service knows may be named too, without its kind where that is clear.\n"
		"\n"
		"  --json   print JSON\n"
		"  --help   show this help\n",
};
