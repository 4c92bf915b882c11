/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of io.thaw.Node, but those that open, change and close views. */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "rewarm.h"
#include "scratch.h"
#include "strangers.h"
#include "thaw/gc.h"
#include "thaw/stat.h"
#include "util/cleanup.h"
#include "util/write-all.h"

static bool need_privilege(struct connection *connection)
{
	if (connection->privileged)
		return true;
	connection_refuse(connection, "Denied",
			  "only root and the service's own user may do that");
	return false;
}

/* -- looking -- */

static void method_list(struct connection *connection)
{
	struct service *service = connection->service;
	const char *session = NULL;
	json_t *views;

	if (PARAMETERS(connection, { "session", PARAMETER_STRING, false, &session }) < 0)
		return;
	for (struct image *image = service->images; image; image = image->next)
		image_look(image); /* once for all views over it */
	views = json_array();
	for (const struct view *view = service->views; view; view = view->next)
		if (!view->gone && view_visible(view, connection) &&
		    (!session || strcmp(view->lease.session, session) == 0))
			(void)json_array_append_new(
				views, view_to_json(view)); /* no memory: left out */
	connection_reply(connection, json_pack("{s:o}", "views", views));
}

/* Packed here, and remembered. A name that JSON cannot carry was never registered. */
static int add_known(void *userdata, const struct thaw_catalogue_image *image)
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(image->identity, hex);
	return json_array_append_new(userdata,
				     json_pack("{s:s, s:s, s:s, s:s, s:I}", "image",
					       image->name, "identity", hex, "state",
					       "known", "path", image->path, "used",
					       (json_int_t)image->used)) < 0
		       ? -ENOMEM
		       : 0;
}

static void method_images(struct connection *connection)
{
	struct service *service = connection->service;
	struct thaw_error err = { 0 };
	unsigned dropped = 0;
	json_t *images;

	if (connection_parameters(connection, connection->call.parameters, NULL, 0) < 0)
		return;
	images = json_array();
	if (connection->privileged &&
	    thaw_catalogue_each_image(service->catalogue, add_known, images, &err,
				      &dropped) < 0)
		service_log(service, LOG_WARNING, "catalogue", "why", err.text, NULL);
	for (struct image *image = service->images; image; image = image->next)
		if (!image->gone)
			(void)json_array_append_new(images, image_to_json(image));
	connection_reply(connection, json_pack("{s:o}", "images", images));
}

struct view *view_named(struct connection *connection, const char *session,
			const char *directory, bool owned)
{
	struct view *view = view_at(connection->service, directory);

	if (!view || strcmp(view->lease.session, session) != 0 ||
	    !view_visible(view, connection)) {
		connection_refuse(connection, "NotFound",
				  "session \"%s\" has no view at \"%.300s\"", session,
				  directory);
		return NULL;
	}
	if (owned && !view_owned(view, connection)) {
		connection_refuse(connection, "Denied", "the view is another user's");
		return NULL;
	}
	return view;
}

static struct view *view_of_call(struct connection *connection, bool owned)
{
	const char *session = NULL, *directory = NULL;

	if (PARAMETERS(connection, { "session", PARAMETER_STRING, true, &session },
		       { "directory", PARAMETER_STRING, true, &directory }) < 0)
		return NULL;
	return view_named(connection, session, directory, owned);
}

static void method_watch(struct connection *connection)
{
	struct service *service = connection->service;
	bool initial = false;

	if (PARAMETERS(connection, { "initial", PARAMETER_BOOL, false, &initial }) < 0)
		return;
	if (!connection->call.more) {
		connection_error(connection, "org.varlink.service.ExpectedMore", NULL);
		return;
	}
	connection->watching = true;
	for (const struct view *view = service->views;
	     initial && view && !connection->gone; view = view->next)
		if (!view->gone && view->state != VIEW_OPENING &&
		    view_visible(view, connection))
			connection_stream(connection,
					  json_pack("{s:s, s:o}", "event", "present",
						    "view", view_to_json(view)));
	if (!connection->gone)
		connection_stream(connection, json_pack("{s:s}", "event", "ready"));
}

