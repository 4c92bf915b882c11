/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The node service: opens, shares, lists and closes views on one machine. Its
 * protocol is described in doc/protocol.md.
 */
#include <stdbool.h>

#include "thaw/error.h"

struct thaw_serve_options {
	const char *socket;  /* NULL: "socket" in the run-time directory */
	const char *metrics; /* file to keep metrics in (Prometheus text), or NULL */
	int linger; /* seconds that an unused image stays mounted; -1: the default, 10 */
	int grace;  /* seconds that views outlive their connection; -1: the default, 60 */
	bool no_learn; /* from what is touched in images without a warm set */
};

/*
 * Serve in this process until SIGTERM or SIGINT, or until a Drain has emptied it.
 * Returns 0 then; views stay as they are. Class refused when a service has the
 * run-time directory already.
 */
_must_check_ int thaw_serve(const struct thaw_serve_options *options,
			    struct thaw_error *err);
