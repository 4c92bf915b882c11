/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as what a client sends: through a socket, cut where the first byte says, then
 * each message parsed as a call and as an answer.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lease.h"
#include "varlink.h"

static void look_at(const struct thaw_varlink_message *message)
{
	struct thaw_varlink_call call;
	struct thaw_varlink_reply reply;
	struct thaw_lease lease;

	if (strlen(message->text) != message->len)
		abort();
	if (thaw_varlink_parse_call(message->text, message->len, &call) == 0) {
		if (!call.method || !json_is_object(call.parameters) ||
		    (call.more && call.oneway))
			abort();
		if (thaw_lease_from_record(call.parameters, &lease) == 0) {
			if (!thaw_session_name_valid(lease.session) ||
			    lease.directory[0] != '/')
				abort();
			thaw_lease_deinit(&lease);
		}
		thaw_varlink_call_deinit(&call);
	}
	if (thaw_varlink_parse_reply(message->text, message->len, &reply) == 0) {
		if (!json_is_object(reply.parameters))
			abort();
		thaw_varlink_reply_deinit(&reply);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct thaw_varlink stream;
	size_t step = size > 0 && data[0] ? data[0] : 4096;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		abort();
	thaw_varlink_init(&stream, fds[0], 8192, 8192);
	for (size_t at = 0; at < size;) {
		size_t len = size - at < step ? size - at : step;
		struct thaw_varlink_message message;
		int r;

		if (write(fds[1], data + at, len) != (ssize_t)len)
			break;
		at += len;
		while ((r = thaw_varlink_receive(&stream)) == 0)
			while (thaw_varlink_next(&stream, &message) == 0)
				look_at(&message);
		if (r != -EAGAIN)
			break;
	}
	(void)close(fds[1]);
	thaw_varlink_deinit(&stream);
	return 0;
}
