/* SPDX-License-Identifier: Apache-2.0 */
/* thaw warm: run a workload, and put what it touches into a warm set. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "thaw/train.h"
#include "thaw/warm.h"
#include "tool.h"
#include "util/cleanup.h"

#define NAME_DEFAULT "default"
#define TRACE_EVENTS (4u << 20) /* pages and names: 16 GiB of pages; 200 MB when full */

/* A command to train with, and the set that what it touches goes into. */
struct command {
	const char *name;
	char **argv;
	char *shell[4]; /* for argv: sh -c TEXT */
};

struct warm {
	const char *image, *output;
	const char *alias;
	const char *name; /* of the set, for the commands that follow on the line */
	struct command commands[THAW_PARTS_MAX];
	unsigned command_count;
	struct thaw_workload workloads[THAW_PARTS_MAX];
	unsigned workload_count;
	struct thaw_gathered gathered;
	bool json;
};

#ifdef THAW_WITH_FUSE
/* The trace of this name: commands of one name share one, in their order. */
static struct thaw_trace *trace_for(struct warm *warm, const char *name)
{
	struct thaw_workload *workload;

	for (unsigned i = 0; i < warm->workload_count; i++)
		if (strcmp(warm->workloads[i].name, name) == 0)
			return (struct thaw_trace *)warm->workloads[i].trace;
	workload = &warm->workloads[warm->workload_count];
	workload->name = name;
	workload->trace = thaw_trace_new(TRACE_EVENTS);
	if (workload->trace)
		warm->workload_count++;
	return (struct thaw_trace *)workload->trace;
}

static int train(struct warm *warm, const struct command *command)
{
	struct thaw_view_options view = { .image = warm->image, .alias = warm->alias };
	struct thaw_trace *trace = trace_for(warm, command->name);
	struct thaw_error err = { 0 };
	int status, r;

	if (!trace)
		return tool_fail_errno(warm->image, -ENOMEM);
	r = thaw_train(&view, command->argv, trace, &warm->gathered, tool_interrupted, &err,
		       &status);
	if (r == -EINTR)
		return tool_fail_interrupted(warm->image, "left as it was");
	if (r < 0)
		return tool_fail(warm->image, &err);
	if (WIFSIGNALED(status))
		return tool_fail_text(THAW_EXIT_REFUSED, warm->image,
				      "left as it was: \"%s\" was ended by signal %d",
				      command->argv[0], WTERMSIG(status));
	if (status != 0)
		return tool_fail_text(THAW_EXIT_REFUSED, warm->image,
				      "left as it was: \"%s\" failed with exit code %d",
				      command->argv[0], WEXITSTATUS(status));
	return THAW_EXIT_OK;
}

static int print_json(const struct warm *warm, const struct thaw_image_info *old,
		      const struct thaw_image_info *new)
{
	json_t *object = json_object(), *sets = json_array();
	uint64_t dropped = 0;

	for (unsigned i = 0; i < warm->workload_count; i++) {
		(void)json_array_append_new(sets, json_string(warm->workloads[i].name));
		dropped += thaw_trace_dropped(warm->workloads[i].trace);
	}
	tool_json_name(object, "image", warm->output, strlen(warm->output));
	tool_json_digest(object, "old_identity", old->identity);
	tool_json_digest(object, "identity", new->identity);
	(void)json_object_set_new(object, "warm_sets", sets);
	(void)json_object_set_new(object, "added_files",
				  json_integer((json_int_t)warm->gathered.count));
	(void)json_object_set_new(object, "old_size", json_integer((json_int_t)old->image_size));
	(void)json_object_set_new(object, "size", json_integer((json_int_t)new->image_size));
	(void)json_object_set_new(object, "dropped_events", json_integer((json_int_t)dropped));
	return tool_json_print(object);
}

