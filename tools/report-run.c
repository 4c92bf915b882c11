/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command's run: what its timeline says. Two views are opened: one with the
 * warmer, to see what happens when, and one that records, to know which pages
 * the command touches at all; for pages that are in memory ask nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"
#include "tool.h"
#include "util/cleanup.h"

#ifdef THAW_WITH_FUSE
#include "thaw/train.h"

#define TIMELINE_EVENTS (2u << 20)
#define TRACE_EVENTS	(4u << 20) /* as for thaw warm */

struct analysis {
	struct report *report;
	struct report_run *run;
	const struct thaw_timeline *timeline;
	uint32_t *pushed; /* by page: when, microseconds from the opening + 1; 0: not */
	uint64_t origin, begin, end; /* opening of the view; the first run */
	struct edge {
		uint64_t when;
		int wait; /* of enum report_wait; ~wait: it ends */
	} * edges;
	size_t edge_count;
};

static int by_when(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	return (x->when > y->when) - (x->when < y->when);
}

/* Spread [began, ended) over the steps of a lane, or put amount where it began. */
static void put_time(struct analysis *analysis, enum report_lane lane, uint64_t began,
		     uint64_t ended)
{
	uint64_t span = analysis->end - analysis->origin;

	began = began < analysis->origin ? analysis->origin : began;
	ended = ended > analysis->end ? analysis->end : ended;
	if (began >= ended)
		return;
	analysis->run->totals[lane] += ended - began;
	for (uint64_t i = (began - analysis->origin) * REPORT_STEPS / span;
	     i < REPORT_STEPS; i++) {
		uint64_t from = analysis->origin + span * i / REPORT_STEPS;
		uint64_t to = analysis->origin + span * (i + 1) / REPORT_STEPS;

		if (from >= ended)
			break;
		from = from < began ? began : from;
		to = to > ended ? ended : to;
		analysis->run->lanes[lane][i] += to > from ? to - from : 0;
	}
}

static void put_amount(struct analysis *analysis, enum report_lane lane, uint64_t when,
		       uint64_t amount)
{
	uint64_t span = analysis->end - analysis->origin;

	if (when < analysis->origin || when >= analysis->end)
		return;
	analysis->run->totals[lane] += amount;
	analysis->run->lanes[lane][(when - analysis->origin) * REPORT_STEPS / span] +=
		amount;
}

/* What a read had to be made for; counts its pages in each set. */
static enum report_wait judge_read(struct analysis *analysis,
				   const struct thaw_timeline_event *event)
{
	struct report *report = analysis->report;
	bool cold = false, early = false;
	uint64_t page, end;

	report_page_range(report, event->ino, event->first,
			  (event->bytes + THAW_PAGE_SIZE - 1) / THAW_PAGE_SIZE, &page,
			  &end);
	for (; page < end; page++) {
		uint32_t pushed = analysis->pushed[page];
		bool late = pushed == 0 || pushed - 1 > event->began - analysis->origin;
		bool warm = false;

		for (unsigned i = 0; i < report->set_count; i++) {
			struct report_set *set = &report->sets[i];

			if (!report_bit(set->bits, page))
				continue;
			warm = true;
			if (late)
				set->overtaken++;
			else
				set->read_anyway++;
		}
		cold = cold || !warm;
		early = early || (warm && late);
	}
	return early  ? REPORT_WAIT_OVERTAKEN
	       : cold ? REPORT_WAIT_COLD
		      : REPORT_WAIT_PUSHED;
}

static void note_request(struct analysis *analysis,
			 const struct thaw_timeline_event *event)
{
	struct report_run *run = analysis->run;
	const struct thaw_observed_run *second = &run->observed.runs[1];
	enum report_wait wait = REPORT_WAIT_NAMES;
	uint64_t ended = event->began + event->took;
	unsigned opcode = event->opcode % THAW_STAT_OPCODES, bucket = 0;

	if (event->began >= second->began && event->began < second->ended &&
	    !event->by_warmer)
		run->second_total++;
	if (event->began >= analysis->end)
		return;
	if (event->by_warmer) {
		run->warmer[opcode]++;
		run->warmer_total++;
		put_amount(analysis, REPORT_LANE_LISTING, event->began, 1);
		return;
	}
	if (event->began < analysis->begin)
		return; /* of mounting */
	run->own[opcode]++;
	run->own_total++;
	while (event->took >> bucket && bucket < THAW_STAT_LATENCIES - 1)
		bucket++;
	run->latency[bucket]++;
	if (event->bytes > 0) {
		wait = judge_read(analysis, event);
		run->read_bytes += event->bytes;
	}
	put_amount(analysis, event->bytes > 0 ? REPORT_LANE_READS : REPORT_LANE_NAMES,
		   event->began, 1);
	analysis->edges[analysis->edge_count++] = (struct edge){ .when = event->began,
								 .wait = (int)wait };
	analysis->edges[analysis->edge_count++] = (struct edge){
		.when = ended < analysis->end ? ended : analysis->end, .wait = ~(int)wait
	};
}

