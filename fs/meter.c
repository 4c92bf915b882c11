/* SPDX-License-Identifier: Apache-2.0 */
/* How far programs in a view have come: see compile-internal.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compile-internal.h"
#include "util/cleanup.h"

int meter_init(struct meter *meter, const struct thaw_compile_options *options, char begins,
	       struct thaw_error *err)
{
	*meter = (struct meter){
		.options = options,
		.begins = begins,
		.lines = memfd_create("lines", MFD_CLOEXEC),
	};
	return meter->lines < 0 ? thaw_io(err, -errno, "no results can be kept") : 0;
}

void meter_deinit(struct meter *meter)
{
	meter->lines = safe_close(meter->lines);
}

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

struct thaw_train_watch meter_watch(struct meter *meter)
{
	return (struct thaw_train_watch){
		.interrupted = meter->options->interrupted,
		.tick = meter->options->progress ? tick : NULL,
		.userdata = meter,
	};
}
