/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages are warm. */
#include "warm-pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "log.h"
#include "util/write-all.h"

static int compare_runs(const void *a, const void *b)
{
	const struct thaw_warm_run *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return (x->first > y->first) - (x->first < y->first);
}

static int collect_runs(struct thaw_warm_pages *warm)
{
	uint32_t ops = 0, base = 0;

	for (unsigned i = 0; i < warm->count; i++)
		ops += warm->infos[i].ops;
	warm->runs = calloc((size_t)ops + 1, sizeof(*warm->runs));
	if (!warm->runs)
		return -ENOMEM;
	for (unsigned i = 0; i < warm->count; i++) {
		for (uint32_t j = 0; j < warm->infos[i].ops; j++) {
			struct thaw_warm_op op;

			thaw_warm_op(warm->sets[i], j, &op);
			if (op.kind != THAW_WARM_PAGES)
				continue;
			warm->runs[warm->run_count++] = (struct thaw_warm_run){
				.ino = op.ino,
				.first = op.first,
				.count = op.count,
				.op = base + j,
			};
		}
		base += warm->infos[i].ops;
		warm->pages += warm->infos[i].pages;
	}
	qsort(warm->runs, warm->run_count, sizeof(*warm->runs), compare_runs);
	return 0;
}

int thaw_warm_pages_init(struct thaw_warm_pages *warm, const struct thaw_image *image,
			 const char *image_name, const char *choice, struct thaw_error *err)
{
	bool all = !choice || strcmp(choice, "all") == 0, found = false;

	*warm = (struct thaw_warm_pages){ 0 };
	if (choice && strcmp(choice, "none") == 0)
		return 0;
	for (unsigned i = 0; i < thaw_image_part_count(image); i++) {
		struct thaw_part_info part;
		struct thaw_error cause;

		thaw_image_part(image, i, &part);
		if (part.type != THAW_PART_WARM || (!all && strcmp(part.name, choice) != 0))
			continue;
		found = true;
		if (thaw_warm_open(image, i, &cause, &warm->sets[warm->count]) < 0) {
			thaw_log(LOG_WARNING, "%s: %s", image_name, cause.text);
			continue;
		}
		thaw_warm_info(warm->sets[warm->count], &warm->infos[warm->count]);
		warm->count++;
	}
	if (!all && !found) {
		(void)thaw_io(err, 0, "has no warm set \"%.40s\"", choice);
		if (err)
			err->exit_code = THAW_EXIT_USAGE;
		return -ENOENT;
	}
	if (collect_runs(warm) < 0) {
		thaw_warm_pages_deinit(warm);
		return thaw_oom(err);
	}
	return 0;
}

int thaw_warm_pages_add(struct thaw_warm_pages *warm, struct thaw_warm *set)
{
	struct thaw_warm_run *runs = warm->runs;

	if (warm->count == THAW_PARTS_MAX) {
		thaw_warm_free(set);
		return -ENOMEM;
	}
	warm->sets[warm->count] = set;
	thaw_warm_info(set, &warm->infos[warm->count++]);
	warm->run_count = 0;
	warm->pages = 0;
	if (collect_runs(warm) == 0) {
		free(runs);
		return 0;
	}
	warm->count--;
	warm->runs = runs;
	thaw_warm_free(set);
	return -ENOMEM;
}

/* What is written: this, the sets, the runs. */
struct shared {
	uint64_t pages;
	uint32_t count, run_count;
};

int thaw_warm_pages_share(const struct thaw_warm_pages *warm, int fd, struct thaw_error *err)
{
	const struct shared shared = { warm->pages, warm->count, warm->run_count };
	int r = write_padded(fd, &shared, sizeof(shared));

	if (r < 0)
		return thaw_io(err, r, "the warm sets cannot be shared");
	for (unsigned i = 0; r == 0 && i < warm->count; i++)
		r = thaw_warm_share(warm->sets[i], fd, err);
	if (r < 0)
		return r;
	r = write_padded(fd, warm->runs, warm->run_count * sizeof(*warm->runs));
	return r < 0 ? thaw_io(err, r, "the warm sets cannot be shared") : 0;
}

int thaw_warm_pages_open_shared(struct thaw_warm_pages *warm, const struct thaw_image *image,
				const void *data, size_t size, struct thaw_error *err)
{
	struct thaw_warm_pages pages = { .borrowed = true };
	const uint8_t *at = data, *end = at + size;
	struct shared shared;
	size_t used;
	int r = 0;

	if (size < padded(sizeof(shared)))
		return thaw_damaged(err, "the shared warm sets are none");
	memcpy(&shared, at, sizeof(shared));
	at += padded(sizeof(shared));
	for (; r == 0 && pages.count < shared.count && pages.count < THAW_PARTS_MAX; at += used) {
		used = 0;
		r = thaw_warm_open_shared(image, at, (size_t)(end - at), err,
					  &pages.sets[pages.count], &used);
		if (r == 0) {
			thaw_warm_info(pages.sets[pages.count], &pages.infos[pages.count]);
			pages.count++;
		}
	}
	if (r == 0 && (size_t)(end - at) < shared.run_count * sizeof(*pages.runs))
		r = thaw_damaged(err, "the shared warm sets are none");
	if (r < 0) {
		thaw_warm_pages_deinit(&pages);
		return r;
	}
	pages.pages = shared.pages;
	pages.runs = (struct thaw_warm_run *)at; /* not written to */
	pages.run_count = shared.run_count;
	*warm = pages;
	return 0;
}

void thaw_warm_pages_deinit(struct thaw_warm_pages *warm)
{
	for (unsigned i = 0; i < warm->count; i++)
		thaw_warm_free(warm->sets[i]);
	if (!warm->borrowed)
		free(warm->runs);
	*warm = (struct thaw_warm_pages){ 0 };
}

/* The first run of ino, or of whatever follows it. */
static uint32_t first_run(const struct thaw_warm_pages *warm, uint32_t ino)
{
	uint32_t low = 0, high = warm->run_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (warm->runs[middle].ino < ino)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void thaw_warm_pages_note(const struct thaw_warm_pages *warm, struct thaw_counters *counters,
			  uint32_t ino, uint64_t offset, uint64_t len)
{
	uint64_t begin = offset / THAW_PAGE_SIZE;
	uint64_t end = (offset + len + THAW_PAGE_SIZE - 1) / THAW_PAGE_SIZE;
	uint32_t done = atomic_load_explicit(&counters->warm_done, memory_order_relaxed);

	for (uint32_t i = first_run(warm, ino); i < warm->run_count && warm->runs[i].ino == ino; i++) {
		const struct thaw_warm_run *run = &warm->runs[i];
		uint64_t low = run->first > begin ? run->first : begin;
		uint64_t high = (uint64_t)run->first + run->count < end ?
					(uint64_t)run->first + run->count :
					end;

		if (run->first >= end)
			return; /* they are in order */
		if (low < high)
			count_add(run->op < done ? &counters->warm_pages_read :
						   &counters->warm_overtaken,
				  high - low);
	}
}
