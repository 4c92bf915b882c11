/* SPDX-License-Identifier: Apache-2.0 */
/* Asking an interpreter what it is. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "thaw/binding.h"
#include "util/cleanup.h"

#define ANSWER_MAX 16384u
#define PATIENCE_MS \
	10000 /* a cold start from a slow disk; what hangs is no interpreter */

extern char **environ;

/*
 * -S: nothing of the site's packages is run. os and sysconfig are read from the
 * standard library itself. The first line on standard output that begins so is
 * the answer: wrappers may print what they like before.
 */
#define MARK "thaw-interpreter:"
static const char question[] =
	"import json, os, sys, sysconfig\n"
	"v = sysconfig.get_config_var\n"
	"t = 't' if v('Py_GIL_DISABLED') else ''\n"
	"d = v('DESTSHARED')\n"
	"s = v('Py_ENABLE_SHARED') and os.path.join(v('LIBDIR') or '', v('INSTSONAME') or '')\n"
	"p = getattr(sys, 'base_exec_prefix', sys.exec_prefix)\n"
	"d = next((q for q in sys.path if os.path.basename(q) == 'lib-dynload'), d)\n"
	"print('\\n" MARK "' + json.dumps({\n"
	"  'executable': os.path.realpath(getattr(sys, '_base_executable', sys.executable)),\n"
	"  'prefix': sys.base_prefix, 'library': os.path.dirname(os.__file__),\n"
	"  'dynload': d, 'shared': s if s and os.path.isfile(s) else None,\n"
	"  'platlibdir': getattr(sys, 'platlibdir', 'lib'),\n"
	"  'implementation': sys.implementation.name,\n"
	"  'python': '%d.%d%s' % (sys.version_info[0], sys.version_info[1], t),\n"
	"  'version': '%d.%d.%d' % sys.version_info[:3]}))\n";

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int start(const char *path, pid_t *ret_pid, int *ret_fd)
{
	char *const argv[] = { (char *)path, (char *)"-I",     (char *)"-S",
			       (char *)"-c", (char *)question, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t all, none;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	(void)sigfillset(&all);
	(void)sigemptyset(&none);
	r = posix_spawn_file_actions_init(&actions);
	if (r == 0) {
		r = posix_spawnattr_init(&attributes);
		if (r == 0) {
			(void)posix_spawnattr_setsigmask(&attributes, &none);
			(void)posix_spawnattr_setsigdefault(&attributes, &all);
			(void)posix_spawnattr_setflags(&attributes,
						       POSIX_SPAWN_SETSIGMASK |
							       POSIX_SPAWN_SETSIGDEF);
			r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null",
							     O_RDONLY, 0);
			if (r == 0)
				r = posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
			if (r == 0)
				r = posix_spawn_file_actions_addopen(
					&actions, 2, "/dev/null", O_WRONLY, 0);
			if (r == 0)
				r = posix_spawn(ret_pid, path, &actions, &attributes,
						argv, environ);
			(void)posix_spawnattr_destroy(&attributes);
		}
		(void)posix_spawn_file_actions_destroy(&actions);
	}
	(void)close(fds[1]);
	if (r != 0)
		(void)close(fds[0]);
	else
		*ret_fd = fds[0];
	return -r;
}

/* What it prints, until it ends, says too much, or takes too long. */
static size_t listen_to(int fd, char *answer)
{
	int64_t until = now_ms() + PATIENCE_MS;
	size_t len = 0;

	while (len < ANSWER_MAX - 1) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		int64_t left = until - now_ms();
		ssize_t n;

		if (left <= 0)
			break;
		if (poll(&wait, 1, (int)left) <= 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		n = read(fd, answer + len, ANSWER_MAX - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	answer[len] = '\0';
	return len;
}

static char *copy_path(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && text[0] == '/' && strlen(text) <= THAW_PATH_MAX &&
			       !strchr(text, '\n')
		       ? strdup(text)
		       : NULL;
}

static bool read_answer(const char *answer, struct thaw_interpreter *interpreter)
{
	const char *mark = strstr(answer, "\n" MARK), *text;
	json_t *object;
	bool ok;

	if (!mark)
		return false;
	mark += strlen("\n" MARK);
	object = json_loadb(mark, strcspn(mark, "\n"), JSON_REJECT_DUPLICATES, NULL);
	interpreter->executable = copy_path(object, "executable");
	interpreter->prefix = copy_path(object, "prefix");
	interpreter->library = copy_path(object, "library");
	interpreter->dynload = copy_path(object, "dynload");
	interpreter->shared = copy_path(object, "shared");
	text = json_string_value(json_object_get(object, "platlibdir"));
	interpreter->platlibdir = strdup(text && !strchr(text, '/') && text[0] ? text
									       : "lib");
	text = json_string_value(json_object_get(object, "python"));
	(void)snprintf(interpreter->python, sizeof(interpreter->python), "%s",
		       text ? text : "");
	text = json_string_value(json_object_get(object, "version"));
	(void)snprintf(interpreter->version, sizeof(interpreter->version), "%s",
		       text ? text : "");
	text = json_string_value(json_object_get(object, "implementation"));
	ok = text && strcmp(text, "cpython") == 0 && interpreter->executable &&
	     interpreter->prefix && interpreter->library && interpreter->platlibdir &&
	     interpreter->python[0];
	json_decref(object);
	return ok;
}

int thaw_interpreter_ask(const char *path, struct thaw_error *err,
			 struct thaw_interpreter *ret_interpreter)
{
	struct thaw_interpreter interpreter = { 0 };
	_cleanup_(freep) char *answer = malloc(ANSWER_MAX);
	int fd = -1, r;
	pid_t pid;

	if (!answer)
		return thaw_oom(err);
	r = start(path, &pid, &fd);
	if (r < 0)
		return thaw_io(err, r, "\"%.300s\" cannot be run", path);
	(void)listen_to(fd, answer);
	(void)close(fd);
	(void)kill(pid, SIGKILL); /* ours and not yet waited for; mostly it has ended */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (!read_answer(answer, &interpreter)) {
		thaw_interpreter_deinit(&interpreter);
		return thaw_refused(err, "\"%.300s\" is no CPython interpreter", path);
	}
	*ret_interpreter = interpreter;
	return 0;
}

void thaw_interpreter_deinit(struct thaw_interpreter *interpreter)
{
	free(interpreter->executable);
	free(interpreter->prefix);
	free(interpreter->library);
	free(interpreter->dynload);
	free(interpreter->shared);
	free(interpreter->platlibdir);
	*interpreter = (struct thaw_interpreter){ 0 };
}
