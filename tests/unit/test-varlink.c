/* SPDX-License-Identifier: Apache-2.0 */
/* Varlink: framing, descriptors, bounds, and what is no message. */
#include "check.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "varlink.h"

struct pair {
	struct thaw_varlink a, b;
};

static void pair_init(struct pair *pair, size_t message_max, size_t queue_max)
{
	int fds[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
		0);
	thaw_varlink_init(&pair->a, fds[0], message_max, queue_max);
	thaw_varlink_init(&pair->b, fds[1], message_max, queue_max);
}

static void pair_deinit(struct pair *pair)
{
	thaw_varlink_deinit(&pair->a);
	thaw_varlink_deinit(&pair->b);
}

static void send_text(struct thaw_varlink *stream, const char *text, size_t len)
{
	assert_int_equal(write(stream->fd, text, len), len);
}

static void expect_message(struct thaw_varlink *stream, const char *text)
{
	struct thaw_varlink_message message;

	assert_int_equal(thaw_varlink_next(stream, &message), 0);
	assert_string_equal(message.text, text);
	assert_int_equal(message.len, strlen(text));
	thaw_varlink_message_close(&message);
}

static void expect_none(struct thaw_varlink *stream)
{
	struct thaw_varlink_message message;

	assert_int_equal(thaw_varlink_next(stream, &message), THAW_NOT_FOUND);
}

/* However the bytes arrive, the messages are the same. */
static void framing(void **state)
{
	static const char bytes[] = "{\"a\":1}\0\0{}\0rest";
	struct pair pair;

	pair_init(&pair, 1000, 1000);
	assert_int_equal(thaw_varlink_receive(&pair.b), -EAGAIN);
	for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
		send_text(&pair.a, bytes + i, 1);
		assert_int_equal(thaw_varlink_receive(&pair.b), 0);
		if (i == 7)
			expect_message(&pair.b, "{\"a\":1}");
		else if (i == 8)
			expect_message(&pair.b, "");
		else if (i == 11)
			expect_message(&pair.b, "{}");
		expect_none(&pair.b);
	}
	send_text(&pair.a, bytes, sizeof(bytes)); /* with a NUL more */
	assert_int_equal(thaw_varlink_receive(&pair.b), 0);
	expect_message(&pair.b, "rest{\"a\":1}");
	expect_message(&pair.b, "");
	expect_message(&pair.b, "{}");
	expect_message(&pair.b, "rest");
	expect_none(&pair.b);
	thaw_varlink_deinit(&pair.a);
	assert_int_equal(thaw_varlink_receive(&pair.b), THAW_NOT_FOUND);
	pair_deinit(&pair);
}

static void too_long(void **state)
{
	struct pair pair;
	char text[5000];

	memset(text, 'x', sizeof(text));
	pair_init(&pair, 1000, 100000);
	send_text(&pair.a, text, sizeof(text));
	assert_int_equal(thaw_varlink_receive(&pair.b), 0);
	expect_none(&pair.b);
	send_text(&pair.a, text, 1);
	assert_int_equal(thaw_varlink_receive(&pair.b), -EMSGSIZE);
	pair_deinit(&pair);
}

