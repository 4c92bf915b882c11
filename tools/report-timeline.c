/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first run over time: one small chart for each thing that happens, all on
 * the same axis, and where the run's time went. Charts are stretched to the
 * page's width; all text is outside of them, so that it is not.
 */
#include <inttypes.h>
#include <string.h>

#include "html.h"
#include "report.h"
#include "tool.h"

enum unit { UNIT_COUNT, UNIT_BYTES, UNIT_TIME };

static const struct lane {
	const char *who, *name;
	enum unit unit;
} lanes[REPORT_LANES] = {
	[REPORT_LANE_NAMES] = { "command", "names, attributes, listings asked for",
				UNIT_COUNT },
	[REPORT_LANE_READS] = { "command", "reads asked for", UNIT_COUNT },
	[REPORT_LANE_WAITING] = { "command", "waiting: a request is on its way",
				  UNIT_TIME },
	[REPORT_LANE_FRAMES] = { "worker", "decompressing what was asked for",
				 UNIT_TIME },
	[REPORT_LANE_LISTING] = { "warmer", "names, listings asked for", UNIT_COUNT },
	[REPORT_LANE_PUSHED] = { "warmer", "pages pushed", UNIT_BYTES },
	[REPORT_LANE_WARM_FRAMES] = { "warmer", "decompressing warm frames", UNIT_TIME },
};

static const struct {
	const char *name, *meaning;
} waits[REPORT_WAITS] = {
	[REPORT_WAIT_OVERTAKEN] = { "reads before the warmer came",
				    "pages of a warm set that were not in memory yet" },
	[REPORT_WAIT_COLD] = { "reads of pages in no warm set",
			       "decompressed on demand" },
	[REPORT_WAIT_PUSHED] = { "reads of pushed pages",
				 "the kernel asked nevertheless" },
	[REPORT_WAIT_NAMES] = { "names, attributes, listings", "and all other requests" },
};

static void write_total(FILE *html, enum unit unit, uint64_t value)
{
	if (unit == UNIT_COUNT)
		html_count(html, value);
	else if (unit == UNIT_BYTES)
		html_size(html, value);
	else
		html_time(html, value);
}

/* The same in plain text, for labels. */
static const char *total_text(enum unit unit, uint64_t value, char buf[TOOL_SIZE_TEXT])
{
	if (unit == UNIT_COUNT)
		(void)snprintf(buf, TOOL_SIZE_TEXT, "%" PRIu64, value);
	else if (unit == UNIT_BYTES)
		(void)tool_size_text(value, buf);
	else
		(void)html_time_text(value, buf);
	return buf;
}

/* Where the command begins, in steps. */
static double ready(const struct report_run *run)
{
	return (double)run->mounting * REPORT_STEPS /
	       (double)(run->mounting + run->first);
}

/* What the top of a chart stands for. */
static void write_peak(FILE *html, enum unit unit, uint64_t most, uint64_t step)
{
	char top[TOOL_SIZE_TEXT], text[HTML_TIME_TEXT];

	if (unit != UNIT_TIME && most > 0)
		fprintf(html, " <small>at most %s in %s</small>",
			total_text(unit, most, top), html_time_text(step, text));
	html_raw(html, "</div>");
}

static void write_chart(const struct report_run *run, FILE *html, unsigned number)
{
	const uint64_t *values = run->lanes[number];
	const struct lane *lane = &lanes[number];
	uint64_t step = (run->mounting + run->first) / REPORT_STEPS, most = 0;
	char total[TOOL_SIZE_TEXT];

	for (unsigned i = 0; i < REPORT_STEPS; i++)
		most = values[i] > most ? values[i] : most;
	/* Time is shown as a share of each step; the rest by the lane's own peak. */
	if (lane->unit == UNIT_TIME && step > most)
		most = step;
	fprintf(html, "<div class=\"lane\"><div class=\"name\"><b>%s</b> %s</div>",
		lane->who, lane->name);
	html_raw(html, "<div class=\"sum\">");
	write_total(html, lane->unit, run->totals[number]);
	write_peak(html, lane->unit, most, step);
	fprintf(html,
		"<svg class=\"%s\" viewBox=\"0 0 %u 40\" preserveAspectRatio=\"none\" role=\"img\" "
		"aria-label=\"%s: %s; %s in all\"><title>%s: %s</title>",
		lane->who, REPORT_STEPS, lane->who, lane->name,
		total_text(lane->unit, run->totals[number], total), lane->who,
		lane->name);
	fprintf(html,
		"<rect class=\"before\" width=\"%.2f\" height=\"40\"/><path d=\"M0 40",
		ready(run));
	for (unsigned i = 0; i < REPORT_STEPS; i++)
		fprintf(html, "V%.2fH%u",
			40 - 38.0 * (double)values[i] / (double)(most ? most : 1), i + 1);
	html_raw(html, "V40Z\"/><path class=\"axis\" d=\"M0 39.5H160\"/></svg></div>\n");
}

static void write_axis(const struct report_run *run, FILE *html)
{
	char text[HTML_TIME_TEXT];

	html_raw(html, "<div class=\"axis\" aria-hidden=\"true\">");
	for (unsigned i = 0; i <= 4; i++)
		fprintf(html, "<span>%s</span>",
			i ? html_time_text((run->mounting + run->first) * i / 4, text)
			  : "0");
	html_raw(html, "</div>\n");
}

