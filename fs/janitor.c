/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Janitors wait for IN_UNMOUNT: an inotify watch on the view's top directory does
 * not keep its mount, and the kernel says when the file system behind it ends, which
 * it does with the last process of the namespace. A user may have few inotify instances
 * (128): without one, janitors look for processes in the namespace.
 */
#include "janitor.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "detached.h"
#include "scratch.h"
#include "serving.h"
#include "util/cleanup.h"

#define LOOK_SECONDS 1

/*
 * The view's mount is gone, or, as far as anybody can tell, will never be heard of
 * again.
 */
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

/* Without inotify: by looking again and again. */
static void wait_for_processes(const char *path)
{
	const struct timespec moment = { .tv_sec = LOOK_SECONDS };

	while (thaw_scratch_is_in_use(path))
		(void)nanosleep(&moment, NULL); /* interrupted: looked a little earlier */
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
	int told;

	thaw_detach_from_terminal();
	(void)prctl(PR_SET_NAME, "thaw-janitor"); /* for ps: a valid name */
	thaw_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
	told = thaw_receive_fds(job->socket, &byte, 1, &inotify, 1);
	(void)safe_close(job->socket);
	if (told == 1)
		wait_for_unmount(inotify);
	else if (told == 0)
		wait_for_processes(job->path);
	(void)!thaw_scratch_remove(job->path); /* what stays is swept later */
}

int thaw_janitor_start(const char *path, int lock, struct thaw_error *err,
		       struct thaw_janitor *ret_janitor)
{
	_cleanup_(closep) _unused_ int own_lock = lock;
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

	if (inotify >= 0 &&
	    inotify_add_watch(inotify, view, IN_DELETE_SELF | IN_ONLYDIR) < 0)
		inotify = safe_close(inotify);
	r = thaw_scratch_note_namespace(path);
	if (r == 0)
		r = thaw_send_fds(janitor->socket, "", 1, &inotify, inotify >= 0);
	return r < 0 ? thaw_io(err, r, "the scratch layer cannot be watched") : 0;
}

void thaw_janitor_deinit(struct thaw_janitor *janitor)
{
	janitor->socket = safe_close(janitor->socket);
}
