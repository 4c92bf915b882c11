/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults at every single place while the catalogue is opened, written and closed:
 * the n-th call fails, for every n until nothing fails any more. What had been put
 * before is there afterwards, and what was said to be put, too.
 */
#include "catalogue-tests.h"

#include <sys/stat.h>
#include <unistd.h>

enum fault { FAULT_MEMORY, FAULT_READ, FAULT_WRITE, FAULT_PROCESS, FAULT_NAME, FAULTS };
static const int fault_errors[FAULTS] = { ENOMEM, EIO, ENOSPC, EAGAIN, EACCES };

#include "faults.h"

WRAP(ssize_t, pwrite64, FAULT_WRITE, -1, (int fd, const void *buf, size_t len, off_t at),
     fd, buf, len, at)
WRAP(pid_t, fork, FAULT_PROCESS, -1, (void), )
WRAP(int, pipe2, FAULT_PROCESS, -1, (int fds[2], int flags), fds, flags)
WRAP(int, memfd_create, FAULT_PROCESS, -1, (const char *name, unsigned flags), name,
     flags)
WRAP(int, rename, FAULT_NAME, -1, (const char *from, const char *to), from, to)
WRAP(int, unlink, FAULT_NAME, -1, (const char *path), path)

static int stop_faults(void **state)
{
	for (int i = 0; i < FAULTS; i++)
		atomic_store(&countdown[i], 0);
	return teardown(state);
}

/* Before each try: a catalogue that was closed, or one whose owner was killed. */
static void prepare(struct state *s, bool clean)
{
	char *marker = join_path(s->directory, "leases.clean");

	open_it(s);
	put_lease(s, "a", 1);
	put_lease(s, "b", 2);
	put_lease(s, "c", 3);
	close_it(s);
	if (!clean)
		assert_int_equal(unlink(marker), 0);
	free(marker);
}

/* Whether the change was said to have been made. */
static bool use(struct state *s, json_t *lease)
{
	struct thaw_error err = { 0 };
	bool put = false;
	json_t *found;
	int r;

	r = open_in(s, s->directory, &err);
	if (r < 0) {
		assert_string_not_equal(err.text, "");
		return false;
	}
	r = thaw_catalogue_put_lease(s->catalogue, "b", lease, &err);
	if (r == 0)
		put = !s->leases.in_memory;
	else
		assert_string_not_equal(err.text, "");
	r = thaw_catalogue_get_lease(s->catalogue, "a", &err, &found);
	if (r == 0) {
		assert_int_equal(json_integer_value(json_object_get(found, "number")), 1);
		json_decref(found);
	} else if (r < 0) {
		assert_string_not_equal(err.text, "");
	} else {
		/* Only when it had to be read, and could not be; and then that was said. */
		assert_int_equal(s->leases.state, THAW_CATALOGUE_REBUILT);
	}
	close_it(s);
	return put;
}

static void try_faults(struct state *s, enum fault fault, bool clean)
{
	json_t *lease = json_pack("{s:s,s:i}", "session", "b", "number", 20);
	unsigned tries = 0;

	s->only_leases = true; /* one file is opened as the other */
	for (int n = 1;; n++) {
		unsigned before = atomic_load(&fired);
		bool put, lost;

		prepare(s, clean);
		atomic_store(&countdown[fault], (int)n);
		put = use(s, lease);
		lost = s->leases.state == THAW_CATALOGUE_REBUILT && !s->leases.in_memory;
		atomic_store(&countdown[fault], 0);
		open_it(s);
		/*
		 * The pipe that it is handed over by failing, at either end, is the one way to
		 * lose something, and is said.
		 */
		if (!(lost && !clean && (fault == FAULT_READ || fault == FAULT_WRITE))) {
			assert_int_equal(lease_number(s, "a"), 1);
			assert_int_equal(lease_number(s, "c"), 3);
			if (put)
				assert_int_equal(lease_number(s, "b"), 20);
			else
				assert_true(lease_number(s, "b") == 2 ||
					    lease_number(s, "b") == 20);
		} else if (put) {
			assert_int_equal(lease_number(s, "b"), 20);
		}
		close_it(s);
		tries++;
		if (atomic_load(&fired) == before)
			break;
		assert_true(tries < 3000);
	}
	json_decref(lease);
	print_message("# fault %d, %s: %u places\n", (int)fault,
		      clean ? "closed" : "killed", tries - 1);
	/* Of a catalogue that was closed no process is needed. */
	assert_true(tries > 1 || (clean && fault != FAULT_MEMORY));
}

#define CASE(name, fault)                              \
	static void test_##name##_closed(void **state) \
	{                                              \
		try_faults(*state, fault, true);       \
	}                                              \
	static void test_##name##_killed(void **state) \
	{                                              \
		try_faults(*state, fault, false);      \
	}
CASE(memory, FAULT_MEMORY)
CASE(read, FAULT_READ)
CASE(write, FAULT_WRITE)
CASE(process, FAULT_PROCESS)
CASE(name, FAULT_NAME)

#define TEST(name)                                                                 \
	cmocka_unit_test_setup_teardown(test_##name##_closed, setup, stop_faults), \
		cmocka_unit_test_setup_teardown(test_##name##_killed, setup,       \
						stop_faults)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(memory), TEST(read), TEST(write), TEST(process), TEST(name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
