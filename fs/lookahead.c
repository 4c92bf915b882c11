/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the scout; and its beginning and end. */
#include "lookahead.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scout.h"
#include "serving.h"
#include "session.h"
#include "util/cleanup.h"

/* There are three names, and each package has them. */
#define MISSED_MAX 16u
/* Where a .pyc and an ELF file say what they are. */
#define MAGIC_SIZE 4u

int thaw_lookahead_start(struct thaw_lookahead *lookahead)
{
	int sockets[2];
	pid_t pid;

	lookahead->socket = -1;
	atomic_store(&lookahead->ended, false);
	if (lookahead->root_fd < 0)
		return -EPERM; /* by its path, the mount would be busy at times */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		thaw_session_hold_signals(false); /* it may be ended at any time */
		thaw_scout_run(lookahead, sockets[1]);
	}
	(void)safe_close(sockets[1]);
	if (pid < 0) {
		(void)safe_close(sockets[0]);
		return -errno;
	}
	lookahead->socket = sockets[0];
	lookahead->pid = pid;
	lookahead->ended_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return 0;
}

void thaw_lookahead_stop(struct thaw_lookahead *lookahead)
{
	lookahead->socket = safe_close(lookahead->socket);
}

bool thaw_lookahead_reap(struct thaw_lookahead *lookahead)
{
	if (lookahead->pid <= 0)
		return true;
	if (waitpid(lookahead->pid, NULL, WNOHANG) == 0)
		return false;
	lookahead->pid = 0;
	lookahead->ended_fd = safe_close(lookahead->ended_fd);
	return true;
}

/* Whether the scout is there, and is not who asked. */
static bool is_heard(struct thaw_lookahead *lookahead, pid_t pid)
{
	return lookahead && pid != lookahead->pid &&
	       !atomic_load_explicit(&lookahead->ended, memory_order_relaxed);
}

/* False when it was not told: when it is busy, so be it (EAGAIN). */
static bool tell(struct thaw_lookahead *lookahead, const struct thaw_hint *hint)
{
	if (send(lookahead->socket, hint, sizeof(*hint), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return true;
	if (errno != EAGAIN)
		atomic_store_explicit(&lookahead->ended, true, memory_order_relaxed);
	return false;
}

void thaw_lookahead_listed(struct thaw_lookahead *lookahead, pid_t pid,
			   const struct thaw_inode *directory)
{
	struct thaw_hint hint = { .kind = THAW_HINT_LISTED, .ino = directory->ino };
	struct thaw_inode bytecode;

	if (is_heard(lookahead, pid) &&
	    thaw_image_lookup(lookahead->serving->image, directory->ino, THAW_BYTECODE,
			      strlen(THAW_BYTECODE), &bytecode) == 0)
		(void)tell(lookahead, &hint);
}

void thaw_lookahead_missed(struct thaw_lookahead *lookahead, pid_t pid, const char *name,
			   size_t len)
{
	struct thaw_hint hint = { .kind = THAW_HINT_MISSED };

	if (!is_heard(lookahead, pid) || len >= sizeof(hint.name) ||
	    strncmp(name, THAW_MISSED_PREFIX, strlen(THAW_MISSED_PREFIX)) != 0 ||
	    atomic_fetch_add_explicit(&lookahead->missed, 1, memory_order_relaxed) >= MISSED_MAX)
		return;
	memcpy(hint.name, name, len);
	(void)tell(lookahead, &hint);
}

void thaw_lookahead_read(struct thaw_lookahead *lookahead, pid_t pid,
			 const struct thaw_inode *file, const void *data, size_t len)
{
	struct thaw_hint hint = { .ino = file->ino };
	const char *bytes = data;
	_Atomic uint32_t *told;

	if (!is_heard(lookahead, pid) || len < MAGIC_SIZE)
		return;
	if (memcmp(bytes, "\177ELF", MAGIC_SIZE) == 0) {
		hint.kind = THAW_HINT_LIBRARY;
		(void)tell(lookahead, &hint);
	} else if (bytes[2] == '\r' && bytes[3] == '\n') {
		hint.kind = THAW_HINT_BYTECODE;
		told = &lookahead->told[file->parent % THAW_LOOKAHEAD_TOLD];
		/* Two threads may tell it twice, which does no harm. */
		if (atomic_load_explicit(told, memory_order_relaxed) != file->parent &&
		    tell(lookahead, &hint))
			atomic_store_explicit(told, file->parent, memory_order_relaxed);
	}
}