static int report(const struct warm *warm, const struct thaw_image_info *old,
		  const struct thaw_image_info *new)
{
	char from[THAW_DIGEST_HEX], to[THAW_DIGEST_HEX], size[TOOL_SIZE_TEXT],
		grown[TOOL_SIZE_TEXT];
	uint64_t dropped = 0;

	if (warm->json)
		return print_json(warm, old, new);
	thaw_digest_hex(old->identity, from);
	thaw_digest_hex(new->identity, to);
	printf("image      ");
	tool_print_escaped(stdout, warm->output, strlen(warm->output));
	printf("\nidentity   sha256:%s\n    was    sha256:%s\n", to, from);
	printf("size       %s, was %s\n", tool_size_text(new->image_size, grown),
	       tool_size_text(old->image_size, size));
	printf("warm sets ");
	for (unsigned i = 0; i < warm->workload_count; i++) {
		printf(" %s", warm->workloads[i].name);
		dropped += thaw_trace_dropped(warm->workloads[i].trace);
	}
	printf("\nbytecode   %zu files added\n", warm->gathered.count);
	if (dropped)
		printf("warning    the workload was too long: %llu events were left out\n",
		       (unsigned long long)dropped);
	return THAW_EXIT_OK;
}

static int rewrite(struct warm *warm, const struct thaw_image *image, bool force)
{
	struct thaw_rewrite what = {
		.force = force,
		.workloads = warm->workloads,
		.workload_count = warm->workload_count,
	};
	struct thaw_error err = { 0 };
	struct thaw_image_info info;

	thaw_gathered_keep(&warm->gathered, image);
	what.additions = warm->gathered.files;
	what.addition_count = warm->gathered.count;
	if (thaw_rewrite(image, warm->output, &what, &err, &info) < 0)
		return tool_fail(warm->output, &err);
	return report(warm, thaw_image_info(image), &info);
}

/* Traces name inodes: they mean nothing in another image, which may be there by now. */
static int check_unchanged(const struct warm *warm, const struct thaw_image *image)
{
	_cleanup_(thaw_image_freep) struct thaw_image *now = NULL;
	int r = tool_open_image(warm->image, &now);

	if (r)
		return r;
	if (memcmp(thaw_image_info(now)->identity, thaw_image_info(image)->identity,
		   THAW_DIGEST_SIZE) != 0)
		return tool_fail_text(THAW_EXIT_REFUSED, warm->image,
				      "was replaced while the command ran; nothing was written");
	return THAW_EXIT_OK;
}

