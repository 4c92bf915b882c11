/* SPDX-License-Identifier: Apache-2.0 */
/* Confined children: starting one, and hearing what became of it. */
#include "confined-child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detached.h"
#include "log.h"
#include "util/cleanup.h"

#define ERRNO_MAX 4095

struct outcome {
	int result;
	struct thaw_error err;
};

void *thaw_shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Also when it ended before this line. */
static void end_with(pid_t parent)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a valid signal: cannot fail */
	if (getppid() != parent)
		_exit(1);
}

static void leave_streams(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd < 3 && null >= 0; fd++)
		(void)dup2(null, fd);
}

static int enter_root(const struct thaw_confined_child *child, struct thaw_error *err)
{
	if (child->root && (fchdir(child->place) < 0 || chroot(".") < 0))
		return thaw_io(err, -errno, "the process that %s cannot be confined", child->what);
	return 0;
}

static void __attribute__((noreturn))
run(const struct thaw_confined_child *child, struct outcome *outcome, pid_t parent)
{
	int keep[16], r;
	unsigned count = 0;

	(void)signal(SIGCHLD, SIG_DFL); /* a valid signal: cannot fail */
	end_with(parent);
	keep[count++] = child->place;
	for (unsigned i = 0; i < child->keep_count && count < 16; i++)
		keep[count++] = child->keep[i];
	if (child->log)
		thaw_log_close(); /* our parent's */
	else
		leave_streams();
	thaw_close_all_but(keep, count);
	if (child->log)
		thaw_log_open_now(child->foreground);
	r = enter_root(child, &outcome->err);
	if (r == 0) {
		r = thaw_sandbox_enter(child->kind, child->place);
		if (r < 0)
			r = thaw_io(&outcome->err, r, "the process that %s cannot be confined",
				    child->what);
	}
	/* Changing ids has cleared it. Others may not call for it any more. */
	if (child->kind == THAW_SANDBOX_FINDER)
		end_with(parent);
	outcome->result = r < 0 ? r : child->work(child->userdata, &outcome->err);
	_exit(0);
}

/* False when it had to be killed. */
static bool wait_for(pid_t pid, unsigned seconds, int *ret_status)
{
	_cleanup_(closep) int ended = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd end = { .fd = ended, .events = POLLIN };
	bool in_time = true;
	int r;

	if (ended >= 0) {
		do
			r = poll(&end, 1, (int)seconds * 1000);
		while (r < 0 && errno == EINTR);
		in_time = r != 0;
	}
	if (!in_time)
		(void)kill(pid, SIGKILL); /* not yet reaped: it is still ours */
	while (waitpid(pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return false;
	return in_time;
}

/* "Input/output error" would add nothing. */
static int failed(struct thaw_error *err, const char *format, ...) _printf_(2, 3);
static int failed(struct thaw_error *err, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)thaw_io(err, 0, "%s", text);
	return -EIO;
}

/* What it says may be somebody else's words: a number in range, one line of plain text. */
static int check_outcome(const struct outcome *shared, struct thaw_error *err)
{
	struct outcome outcome = *shared;
	int r = outcome.result;

	if (r < -ERRNO_MAX || r > THAW_NOT_FOUND)
		return failed(err, "a confined process said what cannot be");
	if (r >= 0)
		return r;
	outcome.err.text[sizeof(outcome.err.text) - 1] = '\0';
	(void)thaw_io(err, 0, "%s", outcome.err.text);
	if (err && outcome.err.exit_code >= THAW_EXIT_USAGE &&
	    outcome.err.exit_code <= THAW_EXIT_IO)
		err->exit_code = outcome.err.exit_code;
	return r;
}

int thaw_confined_child(const struct thaw_confined_child *child, struct thaw_error *err)
{
	struct outcome *outcome = thaw_shared_memory(sizeof(*outcome));
	pid_t parent = getpid(), pid;
	int status = 0, r;

	if (!outcome)
		return thaw_oom(err);
	outcome->result = -EIO;
	pid = fork();
	if (pid == 0)
		run(child, outcome, parent);
	if (pid < 0)
		r = thaw_io(err, -errno, "no process can be started");
	else if (!wait_for(pid, child->seconds, &status))
		r = thaw_io(err, -ETIMEDOUT, "the process that %s", child->what);
	else if (WIFSIGNALED(status))
		r = failed(err, "the process that %s was killed by signal %d", child->what,
			   WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		r = failed(err, "the process that %s ended with exit code %d", child->what,
			   WEXITSTATUS(status));
	else
		r = check_outcome(outcome, err);
	(void)munmap(outcome, sizeof(*outcome)); /* as it was mapped: cannot fail */
	return r;
}
