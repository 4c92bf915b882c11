/* SPDX-License-Identifier: Apache-2.0 */
/* Keepers as the service sees them: launched by jobs, followed, replaced when they die. */
#include "service-keepers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "learning.h"
#include "service-internal.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define ANSWER_TIMEOUT_MS 2000
/* How long a keeper may take to say who it is; another may be adopting just now. */
#define BEGIN_TIMEOUT_MS 5000
#define CHECK_PAUSE	 5u /* seconds until somebody unknown is looked for again */

bool service_nobody_answers(const char *directory)
{
	int status = 0, fd;
	pid_t pid = fork();
	struct pollfd ended;

	if (pid < 0)
		return false;
	if (pid == 0) {
		struct statfs fs;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Never answered from what the kernel remembers, as look-ups are. */
		_exit(statfs(directory, &fs) < 0 &&
		      (errno == ENOTCONN || errno == ECONNABORTED ||
		       errno == ECONNREFUSED));
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	ended = (struct pollfd){ .fd = fd, .events = POLLIN };
	if (fd >= 0 && poll(&ended, 1, ANSWER_TIMEOUT_MS) == 0)
		(void)kill(
			pid,
			SIGKILL); /* hangs: may be alive; the loop reaps it, or nobody can */
	else
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	(void)safe_close(fd);
	return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/* One of its own each time: systemd forgets a scope only some time after its end. */
void service_keeper_scope(const char *state_directory, char scope[96])
{
	const char *key = strrchr(state_directory, '/') + 1;

	(void)snprintf(scope, 96, "thaw-%.16s-%" PRIx64 "-%d", key, (uint64_t)time(NULL),
		       (int)getpid());
}

void service_keeper_clear(const char *state_directory)
{
	static const char *const names[] = { "state", THAW_LEARNED_BEFORE,
					     THAW_LEARNED_NOW, THAW_LEARNED_NOW ".new" };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (snprintf(path, sizeof(path), "%s/%s", state_directory, names[i]) <
		    (int)sizeof(path))
			(void)unlink(path); /* most are not there */
	(void)rmdir(state_directory);
}

/* For the keeper, where it looks for it. Without, it learns anew. */
static void leave_learned(const struct service_launch *launch)
{
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX], buf[65536];
	off_t at = 0;
	ssize_t n;

	if (launch->learned_fd < 0 ||
	    snprintf(path, sizeof(path), "%s/%s", launch->state_directory,
		     THAW_LEARNED_BEFORE) >= (int)sizeof(path))
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	while (fd >= 0 && (n = pread(launch->learned_fd, buf, sizeof(buf), at)) > 0) {
		if (write_all(fd, buf, (size_t)n) < 0) {
			(void)unlink(path);
			return;
		}
		at += n;
	}
}

int service_keeper_launch(const struct service_launch *launch, struct thaw_error *err,
			  int *ret_pidfd, int *ret_hold)
{
	char scope[96];
	struct thaw_keeper_launch keeper = {
		.image_fd = launch->image_fd,
		.identity = launch->identity,
		.name = launch->name,
		.directory = launch->directory,
		.warm = launch->warm,
		.uid = launch->uid,
		.gid = launch->gid,
		.state_directory = launch->state_directory,
		.learn = launch->learn,
	};
	int r;

	/* Of one that is gone: its mount was taken away before this. */
	service_keeper_clear(launch->state_directory);
	if (mkdir(launch->state_directory, 0700) < 0 && errno != EEXIST)
		return thaw_io(err, -errno, "\"%.300s\"", launch->state_directory);
	if (launch->learn)
		leave_learned(launch);
	if (launch->scope) {
		service_keeper_scope(launch->state_directory, scope);
		keeper.scope = scope;
	}
	r = thaw_keeper_launch(&keeper, err, ret_pidfd, ret_hold);
	if (r < 0)
		service_keeper_clear(launch->state_directory);
	return r;
}

/* -- in the service -- */

static pid_t pid_of(int pidfd)
{
	_cleanup_(closefp) FILE *file = NULL;
	char path[64], line[256];
	int pid = 0;

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Pid: %d", &pid) == 1)
			break;
	return pid > 0 ? pid : 0;
}

static void keeper_ended(struct source *source, uint32_t events)
{
	struct image *image =
		(struct image *)((char *)source - offsetof(struct image, keeper_end));

	source_remove(source);
	closep(&source->fd);
	image->keeper = 0;
	if (!image->gone && image->state == IMAGE_READY)
		image_check(image, source->service);
}

void image_follow_keeper(struct image *image, struct service *service, int pidfd)
{
	source_remove(&image->keeper_end);
	closep(&image->keeper_end.fd);
	image->keeper = 0;
	if (pidfd < 0)
		return;
	image->keeper = pid_of(pidfd);
	image->unknown = false;
	if (source_add(service, &image->keeper_end, pidfd, EPOLLIN, keeper_ended) < 0)
		(void)safe_close(
			pidfd); /* its end goes unnoticed until the mount table is looked at */
}

int image_find_keeper(const struct image *image, const struct service *service,
		      struct thaw_error *err, int *ret_pidfd)
{
	char scope[96];
	int r;

	for (int waited = 0;; waited += 5) {
		r = thaw_keeper_look(image->state_directory, err, NULL, ret_pidfd);
		if (r == THAW_ORPHANED) {
			service_keeper_scope(image->state_directory, scope);
			r = thaw_keeper_adopt(image->state_directory,
					      service->under_systemd ? scope : NULL, err,
					      ret_pidfd);
			if (r == 0)
				return THAW_ORPHANED;
		}
		/* Of a service that was killed: its job may have started one just before. */
		if (r != -EBUSY || waited >= BEGIN_TIMEOUT_MS)
			return r;
		(void)poll(NULL, 0, 5); /* ms */
	}
}

void image_look(struct image *image)
{
	struct thaw_kept kept;

	image->failure[0] = '\0';
	if (thaw_keeper_look(image->state_directory, NULL, &kept, NULL) < 0)
		return;
	image->restarts = kept.restarts;
	image->warm_source = kept.warm_source;
	if (kept.waiting_ms > 0)
		(void)snprintf(image->failure, sizeof(image->failure),
			       "its workers die; the next one in %u ms (%s)",
			       kept.waiting_ms, kept.death);
	else if (kept.death[0])
		(void)snprintf(image->failure, sizeof(image->failure),
			       "restarted %u times, last: %s", kept.restarts, kept.death);
}

/* -- when a keeper has ended: is there a worker, or nobody? -- */

static int run_check(struct job *job, int socket)
{
	struct job_message done = { .kind = JOB_DONE };
	_cleanup_(closep) int pidfd = -1;

	done.result = image_find_keeper(job->image, job->service, &done.err, &pidfd);
	/* What is not known to be dead is taken to be alive. */
	done.made = pidfd >= 0 || !service_nobody_answers(job->image->directory);
	return job_send(socket, &done, pidfd) < 0;
}

/* With the mount gone or dead, so are the views over it. */
static void image_lost(struct image *image, struct service *service)
{
	image->lost = true;
	for (struct view *view = service->views; view; view = view->next) {
		bool over = false;

		for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
			over = over || view->images[i] == image;
		if (view->gone || !over || view->state != VIEW_OPEN)
			continue;
		service->metrics.views_lost++;
		event_send(service, "lost", view);
		view_end(view, "its image is served by nobody any more");
	}
	/* No new view may be laid over it: the next one mounts it anew. */
	image_abandon(image, service);
}

static void check_message(struct job *job, const struct job_message *message, int *fd)
{
	struct service *service = job->service;
	struct image *image = job->image;

	job->done = true;
	if (message->result == THAW_ORPHANED) {
		service->metrics.keepers_adopted++;
		service_log(service, LOG_WARNING, "keeper-replaced", "image", image->name,
			    "identity", image->key, NULL);
	} else if (message->result != 0 && message->made) {
		if (!image->unknown)
			service_log(service, LOG_WARNING, "keeper-unknown", "image",
				    image->name, "identity", image->key, "why",
				    message->result < 0 ? message->err.text
							: "keeper and worker have ended",
				    NULL);
		image->unknown = true;
		image_check_later(image, service);
		return;
	} else if (message->result != 0) {
		service->metrics.keepers_lost++;
		service_log(service, LOG_WARNING, "image-lost", "image", image->name,
			    "identity", image->key, "why",
			    message->result < 0 ? message->err.text
						: "keeper and worker have ended",
			    NULL);
		image_lost(image, service);
		return;
	}
	image_follow_keeper(image, service, steal_fd(fd));
}

static void check_ended(struct job *job)
{
	struct image *image = job->image;
	bool again = image->check_again;

	image->checked = image->check_again = false;
	if (image->gone || image->state != IMAGE_READY)
		return;
	if (again)
		image_check(image, job->service);
	else if (!job->done)
		image_check_later(image, job->service);
}

void image_check_later(struct image *image, struct service *service)
{
	image->check_at = thaw_boottime() + CHECK_PAUSE;
	service_wake_at(service, image->check_at);
}

void image_check(struct image *image, struct service *service)
{
	struct job *job;

	image->check_at = 0;
	if (image->checked) {
		/* The keeper that it has found may be the one that has just ended. */
		image->check_again = true;
		return;
	}
	job = job_new(service, "check image", NULL);
	if (job) {
		job->image = image;
		job->message = check_message;
		job->end = check_ended;
		image->checked = job_start(service, job, run_check, NULL, 0) == 0;
	}
	if (!image->checked) {
		free(job);
		image_check_later(image, service);
	}
}