static void note_push(struct analysis *analysis, const struct thaw_timeline_event *event)
{
	uint64_t when = event->began + event->took - analysis->origin, page, end;

	if (when >= UINT32_MAX)
		return;
	if (when > analysis->run->warm_end)
		analysis->run->warm_end = when;
	put_amount(analysis, REPORT_LANE_PUSHED, event->began, event->bytes);
	report_page_range(analysis->report, event->ino, event->first,
			  (event->bytes + THAW_PAGE_SIZE - 1) / THAW_PAGE_SIZE, &page,
			  &end);
	for (; page < end; page++) {
		/* Sets may have pages in common, which are then pushed twice. */
		if (analysis->pushed[page] != 0)
			continue;
		analysis->pushed[page] = (uint32_t)when + 1;
		if (event->began >= analysis->end)
			continue;
		for (unsigned i = 0; i < analysis->report->set_count; i++)
			analysis->report->sets[i].pushed +=
				report_bit(analysis->report->sets[i].bits, page);
	}
}

/* Time in which at least one request was on its way, by the worst of them. */
static void add_waits(struct analysis *analysis)
{
	unsigned open[REPORT_WAITS] = { 0 };
	uint64_t last = analysis->begin;

	qsort(analysis->edges, analysis->edge_count, sizeof(*analysis->edges), by_when);
	for (size_t i = 0; i < analysis->edge_count; i++) {
		const struct edge *edge = &analysis->edges[i];

		for (unsigned wait = 0; wait < REPORT_WAITS; wait++) {
			if (open[wait] == 0)
				continue;
			analysis->run->waited[wait] += edge->when - last;
			put_time(analysis, REPORT_LANE_WAITING, last, edge->when);
			break;
		}
		last = edge->when;
		if (edge->wait >= 0)
			open[edge->wait]++;
		else if (open[~edge->wait] > 0)
			open[~edge->wait]--;
	}
}

static void analyse(struct analysis *analysis)
{
	struct report_run *run = analysis->run;
	const struct thaw_observed *observed = &run->observed;
	uint32_t count = thaw_timeline_count(analysis->timeline);
	struct thaw_timeline_event event;

	analysis->origin = observed->opened;
	analysis->begin = observed->runs[0].began;
	analysis->end = observed->runs[0].ended;
	run->mounting = analysis->begin - analysis->origin;
	run->first = analysis->end - analysis->begin;
	run->second = observed->runs[1].ended - observed->runs[1].began;
	run->dropped = thaw_timeline_dropped(analysis->timeline);
	/* Pushes first: requests are judged by them, and are recorded when they end. */
	for (uint32_t i = 0; i < count; i++)
		if (thaw_timeline_get(analysis->timeline, i, &event) &&
		    event.kind == THAW_TIMELINE_PUSH)
			note_push(analysis, &event);
	for (uint32_t i = 0; i < count; i++) {
		if (!thaw_timeline_get(analysis->timeline, i, &event))
			continue;
		if (event.kind == THAW_TIMELINE_REQUEST) {
			note_request(analysis, &event);
		} else if (event.kind != THAW_TIMELINE_PUSH &&
			   event.began < analysis->end) {
			bool warm = event.kind == THAW_TIMELINE_WARM_FRAME;

			*(warm ? &run->warm_decoded_bytes
			       : &run->decoded_bytes) += event.bytes;
			put_time(analysis,
				 warm ? REPORT_LANE_WARM_FRAMES : REPORT_LANE_FRAMES,
				 event.began, event.began + event.took);
		}
	}
	run->pushed_bytes = run->totals[REPORT_LANE_PUSHED];
	add_waits(analysis);
}

static int say_status(const struct report *report, const char *command, int status)
{
	if (WIFSIGNALED(status))
		return tool_fail_text(THAW_EXIT_REFUSED, report->name,
				      "no report: \"%s\" was ended by signal %d", command,
				      WTERMSIG(status));
	return tool_fail_text(THAW_EXIT_REFUSED, report->name,
			      "no report: \"%s\" failed with exit code %d", command,
			      WEXITSTATUS(status));
}

