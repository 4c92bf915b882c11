/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Writing HTML. Markup is written as it is, by html_raw() and fprintf() with
 * numbers only; everything that somebody else wrote (names, versions, paths)
 * goes through html_text() or html_string(), in text and in quoted attributes
 * alike: then it is neither markup nor a byte that is no UTF-8.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

void html_raw(FILE *html, const char *markup);
void html_text(FILE *html, const char *text, size_t len);
void html_string(FILE *html, const char *text);

/* <data value="EXACT">as people read it</data> */
void html_size(FILE *html, uint64_t bytes);
void html_count(FILE *html, uint64_t count);
void html_time(FILE *html, uint64_t us);
void html_percent(FILE *html, uint64_t part, uint64_t whole);

/* "12 %", "0.4 %", "< 0.1 %" */
#define HTML_SHARE_TEXT 32
const char *html_share_text(uint64_t part, uint64_t whole, char buf[HTML_SHARE_TEXT]);
/* "1.32 s", "84.1 ms", "37 us" with the Greek letter */
#define HTML_TIME_TEXT 24
const char *html_time_text(uint64_t us, char buf[HTML_TIME_TEXT]);

/* A table cell with a bar of part/whole of its width; what it says is for the caller. */
void html_bar_open(FILE *html, uint64_t part, uint64_t whole);
void html_bar_close(FILE *html);
