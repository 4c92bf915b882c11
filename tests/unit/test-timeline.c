/* SPDX-License-Identifier: Apache-2.0 */
/* Timelines: what several processes write at once comes back, as far as there is room. */
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

#include "thaw/timeline.h"

#define WRITERS 4u
#define EACH	5000u

static void fields(void **state)
{
	struct thaw_timeline *timeline = thaw_timeline_new(10);
	struct thaw_timeline_event event = {
		.began = thaw_timeline_now() - 2000,
		.kind = THAW_TIMELINE_REQUEST,
		.opcode = 15,
		.by_warmer = true,
		.ino = 7,
		.first = 8,
		.bytes = 9,
	}, found;

	assert_non_null(timeline);
	thaw_timeline_add(timeline, &event);
	assert_int_equal(thaw_timeline_count(timeline), 1);
	assert_true(thaw_timeline_get(timeline, 0, &found));
	assert_int_equal(found.began, event.began);
	assert_in_range(found.took, 2000, 60000000);
	assert_int_equal(found.kind, THAW_TIMELINE_REQUEST);
	assert_int_equal(found.opcode, 15);
	assert_true(found.by_warmer);
	assert_int_equal(found.ino, 7);
	assert_int_equal(found.first, 8);
	assert_int_equal(found.bytes, 9);
	/* Nobody has written there. */
	assert_false(thaw_timeline_get(timeline, 1, &found));
	/* Longer than 32 bits of microseconds: the most that there is, not what is left over. */
	event.began -= 5000000000;
	thaw_timeline_add(timeline, &event);
	assert_true(thaw_timeline_get(timeline, 1, &found));
	assert_int_equal(found.took, UINT32_MAX);
	assert_null(thaw_timeline_free(timeline));
}

static void warmer(void **state)
{
	struct thaw_timeline *timeline = thaw_timeline_new(1);

	/* The kernel says 0 of who cannot be named: that is nobody, and not the warmer. */
	assert_false(thaw_timeline_is_warmer(timeline, 0));
	assert_false(thaw_timeline_is_warmer(timeline, 12));
	thaw_timeline_set_warmer(timeline, 12);
	assert_true(thaw_timeline_is_warmer(timeline, 12));
	assert_false(thaw_timeline_is_warmer(timeline, 13));
	thaw_timeline_free(timeline);
}

static void writers(struct thaw_timeline *timeline)
{
	for (uint32_t writer = 0; writer < WRITERS; writer++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid > 0)
			continue;
		for (uint32_t i = 0; i < EACH; i++) {
			struct thaw_timeline_event event = {
				.began = thaw_timeline_now(),
				.kind = THAW_TIMELINE_PUSH,
				.ino = writer,
				.first = i,
				.bytes = writer * EACH + i,
			};

			thaw_timeline_add(timeline, &event);
		}
		_exit(0);
	}
	for (uint32_t writer = 0; writer < WRITERS; writer++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
}

/* Each writer's events are whole and in its order, and each is there once. */
static void concurrently(void **state)
{
	struct thaw_timeline *timeline = thaw_timeline_new(WRITERS * EACH);
	uint32_t next[WRITERS] = { 0 };

	writers(timeline);
	assert_int_equal(thaw_timeline_count(timeline), WRITERS * EACH);
	assert_int_equal(thaw_timeline_dropped(timeline), 0);
	for (uint32_t i = 0; i < WRITERS * EACH; i++) {
		struct thaw_timeline_event event;

		assert_true(thaw_timeline_get(timeline, i, &event));
		assert_true(event.ino < WRITERS);
		assert_int_equal(event.first, next[event.ino]++);
		assert_int_equal(event.bytes, event.ino * EACH + event.first);
	}
	thaw_timeline_free(timeline);
}

static void bounded(void **state)
{
	struct thaw_timeline *timeline = thaw_timeline_new(1000);

	writers(timeline);
	assert_int_equal(thaw_timeline_count(timeline), 1000);
	assert_int_equal(thaw_timeline_dropped(timeline), WRITERS * EACH - 1000);
	thaw_timeline_free(timeline);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(warmer),
		cmocka_unit_test(concurrently),
		cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
