/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The decoder: a confined process that opens an image, checks its index and its warm sets,
 * and leaves all of it in memory (a sealed memfd) for others. Who has privileges holds the
 * descriptor and never looks behind the facts at its beginning, which are of fixed size and
 * checked; only confined processes map the rest, since whoever gets the better of the
 * decoder writes it.
 */
#include "thaw/binding.h"
#include "thaw/image.h"
#include "warm-pages.h"

struct thaw_decoding {
	struct thaw_source *source; /* borrowed */
	const uint8_t *identity;    /* that it must have */
	const char *name;	    /* of the image, for the log */
	const char *warm; /* choice of warm sets, as for thaw_warm_pages_init(); NULL: all */
	int learned_fd;	  /* what was learned before, for an image without warm sets, or -1 */
	bool view;	  /* the facts for a view are wanted */
	bool log;	  /* say what is wrong with a warm set */
	bool foreground;  /* to standard error */
};

struct thaw_facts {
	uint64_t size; /* of the memory, by the kernel's word */
	/* For a keeper. */
	uint32_t warm_sets, warm_pages; /* of choice, or learned */
	uint32_t learned;    /* not 0: the set is of what was learned before */
	uint32_t learnable;  /* not 0: it has no warm set at all */
	/* For a view, if they are wanted. */
	uint32_t relocated;  /* not 0: it has files that carry a path */
	uint32_t bound;	     /* not 0: it needs an interpreter of this node's, namely: */
	uint64_t layer_size; /* as thaw_layer_size() */
	char python[16];
	char recorded[THAW_PATH_MAX + 1]; /* "": none, here and below */
	char constraints[4097];
	char learning_failed[512]; /* why what was learned is not used, or "" */
};

/*
 * Decode. *ret_fd is to be closed. Errors: those of thaw_image_open() and
 * thaw_warm_pages_init(); -EIO and -ETIMEDOUT when the decoder did not end well.
 */
_must_check_ int thaw_decode(const struct thaw_decoding *decoding, struct thaw_error *err,
			     int *ret_fd, struct thaw_facts *ret_facts);
/* The facts of an index that was decoded before; fd is borrowed. */
_must_check_ int thaw_decoded_facts(int fd, struct thaw_error *err,
				    struct thaw_facts *ret_facts);

/*
 * In a confined process: the image and its warm sets (warm: NULL for none), by what the
 * decoder left, of facts.size bytes. fd is borrowed, the source taken.
 */
_must_check_ int thaw_decoded_open(int fd, uint64_t size, struct thaw_source *source,
				   struct thaw_error *err, struct thaw_image **ret_image,
				   struct thaw_warm_pages *ret_warm);
