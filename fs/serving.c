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

#include "log.h"
#include "session.h"
#include "thaw/learned.h"
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

/* Takes source. */
static int open_image(struct thaw_serving *serving, struct thaw_source *source, const char *name,
		      const char *warm, struct thaw_error *err)
{
	int r;

	r = watch_source(source, err, &source);
	if (r == 0)
		r = thaw_image_open(source, err, &serving->image);
	if (r == 0)
		r = thaw_warm_pages_init(&serving->warm, serving->image, name, warm, err);
	return r;
}

int thaw_serving_init(struct thaw_serving *serving, const char *image, const char *warm,
		      struct thaw_error *err)
{
	struct thaw_source *source;
	int r;

	*serving = (struct thaw_serving){ .name = image, .uid = getuid(), .gid = getgid() };
	r = thaw_source_open(image, err, &source);
	return r < 0 ? r : open_image(serving, source, image, warm, err);
}

int thaw_serving_init_fd(struct thaw_serving *serving, int fd, const char *name,
			 const char *warm, struct thaw_error *err)
{
	struct thaw_source *source;
	int r;

	*serving = (struct thaw_serving){ .name = name, .uid = getuid(), .gid = getgid() };
	r = thaw_source_from_fd(fd, err, &source);
	return r < 0 ? r : open_image(serving, source, name, warm, err);
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

static bool has_warm_set(const struct thaw_image *image)
{
	for (unsigned i = 0; i < thaw_image_part_count(image); i++) {
		struct thaw_part_info part;

		thaw_image_part(image, i, &part);
		if (part.type == THAW_PART_WARM)
			return true;
	}
	return false;
}

/* 0 when it is in use now. */
static int use_learned(struct thaw_serving *serving, const char *directory,
		       struct thaw_error *err)
{
	struct thaw_learned learned = { 0 };
	uint8_t digest[THAW_DIGEST_SIZE];
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX];
	struct thaw_warm *set;
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", directory, THAW_LEARNED_BEFORE) >=
	    (int)sizeof(path))
		return THAW_NOT_FOUND;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return THAW_NOT_FOUND;
	r = thaw_learned_load(fd, err, digest, &learned);
	if (r < 0)
		return r;
	/* Of another image, it would do no harm, and no good. */
	if (memcmp(digest, thaw_image_info(serving->image)->index_digest, sizeof(digest)))
		r = THAW_NOT_FOUND;
	if (r == 0)
		r = thaw_warm_from_learned(serving->image, &learned, err, &set);
	thaw_learned_deinit(&learned);
	if (r == 0 && thaw_warm_pages_add(&serving->warm, set) < 0)
		r = thaw_oom(err);
	return r;
}

void thaw_serving_learn(struct thaw_serving *serving, struct thaw_learning *learning,
			const char *directory)
{
	struct thaw_error err = { 0 };
	int r;

	if (has_warm_set(serving->image))
		return;
	r = use_learned(serving, directory, &err);
	if (r < 0)
		thaw_log(LOG_WARNING, "%s: what was learned is not used: %s",
			 serving->name, err.text);
	serving->learned = r == 0;
	if (r == 0)
		return;
	thaw_learning_begin(learning, serving->image, serving->counters, directory,
			    thaw_timeline_now() / 1000);
	serving->learning = learning;
}

void thaw_serving_deinit(struct thaw_serving *serving)
{
	thaw_warm_pages_deinit(&serving->warm);
	thaw_image_free(serving->image);
	thaw_state_free(serving->state);
	*serving = (struct thaw_serving){ 0 };
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

int thaw_serving_work(struct thaw_serving *serving, int fuse_fd, int life, bool quiet)
{
	struct thaw_worker worker;
	int r;

	r = thaw_worker_init(&worker, serving->image, serving->name, serving->cache_bytes);
	if (r < 0)
		return r;
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
	if (serving->timeline)
		thaw_reader_observe(worker.reader, note_decoding, serving->timeline);
	worker.lookahead = serving->lookahead;
	worker.no_readahead = serving->no_readahead;
	worker.warm = serving->warm.count ? &serving->warm : NULL;
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
