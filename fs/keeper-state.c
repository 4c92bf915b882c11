/* SPDX-License-Identifier: Apache-2.0 */
/* Slots of requests in shared memory, and who is to blame for a death. */
#include "keeper-state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

static const char magic[8] = { 't', 'h', 'a', 'w', 'k', 'e', 'e', 'p' };

/* The plan's pages come first in the file, so that they can be left unmapped. */
#define PLAN_SIZE ((sizeof(struct thaw_plan) + 4095) & ~(size_t)4095)

static size_t common_size(unsigned slots)
{
	return sizeof(struct thaw_common) + slots * sizeof(struct thaw_slot);
}

/*
 * Through an opening of its own, which mappings keep open for as long as some
 * process has them: a lock on the state's descriptor then is the keeper's alone,
 * and ends with it.
 */
static int map(struct thaw_state *state, unsigned slots, struct thaw_error *err)
{
	_cleanup_(closep) int again = -1;
	void *plan, *common;
	char path[32];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", state->fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	fd = again >= 0 ? again : state->fd; /* no /proc: then there is no finding it again */
	state->slots = slots;
	state->common_size = common_size(slots);
	plan = mmap(NULL, PLAN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (plan != MAP_FAILED)
		state->plan = plan;
	common = mmap(NULL, state->common_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		      fd, (off_t)PLAN_SIZE);
	if (common != MAP_FAILED)
		state->common = common;
	return plan == MAP_FAILED || common == MAP_FAILED ?
		       thaw_io(err, -errno, "no memory can be shared with a worker") :
		       0;
}

static int open_file(const char *path)
{
	if (path)
		return open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return memfd_create("thaw keeper", MFD_CLOEXEC);
}

int thaw_state_new(const char *path, unsigned slots, struct thaw_error *err,
		   struct thaw_state **ret_state)
{
	struct thaw_state *state = calloc(1, sizeof(*state));
	int r = 0;

	if (!state)
		return thaw_oom(err);
	slots = slots > THAW_SLOTS_MAX ? THAW_SLOTS_MAX : slots;
	state->fd = open_file(path);
	if (state->fd < 0)
		r = thaw_io(err, -errno, "a keeper's state cannot be made");
	/* Sparse: a slot takes up what its requests do. */
	else if (ftruncate(state->fd, (off_t)(PLAN_SIZE + common_size(slots))) < 0)
		r = thaw_io(err, -errno, "a keeper's state cannot be made");
	if (r == 0)
		r = map(state, slots, err);
	if (r < 0) {
		thaw_state_free(state);
		return r;
	}
	*state->plan = (struct thaw_plan){
		.version = THAW_STATE_VERSION,
		.slots = slots,
		.slot_size = sizeof(struct thaw_slot),
		.common_size = sizeof(struct thaw_common),
		.fuse_fd = -1,
		.image_fd = -1,
	};
	memcpy(state->plan->magic, magic, sizeof(magic));
	*ret_state = state;
	return 0;
}

static int check(const struct thaw_plan *plan, uint64_t size, struct thaw_error *err)
{
	if (memcmp(plan->magic, magic, sizeof(magic)) != 0)
		return thaw_damaged(err, "is no keeper's state");
	if (plan->version != THAW_STATE_VERSION || plan->slot_size != sizeof(struct thaw_slot) ||
	    plan->common_size != sizeof(struct thaw_common))
		return thaw_refused(err, "is the state of another version's keeper");
	if (plan->slots == 0 || plan->slots > THAW_SLOTS_MAX ||
	    size < PLAN_SIZE + common_size(plan->slots))
		return thaw_damaged(err, "is no whole keeper's state");
	return 0;
}

/* Text ends where its field does, whatever the file says. */
static void end_texts(struct thaw_plan *plan)
{
	plan->name[sizeof(plan->name) - 1] = '\0';
	plan->directory[sizeof(plan->directory) - 1] = '\0';
	plan->device[sizeof(plan->device) - 1] = '\0';
	plan->warm[sizeof(plan->warm) - 1] = '\0';
	plan->fuse_options[sizeof(plan->fuse_options) - 1] = '\0';
	plan->program[sizeof(plan->program) - 1] = '\0';
}

int thaw_state_open(int fd, struct thaw_error *err, struct thaw_state **ret_state)
{
	struct thaw_state *state = calloc(1, sizeof(*state));
	struct thaw_plan head;
	struct stat st;
	int r = 0;

	if (!state) {
		(void)safe_close(fd);
		return thaw_oom(err);
	}
	state->fd = fd;
	if (fstat(fd, &st) < 0)
		r = thaw_io(err, -errno, "a keeper's state cannot be read");
	else if (!S_ISREG(st.st_mode) ||
		 pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
		r = thaw_damaged(err, "is no keeper's state");
	if (r == 0)
		r = check(&head, (uint64_t)st.st_size, err);
	if (r == 0)
		r = map(state, head.slots, err);
	if (r < 0) {
		thaw_state_free(state);
		return r;
	}
	end_texts(state->plan);
	*ret_state = state;
	return 0;
}

void thaw_state_leave_plan(struct thaw_state *state)
{
	if (state->plan)
		(void)munmap(state->plan, PLAN_SIZE); /* a whole mapping: cannot fail */
	state->plan = NULL;
	state->fd = safe_close(state->fd);
}

struct thaw_state *thaw_state_free(struct thaw_state *state)
{
	if (!state)
		return NULL;
	thaw_state_leave_plan(state);
	if (state->common)
		(void)munmap(state->common, state->common_size); /* likewise */
	free(state);
	return NULL;
}

/* -- slots -- */

bool thaw_slot_request(const struct thaw_slot *slot, struct fuse_in_header *ret_header)
{
	struct fuse_in_header header;

	memcpy(&header, slot->request, sizeof(header));
	if (header.len < sizeof(header) || header.len > THAW_REQUEST_MAX || header.unique == 0)
		return false;
	*ret_header = header;
	return true;
}

bool thaw_wants_answer(const struct fuse_in_header *header)
{
	return header->opcode != FUSE_FORGET && header->opcode != FUSE_BATCH_FORGET &&
	       header->opcode != FUSE_INTERRUPT;
}

void thaw_slots_populate(const struct thaw_state *state)
{
	for (unsigned i = 0; i < state->slots; i++) {
		/* Written as they are: they may hold a request. */
		volatile uint8_t *page = state->common->slots[i].request;

		page[0] = page[0];
		page[4096] = page[4096];
	}
}

/* Is that too much for one request? */
static bool add_guilt(struct thaw_slot *slot, uint64_t unique, unsigned guilt)
{
	if (atomic_load(&slot->blamed) != unique) {
		atomic_store(&slot->blamed, unique);
		atomic_store(&slot->guilt, 0);
	}
	return atomic_fetch_add(&slot->guilt, guilt) + guilt >= THAW_GUILT_MAX;
}

unsigned thaw_slots_blame(struct thaw_state *state, unsigned guilt, thaw_refuse_fn *refuse,
			  void *userdata)
{
	uint32_t alone = atomic_exchange(&state->common->replaying, 0);
	unsigned left = 0;

	for (unsigned i = 0; i < state->slots; i++) {
		struct thaw_slot *slot = &state->common->slots[i];
		bool suspect = alone == 0 || alone == i + 1;
		struct fuse_in_header header;

		atomic_store(&slot->storage, 0);
		if (!thaw_slot_request(slot, &header) || !thaw_wants_answer(&header)) {
			thaw_slot_clear(slot);
		} else if (suspect && add_guilt(slot, header.unique, guilt)) {
			refuse(userdata, &header);
			thaw_slot_clear(slot);
		} else {
			left++;
		}
	}
	return left;
}

void thaw_slots_refuse(struct thaw_state *state, thaw_refuse_fn *refuse, void *userdata)
{
	atomic_store(&state->common->replaying, 0);
	(void)thaw_slots_blame(state, THAW_GUILT_MAX, refuse, userdata); /* none is left */
}

uint64_t thaw_slots_beats(const struct thaw_state *state)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < state->slots; i++)
		sum += atomic_load_explicit(&state->common->slots[i].beats, memory_order_relaxed);
	return sum;
}

