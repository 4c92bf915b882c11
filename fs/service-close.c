/* SPDX-License-Identifier: Apache-2.0 */
/* Close, and the end of leases: unmounting a view and removing what was only its. */
#include "service-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <syslog.h>
#include <unistd.h>

#include "mountinfo.h"
#include "overlay.h"
#include "scratch.h"
#include "service-keepers.h"
#include "thaw/gc.h"
#include "thaw/mount.h"
#include "util/cleanup.h"
#include "util/paths.h"

/* Of one call, or of one lease's end: several views may be under way. */
struct closing {
	struct connection *connection; /* as each job's; the last one answers */
	unsigned running;
	unsigned closed;
	int result; /* the first failure */
	struct thaw_error err;
	bool lazy;
	const char *why; /* static */
};

/* -- in the child -- */

/*
 * A directory above the view was renamed, and the view with it: where it is now, its
 * device tells. Nobody keeps a view by that.
 */
static int detach_moved(const struct view *view, struct thaw_error *err)
{
	struct thaw_mount_table table = { 0 };
	int r = thaw_mount_table_read(&table, err);

	for (size_t i = 0; r == 0 && view->device[0] && i < table.count; i++)
		if (table.entries[i].kind == THAW_MOUNT_VIEW &&
		    strcmp(table.entries[i].device, view->device) == 0) {
			r = thaw_overlay_detach(&table.entries[i], err);
			break;
		}
	thaw_mount_table_deinit(&table);
	return r;
}

static int unmount(struct job *job, struct thaw_error *err)
{
	const struct thaw_lease *lease = &job->view->lease;
	int r;

	if (!job->service->root) {
		r = thaw_umount(lease->directory, job->closing->lazy, err);
		/* Nothing of ours is there (any more). */
		return r == -EPERM || r == -ENOENT ? 0 : r;
	}
	r = thaw_overlay_unmount(lease->directory, job->closing->lazy, err);
	if (r == THAW_NOT_FOUND)
		r = detach_moved(job->view, err);
	if (r ==
	    -EPERM) /* somebody has mounted over it: that goes with it, or is no view at all */
		return job->closing->lazy ? 0 : r;
	return r < 0 ? r : 0;
}

static void remove_scratch(const struct job *job)
{
	const char *scratch = job->view->lease.scratch;

	if (!scratch)
		return;
	if (thaw_is_below(scratch, job->service->memory_directory)) {
		(void)umount2(scratch, MNT_DETACH | UMOUNT_NOFOLLOW);
		(void)rmdir(scratch);
	} else {
		(void)!thaw_scratch_remove(scratch); /* what stays is swept later */
	}
}

/*
 * Files that were relocated for a directory that was made for this view: the next
 * session's has another name, as a rule, so nobody would use them again.
 */
static void remove_layers(const struct job *job, const struct thaw_mountpoint *mounted)
{
	for (const char *p = mounted->lower; *p; p = thaw_mountinfo_next_lower(p))
		if (opener_is_layer(job->service, p))
			thaw_gc_layer(p);
}

static int run_close(struct job *job, int socket)
{
	const struct thaw_lease *lease = &job->view->lease;
	struct job_message done = { .kind = JOB_DONE };
	struct thaw_mountpoint mounted = { 0 };
	bool relocated = job->service->root && lease->made && !job->view->plain &&
			 thaw_mountinfo_find(lease->directory, NULL, &mounted) == 0 &&
			 mounted.view;

	done.result = unmount(job, &done.err);
	if (done.result == 0) {
		if (relocated)
			remove_layers(job, &mounted);
		remove_scratch(job);
		if (!job->service->root && job->view->images[0])
			service_keeper_clear(job->view->images[0]->state_directory);
		if (lease->made && job_become(job, lease->uid, lease->gid, NULL, 0) == 0)
			(void)rmdir(
				lease->directory); /* what its owner has put there stays */
		job_unbecome(job);
	}
	return job_send(socket, &done, -1) < 0;
}

/* -- in the service -- */

static void answer(struct closing *closing)
{
	struct connection *connection = closing->connection;

	if (connection && closing->result < 0)
		connection_fail(connection, closing->result, &closing->err);
	else if (connection)
		connection_reply(connection,
				 json_pack("{s:i}", "closed", (int)closing->closed));
	free(closing);
}

static void close_message(struct job *job, const struct job_message *message, int *fd)
{
	struct closing *closing = job->closing;

	job->done = message->result == 0;
	closing->closed += job->done;
	if (!job->done && closing->result == 0) {
		closing->result = message->result;
		closing->err = message->err;
	}
}

