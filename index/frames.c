/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressing the stream, frame by frame, on several threads.
 *
 * A ring of jobs: the caller fills the newest, compressors take them in order,
 * and the caller writes finished ones out, oldest first. So frames come out in
 * order, the file is written by one thread, and memory is bounded by the ring.
 * Frames are cut at multiples of the frame size, which depends on nothing but
 * the stream: the output is the same for any number of threads.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "digest.h"
#include "pack-internal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"

enum job_state { JOB_FREE, JOB_WAITING, JOB_TAKEN, JOB_DONE };

struct job {
	enum job_state state; /* protected by the lock */
	uint8_t *raw, *stored;
	size_t raw_size, stored_size;
	uint8_t digest[THAW_DIGEST_SIZE];
	bool failed;
};

struct thaw_frames {
	struct thaw_output *output;
	int level;
	uint32_t frame_size;
	size_t stored_capacity;

	struct job *jobs;
	unsigned job_count;
	uint64_t filled;  /* jobs handed out so far; the one being filled is this one */
	uint64_t written; /* jobs written so far */

	pthread_mutex_t lock;
	pthread_cond_t waiting; /* a job waits, or stop is set */
	pthread_cond_t done;
	uint64_t taken; /* jobs taken by compressors; protected by the lock */
	bool stop;	/* protected by the lock */
	pthread_t *threads;
	unsigned thread_count;

	uint8_t *table; /* frame records */
	size_t table_size, table_capacity;
	uint64_t data_offset; /* of the next frame */
};

static struct job *job_at(struct thaw_frames *frames, uint64_t number)
{
	return &frames->jobs[number % frames->job_count];
}

static void compress_job(struct thaw_frames *frames, struct job *job, ZSTD_CCtx *context,
			 struct thaw_digest *digest)
{
	size_t n = ZSTD_compress2(context, job->stored, frames->stored_capacity, job->raw,
				  job->raw_size);

	job->failed = ZSTD_isError(n) || thaw_digest_of(digest, job->stored, n, job->digest) < 0;
	job->stored_size = job->failed ? 0 : n;
}

/* A thread that cannot even start its work fails each job it takes, so that nobody waits. */
static void *compressor(void *userdata)
{
	struct thaw_frames *frames = userdata;
	ZSTD_CCtx *context = ZSTD_createCCtx();
	struct thaw_digest *digest = NULL;
	bool ready = context && thaw_digest_new(&digest) == 0 &&
		     !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel,
							  frames->level)) &&
		     !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1));

	pthread_mutex_lock(&frames->lock);
	for (;;) {
		struct job *job;

		while (!frames->stop && job_at(frames, frames->taken)->state != JOB_WAITING)
			pthread_cond_wait(&frames->waiting, &frames->lock);
		if (frames->stop)
			break;
		job = job_at(frames, frames->taken++);
		job->state = JOB_TAKEN;
		pthread_mutex_unlock(&frames->lock);

		job->failed = true;
		if (ready)
			compress_job(frames, job, context, digest);

		pthread_mutex_lock(&frames->lock);
		job->state = JOB_DONE;
		pthread_cond_signal(&frames->done);
	}
	pthread_mutex_unlock(&frames->lock);
	ZSTD_freeCCtx(context);
	thaw_digest_free(digest);
	return NULL;
}

