/* SPDX-License-Identifier: Apache-2.0 */
/* Learning what a mount's first workload touches. */
#include "learning.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "confined-child.h"
#include "log.h"
#include "serving.h"
#include "thaw/learned.h"
#include "util/cleanup.h"

/* 1 MiB, and 2 for names; an import of scientific packages makes 10,000. */
#define EVENTS_MAX 65536u
/* Who only looks around has taught nothing. */
#define READS_MIN  8u
#define IDLE_MS	   5000u
#define LOOK_MS	   1000u
#define TIME_MAX   600000u
/* Meanwhile nobody looks after the worker. */
#define SCRIBE_SECONDS 5u

void thaw_learning_begin(struct thaw_learning *learning, struct thaw_serving *serving,
			 const char *directory, uint64_t now_ms)
{
	*learning = (struct thaw_learning){
		.serving = serving,
		.counters = serving->counters,
		.trace = thaw_trace_new(EVENTS_MAX),
		.changed = now_ms,
		.until = now_ms + TIME_MAX,
		.next = now_ms + LOOK_MS,
	};
	if (snprintf(learning->directory, sizeof(learning->directory), "%s", directory) >=
	    (int)sizeof(learning->directory))
		learning->trace = thaw_trace_free(learning->trace);
	if (learning->trace)
		atomic_store(&serving->counters->warm_source, THAW_SOURCE_LEARNING);
}

static void count_reads(struct thaw_learning *learning)
{
	uint32_t count = thaw_trace_count(learning->trace);

	for (; learning->seen < count; learning->seen++) {
		struct thaw_trace_event event;

		if (thaw_trace_get(learning->trace, learning->seen, &event))
			learning->reads += event.kind == THAW_TRACE_READ;
	}
}

void thaw_learning_look(struct thaw_learning *learning, uint64_t now_ms)
{
	uint32_t seen;

	if (!learning || !learning->trace || now_ms < learning->next)
		return;
	learning->next = now_ms + LOOK_MS;
	seen = learning->seen;
	count_reads(learning);
	if (learning->seen != seen)
		learning->changed = now_ms;
	if (learning->seen >= EVENTS_MAX || now_ms >= learning->until ||
	    (learning->reads >= READS_MIN && now_ms - learning->changed >= IDLE_MS))
		thaw_learning_end(learning);
}

uint64_t thaw_learning_next(const struct thaw_learning *learning)
{
	return learning && learning->trace ? learning->next : 0;
}

struct scribe {
	const struct thaw_learning *learning;
	int fd;
};

/* Names are looked up in the index: in a confined process. */
static int write_learned(void *userdata, struct thaw_error *err)
{
	const struct scribe *scribe = userdata;
	struct thaw_serving *serving = scribe->learning->serving;
	struct thaw_learned learned;
	int r = thaw_serving_open(serving, err);

	if (r == 0)
		r = thaw_learned_from_trace(serving->image, scribe->learning->trace, err,
					    &learned);
	return r < 0 ? r
		     : thaw_learned_save(scribe->fd,
					 thaw_image_info(serving->image)->index_digest,
					 &learned, err);
}

/* Whole or not at all: whoever waits for it may look at any time. */
static int write_file(const struct thaw_learning *learning, struct thaw_error *err)
{
	_cleanup_(closep) int directory =
		open(learning->directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(closep) int fd = -1;
	struct scribe scribe = { .learning = learning };
	struct thaw_confined_child child = {
		.kind = THAW_SANDBOX_WORKER,
		.place = -1,
		.seconds = SCRIBE_SECONDS,
		.what = "writes what was learned",
		.work = write_learned,
		.userdata = &scribe,
	};
	int keep[2], r;

	if (directory < 0)
		return -errno == -ENOENT ? 0 /* its mount was given up */
					 : thaw_io(err, -errno, "its directory");
	(void)unlinkat(directory, THAW_LEARNED_NOW ".new", 0); /* most likely not there */
	fd = openat(directory, THAW_LEARNED_NOW ".new",
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return thaw_io(err, -errno, "its file");
	scribe.fd = keep[0] = fd;
	keep[1] = learning->serving->index_fd;
	child.keep = keep;
	child.keep_count = 2;
	r = thaw_confined_child(&child, err);
	if (r == 0 &&
	    renameat(directory, THAW_LEARNED_NOW ".new", directory, THAW_LEARNED_NOW) < 0)
		r = thaw_io(err, -errno, "its file");
	if (r < 0)
		(void)unlinkat(directory, THAW_LEARNED_NOW ".new", 0);
	return r;
}

void thaw_learning_end(struct thaw_learning *learning)
{
	uint32_t source = THAW_SOURCE_LEARNING;
	struct thaw_error err = { 0 };
	int r = 0;

	if (!learning || !learning->trace)
		return;
	thaw_trace_end(learning->trace);
	count_reads(learning);
	if (learning->reads >= READS_MIN)
		r = write_file(learning, &err);
	if (r < 0)
		thaw_log(LOG_WARNING, "nothing was learned: %s", err.text);
	/* The worker still has it, and finds that it has ended. */
	learning->trace = thaw_trace_free(learning->trace);
	atomic_compare_exchange_strong(&learning->counters->warm_source, &source,
				       THAW_SOURCE_NONE);
}