static int watch(struct report *report, struct thaw_timeline *timeline)
{
	struct thaw_view_options view = { .image = report->file };
	struct analysis analysis = { .report = report,
				     .run = report->run,
				     .timeline = timeline };
	struct report_run *run = report->run;
	struct thaw_error err = { 0 };

	if (thaw_observe(&view, run->argv, timeline, &err, &run->observed) < 0)
		return tool_fail(report->name, &err);
	for (unsigned i = 0; i < 2; i++)
		if (run->observed.runs[i].status != 0)
			return say_status(report, run->argv[0],
					  run->observed.runs[i].status);
	analysis.pushed = calloc(report->pages.total + 1, sizeof(*analysis.pushed));
	analysis.edges = calloc(2 * (size_t)thaw_timeline_count(timeline) + 1,
				sizeof(*analysis.edges));
	if (analysis.pushed && analysis.edges)
		analyse(&analysis);
	free(analysis.pushed);
	free(analysis.edges);
	return analysis.pushed && analysis.edges ? THAW_EXIT_OK
						 : tool_fail_errno(report->name, -ENOMEM);
}

static int record(struct report *report, struct thaw_trace *trace)
{
	struct thaw_view_options view = { .image = report->file };
	struct report_run *run = report->run;
	struct thaw_gathered gathered = { 0 };
	struct thaw_error err = { 0 };
	struct thaw_trace_event event;
	int status, r;

	tool_catch_interrupts(); /* a scratch directory is to be removed */
	r = thaw_train(&view, run->argv, trace, &gathered, tool_interrupted, &err,
		       &status);
	thaw_gathered_deinit(&gathered);
	if (r == -EINTR)
		return tool_fail_interrupted(report->name, "no report");
	if (r < 0)
		return tool_fail(report->name, &err);
	if (status != 0)
		return say_status(report, run->argv[0], status);
	run->dropped += thaw_trace_dropped(trace);
	for (uint32_t i = 0; i < thaw_trace_count(trace); i++) {
		uint64_t page, end;

		if (!thaw_trace_get(trace, i, &event) || event.kind != THAW_TRACE_READ)
			continue;
		report_page_range(report, event.ino, event.first, event.count, &page,
				  &end);
		for (; page < end; page++)
			run->bits[page / 8] |= (uint8_t)(1u << page % 8);
	}
	run->touched = report_count_bits(run->bits, NULL, report->pages.total);
	for (uint64_t page = 0; page < report->pages.total; page++)
		for (unsigned i = 0; report_bit(run->bits, page) && i < report->set_count;
		     i++)
			if (report_bit(report->sets[i].bits, page)) {
				run->covered++;
				break;
			}
	for (unsigned i = 0; i < report->set_count; i++)
		report->sets[i].used = report_count_bits(report->sets[i].bits, run->bits,
							 report->pages.total);
	return THAW_EXIT_OK;
}

/* What the command prints is not for the page: it goes where messages go. */
static int divert_output(void)
{
	int saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);

	if (fflush(stdout) == 0 && saved >= 0)
		(void)dup2(STDERR_FILENO, STDOUT_FILENO); /* both are open: cannot fail */
	return saved;
}

int report_run(struct report *report, char *const *argv)
{
	struct thaw_timeline *timeline = thaw_timeline_new(TIMELINE_EVENTS);
	struct thaw_trace *trace = thaw_trace_new(TRACE_EVENTS);
	int saved = divert_output();
	int r = THAW_EXIT_OK;

	report->run = calloc(1, sizeof(*report->run));
	if (report->run) {
		report->run->argv = argv;
		report->run->bits = calloc(report->pages.total / 8 + 1, 1);
	}
	if (!timeline || !trace || saved < 0 || !report->run || !report->run->bits)
		r = tool_fail_errno(report->name, -ENOMEM);
	if (r == 0)
		r = watch(report, timeline);
	if (r == 0)
		r = record(report, trace);
	if (saved >= 0) {
		(void)dup2(saved, STDOUT_FILENO);
		(void)safe_close(saved);
	}
	thaw_timeline_free(timeline);
	thaw_trace_free(trace);
	return r;
}
#else
int report_run(struct report *report, char *const *argv)
{
	return tool_fail_text(THAW_EXIT_IO, report->name,
			      "this thaw was built without FUSE");
}
#endif
