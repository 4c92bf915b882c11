/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open as the service sees it: what the child may do next
 * (service-opener.c), and what becomes of the view.
 */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "keeper-state.h"
#include "strangers.h"
#include "util/cleanup.h"

static void close_images(struct request *request)
{
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++) {
		stranger_close(request->image_fds[i]);
		request->image_fds[i] = -1;
	}
}

void request_free(struct request *request)
{
	if (!request)
		return;
	thaw_lease_deinit(&request->lease);
	close_images(request);
	closep(&request->process_fd);
	free(request->directory);
	free(request->groups);
	free(request);
}

struct request *request_new(void)
{
	struct request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
		request->image_fds[i] = -1;
	request->process_fd = -1;
	return request;
}

/* -- parameters -- */

/*
 * Bytes are verified whoever they come from, but who can cut an image short, or does not
 * answer, can make it unreadable: of what only root can change all share one worker.
 */
static bool others_may_change(int fd)
{
	struct stat st;

	return stranger_may_wait(fd) || fstat(fd, &st) < 0 || st.st_uid != 0 ||
	       (st.st_mode & 022);
}

int request_take_image(struct connection *connection, struct request *request,
		       const char *name, int fd)
{
	struct thaw_lease *lease = &request->lease;
	unsigned number = lease->image_count++;

	request->image_fds[number] = fd;
	request->own[number] = !connection->privileged && others_may_change(fd);
	lease->images[number].name = strdup(name[0] ? name : "?");
	if (lease->images[number].name)
		return 0;
	connection_refuse(connection, "Io", "no memory");
	return -ENOMEM;
}