static void method_metrics(struct connection *connection)
{
	char *text;

	if (!need_privilege(connection) ||
	    connection_parameters(connection, connection->call.parameters, NULL, 0) < 0)
		return;
	text = metrics_text(connection->service);
	connection_reply(connection, json_pack("{s:s}", "text", text ? text : ""));
	free(text);
}

/* -- leases -- */

static void method_renew(struct connection *connection)
{
	struct service *service = connection->service;
	const char *session = NULL;
	unsigned renewed = 0;

	if (PARAMETERS(connection, { "session", PARAMETER_STRING, true, &session }) < 0)
		return;
	for (struct view *view = service->views; view; view = view->next) {
		if (view->gone || view->state == VIEW_CLOSING ||
		    !view_owned(view, connection) ||
		    strcmp(view->lease.session, session) != 0)
			continue;
		view_renew(view, connection);
		renewed++;
	}
	if (renewed)
		connection_reply(connection, json_pack("{s:i}", "renewed", (int)renewed));
	else
		connection_refuse(connection, "NotFound", "there is no session \"%s\"",
				  session);
}

static void method_drain(struct connection *connection)
{
	struct service *service = connection->service;
	bool cancel = false;

	if (!need_privilege(connection) ||
	    PARAMETERS(connection, { "cancel", PARAMETER_BOOL, false, &cancel }) < 0)
		return;
	service->draining = !cancel;
	service_log(service, LOG_NOTICE, cancel ? "drain-cancelled" : "draining", NULL);
	connection_reply(connection,
			 json_pack("{s:i}", "views", (int)service->view_count));
	images_expire(service, thaw_boottime());
}

/* -- the catalogue -- */

/*
 * Sources are kept apart by user: what one says about an archive is nobody else's
 * business, and could be a lie.
 */
static int source_of(struct connection *connection, const char *path, const char *options,
		     int fd, char **ret_options, struct thaw_catalogue_source *ret_source)
{
	struct stat st;

	if (path[0] != '/')
		return connection_invalid(connection, "source");
	if (stranger_stat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		connection_refuse(connection, "Refused", "the source is no regular file");
		return -EPERM;
	}
	if (asprintf(ret_options, "uid=%u %s", (unsigned)connection->uid, options) < 0) {
		*ret_options = NULL;
		connection_refuse(connection, "Io", "no memory");
		return -ENOMEM;
	}
	thaw_catalogue_source_init(ret_source, path, *ret_options, &st);
	return 0;
}

static void method_lookup(struct connection *connection)
{
	struct service *service = connection->service;
	const char *path = NULL, *options = "";
	_cleanup_(stranger_closep) int fd = -1;
	_cleanup_(freep) char *own = NULL;
	struct thaw_catalogue_source source;
	struct thaw_catalogue_image image;
	struct thaw_error err = { 0 };
	char hex[THAW_DIGEST_HEX];
	int r;

	if (PARAMETERS(connection, { "source", PARAMETER_STRING, true, &path },
		       { "fd", PARAMETER_FD, true, &fd },
		       { "options", PARAMETER_STRING, false, &options }) < 0 ||
	    source_of(connection, path, options, fd, &own, &source) < 0)
		return;
	r = thaw_catalogue_find_source(service->catalogue, &source, &err, &image);
	if (r == THAW_NOT_FOUND || r == -EBADMSG) {
		connection_refuse(connection, "NotFound",
				  "no image of \"%.300s\" is known", path);
		return;
	}
	if (r < 0) {
		connection_fail(connection, r, &err);
		return;
	}
	thaw_digest_hex(image.identity, hex);
	/* A path that JSON cannot carry was never registered. */
	connection_reply(connection,
			 json_pack("{s:s, s:s}", "identity", hex, "path", image.path));
	thaw_catalogue_image_deinit(&image);
}

