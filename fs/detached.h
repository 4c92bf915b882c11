/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Processes that outlive who started them and are nobody's children, and handing
 * descriptors to them.
 */
#include <stddef.h>

#include "thaw/error.h"

/*
 * Run work(userdata) in a process of its own that is no child of the caller's, and
 * which ends with it; the descriptor callers is closed in it first (-1: none). The
 * caller must have one thread. -errno.
 */
_must_check_ int thaw_fork_detached(void (*work)(void *userdata), void *userdata,
				    int callers);

/*
 * Close all descriptors from 3 on but these (-1: none), in any order: somebody may wait
 * for a pipe's end.
 */
void thaw_close_all_but(const int *keep, unsigned count);

/* Two ends of a socket that keeps messages apart, closed at exec. -errno. */
_must_check_ int thaw_socket_pair(int ret_sockets[2]);

#define THAW_FDS_MAX 64u
/*
 * One message: len bytes (at least one), and descriptors (at most THAW_FDS_MAX).
 * -errno.
 */
_must_check_ int thaw_send_fds(int socket, const void *data, size_t len, const int *fds,
			       unsigned count);
/*
 * The number of descriptors, at most max (what comes beyond is closed). -ENOTCONN when
 * the other end is closed, -EBADMSG when the message has another length.
 */
_must_check_ int thaw_receive_fds(int socket, void *data, size_t len, int *ret_fds,
				  unsigned max);
