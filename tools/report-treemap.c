/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment by package: a squarified treemap (Bruls, Huizing, van Wijk),
 * and the same as a table. The map is made of positioned elements in percent,
 * not of SVG, so that its text keeps its size on a narrow screen.
 */
#include <stdlib.h>
#include <string.h>

#include "html.h"
#include "report.h"

#define CELLS_MAX   48u
#define SHARE_LEAST 0.002 /* of the whole: smaller ones are put together */
#define MAP_WIDTH   160.0 /* the proportions that cells are made square for */
#define MAP_HEIGHT  90.0
#define ROWS_SHOWN  12u
#define SETS_DRAWN  3u /* side by side, by patterns; of more, what any of them holds */

struct cell {
	const struct report_group *group; /* NULL: several */
	uint64_t bytes, warm, touched, each[SETS_DRAWN];
	size_t groups;
	double x, y, width, height; /* percent */
};

/* How many sets have a part of each cell to themselves. */
static unsigned sets_drawn(const struct report *report)
{
	return report->set_count <= SETS_DRAWN ? (unsigned)report->set_count : 1;
}

static void add_group(const struct report *report, struct cell *cell,
		      const struct report_group *group)
{
	cell->bytes += group->bytes;
	cell->warm += group->warm_any;
	cell->touched += group->touched;
	cell->groups++;
	for (unsigned i = 0; i < sets_drawn(report); i++)
		cell->each[i] += report->set_count <= SETS_DRAWN ? group->warm[i]
								 : group->warm_any;
}

static size_t make_cells(const struct report *report, struct cell *cells)
{
	uint64_t whole = thaw_image_info(report->image)->content_size;
	struct cell rest = { 0 };
	size_t count = 0;

	for (size_t i = 0; i < report->group_count; i++) {
		const struct report_group *group = &report->groups[i];

		if (group->bytes == 0)
			continue;
		if (count < CELLS_MAX &&
		    (double)group->bytes >= SHARE_LEAST * (double)whole) {
			cells[count] = (struct cell){ .group = group };
			add_group(report, &cells[count++], group);
			continue;
		}
		add_group(report, &rest, group);
	}
	if (rest.bytes > 0)
		cells[count++] = rest;
	return count;
}

/* The worst proportion in a row of cells that share a side of this length. */
static double worst(const struct cell *cells, size_t count, double sum, double scale,
		    double side)
{
	double depth = sum * scale / side, bad = 0;

	for (size_t i = 0; i < count; i++) {
		double length = (double)cells[i].bytes * scale / depth;
		double proportion = length > depth ? length / depth : depth / length;

		if (proportion > bad)
			bad = proportion;
	}
	return bad;
}

static void lay_out(struct cell *cells, size_t count)
{
	double x = 0, y = 0, width = MAP_WIDTH, height = MAP_HEIGHT, whole = 0;

	for (size_t i = 0; i < count; i++)
		whole += (double)cells[i].bytes;
	for (size_t first = 0; first < count;) {
		double scale = MAP_WIDTH * MAP_HEIGHT / whole, sum = 0, at = 0;
		bool upright = width >=
			       height; /* a column at the left; else a row at the top */
		double side = upright ? height : width, depth;
		size_t n = 0;

		while (first + n < count) {
			double more = sum + (double)cells[first + n].bytes;

			if (n > 0 && worst(cells + first, n + 1, more, scale, side) >
					     worst(cells + first, n, sum, scale, side))
				break;
			sum = more;
			n++;
		}
		depth = sum * scale / side;
		for (size_t i = first; i < first + n; i++) {
			double length = (double)cells[i].bytes * scale / depth;

			cells[i].x = 100 * (upright ? x : x + at) / MAP_WIDTH;
			cells[i].y = 100 * (upright ? y + at : y) / MAP_HEIGHT;
			cells[i].width = 100 * (upright ? depth : length) / MAP_WIDTH;
			cells[i].height = 100 * (upright ? length : depth) / MAP_HEIGHT;
			at += length;
		}
		if (upright) {
			x += depth;
			width -= depth;
		} else {
			y += depth;
			height -= depth;
		}
		first += n;
	}
}