static void method_register(struct connection *connection)
{
	struct service *service = connection->service;
	const char *path = NULL, *options = "", *image_path = NULL, *identity = NULL,
		   *slash;
	_cleanup_(stranger_closep) int fd = -1;
	_cleanup_(freep) char *own = NULL;
	struct thaw_catalogue_image image = { 0 };
	struct thaw_catalogue_source source;
	struct thaw_error err = { 0 };
	int r = 0;

	if (PARAMETERS(connection, { "source", PARAMETER_STRING, true, &path },
		       { "fd", PARAMETER_FD, true, &fd },
		       { "options", PARAMETER_STRING, false, &options },
		       { "path", PARAMETER_STRING, true, &image_path },
		       { "identity", PARAMETER_STRING, true, &identity }) < 0)
		return;
	slash = strrchr(image_path, '/');
	if (image_path[0] != '/' || !slash) {
		(void)connection_invalid(connection, "path");
		return;
	}
	if (!thaw_digest_from_hex(identity, image.identity)) {
		(void)connection_invalid(connection, "identity");
		return;
	}
	if (!connection->privileged && service->registered >= SERVICE_REGISTERED_MAX) {
		connection_refuse(connection, "Limit",
				  "too many archives were registered");
		return;
	}
	if (source_of(connection, path, options, fd, &own, &source) < 0)
		return;
	service->registered += !connection->privileged;
	image.name = (char *)slash + 1; /* not written to */
	image.path = (char *)image_path;
	image.used = (int64_t)time(NULL);
	/* Of one image there is one record, which root would go by. */
	if (connection->privileged)
		r = thaw_catalogue_put_image(service->catalogue, &image, &err);
	else
		source.image = image_path;
	if (r == 0)
		r = thaw_catalogue_put_source(service->catalogue, &source, image.identity,
					      &err);
	if (r < 0)
		connection_fail(connection, r, &err);
	else
		connection_reply(connection, NULL);
}

/* -- what can block: in jobs, that answer with JSON in a file in memory -- */

static int answer_json(int socket, int r, const struct thaw_error *err, json_t *value)
{
	struct job_message done = { .kind = JOB_DONE, .result = r, .err = *err };
	_cleanup_(freep) char *text = NULL;
	_cleanup_(closep) int fd = -1;

	if (r == 0) {
		text = json_dumps(value, JSON_COMPACT);
		fd = memfd_create("answer", MFD_CLOEXEC);
		r = !text ? -ENOMEM : fd < 0 ? -errno : write_all(fd, text, strlen(text));
		if (r < 0)
			done.result = thaw_io(&done.err, r, "no answer can be made");
	}
	json_decref(value);
	return job_send(socket, &done, done.result == 0 ? fd : -1) < 0;
}

static void task_done(struct job *job, const struct job_message *message, int *fd)
{
	struct connection *connection = job->connection;
	struct view *view = job->view;
	json_t *value = NULL;

	job->done = true;
	job->connection = NULL;
	job->view = NULL;
	if (view && strcmp(job->what, "attach") == 0 && message->result == 0)
		view->attached = true;
	if (!connection)
		return;
	if (message->result < 0) {
		connection_fail(connection, message->result, &message->err);
		return;
	}
	if (strcmp(job->what, "attach") == 0) {
		connection_reply_fds(connection, json_pack("{s:i}", "fd", 0), fd,
				     *fd >= 0);
		return;
	}
	if (*fd >= 0 && lseek(*fd, 0, SEEK_SET) == 0)
		value = json_loadfd(*fd, 0, NULL);
	connection_reply(connection, value ? value : json_object());
}

static void task_ended(struct job *job)
{
	struct thaw_error err = { 0 };

	if (job->done || !job->connection)
		return;
	(void)thaw_io(&err, -EIO, "the job ended before it was done");
	connection_fail(job->connection, -EIO, &err);
	job->connection = NULL;
}

static void start_task(struct connection *connection, const char *what, struct view *view,
		       int (*run)(struct job *job, int socket))
{
	struct job *job = job_new(connection->service, what, connection);
	int r = job ? 0 : -ENOMEM;

	if (job) {
		job->view = view;
		job->message = task_done;
		job->end = task_ended;
		r = job_start(connection->service, job, run, NULL, 0);
	}
	if (r < 0) {
		free(job);
		connection_refuse(connection, "Io", "no job can be started: %s",
				  strerror(-r));
	}
}

static int run_stat(struct job *job, int socket)
{
	struct thaw_error err = { 0 };
	struct thaw_stat st;
	int r = thaw_stat_directory(job->view->lease.directory, &err, &st);

	return answer_json(socket, r, &err, r == 0 ? stat_to_json(&st) : NULL);
}

