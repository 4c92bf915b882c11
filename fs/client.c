/* SPDX-License-Identifier: Apache-2.0 */
/* Calling the node service. */
#include "thaw/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mountinfo.h"
#include "thaw/directories.h"
#include "thaw/mount.h"
#include "util/cleanup.h"
#include "varlink.h"

#define INTERFACE "io.thaw.Node."

struct thaw_client {
	struct thaw_varlink stream;
	char error[64]; /* of the last call */
};

/* 0, THAW_NOT_FOUND when nobody listens there, or an error. */
static int connect_to(const char *path, struct thaw_error *err, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_(closep) int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path))
		return thaw_refused(err, "socket \"%.200s\": longer than %zu bytes", path,
				    sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return thaw_io(err, -errno, "no socket can be made");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return THAW_NOT_FOUND;
		return thaw_io(err, -errno, "the node service at \"%.300s\"", path);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

/*
 * The socket in our run-time directory, which is not made for that. One that was named
 * may be another user's: the service decides whom it serves.
 */
static int own_socket(char **ret_path)
{
	const char *named = getenv("THAW_RUNTIME_DIR");
	struct thaw_place place = { 0 };
	int r = 0;

	if (!named || !*named)
		r = thaw_runtime_place(NULL, &place);
	if (r < 0)
		return r;
	if (asprintf(ret_path, "%s/socket", place.path ? place.path : named) < 0) {
		*ret_path = NULL;
		r = -ENOMEM;
	}
	free(place.path);
	return r;
}

#define ROOT_SOCKET "/run/thaw/socket"

static int find_service(const char *socket, struct thaw_error *err, int *ret_fd)
{
	_cleanup_(freep) char *own = NULL;
	const char *named = socket ? socket : getenv("THAW_SOCKET");
	const char *places[2];
	unsigned count = 0;

	if (named && *named) {
		places[count++] = named;
	} else {
		if (own_socket(&own) == 0)
			places[count++] = own;
		/* A run-time directory that was named is the only place. */
		if (!getenv("THAW_RUNTIME_DIR") &&
		    (count == 0 || strcmp(own, ROOT_SOCKET) != 0))
			places[count++] = ROOT_SOCKET;
	}
	for (unsigned i = 0; i < count; i++) {
		int r = connect_to(places[i], err, ret_fd);

		if (r != THAW_NOT_FOUND)
			return r;
	}
	(void)thaw_io(
		err, 0,
		"no node service listens at \"%.200s\"%s%.200s%s (thaw serve starts one)",
		count ? places[0] : "", count > 1 ? " or \"" : "",
		count > 1 ? places[1] : "", count > 1 ? "\"" : "");
	return THAW_NOT_FOUND;
}

int thaw_client_connect(const char *socket, struct thaw_error *err,
			struct thaw_client **ret_client)
{
	struct thaw_client *client;
	int fd = -1, r = find_service(socket, err, &fd);

	if (r != 0)
		return r;
	client = calloc(1, sizeof(*client));
	if (!client) {
		(void)safe_close(fd);
		return thaw_oom(err);
	}
	thaw_varlink_init(&client->stream, fd, THAW_VARLINK_REPLY_MAX,
			  THAW_VARLINK_CALL_MAX);
	*ret_client = client;
	return 0;
}

struct thaw_client *thaw_client_free(struct thaw_client *client)
{
	if (client)
		thaw_varlink_deinit(&client->stream);
	free(client);
	return NULL;
}

const char *thaw_client_error(const struct thaw_client *client)
{
	return client->error[0] ? client->error : NULL;
}

static int send_call(struct thaw_client *client, const char *method, json_t *parameters,
		     bool more, const int *fds, unsigned fd_count, struct thaw_error *err)
{
	char full[64];
	json_t *call;
	int r;

	client->error[0] = '\0';
	(void)snprintf(full, sizeof(full), INTERFACE "%s", method);
	call = thaw_varlink_new_call(full, parameters, more);
	if (!call)
		return thaw_oom(err);
	r = thaw_varlink_send(&client->stream, call, fds, fd_count);
	json_decref(call);
	if (r == -ENOBUFS)
		return thaw_limit(err, "the call is longer than %u bytes",
				  THAW_VARLINK_CALL_MAX);
	if (r == 0)
		r = thaw_varlink_flush(&client->stream);
	return r < 0 ? thaw_io(err, r, "the node service") : 0;
}

static int next_reply(struct thaw_client *client, struct thaw_error *err,
		      struct thaw_varlink_reply *ret_reply)
{
	struct thaw_varlink_message message;
	int r;

	while ((r = thaw_varlink_next(&client->stream, &message)) == THAW_NOT_FOUND) {
		r = thaw_varlink_receive(&client->stream);
		if (r == THAW_NOT_FOUND)
			return thaw_io(err, -ECONNRESET, "the node service has hung up");
		if (r < 0)
			return thaw_io(err, r, "the node service");
	}
	thaw_varlink_message_close(&message); /* commands want no descriptors */
	r = thaw_varlink_parse_reply(message.text, message.len, ret_reply);
	return r < 0 ? thaw_damaged(err, "the node service answers nonsense") : 0;
}

/* The protocol's errors in the terms of commands. */
static int service_error(struct thaw_client *client,
			 const struct thaw_varlink_reply *reply, struct thaw_error *err)
{
	static const struct {
		const char *name;
		enum thaw_exit exit_code;
		int r;
	} errors[] = {
		{ "NotFound", THAW_EXIT_REFUSED, -ENOENT },
		{ "Exists", THAW_EXIT_REFUSED, -EEXIST },
		{ "Busy", THAW_EXIT_IO, -EBUSY },
		{ "Denied", THAW_EXIT_REFUSED, -EACCES },
		{ "Refused", THAW_EXIT_REFUSED, -EPERM },
		{ "Limit", THAW_EXIT_LIMIT, -EFBIG },
		{ "Malformed", THAW_EXIT_DAMAGED, -EBADMSG },
		{ "Io", THAW_EXIT_IO, -EIO },
		{ "Draining", THAW_EXIT_REFUSED, -ESHUTDOWN },
		{ "Unsupported", THAW_EXIT_REFUSED, -EOPNOTSUPP },
	};
	const char *reason =
		json_string_value(json_object_get(reply->parameters, "reason"));
	const char *parameter =
		json_string_value(json_object_get(reply->parameters, "parameter"));
	const char *name = reply->error;

	if (strncmp(name, INTERFACE, strlen(INTERFACE)) == 0)
		name += strlen(INTERFACE);
	(void)snprintf(client->error, sizeof(client->error), "%s", name);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (strcmp(errors[i].name, name) != 0)
			continue;
		(void)thaw_io(err, 0, "%.480s", reason ? reason : name);
		if (err)
			err->exit_code = errors[i].exit_code;
		return errors[i].r;
	}
	return thaw_refused(err, "the node service says %.60s%s%.100s", reply->error,
			    parameter ? ": " : "", parameter ? parameter : "");
}