static int take_layers(struct connection *connection, struct request *request,
		       json_t *layers)
{
	json_t *layer;
	size_t i;

	if (json_array_size(layers) + request->lease.image_count > 1 + THAW_LAYERS_MAX) {
		connection_refuse(connection, "Limit", "more than %u layers",
				  THAW_LAYERS_MAX);
		return -EFBIG;
	}
	json_array_foreach(layers, i, layer)
	{
		const struct parameter list[] = {
			{ "image", PARAMETER_STRING, true, &(const char *){ NULL } },
			{ "fd", PARAMETER_FD, true, &(int){ -1 } },
		};

		if (!json_is_object(layer))
			return connection_invalid(connection, "layers");
		if (connection_parameters(connection, layer, list, 2) < 0)
			return -EINVAL;
		if (request_take_image(connection, request, *(const char **)list[0].value,
				       *(int *)list[1].value) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* A process that is the caller's own, or anybody's for root: else it could spy on it. */
static int check_process(struct connection *connection, pid_t pid)
{
	struct stat st;
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) < 0) {
		connection_refuse(connection, "NotFound", "there is no process %d",
				  (int)pid);
		return -ESRCH;
	}
	if (!connection->privileged && st.st_uid != connection->uid) {
		connection_refuse(connection, "Denied", "process %d is another user's",
				  (int)pid);
		return -EPERM;
	}
	return 0;
}

static int take_lease(struct connection *connection, struct request *request,
		      json_t *object)
{
	struct thaw_lease *lease = &request->lease;
	const char *kind = NULL;
	int64_t pid = 0, seconds = 0;
	const struct parameter list[] = {
		{ "kind", PARAMETER_STRING, true, &kind },
		{ "pid", PARAMETER_NUMBER, false, &pid },
		{ "seconds", PARAMETER_NUMBER, false, &seconds },
	};

	if (!object)
		return 0; /* the connection's */
	if (connection_parameters(connection, object, list, 3) < 0)
		return -EINVAL;
	if (strcmp(kind, "ttl") == 0) {
		lease->kind = THAW_LEASE_TTL;
		if (seconds > INT32_MAX)
			return connection_invalid(connection, "seconds");
		lease->seconds = (uint64_t)seconds;
	} else if (strcmp(kind, "process") == 0) {
		lease->kind = THAW_LEASE_PROCESS;
		if (pid <= 0 || pid > INT32_MAX)
			return connection_invalid(connection, "pid");
		if (check_process(connection, (pid_t)pid) < 0)
			return -EPERM;
		lease->pid = (pid_t)pid;
		request->process_fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
		lease->pid_start = thaw_process_began(lease->pid);
		if (request->process_fd >= 0 && lease->pid_start != 0)
			return 0;
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			connection_refuse(connection, "Io",
					  "process %d cannot be followed: %s", (int)pid,
					  strerror(errno));
		else
			connection_refuse(connection, "NotFound", "process %d has ended",
					  (int)pid);
		return -ESRCH;
	} else if (strcmp(kind, "connection") != 0) {
		return connection_invalid(connection, "kind");
	}
	return 0;
}

static bool own_group(const struct connection *connection, gid_t gid)
{
	for (unsigned i = 0; i < connection->group_count; i++)
		if (connection->groups[i] == gid)
			return true;
	return gid == connection->gid;
}

static int take_owner(struct connection *connection, struct request *request, int64_t uid,
		      int64_t gid)
{
	const struct service *service = connection->service;
	struct thaw_lease *lease = &request->lease;

	lease->uid = uid >= 0	     ? (uid_t)uid
		     : service->root ? connection->uid
				     : service->uid;
	/* Whose group is not known has the one of the same number, as most users do. */
	lease->gid = gid >= 0					 ? (gid_t)gid
		     : uid >= 0 && lease->uid != connection->uid ? (gid_t)uid
								 : connection->gid;
	if (uid >= (int64_t)UINT32_MAX || gid >= (int64_t)UINT32_MAX)
		return connection_invalid(connection,
					  uid >= (int64_t)UINT32_MAX ? "uid" : "gid");
	if (connection->uid != 0 && (uid >= 0 || gid >= 0) &&
	    (lease->uid != connection->uid || !own_group(connection, lease->gid))) {
		connection_refuse(connection, "Denied",
				  "only root opens views for other users or groups");
		return -EPERM;
	}
	request->uid = lease->uid;
	request->gid = lease->gid;
	if (lease->uid == connection->uid && connection->group_count > 0) {
		size_t size = connection->group_count * sizeof(gid_t);

		request->groups = malloc(size);
		if (!request->groups) {
			connection_refuse(connection, "Io", "no memory");
			return -ENOMEM;
		}
		memcpy(request->groups, connection->groups, size);
		request->group_count = connection->group_count;
	}
	return 0;
}

static int take_options(struct connection *connection, struct request *request,
			const char *session, const char *warm, json_t *labels)
{
	struct thaw_lease *lease = &request->lease;
	const struct service *service = connection->service;

	if (!thaw_session_name_valid(session))
		return connection_invalid(connection, "session");
	if (!thaw_labels_valid(labels))
		return connection_invalid(connection, "labels");
	lease->session = strdup(session);
	lease->labels = json_incref(labels);
	lease->warm = warm ? strdup(warm) : NULL;
	if (!lease->session || (warm && !lease->warm)) {
		connection_refuse(connection, "Io", "no memory");
		return -ENOMEM;
	}
	if (lease->scratch_size && !lease->writable)
		return connection_invalid(connection, "scratch_size");
	if (!service->root && (lease->writable || lease->image_count > 1)) {
		connection_refuse(
			connection, "Unsupported",
			"%s views need root's service (thaw run --%s works without)",
			lease->writable ? "writable" : "layered",
			lease->writable ? "writable" : "layer");
		return -EPERM;
	}
	return 0;
}

static int take_open(struct connection *connection, struct request *request)
{
	const char *session = NULL, *image = NULL, *directory = NULL, *warm = NULL;
	json_t *layers = NULL, *labels = NULL, *lease = NULL;
	int64_t size = 0, uid = -1, gid = -1;
	int fd = -1, r;

	r = PARAMETERS(connection, { "session", PARAMETER_STRING, true, &session },
		       { "image", PARAMETER_STRING, true, &image },
		       { "fd", PARAMETER_FD, true, &fd },
		       { "directory", PARAMETER_STRING, true, &directory },
		       { "writable", PARAMETER_BOOL, false, &request->lease.writable },
		       { "scratch_size", PARAMETER_NUMBER, false, &size },
		       { "layers", PARAMETER_ARRAY, false, &layers },
		       { "shared", PARAMETER_BOOL, false, &request->lease.shared },
		       { "warm", PARAMETER_STRING, false, &warm },
		       { "labels", PARAMETER_OBJECT, false, &labels },
		       { "lease", PARAMETER_OBJECT, false, &lease },
		       { "uid", PARAMETER_NUMBER, false, &uid },
		       { "gid", PARAMETER_NUMBER, false, &gid });
	if (r < 0) {
		stranger_close(fd);
		return r;
	}
	request->lease.scratch_size = (uint64_t)size;
	request->directory = strdup(directory);
	r = request_take_image(connection, request, image, fd);
	if (r == 0 && !request->directory) {
		connection_refuse(connection, "Io", "no memory");
		r = -ENOMEM;
	}
	if (r == 0 && layers)
		r = take_layers(connection, request, layers);
	if (r == 0)
		r = take_owner(connection, request, uid, gid);
	if (r == 0)
		r = take_options(connection, request, session, warm, labels);
	if (r == 0)
		r = take_lease(connection, request, lease);
	return r;
}

/* -- what the child finds -- */

/* Does what is asked for differ from what stands there? Says in what. */
static const char *difference(const struct thaw_lease *view,
			      const struct thaw_lease *asked)
{
	if (strcmp(view->session, asked->session) != 0)
		return "session";
	if (view->uid != asked->uid)
		return "user";
	if (memcmp(view->images[0].identity, asked->images[0].identity,
		   THAW_DIGEST_SIZE) != 0)
		return "image";
	if (view->image_count != asked->image_count)
		return "number of layers";
	for (unsigned i = 1; i < view->image_count; i++)
		if (memcmp(view->images[i].identity, asked->images[i].identity,
			   THAW_DIGEST_SIZE) != 0)
			return "layer";
	if (view->writable != asked->writable)
		return "answer to whether it is writable";
	return NULL;
}

/* Whose session is this? The first one's, as long as it has views. */
static bool session_taken(const struct service *service, const struct thaw_lease *lease)
{
	for (const struct view *view = service->views; view; view = view->next)
		if (!view->gone && view->lease.uid != lease->uid &&
		    strcmp(view->lease.session, lease->session) == 0)
			return true;
	return false;
}

static unsigned views_of(const struct service *service, uid_t uid)
{
	unsigned count = 0;

	for (const struct view *view = service->views; view; view = view->next)
		count += !view->gone && view->lease.uid == uid;
	return count;
}

static void stop(struct job *job)
{
	/* Its next read fails, and it ends. */
	job->connection = NULL;
	job->ended = true;
	source_remove(&job->source);
}

void view_answer(struct connection *connection, const struct view *view, bool repeated)
{
	if (connection)
		connection_reply(connection,
				 json_pack("{s:o, s:b}", "view", view_to_json(view),
					   "repeated", repeated));
}

static void refuse(struct job *job, const char *name, const char *text)
{
	struct connection *connection = job->connection;

	job->service->metrics.opens_failed++;
	stop(job);
	if (connection)
		connection_refuse(connection, name, "%s", text);
}

/* It stands already: the same answer again, with the lease as it is asked for now. */
static void repeat(struct job *job, struct view *view)
{
	struct connection *connection = job->connection;
	struct request *request = job->request;
	struct thaw_error err = { 0 };

	if (request->lease.kind == THAW_LEASE_PROCESS &&
	    view_follow_process(view, steal_fd(&request->process_fd), &err) < 0) {
		refuse(job, "Io", err.text);
		return;
	}
	view->lease.kind = request->lease.kind;
	view->lease.pid = request->lease.pid;
	view->lease.pid_start = request->lease.pid_start;
	view->lease.seconds = request->lease.seconds;
	if (request->lease.labels) {
		json_decref(view->lease.labels);
		view->lease.labels = json_incref(request->lease.labels);
	}
	view_renew(view, connection);
	job->service->metrics.opens_repeated++;
	stop(job);
	view_answer(connection, view, true);
}

static int reserve(struct job *job)
{
	struct service *service = job->service;
	struct thaw_error err = { 0 };
	struct view *view;

	view = view_new(service, &job->request->lease);
	if (!view)
		return -ENOMEM;
	job->view = view;
	view->connection = job->connection;
	/* Before anything is mounted: after a crash of ours, the next service knows of it. */
	if (view_put_record(view, &err) < 0) {
		job->view = NULL;
		view_forget(view);
		refuse(job, "Io", err.text);
		return -EIO;
	}
	return 0;
}

static void open_found(struct job *job)
{
	struct service *service = job->service;
	struct thaw_lease *lease = &job->request->lease;
	struct view *other = view_at(service, lease->directory);
	struct job_message go = { .kind = JOB_GO };
	char text[600];

	if (other && other->state != VIEW_OPEN) {
		job->waits_for_view =
			other; /* it is opened, changed, or closed just now */
		return;
	}
	if (other) {
		const char *what = difference(&other->lease, lease);

		if (!what) {
			repeat(job, other);
			return;
		}
		(void)snprintf(text, sizeof(text),
			       "\"%.300s\": a view is there, with another %s",
			       lease->directory, what);
		refuse(job, "Exists", text);
		return;
	}
	if (session_taken(service, lease)) {
		refuse(job, "Denied", "the session is another user's");
	} else if (service->view_count >= SERVICE_VIEWS_MAX ||
		   (lease->uid != 0 && lease->uid != service->uid &&
		    views_of(service, lease->uid) >= SERVICE_VIEWS_USER)) {
		refuse(job, "Limit", "too many views are open");
	} else if (reserve(job) == 0) {
		memcpy(go.more, job->view->lease.id, THAW_VIEW_ID);
		(void)!job_send(job->source.fd, &go, -1); /* its end is noticed */
	}
}

/* -- images -- */

static struct thaw_lease *lease_of(struct job *job)
{
	/* Of a change, the request has what will be. */
	return job->request->lease.image_count ? &job->request->lease : &job->view->lease;
}

void job_want_image(struct job *job)
{
	struct service *service = job->service;
	const struct thaw_lease *lease = lease_of(job);
	const struct thaw_lease_image *wanted = &lease->images[job->wanted];
	bool own = job->view->lease.writable || job->request->own[job->wanted];
	uid_t uid = own ? job->view->lease.uid : 0;
	struct image *image = service->root ? image_find(service, wanted->identity, uid)
					    : NULL;
	struct job_message message = { .kind = JOB_LAUNCH };
	_cleanup_(closep) int learned = -1;

	if (image && image->state != IMAGE_READY) {
		job->waits_for_image = image;
		return;
	}
	if (image) {
		message.kind = JOB_READY;
		message.made = image->plain;
		image->deadline = 0;
	} else {
		image = service->root
				? image_new(service, wanted->identity, uid, wanted->name)
				: image_new_own(service, lease);
		if (!image) {
			refuse(job, "Io", "no memory");
			return;
		}
		job->image = image;
		message.value = learn_wanted(service, lease->warm);
		if (message.value) {
			learned = learn_recall(service, job->index_digest);
			image->learning = learned < 0;
		}
	}
	image->users++;
	job->images[job->wanted] = image;
	(void)snprintf(message.path, sizeof(message.path), "%s", image->directory);
	(void)snprintf(message.more, sizeof(message.more), "%s", image->state_directory);
	/* Its end is noticed. Nobody has the index of what is mounted only now. */
	(void)!job_send(job->source.fd, &message,
			message.kind == JOB_READY ? image->index_fd : learned);
}

void open_resume(struct job *job)
{
	if (!job->view) /* nothing reserved yet */
		open_found(job);
	else
		job_want_image(job);
}

void wake_for_view(struct service *service, struct view *view)
{
	for (struct job *job = service->jobs; job; job = job->next) {
		if (job->waits_for_view != view || job->ended)
			continue;
		job->waits_for_view = NULL;
		open_resume(job);
	}
}

/* What this job was to launch does not stand. */
void job_launch_failed(struct job *job)
{
	struct image *image = job->image;

	job->image = NULL;
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
		if (job->images[i] == image) {
			job->images[i] = NULL;
			image->users--;
		}
	image_failed(image, job->service);
}

void job_launched(struct job *job, const struct job_message *message, int *fd)
{
	struct service *service = job->service;
	struct image *image = job->image;

	if (!image)
		return;
	service->metrics.launches++;
	if (message->result == 0) {
		job->image = NULL;
		service_log(service, LOG_INFO, "image-mounted", "image", image->name,
			    "identity", image->key, NULL);
		image_look(image);
		image_ready(image, service, steal_fd(fd));
		if (image->learning)
			learn_begun(image, service);
		return;
	}
	service->metrics.launches_failed++;
	job_launch_failed(job);
}

/*
 * Rendering needs the index, and opening that takes longer than all else in a further
 * view: so the first job that has opened it leaves it here.
 */
void job_note_index(struct job *job, const struct job_message *message, int *fd)
{
	struct image *image = message->number <= THAW_LAYERS_MAX
				      ? job->images[message->number]
				      : NULL;

	if (image && image->index_fd < 0)
		image->index_fd = steal_fd(fd);
}

void job_unuse_images(struct job *job)
{
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++) {
		if (job->images[i])
			image_unuse(job->images[i], job->service);
		job->images[i] = NULL;
	}
}

