/* SPDX-License-Identifier: Apache-2.0 */
/* How good the warm sets were for this command, and how fast requests were answered. */
#include <inttypes.h>

#include "html.h"
#include "report.h"

static void write_sentence(const struct report *report, FILE *html)
{
	const struct report_run *run = report->run;

	html_raw(html, "<p>The command touches ");
	html_count(html, run->touched);
	html_raw(html, " pages of 4 KiB (");
	html_size(html, run->touched * THAW_PAGE_SIZE);
	html_raw(html, "). ");
	if (report->set_count == 0) {
		html_raw(
			html,
			"The image has no warm set: all of them are read on demand.</p>\n");
		return;
	}
	html_count(html, run->covered);
	html_raw(html, " of them (");
	html_percent(html, run->covered, run->touched);
	html_raw(html, ") are in a warm set.</p>\n");
}

/* Needed and held, needed and not held, held and not needed: one bar, told apart by pattern. */
static void write_overlap(const struct report *report, FILE *html,
			  const struct report_set *set)
{
	uint64_t held = set->info.pages, touched = report->run->touched;
	uint64_t missing = touched - set->used, waste = held - set->used;
	double whole = (double)(set->used + missing + waste);

	if (whole <= 0)
		return;
	html_raw(html, "<div class=\"overlap\" role=\"img\" aria-label=\"");
	fprintf(html,
		"%" PRIu64 " pages needed but not held, %" PRIu64
		" needed and held, %" PRIu64
		" held but not needed\"><span class=\"missing\" style=\"width:%.2f%%\"></span>"
		"<span class=\"used\" style=\"width:%.2f%%\"></span><span class=\"waste\" "
		"style=\"width:%.2f%%\"></span></div>\n<ul class=\"legend\">",
		missing, set->used, waste, 100 * (double)missing / whole,
		100 * (double)set->used / whole, 100 * (double)waste / whole);
	html_raw(html, "<li><span class=\"key missing\"></span>needed, not held: ");
	html_count(html, missing);
	html_raw(html, "</li><li><span class=\"key used\"></span>needed and held: ");
	html_count(html, set->used);
	html_raw(html, "</li><li><span class=\"key waste\"></span>held, not needed: ");
	html_count(html, waste);
	html_raw(html, "</li></ul>\n");
}

static void write_row(FILE *html, const char *name, const char *meaning, uint64_t part,
		      uint64_t whole)
{
	fprintf(html, "<tr><th scope=\"row\">%s<small>%s</small></th>", name, meaning);
	html_bar_open(html, part, whole);
	html_count(html, part);
	html_bar_close(html);
	html_raw(html, "<td class=\"num\">");
	html_percent(html, part, whole);
	html_raw(html, "</td></tr>\n");
}

static void write_set(const struct report *report, FILE *html,
		      const struct report_set *set)
{
	uint64_t pages = set->info.pages;

	html_raw(html, "<h3>Warm set ");
	html_string(html, set->info.name);
	html_raw(html, "</h3>\n");
	write_overlap(report, html, set);
	html_raw(
		html,
		"<div class=\"scroll slim\"><table><thead><tr><th scope=\"col\">pages</th>"
		"<th scope=\"col\" class=\"num\">count</th>"
		"<th scope=\"col\" class=\"num\">share</th></tr></thead><tbody>\n");
	write_row(html, "coverage", "of what the command touches, held by this set",
		  set->used, report->run->touched);
	write_row(html, "waste", "of this set, never touched by the command",
		  pages - set->used, pages);
	write_row(html, "pushed", "of this set, before the first run ended", set->pushed,
		  pages);
	write_row(html, "overtaken", "of this set, read before the warmer came to them",
		  set->overtaken, pages);
	write_row(html, "read anyway", "of this set, read although they had been pushed",
		  set->read_anyway, pages);
	html_raw(html, "</tbody></table></div>\n");
}

void report_write_coverage(const struct report *report, FILE *html)
{
	if (!report->run)
		return;
	html_raw(html, "<section><h2>Warm sets against this run</h2>\n");
	write_sentence(report, html);
	for (unsigned i = 0; i < report->set_count; i++)
		write_set(report, html, &report->sets[i]);
	html_raw(html, "</section>\n");
}

#ifdef THAW_WITH_FUSE
static void write_limit(FILE *html, unsigned bucket)
{
	uint64_t us = 1ull << bucket;

	if (us >= 1000000)
		fprintf(html, "%.1f s", (double)us / 1e6);
	else if (us >= 1000)
		fprintf(html, "%.0f ms", (double)us / 1e3);
	else
		fprintf(html, "%" PRIu64 " \xc2\xb5s", us);
}

void report_write_latency(const struct report *report, FILE *html)
{
	const uint64_t *latency = report->run ? report->run->latency
					      : report->live.latency;
	unsigned low = THAW_STAT_LATENCIES, high = 0;
	uint64_t total = 0, most = 1, seen = 0;

	if (!report->run && !report->has_live)
		return;
	for (unsigned i = 0; i < THAW_STAT_LATENCIES; i++) {
		if (latency[i] == 0)
			continue;
		low = i < low ? i : low;
		high = i;
		total += latency[i];
		most = latency[i] > most ? latency[i] : most;
	}
	html_raw(html, "<section><h2>How long requests took</h2>\n");
	if (total == 0) {
		html_raw(html, "<p>Nothing was asked for.</p></section>\n");
		return;
	}
	html_raw(html,
		 report->run ? "<p>Requests of the first run, " : "<p>Requests so far, ");
	html_raw(
		html,
		"from when the worker took them to its answer.</p>\n"
		"<div class=\"scroll slim\"><table><thead><tr><th scope=\"col\" class=\"num\">"
		"less than</th><th scope=\"col\" class=\"num\">requests</th>"
		"<th scope=\"col\" class=\"num\">up to here</th></tr></thead><tbody>\n");
	for (unsigned i = low; i <= high; i++) {
		seen += latency[i];
		html_raw(html, "<tr><th scope=\"row\" class=\"num\">");
		write_limit(html, i);
		html_raw(html, "</th>");
		html_bar_open(html, latency[i], most);
		html_count(html, latency[i]);
		html_bar_close(html);
		html_raw(html, "<td class=\"num\">");
		html_percent(html, seen, total);
		html_raw(html, "</td></tr>\n");
	}
	html_raw(html, "</tbody></table></div></section>\n");
}
#else
void report_write_latency(const struct report *report, FILE *html)
{
}
#endif
