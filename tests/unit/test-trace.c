/* SPDX-License-Identifier: Apache-2.0 */
/* Traces: what goes in comes out, in order, bounded, and from several processes. */
#include "check.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "thaw/trace.h"

static struct thaw_trace_event get(const struct thaw_trace *trace, uint32_t number)
{
	struct thaw_trace_event event;

	assert_true(number < thaw_trace_count(trace));
	assert_true(thaw_trace_get(trace, number, &event));
	return event;
}

static void read_is(const struct thaw_trace *trace, uint32_t number, uint32_t first, uint32_t count)
{
	struct thaw_trace_event event = get(trace, number);

	assert_int_equal(event.kind, THAW_TRACE_READ);
	assert_int_equal(event.first, first);
	assert_int_equal(event.count, count);
}

static void reads(void **state)
{
	struct thaw_trace *trace = thaw_trace_new(20);

	thaw_trace_add_read(trace, 7, 0, 1);
	thaw_trace_add_read(trace, 7, 4095, 2);
	thaw_trace_add_read(trace, 7, 4096, 4096);
	thaw_trace_add_read(trace, 7, 8191, 8193);
	thaw_trace_add_read(trace, 7, 5, 0); /* nothing */
	thaw_trace_add_read(trace, 7, 1ull << 44, 1); /* page numbers have 32 bits */
	thaw_trace_add_read(trace, 7, ((1ull << 32) - 2) * 4096, 4096);
	assert_int_equal(thaw_trace_count(trace), 5);
	read_is(trace, 0, 0, 1);
	read_is(trace, 1, 0, 2);
	read_is(trace, 2, 1, 1);
	read_is(trace, 3, 1, 3);
	read_is(trace, 4, UINT32_MAX - 1, 1);
	assert_int_equal(get(trace, 3).ino, 7);
	assert_int_equal(thaw_trace_dropped(trace), 0);
	assert_null(thaw_trace_free(trace));
	assert_null(thaw_trace_free(NULL));
}

static void names(void **state)
{
	static const enum thaw_trace_kind kinds[] = { THAW_TRACE_MISSED, THAW_TRACE_FOUND };
	struct thaw_trace *trace = thaw_trace_new(20);
	struct thaw_trace_event event;

	thaw_trace_add(trace, THAW_TRACE_LIST, 1, NULL, 0);
	for (size_t i = 0; i < 2; i++)
		thaw_trace_add(trace, kinds[i], 3, "names/of", 5 + i);
	thaw_trace_add(trace, THAW_TRACE_LINK, 4, NULL, 0);
	assert_int_equal(get(trace, 0).kind, THAW_TRACE_LIST);
	for (uint32_t i = 0; i < 2; i++) {
		event = get(trace, 1 + i);
		assert_int_equal(event.kind, kinds[i]);
		assert_int_equal(event.ino, 3);
		assert_int_equal(event.name_len, 5 + i);
		assert_memory_equal(event.name, "names/", 5 + i);
	}
	assert_int_equal(get(trace, 3).ino, 4);
	thaw_trace_free(trace);
}

/* What does not fit, of events or of names, is counted and does no harm. */
static void bounds(void **state)
{
	struct thaw_trace *trace = thaw_trace_new(10);
	char name[100] = { 0 };

	for (unsigned i = 0; i < 15; i++)
		thaw_trace_add_read(trace, i + 1, 0, 1);
	assert_int_equal(thaw_trace_count(trace), 10);
	assert_int_equal(thaw_trace_dropped(trace), 5);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(get(trace, i).ino, i + 1);
	thaw_trace_free(trace);

	trace = thaw_trace_new(10); /* and 320 bytes of names */
	for (unsigned i = 0; i < 5; i++)
		thaw_trace_add(trace, THAW_TRACE_MISSED, 1, name, sizeof(name));
	assert_int_equal(thaw_trace_count(trace), 3);
	assert_int_equal(thaw_trace_dropped(trace), 2);
	thaw_trace_add(trace, THAW_TRACE_MISSED, 2, name, 20);
	assert_int_equal(get(trace, 3).name_len, 20);
	thaw_trace_free(trace);
	trace = thaw_trace_new(0);
	thaw_trace_add_read(trace, 1, 0, 1);
	assert_int_equal(thaw_trace_count(trace), 0);
	assert_int_equal(thaw_trace_dropped(trace), 1);
	thaw_trace_free(trace);
}

#define EACH 2000u

static void *record(void *userdata)
{
	struct thaw_trace *trace = userdata;

	for (unsigned i = 0; i < EACH; i++)
		thaw_trace_add(trace, THAW_TRACE_MISSED, i + 1, "0123456789", i % 10 + 1);
	return NULL;
}

/* As workers record: another process, several threads. */
static void many_recorders(void **state)
{
	struct thaw_trace *trace = thaw_trace_new(4 * EACH + 1);
	unsigned *seen = calloc(EACH + 1, sizeof(*seen));
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		pthread_t threads[4];

		for (unsigned i = 0; i < 4; i++)
			if (pthread_create(&threads[i], NULL, record, trace) != 0)
				_exit(1);
		for (unsigned i = 0; i < 4; i++)
			(void)pthread_join(threads[i], NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(thaw_trace_count(trace), 4 * EACH);
	for (uint32_t i = 0; i < 4 * EACH; i++) {
		struct thaw_trace_event event = get(trace, i);

		assert_in_range(event.ino, 1, EACH);
		assert_int_equal(event.name_len, (event.ino - 1) % 10 + 1);
		assert_memory_equal(event.name, "0123456789", event.name_len);
		seen[event.ino]++;
	}
	for (unsigned i = 1; i <= EACH; i++)
		assert_int_equal(seen[i], 4);
	free(seen);
	thaw_trace_free(trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads),
		cmocka_unit_test(names),
		cmocka_unit_test(bounds),
		cmocka_unit_test(many_recorders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
