/* SPDX-License-Identifier: Apache-2.0 */
/* How far programs in a view have come: see compile-internal.h. */
#include <unistd.h>

#include "compile-internal.h"

#define TURNS 64

/* By pread: the file's offset is that of those who write. */
static void tick(void *userdata)
{
	struct meter *meter = userdata;
	char buf[16384];
	ssize_t n;

	/* Whoever writes may write anything, and faster than this reads. */
	for (unsigned turn = 0; turn < TURNS; turn++) {
		n = pread(meter->lines, buf, sizeof(buf), meter->seen);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++) {
			meter->done += !meter->inside && buf[i] == meter->begins;
			meter->inside = buf[i] != '\n';
		}
		meter->seen += n;
	}
	if (meter->done > meter->total)
		meter->done = meter->total;
	meter->options->progress(meter->options->progress_data, meter->done,
				 meter->total);
}

struct thaw_train_watch subject_watch(struct subject *subject, uint64_t total)
{
	struct meter *meter = &subject->meter;

	meter->total = total;
	return (struct thaw_train_watch){
		.interrupted = meter->options->interrupted,
		.tick = meter->options->progress ? tick : NULL,
		.userdata = meter,
	};
}
