/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Work that looks into somebody's image, in a child process that could do nothing much if
 * the image got the better of it (sandbox.h). Whoever asks gets a result and one line of
 * text back, and what the work leaves in shared memory; none of it is believed.
 */
#include <stddef.h>

#include "sandbox.h"

struct thaw_confined_child {
	enum thaw_sandbox kind;
	int place; /* as for thaw_sandbox_enter() */
	bool root; /* its root directory is that place; for root only */
	const int *keep; /* descriptors that it needs; -1: none */
	unsigned keep_count;
	bool log;	 /* it may write to the log; foreground: see thaw_log_open() */
	bool foreground;
	unsigned seconds;      /* for all of it */
	const char *what;      /* it does, for messages: "decodes the index" */
	/* In the child. 0, -errno and err, or THAW_NOT_FOUND. */
	int (*work)(void *userdata, struct thaw_error *err);
	void *userdata; /* what the child writes there is lost, unless it is shared memory */
};

/*
 * Returns what work() did. -EIO, class I/O, when the child was killed or took too long.
 * Ends with the calling process. Waits.
 */
_must_check_ int thaw_confined_child(const struct thaw_confined_child *child,
				     struct thaw_error *err);

/* Zeroed memory that children share; to be unmapped with munmap(). NULL: none is to be had. */
void *thaw_shared_memory(size_t size);
