/* SPDX-License-Identifier: Apache-2.0 */
/* Errors, interrupts and open images, for all subcommands. */
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"

static void fail_prefix(const char *file)
{
	fputs("thaw: ", stderr);
	if (file) {
		tool_print_escaped(stderr, file, strlen(file));
		fputs(": ", stderr);
	}
}

int tool_fail(const char *file, const struct thaw_error *err)
{
	fail_prefix(file);
	fputs(err->text[0] ? err->text : "failed", stderr);
	fputc('\n', stderr);
	return err->exit_code ? (int)err->exit_code : THAW_EXIT_IO;
}

int tool_fail_inside(const char *file, const char *path, const struct thaw_error *err)
{
	fail_prefix(file);
	tool_print_escaped(stderr, path, strlen(path));
	fputs(": ", stderr);
	fputs(err->text[0] ? err->text : "failed", stderr);
	fputc('\n', stderr);
	return err->exit_code ? (int)err->exit_code : THAW_EXIT_IO;
}

int tool_fail_errno(const char *file, int error)
{
	fail_prefix(file);
	fprintf(stderr, "%s\n", strerror(-error));
	return THAW_EXIT_IO;
}

int tool_fail_output(int error)
{
	struct pollfd reader = { .fd = STDOUT_FILENO };

	/* As with other tools: who ends `thaw ls | head` has not failed. */
	if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR)) {
		(void)signal(SIGPIPE, SIG_DFL); /* main() ignores it */
		(void)raise(SIGPIPE);
	}
	return tool_fail_errno("standard output", error);
}

/* Arguments may be names: the text is escaped as a whole. */
_printf_(1, 0)
static void print_text(const char *format, va_list args)
{
	_cleanup_(freep) char *text = NULL;

	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	if (text)
		tool_print_escaped(stderr, text, strlen(text));
	else
		fputs("no memory", stderr);
	fputc('\n', stderr);
}

int tool_fail_text(enum thaw_exit exit_code, const char *file, const char *format, ...)
{
	va_list args;

	fail_prefix(file);
	va_start(args, format);
	print_text(format, args);
	va_end(args);
	return (int)exit_code;
}

int tool_usage(const char *command, const char *format, ...)
{
	va_list args;

	fail_prefix(command);
	va_start(args, format);
	print_text(format, args);
	va_end(args);
	return THAW_EXIT_USAGE;
}

int tool_help(const struct tool_command *command)
{
	fputs(command->help, stdout);
	return THAW_EXIT_OK;
}

int tool_open_image(const char *file, struct thaw_image **ret_image)
{
	struct thaw_source *source;
	struct thaw_error err = { 0 };
	int r;

	r = thaw_source_open(file, &err, &source);
	if (r == 0)
		r = thaw_image_open(source, &err, ret_image);
	return r < 0 ? tool_fail(file, &err) : THAW_EXIT_OK;
}

int tool_open_reader(const char *file, const struct thaw_image *image,
		     struct thaw_reader **ret_reader)
{
	int r = thaw_reader_new(image, 0, ret_reader);

	return r < 0 ? tool_fail_errno(file, r) : THAW_EXIT_OK;
}

/* As in Linux: a path with more symlinks than this is a loop. */
#define LINKS_MAX 40

int tool_resolve(const struct thaw_image *image, const char *path, bool follow_last,
		 struct thaw_inode *ret_inode)
{
	char rest[2 * THAW_PATH_MAX + 2];
	struct thaw_inode inode, child;
	unsigned links = 0;
	char *at = rest;
	int r;

