/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a keeper and its workers share, and what a later keeper finds: a file (in
 * memory, or one with a name) that outlives every one of them.
 *
 *	plan    what is served, where and by whom. Written by the keeper alone. A
 *	        worker has it no longer when it begins to serve: what it may have
 *	        been made to write cannot lead a keeper astray.
 *	common  counters, the saved INIT request, and one slot for each thread of the
 *	        worker. Written by workers; a keeper believes nothing that it reads.
 *
 * A slot holds the request that its thread is at work on. The kernel copies the
 * request straight into it, so there is no moment at which a request has been
 * taken and is not in a slot; whoever serves next finds it there.
 */
#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "counters.h"
#include "thaw/error.h"
#include "thaw/image.h"

#define THAW_STATE_VERSION 3u
#define THAW_SLOTS_MAX	   1024u
/* A whole request of the largest kind: reading into less is EINVAL, whatever comes. */
#define THAW_REQUEST_MAX ((1u << 20) + 4096u)
#define THAW_INIT_MAX	 256u
/*
 * How a worker's death counts against what it was at work on. Two that died of
 * their own doing (a crash, an exit, a hang) are enough for a request to be
 * refused. SIGKILL may come from anybody, and does when somebody kills workers at
 * random: it takes four of those, one after the other, during the same request.
 */
#define THAW_GUILT_CRASH 2u
#define THAW_GUILT_KILL	 1u
#define THAW_GUILT_MAX	 4u

/* Zero-terminated text, numbers of this machine's: both ends are this machine's too. */
struct thaw_plan {
	char magic[8];
	uint32_t version;
	uint32_t slots;
	uint32_t slot_size, common_size; /* of this build's layout */
	uint8_t identity[THAW_DIGEST_SIZE];
	char name[512];	       /* of the image, for the log; may be cut */
	char directory[4096];  /* where it is mounted; empty: in a namespace of its own */
	char device[32];       /* of the mount, see mountinfo.h */
	char warm[64];	       /* choice of warm sets; empty: all */
	char fuse_options[1024];
	char program[4096];    /* to hand over to */
	uint32_t threads;
	uint32_t uid, gid;     /* whom files belong to */
	uint32_t foreground;   /* log to standard error */
	uint32_t hang_ms;      /* a request older than this is stuck */
	uint64_t cache_bytes;
	/* Processes with their start times (see thaw_process_began()), since numbers are used again. */
	int32_t keeper, worker;
	uint64_t keeper_began, worker_began;
	int32_t fuse_fd, image_fd;   /* in the worker */
	int32_t pusher, scout;	     /* further children, to be reaped by whoever takes over */
	char learn[4096]; /* directory to learn in (learning.h); empty: not */
};

struct thaw_slot {
	_Alignas(64) _Atomic uint64_t beats; /* requests read and answered by this thread */
	_Atomic uint64_t answered;
	_Atomic uint32_t storage; /* reading from the image's file: how long is not ours to say */
	_Atomic uint32_t guilt;	  /* of workers' deaths, while at work on ... */
	_Atomic uint64_t blamed;  /* ... this request */
	_Atomic uint64_t counted; /* the last request that is among those counted */
	/* A page of its own, as the kernel writes here; filled when its len is not 0. */
	_Alignas(4096) uint8_t request[THAW_REQUEST_MAX];
};

#define THAW_DEATH_TEXT THAW_STAT_DEATH
struct thaw_common {
	struct thaw_counters counters;
	/* For those who ask a worker; nothing is decided by them. */
	_Atomic uint32_t keeper;   /* pid */
	_Atomic uint32_t restarts; /* workers after the first */
	_Atomic uint32_t refused;  /* requests that killed too many workers */
	_Atomic uint32_t waiting_ms; /* until the next worker is tried; 0: not waiting */
	_Atomic uint32_t death_turn; /* which of the two texts is the last */
	char death[2][THAW_DEATH_TEXT];
	/* The worker's progress. */
	_Atomic uint32_t ready; /* it serves what comes */
	_Atomic int32_t error;	/* why it could not: an errno */
	/* For precise blame: */
	_Atomic uint32_t replaying; /* 1 + slot that is served again, alone; 0: none */
	_Atomic uint32_t init_answered;
	_Atomic uint32_t init_size;
	uint8_t init[THAW_INIT_MAX];
	_Alignas(4096) struct thaw_slot slots[];
};

struct thaw_state {
	int fd;
	struct thaw_plan *plan; /* NULL in a worker */
	struct thaw_common *common;
	uint32_t slots; /* copy: what is in the file may change */
	size_t common_size;
};

/*
 * Make one. path: NULL for memory only; else a file that must not exist. Shared
 * with children. THAW_SLOTS_MAX slots at most.
 */
_must_check_ int thaw_state_new(const char *path, unsigned slots, struct thaw_error *err,
				struct thaw_state **ret_state);
/*
 * Use one that another program made; takes fd, also on failure. Class refused
 * when it is of another version, damaged when it is none.
 */
_must_check_ int thaw_state_open(int fd, struct thaw_error *err, struct thaw_state **ret_state);
/* In a worker: keep what it needs, and nothing that a keeper relies on. */
void thaw_state_leave_plan(struct thaw_state *state);
struct thaw_state *thaw_state_free(struct thaw_state *state);

/* -- slots, from a worker's thread -- */

static inline void thaw_slot_clear(struct thaw_slot *slot)
{
	struct fuse_in_header *header = (struct fuse_in_header *)slot->request;

	header->len = 0;
	header->unique = 0;
}

/* The request of this slot, if there is one that makes sense. False: nothing in flight. */
bool thaw_slot_request(const struct thaw_slot *slot, struct fuse_in_header *ret_header);
/* Does anybody wait for an answer to it? */
bool thaw_wants_answer(const struct fuse_in_header *header);
/* Make pages for what requests are like, so that the kernel need not when it fills them. */
void thaw_slots_populate(const struct thaw_state *state);

/* -- slots, from the keeper -- */

/*
 * A worker has died. Hold it against what it was at work on: against the request
 * that was served alone, or else against all. Empties slots that nobody waits
 * for. refuse() is called for each request that reaches THAW_GUILT_MAX; its slot is
 * emptied then. Returns how many are left for the next worker.
 */
typedef void thaw_refuse_fn(void *userdata, const struct fuse_in_header *header);
unsigned thaw_slots_blame(struct thaw_state *state, unsigned guilt, thaw_refuse_fn *refuse,
			  void *userdata);
/* Refuse all that is in flight. */
void thaw_slots_refuse(struct thaw_state *state, thaw_refuse_fn *refuse, void *userdata);

/* Sums over all slots: whether anything happens, whether anything was answered. */
uint64_t thaw_slots_beats(const struct thaw_state *state);
uint64_t thaw_slots_answered(const struct thaw_state *state);
/* Is some thread waiting for the image's file? */
bool thaw_slots_in_storage(const struct thaw_state *state);

/* What the last death was, for whoever asks. Keeper only. */
void thaw_state_set_death(struct thaw_state *state, const char *text);
void thaw_common_death(const struct thaw_common *common, char ret_text[THAW_DEATH_TEXT]);

/*
 * When a process began, in the kernel's ticks since boot: with its number, a
 * name for it that is not used again. 0 when there is none.
 */
uint64_t thaw_process_began(pid_t pid);
/* One letter, as in /proc/PID/stat; 'X' when there is none. */
char thaw_process_state(pid_t pid);
