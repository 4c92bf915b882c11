/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients: who they are, their calls, and answers. Calls of one connection are
 * answered one after the other; a stream (Watch) goes on until its client leaves.
 */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "strangers.h"
#include "util/cleanup.h"

static void connection_ready(struct source *source, uint32_t events);
static void connection_next(struct connection *connection);

/* Reading waits while a call is being answered: who sends ahead, waits. */
static void listen_as_needed(struct connection *connection)
{
	uint32_t events = 0;

	if (connection->gone)
		return;
	if (!connection->busy && !connection->ended)
		events |= EPOLLIN;
	if (connection->stream.out)
		events |= EPOLLOUT;
	source_change(&connection->source, events);
}

static void connection_leave(struct connection *connection)
{
	struct service *service = connection->service;

	if (connection->gone)
		return;
	connection->gone = true;
	source_remove(&connection->source);
	for (struct job *job = service->jobs; job; job = job->next)
		if (job->connection == connection)
			job->connection = NULL;
	closings_forget(service, connection);
	/* Its views have their grace from now on. */
	for (struct view *view = service->views; view; view = view->next) {
		if (view->connection != connection)
			continue;
		view->connection = NULL;
		if (view->gone || view->lease.kind != THAW_LEASE_CONNECTION)
			continue;
		view->lease.deadline = thaw_boottime() +
				       (uint64_t)service->options->grace;
		service_wake_at(service, view->lease.deadline);
		(void)!view_put_record(view, NULL); /* logged there; memory has it */
	}
}

/* -- answers -- */

static void send_message(struct connection *connection, json_t *message, const int *fds,
			 unsigned count)
{
	int r = message ? thaw_varlink_send(&connection->stream, message, fds, count)
			: -ENOMEM;

	json_decref(message);
	if (r == 0)
		r = thaw_varlink_flush(&connection->stream);
	if (r < 0 && r != -EAGAIN) {
		/* It does not read, or has left. */
		connection->service->metrics.clients_dropped += r == -ENOBUFS;
		if (r == -ENOBUFS)
			service_log(connection->service, LOG_WARNING, "client-dropped",
				    "why", "it does not read its answers", NULL);
		connection_leave(connection);
	}
}

static void end_call(struct connection *connection)
{
	thaw_varlink_message_close(&connection->message);
	thaw_varlink_call_deinit(&connection->call);
	connection->busy = false;
	listen_as_needed(connection);
}

void connection_reply_fds(struct connection *connection, json_t *parameters,
			  const int *fds, unsigned count)
{
	if (!connection || connection->gone || connection->call.oneway) {
		json_decref(parameters);
	} else {
		send_message(connection, thaw_varlink_new_reply(parameters, false), fds,
			     count);
	}
	if (connection)
		end_call(connection);
}

void connection_reply(struct connection *connection, json_t *parameters)
{
	connection_reply_fds(connection, parameters, NULL, 0);
}

void connection_stream(struct connection *connection, json_t *parameters)
{
	if (connection->gone || connection->call.oneway) {
		json_decref(parameters);
		return;
	}
	send_message(connection, thaw_varlink_new_reply(parameters, true), NULL, 0);
	listen_as_needed(connection);
}

void connection_error(struct connection *connection, const char *name, json_t *parameters)
{
	if (!connection || connection->gone || connection->call.oneway) {
		json_decref(parameters);
	} else {
		connection->service->metrics.calls_failed++;
		send_message(connection, thaw_varlink_new_error(name, parameters), NULL,
			     0);
	}
	if (connection)
		end_call(connection);
}

void connection_refuse(struct connection *connection, const char *name,
		       const char *format, ...)
{
	char text[600], full[64];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args); /* may be cut */
	va_end(args);
	(void)snprintf(full, sizeof(full), SERVICE_INTERFACE ".%s", name);
	connection_error(connection, full,
			 json_pack("{s:s#}", "reason", text, (int)strlen(text)));
}

void connection_fail(struct connection *connection, int r, const struct thaw_error *err)
{
	const char *name = r == -EBUSY ? "Busy" : "Io";

	if (err->exit_code == THAW_EXIT_REFUSED)
		name = "Refused";
	else if (err->exit_code == THAW_EXIT_DAMAGED)
		name = "Malformed";
	else if (err->exit_code == THAW_EXIT_LIMIT)
		name = "Limit";
	connection_refuse(connection, name, "%s",
			  err->text[0] ? err->text : strerror(-r));
}

