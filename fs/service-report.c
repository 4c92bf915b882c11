/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says about itself: JSON, events, metrics, log lines. */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <syslog.h>
#include <unistd.h>

#include "thaw/stat.h"
#include "util/cleanup.h"
#include "util/write-all.h"

/* -- JSON -- */

json_t *view_to_json(const struct view *view)
{
	static const char *const states[] = { "opening", "open", "changing", "closing" };
	json_t *object = thaw_lease_to_json(&view->lease, thaw_boottime());

	if (!object)
		return NULL;
	(void)json_object_set_new(object, "state", json_string(states[view->state]));
	if (view->images[0]) {
		(void)json_object_set_new(object, "image_directory",
					  json_string(view->images[0]->directory));
		(void)json_object_set_new(
			object, "warm_source",
			json_string(thaw_warm_source_name(view->images[0]->warm_source)));
	}
	for (unsigned i = 0; i < 1 + THAW_LAYERS_MAX; i++)
		if (view->images[i] && view->images[i]->failure[0])
			(void)json_object_set_new(object, "trouble",
						  json_string(view->images[i]->failure));
	return object;
}

json_t *stat_to_json(const struct thaw_stat *st)
{
	static const char *const warm[] = { "none", "running", "finished", "stopped" };
	json_t *object = json_object(), *requests = json_object();
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(st->identity, hex);
	(void)json_object_set_new(object, "identity", json_string(hex));
	for (unsigned i = 0; i < THAW_STAT_OPCODES; i++) {
		const char *name = thaw_stat_request_name(i);

		if (st->requests[i] && name)
			(void)json_object_set_new(
				requests, name,
				json_integer((json_int_t)st->requests[i]));
	}
	(void)json_object_set_new(object, "requests", requests);
	(void)json_object_set_new(
		object, "warm_state",
		json_string(st->warm_state < 4 ? warm[st->warm_state] : "unknown"));
	(void)json_object_set_new(object, "warm_source",
				  json_string(thaw_warm_source_name(st->warm_source)));
#define COUNT(key) \
	(void)json_object_set_new(object, #key, json_integer((json_int_t)st->key));
	COUNT(worker)
	THAW_STAT_COUNTS(COUNT)
#undef COUNT
	return object;
}

/* To each who watches and may see the view; who is too slow is dropped. */
void event_send(struct service *service, const char *event, const struct view *view)
{
	for (struct connection *c = service->connections; c; c = c->next)
		if (c->watching && !c->gone && view_visible(view, c))
			connection_stream(c, json_pack("{s:s, s:o}", "event", event,
						       "view", view_to_json(view)));
}

/* -- metrics -- */

static uint64_t resident_bytes(void)
{
	_cleanup_(closep) int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	unsigned long long total, resident;
	char text[128];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	if (sscanf(text, "%llu %llu", &total, &resident) != 2)
		return 0;
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void metric(FILE *file, const char *name, const char *type, const char *help,
		   uint64_t value)
{
	fprintf(file, "# HELP thaw_%s %s\n# TYPE thaw_%s %s\nthaw_%s %" PRIu64 "\n", name,
		help, name, type, name, value);
}

char *metrics_text(struct service *service)
{
	const struct metrics *m = &service->metrics;
	unsigned images = 0, connections = service->connection_count, writable = 0;
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	if (!file)
		return NULL;
	for (const struct image *image = service->images; image; image = image->next)
		images += !image->gone && image->state == IMAGE_READY;
	for (const struct view *view = service->views; view; view = view->next)
		writable += !view->gone && view->lease.writable;
	metric(file, "views", "gauge", "Views that are open.", service->view_count);
	metric(file, "views_writable", "gauge", "Views with a scratch layer.", writable);
	metric(file, "images_mounted", "gauge", "Images that are mounted.", images);
	metric(file, "connections", "gauge", "Clients that are connected.", connections);
	metric(file, "jobs", "gauge", "Jobs at work.", service->job_count);
	metric(file, "draining", "gauge", "Whether the service takes no new views.",
	       service->draining);
	metric(file, "resident_bytes", "gauge", "Memory of the service.",
	       resident_bytes());
	metric(file, "start_time_seconds", "gauge", "When the service was started.",
	       (uint64_t)service->started);
	metric(file, "opens_total", "counter", "Views opened.", m->opens);
	metric(file, "opens_repeated_total", "counter",
	       "Opens of a view that stood already.", m->opens_repeated);
	metric(file, "opens_failed_total", "counter", "Opens that failed.",
	       m->opens_failed);
	metric(file, "closes_total", "counter", "Views closed, by call or by lease.",
	       m->closes);
	metric(file, "closes_busy_total", "counter",
	       "Closes refused since the view was in use.", m->closes_busy);
	metric(file, "leases_expired_total", "counter", "Views ended by their lease.",
	       m->expired);
	metric(file, "changes_total", "counter", "Swaps and added layers.", m->swaps);
	metric(file, "launches_total", "counter", "Images mounted.", m->launches);
	metric(file, "launches_failed_total", "counter",
	       "Images that could not be mounted.", m->launches_failed);
	metric(file, "keepers_lost_total", "counter",
	       "Keepers that ended before their mount.", m->keepers_lost);
	metric(file, "keepers_adopted_total", "counter",
	       "Workers whose keeper was replaced.", m->keepers_adopted);
	metric(file, "views_restored_total", "counter",
	       "Views found when the service started.", m->views_restored);
	metric(file, "views_lost_total", "counter", "Views that others unmounted.",
	       m->views_lost);
	metric(file, "connections_total", "counter", "Connections accepted.",
	       m->connections);
	metric(file, "connections_refused_total", "counter", "Connections over a limit.",
	       m->connections_refused);
	metric(file, "clients_dropped_total", "counter",
	       "Clients that sent nonsense or did not read their answers.",
	       m->clients_dropped);
	metric(file, "calls_total", "counter", "Calls.", m->calls);
	metric(file, "calls_failed_total", "counter", "Calls answered by an error.",
	       m->calls_failed);
	if (fclose(file) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* Whole or not at all: the node exporter reads it at any time. */
void metrics_write(struct service *service)
{
	const char *path = service->options->metrics;
	_cleanup_(freep) char *text = NULL;
	_cleanup_(freep) char *temporary = NULL;
	_cleanup_(closep) int fd = -1;
	int r;

	service->metrics_stale = false;
	if (!path)
		return;
	text = metrics_text(service);
	if (!text || asprintf(&temporary, "%s.%d.tmp", path, (int)getpid()) < 0) {
		temporary = NULL;
		return;
	}
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	r = fd < 0 ? -errno : write_all(fd, text, strlen(text));
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlink(temporary);
		service_log(service, LOG_WARNING, "metrics-not-written", "file", path,
			    "why", strerror(-r), NULL);
	}
}

/* -- the log -- */

/* KEY="VALUE" when the value is no plain word; what could break the line is escaped. */
static size_t add_pair(char *line, size_t used, size_t size, const char *key,
		       const char *value)
{
	bool plain = value[0] != '\0';

	for (const char *p = value; *p; p++)
		plain = plain && *p > ' ' && *p < 127 && *p != '"' && *p != '=' &&
			*p != '\\';
	used += (size_t)snprintf(line + used, size - used, "%s%s=%s", used ? " " : "",
				 key, plain ? "" : "\"");
	for (const unsigned char *p = (const unsigned char *)value; *p && used + 8 < size;
	     p++) {
		if (*p < ' ' || *p == 127)
			used += (size_t)snprintf(line + used, size - used, "\\x%02x", *p);
		else if (*p == '"' || *p == '\\')
			used += (size_t)snprintf(line + used, size - used, "\\%c", *p);
		else
			line[used++] = (char)*p;
	}
	if (!plain)
		line[used++] = '"';
	line[used] = '\0';
	return used;
}

static void write_line(char *line, size_t used)
{
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };

	line[used++] = '\n';
	/* A pipe that takes anything takes a line of this length at once. */
	if (poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT))
		(void)!write(STDERR_FILENO, line, used);
}

#define LINE_MAX_ 2048u
#define PAIR_MAX  700u

void service_log(struct service *service, int priority, const char *event, ...)
{
	char line[LINE_MAX_];
	size_t used = 0, start;
	va_list args;

	/* sd-daemon(3): the journal takes the priority from the line's beginning. */
	if (service->journal)
		used = (size_t)snprintf(line, sizeof(line), "<%d>", priority);
	start = used;
	used += add_pair(line + start, 0, sizeof(line) - start, "event", event);
	va_start(args, event);
	for (const char *key = va_arg(args, const char *); key;
	     key = va_arg(args, const char *)) {
		const char *value = va_arg(args, const char *);

		if (value && used + PAIR_MAX < sizeof(line))
			used = start + add_pair(line + start, used - start,
						used - start + PAIR_MAX, key, value);
	}
	va_end(args);
	write_line(line, used);
}

void view_log(const struct view *view, int priority, const char *event, const char *why)
{
	const struct thaw_lease *lease = &view->lease;
	char uid[16], hex[THAW_DIGEST_HEX];

	(void)snprintf(uid, sizeof(uid), "%u", (unsigned)lease->uid);
	thaw_digest_hex(lease->images[0].identity, hex);
	if (why)
		service_log(view->service, priority, event, "session", lease->session,
			    "directory", lease->directory, "image", hex, "uid", uid,
			    "why", why, NULL);
	else
		service_log(view->service, priority, event, "session", lease->session,
			    "directory", lease->directory, "image", hex, "uid", uid,
			    NULL);
}