static void close_ended(struct job *job)
{
	struct service *service = job->service;
	struct closing *closing = job->closing;
	struct view *view = job->view;

	closing->connection = job->connection;
	job->view = NULL;
	if (job->done) {
		service->metrics.closes++;
		view_log(view, LOG_INFO, "closed", closing->why);
		event_send(service, "closed", view);
		view_forget(view);
	} else {
		if (closing->result == 0)
			closing->result = thaw_io(&closing->err, -EIO,
						  "the job ended before it was done");
		service->metrics.closes_busy += closing->result == -EBUSY;
		view_log(view, LOG_WARNING, "not-closed", closing->err.text);
		view->state = VIEW_OPEN;
		wake_for_view(service, view);
		if (view->lease.deadline) {
			/* Its lease is over: again, but not at once. */
			view->lease.deadline = thaw_boottime() + 5;
			service_wake_at(service, view->lease.deadline);
		}
	}
	if (view->also) {
		/* Another Close came meanwhile: the same answer. */
		struct closing *also = view->also;

		view->also = NULL;
		also->closed += job->done;
		if (!job->done && also->result == 0) {
			also->result = closing->result;
			also->err = closing->err;
		}
		if (--also->running == 0)
			answer(also);
	}
	if (--closing->running == 0)
		answer(closing);
	job->connection = NULL;
}

void closings_forget(struct service *service, const struct connection *connection)
{
	for (struct view *view = service->views; view; view = view->next)
		if (view->also && view->also->connection == connection)
			view->also->connection = NULL;
}

static int close_one(struct view *view, struct closing *closing)
{
	struct service *service = view->service;
	struct job *job = job_new(service, "close", closing->connection);
	int r;

	if (!job)
		return -ENOMEM;
	job->view = view;
	job->closing = closing;
	job->message = close_message;
	job->end = close_ended;
	r = job_start(service, job, run_close, NULL, 0);
	if (r < 0) {
		free(job);
		return r;
	}
	view->state = VIEW_CLOSING;
	closing->running++;
	return 0;
}

void view_end(struct view *view, const char *why)
{
	struct closing *closing = calloc(1, sizeof(*closing));

	if (closing) {
		closing->lazy = true;
		closing->why = "lease ended";
	}
	view_log(view, LOG_INFO, "ending", why);
	if (!closing || close_one(view, closing) < 0) {
		free(closing);
		view->lease.deadline = thaw_boottime() + 1; /* later, then */
		service_wake_at(view->service, view->lease.deadline);
	}
}

static bool asked_for(const struct view *view, const char *session, const char *directory)
{
	return !view->gone && strcmp(view->lease.session, session) == 0 &&
	       (!directory || strcmp(view->lease.directory, directory) == 0);
}

void method_close(struct connection *connection)
{
	struct service *service = connection->service;
	const char *session = NULL, *directory = NULL;
	struct closing *closing;
	unsigned found = 0;
	bool force = false;
	int r = 0;

	if (PARAMETERS(connection, { "session", PARAMETER_STRING, true, &session },
		       { "directory", PARAMETER_STRING, false, &directory },
		       { "force", PARAMETER_BOOL, false, &force }) < 0)
		return;
	for (struct view *view = service->views; view; view = view->next) {
		if (!asked_for(view, session, directory) ||
		    !view_visible(view, connection))
			continue;
		found++;
		if (!view_owned(view, connection)) {
			connection_refuse(connection, "Denied",
					  "the view is another user's");
			return;
		}
		if (view->state != VIEW_OPEN &&
		    (view->state != VIEW_CLOSING || view->also)) {
			connection_refuse(
				connection, "Busy",
				"\"%.300s\": the view is being opened, changed or closed",
				view->lease.directory);
			return;
		}
	}
	if (found == 0) {
		if (directory)
			connection_refuse(connection, "NotFound",
					  "session \"%s\" has no view at \"%.300s\"",
					  session, directory);
		else
			connection_refuse(connection, "NotFound",
					  "there is no session \"%s\"", session);
		return;
	}
	closing = calloc(1, sizeof(*closing));
	if (!closing) {
		connection_refuse(connection, "Io", "no memory");
		return;
	}
	closing->connection = connection;
	closing->lazy = force;
	closing->why = "asked for";
	for (struct view *view = service->views; view && r == 0; view = view->next)
		if (asked_for(view, session, directory) &&
		    view_visible(view, connection)) {
			if (view->state ==
			    VIEW_CLOSING) { /* by its lease's end, or another's call */
				view->also = closing;
				closing->running++;
			} else {
				r = close_one(view, closing);
			}
		}
	if (r < 0 && closing->result == 0)
		closing->result = thaw_io(&closing->err, r, "no job can be started");
	if (closing->running == 0)
		answer(closing);
}