static void write_name(FILE *html, const struct cell *cell)
{
	if (cell->group)
		html_string(html, cell->group->name);
	else
		fprintf(html, "%zu smaller", cell->groups);
}

static void write_shares(const struct report *report, FILE *html, const struct cell *cell)
{
	bool several = report->set_count > 1 && cell->group, said = false;

	if (report->set_count == 0)
		return;
	if (cell->warm == 0) {
		html_raw(html, "nothing warm");
		return;
	}
	html_percent(html, cell->warm, cell->bytes);
	html_raw(html, " warm");
	for (unsigned i = 0; several && i < report->set_count; i++) {
		if (cell->group->warm[i] == 0)
			continue;
		html_raw(html, said ? ", " : " (");
		html_string(html, report->sets[i].info.name);
		html_raw(html, " ");
		html_percent(html, cell->group->warm[i], cell->bytes);
		said = true;
	}
	html_raw(html, said ? ")" : "");
}

static void write_cell(const struct report *report, FILE *html, const struct cell *cell)
{
	fprintf(html,
		"<div class=\"cell %s\" style=\"left:%.3f%%;top:%.3f%%;width:%.3f%%;"
		"height:%.3f%%\" title=\"",
		cell->group ? report_kind_name(cell->group->kind) : "rest", cell->x,
		cell->y, cell->width, cell->height);
	write_name(html, cell);
	if (cell->group && cell->group->version) {
		html_raw(html, " ");
		html_string(html, cell->group->version);
	}
	html_raw(html, ": ");
	html_percent(html, cell->bytes, thaw_image_info(report->image)->content_size);
	html_raw(html, " of the environment");
	if (report->set_count) {
		html_raw(html, ", ");
		write_shares(report, html, cell);
	}
	html_raw(html, "\"><div class=\"tile\">");
	for (unsigned i = 0; report->set_count && i < sets_drawn(report); i++)
		if (cell->each[i] > 0)
			fprintf(html,
				"<div class=\"fill set%u\" style=\"left:%.2f%%;"
				"width:%.2f%%;height:%.2f%%\"></div>",
				i, 100.0 * i / sets_drawn(report),
				100.0 / sets_drawn(report),
				100.0 * (double)cell->each[i] / (double)cell->bytes);
	html_raw(html, "<div class=\"label\"><b>");
	write_name(html, cell);
	html_raw(html, "</b><span class=\"more\">");
	html_size(html, cell->bytes);
	html_raw(html, "</span><span class=\"more\">");
	write_shares(report, html, cell);
	html_raw(html, "</span></div></div></div>\n");
}

static void write_head_row(const struct report *report, FILE *html)
{
	html_raw(
		html,
		"<div class=\"scroll groups\"><table><thead><tr><th scope=\"col\">package</th>"
		"<th scope=\"col\">version</th><th scope=\"col\" class=\"num\">files</th>"
		"<th scope=\"col\" class=\"num\">size</th>"
		"<th scope=\"col\" class=\"num\">of all</th>");
	for (unsigned i = 0; i < report->set_count; i++) {
		html_raw(html, "<th scope=\"col\" class=\"num\">in warm set ");
		html_string(html, report->sets[i].info.name);
		html_raw(html, "</th>");
	}
	if (report->run)
		html_raw(html, "<th scope=\"col\" class=\"num\">the run touches</th>");
	html_raw(html, "</tr></thead><tbody>\n");
}