/* -- the end of an Open -- */

static void open_failed(struct job *job, int r, const struct thaw_error *err)
{
	struct connection *connection = job->connection;
	struct view *view = job->view;

	job->service->metrics.opens_failed++;
	job_unuse_images(job);
	job->connection = NULL;
	job->view = NULL;
	if (view) {
		service_log(job->service, LOG_NOTICE, "open-failed", "session",
			    view->lease.session, "directory", view->lease.directory,
			    "why", err->text, NULL);
		view_forget(view);
	}
	if (connection)
		connection_fail(connection, r, err);
}

void job_note_plain(struct job *job, uint64_t plain)
{
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
		if (job->images[i] && (plain >> i & 1))
			job->images[i]->plain = true;
}

/* For thaw gc. Most are in no catalogue: only those that thaw open has packed. */
static void touch_images(const struct view *view)
{
	for (unsigned i = 0; i < view->lease.image_count; i++)
		if (thaw_catalogue_touch_image(view->service->catalogue,
					       view->lease.images[i].identity,
					       (int64_t)time(NULL), NULL) < 0)
			view_log(view, LOG_WARNING, "use-not-recorded", NULL);
}

static void open_done(struct job *job, const struct job_message *message, int *fd)
{
	struct service *service = job->service;
	struct view *view = job->view;
	struct thaw_error err = { 0 };

	if (message->result < 0) {
		open_failed(job, message->result, &message->err);
		return;
	}
	job_note_plain(job, message->value);
	view->plain = message->value + 1 == 1ull << view->lease.image_count; /* of each */
	memcpy(view->images, job->images, sizeof(view->images));
	memset(job->images, 0, sizeof(job->images));
	(void)snprintf(view->device, sizeof(view->device), "%s", message->device);
	view->scratch_lock = steal_fd(fd);
	view->connection = job->connection;
	if (view->lease.kind == THAW_LEASE_PROCESS &&
	    view_follow_process(view, steal_fd(&job->request->process_fd), &err) < 0)
		service_log(service, LOG_WARNING, "process-not-followed", "session",
			    view->lease.session, "why", err.text, NULL);
	job->view = NULL;
	view_opened(view);
	view_renew(view, job->connection);
	touch_images(view);
	service->metrics.opens++;
	view_log(view, LOG_INFO, "opened", NULL);
	event_send(service, "opened", view);
	view_answer(job->connection, view, false);
	job->connection = NULL;
	wake_for_view(service, view);
}

