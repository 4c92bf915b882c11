/* SPDX-License-Identifier: Apache-2.0 */
/* Escaped text and readable figures in HTML. */
#include "html.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"
#include "util/cleanup.h"

#define THIN_SPACE "\xe2\x80\xaf" /* narrow, no break */

void html_raw(FILE *html, const char *markup)
{
	fputs(markup, html); /* ferror() is asked at the end, here and below */
}

static void put_escaped(FILE *html, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		switch (text[i]) {
		case '&':
			fputs("&amp;", html);
			break;
		case '<':
			fputs("&lt;", html);
			break;
		case '>':
			fputs("&gt;", html);
			break;
		case '"':
			fputs("&quot;", html);
			break;
		case '\'':
			fputs("&#39;", html);
			break;
		default:
			fputc(text[i], html);
		}
	}
}

void html_text(FILE *html, const char *text, size_t len)
{
	_cleanup_(freep) char *shown = NULL;
	size_t shown_len = 0;
	FILE *memory = open_memstream(&shown, &shown_len);

	if (!memory) {
		put_escaped(html, "?", 1);
		return;
	}
	/* What is no UTF-8, and what turns or hides text, as \xNN: as on a terminal. */
	tool_print_escaped(memory, text, len);
	if (fclose(memory) == 0)
		put_escaped(html, shown, shown_len);
	else
		put_escaped(html, "?", 1);
}

void html_string(FILE *html, const char *text)
{
	html_text(html, text, strlen(text));
}

void html_size(FILE *html, uint64_t bytes)
{
	char text[TOOL_SIZE_TEXT];

	fprintf(html, "<data value=\"%" PRIu64 "\">%s</data>", bytes,
		tool_size_text(bytes, text));
}

void html_count(FILE *html, uint64_t count)
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, count);

	fprintf(html, "<data value=\"%" PRIu64 "\">", count);
	for (int i = 0; i < len; i++) {
		if (i > 0 && len > 4 && (len - i) % 3 == 0)
			fputs(THIN_SPACE, html);
		fputc(digits[i], html);
	}
	fputs("</data>", html);
}

const char *html_time_text(uint64_t us, char buf[HTML_TIME_TEXT])
{
	if (us >= 1000000)
		(void)snprintf(buf, HTML_TIME_TEXT, "%.2f s", (double)us / 1e6);
	else if (us >= 1000)
		(void)snprintf(buf, HTML_TIME_TEXT, us >= 100000 ? "%.0f ms" : "%.1f ms",
			       (double)us / 1e3);
	else
		(void)snprintf(buf, HTML_TIME_TEXT, "%" PRIu64 " \xc2\xb5s", us);
	return buf;
}

void html_time(FILE *html, uint64_t us)
{
	char text[HTML_TIME_TEXT];

	fprintf(html, "<data value=\"%" PRIu64 "\">%s</data>", us,
		html_time_text(us, text));
}

const char *html_share_text(uint64_t part, uint64_t whole, char buf[HTML_SHARE_TEXT])
{
	double share = whole ? 100.0 * (double)part / (double)whole : 0;

	/* Neither 0 nor 100 is said of what is not quite; the space is a narrow one that never breaks. */
	if (part == 0 || part == whole)
		(void)snprintf(buf, HTML_SHARE_TEXT, "%d" THIN_SPACE "%%",
			       part ? 100 : 0);
	else if (share < 0.1)
		(void)snprintf(buf, HTML_SHARE_TEXT, "< 0.1" THIN_SPACE "%%");
	else if (share >= 99.5 && share < 100)
		(void)snprintf(buf, HTML_SHARE_TEXT, "> 99" THIN_SPACE "%%");
	else
		(void)snprintf(buf, HTML_SHARE_TEXT,
			       share < 9.95 ? "%.1f" THIN_SPACE "%%"
					    : "%.0f" THIN_SPACE "%%",
			       share);
	return buf;
}

void html_percent(FILE *html, uint64_t part, uint64_t whole)
{
	char text[HTML_SHARE_TEXT];

	html_string(html, html_share_text(part, whole, text));
}

void html_bar_open(FILE *html, uint64_t part, uint64_t whole)
{
	fprintf(html,
		"<td class=\"num bar\"><span class=\"track\"><span class=\"level\" "
		"style=\"width:%.2f%%\"></span></span><span>",
		whole ? 100.0 * (double)(part < whole ? part : whole) / (double)whole
		      : 0);
}

void html_bar_close(FILE *html)
{
	html_raw(html, "</span></td>");
}