	if (strlen(path) > THAW_PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(rest, path);
	r = thaw_image_inode(image, THAW_ROOT, &inode);
	if (r < 0)
		return r;
	for (;;) {
		bool last, slash = *at == '/';
		size_t len;

		at += strspn(at, "/");
		/* "file/" names a directory, or nothing */
		if (slash && at != rest && inode.type != THAW_DIRECTORY)
			return -ENOTDIR;
		if (*at == '\0')
			break;
		len = strcspn(at, "/");
		if (inode.type != THAW_DIRECTORY)
			return -ENOTDIR;
		if (len == 1 && at[0] == '.') {
			at += len;
			continue;
		}
		if (len == 2 && at[0] == '.' && at[1] == '.') {
			if (inode.ino == THAW_ROOT)
				return -EXDEV;
			r = thaw_image_inode(image, inode.parent, &inode);
			if (r < 0)
				return r;
			at += len;
			continue;
		}
		r = thaw_image_lookup(image, inode.ino, at, len, &child);
		if (r != 0)
			return r == THAW_NOT_FOUND ? -ENOENT : r;
		at += len;
		last = *at == '\0';
		if (child.type == THAW_SYMLINK && (!last || follow_last)) {
			const char *target = thaw_image_target(image, &child);
			size_t target_len = strlen(target), rest_len = strlen(at);

			if (++links > LINKS_MAX)
				return -ELOOP;
			if (target[0] == '/')
				return -EXDEV;
			if (target_len + rest_len >= sizeof(rest))
				return -ENAMETOOLONG;
			/* The link's directory stays the place to go on from. */
			memmove(rest + target_len, at, rest_len + 1);
			memcpy(rest, target, target_len);
			at = rest;
			continue;
		}
		inode = child;
	}
	*ret_inode = inode;
	return 0;
}

int tool_fail_path(const char *file, const char *path, int error)
{
	const char *cause;

	switch (error) {
	case -ENOENT:
		cause = "no such file or directory";
		break;
	case -ENOTDIR:
		cause = "not a directory";
		break;
	case -EISDIR:
		cause = "is a directory";
		break;
	case -ELOOP:
		cause = "too many levels of symbolic links";
		break;
	case -EXDEV:
		cause = "leads out of the image";
		break;
	case -ENAMETOOLONG:
		cause = "the path is too long";
		break;
	default:
		cause = strerror(-error);
	}
	return tool_fail_text(THAW_EXIT_IO, file, "%s: %s", path, cause);
}

static volatile sig_atomic_t interrupted;
static pthread_t main_thread;

/*
 * The main thread may be waiting for standard input, and only a signal of its own
 * ends that; but the kernel gives a signal to any thread. And one that comes
 * just before the wait begins is too early: so it is repeated each second.
 */
static void nudge_main_thread(void)
{
	if (!pthread_equal(pthread_self(), main_thread))
		(void)pthread_kill(main_thread,
				   SIGALRM); /* it lives as long as the process */
	(void)alarm(1);			     /* cannot fail */
}

static void remember_signal(int number)
{
	int saved = errno;

	if (number != SIGALRM)
		interrupted = number;
	nudge_main_thread();
	errno = saved;
}

void tool_catch_interrupts(void)
{
	/* No SA_RESTART: a read that waits ends. RESETHAND: whoever insists is heard. */
	struct sigaction action = { .sa_handler = remember_signal,
				    .sa_flags = (int)SA_RESETHAND };
	struct sigaction nudge = { .sa_handler = remember_signal };
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

	main_thread = pthread_self();
	(void)sigaction(SIGALRM, &nudge, NULL); /* both are valid by construction */
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct sigaction old;

		/* nohup and shells' background jobs ignore some: leave it so */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			(void)sigaction(signals[i], &action, NULL);
	}
}

int tool_interrupted(void)
{
	return interrupted;
}

void tool_warn_dynamic(void)
{
	fputs("thaw: launcher: is linked dynamically: nodes need its libraries (a static thaw "
	      "needs none)\n",
	      stderr);
}

int tool_fail_interrupted(const char *file, const char *state)
{
	int number = interrupted ? interrupted : SIGINT;

	return tool_fail_text((enum thaw_exit)(128 + number), file, "interrupted: %s",
			      state);
}

void tool_split_alias(char *image, const char **ret_alias)
{
	char *hash = strrchr(image, '#');

	*ret_alias = NULL;
	/* A file may be called that; then it is that. */
	if (!hash || access(image, F_OK) == 0)
		return;
	*hash = '\0';
	*ret_alias = hash + 1;
}
