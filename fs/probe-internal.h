/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What ways and findings share: trials are made once. */
#include <stddef.h>

#include "probe-trial.h"
#include "thaw/directories.h"
#include "thaw/probe.h"

struct thaw_probing {
	bool may_mount;
	bool with_scratch;	     /* try scratch layers, too */
	struct thaw_place state;     /* path NULL: none, and why says why */
	struct thaw_trial trials[2]; /* by whether in a user namespace */
	bool tried[2];
};
void thaw_probing_init(struct thaw_probing *probing);
void thaw_probing_deinit(struct thaw_probing *probing);
const struct thaw_trial *thaw_probing_trial(struct thaw_probing *probing,
					    bool user_namespace);
bool thaw_trial_good(const struct thaw_trial *trial);
/* all: go on after the first that works. */
void thaw_probing_ways(struct thaw_probing *probing, unsigned ways, bool all,
		       struct thaw_way_report *ret_report);

/* Whether a node service answers; text says where, or why not. */
bool thaw_probe_service(char *ret_text, size_t size);

/* Fill in probe->findings. */
void thaw_probe_findings(struct thaw_probing *probing, struct thaw_probe *probe);
