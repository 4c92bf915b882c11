/* SPDX-License-Identifier: Apache-2.0 */
/* Swap and AddLayer: another view in the place of one that stands. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "service-internal.h"
#include "strangers.h"
#include "util/cleanup.h"

static void change_done(struct job *job, const struct job_message *message)
{
	struct service *service = job->service;
	struct view *view = job->view;
	struct thaw_lease *lease = &job->request->lease;
	struct connection *connection = job->connection;
	struct thaw_error err = { 0 };

	job->connection = NULL;
	job->view = NULL;
	view->state = VIEW_OPEN;
	if (message->result < 0) {
		job_unuse_images(job);
		if (connection)
			connection_fail(connection, message->result, &message->err);
		wake_for_view(service, view);
		return;
	}
	job_note_plain(job, message->value);
	view->plain = false; /* not looked into again */
	for (unsigned i = 0; i < lease->image_count; i++) {
		if (i < job->request->first_new)
			continue;
		if (view->images[i])
			image_unuse(view->images[i], service);
		view->images[i] = job->images[i];
		job->images[i] = NULL;
		free(view->lease.images[i].name);
		view->lease.images[i] = lease->images[i];
		lease->images[i].name = NULL;
	}
	/* A swap leaves the layers out that stood over the old image. */
	for (unsigned i = lease->image_count; i < view->lease.image_count; i++) {
		if (view->images[i])
			image_unuse(view->images[i], service);
		view->images[i] = NULL;
		free(view->lease.images[i].name);
		view->lease.images[i].name = NULL;
	}
	view->lease.image_count = lease->image_count;
	(void)snprintf(view->device, sizeof(view->device), "%s", message->device);
	if (view_put_record(view, &err) < 0)
		service_log(service, LOG_ERR, "catalogue", "why", err.text, NULL);
	service->metrics.swaps++;
	view_log(view, LOG_INFO, "changed", NULL);
	event_send(service, "changed", view);
	view_answer(connection, view, false);
	wake_for_view(service, view);
}

static void change_message(struct job *job, const struct job_message *message, int *fd)
{
	struct thaw_lease *lease = &job->request->lease;
	struct job_message go = { .kind = JOB_GO };

	switch (message->kind) {
	case JOB_FOUND:
		for (unsigned i = job->request->first_new; i < lease->image_count; i++)
			memcpy(lease->images[i].identity, message->identities[i],
			       THAW_DIGEST_SIZE);
		(void)!job_send(job->source.fd, &go, -1); /* its end is noticed */
		break;
	case JOB_WANT:
		job->wanted = message->number;
		job_want_image(job);
		break;
	case JOB_LAUNCHED:
		job_launched(job, message, fd);
		break;
	case JOB_INDEX:
		job_note_index(job, message, fd);
		break;
	case JOB_DONE:
		job->done = true;
		change_done(job, message);
		break;
	default:
		break;
	}
}

static void change_ended(struct job *job)
{
	struct job_message message = { .kind = JOB_DONE };

	if (job->done)
		return;
	if (job->image)
		job_launch_failed(job);
	message.result = thaw_io(&message.err, -EIO,
				 "the view's job ended before it was done");
	change_done(job, &message);
	/* Which of the two views stands, the table of mounts says. */
	service_look_at_mounts(job->service);
}

static struct view *changeable(struct connection *connection, const char *session,
			       const char *directory)
{
	struct view *view = view_named(connection, session, directory, true);

	if (!view)
		return NULL;
	if (!connection->service->root) {
		connection_refuse(connection, "Unsupported",
				  "a plain mount cannot be changed");
		return NULL;
	}
	if (view->state != VIEW_OPEN || (view->lease.writable && view->attached)) {
		connection_refuse(
			connection, "Busy", "\"%.300s\": %s", directory,
			view->state != VIEW_OPEN
				? "the view is being opened, changed or closed"
				: "a writable view that was attached elsewhere");
		return NULL;
	}
	return view;
}

/* keep: images of the view that stay, from below. */
static void change(struct connection *connection, bool add)
{
	const char *session = NULL, *image = NULL, *directory = NULL;
	struct request *request = request_new();
	struct job *job = request ? job_new(connection->service,
					    add ? "add layer" : "swap", connection)
				  : NULL;
	struct view *view = NULL;
	int fd = -1, r = 0;

	if (!job) {
		request_free(request);
		connection_refuse(connection, "Io", "no memory");
		return;
	}
	r = PARAMETERS(connection, { "session", PARAMETER_STRING, true, &session },
		       { "directory", PARAMETER_STRING, true, &directory },
		       { "image", PARAMETER_STRING, true, &image },
		       { "fd", PARAMETER_FD, true, &fd });
	if (r == 0) {
		view = changeable(connection, session, directory);
		r = view ? 0 : -EPERM;
	}
	request->first_new = r == 0 && add ? view->lease.image_count : 0;
	if (r == 0 && request->first_new > THAW_LAYERS_MAX) {
		connection_refuse(connection, "Limit", "more than %u layers",
				  THAW_LAYERS_MAX);
		r = -EFBIG;
	}
	request->lease.image_count = request->first_new;
	if (r == 0) {
		r = request_take_image(connection, request, image, steal_fd(&fd));
		request->lease.writable = view->lease.writable;
		request->lease.uid = view->lease.uid;
		request->lease.gid = view->lease.gid;
	}
	if (r < 0) {
		stranger_close(fd);
		request_free(request);
		free(job);
		return;
	}
	job->request = request;
	job->view = view;
	job->message = change_message;
	job->end = change_ended;
	view->state = VIEW_CHANGING;
	request_start(connection, request, job, changer_run);
}

void method_swap(struct connection *connection)
{
	change(connection, false);
}

void method_add_layer(struct connection *connection)
{
	change(connection, true);
}
