/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of the page as JSON. */
#include <string.h>

#include "report.h"
#include "tool.h"

static void set_number(json_t *object, const char *key, uint64_t value)
{
	(void)json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *groups_json(const struct report *report)
{
	json_t *groups = json_array();

	for (size_t i = 0; i < report->group_count; i++) {
		const struct report_group *group = &report->groups[i];
		json_t *object = json_object(), *warm = json_object();

		tool_json_name(object, "name", group->name, strlen(group->name));
		if (group->version)
			(void)json_object_set_new(object, "version",
						  json_string(group->version));
		(void)json_object_set_new(object, "kind",
					  json_string(report_kind_name(group->kind)));
		set_number(object, "files", group->files);
		set_number(object, "bytes", group->bytes);
		for (unsigned j = 0; j < report->set_count; j++)
			set_number(warm, report->sets[j].info.name, group->warm[j]);
		(void)json_object_set_new(object, "warm_bytes", warm);
		if (report->run)
			set_number(object, "touched_bytes", group->touched);
		(void)json_array_append_new(groups, object);
	}
	return groups;
}

static json_t *sets_json(const struct report *report)
{
	json_t *sets = json_array();

	for (unsigned i = 0; i < report->set_count; i++) {
		const struct report_set *set = &report->sets[i];
		json_t *object = json_object();

		(void)json_object_set_new(object, "name", json_string(set->info.name));
		set_number(object, "pages", set->info.pages);
		set_number(object, "files", set->info.files);
		set_number(object, "bytes", set->info.bytes);
		set_number(object, "stored", set->info.stored);
		if (report->run) {
			set_number(object, "used", set->used);
			set_number(object, "pushed", set->pushed);
			set_number(object, "read_anyway", set->read_anyway);
			set_number(object, "overtaken", set->overtaken);
		}
		(void)json_array_append_new(sets, object);
	}
	return sets;
}

#ifdef THAW_WITH_FUSE
static json_t *requests_json(const uint64_t requests[THAW_STAT_OPCODES])
{
	json_t *object = json_object();
	char number[16];

	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		const char *name = thaw_stat_request_name(i);

		if (requests[i] == 0)
			continue;
		(void)snprintf(number, sizeof(number), "request_%u", i);
		set_number(object, name ? name : number, requests[i]);
	}
	return object;
}

static json_t *run_json(const struct report_run *run)
{
	static const char *const waits[REPORT_WAITS] = {
		[REPORT_WAIT_OVERTAKEN] = "overtaken_reads",
		[REPORT_WAIT_COLD] = "cold_reads",
		[REPORT_WAIT_PUSHED] = "pushed_reads",
		[REPORT_WAIT_NAMES] = "names",
	};
	json_t *object = json_object(), *command = json_array(), *waited = json_object(),
	       *latency = json_array();

	for (char *const *word = run->argv; *word; word++) {
		json_t *holder = json_object(); /* for words that are no UTF-8 */

		tool_json_name(holder, "word", *word, strlen(*word));
		(void)json_array_append(command, json_object_get(holder, "word"));
		json_decref(holder);
	}
	(void)json_object_set_new(object, "command", command);
	set_number(object, "opening_us", run->mounting);
	set_number(object, "first_us", run->first);
	set_number(object, "second_us", run->second);
	for (unsigned i = 0; i < REPORT_WAITS; i++)
		set_number(waited, waits[i], run->waited[i]);
	(void)json_object_set_new(object, "waited_us", waited);
	set_number(object, "requests_total", run->own_total);
	(void)json_object_set_new(object, "requests", requests_json(run->own));
	set_number(object, "warmer_requests_total", run->warmer_total);
	(void)json_object_set_new(object, "warmer_requests", requests_json(run->warmer));
	set_number(object, "second_requests_total", run->second_total);
	for (unsigned i = 0; i < THAW_STAT_LATENCIES; i++)
		(void)json_array_append_new(latency,
					    json_integer((json_int_t)run->latency[i]));
	(void)json_object_set_new(object, "latency_us_log2", latency);
	set_number(object, "warm_end_us", run->warm_end);
	set_number(object, "bytes_pushed", run->pushed_bytes);
	set_number(object, "bytes_asked_for", run->read_bytes);
	set_number(object, "bytes_decompressed", run->decoded_bytes);
	set_number(object, "bytes_decompressed_by_warmer", run->warm_decoded_bytes);
	set_number(object, "pages_touched", run->touched);
	set_number(object, "pages_covered", run->covered);
	set_number(object, "dropped_events", run->dropped);
	return object;
}

static json_t *live_json(const struct thaw_stat *st)
{
	json_t *object = json_object();

	set_number(object, "seconds", st->seconds);
	(void)json_object_set_new(object, "requests", requests_json(st->requests));
	set_number(object, "bytes_read", st->bytes_read);
	set_number(object, "bytes_decompressed", st->bytes_decompressed);
	set_number(object, "warm_pages", st->warm_pages);
	set_number(object, "warm_pages_total", st->warm_pages_total);
	set_number(object, "warm_pages_read", st->warm_pages_read);
	set_number(object, "warm_overtaken", st->warm_overtaken);
	return object;
}
#endif

json_t *report_json(const struct report *report)
{
	const struct thaw_image_info *image = thaw_image_info(report->image);
	json_t *object = json_object();

	tool_json_name(object, "image", report->name, strlen(report->name));
	tool_json_digest(object, "identity", image->identity);
	set_number(object, "image_size", image->image_size);
	set_number(object, "stream_size", image->stream_size);
	set_number(object, "content_size", image->content_size);
	set_number(object, "files", image->files);
	set_number(object, "packages", report->packages.count);
	(void)json_object_set_new(object, "groups", groups_json(report));
	(void)json_object_set_new(object, "warm_sets", sets_json(report));
#ifdef THAW_WITH_FUSE
	if (report->run)
		(void)json_object_set_new(object, "run", run_json(report->run));
	if (report->has_live)
		(void)json_object_set_new(object, "live", live_json(&report->live));
#endif
	return object;
}
