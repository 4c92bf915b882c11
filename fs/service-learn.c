/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is learned of images without a warm set: handed to the keeper that mounts one,
 * taken over from the keeper that recorded it. The service sees paths and numbers of
 * pages, never a byte of an image.
 */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "learning.h"
#include "thaw/learned.h"
#include "util/cleanup.h"

/* Seconds between looks whether a keeper has learned: from, and no more after. */
#define LOOK_FIRST 15u
#define LOOK_LAST  480u
/* How long a keeper may take to write what it has. */
#define KEEPER_MS  2000
#define STEP_MS	   2

static void log_failure(struct service *service, const struct thaw_error *err)
{
	service_log(service, LOG_WARNING, "not-learned", "why", err->text, NULL);
}

bool learn_wanted(const struct service *service, const char *warm)
{
	return service->root && !service->options->no_learn &&
	       !(warm && strcmp(warm, "none") == 0);
}

int learn_recall(struct service *service, const uint8_t index_digest[THAW_DIGEST_SIZE])
{
	_cleanup_(closep) int fd = -1;
	struct thaw_learned learned = { 0 };
	struct thaw_error err = { 0 };
	int r = thaw_catalogue_get_trace(service->catalogue, index_digest,
					 THAW_LEARNED_WORKLOAD, &err, &learned);

	if (r == 0) {
		fd = memfd_create("learned", MFD_CLOEXEC);
		r = fd < 0 ? thaw_io(&err, -errno, "memory")
			   : thaw_learned_save(fd, index_digest, &learned, &err);
		thaw_learned_deinit(&learned);
		if (r == 0)
			r = thaw_catalogue_touch_trace(service->catalogue, index_digest,
						       THAW_LEARNED_WORKLOAD,
						       (int64_t)time(NULL), &err);
	}
	if (r < 0)
		log_failure(service, &err);
	return r == 0 ? steal_fd(&fd) : -1;
}

void learn_begun(struct image *image, struct service *service)
{
	image->learning = true;
	image->learn_pause = LOOK_FIRST;
	image->learn_at = thaw_boottime() + image->learn_pause;
	service_wake_at(service, image->learn_at);
}

void learn_store(struct image *image, struct service *service, int fd)
{
	uint8_t digest[THAW_DIGEST_SIZE];
	struct thaw_learned learned = { 0 };
	struct thaw_error err = { 0 };
	int r = thaw_learned_load(fd, &err, digest, &learned);

	image->learning = false;
	if (r == 0)
		r = thaw_catalogue_put_trace(service->catalogue, digest,
					     THAW_LEARNED_WORKLOAD, learned.entries,
					     learned.count, &err);
	thaw_learned_deinit(&learned);
	if (r < 0)
		log_failure(service, &err);
	else
		service_log(service, LOG_INFO, "learned", "image", image->name,
			    "identity", image->key, NULL);
}

/* Of a regular file only: a fifo there would keep us. */
static int open_file(const char *state_directory)
{
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX];
	struct stat st;

	if (snprintf(path, sizeof(path), "%s/%s", state_directory, THAW_LEARNED_NOW) >=
	    (int)sizeof(path))
		return -1;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? steal_fd(&fd) : -1;
}

void learn_look(struct image *image, struct service *service, uint64_t now)
{
	_cleanup_(closep) int fd = -1;

	if (!image->learning || image->learn_at == 0)
		return;
	if (image->learn_at > now) {
		service_wake_at(service, image->learn_at);
		return;
	}
	fd = open_file(image->state_directory);
	if (fd >= 0) {
		learn_store(image, service, fd);
		return;
	}
	/* After the last look, what there is is taken at the end of the mount. */
	image->learn_pause *= 2;
	image->learn_at = image->learn_pause > LOOK_LAST ? 0 : now + image->learn_pause;
	if (image->learn_at)
		service_wake_at(service, image->learn_at);
}

/*
 * Not by its end: others' mount namespaces may keep copies of the mount, and its keeper
 * serves those.
 */
static bool still_learning(const struct image *image)
{
	struct pollfd keeper = { .fd = image->keeper_end.fd, .events = POLLIN };
	struct thaw_kept kept;

	return poll(&keeper, 1, STEP_MS) == 0 &&
	       thaw_keeper_look(image->state_directory, NULL, &kept, NULL) == 0 &&
	       kept.warm_source == THAW_SOURCE_LEARNING;
}

int learn_last(const struct image *image)
{
	unsigned waited = 0;

	if (!image->learning)
		return -1;
	if (image->keeper_end.fd >= 0 &&
	    syscall(SYS_pidfd_send_signal, image->keeper_end.fd, SIGUSR1, NULL, 0) == 0)
		while (waited < KEEPER_MS && still_learning(image))
			waited += STEP_MS;
	return open_file(image->state_directory);
}