uint64_t thaw_slots_answered(const struct thaw_state *state)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < state->slots; i++)
		sum += atomic_load_explicit(&state->common->slots[i].answered, memory_order_relaxed);
	return sum;
}

bool thaw_slots_in_storage(const struct thaw_state *state)
{
	for (unsigned i = 0; i < state->slots; i++)
		if (atomic_load_explicit(&state->common->slots[i].storage, memory_order_relaxed))
			return true;
	return false;
}

/* -- deaths -- */

void thaw_state_set_death(struct thaw_state *state, const char *text)
{
	struct thaw_common *common = state->common;
	/* The one that nobody reads. */
	uint32_t turn = (atomic_load(&common->death_turn) + 1) % 2;

	(void)snprintf(common->death[turn], THAW_DEATH_TEXT, "%s", text); /* may be cut */
	atomic_store(&common->death_turn, turn);
}

void thaw_common_death(const struct thaw_common *common, char ret_text[THAW_DEATH_TEXT])
{
	uint32_t turn = atomic_load(&common->death_turn) % 2;

	memcpy(ret_text, common->death[turn], THAW_DEATH_TEXT);
	ret_text[THAW_DEATH_TEXT - 1] = '\0';
}

/* -- processes -- */

/* What follows the name in /proc/PID/stat, which may hold anything; "" when there is none. */
static void read_process(pid_t pid, char text[512])
{
	_cleanup_(closep) int fd = -1;
	char path[32], line[1024], *end;
	ssize_t n;

	text[0] = '\0';
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	if (n <= 0)
		return;
	line[n] = '\0';
	end = strrchr(line, ')');
	if (end)
		(void)snprintf(text, 512, "%.500s", end + 1);
}

uint64_t thaw_process_began(pid_t pid)
{
	char text[512], *save = NULL, *field;
	unsigned number = 2; /* of the field before */

	read_process(pid, text);
	for (field = strtok_r(text, " ", &save); field; field = strtok_r(NULL, " ", &save))
		if (++number == 22)
			return strtoull(field, NULL, 10);
	return 0;
}

char thaw_process_state(pid_t pid)
{
	char text[512];

	read_process(pid, text);
	return text[0] == ' ' && text[1] ? text[1] : 'X';
}