static void write_wait_row(FILE *html, const char *name, const char *meaning,
			   uint64_t time, uint64_t whole)
{
	fprintf(html, "<tr><th scope=\"row\">%s<small>%s</small></th>", name, meaning);
	html_bar_open(html, time, whole);
	html_time(html, time);
	html_bar_close(html);
	html_raw(html, "<td class=\"num\">");
	html_percent(html, time, whole);
	html_raw(html, "</td></tr>\n");
}

static void write_waits(const struct report_run *run, FILE *html)
{
	uint64_t whole = run->mounting + run->first, waited = 0;

	html_raw(html,
		 "<h3>Where the time went</h3>\n<div class=\"scroll\"><table><thead><tr>"
		 "<th scope=\"col\">until the first run ended</th>"
		 "<th scope=\"col\" class=\"num\">time</th>"
		 "<th scope=\"col\" class=\"num\">share</th></tr></thead><tbody>\n");
	write_wait_row(html, "opening the view", "before the command is started",
		       run->mounting, whole);
	for (unsigned i = 0; i < REPORT_WAITS; i++) {
		write_wait_row(html, waits[i].name, waits[i].meaning, run->waited[i],
			       whole);
		waited += run->waited[i];
	}
	write_wait_row(html, "not waiting for thaw",
		       "the command itself, and the kernel's caches", run->first - waited,
		       whole);
	html_raw(html, "</tbody><tfoot><tr><th scope=\"row\">opening and first run</th>"
		       "<td class=\"num\">");
	html_time(html, whole);
	html_raw(html,
		 "</td><td class=\"num\">100 %</td></tr><tr><th scope=\"row\">second run "
		 "in the same view</th><td class=\"num\">");
	html_time(html, run->second);
	html_raw(html, "</td><td class=\"num\">");
	html_percent(html, run->second, whole);
	html_raw(
		html,
		"</td></tr></tfoot></table></div>\n<p class=\"note\">A request counts from "
		"when the worker takes it to when it answers; the wakeups on both sides are "
		"not seen. Requests at the same time count once, by the first kind of the "
		"table. Readahead, which nobody waits for, counts too: these are upper "
		"bounds.</p>\n");
}

#ifdef THAW_WITH_FUSE
static void write_requests(const struct report_run *run, FILE *html)
{
	html_raw(
		html,
		"<h3>Requests</h3>\n<div class=\"scroll\"><table><thead><tr>"
		"<th scope=\"col\">request</th>"
		"<th scope=\"col\" class=\"num\">of the command</th>"
		"<th scope=\"col\" class=\"num\">of the warmer</th></tr></thead><tbody>\n");
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		const char *name = thaw_stat_request_name(i);

		if (run->own[i] == 0 && run->warmer[i] == 0)
			continue;
		fprintf(html, "<tr><th scope=\"row\">%s", name ? name : "request ");
		if (!name)
			fprintf(html, "%u", i);
		html_raw(html, "</th><td class=\"num\">");
		html_count(html, run->own[i]);
		html_raw(html, "</td><td class=\"num\">");
		html_count(html, run->warmer[i]);
		html_raw(html, "</td></tr>\n");
	}
	html_raw(html,
		 "</tbody><tfoot><tr><th scope=\"row\">first run</th><td class=\"num\">");
	html_count(html, run->own_total);
	html_raw(html, "</td><td class=\"num\">");
	html_count(html, run->warmer_total);
	html_raw(html,
		 "</td></tr><tr><th scope=\"row\">second run</th><td class=\"num\">");
	html_count(html, run->second_total);
	html_raw(html, "</td><td></td></tr></tfoot></table></div>\n");
}
#else
static void write_requests(const struct report_run *run, FILE *html)
{
}
#endif

void report_write_timeline(const struct report *report, FILE *html)
{
	const struct report_run *run = report->run;

	if (!run)
		return;
	html_raw(
		html,
		"<section><h2>The first run</h2>\n<p>From opening a fresh view to the end "
		"of the command: ");
	html_time(html, run->mounting + run->first);
	html_raw(html, ", of which the view took ");
	html_time(html, run->mounting);
	html_raw(html, " (shaded).");
	if (run->warm_end > 0) {
		html_raw(html, " The warmer pushed its last page after ");
		html_time(html, run->warm_end);
		html_raw(html, ".");
	}
	html_raw(html, "</p>\n<div class=\"lanes\">\n");
	for (unsigned i = 0; i < REPORT_LANES; i++) {
		bool warmer = i >= REPORT_LANE_LISTING;

		if (!warmer || report->set_count)
			write_chart(run, html, i);
	}
	write_axis(run, html);
	html_raw(html, "</div>\n");
	if (run->dropped) {
		html_raw(html,
			 "<p class=\"warning\">The run was too long to keep all of it: ");
		html_count(html, run->dropped);
		html_raw(html, " events are missing.</p>\n");
	}
	html_raw(html, "<div class=\"columns\"><div>");
	write_waits(run, html);
	html_raw(html, "</div><div>");
	write_requests(run, html);
	html_raw(html, "</div></div></section>\n");
}
