/* SPDX-License-Identifier: Apache-2.0 */
/* The progress bar. */
#include "progress.h"

#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

#define REDRAW_NS 100000000ull
#define BAR_MAX	  40

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void tool_progress_start(struct tool_progress *progress, const char *verb, bool quiet)
{
	struct winsize size;

	*progress = (struct tool_progress){
		.verb = verb,
		.shown = !quiet && isatty(STDERR_FILENO),
		.start = now_ns(),
		.columns = 80,
	};
	if (progress->shown && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 &&
	    size.ws_col > 0)
		progress->columns = size.ws_col;
}

double tool_progress_seconds(const struct tool_progress *progress)
{
	return (double)(now_ns() - progress->start) / 1e9;
}

static void format_left(char *buf, size_t size, double seconds)
{
	unsigned long whole = (unsigned long)(seconds + 0.5);

	if (seconds > 100 * 3600)
		(void)snprintf(buf, size, "     ");
	else if (whole >= 3600)
		(void)snprintf(buf, size, "%lu:%02lu:%02lu left", whole / 3600,
			       whole / 60 % 60, whole % 60);
	else
		(void)snprintf(buf, size, "%lu:%02lu left", whole / 60, whole % 60);
}

static void format_amount(const struct tool_progress *progress, uint64_t done,
			  uint64_t total, double seconds, char *buf, size_t size)
{
	char amount[TOOL_SIZE_TEXT], rate[TOOL_SIZE_TEXT];

	if (progress->counts) {
		(void)snprintf(buf, size, "%llu of %llu", (unsigned long long)done,
			       (unsigned long long)total);
		return;
	}
	tool_size_text(done, amount);
	tool_size_text(seconds > 0 ? (uint64_t)((double)done / seconds) : 0, rate);
	(void)snprintf(buf, size, "%s  %s/s", amount, rate);
}

static void format_line(const struct tool_progress *progress, uint64_t done,
			uint64_t total, double seconds, char *line, size_t size)
{
	char amount[96], left[48], bar[BAR_MAX + 1];
	double part = total ? (double)done / (double)total : 0;
	size_t fixed, width;

	part = part > 1 ? 1 : part;
	format_amount(progress, done, total, seconds, amount, sizeof(amount));
	if (!total) {
		(void)snprintf(line, size, "%s  %s", progress->verb, amount);
		return;
	}
	/* The first instants say nothing about the whole. */
	if (seconds > 0.5 && part > 0)
		format_left(left, sizeof(left), seconds / part - seconds);
	else
		left[0] = '\0';
	fixed = strlen(progress->verb) + strlen(amount) + 26;
	width = progress->columns > fixed ? progress->columns - fixed : 0;
	width = width > BAR_MAX ? BAR_MAX : width;
	for (size_t i = 0; i < width; i++)
		bar[i] = (double)i < part * (double)width ? '#' : '.';
	bar[width] = '\0';
	(void)snprintf(line, size, "%s [%s] %3.0f%%  %s  %s", progress->verb, bar,
		       part * 100, amount, left);
}

void tool_progress_update(struct tool_progress *progress, uint64_t done, uint64_t total)
{
	char line[256];
	uint64_t now;

	if (!progress->shown)
		return;
	now = now_ns();
	if (progress->last && now - progress->last < REDRAW_NS)
		return;
	progress->last = now;
	format_line(progress, done, total, (double)(now - progress->start) / 1e9, line,
		    sizeof(line));
	if (strlen(line) >= progress->columns)
		line[progress->columns - 1] = '\0';
	/* Back to the start of the line, text, wipe the rest. */
	fprintf(stderr, "\r%s\033[K", line);
	fflush(stderr);
	progress->drawn = true;
}

void tool_progress_clear(struct tool_progress *progress)
{
	if (!progress->drawn)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	progress->drawn = false;
}

int tool_progress_pass(void *userdata, uint64_t done, uint64_t total)
{
	tool_progress_update(userdata, done, total);
	return tool_interrupted();
}
