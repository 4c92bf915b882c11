/* SPDX-License-Identifier: Apache-2.0 */
/* The thaw command: which subcommand, help, version. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

static const struct tool_command *const commands[] = {
	&tool_pack, &tool_warm, &tool_run,  &tool_mount,  &tool_umount,	 &tool_stat,
	&tool_ls,   &tool_cat,	&tool_info, &tool_diff,	 &tool_verify, &tool_extract,
	&tool_report, &tool_stub,
	&tool_doctor,
	&tool_serve, &tool_open, &tool_close, &tool_ps, &tool_images, &tool_gc,
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct tool_command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static void print_overview(FILE *file)
{
	fputs("Usage: thaw COMMAND [OPTION...] [ARGUMENT...]\n"
	      "\n"
	      "Packs a Python environment into an image, once, and presents it as a\n"
	      "directory in milliseconds, decompressing only what is read.\n"
	      "\n"
	      "Commands:\n",
	      file);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(file, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
	fputs("  help      show help about a command\n"
	      "\n"
	      "Options:\n"
	      "  --help     show this help, or a command's (thaw COMMAND --help)\n"
	      "  --version  show the version\n"
	      "\n"
	      "Exit codes: 0 ok, 1 different (diff), 2 usage, 3 refused by policy,\n"
	      "4 malformed or damaged, 5 limit exceeded, 6 I/O error or no space.\n",
	      file);
}

static int unknown_command(const char *name)
{
	return tool_usage(NULL, "'%s' is no command (see thaw --help)", name);
}

static int help(int argc, char **argv)
{
	const struct tool_command *command;

	if (argc == 1 || strcmp(argv[1], "--help") == 0) {
		print_overview(stdout);
		return THAW_EXIT_OK;
	}
	if (argc > 2)
		return tool_usage("help", "one command at a time");
	command = find_command(argv[1]);
	return command ? tool_help(command) : unknown_command(argv[1]);
}

static int dispatch(int argc, char **argv)
{
	const struct tool_command *command;
	const char *name = argv[1];

	if (argc < 2)
		return tool_usage(NULL, "no command given (see thaw --help)");
	if (strcmp(name, "help") == 0)
		return help(argc - 1, argv + 1);
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		print_overview(stdout);
		return THAW_EXIT_OK;
	}
	if (strcmp(name, "--version") == 0) {
		puts("thaw " THAW_VERSION_STRING);
		return THAW_EXIT_OK;
	}
	if (name[0] == '-')
		return tool_usage(NULL, "unknown option '%s' (see thaw --help)", name);
#ifdef THAW_WITH_FUSE
	if (strcmp(name, "launch") == 0) /* not listed: only stubs call it */
		return tool_launch(argc - 1, argv + 1);
	if (strcmp(name, "keep") == 0) /* likewise: only keepers */
		return tool_keep(argc - 1, argv + 1);
#endif
	command = find_command(name);
	return command ? command->run(argc - 1, argv + 1) : unknown_command(name);
}

/*
 * Were 0, 1 or 2 closed, an image that we write could get that number, and a
 * message land in it. Filled the wrong way round, so that use is an error still.
 */
static bool fill_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
			continue;
		if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
			return false;
	}
	return true;
}

/* A listing that did not arrive is a failure, whatever the command returned. */
static int finish_output(int exit_code)
{
	int error;

	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return exit_code;
	error = errno ? -errno : -EIO;
	return exit_code > THAW_EXIT_DIFFERENT
		       ? exit_code
		       : tool_fail_output(error);
}

int main(int argc, char **argv)
{
	const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;

	if (!fill_standard_descriptors())
		return THAW_EXIT_IO;
	/*
	 * No setlocale(): LC_CTYPE must stay "C". libarchive would take names for
	 * text of the locale otherwise, and normalise what it thinks is UTF-8.
	 */
	(void)signal(SIGPIPE, SIG_IGN); /* cannot fail; writes report EPIPE instead */
	name = name ? name + 1 : argc > 0 ? argv[0] : "thaw";
	if (strcmp(name, "mount.fuse.thaw") == 0 || strcmp(name, "mount.thaw") == 0)
		return finish_output(tool_mount_helper(argc, argv));
#ifdef THAW_WITH_FUSE
	int exit_code;

	/* Under our own name we are never a launcher: keepers are started by it. */
	if (strcmp(name, "thaw") != 0 && tool_launch_appended(name, argv, &exit_code))
		return exit_code;
#endif
	return finish_output(dispatch(argc, argv));
}