static void open_message(struct job *job, const struct job_message *message, int *fd)
{
	struct thaw_lease *lease = &job->request->lease;
	struct thaw_error err = { 0 };
	bool record;

	switch (message->kind) {
	case JOB_FOUND:
		for (unsigned i = 0; i < lease->image_count; i++)
			memcpy(lease->images[i].identity, message->identities[i],
			       THAW_DIGEST_SIZE);
		lease->directory = strdup(message->path);
		/* As it will be: recorded before it is made, or nobody would remove it. */
		lease->made = message->made;
		if (!lease->directory ||
		    thaw_lease_id(lease->session, lease->directory, lease->id) < 0)
			refuse(job, "Io", "no memory");
		else
			open_found(job);
		break;
	case JOB_PREPARED:
		record = message->path[0] || job->view->lease.made != message->made;
		job->view->lease.made = message->made;
		if (message->path[0])
			job->view->lease.scratch = strdup(message->path);
		if (record && view_put_record(job->view, &err) < 0)
			service_log(job->service, LOG_ERR, "catalogue", "why", err.text,
				    NULL);
		break;
	case JOB_WANT:
		job->wanted = message->number;
		memcpy(job->index_digest, message->identities[0], THAW_DIGEST_SIZE);
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
		open_done(job, message, fd);
		break;
	default:
		break;
	}
}

