/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How many CPUs we may use, which in a container are fewer than there are. */
#include <sched.h>

static inline unsigned cpu_count(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 1;
	return CPU_COUNT(&set) > 0 ? (unsigned)CPU_COUNT(&set) : 1;
}
