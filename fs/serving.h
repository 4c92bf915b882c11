/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One image about to be served, or being served: what is opened before anything
 * is mounted or forked, so that whoever asked learns what is wrong with it, and
 * what the processes then share.
 */
#include <sys/types.h>

#include "keeper-state.h"
#include "learning.h"
#include "thaw/image.h"
#include "thaw/timeline.h"
#include "warm-pages.h"

struct thaw_lookahead;

struct thaw_serving {
	/*
	 * Open from the beginning where whoever serves has opened the image himself. Else NULL:
	 * then confined processes open it by what a decoder left (decoder.h), see
	 * thaw_serving_open().
	 */
	struct thaw_image *image;
	struct thaw_warm_pages warm; /* likewise */
	struct thaw_source *source; /* of the image to be; owned */
	int index_fd;		    /* the decoder's; owned; -1: none */
	uint64_t index_size;	    /* bytes of it */
	int image_fd;		    /* of the image or source */
	uint8_t identity[THAW_DIGEST_SIZE];
	unsigned warm_sets; /* in use; what sets it to 0 switches warming off */
	uint64_t warm_pages;
	bool learnable; /* the image has no warm set at all */
	const char *name; /* of the image, for the log; borrowed */
	struct thaw_state *state; /* shared with keeper and worker; NULL before it is needed */
	struct thaw_counters *counters; /* of the state, or NULL */
	struct thaw_trace *trace; /* borrowed; set it to record */
	struct thaw_learning *learning; /* likewise, in passing */
	bool learned;			/* the warm set is of a learned trace */
	struct thaw_timeline *timeline; /* likewise */
	struct thaw_lookahead *lookahead; /* borrowed; the keeper's */
	bool no_readahead;	  /* the trace is to name just the pages that are touched */
	unsigned threads;	  /* 0: the default */
	uint64_t cache_bytes;	  /* 0: the default */
	unsigned hang_ms;	  /* a request that takes longer gets its worker replaced; 0: the default */
	uid_t uid; /* whom files belong to; whoever calls thaw_serving_init() */
	gid_t gid;
};

/* Open the image and the warm sets of choice (as for thaw_warm_pages_init()). */
_must_check_ int thaw_serving_init(struct thaw_serving *serving, const char *image,
				   const char *warm, struct thaw_error *err);
/*
 * The same for a descriptor, borrowed, of somebody else's image, which must have that
 * identity: it is decoded by a confined process, and this one never looks into it. name is
 * for the log, which foreground is as for thaw_log_open(); learned_fd: what was learned
 * before, or -1.
 */
struct thaw_serving_given {
	int fd, learned_fd;
	const uint8_t *identity;
	const char *name, *warm;
	bool foreground;
};
_must_check_ int thaw_serving_init_given(struct thaw_serving *serving,
					 const struct thaw_serving_given *given,
					 struct thaw_error *err);
/*
 * In a confined process, before the image or its warm sets are used: open them, unless they
 * are. Errors are those of thaw_decoded_open().
 */
_must_check_ int thaw_serving_open(struct thaw_serving *serving, struct thaw_error *err);
/* Make the state (path: see thaw_state_new()), unless there is one; threads must be set. */
_must_check_ int thaw_serving_share(struct thaw_serving *serving, const char *path,
				    struct thaw_error *err);
/*
 * For an image without warm sets, of which nothing is in use that was learned before: learn,
 * with learning (borrowed), into a file in directory. Must be shared.
 */
void thaw_serving_learn(struct thaw_serving *serving, struct thaw_learning *learning,
			const char *directory);
void thaw_serving_deinit(struct thaw_serving *serving);

/*
 * In the process that is the worker, which has nothing of the keeper's but a few
 * descriptors: serve fuse_fd (borrowed) until the mount is gone or SIGTERM comes,
 * sandboxed. 0 then; -errno when serving is impossible. life: a pipe whose other
 * end the keeper has. quiet: not the first to fail, so libfuse need not complain
 * again.
 */
_must_check_ int thaw_serving_work(struct thaw_serving *serving, int fuse_fd, int life,
				   bool quiet);

/*
 * Wait until the warmer has finished or given up; at once without one. keeper is
 * a pipe or socket whose other end only the keeper has: false when that is gone.
 * The caller must not hold the FUSE descriptor (see warmer.h).
 */
_must_check_ bool thaw_serving_wait_warm(const struct thaw_serving *serving, int keeper);

/* Leave the caller's terminal, session and directory. */
void thaw_detach_from_terminal(void);
