/* SPDX-License-Identifier: Apache-2.0 */
/* Slots of requests: what is in flight, who is to blame, and what a file may claim to be. */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper-state.h"

#define SLOTS 3u

struct refused {
	unsigned count;
	uint64_t unique[8];
};

static void note(void *userdata, const struct fuse_in_header *header)
{
	struct refused *refused = userdata;

	assert_in_range(refused->count, 0, 7);
	refused->unique[refused->count++] = header->unique;
}

static int setup(void **state)
{
	struct thaw_error err = { 0 };

	assert_success(thaw_state_new(NULL, SLOTS, &err, (struct thaw_state **)state), &err);
	return 0;
}

static int teardown(void **state)
{
	assert_null(thaw_state_free(*state));
	return 0;
}

/* As the kernel fills it. */
static void put(struct thaw_state *state, unsigned slot, uint32_t opcode, uint64_t unique)
{
	struct fuse_in_header header = {
		.len = sizeof(header) + 8,
		.opcode = opcode,
		.unique = unique,
		.nodeid = 5,
	};

	memcpy(state->common->slots[slot].request, &header, sizeof(header));
}

static void put_length(struct thaw_state *state, unsigned slot, uint32_t len)
{
	struct fuse_in_header header = { .len = len, .opcode = FUSE_READ, .unique = 9 };

	memcpy(state->common->slots[slot].request, &header, sizeof(header));
}

static unsigned blame(struct thaw_state *state, struct refused *refused)
{
	*refused = (struct refused){ 0 };
	return thaw_slots_blame(state, THAW_GUILT_CRASH, note, refused);
}

static void empty_slots(void **state)
{
	struct thaw_state *s = *state;
	struct fuse_in_header header;
	struct refused refused;

	for (unsigned i = 0; i < SLOTS; i++)
		assert_false(thaw_slot_request(&s->common->slots[i], &header));
	assert_int_equal(blame(s, &refused), 0);
	assert_int_equal(refused.count, 0);
	thaw_slots_populate(s);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_false(thaw_slot_request(&s->common->slots[i], &header));
}

static void a_request_is_there_until_it_is_cleared(void **state)
{
	struct thaw_state *s = *state;
	struct fuse_in_header header;

	put(s, 1, FUSE_READ, 77);
	thaw_slots_populate(s);
	assert_true(thaw_slot_request(&s->common->slots[1], &header));
	assert_int_equal(header.unique, 77);
	assert_int_equal(header.opcode, FUSE_READ);
	assert_false(thaw_slot_request(&s->common->slots[0], &header));
	thaw_slot_clear(&s->common->slots[1]);
	assert_false(thaw_slot_request(&s->common->slots[1], &header));
}

/* Whatever a worker wrote there: never a length beyond the slot. */
static void lengths(void **state)
{
	static const struct {
		uint32_t len;
		bool sane;
	} cases[] = {
		{ 0, false },
		{ sizeof(struct fuse_in_header) - 1, false },
		{ sizeof(struct fuse_in_header), true },
		{ THAW_REQUEST_MAX, true },
		{ THAW_REQUEST_MAX + 1, false },
		{ UINT32_MAX, false },
	};
	struct thaw_state *s = *state;
	struct fuse_in_header header;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put_length(s, 0, cases[i].len);
		assert_int_equal(thaw_slot_request(&s->common->slots[0], &header), cases[i].sane);
	}
	put(s, 0, FUSE_READ, 0); /* no request has this number */
	assert_false(thaw_slot_request(&s->common->slots[0], &header));
}

static void what_wants_no_answer_is_dropped(void **state)
{
	static const uint32_t opcodes[] = { FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT };
	struct thaw_state *s = *state;
	struct fuse_in_header header;
	struct refused refused;

	for (unsigned i = 0; i < SLOTS; i++)
		put(s, i, opcodes[i], 10 + i);
	assert_int_equal(blame(s, &refused), 0);
	assert_int_equal(refused.count, 0);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_false(thaw_slot_request(&s->common->slots[i], &header));
}

static void the_second_death_is_one_too_many(void **state)
{
	struct thaw_state *s = *state;
	struct fuse_in_header header;
	struct refused refused;

	put(s, 0, FUSE_READ, 41);
	put(s, 2, FUSE_LOOKUP, 42);
	assert_int_equal(blame(s, &refused), 2);
	assert_int_equal(refused.count, 0);
	/* Served again alone, and dead again: it is that one's fault, and not the other's. */
	atomic_store(&s->common->replaying, 1);
	assert_int_equal(blame(s, &refused), 1);
	assert_int_equal(refused.count, 1);
	assert_int_equal(refused.unique[0], 41);
	assert_false(thaw_slot_request(&s->common->slots[0], &header));
	assert_int_equal(atomic_load(&s->common->replaying), 0);
	/* The other's turn. */
	atomic_store(&s->common->replaying, 3);
	assert_int_equal(blame(s, &refused), 0);
	assert_int_equal(refused.count, 1);
	assert_int_equal(refused.unique[0], 42);
}

