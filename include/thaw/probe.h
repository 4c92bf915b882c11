/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What this machine can do for us, found by trying it in child processes: nothing
 * stays mounted, and nothing that hangs holds up the caller.
 */
#include <stdbool.h>
#include <stddef.h>

#include "thaw/error.h"

enum thaw_way {
	THAW_WAY_SHARED,    /* views over one mount an image, by the node service */
	THAW_WAY_PRIVATE,   /* a view of one's own, in namespaces */
	THAW_WAY_EXTRACTED, /* without FUSE: a plain tree */
	THAW_WAY_NONE,
};
#define THAW_WAYS 3u
const char *thaw_way_name(
	enum thaw_way way); /* "shared", "private", "extracted", "none" */

/* Ways that a caller can use: 1u << THAW_WAY_PRIVATE and so on. */
#define THAW_WAYS_ALL 7u

struct thaw_way_report {
	enum thaw_way way; /* the first of the ways asked for that works */
	/* Of each way asked for and not working, why not; of the others empty. */
	char why_not[THAW_WAYS][256];
};
/*
 * What `auto` chooses. Tries only as far as needed; a few milliseconds. *ret_report is
 * always filled; way is THAW_WAY_NONE when none works, which is no failure.
 */
void thaw_probe_way(unsigned ways, struct thaw_way_report *ret_report);

enum thaw_finding_state {
	THAW_FINDING_OK,
	THAW_FINDING_WARN,    /* works, but something is slower, or cannot be had */
	THAW_FINDING_MISSING, /* a way of presenting images does not work for this */
};

struct thaw_finding {
	enum thaw_finding_state state;
	const char *what; /* a word: "device", "overlay"...; static */
	char why[384];	  /* what was found */
	char remedy[256]; /* what to do about it; empty when OK */
};

#define THAW_FINDINGS_MAX 40u

struct thaw_probe {
	struct thaw_way_report ways;
	struct thaw_finding findings[THAW_FINDINGS_MAX];
	size_t count;
};
/* Everything, for thaw doctor. */
void thaw_probe(struct thaw_probe *ret_probe);
