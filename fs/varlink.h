/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Varlink messages over a stream socket: JSON objects, each ended by a NUL, with
 * descriptors that ride along (SCM_RIGHTS). Used by both ends; see
 * doc/protocol.md.
 *
 * What comes in is bounded before it is looked at: bytes of a message, depth of
 * nesting (the JSON parser recurses), descriptors. What goes out is queued up to
 * a bound, so that a reader that does not read costs no more than that, and is
 * then given up on. Nothing here blocks when the descriptor does not.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"

#define THAW_VARLINK_CALL_MAX  (64u << 10) /* a call; paths and labels are all it holds */
#define THAW_VARLINK_REPLY_MAX (8u << 20)  /* a reply: the list of all views */
#define THAW_VARLINK_DEPTH_MAX 8u /* of objects and arrays inside of each other */
#define THAW_VARLINK_FDS_MAX   16u

/* One message as received: its text and the descriptors that came with it. */
struct thaw_varlink_message {
	const char *text; /* NUL-terminated; until the next call on the stream */
	size_t len;
	int fds[THAW_VARLINK_FDS_MAX]; /* the receiver's to close; -1 once taken */
	unsigned fd_count;
};
/* Close what was not taken. */
void thaw_varlink_message_close(struct thaw_varlink_message *message);

struct thaw_varlink_output;

struct thaw_varlink {
	int fd;
	size_t message_max; /* of what comes in */
	size_t queue_max;   /* of what waits to go out */

	char *in;
	size_t in_used, in_capacity;
	size_t taken;	   /* bytes at the front that were handed out */
	size_t scanned;	   /* bytes in which there is no NUL */
	uint64_t position; /* in the stream, of in[0] */
	struct {
		int fd;
		uint64_t position; /* of the last byte that it came with */
	} fds[THAW_VARLINK_FDS_MAX];
	unsigned fd_count;

	struct thaw_varlink_output *out, *out_last;
	size_t queued;
};

/* fd is taken. */
void thaw_varlink_init(struct thaw_varlink *stream, int fd, size_t message_max,
		       size_t queue_max);
/* NULL, zeroed and half-used ones are allowed. */
void thaw_varlink_deinit(struct thaw_varlink *stream);

/*
 * Read once. 0: something came. -EAGAIN: nothing was there. THAW_NOT_FOUND: the
 * other end is closed. -EMSGSIZE: a message or the number of descriptors exceeds
 * its bound; other errors of recvmsg(2). After an error the stream is of no use.
 */
_must_check_ int thaw_varlink_receive(struct thaw_varlink *stream);
/*
 * The next whole message of what was read: 0 or THAW_NOT_FOUND. A descriptor
 * belongs to the message that holds the last byte it was received with: who
 * sends one message with each sendmsg(2) need not think of that.
 */
_must_check_ int thaw_varlink_next(struct thaw_varlink *stream,
				   struct thaw_varlink_message *ret_message);

/*
 * Queue a message (its object is borrowed; the descriptors are duplicated).
 * -ENOBUFS: the queue would grow beyond its bound; -ENOMEM, -EMFILE.
 */
_must_check_ int thaw_varlink_send(struct thaw_varlink *stream, const json_t *object,
				   const int *fds, unsigned fd_count);
/* Write what is queued: 0 all is gone, -EAGAIN, or why the stream is of no use. */
_must_check_ int thaw_varlink_flush(struct thaw_varlink *stream);

/* -- what messages say -- */

struct thaw_varlink_call {
	json_t *object;	    /* owned; the others point into it */
	const char *method; /* "INTERFACE.NAME" */
	json_t *parameters; /* an object, also when the call has none (then owned by object) */
	bool more, oneway;
};
/* -EBADMSG: no JSON object, nested too deeply, or no call. */
_must_check_ int thaw_varlink_parse_call(const char *text, size_t len,
					 struct thaw_varlink_call *ret_call);
void thaw_varlink_call_deinit(struct thaw_varlink_call *call);

struct thaw_varlink_reply {
	json_t *object;
	const char *error; /* "INTERFACE.NAME", or NULL */
	json_t *parameters;
	bool continues;
};
_must_check_ int thaw_varlink_parse_reply(const char *text, size_t len,
					  struct thaw_varlink_reply *ret_reply);
void thaw_varlink_reply_deinit(struct thaw_varlink_reply *reply);

/* New messages; parameters is taken (NULL: none). NULL without memory. */
json_t *thaw_varlink_new_call(const char *method, json_t *parameters, bool more);
json_t *thaw_varlink_new_reply(json_t *parameters, bool continues);
json_t *thaw_varlink_new_error(const char *error, json_t *parameters);
