/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the kernel's accounts of memory. */
#include "memory-pressure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define STALLED_PERCENT 10.0

/* A number in a file of its own; 0 for "max", and when there is none. */
static uint64_t read_number(const char *path)
{
	_cleanup_(closefp) FILE *file = fopen(path, "re");
	unsigned long long number;

	return file && fscanf(file, "%llu", &number) == 1 ? number : 0;
}

/*
 * The lowest limit from our cgroup up to the root, in the unified hierarchy or
 * in that of the old memory controller, as far as it is mounted where it usually is.
 */
static uint64_t cgroup_limit(const char *mount, const char *file, char *group)
{
	uint64_t lowest = 0;

	for (;;) {
		char path[1024];
		uint64_t limit;
		char *slash;

		if (snprintf(path, sizeof(path), "%s%s/%s", mount, group, file) >= (int)sizeof(path))
			return lowest;
		limit = read_number(path);
		/* The old controller says "no limit" with a number near 2^63. */
		if (limit && limit < 1ull << 60 && (!lowest || limit < lowest))
			lowest = limit;
		slash = strrchr(group, '/');
		if (!slash || group[0] == '\0')
			return lowest;
		*slash = '\0';
	}
}

void thaw_memory_open(struct thaw_memory *memory)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/self/cgroup", "re");
	char line[1024];

	*memory = (struct thaw_memory){ 0 };
	while (file && fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':'), *group;
		uint64_t limit;

		group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (controllers[1] == '\0')
			limit = cgroup_limit("/sys/fs/cgroup", "memory.max", group);
		else if (strcmp(controllers + 1, "memory") == 0)
			limit = cgroup_limit("/sys/fs/cgroup/memory", "memory.limit_in_bytes", group);
		else
			continue;
		if (limit && (!memory->limit || limit < memory->limit))
			memory->limit = limit;
	}
}

static bool machine_short(void)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long total = 0, available = 0, value;
	char line[256];

	while (file && fgets(line, sizeof(line), file) && (!total || !available)) {
		if (sscanf(line, "MemTotal: %llu", &value) == 1)
			total = value;
		else if (sscanf(line, "MemAvailable: %llu", &value) == 1)
			available = value;
	}
	return total && available && available < total / 8;
}

static bool tasks_stalled(void)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/pressure/memory", "re");
	double stalled;

	return file && fscanf(file, "some avg10=%lf", &stalled) == 1 && stalled > STALLED_PERCENT;
}

bool thaw_memory_tight(struct thaw_memory *memory, uint64_t bytes)
{
	memory->pushed += bytes;
	return memory->pushed > THAW_MEMORY_CEILING ||
	       (memory->limit && memory->pushed > memory->limit / 4) || machine_short() ||
	       tasks_stalled();
}
