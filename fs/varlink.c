/* SPDX-License-Identifier: Apache-2.0 */
/* Varlink: framing, descriptors, and the members that every message has. */
#include "varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "strangers.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define READ_SIZE 16384u

struct thaw_varlink_output {
	struct thaw_varlink_output *next;
	int fds[THAW_VARLINK_FDS_MAX]; /* sent with the first byte, then closed */
	unsigned fd_count;
	size_t len, sent;
	char text[];
};

void thaw_varlink_message_close(struct thaw_varlink_message *message)
{
	for (unsigned i = 0; i < message->fd_count; i++)
		stranger_close(message->fds[i]);
	message->fd_count = 0;
}

static void output_free(struct thaw_varlink_output *output)
{
	for (unsigned i = 0; i < output->fd_count; i++)
		closep(&output->fds[i]);
	free(output);
}

void thaw_varlink_init(struct thaw_varlink *stream, int fd, size_t message_max,
		       size_t queue_max)
{
	*stream = (struct thaw_varlink){
		.fd = fd,
		.message_max = message_max,
		.queue_max = queue_max,
	};
}

void thaw_varlink_deinit(struct thaw_varlink *stream)
{
	if (!stream)
		return;
	for (unsigned i = 0; i < stream->fd_count; i++)
		stranger_close(stream->fds[i].fd);
	while (stream->out) {
		struct thaw_varlink_output *next = stream->out->next;

		output_free(stream->out);
		stream->out = next;
	}
	free(stream->in);
	if (stream->fd > 0)
		closep(&stream->fd);
	*stream = (struct thaw_varlink){ .fd = -1 };
}

/* -- coming in -- */

/* Drop what was handed out. */
static void compact(struct thaw_varlink *stream)
{
	if (stream->taken == 0)
		return;
	memmove(stream->in, stream->in + stream->taken, stream->in_used - stream->taken);
	stream->in_used -= stream->taken;
	stream->scanned -= stream->taken;
	stream->position += stream->taken;
	stream->taken = 0;
}

/* Keep all that came: the kernel has installed them, whether we have room or not. */
static int keep_fds(struct thaw_varlink *stream, const struct msghdr *message,
		    uint64_t position)
{
	int r = message->msg_flags & MSG_CTRUNC ? -EMSGSIZE : 0;

	for (const struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
	     header = CMSG_NXTHDR((struct msghdr *)message, (struct cmsghdr *)header)) {
		unsigned count =
			(unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
			if (stream->fd_count == THAW_VARLINK_FDS_MAX) {
				stranger_close(fd);
				r = -EMSGSIZE;
				continue;
			}
			stream->fds[stream->fd_count].fd = fd;
			stream->fds[stream->fd_count++].position = position;
		}
	}
	return r;
}

int thaw_varlink_receive(struct thaw_varlink *stream)
{
	_Alignas(struct cmsghdr) char
		control[CMSG_SPACE(THAW_VARLINK_FDS_MAX * sizeof(int))];
	struct iovec iov;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;
	int r;

	compact(stream);
	/* Bytes that wait to be handed out count too: who sends ahead is made to wait. */
	if (stream->in_used >= stream->message_max)
		return -EMSGSIZE;
	r = grow(&stream->in, &stream->in_capacity, stream->in_used + READ_SIZE, 1);
	if (r < 0)
		return r;
	iov.iov_base = stream->in + stream->in_used;
	iov.iov_len = READ_SIZE;
	do
		n = recvmsg(stream->fd, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	r = keep_fds(stream, &message,
		     stream->position + stream->in_used + (n > 0 ? (uint64_t)n - 1 : 0));
	if (r < 0)
		return r;
	if (n == 0)
		return THAW_NOT_FOUND;
	stream->in_used += (size_t)n;
	return 0;
}

static void take_fds(struct thaw_varlink *stream, uint64_t end,
		     struct thaw_varlink_message *message)
{
	unsigned kept = 0;

	message->fd_count = 0;
	for (unsigned i = 0; i < stream->fd_count; i++)
		if (stream->fds[i].position < end)
			message->fds[message->fd_count++] = stream->fds[i].fd;
		else
			stream->fds[kept++] = stream->fds[i];
	stream->fd_count = kept;
}

int thaw_varlink_next(struct thaw_varlink *stream,
		      struct thaw_varlink_message *ret_message)
{
	char *end = stream->in_used > stream->scanned
			    ? memchr(stream->in + stream->scanned, '\0',
				     stream->in_used - stream->scanned)
			    : NULL;

	if (!end) {
		stream->scanned = stream->in_used;
		return THAW_NOT_FOUND;
	}
	ret_message->text = stream->in + stream->taken;
	ret_message->len = (size_t)(end - ret_message->text);
	stream->taken = (size_t)(end - stream->in) + 1;
	stream->scanned = stream->taken;
	take_fds(stream, stream->position + stream->taken, ret_message);
	return 0;
}

/* -- going out -- */

int thaw_varlink_send(struct thaw_varlink *stream, const json_t *object, const int *fds,
		      unsigned fd_count)
{
	size_t len = object ? json_dumpb(object, NULL, 0, JSON_COMPACT) : 0;
	struct thaw_varlink_output *output;

	if (len == 0)
		return -ENOMEM;
	if (len >= stream->queue_max || stream->queued > stream->queue_max - len - 1)
		return -ENOBUFS;
	output = malloc(sizeof(*output) + len + 1);
	if (!output)
		return -ENOMEM;
	*output = (struct thaw_varlink_output){ .len = len + 1 };
	/* The same object as before: the same length. */
	(void)json_dumpb(object, output->text, len, JSON_COMPACT);
	output->text[len] = '\0';
	for (unsigned i = 0; i < fd_count && i < THAW_VARLINK_FDS_MAX; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3), r = -errno;

		if (fd < 0) {
			output_free(output);
			return r;
		}
		output->fds[output->fd_count++] = fd;
	}
	if (stream->out)
		stream->out_last->next = output;
	else
		stream->out = output;
	stream->out_last = output;
	stream->queued += output->len;
	return 0;
}