/* A reader that does not read: the queue grows to its bound and no further. */
static void slow_reader(void **state)
{
	json_t *object = json_object();
	struct pair pair;
	unsigned sent = 0;
	int r;

	assert_int_equal(json_object_set_new(object, "text", json_string("0123456789")),
			 0);
	pair_init(&pair, 1000, 1000);
	while ((r = thaw_varlink_send(&pair.a, object, NULL, 0)) == 0) {
		r = thaw_varlink_flush(&pair.a);
		assert_true(r == 0 || r == -EAGAIN);
		assert_true(pair.a.queued <= 1000);
		assert_true(++sent < 1000000);
	}
	assert_int_equal(r, -ENOBUFS);
	/* Everything that was accepted arrives, in order and whole. */
	for (unsigned i = 0; i < sent;) {
		struct thaw_varlink_message message;

		r = thaw_varlink_receive(&pair.b);
		assert_true(r == 0 || r == -EAGAIN);
		while (thaw_varlink_next(&pair.b, &message) == 0) {
			assert_string_equal(message.text, "{\"text\":\"0123456789\"}");
			i++;
		}
		r = thaw_varlink_flush(&pair.a);
		assert_true(r == 0 || r == -EAGAIN);
	}
	assert_int_equal(pair.a.queued, 0);
	json_decref(object);
	pair_deinit(&pair);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

static void descriptors(void **state)
{
	int files[2][2];
	json_t *object = json_object();
	struct thaw_varlink_message message;
	struct pair pair;

	assert_int_equal(pipe(files[0]), 0);
	assert_int_equal(pipe(files[1]), 0);
	pair_init(&pair, 1000, 1000);
	/* Without, with one, without, with two: each message has its own, read at once or not. */
	assert_int_equal(thaw_varlink_send(&pair.a, object, NULL, 0), 0);
	assert_int_equal(thaw_varlink_send(&pair.a, object, files[0], 1), 0);
	assert_int_equal(thaw_varlink_send(&pair.a, object, NULL, 0), 0);
	assert_int_equal(thaw_varlink_send(&pair.a, object, files[1], 2), 0);
	assert_int_equal(thaw_varlink_flush(&pair.a), 0);
	while (thaw_varlink_receive(&pair.b) == 0)
		;
	assert_int_equal(thaw_varlink_next(&pair.b, &message), 0);
	assert_int_equal(message.fd_count, 0);
	assert_int_equal(thaw_varlink_next(&pair.b, &message), 0);
	assert_int_equal(message.fd_count, 1);
	assert_true(same_file(message.fds[0], files[0][0]));
	assert_true(fcntl(message.fds[0], F_GETFD) & FD_CLOEXEC);
	thaw_varlink_message_close(&message);
	assert_int_equal(thaw_varlink_next(&pair.b, &message), 0);
	assert_int_equal(message.fd_count, 0);
	assert_int_equal(thaw_varlink_next(&pair.b, &message), 0);
	assert_int_equal(message.fd_count, 2);
	assert_true(same_file(message.fds[0], files[1][0]));
	assert_true(same_file(message.fds[1], files[1][1]));
	thaw_varlink_message_close(&message);
	for (unsigned i = 0; i < 4; i++)
		(void)close(files[i / 2][i % 2]);
	json_decref(object);
	pair_deinit(&pair);
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Neither those of a message that never ends, nor more than the bound, stay open. */
static void too_many_descriptors(void **state)
{
	unsigned before = open_descriptors();
	struct pair pair;
	int fds[THAW_VARLINK_FDS_MAX];
	json_t *object = json_object();

	pair_init(&pair, 1000, 1000);
	for (unsigned i = 0; i < THAW_VARLINK_FDS_MAX; i++)
		fds[i] = STDERR_FILENO;
	assert_int_equal(thaw_varlink_send(&pair.a, object, fds, THAW_VARLINK_FDS_MAX),
			 0);
	assert_int_equal(thaw_varlink_send(&pair.a, object, fds, 1), 0);
	assert_int_equal(thaw_varlink_flush(&pair.a), 0);
	assert_int_equal(thaw_varlink_receive(&pair.b), 0);
	assert_int_equal(pair.b.fd_count, THAW_VARLINK_FDS_MAX);
	assert_int_equal(thaw_varlink_receive(&pair.b), -EMSGSIZE);
	json_decref(object);
	pair_deinit(&pair);
	assert_int_equal(open_descriptors(), before);
}

static void expect_call(const char *text, int result)
{
	struct thaw_varlink_call call;
	int r = thaw_varlink_parse_call(text, strlen(text), &call);

	if (r != result)
		fail_msg("%s: %d", text, r);
	if (r == 0) {
		assert_non_null(call.method);
		assert_true(json_is_object(call.parameters));
		thaw_varlink_call_deinit(&call);
	}
}

static void calls(void **state)
{
	struct thaw_varlink_call call;
	const char *full =
		"{\"method\":\"a.b.C\",\"parameters\":{\"x\":1},\"more\":true}";

	assert_int_equal(thaw_varlink_parse_call(full, strlen(full), &call), 0);
	assert_string_equal(call.method, "a.b.C");
	assert_int_equal(json_integer_value(json_object_get(call.parameters, "x")), 1);
	assert_true(call.more && !call.oneway);
	thaw_varlink_call_deinit(&call);

	expect_call("{\"method\":\"x\"}", 0);
	expect_call("{\"method\":\"x\",\"parameters\":null}", 0);
	expect_call("{\"method\":\"x\",\"unknown\":[]}", 0);
	expect_call("{\"method\":\"x\",\"oneway\":false}", 0);
	expect_call("", -EBADMSG);
	expect_call("{}", -EBADMSG);
	expect_call("[]", -EBADMSG);
	expect_call("null", -EBADMSG);
	expect_call("\"method\"", -EBADMSG);
	expect_call("{\"method\":1}", -EBADMSG);
	expect_call("{\"method\":\"x\"} ", 0);
	expect_call("{\"method\":\"x\"}{}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"method\":\"y\"}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"parameters\":[]}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"more\":1}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"more\":true,\"oneway\":true}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"upgrade\":true}", -EBADMSG);
	expect_call("{\"method\":\"\xff\"}", -EBADMSG);
	expect_call("{\"method\":\"\\u0000\"}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"parameters\":{\"n\":1e999}}", -EBADMSG);
	expect_call("{\"method\":\"x\",\"parameters\":{\"n\":99999999999999999999}}",
		    -EBADMSG);
}

static void nesting(void **state)
{
	static char text[200000];

	for (unsigned depth = 1; depth < 12; depth++) {
		size_t used = (size_t)sprintf(text,
					      "{\"method\":\"x\",\"parameters\":{\"p\":");

		for (unsigned i = 0; i < depth; i++)
			text[used++] = '[';
		for (unsigned i = 0; i < depth; i++)
			text[used++] = ']';
		strcpy(text + used, "}}");
		expect_call(text, depth + 2 <= THAW_VARLINK_DEPTH_MAX ? 0 : -EBADMSG);
	}
	/* Brackets in strings are no nesting, also behind escaped quotes. */
	expect_call("{\"method\":\"[[[[[[[[[[[[[[\\\"{{{{{{{{{{{\"}", 0);
	memset(text, '[', 199999);
	text[199999] = '\0';
	expect_call(text, -EBADMSG);
}

static void replies(void **state)
{
	struct thaw_varlink_reply reply;
	json_t *message = thaw_varlink_new_error("a.B", NULL);
	char *text = json_dumps(message, JSON_COMPACT);

	assert_string_equal(text, "{\"error\":\"a.B\",\"parameters\":{}}");
	assert_int_equal(thaw_varlink_parse_reply(text, strlen(text), &reply), 0);
	assert_string_equal(reply.error, "a.B");
	thaw_varlink_reply_deinit(&reply);
	free(text);
	json_decref(message);

	message = thaw_varlink_new_reply(json_pack("{s:i}", "x", 1), true);
	text = json_dumps(message, JSON_COMPACT);
	assert_string_equal(text, "{\"parameters\":{\"x\":1},\"continues\":true}");
	assert_int_equal(thaw_varlink_parse_reply(text, strlen(text), &reply), 0);
	assert_null(reply.error);
	assert_true(reply.continues);
	thaw_varlink_reply_deinit(&reply);
	free(text);
	json_decref(message);
	assert_int_equal(thaw_varlink_parse_reply("{\"error\":1}", 11, &reply), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(framing),
		cmocka_unit_test(too_long),
		cmocka_unit_test(slow_reader),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(too_many_descriptors),
		cmocka_unit_test(calls),
		cmocka_unit_test(nesting),
		cmocka_unit_test(replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
