/* SPDX-License-Identifier: Apache-2.0 */
/* What the image is, what its worker has done so far, and the figures at the top. */
#include <string.h>

#include "html.h"
#include "report.h"
#include "tool.h"

const char *report_meta_string(const struct report *report, const char *key)
{
	return json_string_value(json_object_get(report->meta, key));
}

static void fact_open(FILE *html, const char *name)
{
	fprintf(html, "<div><dt>%s</dt><dd>", name);
}

static void fact_close(FILE *html)
{
	html_raw(html, "</dd></div>\n");
}

static void fact_string(FILE *html, const char *name, const char *text)
{
	if (!text || !text[0])
		return;
	fact_open(html, name);
	html_string(html, text);
	fact_close(html);
}

static void tile_open(FILE *html, const char *name)
{
	fprintf(html,
		"<div class=\"figure\"><span class=\"what\">%s</span><span class=\"big\">",
		name);
}

static void tile_close(FILE *html)
{
	html_raw(html, "</span></div>\n");
}

/* A word as a shell would take it. */
static void write_word(FILE *html, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_./=:,@%+-";

	if (word[0] && word[strspn(word, plain)] == '\0') {
		html_string(html, word);
		return;
	}
	html_string(html, "'");
	while (*word) {
		size_t len = strcspn(word, "'");

		html_text(html, word, len);
		word += len;
		if (*word) {
			html_string(html, "'\\''");
			word++;
		}
	}
	html_string(html, "'");
}

static void write_run_tiles(const struct report_run *run, FILE *html)
{
	uint64_t waited = 0;

	for (unsigned i = 0; i < REPORT_WAITS; i++)
		waited += run->waited[i];
	tile_open(html, "opening + first run");
	html_time(html, run->mounting + run->first);
	tile_close(html);
	tile_open(html, "second run");
	html_time(html, run->second);
	tile_close(html);
	tile_open(html, "first run waited");
	html_time(html, waited);
	tile_close(html);
	if (run->touched) {
		tile_open(html, "its pages in warm sets");
		html_percent(html, run->covered, run->touched);
		tile_close(html);
	}
}

static void write_tiles(const struct report *report, FILE *html)
{
	const struct thaw_image_info *image = thaw_image_info(report->image);

	html_raw(html, "<div class=\"figures\">\n");
	if (report->run)
		write_run_tiles(report->run, html);
	tile_open(html, "image");
	html_size(html, image->image_size);
	tile_close(html);
	tile_open(html, "unpacked");
	html_size(html, image->content_size);
	tile_close(html);
	tile_open(html, "files");
	html_count(html, image->files);
	tile_close(html);
	tile_open(html, "packages");
	html_count(html, report->packages.count);
	tile_close(html);
	html_raw(html, "</div>\n");
}

static void write_sets(const struct report *report, FILE *html)
{
	if (report->set_count == 0) {
		html_raw(
			html,
			"none: a first run reads on demand (<code>thaw warm</code> makes "
			"one)");
		return;
	}
	for (unsigned i = 0; i < report->set_count; i++) {
		const struct thaw_warm_info *info = &report->sets[i].info;

		html_raw(html, i ? "; " : "");
		html_string(html, info->name);
		html_raw(html, " (");
		html_size(html, info->bytes);
		html_raw(html, " in ");
		html_count(html, info->files);
		html_raw(html, " files, stored as ");
		html_size(html, info->stored);
		html_raw(html, ")");
	}
}

