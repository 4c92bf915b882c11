/* SPDX-License-Identifier: Apache-2.0 */
/* The node service: its start, its loop, time and signals, and its end. */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "thaw/directories.h"
#include "util/cleanup.h"

/*
 * Mounts of others change the table too: not looked at more often than this. It takes
 * the longer the more views there are.
 */
#define LOOK_INTERVAL(service) (1u + (service)->view_count / 256)
/* Jobs of a service that was killed are killed too: how long that may take. */
#define JOBS_END_MS	       10000

/* -- events -- */

int source_add(struct service *service, struct source *source, int fd, uint32_t events,
	       void (*ready)(struct source *source, uint32_t events))
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	source->fd = fd;
	source->ready = ready;
	source->service = service;
	return 0;
}

void source_change(struct source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	/* It is there: cannot fail. */
	(void)epoll_ctl(source->service->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

void source_remove(struct source *source)
{
	if (source->ready)
		(void)epoll_ctl(source->service->epoll_fd, EPOLL_CTL_DEL, source->fd,
				NULL);
	source->ready = NULL;
}

/* -- time -- */

void service_wake_at(struct service *service, uint64_t deadline)
{
	struct itimerspec when = { .it_value.tv_sec = (time_t)deadline };

	if (service->next_deadline && service->next_deadline <= deadline)
		return;
	service->next_deadline = deadline;
	/* Valid arguments: cannot fail. A time that is past wakes at once. */
	(void)timerfd_settime(service->timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void timer_ready(struct source *source, uint32_t events)
{
	struct service *service = source->service;
	uint64_t count, now = thaw_boottime();

	if (read(source->fd, &count, sizeof(count)) < 0)
		return;
	service->next_deadline = 0;
	views_expire(service, now);
	images_expire(service, now);
	if (service->mounts_look && service->mounts_look <= now) {
		service->mounts_look = 0;
		service_look_at_mounts(service);
	} else if (service->mounts_look) {
		service_wake_at(service, service->mounts_look);
	}
	if (service->metrics_stale)
		metrics_write(service);
}

/* Any mount or unmount on the machine, ours too: look soon, but not each time. */
static void mounts_ready(struct source *source, uint32_t events)
{
	struct service *service = source->service;

	if (service->mounts_look)
		return;
	service->mounts_look = thaw_boottime() + LOOK_INTERVAL(service);
	service_wake_at(service, service->mounts_look);
}

static void signals_ready(struct source *source, uint32_t events)
{
	struct service *service = source->service;
	struct signalfd_siginfo info;

	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			service->stopping = true;
	/* Jobs tell by their sockets how they ended; in a container we reap for all. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/* -- start -- */

static int watch(struct service *service, struct thaw_error *err)
{
	int fd, r;
	sigset_t set;

	(void)sigemptyset(&set); /* valid arguments: cannot fail */
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	fd = service->epoll_fd < 0 ? -1 : signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r = fd < 0 ? -errno
		   : source_add(service, &service->signals, fd, EPOLLIN, signals_ready);
	if (r == 0) {
		fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
		r = fd < 0 ? -errno
			   : source_add(service, &service->timer, fd, EPOLLIN,
					timer_ready);
	}
	if (r == 0) {
		fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
		r = fd < 0 ? -errno
			   : source_add(service, &service->mounts, fd, EPOLLPRI,
					mounts_ready);
	}
	return r < 0 ? thaw_io(err, r, "the service cannot be set up") : 0;
}

static int directories(struct service *service, struct thaw_error *err)
{
	struct {
		const char *kind;
		char **path;
	} const runtime[] = {
		{ NULL, &service->runtime },
		{ "images", &service->images_directory },
		{ "sessions", &service->sessions_directory },
		{ "empty", &service->empty_directory },
		{ "keepers", &service->keepers_directory },
		{ "memory", &service->memory_directory },
		{ "layers", &service->small_layers_directory },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(runtime) / sizeof(runtime[0]); i++)
		r = thaw_runtime_directory(runtime[i].kind, NULL, err, runtime[i].path);
	/* Scratch layers of our own: no `thaw run` takes them for forgotten ones. */
	if (r == 0)
		r = thaw_state_directory("service-scratch", NULL, err,
					 &service->scratch_directory);
	if (r == 0)
		r = thaw_state_directory("layers", NULL, err, &service->layers_directory);
	/* To be walked by all; whoever made them before us may have had another umask. */
	if (r == 0 && service->root &&
	    (chmod(service->runtime, 0755) < 0 ||
	     chmod(service->images_directory, 0755) < 0 ||
	     chmod(service->sessions_directory, 0755) < 0))
		r = thaw_io(err, -errno, "\"%.300s\" cannot be opened to all",
			    service->runtime);
	return r;
}

static void say_where_state_is(struct service *service)
{
	struct thaw_place place = { 0 };

	if (thaw_state_place(NULL, &place) < 0)
		return;
	if (place.fallback)
		service_log(service, LOG_WARNING, "state-ends-with-the-boot", "directory",
			    place.path, "why", place.why, NULL);
	free(place.path);
}

/*
 * Jobs inherit the other kind of lock on the same file, and hold it to their end: what
 * one of a killed service is at must be over before anybody looks at what there is.
 */
static void wait_for_jobs(struct service *service)
{
	for (int waited = 0; flock(service->lock_fd, LOCK_EX | LOCK_NB) < 0;
	     waited += 5) {
		if (errno != EWOULDBLOCK || waited >= JOBS_END_MS) {
			service_log(service, LOG_WARNING, "earlier-jobs-stay", NULL);
			return;
		}
		(void)poll(NULL, 0, 5); /* ms */
	}
}

/*
 * One service to a run-time directory. The lock is one that children do not inherit: it
 * ends with this process, whatever it had just forked.
 */
static int lock(struct service *service, struct thaw_error *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	_cleanup_(freep) char *path = NULL;

	if (asprintf(&path, "%s/lock", service->runtime) < 0) {
		path = NULL;
		return thaw_oom(err);
	}
	service->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (service->lock_fd < 0)
		return thaw_io(err, -errno, "\"%.300s\"", path);
	if (fcntl(service->lock_fd, F_SETLK, &whole) == 0) {
		wait_for_jobs(service);
		return 0;
	}
	if (errno == EAGAIN || errno == EACCES)
		return thaw_refused(err, "a service has \"%.300s\" already",
				    service->runtime);
	return thaw_io(err, -errno, "\"%.300s\"", path);
}

/* Images that thaw open has packed, when the catalogue does not know of them any more. */
static void refill_catalogue(struct service *service)
{
	_cleanup_(freep) char *store = NULL;
	struct thaw_error err = { 0 };
	unsigned added = 0;
	int r = thaw_state_directory("images", NULL, &err, &store);

	if (r == 0)
		r = thaw_catalogue_refill(service->catalogue, store, &err, &added);
	if (r < 0)
		service_log(service, LOG_WARNING, "catalogue", "of", "images", "why",
			    err.text, NULL);
}

static int open_catalogue(struct service *service, struct thaw_error *err)
{
	_cleanup_(freep) char *leases = NULL;
	_cleanup_(freep) char *images = NULL;
	struct thaw_catalogue_options options = { 0 };
	struct thaw_catalogue_report reports[2];
	struct thaw_error state_err;
	int r;

	r = thaw_runtime_directory("catalogue", NULL, err, &leases);
	if (r < 0)
		return r;
	/* Without a state directory it remembers as long as it lives. */
	if (thaw_state_directory("catalogue", NULL, &state_err, &images) < 0)
		images = NULL;
	options.leases = leases;
	options.images = images;
	r = thaw_catalogue_open(&options, err, &reports[0], &reports[1],
				&service->catalogue);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < 2; i++)
		if (reports[i].why[0])
			service_log(service, LOG_WARNING, "catalogue", "of",
				    i ? "images" : "leases", "state",
				    thaw_catalogue_state_name(reports[i].state), "why",
				    reports[i].why, NULL);
	if (reports[1].state != THAW_CATALOGUE_OK)
		refill_catalogue(service);
	return 0;
}

static bool may_mount(void)
{
	struct __user_cap_header_struct header = { .version =
							   _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &header, data) == 0 &&
	       data[0].effective & 1u << CAP_SYS_ADMIN;
}

/* sd_notify(3): one datagram to a socket that is named by the environment. */
static void notify(const char *text)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = name ? strlen(name) : 0;
	int fd;

	if (len == 0 || len >= sizeof(address.sun_path) ||
	    (name[0] != '/' && name[0] != '@'))
		return;
	memcpy(address.sun_path, name, len);
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
			      (struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	(void)safe_close(fd);
}

/* A descriptor for each client, process followed and scratch layer. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max < 16384 ? limit.rlim_max : 16384;
		(void)setrlimit(RLIMIT_NOFILE, &limit); /* fewer will do for most */
	}
}

static int start(struct service *service, struct thaw_error *err)
{
	const char *path = service->options->socket;
	int r;

	service->uid = geteuid();
	service->root = geteuid() == 0 && may_mount();
	service->under_systemd = access("/run/systemd/system", F_OK) == 0;
	service->journal = getenv("JOURNAL_STREAM") != NULL;
	service->started = (int64_t)time(NULL);
	raise_limit();
	(void)umask(022); /* whoever started us */
	r = directories(service, err);
	if (r == 0)
		say_where_state_is(service);
	if (r == 0)
		r = lock(service, err);
	if (r == 0)
		r = watch(service, err);
	if (r == 0)
		r = open_catalogue(service, err);
	if (r == 0)
		r = service_restore(service, err);
	if (r == 0 &&
	    asprintf(&service->socket_path, "%s%s", path ? path : service->runtime,
		     path ? "" : "/socket") < 0) {
		service->socket_path = NULL;
		r = thaw_oom(err);
	}
	if (r == 0)
		metrics_write(service);
	/* Last: whoever can connect is served. */
	if (r == 0)
		r = connections_listen(service, service->socket_path, err);
	return r;
}

static bool drained(const struct service *service)
{
	return service->draining && service->view_count == 0 && service->job_count == 0 &&
	       !service->images;
}

static void sweep(struct service *service)
{
	unsigned jobs = service->job_count;

	jobs_sweep(service);
	service->metrics_stale = service->metrics_stale || service->job_count != jobs;
	connections_sweep(service);
	views_sweep(service);
	images_sweep(service);
	if (service->metrics_stale && service->options->metrics)
		service_wake_at(service,
				thaw_boottime() + 1); /* not with each of many calls */
}

/* One event at a time: what one handler has ended, the next must not meet. */
static int loop(struct service *service, struct thaw_error *err)
{
	while (!service->stopping && !drained(service)) {
		struct epoll_event event;
		int n = epoll_wait(service->epoll_fd, &event, 1, -1);

		if (n < 0 && errno != EINTR)
			return thaw_io(err, -errno, "the service cannot wait");
		if (n == 1) {
			struct source *source = event.data.ptr;

			if (source->ready)
				source->ready(source, event.events);
		}
		sweep(service);
	}
	return 0;
}

static void close_source(struct source *source)
{
	source_remove(source);
	if (source->fd > 0)
		source->fd = safe_close(source->fd);
}

static void deinit(struct service *service)
{
	for (struct job *job = service->jobs; job; job = job->next)
		job->ended = true; /* PR_SET_PDEATHSIG ends the processes */
	for (struct connection *c = service->connections; c; c = c->next)
		c->gone = true;
	for (struct view *view = service->views; view; view = view->next)
		view->gone = true;
	for (struct image *image = service->images; image; image = image->next) {
		image->gone = true;
		image->users = 0; /* views and jobs go as well */
		image->checked = false;
	}
	sweep(service);
	service->catalogue = thaw_catalogue_close(service->catalogue);
	if (service->made_socket && service->lock_fd >= 0)
		(void)unlink(service->socket_path);
	close_source(&service->listener);
	close_source(&service->signals);
	close_source(&service->timer);
	close_source(&service->mounts);
	closep(&service->spare_fd);
	closep(&service->epoll_fd);
	closep(&service->lock_fd);
	free(service->runtime);
	free(service->images_directory);
	free(service->sessions_directory);
	free(service->empty_directory);
	free(service->keepers_directory);
	free(service->memory_directory);
	free(service->scratch_directory);
	free(service->layers_directory);
	free(service->small_layers_directory);
	free(service->socket_path);
}

int thaw_serve(const struct thaw_serve_options *given, struct thaw_error *err)
{
	struct thaw_serve_options options = *given;
	struct service service = {
		.options = &options,
		.epoll_fd = -1,
		.lock_fd = -1,
		.spare_fd = -1,
	};
	int r;

	if (options.linger < 0)
		options.linger = SERVICE_LINGER;
	if (options.grace < 0)
		options.grace = SERVICE_GRACE;
	r = start(&service, err);
	if (r == 0) {
		service_log(&service, LOG_INFO, "ready", "socket", service.socket_path,
			    "version", THAW_VERSION_STRING, NULL);
		notify("READY=1\nSTATUS=serving");
		r = loop(&service, err);
		notify("STOPPING=1");
		if (service.metrics_stale)
			metrics_write(&service);
		service_log(&service, LOG_INFO, "stopping", "why",
			    drained(&service) ? "drained" : "told to", NULL);
	}
	deinit(&service);
	return r;
}