int connection_invalid(struct connection *connection, const char *parameter)
{
	connection_error(connection, "org.varlink.service.InvalidParameter",
			 json_pack("{s:s}", "parameter", parameter));
	return -EINVAL;
}

/* -- parameters -- */

static bool take_parameter(struct connection *connection, json_t *value,
			   const struct parameter *parameter)
{
	json_int_t number = json_integer_value(value);

	switch (parameter->type) {
	case PARAMETER_STRING:
		*(const char **)parameter->value = json_string_value(value);
		return json_is_string(value);
	case PARAMETER_BOOL:
		*(bool *)parameter->value = json_is_true(value);
		return json_is_boolean(value);
	case PARAMETER_NUMBER:
		*(int64_t *)parameter->value = number;
		return json_is_integer(value) && number >= 0;
	case PARAMETER_OBJECT:
		*(json_t **)parameter->value = value;
		return json_is_object(value);
	case PARAMETER_ARRAY:
		*(json_t **)parameter->value = value;
		return json_is_array(value);
	case PARAMETER_FD:
		if (!json_is_integer(value) || number < 0 ||
		    number >= (json_int_t)connection->message.fd_count ||
		    connection->message.fds[number] < 0)
			return false;
		*(int *)parameter->value = steal_fd(&connection->message.fds[number]);
		return true;
	}
	return false;
}

int connection_parameters(struct connection *connection, json_t *object,
			  const struct parameter *list, unsigned count)
{
	const char *key;
	json_t *value;

	for (unsigned i = 0; i < count; i++) {
		value = json_object_get(object, list[i].name);
		if ((!value || json_is_null(value)) && !list[i].required)
			continue;
		if (!value || !take_parameter(connection, value, &list[i]))
			return connection_invalid(connection, list[i].name);
	}
	/* What we do not know may matter to whoever says it. */
	json_object_foreach(object, key, value)
	{
		unsigned i;

		for (i = 0; i < count && strcmp(list[i].name, key) != 0; i++)
			;
		if (i == count)
			return connection_invalid(connection, key);
	}
	return 0;
}

/* -- calls -- */

static const char node_interface[] =
#include "node-interface.h"
	;

static void get_info(struct connection *connection)
{
	connection_reply(connection,
			 json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "thaw",
				   "product", "thaw node service", "version",
				   THAW_VERSION_STRING, "url", "", "interfaces",
				   "org.varlink.service", SERVICE_INTERFACE));
}

static const char service_interface[] =
	"# What every varlink service can be asked.\n"
	"interface org.varlink.service\n"
	"\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, url: string, "
	"interfaces: []string)\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error MethodNotImplemented (method: string)\n"
	"error InvalidParameter (parameter: string)\n"
	"error PermissionDenied ()\n"
	"error ExpectedMore ()\n";

static void get_description(struct connection *connection)
{
	const char *interface = NULL, *text = NULL;

	if (PARAMETERS(connection, { "interface", PARAMETER_STRING, true, &interface }) <
	    0)
		return;
	if (strcmp(interface, SERVICE_INTERFACE) == 0)
		text = node_interface;
	else if (strcmp(interface, "org.varlink.service") == 0)
		text = service_interface;
	if (text)
		connection_reply(connection, json_pack("{s:s}", "description", text));
	else
		connection_error(connection, "org.varlink.service.InterfaceNotFound",
				 json_pack("{s:s}", "interface", interface));
}

static void dispatch(struct connection *connection)
{
	const char *method = connection->call.method, *name = strrchr(method, '.');
	size_t len = name ? (size_t)(name - method) : 0;

	connection->service->metrics.calls++;
	if (strcmp(method, "org.varlink.service.GetInfo") == 0)
		get_info(connection);
	else if (strcmp(method, "org.varlink.service.GetInterfaceDescription") == 0)
		get_description(connection);
	else if (name && len == strlen(SERVICE_INTERFACE) &&
		 strncmp(method, SERVICE_INTERFACE, len) == 0)
		method_dispatch(connection, name + 1);
	else if (name && strncmp(method, "org.varlink.service.", 20) != 0)
		connection_error(connection, "org.varlink.service.InterfaceNotFound",
				 json_pack("{s:s%}", "interface", method, len));
	else
		connection_error(connection, "org.varlink.service.MethodNotFound",
				 json_pack("{s:s}", "method", method));
}

