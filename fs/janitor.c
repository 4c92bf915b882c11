/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Janitors wait for IN_UNMOUNT: an inotify watch on the view's top directory does
 * not keep its mount, and the kernel says when the file system behind it ends, which
 * it does with the last process of the namespace.
 */
#include "janitor.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "detached.h"
#include "scratch.h"
#include "serving.h"
#include "util/cleanup.h"

/* The view's mount is gone, or, as far as anybody can tell, will never be heard of again. */
static void wait_for_unmount(int inotify)
{
	_Alignas(struct inotify_event) char buf[4096];

	for (;;) {
		ssize_t n = read(inotify, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *event =
				(const struct inotify_event *)p;

			if (event->mask & (IN_UNMOUNT | IN_IGNORED))
				return;
			p += sizeof(*event) + event->len;
		}
	}
}

struct job {
	const char *path;
	int lock, socket;
};

static void janitor(void *userdata)
{
	struct job *job = userdata;
	const int keep[] = { job->lock, job->socket };
	_cleanup_(closep) int inotify = -1;
	char byte;

	thaw_detach_from_terminal();
	(void)prctl(PR_SET_NAME, "thaw-janitor"); /* for ps: a valid name */
	thaw_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
	if (thaw_receive_fds(job->socket, &byte, 1, &inotify, 1) == 1) {
		(void)safe_close(job->socket);
		wait_for_unmount(inotify);
	}
	(void)!thaw_scratch_remove(job->path); /* what stays is swept later */
}

int thaw_janitor_start(const char *path, int lock, struct thaw_error *err,
		       struct thaw_janitor *ret_janitor)
{
	_cleanup_(closep) int own_lock = lock;
	struct job job = { .path = path, .lock = lock };
	int sockets[2], r;

	r = thaw_socket_pair(sockets);
	if (r == 0) {
		job.socket = sockets[1];
		r = thaw_fork_detached(janitor, &job, sockets[0]);
		(void)safe_close(sockets[1]);
		if (r < 0)
			(void)safe_close(sockets[0]);
	}
	if (r < 0) {
		(void)!thaw_scratch_remove(path); /* new, and empty */
		return thaw_io(err, r, "no process can be started for the scratch layer");
	}
	ret_janitor->socket = sockets[0];
	return 0;
}

int thaw_janitor_watch(struct thaw_janitor *janitor, const char *path, const char *view,
		       struct thaw_error *err)
{
	_cleanup_(closep) int inotify = inotify_init1(IN_CLOEXEC);
	int r;

	if (inotify < 0 ||
	    inotify_add_watch(inotify, view, IN_DELETE_SELF | IN_ONLYDIR) < 0)
		return thaw_io(err, -errno,
			       "the scratch layer cannot be watched (inotify; see sysctl "
			       "user.max_inotify_instances, max_inotify_watches)");
	r = thaw_scratch_note_namespace(path);
	if (r == 0)
		r = thaw_send_fds(janitor->socket, "", 1, &inotify, 1);
	return r < 0 ? thaw_io(err, r, "the scratch layer cannot be watched") : 0;
}

void thaw_janitor_deinit(struct thaw_janitor *janitor)
{
	janitor->socket = safe_close(janitor->socket);
}
