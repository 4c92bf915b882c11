/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The worker: serves one image over one FUSE connection, statelessly. Inode
 * numbers are record numbers, so there is no table of what the kernel knows,
 * and nothing that a successor would have to be told.
 */
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "thaw/image.h"
#include "thaw/reader.h"

struct thaw_serving;

struct thaw_worker {
	/* Called once the sandbox is entered, before anything is served; opens the rest. */
	int (*open)(struct thaw_worker *worker);
	struct thaw_serving *serving; /* for that */
	const struct thaw_image *image;
	struct thaw_reader *reader;
	const char *name; /* of the image, for the log */
	struct thaw_state *state;	/* shared with the keeper */
	struct thaw_counters *counters; /* its, shared with the warmer */
	int life; /* a pipe from the keeper that started us, ... */
	uint32_t keeper; /* ... its pid */
	struct thaw_trace *trace;	/* when recording; else NULL */
	struct thaw_timeline *timeline; /* likewise */
	const struct thaw_warm_pages *warm; /* what the warmer pushes; NULL without warm sets */
	struct thaw_lookahead *lookahead; /* NULL: none */
	bool quiet; /* say nothing about what fails while beginning */
	bool no_readahead; /* while recording: reads name just what is touched */
	uint64_t began;	   /* CLOCK_MONOTONIC seconds */
	uid_t uid;	  /* whom files belong to */
	gid_t gid;
	atomic_uint slots_taken; /* by threads */
	/* A bit a frame: already complained about. */
	_Atomic uint8_t *reported;
};

/*
 * name is borrowed. What follows it above, and open, is for the caller to set afterwards;
 * state and counters must be.
 */
void thaw_worker_init(struct thaw_worker *worker, const char *name);
/* From open(): serve this image (borrowed). cache_bytes as for thaw_reader_new(). -ENOMEM. */
_must_check_ int thaw_worker_open(struct thaw_worker *worker, const struct thaw_image *image,
				  uint64_t cache_bytes);
void thaw_worker_deinit(struct thaw_worker *worker);

/* For fuse_session_new(), with the worker as userdata. */
extern const struct fuse_lowlevel_ops thaw_worker_ops;
