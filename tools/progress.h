/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A bar for work that takes a while: on stderr, only when that is a terminal,
 * never on stdout, drawn at most ten times a second.
 */
#include <stdbool.h>
#include <stdint.h>

struct tool_progress {
	const char *verb;     /* "packing" */
	bool shown;	      /* stderr is a terminal, and nobody asked for quiet */
	bool drawn;	      /* something is on the line */
	bool counts;	      /* of things, not bytes: to be set after the start */
	uint64_t start, last; /* nanoseconds */
	unsigned columns;
};

void tool_progress_start(struct tool_progress *progress, const char *verb, bool quiet);
/* total 0: not known. */
void tool_progress_update(struct tool_progress *progress, uint64_t done, uint64_t total);
/* Wipe the line, before anything else is printed. */
void tool_progress_clear(struct tool_progress *progress);
double tool_progress_seconds(const struct tool_progress *progress);

/* A thaw_pass_progress_fn: draws, and cancels once interrupted. */
int tool_progress_pass(void *progress, uint64_t done, uint64_t total);
