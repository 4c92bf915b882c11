/* SPDX-License-Identifier: Apache-2.0 */
/* From an image's name to a worker that serves it. */
#include "serving.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "lookahead.h"
#include "session.h"
#include "util/cleanup.h"
#include "warmer.h"

/* For the signal handler: there is one worker in a process. */
static struct thaw_warmer *handler_warmer;

int thaw_serving_init(struct thaw_serving *serving, const char *image, const char *warm,
		      struct thaw_error *err)
{
	struct thaw_source *source;
	int r;

	*serving = (struct thaw_serving){ .name = image };
	r = thaw_source_open(image, err, &source);
	if (r == 0)
		r = thaw_image_open(source, err, &serving->image);
	if (r == 0)
		r = thaw_warm_pages_init(&serving->warm, serving->image, image, warm, err);
	if (r < 0)
		return r;
	serving->counters = thaw_counters_new();
	return serving->counters ? 0 : thaw_oom(err);
}

void thaw_serving_deinit(struct thaw_serving *serving)
{
	thaw_warm_pages_deinit(&serving->warm);
	thaw_image_free(serving->image);
	thaw_counters_free(serving->counters);
	*serving = (struct thaw_serving){ 0 };
}

/* A warmer that was killed must not look as if it were still at work. */
static void reap_warmer(int signal_number)
{
	struct thaw_warmer *warmer = handler_warmer;
	uint32_t running = THAW_WARM_RUNNING;
	int saved = errno;

	if (warmer->pid > 0 && waitpid(warmer->pid, NULL, WNOHANG) == warmer->pid) {
		warmer->pid = 0;
		atomic_compare_exchange_strong(&warmer->counters->warm_state, &running,
					       THAW_WARM_STOPPED);
	}
	errno = saved;
}

static void start_warmer(const struct thaw_serving *serving, struct thaw_warmer *warmer)
{
	struct sigaction action = { .sa_handler = reap_warmer, .sa_flags = SA_RESTART };
	sigset_t child;
	int r;

	/* Held back until its number is known: it may end at once. */
	(void)sigemptyset(&child); /* valid arguments: none of these can fail */
	(void)sigaddset(&child, SIGCHLD);
	(void)pthread_sigmask(SIG_BLOCK, &child, NULL);
	handler_warmer = warmer;
	(void)sigaction(SIGCHLD, &action, NULL);
	r = thaw_warmer_start(warmer);
	(void)pthread_sigmask(SIG_UNBLOCK, &child, NULL);
	if (r < 0)
		thaw_log(LOG_WARNING, "%s: not warmed: %s", serving->name, strerror(-r));
}

static void stop_warmer(struct thaw_warmer *warmer)
{
	(void)signal(SIGCHLD, SIG_DFL); /* a valid signal: cannot fail */
	thaw_warmer_stop(warmer);
}

/* By the thread that decodes, before and after. */
static void note_decoding(void *userdata, const struct thaw_frame *frame, bool done)
{
	static _Thread_local uint64_t began;
	struct thaw_timeline_event event = {
		.kind = THAW_TIMELINE_FRAME,
		.began = began,
		.bytes = frame->size,
	};

	if (done)
		thaw_timeline_add(userdata, &event);
	else
		began = thaw_timeline_now();
}

int thaw_serving_run(struct thaw_serving *serving, int fd, int root_fd, const char *root_path)
{
	_cleanup_(closep) _unused_ int own_fd = fd;
	struct thaw_warmer warmer = {
		.image = serving->image,
		.warm = &serving->warm,
		.counters = serving->counters,
		.timeline = serving->timeline,
		.fuse_fd = fd,
		.root_fd = root_fd,
		.root_path = root_path,
		.life = -1,
	};
	struct thaw_lookahead lookahead = {
		.image = serving->image,
		.timeline = serving->timeline,
		.root_fd = root_fd,
		.root_path = root_path,
		.socket = -1,
	};
	struct pollfd connection = { .fd = fd }; /* POLLERR: the mount is gone */
	struct thaw_worker worker;
	int r;

	r = thaw_worker_init(&worker, serving->image, serving->name, serving->cache_bytes);
	if (r < 0) {
		(void)safe_close(root_fd);
		return r;
	}
	worker.counters = serving->counters;
	worker.trace = serving->trace;
	worker.timeline = serving->timeline;
	if (serving->timeline)
		thaw_reader_observe(worker.reader, note_decoding, serving->timeline);
	worker.no_readahead = serving->no_readahead;
	worker.warm = serving->warm.count ? &serving->warm : NULL;
	if (serving->warm.count)
		start_warmer(serving, &warmer);
	else if (!serving->trace && thaw_lookahead_start(&lookahead) == 0)
		worker.lookahead = &lookahead; /* a trace is to name what the workload lists */
	(void)safe_close(root_fd); /* the lister's */
	r = thaw_session_run(&worker, fd, serving->threads);
	thaw_lookahead_stop(&lookahead);
	/* While we hold the descriptor: nobody can be left waiting for an answer. */
	if (serving->warm.count)
		stop_warmer(&warmer);
	if (r == 0 && poll(&connection, 1, 0) == 0)
		r = THAW_STILL_MOUNTED;
	thaw_worker_deinit(&worker);
	return r;
}

bool thaw_serving_wait_warm(const struct thaw_serving *serving, int worker)
{
	struct pollfd gone = { .fd = worker }; /* POLLHUP always counts */

	while (atomic_load(&serving->counters->warm_state) == THAW_WARM_RUNNING)
		if (poll(&gone, 1, 1) > 0)
			return false;
	return true;
}

void thaw_detach_from_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setsid(); /* fails only for a group's leader, which a fresh child is not */
	(void)!chdir("/");
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		(void)safe_close(null);
}