/* Without a DONE: killed, or out of memory. What it had mounted is taken away. */
static void open_ended(struct job *job)
{
	struct thaw_error err = { 0 };
	struct view *view = job->view;

	if (job->done)
		return;
	if (job->image) /* it may have been launched: the next job takes that away */
		job_launch_failed(job);
	(void)thaw_io(&err, -EIO, "the view's job ended before it was done");
	job_unuse_images(job);
	if (view) {
		job->view = NULL;
		view->connection = NULL;
		view_end(view, err.text);
	}
	if (job->connection)
		connection_fail(job->connection, -EIO, &err);
	job->connection = NULL;
	job->service->metrics.opens_failed++;
}

/* -- the methods -- */

static unsigned descriptors(const struct request *request, int keep[1 + THAW_LAYERS_MAX])
{
	unsigned count = 0;

	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
		if (request->image_fds[i] >= 0)
			keep[count++] = request->image_fds[i];
	return count;
}

void request_start(struct connection *connection, struct request *request,
		   struct job *job, int (*run)(struct job *job, int socket))
{
	int keep[1 + THAW_LAYERS_MAX], r;

	r = job_start(connection->service, job, run, keep, descriptors(request, keep));
	if (r == 0) {
		/* The child has them. */
		close_images(request);
		return;
	}
	if (job->view)
		job->view->state = VIEW_OPEN;
	request_free(request);
	free(job);
	connection_refuse(connection, "Io", "no job can be started: %s", strerror(-r));
}

void method_open(struct connection *connection)
{
	struct request *request;
	struct job *job;

	if (connection->service->draining) {
		connection_refuse(connection, "Draining", "the service is being drained");
		return;
	}
	request = request_new();
	job = request ? job_new(connection->service, "open", connection) : NULL;
	if (!job) {
		free(request);
		connection_refuse(connection, "Io", "no memory");
		return;
	}
	if (take_open(connection, request) < 0) {
		connection->service->metrics.opens_failed++;
		request_free(request);
		free(job);
		return;
	}
	job->request = request;
	job->message = open_message;
	job->end = open_ended;
	request_start(connection, request, job, opener_run);
}
