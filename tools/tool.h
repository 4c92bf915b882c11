/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the subcommands share: the table of commands, errors, names on a terminal,
 * and open images; in options.h, options.
 *
 * A command gets its own argv (argv[0] is its name) and returns an exit code.
 * Before it fails it has printed one line on stderr, through the functions here.
 */
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "thaw/error.h"
#include "thaw/image.h"
#include "thaw/reader.h"

#include "options.h"

struct tool_command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary; /* for the list of commands */
	const char *help;    /* what --help prints; 80 columns at most */
};

extern const struct tool_command tool_cat, tool_close, tool_diff, tool_doctor, tool_extract,
	tool_gc, tool_images, tool_info, tool_ls, tool_mount, tool_open, tool_pack, tool_ps,
	tool_report, tool_run, tool_serve, tool_stat, tool_stub, tool_umount, tool_verify, tool_warm;

/* cmd-mount.c: as mount(8) calls us, under the name mount.fuse.thaw or mount.thaw */
int tool_mount_helper(int argc, char **argv);

/* cmd-keep.c: the subcommand by which keepers start each other. */
int tool_keep(int argc, char **argv);

/*
 * stub/launch.c: the programs of a stub. tool_launch() is the subcommand that those of
 * an archive call. tool_launch_appended(): is this executable a launcher itself, with
 * a stub behind it? Then become that under the name given, or fail with *ret_exit_code.
 */
int tool_launch(int argc, char **argv);
bool tool_launch_appended(const char *name, char **argv, int *ret_exit_code);

/*
 * Errors. Each prints one line, "thaw: FILE: CAUSE", and returns the exit code.
 * Names may hold any bytes: what could confuse a terminal is escaped.
 */
int tool_fail(const char *file, const struct thaw_error *err);
/* "thaw: FILE: PATH: CAUSE", of a path inside an image */
int tool_fail_inside(const char *file, const char *path, const struct thaw_error *err);
int tool_fail_errno(const char *file, int error); /* negative errno; class I/O */
/* The same of standard output. Does not return, by SIGPIPE, where nobody reads a pipe. */
int tool_fail_output(int error);
int tool_fail_text(enum thaw_exit exit_code, const char *file, const char *format, ...)
	_printf_(3, 4);
int tool_usage(const char *command, const char *format, ...) _printf_(2, 3);

int tool_help(const struct tool_command *command);

/* "IMAGE#ALIAS": cuts IMAGE off; *ret_alias points behind the last '#', or is NULL. */
void tool_split_alias(char *image, const char **ret_alias);

/* Images. */
int tool_open_image(const char *file, struct thaw_image **ret_image);
int tool_open_reader(const char *file, const struct thaw_image *image,
		     struct thaw_reader **ret_reader);
/*
 * Resolve a path inside an image, following symlinks that stay inside (the last
 * component's only when asked): 0, or a negative errno: -ENOENT, -ENOTDIR,
 * -ELOOP, -ENAMETOOLONG, or -EXDEV for a link that leads out of the image.
 */
_must_check_ int tool_resolve(const struct thaw_image *image, const char *path,
			      bool follow_last, struct thaw_inode *ret_inode);
int tool_fail_path(const char *file, const char *path, int error);

/* Interrupts: SIGINT and SIGTERM are remembered; a second one kills. */
void tool_catch_interrupts(void);
int tool_interrupted(void); /* the signal's number, or 0 */
/* Says that the work was broken off; returns 128 + signal. */
int tool_fail_interrupted(const char *file, const char *state);
/* A launcher that is linked dynamically was put into something for other machines. */
void tool_warn_dynamic(void);

/* Text. Escaped: what could steer a terminal, and bytes that are no UTF-8, as \xNN. */
void tool_print_escaped(FILE *file, const char *text, size_t len);
size_t tool_escaped_width(const char *text, size_t len);
/* "183.2 MiB" */
#define TOOL_SIZE_TEXT 32
const char *tool_size_text(uint64_t size, char buf[TOOL_SIZE_TEXT]);
/* "2024-05-01T12:00:00Z" */
#define TOOL_TIME_TEXT 32
const char *tool_time_text(uint32_t seconds, char buf[TOOL_TIME_TEXT]);
char tool_type_letter(enum thaw_inode_type type); /* as in ls -l */
const char *tool_type_name(enum thaw_inode_type type);

/*
 * JSON. Strings must be UTF-8 there; names need not be. tool_json_name() sets
 * key, with U+FFFD for what is no UTF-8, and then also KEY_hex with the exact bytes.
 */
void tool_json_name(json_t *object, const char *key, const char *text, size_t len);
void tool_json_digest(json_t *object, const char *key,
		      const uint8_t digest[THAW_DIGEST_SIZE]);
/* Prints and frees. */
int tool_json_print(json_t *value);
