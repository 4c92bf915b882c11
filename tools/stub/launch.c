/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher: what a stub's programs are. It finds the stub's images on this
 * node, opens a private view of them and becomes the program in there.
 *
 * It stands in for Python where Spark starts it, so: the same process from
 * beginning to end, nothing on stdout, stdin and the environment passed on, and
 * one line on stderr when it fails, which Spark shows to its user.
 *
 * The view stands at a place of the image's own and not in the session's
 * directory, which Spark removes when it evicts a session: the interpreter then
 * goes on, and sys.prefix is the same in all sessions.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "../tool.h"
#include "thaw/directories.h"
#include "thaw/stub.h"
#include "thaw/view.h"
#include "util/cleanup.h"
#include "util/paths.h"

/* As thaw run has it. */
#define EXIT_THAW	125
#define EXIT_NOT_RUN	126
#define EXIT_NOT_FOUND	127

#define NODE_IMAGES "/var/lib/thaw/images"
#define DIRECTORIES_MAX 64u
#define SELF "/proc/self/exe"

struct launch {
	const char *program; /* "python", for messages too */
	const char *directory; /* of the stub; NULL: it is our own executable */
	struct thaw_stub stub;
	char *state_images; /* where embedded images are adopted; or NULL */
	const char *directories[2 * DIRECTORIES_MAX + THAW_STUB_SEARCH_MAX];
	size_t directory_count;
	char *variable; /* $THAW_IMAGES, cut up */
	const char **images; /* paths, malloc'ed */
};

static int fail(const struct launch *launch, const struct thaw_error *err)
{
	(void)tool_fail(launch->program, err);
	return EXIT_THAW;
}

/* -- where images may be -- */

static void add_directory(struct launch *launch, const char *path)
{
	size_t room = sizeof(launch->directories) / sizeof(launch->directories[0]);

	if (path && path[0] == '/' && launch->directory_count < room)
		launch->directories[launch->directory_count++] = path;
}

static void find_directories(struct launch *launch)
{
	const char *variable = getenv("THAW_IMAGES");
	struct thaw_place place = { 0 };
	char *save = NULL;

	launch->variable = variable ? strdup(variable) : NULL;
	for (char *part = launch->variable ? strtok_r(launch->variable, ":", &save) : NULL;
	     part && launch->directory_count < DIRECTORIES_MAX; part = strtok_r(NULL, ":", &save))
		add_directory(launch, part);
	for (size_t i = 0; i < launch->stub.search_count; i++)
		add_directory(launch, launch->stub.search[i]);
	/* Where nothing can be kept, nothing is found either. */
	if (thaw_state_place(NULL, &place) == 0 &&
	    asprintf(&launch->state_images, "%s/images", place.path) < 0)
		launch->state_images = NULL;
	free(place.path);
	add_directory(launch, launch->state_images);
	if (!launch->state_images || strcmp(launch->state_images, NODE_IMAGES) != 0)
		add_directory(launch, NODE_IMAGES);
}

/* The embedded image: the node's copy of it from now on; itself where that cannot be. */
static int use_embedded(struct launch *launch, size_t i, struct thaw_error *err, char **ret_path)
{
	const struct thaw_stub_image *image = &launch->stub.images[i];
	_cleanup_(freep) char *file = NULL, *directory = NULL;
	int r;

	if (launch->directory ? asprintf(&file, "%s/thaw/%s.thaw", launch->directory,
					 image->identity) < 0 :
				asprintf(&file, "%s", SELF) < 0) {
		file = NULL;
		return thaw_oom(err);
	}
	r = thaw_state_directory("images", NULL, NULL, &directory);
	if (r == 0)
		r = thaw_stub_adopt(image, file, directory, err, ret_path);
	if (r == 0 || r == -EBADMSG)
		return r;
	*ret_path = steal_ptr(file);
	return 0;
}

/* What the state directory keeps is collected (thaw gc) when nobody has used it for long. */
static void note_use(const struct launch *launch, const char *path)
{
	if (launch->state_images && thaw_is_below(path, launch->state_images))
		(void)utimensat(AT_FDCWD, path, NULL, 0); /* somebody else's stays as it is */
}

static int find_images(struct launch *launch, struct thaw_error *err)
{
	int r = 0;

	launch->images = calloc(launch->stub.image_count, sizeof(*launch->images));
	if (!launch->images)
		return thaw_oom(err);
	find_directories(launch);
	for (size_t i = 0; r == 0 && i < launch->stub.image_count; i++) {
		char *path = NULL;

		r = thaw_stub_locate(&launch->stub, i, launch->directories,
				     launch->directory_count, err, &path);
		if (r == THAW_NOT_FOUND && launch->stub.images[i].embedded)
			r = use_embedded(launch, i, err, &path);
		else if (r == THAW_NOT_FOUND)
			r = -ENOENT; /* err has the words */
		launch->images[i] = path;
		if (r == 0)
			note_use(launch, path);
	}
	return r;
}

/* -- becoming the program -- */