/* Anybody can send SIGKILL: that takes longer. */
static void a_killed_worker_counts_for_less(void **state)
{
	struct thaw_state *s = *state;
	struct refused refused = { 0 };

	put(s, 0, FUSE_READ, 41);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(thaw_slots_blame(s, THAW_GUILT_KILL, note, &refused), 1);
		assert_int_equal(refused.count, 0);
	}
	assert_int_equal(thaw_slots_blame(s, THAW_GUILT_KILL, note, &refused), 0);
	assert_int_equal(refused.count, 1);
	/* A crash, and two who were killed. */
	put(s, 0, FUSE_READ, 43);
	assert_int_equal(blame(s, &refused), 1);
	assert_int_equal(thaw_slots_blame(s, THAW_GUILT_KILL, note, &refused), 1);
	assert_int_equal(refused.count, 0);
	assert_int_equal(thaw_slots_blame(s, THAW_GUILT_KILL, note, &refused), 0);
	assert_int_equal(refused.count, 1);
}

static void blame_is_for_the_request_and_not_for_the_slot(void **state)
{
	struct thaw_state *s = *state;
	struct refused refused;

	for (uint64_t unique = 1; unique < 20; unique++) {
		put(s, 0, FUSE_READ, unique);
		assert_int_equal(blame(s, &refused), 1);
		assert_int_equal(refused.count, 0);
		thaw_slot_clear(&s->common->slots[0]); /* answered */
	}
	/* Even one that comes again: numbers do. */
	put(s, 0, FUSE_READ, 19);
	assert_int_equal(blame(s, &refused), 0);
	assert_int_equal(refused.count, 1);
}

static void all_can_be_refused(void **state)
{
	struct thaw_state *s = *state;
	struct refused refused = { 0 };

	put(s, 0, FUSE_READ, 1);
	put(s, 1, FUSE_FORGET, 2);
	put(s, 2, FUSE_READ, 3);
	atomic_store(&s->common->replaying, 2);
	thaw_slots_refuse(s, note, &refused);
	assert_int_equal(refused.count, 2);
	assert_int_equal(refused.unique[0], 1);
	assert_int_equal(refused.unique[1], 3);
	thaw_slots_refuse(s, note, &refused);
	assert_int_equal(refused.count, 2);
}

static void sums(void **state)
{
	struct thaw_state *s = *state;
	struct refused refused;

	assert_int_equal(thaw_slots_beats(s), 0);
	assert_false(thaw_slots_in_storage(s));
	atomic_store(&s->common->slots[0].beats, 5);
	atomic_store(&s->common->slots[2].beats, 7);
	atomic_store(&s->common->slots[1].answered, 3);
	atomic_store(&s->common->slots[2].storage, 1);
	assert_int_equal(thaw_slots_beats(s), 12);
	assert_int_equal(thaw_slots_answered(s), 3);
	assert_true(thaw_slots_in_storage(s));
	/* A dead worker reads nothing. */
	(void)blame(s, &refused);
	assert_false(thaw_slots_in_storage(s));
}