int thaw_frames_new(struct thaw_output *output, int level, uint32_t frame_size,
		    unsigned threads, struct thaw_error *err, struct thaw_frames **ret_frames)
{
	_cleanup_(thaw_frames_freep) struct thaw_frames *frames = calloc(1, sizeof(*frames));
	sigset_t all, old;
	int r = 0;

	if (!frames)
		return thaw_oom(err);
	frames->output = output;
	frames->level = level;
	frames->frame_size = frame_size;
	frames->stored_capacity = ZSTD_compressBound(frame_size);
	(void)pthread_mutex_init(&frames->lock, NULL); /* cannot fail with default attributes */
	(void)pthread_cond_init(&frames->waiting, NULL);
	(void)pthread_cond_init(&frames->done, NULL);

	/* Enough that compressors find work while the caller parses and writes. */
	frames->job_count = 3 * threads + 2;
	frames->jobs = calloc(frames->job_count, sizeof(*frames->jobs));
	frames->threads = calloc(threads, sizeof(*frames->threads));
	if (!frames->jobs || !frames->threads)
		return thaw_oom(err);
	for (unsigned i = 0; i < frames->job_count; i++) {
		frames->jobs[i].raw = malloc(frame_size);
		frames->jobs[i].stored = malloc(frames->stored_capacity);
		if (!frames->jobs[i].raw || !frames->jobs[i].stored)
			return thaw_oom(err);
	}
	/* Signals are for the caller, whose read they must interrupt. */
	(void)sigfillset(&all); /* cannot fail */
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (frames->thread_count < threads) {
		r = pthread_create(&frames->threads[frames->thread_count], NULL, compressor,
				       frames);

		if (r != 0)
			break;
		frames->thread_count++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (frames->thread_count == 0) /* otherwise fewer will do */
		return thaw_io(err, -r, "no thread can be started");
	*ret_frames = steal_ptr(frames);
	return 0;
}

static int write_oldest(struct thaw_frames *frames, struct thaw_error *err)
{
	struct job *job = job_at(frames, frames->written);
	uint8_t *record;
	int r;

	pthread_mutex_lock(&frames->lock);
	while (job->state != JOB_DONE)
		pthread_cond_wait(&frames->done, &frames->lock);
	pthread_mutex_unlock(&frames->lock);
	if (job->failed)
		return thaw_oom(err); /* nothing else makes compression fail */
	if (grow(&frames->table, &frames->table_capacity, frames->table_size + THAW_FRAME_SIZE,
		 1) < 0)
		return thaw_oom(err);
	record = frames->table + frames->table_size;
	put_le64(record + THAW_FRAME_OFF_DATA, frames->data_offset);
	put_le64(record + THAW_FRAME_OFF_FILE, thaw_output_offset(frames->output));
	put_le32(record + THAW_FRAME_OFF_CSIZE, (uint32_t)job->stored_size);
	put_le32(record + THAW_FRAME_OFF_USIZE, (uint32_t)job->raw_size);
	memcpy(record + THAW_FRAME_OFF_DIGEST, job->digest, THAW_DIGEST_SIZE);
	frames->table_size += THAW_FRAME_SIZE;
	frames->data_offset += job->raw_size;
	r = thaw_output_write(frames->output, job->stored, job->stored_size, err);
	if (r < 0)
		return r;
	job->raw_size = 0;
	pthread_mutex_lock(&frames->lock);
	job->state = JOB_FREE;
	pthread_mutex_unlock(&frames->lock);
	frames->written++;
	return 0;
}

static void submit(struct thaw_frames *frames)
{
	pthread_mutex_lock(&frames->lock);
	job_at(frames, frames->filled++)->state = JOB_WAITING;
	pthread_cond_signal(&frames->waiting);
	pthread_mutex_unlock(&frames->lock);
}

int thaw_frames_add(struct thaw_frames *frames, const uint8_t *data, size_t len,
		    struct thaw_error *err)
{
	while (len > 0) {
		struct job *job;
		size_t n;

		if (frames->filled - frames->written == frames->job_count) {
			int r = write_oldest(frames, err);

			if (r < 0)
				return r;
		}
		job = job_at(frames, frames->filled);
		n = frames->frame_size - job->raw_size;
		if (n > len)
			n = len;
		memcpy(job->raw + job->raw_size, data, n);
		job->raw_size += n;
		data += n;
		len -= n;
		if (job->raw_size == frames->frame_size)
			submit(frames);
	}
	return 0;
}

int thaw_frames_end(struct thaw_frames *frames, struct thaw_error *err)
{
	if (frames->filled - frames->written < frames->job_count &&
	    job_at(frames, frames->filled)->raw_size > 0)
		submit(frames);
	while (frames->written < frames->filled) {
		int r = write_oldest(frames, err);

		if (r < 0)
			return r;
	}
	return 0;
}

const uint8_t *thaw_frames_table(const struct thaw_frames *frames, size_t *ret_size)
{
	*ret_size = frames->table_size;
	return frames->table;
}

struct thaw_frames *thaw_frames_free(struct thaw_frames *frames)
{
	if (!frames)
		return NULL;
	pthread_mutex_lock(&frames->lock);
	frames->stop = true;
	pthread_cond_broadcast(&frames->waiting);
	pthread_mutex_unlock(&frames->lock);
	for (unsigned i = 0; i < frames->thread_count; i++)
		pthread_join(frames->threads[i], NULL);
	for (unsigned i = 0; frames->jobs && i < frames->job_count; i++) {
		free(frames->jobs[i].raw);
		free(frames->jobs[i].stored);
	}
	pthread_cond_destroy(&frames->done);
	pthread_cond_destroy(&frames->waiting);
	pthread_mutex_destroy(&frames->lock);
	free(frames->jobs);
	free(frames->threads);
	free(frames->table);
	free(frames);
	return NULL;
}