void report_write_head(const struct report *report, FILE *html)
{
	const struct thaw_image_info *image = thaw_image_info(report->image);
	const char *slash = strrchr(report->name, '/');
	char hex[THAW_DIGEST_HEX];

	html_raw(html, "<header><h1>");
	html_string(html, slash && slash[1] ? slash + 1 : report->name);
	html_raw(html, "</h1>\n");
	write_tiles(report, html);
	html_raw(html, "<dl>\n");
	fact_string(html, report->has_live ? "mount" : "image", report->name);
	thaw_digest_hex(image->identity, hex);
	fact_open(html, "identity");
	fprintf(html, "<code>sha256:%s</code>", hex);
	fact_close(html);
	fact_string(html, "source", report_meta_string(report, "source"));
	fact_string(html, "Python", report_meta_string(report, "python"));
	fact_open(html, "size");
	html_size(html, image->image_size);
	html_raw(html, " for a stream of ");
	html_size(html, image->stream_size);
	html_raw(html, " in ");
	html_count(html, image->frames);
	html_raw(html, " frames");
	fact_close(html);
	fact_open(html, "content");
	html_count(html, image->files);
	html_raw(html, " files (");
	html_size(html, image->content_size);
	html_raw(html, "), ");
	html_count(html, image->directories);
	html_raw(html, " directories, ");
	html_count(html, image->symlinks);
	html_raw(html, " symlinks, ");
	html_count(html, image->hardlinks);
	html_raw(html, " hard links");
	fact_close(html);
	fact_open(html, "warm sets");
	write_sets(report, html);
	fact_close(html);
	if (report->run) {
		fact_open(html, "command");
		html_raw(html, "<code>");
		for (char *const *word = report->run->argv; *word; word++) {
			html_raw(html, word == report->run->argv ? "" : " ");
			write_word(html, *word);
		}
		html_raw(html, "</code>");
		fact_close(html);
	}
	html_raw(html, "</dl></header>\n");
}

#ifdef THAW_WITH_FUSE
static void live_row(FILE *html, const char *name)
{
	fprintf(html, "<tr><th scope=\"row\">%s</th><td class=\"num\">", name);
}

void report_write_live(const struct report *report, FILE *html)
{
	static const char *const states[] = { "none in use", "running", "finished",
					      "stopped" };
	const struct thaw_stat *st = &report->live;
	uint64_t most = 1, total = 0;

	if (!report->has_live)
		return;
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		most = st->requests[i] > most ? st->requests[i] : most;
		total += st->requests[i];
	}
	html_raw(html, "<section><h2>What its worker has done</h2>\n<p>");
	html_count(html, total);
	html_raw(html, " requests in ");
	html_count(html, st->seconds);
	html_raw(html, " s since it was mounted; warmer: ");
	html_raw(html, st->warm_state < 4 ? states[st->warm_state] : "unknown");
	html_raw(
		html,
		".</p>\n<div class=\"scroll slim\"><table><thead><tr><th scope=\"col\">request"
		"</th><th scope=\"col\" class=\"num\">count</th></tr></thead><tbody>\n");
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		const char *name = thaw_stat_request_name(i);

		if (st->requests[i] == 0)
			continue;
		fprintf(html, "<tr><th scope=\"row\">%s", name ? name : "request ");
		if (!name)
			fprintf(html, "%u", i);
		html_raw(html, "</th>");
		html_bar_open(html, st->requests[i], most);
		html_count(html, st->requests[i]);
		html_bar_close(html);
		html_raw(html, "</tr>\n");
	}
	html_raw(html,
		 "</tbody></table></div>\n<div class=\"scroll slim\"><table><tbody>\n");
	live_row(html, "given to the kernel");
	html_size(html, st->bytes_read);
	html_raw(html, "</td></tr>\n");
	live_row(html, "decompressed");
	html_size(html, st->bytes_decompressed);
	html_raw(html, "</td></tr>\n");
	live_row(html, "frames found in the worker's cache");
	html_count(html, st->cache_hits);
	html_raw(html, "</td></tr>\n");
	live_row(html, "frames decompressed");
	html_count(html, st->cache_misses);
	html_raw(html, "</td></tr>\n");
	live_row(html, "warm pages pushed");
	html_count(html, st->warm_pages);
	html_raw(html, " of ");
	html_count(html, st->warm_pages_total);
	html_raw(html, "</td></tr>\n");
	live_row(html, "pushed pages that were read nevertheless");
	html_count(html, st->warm_pages_read);
	html_raw(html, "</td></tr>\n");
	live_row(html, "pages that were read before the warmer came to them");
	html_count(html, st->warm_overtaken);
	html_raw(html, "</td></tr>\n</tbody></table></div></section>\n");
}
#else
void report_write_live(const struct report *report, FILE *html)
{
}
#endif
