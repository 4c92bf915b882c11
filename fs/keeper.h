/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The keeper of a FUSE connection: holds its descriptor, and starts another
 * worker when one dies. It has one thread, decodes nothing, and never touches
 * the mount. When the keeper itself dies, its worker serves on.
 *
 *	keeper -+- worker   serves; may be killed at any time
 *	        +- pusher --- lister   the warmer (warmer.h), for the first second
 *	        +- scout   looks ahead (lookahead.h)
 *
 * SIGTERM or SIGINT ends it, SIGHUP hands over to the program that now lies where
 * it was started from: the worker ends in order, and the new one takes its place.
 */
#include <sys/types.h>

#include "serving.h"
#include "thaw/keep.h"

/* -- in the process that is to be the keeper -- */

struct thaw_keeper {
	struct thaw_serving *serving;
	int fuse_fd; /* mounted; taken */
	/* The mount, for the warmer (see warmer.h); taken; -1 and NULL for none. */
	int root_fd;
	const char *root_path;
	const char *directory; /* for a later keeper: where it is mounted, and its device ... */
	const char *device;    /* ... (mountinfo.h); NULL: in a namespace of its own */
	bool foreground;       /* log to standard error */
	/*
	 * A pipe's writing end, or -1; borrowed. Warming begins once nobody reads it any
	 * more: who asked for the mount has made of it what he wanted by then, which took
	 * three times as long beside a warmer at work.
	 */
	int caller_fd;
};

/*
 * Keep it until the mount is gone: 0. THAW_STILL_MOUNTED when it was a signal:
 * then the mount is there, and dead. No process is left in either case; fuse_fd
 * is closed. Signals must be held back (thaw_session_hold_signals()) since before
 * it was mounted. thaw_serving_share() must have been called.
 */
#define THAW_STILL_MOUNTED 1
_must_check_ int thaw_keeper_run(struct thaw_keeper *keeper);

/*
 * After that: unmount directory, if what is mounted there is still that device.
 * After an unmount somebody may have mounted anew.
 */
void thaw_keeper_unmount(const char *directory, const char *device);

/* -- for a connection that the caller mounts: a keeper of its own -- */

/*
 * Start the keeper of fuse_fd (an open /dev/fuse, which it gets a copy of). It
 * is no child of the caller's, and holds nothing else of the caller's. Where it
 * runs, the caller runs: namespaces must be chosen before, except for a mount
 * namespace entered afterwards, whose end the keeper then does not hold up.
 * *ret_socket: to it, open as long as it lives.
 */
_must_check_ int thaw_keeper_start(struct thaw_serving *serving, int fuse_fd,
				   struct thaw_error *err, int *ret_socket);
/*
 * Tell it, once fuse_fd is mounted on directory, to serve. The caller must then
 * close its own fuse_fd before it touches the mount (see warmer.h).
 */
_must_check_ int thaw_keeper_begin(struct thaw_serving *serving, int socket,
				   const char *directory, struct thaw_error *err);

/* -- for the node service: keepers that outlive it, and can be found again -- */

struct thaw_keeper_launch {
	int image_fd;	   /* opened by whoever asks for it; borrowed */
	const uint8_t *identity; /* of the image */
	const char *name;  /* of the image, for the log */
	const char *directory; /* to mount on: absolute, there, empty */
	const char *options;   /* mount options, as in struct thaw_mount_options */
	const char *warm;      /* "all" (or NULL), "none", or a name */
	uid_t uid; /* whom files belong to */
	gid_t gid;
	unsigned threads;     /* 0: the default */
	uint64_t cache_bytes; /* likewise */
	/*
	 * A directory of this keeper's own, absolute: its state is the file "state" in
	 * it, which must not be there. Whoever made the directory removes both.
	 */
	const char *state_directory;
	const char *scope; /* name of a systemd scope to run in, where there is systemd; or NULL */
	bool learn; /* from what is touched, or use what was learned: learning.h, there */
};

struct thaw_kept {
	pid_t keeper, worker; /* worker: 0 while there is none */
	uint32_t restarts;    /* workers after the first */
	uint32_t waiting_ms;  /* not 0: workers die at once; pause before the next */
	uint32_t refused;     /* requests that were answered by an error for want of a worker */
	uint32_t warm_source; /* enum thaw_warm_source */
	char death[THAW_DEATH_TEXT]; /* of the last worker that died; or empty */
};

/*
 * Start a keeper as a program of its own (`thaw keep`), which mounts and serves.
 * Returns when the mount answers, with a pidfd of the keeper; otherwise it says
 * why not, with nothing left. Waits: call it from a process that may. Warming
 * begins when *ret_hold has been closed; at once when ret_hold is NULL.
 */
_must_check_ int thaw_keeper_launch(const struct thaw_keeper_launch *launch,
				    struct thaw_error *err, int *ret_pidfd, int *ret_hold);
/*
 * What serves by this state directory? 0 when there is a keeper: *ret_pidfd is
 * its. THAW_ORPHANED when the keeper has died and its worker serves on: then
 * thaw_keeper_adopt(). THAW_NOT_FOUND when nobody is left, or there is no state.
 * -EBUSY, class I/O, while a keeper begins or ends: look again. Either out-parameter may be NULL.
 */
#define THAW_ORPHANED 2
_must_check_ int thaw_keeper_look(const char *state_directory, struct thaw_error *err,
				  struct thaw_kept *ret_kept, int *ret_pidfd);
/*
 * Start a new keeper (`thaw keep`) for a worker whose own has died: it takes over
 * the descriptors from the worker, which serves on. Needs the right to ptrace(2)
 * it. Returns when it keeps. -ESRCH, class I/O, when the worker has ended too; -EBUSY
 * when it has a keeper.
 */
_must_check_ int thaw_keeper_adopt(const char *state_directory, const char *scope,
				   struct thaw_error *err, int *ret_pidfd);