static void notice(const char *image, const char *text)
{
	fputs("thaw: ", stderr);
	tool_print_escaped(stderr, image, strlen(image));
	fprintf(stderr, ": %s\n", text);
}

/*
 * What is started: bin/PROGRAM. Either of "python" and "python3" will do for the other;
 * and a file whose name is no program's is python.
 */
static int find_program(const struct launch *launch, const char *view, char **ret_path)
{
	const char *names[] = { launch->program, "python", "python3" };
	unsigned count = sizeof(names) / sizeof(names[0]);

	if (launch->directory && strcmp(launch->program, "python") != 0 &&
	    strcmp(launch->program, "python3") != 0)
		count = 1;
	for (unsigned i = 0; i < count; i++) {
		char *path;

		if (asprintf(&path, "%s/bin/%s", view, names[i]) < 0)
			return -ENOMEM;
		if (access(path, X_OK) == 0) {
			*ret_path = path;
			return 0;
		}
		free(path);
	}
	return -ENOENT;
}

static int become(struct launch *launch, char **argv)
{
	const struct thaw_view_options options = {
		.image = launch->images[0],
		.layers = launch->images + 1,
		.layer_count = (unsigned)launch->stub.image_count - 1,
		.notice = notice,
	};
	_cleanup_(freep) char *view = NULL, *path = NULL;
	struct thaw_error err = { 0 };
	int r;

	if (thaw_view_enter(&options, &err, &view) < 0 ||
	    thaw_view_environment(view, &err) < 0) {
		(void)tool_fail_inside(launch->program, launch->images[0], &err);
		return EXIT_THAW;
	}
	r = find_program(launch, view, &path);
	if (r < 0) {
		(void)tool_fail_text(THAW_EXIT_IO, launch->program,
				     "the environment in %s has no such program",
				     launch->images[0]);
		return EXIT_NOT_FOUND;
	}
	(void)signal(SIGPIPE, SIG_DFL); /* main() ignores it, and exec keeps that */
	argv[0] = path;
	execv(path, argv);
	r = -errno;
	(void)tool_fail_errno(path, r);
	return r == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUN;
}

static int launch_stub(struct launch *launch, char **argv)
{
	struct thaw_error err = { 0 };
	struct utsname node;

	if (uname(&node) == 0 && strcmp(node.machine, launch->stub.machine) != 0) {
		(void)thaw_refused(&err, "this environment is for %s, and this node is %s",
				   launch->stub.machine, node.machine);
		return fail(launch, &err);
	}
	if (find_images(launch, &err) < 0)
		return fail(launch, &err);
	return become(launch, argv);
}

static void launch_deinit(struct launch *launch)
{
	for (size_t i = 0; launch->images && i < launch->stub.image_count; i++)
		free((void *)(uintptr_t)launch->images[i]);
	free(launch->images);
	free(launch->variable);
	free(launch->state_images);
	thaw_stub_deinit(&launch->stub);
}

/* -- archives: thaw launch STUB PROGRAM [ARGUMENT...] -- */

static int read_stub(const char *directory, struct thaw_error *err, struct thaw_stub *ret_stub)
{
	_cleanup_(freep) char *path = NULL, *text = malloc(THAW_STUB_SIZE_MAX + 1);
	_cleanup_(closefp) FILE *file = NULL;
	size_t len;

	if (!text || asprintf(&path, "%s/thaw/stub.json", directory) < 0) {
		path = NULL;
		return thaw_oom(err);
	}
	file = fopen(path, "re");
	if (!file)
		return thaw_io(err, -errno, "\"%.300s\"", path);
	len = fread(text, 1, THAW_STUB_SIZE_MAX + 1, file);
	if (ferror(file))
		return thaw_io(err, -EIO, "\"%.300s\"", path);
	return thaw_stub_parse(text, len, err, ret_stub);
}

int tool_launch(int argc, char **argv)
{
	_cleanup_(launch_deinit) struct launch launch = { 0 };
	struct thaw_error err = { 0 };

	if (argc < 3) {
		(void)tool_usage(NULL, "launch is for stubs (see thaw help stub)");
		return EXIT_THAW;
	}
	launch.directory = argv[1];
	launch.program = argv[2];
	if (read_stub(launch.directory, &err, &launch.stub) < 0)
		return fail(&launch, &err);
	return launch_stub(&launch, argv + 2);
}

/* -- one file -- */

bool tool_launch_appended(const char *name, char **argv, int *ret_exit_code)
{
	_cleanup_(launch_deinit) struct launch launch = { .program = name };
	_cleanup_(closep) int fd = open(SELF, O_RDONLY | O_CLOEXEC);
	struct thaw_error err = { 0 };
	int r;

	if (fd < 0)
		return false; /* without /proc nothing else of ours works either */
	r = thaw_stub_find(fd, &err, &launch.stub, NULL);
	if (r == THAW_NOT_FOUND)
		return false;
	fd = safe_close(fd);
	*ret_exit_code = r < 0 ? fail(&launch, &err) : launch_stub(&launch, argv);
	return true;
}