/* A scratch layer has as many files as its session likes: counted where that may take long. */
static int run_show(struct job *job, int socket)
{
	struct thaw_error err = { 0 };
	json_t *view = view_to_json(job->view);
	uint64_t bytes;

	if (job->view->lease.scratch &&
	    thaw_scratch_usage(job->view->lease.scratch, &err, &bytes) == 0)
		(void)json_object_set_new(view, "scratch_used",
					  json_integer((json_int_t)bytes));
	return answer_json(socket, 0, &err, json_pack("{s:o}", "view", view));
}

static void method_show(struct connection *connection)
{
	struct view *view = view_of_call(connection, false);

	if (!view)
		return;
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
		if (view->images[i])
			image_look(view->images[i]);
	if (view->lease.scratch && view->state == VIEW_OPEN)
		start_task(connection, "show", view, run_show);
	else
		connection_reply(connection,
				 json_pack("{s:o}", "view", view_to_json(view)));
}

static void method_stat(struct connection *connection)
{
	struct view *view = view_of_call(connection, false);

	if (view)
		start_task(connection, "stat", view, run_stat);
}

/* A clone of the mount, detached: it can be moved into another namespace, and no path leads to it. */
static int run_attach(struct job *job, int socket)
{
	struct job_message done = { .kind = JOB_DONE };
	_cleanup_(closep) int fd = (int)syscall(SYS_open_tree, AT_FDCWD,
						job->view->lease.directory,
						OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd < 0)
		done.result = thaw_io(&done.err, -errno, "the view cannot be attached");
	return job_send(socket, &done, fd) < 0;
}

static void method_attach(struct connection *connection)
{
	struct view *view = view_of_call(connection, false);

	if (!view)
		return;
	if (!connection->service->root)
		connection_refuse(connection, "Unsupported",
				  "attaching needs root's service");
	else if (view->lease.writable && !view_owned(view, connection))
		connection_refuse(connection, "Denied", "the view is another user's");
	else
		start_task(connection, "attach", view, run_attach);
}

static int run_warm(struct job *job, int socket)
{
	const struct view *view = job->view;
	const char *warm = view->lease.warm;
	struct thaw_error err = { 0 };
	uint64_t pages = 0;
	int r = 0;

	/* "none" was about the beginning; now it is asked for. */
	if (warm && strcmp(warm, "none") == 0)
		warm = NULL;
	for (unsigned i = 0; r == 0 && i < view->lease.image_count; i++)
		r = thaw_rewarm(job->service->root ? view->images[i]->directory
						   : view->lease.directory,
				warm, &err, &pages);
	return answer_json(socket, r, &err,
			   json_pack("{s:I}", "pages", (json_int_t)pages));
}

static void method_warm(struct connection *connection)
{
	struct view *view = view_of_call(connection, true);

	if (view && view->state != VIEW_OPEN)
		connection_refuse(connection, "Busy",
				  "the view is being opened, changed or closed");
	else if (view)
		start_task(connection, "warm", view, run_warm);
}

/* -- gc -- */

static struct thaw_gc_options gc_options; /* of the job about to be forked */
static struct thaw_gc_image *gc_images;
static unsigned gc_image_count;
static json_t *gc_traces; /* that were not used, as entries of the report */
static uint64_t gc_trace_bytes;

static void collect_trace(void *userdata, const uint8_t index_digest[THAW_DIGEST_SIZE],
			  size_t size)
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(index_digest, hex);
	(void)json_array_append_new(gc_traces,
				    json_pack("{s:s, s:s, s:I}", "kind", "trace", "path",
					      hex, "bytes", (json_int_t)size));
	gc_trace_bytes += size;
}

static int collect_image(void *userdata, const struct thaw_catalogue_image *image)
{
	struct thaw_gc_image *grown = realloc(gc_images,
					      (gc_image_count + 1) * sizeof(*gc_images));

	if (!grown)
		return -ENOMEM;
	gc_images = grown;
	gc_images[gc_image_count] = (struct thaw_gc_image){ .used = image->used };
	memcpy(gc_images[gc_image_count].identity, image->identity, THAW_DIGEST_SIZE);
	gc_images[gc_image_count].path = strdup(image->path);
	if (!gc_images[gc_image_count].path)
		return -ENOMEM;
	gc_image_count++;
	return 0;
}