static ssize_t send_part(int fd, struct thaw_varlink_output *output)
{
	_Alignas(struct cmsghdr) char
		control[CMSG_SPACE(THAW_VARLINK_FDS_MAX * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = output->text + output->sent,
			     .iov_len = output->len - output->sent };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (output->fd_count > 0) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(output->fd_count * sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(output->fd_count * sizeof(int));
		memcpy(CMSG_DATA(header), output->fds, output->fd_count * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

int thaw_varlink_flush(struct thaw_varlink *stream)
{
	while (stream->out) {
		struct thaw_varlink_output *output = stream->out;
		ssize_t n = send_part(stream->fd, output);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		for (unsigned i = 0; i < output->fd_count; i++)
			closep(&output->fds[i]);
		output->fd_count = 0;
		output->sent += (size_t)n;
		stream->queued -= (size_t)n;
		if (output->sent == output->len) {
			stream->out = output->next;
			output_free(output);
		}
	}
	return 0;
}

/* -- what messages say -- */

/* Brackets outside of strings; what is no JSON at all is the parser's to refuse. */
static bool too_deep(const char *text, size_t len)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > THAW_VARLINK_DEPTH_MAX)
				return true;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return false;
}

/* A member that may be missing: false when it is there and has another type. */
static bool flag(const json_t *object, const char *name, bool *ret_value)
{
	const json_t *value = json_object_get(object, name);

	*ret_value = json_is_true(value);
	return !value || json_is_boolean(value);
}

static json_t *parse_object(const char *text, size_t len)
{
	json_t *object;

	if (too_deep(text, len))
		return NULL;
	object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (object && !json_is_object(object)) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static json_t *parameters_of(json_t *object)
{
	json_t *parameters = json_object_get(object, "parameters");

	if (parameters && !json_is_null(parameters))
		return json_is_object(parameters) ? parameters : NULL;
	parameters = json_object();
	return json_object_set_new(object, "parameters", parameters) == 0 ? parameters
									  : NULL;
}

int thaw_varlink_parse_call(const char *text, size_t len,
			    struct thaw_varlink_call *ret_call)
{
	struct thaw_varlink_call call = { .object = parse_object(text, len) };
	bool upgrade;

	if (!call.object)
		return -EBADMSG;
	call.method = json_string_value(json_object_get(call.object, "method"));
	call.parameters = parameters_of(call.object);
	if (!call.method || !call.parameters || !flag(call.object, "more", &call.more) ||
	    !flag(call.object, "oneway", &call.oneway) ||
	    !flag(call.object, "upgrade", &upgrade) || upgrade ||
	    (call.more && call.oneway)) {
		json_decref(call.object);
		return -EBADMSG;
	}
	*ret_call = call;
	return 0;
}

void thaw_varlink_call_deinit(struct thaw_varlink_call *call)
{
	json_decref(call->object);
	*call = (struct thaw_varlink_call){ 0 };
}

int thaw_varlink_parse_reply(const char *text, size_t len,
			     struct thaw_varlink_reply *ret_reply)
{
	struct thaw_varlink_reply reply = { .object = parse_object(text, len) };
	const json_t *error;

	if (!reply.object)
		return -EBADMSG;
	error = json_object_get(reply.object, "error");
	reply.error = json_string_value(error);
	reply.parameters = parameters_of(reply.object);
	if ((error && !reply.error) || !reply.parameters ||
	    !flag(reply.object, "continues", &reply.continues)) {
		json_decref(reply.object);
		return -EBADMSG;
	}
	*ret_reply = reply;
	return 0;
}

void thaw_varlink_reply_deinit(struct thaw_varlink_reply *reply)
{
	json_decref(reply->object);
	*reply = (struct thaw_varlink_reply){ 0 };
}

/* Takes parameters, also on failure. */
static json_t *new_message(const char *key, const char *value, json_t *parameters)
{
	json_t *object = json_object();

	if (!object ||
	    (key && json_object_set_new(object, key, json_string(value)) < 0)) {
		json_decref(parameters);
		json_decref(object);
		return NULL;
	}
	if (parameters && json_object_set_new(object, "parameters", parameters) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static json_t *with_flag(json_t *object, const char *name, bool value)
{
	if (object && value && json_object_set_new(object, name, json_true()) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

json_t *thaw_varlink_new_call(const char *method, json_t *parameters, bool more)
{
	return with_flag(new_message("method", method, parameters), "more", more);
}

json_t *thaw_varlink_new_reply(json_t *parameters, bool continues)
{
	if (!parameters)
		parameters = json_object();
	return with_flag(new_message(NULL, NULL, parameters), "continues", continues);
}

json_t *thaw_varlink_new_error(const char *error, json_t *parameters)
{
	return new_message("error", error, parameters ? parameters : json_object());
}