int thaw_client_call(struct thaw_client *client, const char *method, json_t *parameters,
		     const int *fds, unsigned fd_count, struct thaw_error *err,
		     json_t **ret_parameters)
{
	struct thaw_varlink_reply reply;
	int r;

	r = send_call(client, method, parameters, false, fds, fd_count, err);
	if (r == 0)
		r = next_reply(client, err, &reply);
	if (r < 0)
		return r;
	if (reply.error)
		r = service_error(client, &reply, err);
	else
		*ret_parameters = json_incref(reply.parameters);
	thaw_varlink_reply_deinit(&reply);
	return r;
}

int thaw_client_watch(struct thaw_client *client, const char *method, json_t *parameters,
		      thaw_client_answer_fn *answer, void *userdata,
		      struct thaw_error *err)
{
	bool continues = true;
	int r = send_call(client, method, parameters, true, NULL, 0, err);

	while (r == 0 && continues) {
		struct thaw_varlink_reply reply;

		r = next_reply(client, err, &reply);
		if (r < 0)
			return r;
		continues = reply.continues;
		r = reply.error ? service_error(client, &reply, err)
				: answer(userdata, reply.parameters);
		thaw_varlink_reply_deinit(&reply);
	}
	return r;
}

static void set_name(json_t *object, const char *key, const char *name)
{
	json_t *value = json_string(name);
	char hex_key[64], *hex;

	if (value) {
		(void)json_object_set_new(object, key, value);
		return;
	}
	hex = malloc(2 * strlen(name) + 1);
	if (!hex)
		return;
	for (size_t i = 0; name[i]; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", (unsigned char)name[i]);
	(void)snprintf(hex_key, sizeof(hex_key), "%s_hex", key);
	(void)json_object_set_new(object, hex_key, json_string(hex));
	free(hex);
}

int thaw_local_views(struct thaw_error *err, json_t **ret_views)
{
	struct thaw_mount_table table = { 0 };
	size_t prefix = strlen(THAW_MOUNT_SOURCE_PREFIX);
	json_t *views;
	int r = thaw_mount_table_read(&table, err);

	if (r < 0)
		return r;
	views = json_array();
	for (size_t i = 0; i < table.count; i++) {
		const struct thaw_mount_entry *entry = &table.entries[i];
		json_t *view;

		if (entry->kind == THAW_MOUNT_OTHER)
			continue;
		view = json_pack("{s:s}", "state",
				 entry->kind == THAW_MOUNT_VIEW ? "view" : "mount");
		set_name(view, "directory", entry->path);
		if (strncmp(entry->source, THAW_MOUNT_SOURCE_PREFIX, prefix) == 0)
			(void)json_object_set_new(view, "identity",
						  json_string(entry->source + prefix));
		(void)json_array_append_new(views, view); /* without memory: left out */
	}
	thaw_mount_table_deinit(&table);
	*ret_views = views;
	return 0;
}
