/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Watching a command: it is run twice in one fresh private view, first while
 * the warmer is at work, then with everything in memory, and a timeline is kept.
 */
#include "thaw/stat.h"
#include "thaw/timeline.h"
#include "thaw/view.h"

struct thaw_observed_run {
	uint64_t began, ended; /* the timeline's clock: started, waited for */
	int status;	       /* as of waitpid(2) */
	struct thaw_stat stat; /* after it */
};

struct thaw_observed {
	uint64_t
		opened; /* when the view began to be made; runs[0].began: when it was there */
	struct thaw_observed_run runs[2];
};

/*
 * view's timeline is set here. The second run is left out when the first one
 * fails (its status says so).
 */
_must_check_ int thaw_observe(const struct thaw_view_options *view, char *const *argv,
			      struct thaw_timeline *timeline, struct thaw_error *err,
			      struct thaw_observed *ret_observed);

/*
 * The image that the worker of a mount serves, as a path that can be opened
 * (malloc'ed; in /proc, so it works when the file has been renamed or removed).
 * Needs the worker's rights; -ENOENT, class I/O, when it cannot be found.
 */
_must_check_ int thaw_mounted_image(const struct thaw_stat *stat, struct thaw_error *err,
				    char **ret_path);