static void deaths(void **state)
{
	struct thaw_state *s = *state;
	char text[THAW_DEATH_TEXT], too_long[2 * THAW_DEATH_TEXT];

	thaw_common_death(s->common, text);
	assert_string_equal(text, "");
	thaw_state_set_death(s, "one");
	thaw_state_set_death(s, "two");
	thaw_common_death(s->common, text);
	assert_string_equal(text, "two");
	memset(too_long, 'x', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	thaw_state_set_death(s, too_long);
	thaw_common_death(s->common, text);
	assert_int_equal(strlen(text), THAW_DEATH_TEXT - 1);
	/* Whatever the worker did to it. */
	memset(s->common->death, 'y', sizeof(s->common->death));
	atomic_store(&s->common->death_turn, UINT32_MAX);
	thaw_common_death(s->common, text);
	assert_int_equal(strlen(text), THAW_DEATH_TEXT - 1);
}

static void a_child_shares_it_and_leaves_the_plan(void **state)
{
	struct thaw_state *s = *state;
	struct fuse_in_header header;
	int status;
	pid_t pid;

	put(s, 0, FUSE_READ, 8);
	pid = fork();
	if (pid == 0) {
		bool found = thaw_slot_request(&s->common->slots[0], &header);

		thaw_state_leave_plan(s);
		thaw_slot_clear(&s->common->slots[0]);
		put(s, 1, FUSE_READ, 9);
		_exit(found && s->plan == NULL && s->fd == -1 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_false(thaw_slot_request(&s->common->slots[0], &header));
	assert_true(thaw_slot_request(&s->common->slots[1], &header));
	assert_int_equal(header.unique, 9);
	assert_non_null(s->plan);
}

/* -- files -- */

static void another_program_finds_it(void **state)
{
	struct thaw_state *s = *state, *found;
	struct fuse_in_header header;
	struct thaw_error err = { 0 };

	put(s, 2, FUSE_LOOKUP, 99);
	memset(s->plan->name, 'n', sizeof(s->plan->name)); /* without an end */
	s->plan->worker = 1234;
	assert_success(thaw_state_open(dup(s->fd), &err, &found), &err);
	assert_int_equal(found->slots, SLOTS);
	assert_int_equal(found->plan->worker, 1234);
	assert_int_equal(strlen(found->plan->name), sizeof(found->plan->name) - 1);
	assert_true(thaw_slot_request(&found->common->slots[2], &header));
	assert_int_equal(header.unique, 99);
	thaw_state_free(found);
}

static void a_file_is_made_once(void **state)
{
	char *directory = make_directory(), *path = join_path(directory, "state");
	struct thaw_error err = { 0 };
	struct thaw_state *s, *second;
	struct stat st;

	assert_success(thaw_state_new(path, 1, &err, &s), &err);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(thaw_state_new(path, 1, &err, &second), -EEXIST);
	assert_int_equal(err.exit_code, THAW_EXIT_IO);
	/* Sparse: a megabyte a slot, of which nothing is used. */
	assert_true(st.st_size > (off_t)THAW_REQUEST_MAX);
	assert_true(st.st_blocks * 512 < 256 << 10);
	thaw_state_free(s);
	free(path);
	remove_directory(directory);
}

static void number_of_slots(void **state)
{
	struct thaw_error err = { 0 };
	struct thaw_state *s;

	assert_success(thaw_state_new(NULL, 100000, &err, &s), &err);
	assert_int_equal(s->slots, THAW_SLOTS_MAX);
	thaw_state_free(s);
}

static void files_that_are_none(void **state)
{
	struct thaw_state *s = *state, *found;
	struct thaw_error err = { 0 };
	struct thaw_plan good = *s->plan;
	struct stat st;
	int fds[2];

	s->plan->magic[0] = 'x';
	assert_damaged(thaw_state_open(dup(s->fd), &err, &found), &err, "is no keeper's state");
	*s->plan = good;
	s->plan->version++;
	assert_refused(thaw_state_open(dup(s->fd), &err, &found), &err,
		       "is the state of another version's keeper");
	*s->plan = good;
	s->plan->slot_size += 64;
	assert_refused(thaw_state_open(dup(s->fd), &err, &found), &err,
		       "is the state of another version's keeper");
	*s->plan = good;
	s->plan->slots = SLOTS + 1; /* more than there is room for */
	assert_damaged(thaw_state_open(dup(s->fd), &err, &found), &err,
		       "is no whole keeper's state");
	s->plan->slots = 0;
	assert_damaged(thaw_state_open(dup(s->fd), &err, &found), &err,
		       "is no whole keeper's state");
	*s->plan = good;
	assert_int_equal(fstat(s->fd, &st), 0);
	assert_int_equal(ftruncate(s->fd, st.st_size - 1), 0);
	assert_damaged(thaw_state_open(dup(s->fd), &err, &found), &err,
		       "is no whole keeper's state");
	assert_int_equal(ftruncate(s->fd, st.st_size), 0);
	assert_success(thaw_state_open(dup(s->fd), &err, &found), &err);
	thaw_state_free(found);
	assert_int_equal(pipe(fds), 0);
	close(fds[1]);
	assert_damaged(thaw_state_open(fds[0], &err, &found), &err, "is no keeper's state");
}

/* -- processes -- */

static void processes(void **state)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	assert_int_equal(thaw_process_began(pid), thaw_process_began(pid));
	assert_true(thaw_process_began(pid) >= thaw_process_began(getpid()));
	assert_int_not_equal(thaw_process_began(pid), 0);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	assert_int_equal(thaw_process_state(pid), 'T');
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(thaw_process_began(pid), 0);
	assert_int_equal(thaw_process_state(pid), 'X');
	assert_int_equal(thaw_process_began(-1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(empty_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(a_request_is_there_until_it_is_cleared, setup,
						teardown),
		cmocka_unit_test_setup_teardown(lengths, setup, teardown),
		cmocka_unit_test_setup_teardown(what_wants_no_answer_is_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(the_second_death_is_one_too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(a_killed_worker_counts_for_less, setup, teardown),
		cmocka_unit_test_setup_teardown(blame_is_for_the_request_and_not_for_the_slot, setup,
						teardown),
		cmocka_unit_test_setup_teardown(all_can_be_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(sums, setup, teardown),
		cmocka_unit_test_setup_teardown(deaths, setup, teardown),
		cmocka_unit_test_setup_teardown(a_child_shares_it_and_leaves_the_plan, setup,
						teardown),
		cmocka_unit_test_setup_teardown(another_program_finds_it, setup, teardown),
		cmocka_unit_test(a_file_is_made_once),
		cmocka_unit_test(number_of_slots),
		cmocka_unit_test_setup_teardown(files_that_are_none, setup, teardown),
		cmocka_unit_test(processes),
	};

	return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
