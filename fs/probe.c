/* SPDX-License-Identifier: Apache-2.0 */
/* Which way of presenting images works here. What `thaw doctor` adds is in probe-findings.c. */
#include "thaw/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "namespaces.h"
#include "probe-internal.h"
#include "thaw/directories.h"
#include "util/cleanup.h"

const char *thaw_way_name(enum thaw_way way)
{
	static const char *const names[] = { "shared", "private", "extracted", "none" };

	return way <= THAW_WAY_NONE ? names[way] : "unknown";
}

/* -- the node service -- */

static int try_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_(closep) int fd = socket(AF_UNIX,
					  SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path); /* fits */
	/* EAGAIN: it is there, and busy. */
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
	    errno == EAGAIN)
		return 0;
	return -errno;
}

/* Where a client looks (thaw/client.h); but without waiting for a service that hangs. */
bool thaw_probe_service(char *ret_text, size_t size)
{
	static const char system_wide[] = "/run/thaw/socket";
	const char *named = getenv("THAW_SOCKET");
	_cleanup_(freep) char *path = NULL;
	struct thaw_error err = { 0 };
	struct thaw_place place;
	int r = 0;

	if (named && *named) {
		path = strdup(named);
	} else if (thaw_runtime_place(&err, &place) < 0) {
		(void)snprintf(ret_text, size, "%s", err.text);
		return false;
	} else {
		if (asprintf(&path, "%s/socket", place.path) < 0)
			path = NULL;
		free(place.path);
	}
	r = path ? try_socket(path) : -ENOMEM;
	if (r < 0)
		(void)snprintf(ret_text, size, "%s: %s", path ? path : "socket",
			       strerror(-r));
	else
		(void)snprintf(ret_text, size, "answers at %s", path);
	/* Root's service is for everybody, unless another was named. */
	if (r == 0 || (named && *named) || getenv("THAW_RUNTIME_DIR") ||
	    try_socket(system_wide) < 0)
		return r == 0;
	(void)snprintf(ret_text, size, "answers at %s", system_wide);
	return true;
}

/* -- trials -- */

static void run_trial(struct thaw_probing *probing, bool user_namespace)
{
	struct thaw_trial_options options = { .user_namespace = user_namespace };
	char scratch[4096] = "", path[4200];

	if (probing->with_scratch && probing->state.path) {
		(void)snprintf(scratch, sizeof(scratch), "%s/.probe-XXXXXX",
			       probing->state.path);
		if (!mkdtemp(scratch))
			scratch[0] = '\0';
	}
	if (scratch[0]) {
		options.scratch = scratch;
		(void)snprintf(path, sizeof(path), "%s/upper", scratch);
		(void)mkdir(path, 0755); /* failing, the trial does, and says so */
		(void)snprintf(path, sizeof(path), "%s/work", scratch);
		(void)mkdir(path, 0755);
	}
	thaw_trial_run(&options, &probing->trials[user_namespace]);
	probing->tried[user_namespace] = true;
	if (scratch[0]) {
		static const char *const made[] = { "work/work", "work", "upper/made",
						    "upper" };

		for (unsigned i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
			(void)snprintf(path, sizeof(path), "%s/%s", scratch, made[i]);
			(void)rmdir(path); /* some are not there */
		}
		(void)rmdir(scratch);
	}
}

const struct thaw_trial *thaw_probing_trial(struct thaw_probing *probing,
					    bool user_namespace)
{
	if (!probing->tried[user_namespace])
		run_trial(probing, user_namespace);
	return &probing->trials[user_namespace];
}

bool thaw_trial_good(const struct thaw_trial *trial)
{
	/* Without a scratch layer there are no writable views, but views. */
	return trial->failed >= THAW_TRIAL_SCRATCH;
}

void thaw_probing_init(struct thaw_probing *probing)
{
	struct thaw_error err = { 0 };

	*probing = (struct thaw_probing){ .may_mount = thaw_may_mount() };
	if (thaw_state_place(&err, &probing->state) < 0) {
		probing->state = (struct thaw_place){ 0 };
		(void)snprintf(probing->state.why, sizeof(probing->state.why), "%.255s",
			       err.text);
	}
}

void thaw_probing_deinit(struct thaw_probing *probing)
{
	free(probing->state.path);
}

/* -- ways -- */

static bool shared_works(struct thaw_probing *probing, char *why_not, size_t size)
{
	char service[160];
	const struct thaw_trial *trial;

	if (thaw_probe_service(service, sizeof(service)))
		return true;
	if (!probing->may_mount) {
		(void)snprintf(why_not, size,
			       "no node service (%s), and no right to mount as one",
			       service);
		return false;
	}
	trial = thaw_probing_trial(probing, false);
	if (thaw_trial_good(trial))
		return true;
	(void)snprintf(why_not, size, "%s", trial->why);
	return false;
}

static bool private_works(struct thaw_probing *probing, char *why_not, size_t size)
{
	const struct thaw_trial *trial = thaw_probing_trial(probing, !probing->may_mount);

	if (thaw_trial_good(trial))
		return true;
	(void)snprintf(why_not, size, "%s", trial->why);
	return false;
}

static bool extracted_works(struct thaw_probing *probing, char *why_not, size_t size)
{
	if (probing->state.path)
		return true;
	(void)snprintf(why_not, size, "%s", probing->state.why);
	return false;
}

void thaw_probing_ways(struct thaw_probing *probing, unsigned ways, bool all,
		       struct thaw_way_report *ret_report)
{
	static bool (*const works[])(struct thaw_probing *, char *,
				     size_t) = { shared_works, private_works,
						 extracted_works };

	*ret_report = (struct thaw_way_report){ .way = THAW_WAY_NONE };
	for (unsigned i = 0; i < THAW_WAYS; i++) {
		char *why_not = ret_report->why_not[i];

		if (!(ways & 1u << i) || (ret_report->way != THAW_WAY_NONE && !all))
			continue;
		if (works[i](probing, why_not, sizeof(ret_report->why_not[i]))) {
			if (ret_report->way == THAW_WAY_NONE)
				ret_report->way = (enum thaw_way)i;
		} else if (why_not[0] == '\0') {
			(void)snprintf(why_not, sizeof(ret_report->why_not[i]),
				       "does not work");
		}
	}
}

void thaw_probe_way(unsigned ways, struct thaw_way_report *ret_report)
{
	struct thaw_probing probing;

	thaw_probing_init(&probing);
	thaw_probing_ways(&probing, ways, false, ret_report);
	thaw_probing_deinit(&probing);
}
