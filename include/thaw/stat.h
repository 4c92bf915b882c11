/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a worker has done since it was mounted.
 *
 * Asked for by an ioctl on any directory of the mount: it needs no socket and no
 * file, works wherever the mount is visible, and is allowed to whoever may list
 * the directory. The struct goes through it as it is: both ends are one build's,
 * or version says that they are not.
 */
#include <stdint.h>
#include <sys/ioctl.h>

#include "thaw/error.h"
#include "thaw/image.h"

#define THAW_STAT_VERSION   3u
#define THAW_STAT_OPCODES   64u /* FUSE's request numbers (linux/fuse.h) are below */
#define THAW_STAT_LATENCIES 24u
#define THAW_STAT_DEATH	    160u

enum thaw_warm_state {
	THAW_WARM_NONE = 0, /* no warm set in use */
	THAW_WARM_RUNNING = 1,
	THAW_WARM_FINISHED = 2,
	THAW_WARM_STOPPED = 3, /* early: memory, damage, or killed */
};

/* Where the pages come from that the warmer pushes. */
enum thaw_warm_source {
	THAW_SOURCE_NONE = 0,
	THAW_SOURCE_IMAGE = 1,	  /* the image's warm sets */
	THAW_SOURCE_LEARNED = 2,  /* a trace of an earlier mount */
	THAW_SOURCE_LEARNING = 3, /* none: what is touched now is recorded for the next */
};
/* "none", "image", "learned", "learning" */
const char *thaw_warm_source_name(uint32_t source);

struct thaw_stat {
	uint32_t version; /* THAW_STAT_VERSION */
	uint32_t warm_state;
	uint8_t identity[THAW_DIGEST_SIZE];
	uint64_t worker;  /* pid, as the worker sees it */
	uint64_t keeper;  /* likewise; 0: it has ended, and the worker serves on */
	uint64_t restarts; /* workers after the first */
	uint64_t refused;  /* requests that the keeper answered by an error */
	char death[THAW_STAT_DEATH]; /* of the worker before this one: "was killed by ..."; or empty */
	uint64_t seconds; /* since mounting */
	uint64_t requests[THAW_STAT_OPCODES];
	/* Answered requests by time from reading to answer: bucket i counts those under 2^i us. */
	uint64_t latency[THAW_STAT_LATENCIES];
	uint64_t bytes_read; /* given to the kernel */
	uint64_t bytes_stored, bytes_decompressed;
	uint64_t cache_hits, cache_misses; /* frames */
	uint64_t frame_errors;
	uint64_t warm_pages;	   /* pushed into the page cache, of 4 KiB */
	uint64_t warm_pages_total; /* in the warm sets in use */
	uint64_t warm_pages_read;  /* asked for although pushed */
	uint64_t warm_overtaken;   /* asked for before the warmer came to them */
	uint32_t warm_source;	   /* enum thaw_warm_source */
	uint32_t reserved;
};

/* X(name) for each plain count that is shown by its name, whoever shows it. */
#define THAW_STAT_COUNTS(X)    \
	X(seconds)             \
	X(bytes_read)          \
	X(bytes_stored)        \
	X(bytes_decompressed)  \
	X(cache_hits)          \
	X(cache_misses)        \
	X(frame_errors)        \
	X(warm_pages)          \
	X(warm_pages_total)    \
	X(warm_pages_read)     \
	X(warm_overtaken)

#define THAW_IOCTL_STAT _IOR('t', 1, struct thaw_stat)

/*
 * directory: a mount of thaw's or a view over one (then the mount below is
 * asked). Class refused when it is neither.
 */
_must_check_ int thaw_stat_directory(const char *directory, struct thaw_error *err,
				     struct thaw_stat *ret_stat);
/* Name of a FUSE request number: "lookup"; NULL for unknown ones. */
const char *thaw_stat_request_name(unsigned opcode);
