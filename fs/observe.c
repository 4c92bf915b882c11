/* SPDX-License-Identifier: Apache-2.0 */
/* Watching a command in a view, and finding what a mount serves. */
#include "thaw/observe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/cleanup.h"

/* What the process inside of the view tells the one outside. */
struct shared {
	struct thaw_observed observed;
	struct thaw_error err;
	int result; /* 0 or negative errno */
	_Atomic int exec_error;
};

static int run_once(struct shared *shared, char *const *argv,
		    struct thaw_observed_run *run)
{
	pid_t pid;

	run->began = thaw_timeline_now();
	pid = fork();
	if (pid == 0) {
		(void)signal(SIGPIPE, SIG_DFL); /* valid signals: cannot fail */
		(void)signal(SIGINT, SIG_DFL);
		(void)signal(SIGTERM, SIG_DFL);
		execvp(argv[0], argv);
		shared->exec_error = errno;
		_exit(127);
	}
	if (pid < 0)
		return thaw_io(&shared->err, -errno, "no command can be run");
	while (waitpid(pid, &run->status, 0) < 0)
		if (errno != EINTR)
			return thaw_io(&shared->err, -errno, "no command can be run");
	run->ended = thaw_timeline_now();
	if (shared->exec_error)
		return thaw_io(&shared->err, -shared->exec_error,
			       "\"%.200s\" cannot be run", argv[0]);
	return 0;
}

static int run_inside(struct shared *shared, const struct thaw_view_options *view,
		      char *const *argv)
{
	_cleanup_(freep) char *path = NULL;
	int r;

	shared->observed.opened = thaw_timeline_now();
	r = thaw_view_enter(view, &shared->err, &path);
	if (r == 0)
		r = thaw_view_environment(path, &shared->err);
	for (unsigned i = 0; r == 0 && i < 2; i++) {
		struct thaw_observed_run *run = &shared->observed.runs[i];

		r = run_once(shared, argv, run);
		if (r == 0)
			r = thaw_stat_directory(path, &shared->err, &run->stat);
		if (r == 0 && run->status != 0)
			break;
	}
	return r;
}

int thaw_observe(const struct thaw_view_options *given, char *const *argv,
		 struct thaw_timeline *timeline, struct thaw_error *err,
		 struct thaw_observed *ret_observed)
{
	struct thaw_view_options view = *given;
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0, r;
	pid_t pid;

	if (shared == MAP_FAILED)
		return thaw_oom(err);
	view.timeline = timeline;
	/* Until it says otherwise: it may be killed. */
	shared->result = thaw_io(&shared->err, -ECHILD, "the view ended unexpectedly");
	pid = fork();
	if (pid == 0) {
		r = run_inside(shared, &view, argv);
		shared->result = r;
		_exit(0);
	}
	r = pid < 0 ? thaw_io(err, -errno, "no view can be opened") : 0;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0) {
		r = shared->result;
		if (r < 0 && err)
			*err = shared->err;
		else if (r == 0)
			*ret_observed = shared->observed;
	}
	(void)munmap(shared, sizeof(*shared)); /* a whole mapping: cannot fail */
	return r;
}

/* By its footer and its table alone: it may be anybody's. */
static bool is_image(const char *path, const uint8_t identity[THAW_DIGEST_SIZE])
{
	uint8_t found[THAW_DIGEST_SIZE];
	struct thaw_source *source;
	struct stat st;

	/* Only files: a pipe or a device could block or change by being opened. */
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
	    thaw_source_open(path, NULL, &source) < 0 ||
	    thaw_image_identify(source, NULL, found) < 0)
		return false;
	return memcmp(found, identity, THAW_DIGEST_SIZE) == 0;
}

int thaw_mounted_image(const struct thaw_stat *st, struct thaw_error *err,
		       char **ret_path)
{
	const struct dirent *entry;
	char directory[64];
	char *path = NULL;
	DIR *dir;

	(void)snprintf(directory, sizeof(directory), "/proc/%llu/fd",
		       (unsigned long long)st->worker);
	dir = opendir(directory);
	while (dir && !path && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&path, "%s/%s", directory, entry->d_name) < 0) {
			path = NULL;
			break;
		}
		if (!is_image(path, st->identity)) {
			free(path);
			path = NULL;
		}
	}
	if (dir)
		(void)closedir(dir); /* reading: nothing to lose */
	if (!path)
		return thaw_io(
			err, -ENOENT,
			"the image of this mount cannot be seen from here; name the "
			"image instead");
	*ret_path = path;
	return 0;
}