/* What was received, one call after the other, as long as they are answered at once. */
static void connection_next(struct connection *connection)
{
	while (!connection->gone && !connection->busy) {
		int r = thaw_varlink_next(&connection->stream, &connection->message);

		if (r == THAW_NOT_FOUND)
			break;
		r = thaw_varlink_parse_call(connection->message.text,
					    connection->message.len, &connection->call);
		if (r < 0) {
			/* Not a client of ours: nothing that it says can be trusted to mean anything. */
			thaw_varlink_message_close(&connection->message);
			connection->service->metrics.clients_dropped++;
			connection_leave(connection);
			return;
		}
		connection->busy = true;
		dispatch(connection);
		/* What the call has not taken: no job is to inherit it. */
		thaw_varlink_message_close(&connection->message);
	}
	if (connection->ended && !connection->busy && !connection->stream.out)
		connection_leave(connection);
	listen_as_needed(connection);
}

/*
 * Descriptors of a call that has not come whole, or has not had its turn. Each job that is
 * forked meanwhile has them to close, and would wait for what they lead to.
 */
static bool holds_others_up(const struct connection *connection)
{
	const struct thaw_varlink *stream = &connection->stream;
	bool may_wait = false;

	for (unsigned i = 0; i < stream->fd_count && !connection->privileged; i++)
		may_wait = may_wait || stranger_may_wait(stream->fds[i].fd);
	return may_wait;
}

static void connection_ready(struct source *source, uint32_t events)
{
	struct connection *connection = (struct connection *)source;
	int r = 0;

	if (connection->gone)
		return;
	if (events & (EPOLLHUP | EPOLLERR)) {
		/* Closed, not only for writing; what it has sent before still counts. */
		if (connection->busy || !(events & EPOLLIN)) {
			connection_leave(connection);
			return;
		}
	}
	if (events & EPOLLOUT)
		r = thaw_varlink_flush(&connection->stream);
	if (r == 0 && (events & EPOLLIN) && !connection->busy)
		r = thaw_varlink_receive(&connection->stream);
	if (r == THAW_NOT_FOUND) {
		connection->ended = true;
	} else if (r < 0 && r != -EAGAIN) {
		connection->service->metrics.clients_dropped += r == -EMSGSIZE;
		connection_leave(connection);
		return;
	}
	connection_next(connection);
	/* The rest of it may have come by now. */
	while (r == 0 && !connection->gone && holds_others_up(connection)) {
		r = connection->busy ? -EBUSY : thaw_varlink_receive(&connection->stream);
		if (r == 0)
			connection_next(connection);
	}
	if (!connection->gone && holds_others_up(connection)) {
		connection->service->metrics.clients_dropped++;
		connection_leave(connection);
	}
}

/* -- coming and going -- */

static int read_credentials(struct connection *connection)
{
	struct ucred credentials;
	socklen_t len = sizeof(credentials);

	if (getsockopt(connection->stream.fd, SOL_SOCKET, SO_PEERCRED, &credentials,
		       &len) < 0)
		return -errno;
	connection->uid = credentials.uid;
	connection->gid = credentials.gid;
	connection->pid = credentials.pid;
	connection->privileged = credentials.uid == 0 ||
				 credentials.uid == connection->service->uid;
	len = 0;
	if (getsockopt(connection->stream.fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) ==
		    0 ||
	    errno != ERANGE || len == 0)
		return 0; /* none, or an old kernel */
	connection->groups = malloc(len);
	if (!connection->groups)
		return -ENOMEM;
	if (getsockopt(connection->stream.fd, SOL_SOCKET, SO_PEERGROUPS,
		       connection->groups, &len) < 0)
		return -errno;
	connection->group_count = (unsigned)(len / sizeof(gid_t));
	return 0;
}

static void connection_free(struct connection *connection)
{
	thaw_varlink_message_close(&connection->message);
	thaw_varlink_call_deinit(&connection->call);
	thaw_varlink_deinit(&connection->stream);
	free(connection->groups);
	free(connection);
}

static bool too_many(const struct service *service, uid_t uid)
{
	unsigned own = 0;

	for (const struct connection *c = service->connections; c; c = c->next)
		own += c->uid == uid;
	/* Root gets in when others have taken all places. */
	if (uid == 0 || uid == service->uid)
		return service->connection_count >= SERVICE_CONNECTIONS_MAX;
	return own >= SERVICE_CONNECTIONS_USER ||
	       service->connection_count >=
		       SERVICE_CONNECTIONS_MAX - SERVICE_CONNECTIONS_USER;
}

