/* SPDX-License-Identifier: Apache-2.0 */
/* Handing out units of a whole pass to threads. */
#include <errno.h>
#include <stdlib.h>

#include "pass-internal.h"
#include "util/cleanup.h"
#include "util/cpus.h"

void thaw_pass_init(struct thaw_pass *pass, const struct thaw_pass_options *options,
		    uint64_t units, uint64_t total)
{
	*pass = (struct thaw_pass){ .options = options, .units = units, .total = total };
	(void)pthread_mutex_init(&pass->lock,
				 NULL); /* cannot fail with default attributes */
}

void thaw_pass_deinit(struct thaw_pass *pass)
{
	(void)pthread_mutex_destroy(&pass->lock); /* nobody holds it */
}

unsigned thaw_pass_threads(const struct thaw_pass *pass)
{
	unsigned threads = pass->options ? pass->options->threads : 0;

	if (threads == 0)
		threads = cpu_count();
	if (threads > pass->units)
		threads = (unsigned)pass->units;
	return threads ? threads : 1;
}

bool thaw_pass_take(struct thaw_pass *pass, uint64_t *ret_unit)
{
	bool taken;

	pthread_mutex_lock(&pass->lock);
	taken = pass->result == 0 && pass->next < pass->units;
	if (taken)
		*ret_unit = pass->next++;
	pthread_mutex_unlock(&pass->lock);
	return taken;
}

static void fail_locked(struct thaw_pass *pass, int result, const struct thaw_error *err)
{
	if (pass->result == 0) {
		pass->result = result;
		pass->err = *err;
	}
}

void thaw_pass_advance(struct thaw_pass *pass, uint64_t amount)
{
	struct thaw_error err = { 0 };

	pthread_mutex_lock(&pass->lock);
	pass->done += amount;
	if (pass->options && pass->options->progress && pass->result == 0 &&
	    pass->options->progress(pass->options->progress_data, pass->done,
				    pass->total) != 0)
		fail_locked(pass, thaw_io(&err, -EINTR, "stopped"), &err);
	pthread_mutex_unlock(&pass->lock);
}

void thaw_pass_fail(struct thaw_pass *pass, int result, const struct thaw_error *err)
{
	pthread_mutex_lock(&pass->lock);
	fail_locked(pass, result, err);
	pthread_mutex_unlock(&pass->lock);
}

bool thaw_pass_failed(struct thaw_pass *pass)
{
	bool failed;

	pthread_mutex_lock(&pass->lock);
	failed = pass->result != 0;
	pthread_mutex_unlock(&pass->lock);
	return failed;
}

void thaw_pass_run(struct thaw_pass *pass, unsigned threads, void *(*work)(void *),
		   void *data)
{
	_cleanup_(freep) pthread_t *others = calloc(threads, sizeof(*others));
	unsigned started = 0;

	/* This thread is one of them: where no other can be had, it does all. */
	while (others && started + 1 < threads &&
	       pthread_create(&others[started], NULL, work, data) == 0)
		started++;
	(void)work(data); /* failures are in the pass */
	for (unsigned i = 0; i < started; i++)
		(void)pthread_join(others[i], NULL); /* joinable, and joined once */
}

int thaw_pass_result(struct thaw_pass *pass, struct thaw_error *err)
{
	if (pass->result < 0 && err)
		*err = pass->err;
	return pass->result;
}
