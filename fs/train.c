/* SPDX-License-Identifier: Apache-2.0 */
/* Training runs, and what they leave in their scratch layer. */
#include "thaw/train.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define TICK_MS 100
#define PYC_MAX (64u << 20) /* larger ones are no bytecode */

void thaw_gathered_deinit(struct thaw_gathered *gathered)
{
	for (size_t i = 0; i < gathered->count; i++) {
		free((void *)gathered->files[i].path);
		free((void *)gathered->files[i].data);
		free((void *)gathered->files[i].sites);
	}
	free(gathered->files);
	*gathered = (struct thaw_gathered){ 0 };
}

static int make_scratch(struct thaw_error *err, char **ret_path)
{
	const char *directory = getenv("TMPDIR");
	_cleanup_(freep) char *path = NULL;
	char sub[1100];

	directory = directory && directory[0] == '/' ? directory : "/tmp";
	if (strpbrk(directory, ":,\\") || strlen(directory) > 1000)
		return thaw_refused(err, "TMPDIR: overlayfs needs a path without : , and \\");
	if (asprintf(&path, "%s/thaw-warm-XXXXXX", directory) < 0) {
		path = NULL;
		return thaw_oom(err);
	}
	if (!mkdtemp(path))
		return thaw_io(err, -errno, "\"%.300s\" cannot be made", path);
	(void)snprintf(sub, sizeof(sub), "%s/upper", path); /* fits: checked above */
	if (mkdir(sub, 0755) < 0)
		return thaw_io(err, -errno, "\"%.300s\" cannot be made", sub);
	(void)snprintf(sub, sizeof(sub), "%s/work", path);
	if (mkdir(sub, 0755) < 0)
		return thaw_io(err, -errno, "\"%.300s\" cannot be made", sub);
	(void)snprintf(sub, sizeof(sub), "%s/state", path);
	if (mkdir(sub, 0700) < 0)
		return thaw_io(err, -errno, "\"%.300s\" cannot be made", sub);
	*ret_path = steal_ptr(path);
	return 0;
}

/* Overlayfs leaves a directory of mode 0 behind: it is empty, and rmdir() does not mind. */
static void remove_scratch(const char *path)
{
	char *const roots[] = { (char *)path, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	const FTSENT *entry;

	while (fts && (entry = fts_read(fts)) != NULL) {
		if (entry->fts_info == FTS_DP || entry->fts_info == FTS_DNR)
			(void)rmdir(entry->fts_accpath); /* what stays is in TMPDIR */
		else if (entry->fts_info == FTS_D)
			(void)chmod(entry->fts_accpath, 0700); /* the command may have closed it */
		else
			(void)unlink(entry->fts_accpath);
	}
	if (fts)
		(void)fts_close(fts);
}

/*
 * What is rendered for this view is of no use to another: the image gets a new
 * identity from what is learned here. So it goes with the scratch layer.
 */
static int enter(const struct thaw_view_options *view, struct thaw_error *err, char **ret_path)
{
	const char *set = getenv("THAW_STATE_DIR");
	_cleanup_(freep) char *old = set ? strdup(set) : NULL;
	char state[1100];
	int r;

	(void)snprintf(state, sizeof(state), "%s/state", view->scratch); /* fits: see make_scratch() */
	if ((set && !old) || setenv("THAW_STATE_DIR", state, 1) < 0)
		return thaw_oom(err);
	r = thaw_view_enter(view, err, ret_path);
	if (old ? setenv("THAW_STATE_DIR", old, 1) < 0 : unsetenv("THAW_STATE_DIR") < 0)
		return thaw_oom(err);
	return r;
}

static void __attribute__((noreturn)) run_child(const struct thaw_view_options *view,
						thaw_train_body *body, void *userdata, int report)
{
	static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGALRM };
	struct thaw_error err = { 0 };
	_cleanup_(freep) char *path = NULL;
	int r;

	(void)signal(SIGPIPE, SIG_DFL); /* valid signals, here and below: cannot fail */
	for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		if (signal(caught[i], SIG_DFL) == SIG_IGN)
			(void)signal(caught[i], SIG_IGN); /* nohup: the command's too */
	r = enter(view, &err, &path);
	if (r == 0)
		r = body(userdata, path, &err);
	if (r >= 0)
		_exit(r);
	(void)!write(report, &err, sizeof(err)); /* smaller than PIPE_BUF; else the status tells */
	_exit(127);
}