static void write_row(const struct report *report, FILE *html,
		      const struct report_group *group)
{
	uint64_t whole = thaw_image_info(report->image)->content_size;

	html_raw(html, "<tr><th scope=\"row\">");
	html_string(html, group->name);
	html_raw(html, "</th><td>");
	html_string(html, group->version ? group->version : "");
	html_raw(html, "</td><td class=\"num\">");
	html_count(html, group->files);
	html_raw(html, "</td><td class=\"num\">");
	html_size(html, group->bytes);
	html_raw(html, "</td>");
	html_bar_open(html, group->bytes, whole);
	html_percent(html, group->bytes, whole);
	html_bar_close(html);
	for (unsigned i = 0; i < report->set_count; i++) {
		html_bar_open(html, group->warm[i], group->bytes);
		html_percent(html, group->warm[i], group->bytes);
		html_bar_close(html);
	}
	if (report->run) {
		html_bar_open(html, group->touched, group->bytes);
		html_percent(html, group->touched, group->bytes);
		html_bar_close(html);
	}
	html_raw(html, "</tr>\n");
}

static void write_groups(const struct report *report, FILE *html)
{
	for (size_t i = 0; i < report->group_count; i++) {
		if (i == ROWS_SHOWN)
			fprintf(html,
				"</tbody></table></div>\n<details><summary>%zu more"
				"</summary>\n",
				report->group_count - i);
		if (i == 0 || i == ROWS_SHOWN)
			write_head_row(report, html);
		write_row(report, html, &report->groups[i]);
	}
	if (report->group_count)
		html_raw(html, "</tbody></table></div>\n");
	if (report->group_count > ROWS_SHOWN)
		html_raw(html, "</details>\n");
}

static void write_legend(const struct report *report, FILE *html)
{
	static const char *const names[] = { "package", "standard library", "programs",
					     "other" };
	bool seen[4] = { false };

	for (size_t i = 0; i < report->group_count; i++)
		seen[report->groups[i].kind] = true;
	html_raw(html, "<ul class=\"legend\">");
	for (unsigned i = 0; i < 4; i++)
		if (seen[i])
			fprintf(html, "<li><span class=\"key %s\"></span>%s</li>",
				report_kind_name((enum report_kind)i), names[i]);
	for (unsigned i = 0; report->set_count && i < sets_drawn(report); i++) {
		fprintf(html, "<li><span class=\"key fill set%u\"></span>", i);
		if (report->set_count <= SETS_DRAWN) {
			html_raw(html, "share held by warm set ");
			html_string(html, report->sets[i].info.name);
		} else {
			html_raw(html, "share held by warm sets");
		}
		html_raw(html, "</li>");
	}
	html_raw(html, "</ul>\n");
}

void report_write_treemap(const struct report *report, FILE *html)
{
	struct cell cells[CELLS_MAX + 1];
	size_t count = make_cells(report, cells);

	html_raw(html, "<section><h2>What is in it</h2>\n");
	if (count == 0) {
		html_raw(html, "<p>No file has any content.</p></section>\n");
		return;
	}
	lay_out(cells, count);
	html_raw(html,
		 "<p>Each area is a package, or what belongs to none, as large as its "
		 "files are when unpacked.");
	if (report->set_count)
		html_raw(html,
			 sets_drawn(report) > 1
				 ? " The hatched parts from the bottom are what each "
				   "warm set holds: it is in memory before a session "
				   "asks for it."
				 : " The hatched part from the bottom is what warm "
				   "sets hold: it is in memory before a session asks "
				   "for it.");
	html_raw(html,
		 "</p>\n<div class=\"map\" role=\"img\" aria-label=\"Areas by size: ");
	for (size_t i = 0; i < count && i < 4; i++) {
		html_raw(html, i ? ", " : "");
		write_name(html, &cells[i]);
		html_raw(html, " ");
		html_percent(html, cells[i].bytes,
			     thaw_image_info(report->image)->content_size);
	}
	html_raw(html, "; all of them are in the table below\">\n");
	for (size_t i = 0; i < count; i++)
		write_cell(report, html, &cells[i]);
	html_raw(html, "</div>\n");
	write_legend(report, html);
	write_groups(report, html);
	html_raw(html, "</section>\n");
}