static int run_gc(struct job *job, int socket)
{
	struct thaw_error err = { 0 };
	json_t *report = json_object();
	int r = thaw_gc(&gc_options, &err, report);

	if (r == 0) {
		json_t *bytes = json_object_get(report, "bytes");

		(void)json_array_extend(json_object_get(report, "removed"), gc_traces);
		(void)json_integer_set(bytes, json_integer_value(bytes) +
						      (json_int_t)gc_trace_bytes);
	}
	return answer_json(socket, r, &err, report);
}

static void method_gc(struct connection *connection)
{
	struct service *service = connection->service;
	struct thaw_error err = { 0 };
	unsigned dropped = 0;
	int64_t days = THAW_GC_DAYS;
	bool dry = false;

	if (!need_privilege(connection) ||
	    PARAMETERS(connection, { "dry_run", PARAMETER_BOOL, false, &dry },
		       { "days", PARAMETER_NUMBER, false, &days }) < 0)
		return;
	/* What the catalogue cannot tell, the files' own times say. */
	if (thaw_catalogue_each_image(service->catalogue, collect_image, NULL, &err,
				      &dropped) < 0)
		service_log(service, LOG_WARNING, "catalogue", "why", err.text, NULL);
	gc_options = (struct thaw_gc_options){
		.dry_run = dry,
		.days = days > 100000 ? 100000 : (unsigned)days,
		.images = gc_images,
		.image_count = gc_image_count,
		.scratch = service->scratch_directory,
	};
	/* The catalogue is the service's alone: not the job's. */
	gc_traces = json_array();
	gc_trace_bytes = 0;
	if (thaw_catalogue_remove_old_traces(service->catalogue,
					     (int64_t)time(NULL) -
						     (int64_t)gc_options.days * 86400,
					     dry, collect_trace, NULL, &err) < 0)
		service_log(service, LOG_WARNING, "catalogue", "why", err.text, NULL);
	start_task(connection, "gc", NULL, run_gc);
	json_decref(gc_traces);
	gc_traces = NULL;
	for (unsigned i = 0; i < gc_image_count; i++)
		free(gc_images[i].path);
	free(gc_images);
	gc_images = NULL;
	gc_image_count = 0;
}

/* -- all of them -- */

/*
 * A job lasts as long as the storage that its caller's descriptor leads to lets it wait,
 * and longer than its connection.
 */
static bool too_many_jobs(const struct connection *connection)
{
	const struct service *service = connection->service;
	uid_t uid = connection->uid;
	unsigned own = 0;

	if (connection->privileged)
		return service->job_count >= SERVICE_JOBS_MAX;
	for (const struct job *job = service->jobs; job; job = job->next)
		own += (job->connection && job->connection->uid == uid) ||
		       (job->request && job->request->uid == uid) ||
		       (job->view && job->view->lease.uid == uid);
	return own >= SERVICE_JOBS_USER ||
	       service->job_count >= SERVICE_JOBS_MAX - SERVICE_JOBS_ROOT;
}

void method_dispatch(struct connection *connection, const char *name)
{
	static const struct {
		const char *name;
		void (*method)(struct connection *connection);
		bool job; /* needs a process */
	} methods[] = {
		{ "Open", method_open, true },
		{ "Close", method_close, false },
		{ "List", method_list, false },
		{ "Show", method_show, true },
		{ "Stat", method_stat, true },
		{ "Watch", method_watch, false },
		{ "Attach", method_attach, true },
		{ "Swap", method_swap, true },
		{ "AddLayer", method_add_layer, true },
		{ "Warm", method_warm, true },
		{ "Gc", method_gc, true },
		{ "Drain", method_drain, false },
		{ "Renew", method_renew, false },
		{ "Images", method_images, false },
		{ "Lookup", method_lookup, false },
		{ "Register", method_register, false },
		{ "Metrics", method_metrics, false },
	};

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strcmp(methods[i].name, name) != 0)
			continue;
		if (methods[i].job && too_many_jobs(connection))
			connection_refuse(connection, "Limit",
					  "too much is going on; try again");
		else
			methods[i].method(connection);
		return;
	}
	connection_error(connection, "org.varlink.service.MethodNotFound",
			 json_pack("{s:s}", "method", connection->call.method));
}
