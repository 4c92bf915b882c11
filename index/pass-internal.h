/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Whole passes: threads that take numbered units of work, one after the other,
 * until all are done, one fails, or the caller cancels.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/extract.h"

struct thaw_pass {
	const struct thaw_pass_options *options; /* may be NULL */
	pthread_mutex_t lock;
	/* protected by lock */
	uint64_t next, units;
	uint64_t done, total; /* for progress */
	int result;	      /* the first failure; no unit is begun after it */
	struct thaw_error err;
};

void thaw_pass_init(struct thaw_pass *pass, const struct thaw_pass_options *options,
		    uint64_t units, uint64_t total);
void thaw_pass_deinit(struct thaw_pass *pass);
/* How many threads to start: never more than there are units. */
unsigned thaw_pass_threads(const struct thaw_pass *pass);
/* The next unit, or false when there is none or the pass has failed. */
bool thaw_pass_take(struct thaw_pass *pass, uint64_t *ret_unit);
/* Report progress; fails the pass with -EINTR when the caller cancels. */
void thaw_pass_advance(struct thaw_pass *pass, uint64_t amount);
/* The first failure counts, later ones are its consequences. */
void thaw_pass_fail(struct thaw_pass *pass, int result, const struct thaw_error *err);
bool thaw_pass_failed(struct thaw_pass *pass);
/* Run work(data) in so many threads and wait for all. */
void thaw_pass_run(struct thaw_pass *pass, unsigned threads, void *(*work)(void *),
		   void *data);
/* The outcome, with err filled in. */
_must_check_ int thaw_pass_result(struct thaw_pass *pass, struct thaw_error *err);