/* The command of a training run. */
static int run_command(void *userdata, const char *path, struct thaw_error *err)
{
	char *const *argv = userdata;
	int r = thaw_view_environment(path, err);

	if (r < 0)
		return r;
	/* The point of a training run is that what it compiles is kept. */
	(void)unsetenv("PYTHONDONTWRITEBYTECODE");
	(void)unsetenv("PYTHONPYCACHEPREFIX");
	execvp(argv[0], argv);
	return thaw_io(err, -errno, "\"%.200s\" cannot be run", argv[0]);
}

static int read_file(const char *path, size_t size, uint8_t **ret_data)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(freep) uint8_t *data = malloc(size + 1);
	size_t done = 0;

	if (fd < 0)
		return -errno;
	if (!data)
		return -ENOMEM;
	while (done < size) {
		ssize_t n = read(fd, data + done, size - done);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	*ret_data = steal_ptr(data);
	return 0;
}

static int keep_file(struct thaw_gathered *gathered, const char *path, const FTSENT *entry,
		     struct thaw_error *err)
{
	struct thaw_addition file = {
		.size = (size_t)entry->fts_statp->st_size,
		.mtime = (uint32_t)entry->fts_statp->st_mtim.tv_sec,
	};
	uint8_t *data = NULL;
	int r;

	r = read_file(entry->fts_accpath, file.size, &data);
	if (r < 0)
		return thaw_io(err, r, "\"%.300s\" cannot be read", path);
	file.data = data;
	for (size_t i = 0; i < gathered->count; i++) {
		if (strcmp(gathered->files[i].path, path) != 0)
			continue;
		free((void *)gathered->files[i].data);
		file.path = gathered->files[i].path;
		gathered->files[i] = file;
		return 0;
	}
	file.path = strdup(path);
	if (!file.path || grow(&gathered->files, &gathered->capacity, gathered->count + 1,
			       sizeof(*gathered->files)) < 0) {
		free(data);
		free((void *)file.path);
		return thaw_oom(err);
	}
	gathered->files[gathered->count++] = file;
	return 0;
}

