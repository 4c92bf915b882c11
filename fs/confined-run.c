/* SPDX-License-Identifier: Apache-2.0 */
/* An environment's interpreter, run over a view of it. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compile-internal.h"
#include "confine.h"
#include "thaw/binding.h"
#include "util/cleanup.h"
#include "util/cpus.h"

#define CANNOT_RUN 127

static int find_version(struct subject *subject, struct thaw_error *err)
{
	size_t len;
	const char *text = thaw_image_meta(subject->image, &len), *python;
	json_t *meta = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	unsigned major, minor;
	char suffix = '\0';
	int n;

	python = json_string_value(json_object_get(meta, "python"));
	n = python ? sscanf(python, "%1u.%3u%c", &major, &minor, &suffix) : 0;
	if (n >= 2 && (n == 2 || suffix == 't')) {
		(void)snprintf(subject->python, sizeof(subject->python), "%u.%u%s", major,
			       minor, n == 3 ? "t" : "");
		(void)snprintf(subject->tag, sizeof(subject->tag), "cpython-%u%u%s",
			       major, minor, n == 3 ? "t" : "");
	}
	json_decref(meta);
	return subject->python[0] ? 0 : thaw_refused(err, "holds no Python environment");
}

int subject_open(const char *path, const struct thaw_compile_options *options,
		 char begins, struct thaw_error *err, struct subject *ret_subject)
{
	struct subject subject = {
		.path = path,
		.processes = options->processes ? options->processes : cpu_count(),
		.meter = {
			.options = options,
			.begins = begins,
			.lines = memfd_create("lines", MFD_CLOEXEC),
		},
	};
	struct thaw_source *source;
	int r;

	if (subject.meter.lines < 0)
		return thaw_io(err, -errno, "no results can be kept");
	r = thaw_source_open(path, err, &source);
	if (r == 0)
		r = thaw_image_open(source, err, &subject.image);
	if (r == 0 && thaw_reader_new(subject.image, 0, &subject.reader) < 0)
		r = thaw_oom(err);
	if (r == 0)
		r = find_version(&subject, err);
	if (r == 0)
		r = thaw_binding_find_for(subject.image, options->python, 0, err,
					  &subject.interpreter);
	if (r < 0)
		subject_close(&subject);
	else
		*ret_subject = subject;
	return r;
}

void subject_close(struct subject *subject)
{
	thaw_reader_free(subject->reader);
	thaw_image_free(subject->image);
	free(subject->interpreter);
	(void)safe_close(subject->meter.lines);
	*subject = (struct subject){ .meter.lines = -1 };
}

int subject_interpreter(const struct subject *subject, const char *path,
			struct thaw_error *err, char **ret_interpreter)
{
	char versioned[32];
	const char *const names[] = { versioned, "python3", "python" };

	(void)snprintf(versioned, sizeof(versioned), "python%s", subject->python);
	for (size_t i = 0; i < 3 && !subject->interpreter; i++) {
		char *candidate;

		if (asprintf(&candidate, "%s/bin/%s", path, names[i]) < 0)
			return thaw_oom(err);
		if (access(candidate, X_OK) == 0) {
			*ret_interpreter = candidate;
			return 0;
		}
		free(candidate);
	}
	if (!subject->interpreter)
		return thaw_refused(err, "has no interpreter inside (bin/python%s)",
				    subject->python);
	*ret_interpreter = strdup(subject->interpreter);
	return *ret_interpreter ? 0 : thaw_oom(err);
}

static void __attribute__((noreturn)) run_job(const struct job *job)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	/* Last, so that nothing that is moved is overwritten: none of ours are below 3. */
	if (null < 0 || dup2(job->input, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(null, 2) < 0 ||
	    (job->output >= 0 && job->output != 3 && dup2(job->output, 3) < 0) ||
	    (job->output == 3 && fcntl(3, F_SETFD, 0) < 0) || chdir("/") < 0)
		_exit(CANNOT_RUN);
	execve(job->argv[0], job->argv, job->envp);
	_exit(CANNOT_RUN);
}

/* The first process of the new namespace: when it ends, all in there end. */
static void __attribute__((noreturn)) supervise(const struct job *jobs, unsigned count)
{
	pid_t *pids = calloc(count, sizeof(*pids));
	unsigned running = 0;
	int code = 0;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	for (unsigned i = 0; i < count && pids; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			run_job(&jobs[i]);
		running += pids[i] > 0;
		if (pids[i] < 0)
			code = CANNOT_RUN;
	}
	/* Orphans come to us as well: nobody waits for what a package left running. */
	while (running > 0) {
		int status = 0;
		pid_t pid = wait(&status);

		if (pid < 0 && errno != EINTR)
			break;
		for (unsigned i = 0; i < count; i++) {
			if (pid <= 0 || pids[i] != pid)
				continue;
			running--;
			if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_RUN)
				code = CANNOT_RUN;
		}
	}
	_exit(pids ? code : CANNOT_RUN);
}

int run_confined(const char *path, const struct job *jobs, unsigned count,
		 struct thaw_error *err)
{
	int status, r = thaw_confine(path, err);
	pid_t pid;

	if (r < 0)
		return r;
	pid = fork();
	if (pid == 0)
		supervise(jobs, count);
	if (pid < 0)
		return thaw_io(err, -errno, "no process can be started");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return thaw_io(err, -errno, "no process can be started");
	if (!WIFEXITED(status) || WEXITSTATUS(status) == CANNOT_RUN)
		return thaw_io(err, -ENOEXEC, "its interpreter \"%.200s\" cannot be run",
			       jobs[0].argv[0]);
	return 0;
}