static void accept_one(struct service *service, int fd)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	int r;

	if (!connection) {
		(void)safe_close(fd);
		return;
	}
	connection->service = service;
	/* Large enough for the list of all views, which is the largest answer. */
	thaw_varlink_init(&connection->stream, fd, THAW_VARLINK_CALL_MAX,
			  THAW_VARLINK_REPLY_MAX);
	r = read_credentials(connection);
	/* Without root's rights we could not take a stranger's, and would act with our own. */
	if (r == 0 && !service->root && !connection->privileged)
		r = -EACCES;
	if (r == 0 && too_many(service, connection->uid))
		r = -EMFILE;
	if (r == 0)
		r = source_add(service, &connection->source, fd, EPOLLIN,
			       connection_ready);
	if (r < 0) {
		service->metrics.connections_refused++;
		connection_free(connection);
		return;
	}
	service->metrics.connections++;
	connection->next = service->connections;
	service->connections = connection;
	service->connection_count++;
}

static void listener_ready(struct source *source, uint32_t events)
{
	struct service *service = source->service;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		accept_one(service, fd);
	} else if ((errno == EMFILE || errno == ENFILE) && service->spare_fd >= 0) {
		/* Out of descriptors: take it and hang up, or it would wake us for ever. */
		service->spare_fd = safe_close(service->spare_fd);
		fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		(void)safe_close(fd);
		service->spare_fd = dup(service->epoll_fd);
		service->metrics.connections_refused++;
	}
}

void connections_sweep(struct service *service)
{
	struct connection **at = &service->connections;

	while (*at) {
		struct connection *connection = *at;

		/* Answered by a job: what it had sent ahead has its turn now. */
		if (!connection->gone && !connection->busy &&
		    connection->stream.taken < connection->stream.in_used)
			connection_next(connection);
		if (!connection->gone && connection->ended && !connection->busy &&
		    !connection->stream.out)
			connection_leave(connection);
		if (!connection->gone) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		service->connection_count--;
		connection_free(connection);
	}
}

/*
 * One that nobody listens to any more is removed: we hold the lock of the run-time
 * directory. With --socket it may be something else, or another service's.
 */
static int clear_socket(const struct sockaddr_un *address, struct thaw_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return 0; /* binding will tell */
	if (!S_ISSOCK(st.st_mode))
		return thaw_refused(err, "\"%.300s\": exists and is no socket",
				    address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* EAGAIN: so many wait already. */
	if (fd >= 0 &&
	    (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
	     errno == EAGAIN))
		return thaw_refused(err, "\"%.300s\": somebody listens there",
				    address->sun_path);
	(void)unlink(address->sun_path);
	return 0;
}

static int bind_socket(const char *path, bool for_all, struct thaw_error *err,
		       int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_(closep) int fd = socket(AF_UNIX,
					  SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return thaw_io(err, -errno, "no socket can be made");
	if (strlen(path) >= sizeof(address.sun_path))
		return thaw_refused(err,
				    "socket \"%.200s\": %zu bytes, and %zu is the limit",
				    path, strlen(path), sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	r = clear_socket(&address, err);
	if (r < 0)
		return r;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return thaw_io(err, -errno, "socket \"%.300s\"", path);
	if (chmod(path, for_all ? 0666 : 0600) < 0 || listen(fd, 128) < 0)
		return thaw_io(err, -errno, "socket \"%.300s\"", path);
	*ret_fd = steal_fd(&fd);
	return 0;
}

/*
 * Socket activation, sd_listen_fds(3): LISTEN_PID names us, LISTEN_FDS how many
 * descriptors there are from 3 on. Three lines of protocol, so no library for it:
 * it would end the static executable.
 */
static int inherited_socket(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	struct stat st;

	if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid() ||
	    strcmp(count, "1") != 0 || fstat(3, &st) < 0 || !S_ISSOCK(st.st_mode) ||
	    fcntl(3, F_SETFD, FD_CLOEXEC) < 0 ||
	    fcntl(3, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		return -1;
	return 3;
}

int connections_listen(struct service *service, const char *path, struct thaw_error *err)
{
	int fd = inherited_socket(), r;

	(void)unsetenv("LISTEN_PID"); /* not for whom we start */
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
	if (fd < 0) {
		r = bind_socket(path, service->root, err, &fd);
		if (r < 0)
			return r;
		service->made_socket = true;
	}
	service->spare_fd = dup(service->epoll_fd);
	r = source_add(service, &service->listener, fd, EPOLLIN, listener_ready);
	return r < 0 ? thaw_io(err, r, "the socket cannot be watched") : 0;
}
