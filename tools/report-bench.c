/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `tools/bench --json` measured, as bars. The file is somebody's: every
 * value is looked at before it is used, and what does not fit is left out.
 */
#include <math.h>
#include <string.h>

#include "html.h"
#include "report.h"

/* A row's summary of a column; false when it is not there or no number. */
static bool figure(const json_t *row, const char *object, const char *key,
		   const char *which, double *ret_value)
{
	json_t *summary = json_object_get(json_object_get(row, object), key);
	json_t *value = json_object_get(summary, which);

	if (!json_is_number(value) || !isfinite(json_number_value(value)) ||
	    json_number_value(value) < 0)
		return false;
	*ret_value = json_number_value(value);
	return true;
}

static void write_json_string(FILE *html, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_string(value))
		html_text(html, json_string_value(value), json_string_length(value));
}

static void write_seconds(FILE *html, double seconds)
{
	html_time(html, seconds < 1e12 ? (uint64_t)(seconds * 1e6 + 0.5) : UINT64_MAX);
}

static double longest(const json_t *rows, const char *key)
{
	double most = 0, value;
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row) if (figure(row, "values", key, "max", &value) &&
					     value > most) most = value;
	return most;
}

static bool is_own(const json_t *row)
{
	const char *name = json_string_value(json_object_get(row, "name"));
	const char *slash = name ? strrchr(name, '/') : NULL;

	name = slash ? slash + 1 : name;
	return name && strncmp(name, "thaw", 4) == 0;
}

/* What a column is called, or what its ratios are to, in the words of the harness. */
static void write_column(FILE *html, const json_t *table, const char *key,
			 const char *what)
{
	const json_t *column;
	size_t i;

	json_array_foreach(json_object_get(table, "columns"), i, column)
	{
		const char *name = json_string_value(json_object_get(column, "key"));

		if (name && strcmp(name, key) == 0)
			write_json_string(html, column, what);
	}
}

/* The parts of a bar differ in pattern; the last one is solid. */
static const char *pattern(const json_t *segments, size_t number)
{
	return number + 1 == json_array_size(segments) ? "level" : "level stripe";
}

/* A bar of all segments, then a figure for each of them, then the sum. */
static void write_row(FILE *html, const json_t *row, const json_t *segments,
		      const char *total, double most)
{
	double median, low, high, ratio;
	const json_t *segment;
	size_t i;

	if (!figure(row, "values", total, "median", &median))
		return;
	fprintf(html, "<tr%s><th scope=\"row\">", is_own(row) ? " class=\"own\"" : "");
	write_json_string(html, row, "label");
	html_raw(html, "</th><td><span class=\"track wide\">");
	json_array_foreach(segments, i, segment)
	{
		double part;

		if (json_is_string(segment) &&
		    figure(row, "values", json_string_value(segment), "median", &part))
			fprintf(html, "<span class=\"%s\" style=\"width:%.2f%%\"></span>",
				pattern(segments, i),
				part < most ? 100 * part / most : 100.0);
	}
	html_raw(html, "</span></td>");
	for (i = 0; json_array_size(segments) > 1 && i < json_array_size(segments); i++) {
		const char *key = json_string_value(json_array_get(segments, i));

		html_raw(html, "<td class=\"num\">");
		if (key && figure(row, "values", key, "median", &low))
			write_seconds(html, low);
		html_raw(html, "</td>");
	}
	html_raw(html, "<td class=\"num\"><b>");
	write_seconds(html, median);
	html_raw(html, "</b></td><td class=\"num\">");
	if (figure(row, "values", total, "min", &low) &&
	    figure(row, "values", total, "max", &high)) {
		write_seconds(html, low);
		html_raw(html, " \xe2\x80\xa6 ");
		write_seconds(html, high);
	}
	html_raw(html, "</td><td class=\"num\">");
	if (figure(row, "ratios", total, "median", &ratio))
		fprintf(html, ratio < 10 ? "%.2f\xc3\x97" : "%.0f\xc3\x97", ratio);
	html_raw(html, "</td></tr>\n");
}

static void write_headings(FILE *html, const json_t *table, const json_t *segments,
			   const char *total)
{
	html_raw(html,
		 "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">row</th>"
		 "<th scope=\"col\">median</th>");
	for (size_t i = 0; json_array_size(segments) > 1 && i < json_array_size(segments);
	     i++) {
		const char *key = json_string_value(json_array_get(segments, i));

		fprintf(html,
			"<th scope=\"col\" class=\"num\"><span class=\"key %s\"></span>",
			pattern(segments, i));
		if (key)
			write_column(html, table, key, "title");
		html_raw(html, "</th>");
	}
	html_raw(html, "<th scope=\"col\" class=\"num\">");
	write_column(html, table, total, "title");
	html_raw(html,
		 "</th><th scope=\"col\" class=\"num\">least \xe2\x80\xa6 greatest</th>"
		 "<th scope=\"col\" class=\"num\">");
	write_column(html, table, total, "ratio");
	html_raw(html, "</th></tr></thead><tbody>\n");
}

static bool write_table(FILE *html, const json_t *table)
{
	const json_t *rows = json_object_get(table, "rows"), *row;
	const json_t *chart = json_object_get(table, "chart");
	const json_t *segments = json_object_get(chart, "segments");
	const char *total = json_string_value(json_object_get(chart, "total"));
	double most = total ? longest(rows, total) : 0;
	size_t i;

	if (most <= 0)
		return false;
	html_raw(html, "<h3>");
	write_json_string(html, table, "title");
	html_raw(html, "</h3>\n");
	write_headings(html, table, segments, total);
	json_array_foreach(rows, i, row) write_row(html, row, segments, total, most);
	html_raw(html, "</tbody></table></div>\n");
	json_array_foreach(rows, i, row)
	{
		if (!json_is_string(json_object_get(row, "skipped")))
			continue;
		html_raw(html, "<p class=\"note\">Not measured: ");
		write_json_string(html, row, "label");
		html_raw(html, ": ");
		write_json_string(html, row, "skipped");
		html_raw(html, "</p>\n");
	}
	return true;
}

void report_write_bench(const struct report *report, FILE *html)
{
	const json_t *about = json_object_get(report->bench, "about");
	const json_t *machine = json_object_get(report->bench, "machine"), *table;
	bool any = false;
	size_t i;

	if (!report->bench)
		return;
	html_raw(html, "<section><h2>Beside others</h2>\n<p>Medians");
	if (json_is_integer(json_object_get(about, "runs"))) {
		html_raw(html, " of ");
		fprintf(html, "%" JSON_INTEGER_FORMAT,
			json_integer_value(json_object_get(about, "runs")));
		html_raw(html, " interleaved runs");
	}
	if (json_is_string(json_object_get(machine, "kernel"))) {
		html_raw(html, ", Linux ");
		write_json_string(html, machine, "kernel");
	}
	html_raw(html, ". Ratios are taken run by run.");
	if (json_is_true(
		    json_object_get(json_object_get(report->bench, "noise"), "noisy")))
		html_raw(
			html,
			" <strong>The machine was noisy: trust ratios, not seconds.</strong>");
	html_raw(html, "</p>\n");
	json_array_foreach(json_object_get(report->bench, "tables"), i, table)
		any = write_table(html, table) || any;
	if (!any)
		html_raw(html, "<p>The file has no table with a chart.</p>\n");
	html_raw(html, "</section>\n");
}
