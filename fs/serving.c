/* SPDX-License-Identifier: Apache-2.0 */
/* From an image's name to a worker that serves it. */
#include "serving.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "decoder.h"
#include "log.h"
#include "session.h"
#include "util/cleanup.h"
#include "worker.h"

/* -- the image's file -- */

/* A source that says while it reads: a worker that waits for a disk does not hang. */
struct watched_source {
	struct thaw_source base;
	struct thaw_source *inner;
};

static int watched_read(struct thaw_source *source, uint64_t offset, void *buf, size_t len)
{
	struct watched_source *watched = (struct watched_source *)source;
	int r;

	thaw_session_in_storage(true);
	r = watched->inner->read(watched->inner, offset, buf, len);
	thaw_session_in_storage(false);
	return r;
}

static void watched_free(struct thaw_source *source)
{
	struct watched_source *watched = (struct watched_source *)source;

	(void)thaw_source_free(watched->inner); /* always NULL */
	free(watched);
}

/* Takes inner in any case. */
static int watch_source(struct thaw_source *inner, struct thaw_error *err,
			struct thaw_source **ret_source)
{
	struct watched_source *watched = malloc(sizeof(*watched));

	if (!watched) {
		(void)thaw_source_free(inner);
		return thaw_oom(err);
	}
	watched->base = *inner;
	watched->base.read = watched_read;
	watched->base.free = watched_free;
	watched->inner = inner;
	*ret_source = &watched->base;
	return 0;
}

static void note_warm(struct thaw_serving *serving, unsigned sets, uint64_t pages)
{
	serving->warm_sets = sets;
	serving->warm_pages = pages;
}

static void begin(struct thaw_serving *serving, const char *name)
{
	*serving = (struct thaw_serving){
		.index_fd = -1,
		.image_fd = -1,
		.name = name,
		.uid = getuid(),
		.gid = getgid(),
	};
}

int thaw_serving_init(struct thaw_serving *serving, const char *image, const char *warm,
		      struct thaw_error *err)
{
	struct thaw_source *source;
	int r;

	begin(serving, image);
	r = thaw_source_open(image, err, &source);
	if (r == 0)
		r = watch_source(source, err, &source);
	if (r == 0)
		r = thaw_image_open(source, err, &serving->image);
	if (r == 0)
		r = thaw_warm_pages_init(&serving->warm, serving->image, image, warm, err);
	if (r < 0)
		return r;
	serving->image_fd = thaw_image_fd(serving->image);
	memcpy(serving->identity, thaw_image_info(serving->image)->identity, THAW_DIGEST_SIZE);
	note_warm(serving, serving->warm.count, serving->warm.pages);
	return 0;
}

int thaw_serving_init_given(struct thaw_serving *serving, const struct thaw_serving_given *given,
			    struct thaw_error *err)
{
	struct thaw_decoding decoding = {
		.identity = given->identity,
		.name = given->name,
		.warm = given->warm,
		.learned_fd = given->learned_fd,
		.log = true,
		.foreground = given->foreground,
	};
	struct thaw_source *source;
	struct thaw_facts facts;
	int r;

	begin(serving, given->name);
	r = thaw_source_from_fd(given->fd, err, &source);
	if (r == 0)
		r = watch_source(source, err, &serving->source);
	if (r < 0)
		return r;
	decoding.source = serving->source;
	r = thaw_decode(&decoding, err, &serving->index_fd, &facts);
	if (r < 0)
		return r;
	serving->index_size = facts.size;
	serving->image_fd = serving->source->fd;
	memcpy(serving->identity, given->identity, THAW_DIGEST_SIZE);
	note_warm(serving, facts.warm_sets, facts.warm_pages);
	serving->learnable = facts.learnable;
	serving->learned = facts.learned;
	if (facts.learning_failed[0])
		thaw_log(LOG_WARNING, "%s: what was learned is not used: %s", given->name,
			 facts.learning_failed);
	return 0;
}

int thaw_serving_open(struct thaw_serving *serving, struct thaw_error *err)
{
	struct thaw_source *source = serving->source;

	if (serving->image)
		return 0;
	serving->source = NULL; /* taken, whatever comes */
	return thaw_decoded_open(serving->index_fd, serving->index_size, source, err,
				 &serving->image, &serving->warm);
}

int thaw_serving_share(struct thaw_serving *serving, const char *path, struct thaw_error *err)
{
	int r = 0;

	if (!serving->state)
		r = thaw_state_new(path, thaw_session_threads(serving->threads), err,
				   &serving->state);
	if (r == 0)
		serving->counters = &serving->state->common->counters;
	return r;
}

void thaw_serving_learn(struct thaw_serving *serving, struct thaw_learning *learning,
			const char *directory)
{
	if (!serving->learnable || serving->learned)
		return;
	thaw_learning_begin(learning, serving, directory, thaw_timeline_now() / 1000);
	serving->learning = learning;
}

void thaw_serving_deinit(struct thaw_serving *serving)
{
	thaw_warm_pages_deinit(&serving->warm);
	thaw_image_free(serving->image);
	thaw_source_free(serving->source);
	closep(&serving->index_fd);
	thaw_state_free(serving->state);
	*serving = (struct thaw_serving){ .index_fd = -1 };
}

/* -- the worker -- */

/* By the thread that decodes, before and after. */
static void note_decoding(void *userdata, const struct thaw_frame *frame, bool done)
{
	static _Thread_local uint64_t began;
	struct thaw_timeline_event event = {
		.kind = THAW_TIMELINE_FRAME,
		.began = began,
		.bytes = frame->size,
	};

	if (done)
		thaw_timeline_add(userdata, &event);
	else
		began = thaw_timeline_now();
}

/* In the sandbox. */
static int open_worker(struct thaw_worker *worker)
{
	struct thaw_serving *serving = worker->serving;
	int r = thaw_serving_open(serving, NULL);

	if (r == 0)
		r = thaw_worker_open(worker, serving->image, serving->cache_bytes);
	if (r < 0)
		return r;
	if (serving->timeline)
		thaw_reader_observe(worker->reader, note_decoding, serving->timeline);
	worker->warm = serving->warm_sets ? &serving->warm : NULL;
	return 0;
}

int thaw_serving_work(struct thaw_serving *serving, int fuse_fd, int life, bool quiet)
{
	struct thaw_worker worker;
	int r;

	thaw_worker_init(&worker, serving->name);
	worker.serving = serving;
	worker.open = open_worker;
	worker.uid = serving->uid;
	worker.gid = serving->gid;
	worker.state = serving->state;
	worker.counters = serving->counters;
	worker.life = life;
	worker.keeper = atomic_load(&serving->state->common->keeper);
	worker.trace = serving->trace	   ? serving->trace
		       : serving->learning ? serving->learning->trace
					   : NULL;
	worker.timeline = serving->timeline;
	worker.lookahead = serving->lookahead;
	worker.no_readahead = serving->no_readahead;
	worker.quiet = quiet;
	r = thaw_session_run(&worker, fuse_fd, thaw_session_threads(serving->threads));
	thaw_worker_deinit(&worker);
	return r;
}

bool thaw_serving_wait_warm(const struct thaw_serving *serving, int keeper)
{
	struct pollfd gone = { .fd = keeper }; /* POLLHUP always counts */

	while (atomic_load(&serving->counters->warm_state) == THAW_WARM_RUNNING)
		if (poll(&gone, 1, 1) > 0)
			return false;
	return true;
}

void thaw_detach_from_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setsid(); /* fails only for a group's leader, which a fresh child is not */
	(void)!chdir("/");
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		(void)safe_close(null);
}
