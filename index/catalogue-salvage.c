/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an LMDB file that may be damaged. LMDB follows page numbers without
 * looking: it may crash, abort or run in circles. So a child does it, and hands
 * over one record after the other; the parent believes it nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catalogue-internal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

/*
 * In the pipe: u32 length of the key, u32 of the record, both; or the end, with
 * the number of records that the file says it has.
 */
#define FRAME_HEADER 8u
#define FRAME_END    0xffffffffu
/* Under this a record does not fit into a file: what comes after is a circle. */
#define RECORD_LEAST THAW_RECORD_HEADER

/* -- the child -- */

static void quiet_child(pid_t parent)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL,
				       SIGTERM, SIGINT, SIGHUP,	 SIGPIPE };
	struct rlimit none = { 0, 0 };
	sigset_t empty;
	int null;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* cannot fail */
	if (getppid() != parent)
		_exit(1);
	/* Crashing is expected of it: no core, no sanitizer's report, no message of LMDB's. */
	(void)setrlimit(RLIMIT_CORE, &none);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void)signal(signals[i], SIG_DFL);
	(void)sigemptyset(&empty);
	(void)sigprocmask(SIG_SETMASK, &empty, NULL);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		(void)dup2(null, STDOUT_FILENO);
		(void)dup2(null, STDERR_FILENO);
	}
}

static void hand_over(int pipe, uint32_t first, uint32_t second, const void *key,
		      const void *record)
{
	uint8_t header[FRAME_HEADER];

	put_le32(header, first);
	put_le32(header + 4, second);
	/* A wild pointer is EFAULT here, and no crash. */
	if (write_all(pipe, header, sizeof(header)) < 0 ||
	    (key && write_all(pipe, key, first) < 0) ||
	    (record && write_all(pipe, record, second) < 0))
		_exit(1);
}

static void __attribute__((noreturn)) read_all(const char *path, int pipe)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	MDB_stat stat;
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc;

	if (mdb_env_create(&env) != 0 ||
	    mdb_env_open(env, path, MDB_RDONLY | MDB_NOSUBDIR | MDB_NOLOCK, 0600) != 0 ||
	    mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0 ||
	    mdb_dbi_open(txn, NULL, 0, &dbi) != 0 || mdb_stat(txn, dbi, &stat) != 0 ||
	    mdb_cursor_open(txn, dbi, &cursor) != 0)
		_exit(1);
	while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		if (key.mv_size == 0 || key.mv_size > THAW_KEY_MAX ||
		    value.mv_size > THAW_RECORD_MAX)
			continue; /* the count at the end tells */
		hand_over(pipe, (uint32_t)key.mv_size, (uint32_t)value.mv_size,
			  key.mv_data, value.mv_data);
	}
	if (rc != MDB_NOTFOUND || stat.ms_entries > UINT32_MAX)
		_exit(1);
	hand_over(pipe, FRAME_END, (uint32_t)stat.ms_entries, NULL, NULL);
	_exit(0);
}

/* -- the parent -- */

/* Exactly len bytes: 0, THAW_NOT_FOUND at the end, -ETIMEDOUT, -EIO. */
static int read_exactly(int pipe, void *buf, size_t len, unsigned timeout_ms)
{
	struct pollfd pollfd = { .fd = pipe, .events = POLLIN };
	uint8_t *p = buf;

	while (len > 0) {
		int ready = poll(&pollfd, 1, (int)timeout_ms);
		ssize_t n;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			return -ETIMEDOUT;
		n = ready < 0 ? -1 : read(pipe, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -EIO;
		if (n == 0)
			return THAW_NOT_FOUND;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

struct salvage {
	int pipe;
	unsigned timeout_ms;
	uint64_t records_max;
	uint8_t *buf;
	size_t capacity;
	int stopped; /* what fn returned */
};

/* What the child says, until it ends or says nonsense. *ret_seen of *ret_said records. */
static int receive(struct salvage *s, thaw_salvage_fn *fn, void *userdata,
		   uint64_t *ret_seen, uint64_t *ret_said)
{
	uint8_t header[FRAME_HEADER];
	uint32_t key_len, len;
	int r;

	for (*ret_seen = 0; *ret_seen <= s->records_max; (*ret_seen)++) {
		r = read_exactly(s->pipe, header, sizeof(header), s->timeout_ms);
		if (r != 0)
			return r;
		key_len = get_le32(header);
		len = get_le32(header + 4);
		if (key_len == FRAME_END) {
			*ret_said = len;
			return 0;
		}
		if (key_len == 0 || key_len > THAW_KEY_MAX || len > THAW_RECORD_MAX)
			return -EIO;
		r = make_room(&s->buf, &s->capacity, (size_t)key_len + len);
		if (r < 0)
			return r;
		r = read_exactly(s->pipe, s->buf, (size_t)key_len + len, s->timeout_ms);
		if (r != 0)
			return r;
		s->stopped = fn(userdata, s->buf, key_len, s->buf + key_len, len);
		if (s->stopped != 0)
			return -ECANCELED;
	}
	return -ELOOP;
}

static void explain(int r, int status, struct thaw_salvage_result *result)
{
	const char *signal_name = WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
						      : NULL;

	if (r == -ETIMEDOUT)
		(void)snprintf(result->why, sizeof(result->why), "reading it hung");
	else if (r == -ELOOP)
		(void)snprintf(result->why, sizeof(result->why), "it runs in circles");
	else if (signal_name)
		(void)snprintf(result->why, sizeof(result->why),
			       "reading it crashed (%s)", signal_name);
	else
		(void)snprintf(result->why, sizeof(result->why),
			       "it cannot be read to its end");
}

static int wait_for(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1; /* somebody reaps for us: as if it had failed */
	return status;
}

int thaw_salvage(const char *path, size_t file_size, unsigned timeout_ms,
		 thaw_salvage_fn *fn, void *userdata, struct thaw_error *err,
		 struct thaw_salvage_result *ret_result)
{
	struct salvage s = { .timeout_ms = timeout_ms,
			     .records_max = file_size / RECORD_LEAST };
	uint64_t seen = 0, said = 0;
	pid_t parent = getpid(), pid;
	int pipes[2], status, r;

	*ret_result = (struct thaw_salvage_result){ 0 };
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return thaw_io(err, -errno, "the catalogue cannot be checked");
	pid = fork();
	if (pid < 0) {
		r = thaw_io(err, -errno, "the catalogue cannot be checked");
		(void)safe_close(pipes[0]);
		(void)safe_close(pipes[1]);
		return r;
	}
	if (pid == 0) {
		(void)close(pipes[0]);
		quiet_child(parent);
		read_all(path, pipes[1]);
	}
	(void)safe_close(pipes[1]);
	s.pipe = pipes[0];
	r = receive(&s, fn, userdata, &seen, &said);
	if (r != 0)
		(void)kill(
			pid,
			SIGKILL); /* it may have ended; it is not reaped yet, so it is ours */
	status = wait_for(pid);
	(void)safe_close(pipes[0]);
	free(s.buf);
	if (r == -ENOMEM)
		return thaw_oom(err);
	ret_result->complete = r == 0 && status == 0 && seen == said;
	if (!ret_result->complete)
		explain(r, r == THAW_NOT_FOUND ? status : 0, ret_result);
	return s.stopped;
}