static int train_all(struct warm *warm, const struct thaw_image *image)
{
	_cleanup_(closep) int own = -1;
	int r = THAW_EXIT_OK;

	/* Nothing but JSON on standard output: what commands print goes the other way. */
	if (warm->json) {
		own = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
		if (own < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
			return tool_fail_output(-errno);
	}
	for (unsigned i = 0; i < warm->command_count && r == 0; i++) {
		r = train(warm, &warm->commands[i]);
		if (r == 0)
			r = check_unchanged(warm, image);
	}
	if (own >= 0 && dup2(own, STDOUT_FILENO) < 0)
		return tool_fail_output(-errno);
	return r;
}

static int run_and_rewrite(struct warm *warm, bool force)
{
	_cleanup_(thaw_image_freep) struct thaw_image *image = NULL;
	int r;

	r = tool_open_image(warm->image, &image);
	if (r)
		return r;
	/* Said again when it is written; but a workload may take an hour. */
	if (!force && faccessat(AT_FDCWD, warm->output, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return tool_fail_text(THAW_EXIT_REFUSED, warm->output,
				      "exists already (--force replaces it)");
	r = train_all(warm, image);
	return r ? r : rewrite(warm, image, force);
}

static int warm_up(struct warm *warm, bool force)
{
	_cleanup_(freep) char *place = NULL;
	int r;

	/* In its own place, and not in that of a symlink to it. */
	if (!warm->output) {
		place = realpath(warm->image, NULL);
		if (!place)
			return tool_fail_errno(warm->image, -errno);
		warm->output = place;
		force = true;
	}
	tool_catch_interrupts();
	r = run_and_rewrite(warm, force);
	for (unsigned i = 0; i < warm->workload_count; i++)
		thaw_trace_free((struct thaw_trace *)warm->workloads[i].trace);
	thaw_gathered_deinit(&warm->gathered);
	return r;
}
#else
static int warm_up(struct warm *warm, bool force)
{
	return tool_fail_text(THAW_EXIT_IO, warm->image, "this thaw was built without FUSE");
}
#endif

static int add_command(struct warm *warm, char **argv, char *shell)
{
	struct command *command = &warm->commands[warm->command_count];

	if (warm->command_count == THAW_PARTS_MAX - 4)
		return tool_usage("warm", "too many commands");
	warm->command_count++;
	command->name = warm->name ? warm->name : NAME_DEFAULT;
	command->argv = argv;
	if (shell) {
		command->shell[0] = (char *)"sh";
		command->shell[1] = (char *)"-c";
		command->shell[2] = shell;
		command->argv = command->shell;
	}
	return THAW_EXIT_OK;
}

static int take_command(void *userdata, const char *option, char *value)
{
	(void)option;
	return add_command(userdata, NULL, value);
}

/* For the commands that follow it. */
static int take_name(void *userdata, const char *option, char *value)
{
	struct warm *warm = userdata;

	if (!thaw_warm_name_valid(value))
		return tool_bad_value("warm", option, value,
				      "1 to 31 letters, digits, . _ - (and not all or none)");
	warm->name = value;
	return THAW_EXIT_OK;
}

static int run(int argc, char **argv)
{
	struct warm warm = { 0 };
	const char *image = NULL;
	bool force = false;
	const struct tool_option options[] = {
		TOOL_TEXT("output", 'o', &warm.output),
		TOOL_CALL("name", 0, take_name, &warm),
		TOOL_CALL("command", 'c', take_command, &warm),
		TOOL_FLAG("force", 0, &force),
		TOOL_FLAG("json", 0, &warm.json),
		TOOL_ARGUMENT(&image),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_warm, argc, argv, options, &exit_code))
		return exit_code;
	if (optind < argc && add_command(&warm, argv + optind, NULL))
		return THAW_EXIT_USAGE;
	if (!image || warm.command_count == 0)
		return tool_usage("warm", "an image and a command are needed");
	tool_split_alias((char *)image, &warm.alias);
	warm.image = image;
	return warm_up(&warm, force);
}

const struct tool_command tool_warm = {
	.name = "warm",
	.run = run,
	.summary = "run a workload and store what it touches as a warm set",
	.help = "Usage: thaw warm [OPTION...] IMAGE[#ALIAS] -- COMMAND [ARGUMENT...]\n"
		"       thaw warm [OPTION...] IMAGE[#ALIAS] -c COMMAND [-c COMMAND...]\n"
		"\n"
		"Runs COMMAND in a private view of IMAGE, and writes the image anew with a warm\n"
		"set: the pages that COMMAND touched, in the order of first touch. Mounts push\n"
		"it into memory ahead of the next workload. The .pyc files that COMMAND wrote\n"
		"are added as well. When COMMAND fails, nothing is changed. The identity of\n"
		"the image changes; the old and the new one are printed.\n"
		"\n"
		"  -o, --output=OUT       write to OUT instead of replacing IMAGE\n"
		"  --name=NAME            name of the set for the commands that follow\n"
		"                         (default: default); a set of this name is replaced\n"
		"  -c, --command=COMMAND  a command for the shell; may be given several times\n"
		"  --force                replace OUT\n"
		"  --json                 print JSON; output of COMMAND goes to standard error\n"
		"  --help                 show this help\n"
		"\n"
		"Example: thaw warm environment.thaw -- python -c 'import pandas'\n",
};