static bool is_bytecode(const FTSENT *entry)
{
	size_t len = strlen(entry->fts_name);

	return entry->fts_info == FTS_F && len > 4 &&
	       strcmp(entry->fts_name + len - 4, ".pyc") == 0 &&
	       strcmp(entry->fts_parent->fts_name, "__pycache__") == 0 &&
	       entry->fts_statp->st_size > 16 && entry->fts_statp->st_size < PYC_MAX;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int gather(const char *scratch, struct thaw_gathered *gathered, struct thaw_error *err)
{
	char upper[1100];
	char *const roots[] = { upper, NULL };
	const FTSENT *entry;
	FTS *fts;
	int r = 0;

	(void)snprintf(upper, sizeof(upper), "%s/upper", scratch); /* fits: see make_scratch() */
	fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	if (!fts)
		return thaw_io(err, -errno, "\"%.300s\" cannot be read", upper);
	while (r == 0 && (entry = fts_read(fts)) != NULL)
		if (is_bytecode(entry))
			r = keep_file(gathered, entry->fts_path + strlen(upper) + 1, entry, err);
	(void)fts_close(fts);
	return r;
}

/* "a/__pycache__/b.c.cpython-311.opt-1.pyc" -> "a/b.c.py" */
static bool source_of(const char *pyc, char *source, size_t size)
{
	const char *name = strrchr(pyc, '/'), *cache, *end, *opt;

	if (!name++ || name - pyc < 12)
		return false;
	cache = name - 12; /* "__pycache__/", as is_bytecode() saw */
	end = pyc + strlen(pyc) - 4;
	opt = memmem(name, (size_t)(end - name), ".opt-", 5);
	end = opt ? opt : end;
	end = memrchr(name, '.', (size_t)(end - name));
	return end && snprintf(source, size, "%.*s%.*s.py", (int)(cache - pyc), pyc,
			       (int)(end - name), name) < (int)size;
}

/*
 * PEP 552: magic, flags, then the source's mtime and size, or a hash. When it was
 * written is of no interest to Python, and would make each image another.
 */
static bool is_of_image(const struct thaw_image *image, struct thaw_addition *file)
{
	char source[4096];
	struct thaw_relocated relocated;
	struct thaw_inode inode;

	if (!source_of(file->path, source, sizeof(source)) ||
	    thaw_image_find(image, source, &inode) != 0 || inode.type != THAW_REGULAR)
		return false;
	/* Of the text that the source had in that view, if it is not relocated itself. */
	if (!file->sites && thaw_image_relocated_find(image, inode.ino, &relocated) == 0)
		return false;
	file->mtime = inode.mtime;
	return get_le32(file->data + 4) != 0 ||
	       (get_le32(file->data + 8) == inode.mtime &&
		get_le32(file->data + 12) == (uint32_t)inode.size);
}

void thaw_gathered_keep(struct thaw_gathered *gathered, const struct thaw_image *image)
{
	size_t kept = 0;

	for (size_t i = 0; i < gathered->count; i++) {
		if (is_of_image(image, &gathered->files[i])) {
			gathered->files[kept++] = gathered->files[i];
			continue;
		}
		free((void *)gathered->files[i].path);
		free((void *)gathered->files[i].data);
		free((void *)gathered->files[i].sites);
	}
	gathered->count = kept;
}

/* What is left for us to read, or -1 also when a signal came; tick meanwhile. */
static ssize_t read_ticking(int fd, void *buf, size_t size, const struct thaw_train_watch *watch)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	int n;

	while ((n = poll(&ready, 1, watch->tick ? TICK_MS : -1)) == 0)
		watch->tick(watch->userdata);
	return n < 0 ? -1 : read(fd, buf, size);
}

int thaw_train_with(const struct thaw_view_options *given, thaw_train_body *body, void *userdata,
		    struct thaw_trace *trace, struct thaw_gathered *gathered,
		    const struct thaw_train_watch *watch, struct thaw_error *err, int *ret_status)
{
	int (*const interrupted)(void) = watch->interrupted;
	struct thaw_view_options view = *given;
	_cleanup_(freep) char *scratch = NULL;
	struct thaw_error child_err;
	int fds[2], status, r;
	ssize_t n;
	pid_t pid;

	r = make_scratch(err, &scratch);
	if (r < 0)
		return r;
	view.scratch = scratch;
	view.trace = trace;
	view.warm = "none";
	if (pipe2(fds, O_CLOEXEC) < 0) {
		remove_scratch(scratch);
		return thaw_io(err, -errno, "no command can be run");
	}
	pid = fork();
	if (pid == 0) {
		(void)close(fds[0]);
		run_child(&view, body, userdata, fds[1]);
	}
	(void)close(fds[1]);
	/* Ends when the command begins, which closes the pipe, or with its error. */
	n = pid > 0 ? read_ticking(fds[0], &child_err, sizeof(child_err), watch) : -1;
	(void)close(fds[0]);
	if (pid < 0)
		r = thaw_io(err, -errno, "no command can be run");
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		if (interrupted && interrupted())
			(void)kill(pid, interrupted()); /* not yet reaped: it is still ours */
	if (r == 0 && interrupted && interrupted())
		r = thaw_io(err, -EINTR, "the command was ended");
	else if (n == (ssize_t)sizeof(child_err)) {
		if (err)
			*err = child_err;
		r = -EIO;
	} else if (r == 0 && status == 0 && gathered) {
		r = gather(scratch, gathered, err);
	}
	remove_scratch(scratch);
	if (r == 0)
		*ret_status = status;
	return r;
}

int thaw_train(const struct thaw_view_options *view, char *const *argv,
	       struct thaw_trace *trace, struct thaw_gathered *gathered,
	       int (*interrupted)(void), struct thaw_error *err, int *ret_status)
{
	const struct thaw_train_watch watch = { .interrupted = interrupted };

	return thaw_train_with(view, run_command, (void *)argv, trace, gathered, &watch, err,
			       ret_status);
}
