/* SPDX-License-Identifier: Apache-2.0 */
/* Views: the list of them, their leases, their names below sessions/. */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "util/cleanup.h"

struct view *view_at(struct service *service, const char *directory)
{
	for (struct view *view = service->views; view; view = view->next)
		if (!view->gone && strcmp(view->lease.directory, directory) == 0)
			return view;
	return NULL;
}

struct view *view_new(struct service *service, struct thaw_lease *lease)
{
	struct view *view = calloc(1, sizeof(*view));

	if (!view)
		return NULL;
	view->service = service;
	view->lease = *lease;
	*lease = (struct thaw_lease){ 0 };
	view->scratch_lock = -1;
	view->process.fd = -1;
	if (!view->lease.opened)
		view->lease.opened = (int64_t)time(NULL);
	view->next = service->views;
	service->views = view;
	service->view_count++;
	return view;
}

bool view_owned(const struct view *view, const struct connection *connection)
{
	return connection->privileged || connection->uid == view->lease.uid;
}

bool view_visible(const struct view *view, const struct connection *connection)
{
	return view_owned(view, connection) || view->lease.shared;
}

int view_put_record(struct view *view, struct thaw_error *err)
{
	json_t *record = thaw_lease_to_record(&view->lease);
	struct thaw_error own = { 0 };
	int r;

	if (!err)
		err = &own;
	r = record ? thaw_catalogue_put_lease(view->service->catalogue, view->lease.id,
					      record, err)
		   : thaw_oom(err);
	json_decref(record);
	view->service->metrics_stale = true;
	return r;
}

/* -- names -- */

/*
 * RUNTIME/sessions/SESSION/NAME leads to the view. For people, who walk there with
 * ls, and for a service that has lost its catalogue: the link's owner is the view's.
 */
void view_link(struct view *view)
{
	const char *name = strrchr(view->lease.directory, '/') + 1;
	_cleanup_(freep) char *session = NULL;

	if (view->link || asprintf(&session, "%s/%s", view->service->sessions_directory,
				   view->lease.session) < 0) {
		session = NULL;
		return;
	}
	(void)mkdir(session, 0755);
	for (unsigned i = 1; i < 1000; i++) {
		char *link = NULL, number[16] = "";

		if (i > 1)
			(void)snprintf(number, sizeof(number), ".%u", i);
		if (asprintf(&link, "%s/%s%s", session, name, number) < 0)
			return;
		if (symlink(view->lease.directory, link) == 0) {
			(void)lchown(link, view->lease.uid, view->lease.gid);
			view->link = link;
			return;
		}
		free(link);
		if (errno != EEXIST)
			return; /* only a convenience */
	}
}

void view_unlink(struct view *view)
{
	char *slash;

	if (!view->link)
		return;
	(void)unlink(view->link);
	slash = strrchr(view->link, '/');
	*slash = '\0';
	(void)rmdir(view->link); /* the session's last */
	free(view->link);
	view->link = NULL;
}

/* -- leases -- */

static void process_ended(struct source *source, uint32_t events)
{
	struct view *view =
		(struct view *)((char *)source - offsetof(struct view, process));

	source_remove(source);
	closep(&source->fd);
	if (view->gone || view->lease.kind != THAW_LEASE_PROCESS)
		return;
	view->service->metrics.expired++;
	view_end(view, "its process has ended");
}

int view_follow_process(struct view *view, int pidfd, struct thaw_error *err)
{
	int r;

	source_remove(&view->process);
	closep(&view->process.fd);
	if (pidfd < 0)
		return thaw_io(err, -ESRCH, "the process cannot be followed");
	r = source_add(view->service, &view->process, pidfd, EPOLLIN, process_ended);
	if (r < 0) {
		(void)safe_close(pidfd);
		return thaw_io(err, r, "the process cannot be followed");
	}
	return 0;
}

/* The lease begins, or is taken up again, by this connection (NULL: it has gone). */
void view_renew(struct view *view, struct connection *connection)
{
	struct thaw_lease *lease = &view->lease;
	uint64_t now = thaw_boottime();

	lease->deadline = 0;
	view->connection = NULL;
	if (lease->kind == THAW_LEASE_CONNECTION) {
		view->connection = connection;
		if (!connection)
			lease->deadline = now + (uint64_t)view->service->options->grace;
	} else if (lease->kind == THAW_LEASE_TTL && lease->seconds) {
		lease->deadline = now + lease->seconds;
	}
	if (lease->kind != THAW_LEASE_PROCESS) {
		source_remove(&view->process);
		closep(&view->process.fd);
	}
	if (lease->deadline)
		service_wake_at(view->service, lease->deadline);
	if (view_put_record(view, NULL) < 0)
		view_log(view, LOG_ERR, "lease-not-recorded", NULL);
}

void views_expire(struct service *service, uint64_t now)
{
	for (struct view *view = service->views; view; view = view->next) {
		if (view->gone || view->state != VIEW_OPEN || view->lease.deadline == 0)
			continue;
		if (view->lease.deadline > now) {
			service_wake_at(service, view->lease.deadline);
			continue;
		}
		service->metrics.expired++;
		view_end(view, view->lease.kind == THAW_LEASE_TTL
				       ? "its time is over"
				       : "its connection was lost");
	}
}

/* -- beginning and end -- */

void view_opened(struct view *view)
{
	view->state = VIEW_OPEN;
	view_link(view);
	view->service->metrics_stale = true;
}

void view_forget(struct view *view)
{
	struct service *service = view->service;
	struct thaw_error err = { 0 };
	int r;

	if (view->gone)
		return;
	view->gone = true;
	service->view_count--;
	service->metrics_stale = true;
	source_remove(&view->process);
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++) {
		if (view->images[i])
			image_unuse(view->images[i], service);
		view->images[i] = NULL;
	}
	view_unlink(view);
	r = thaw_catalogue_remove_lease(service->catalogue, view->lease.id, &err);
	if (r < 0)
		service_log(service, LOG_ERR, "catalogue", "why", err.text, NULL);
	wake_for_view(service, view);
	if (service->draining)
		service_wake_at(service, thaw_boottime()); /* images may end now */
}

void views_sweep(struct service *service)
{
	struct view **at = &service->views;

	while (*at) {
		struct view *view = *at;

		if (!view->gone) {
			at = &view->next;
			continue;
		}
		*at = view->next;
		source_remove(&view->process);
		closep(&view->process.fd);
		closep(&view->scratch_lock);
		thaw_lease_deinit(&view->lease);
		free(view->link);
		free(view);
	}
}
