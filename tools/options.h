/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Options of subcommands: a table says what each is called and where its value
 * goes, and tool_options() does the rest. --help is in no table; all have it.
 *
 *	const struct tool_option options[] = {
 *		TOOL_FLAG("watch", 'w', &watch),
 *		TOOL_TEXT("socket", 0, &socket),
 *		TOOL_NUMBER("days", 0, &days, 0, 36500),
 *		{ 0 },
 *	};
 *	int exit_code;
 *
 *	if (!tool_options(&tool_ps, argc, argv, options, &exit_code))
 *		return exit_code;
 *
 * Arguments are then argv[optind] and on. Values point into argv.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tool_command;

enum tool_option_kind {
	TOOL_OPTION_END,
	TOOL_OPTION_FLAG,
	TOOL_OPTION_TEXT,
	TOOL_OPTION_NUMBER,
	TOOL_OPTION_SIZE,
	TOOL_OPTION_LIST,
	TOOL_OPTION_CALL,
	TOOL_OPTION_ARGUMENT,
	TOOL_OPTION_STOP,
};

/* Takes a value: THAW_EXIT_OK, or an exit code when it has said what is wrong. */
typedef int tool_option_fn(void *userdata, const char *option, char *value);

struct tool_option {
	const char *name; /* without "--"; NULL: a letter only */
	char letter;	  /* or 0 */
	enum tool_option_kind kind;
	union {
		bool *flag;
		const char **text;
		uint64_t *size;
		const char **list;
		void *number, *userdata;
	} to;
	size_t width;  /* of a number: 4 or 8 bytes */
	size_t *count; /* of a list */
	uint64_t low, high;
	tool_option_fn *take;
};

/* Sets a bool. */
#define TOOL_FLAG(option, short_option, target)                                   \
	{                                                                         \
		.name = option, .letter = short_option, .kind = TOOL_OPTION_FLAG, \
		.to.flag = target                                                 \
	}
/* The last value given, as it is. */
#define TOOL_TEXT(option, short_option, target)                                   \
	{                                                                         \
		.name = option, .letter = short_option, .kind = TOOL_OPTION_TEXT, \
		.to.text = target                                                 \
	}
/* A decimal number in bounds, into an integer of 4 or 8 bytes that can hold both. */
#define TOOL_NUMBER(option, short_option, target, least, most)                      \
	{                                                                           \
		.name = option, .letter = short_option, .kind = TOOL_OPTION_NUMBER, \
		.to.number = target, .width = sizeof(*(target)), .low = least,      \
		.high = most                                                        \
	}
#define TOOL_THREADS(target) TOOL_NUMBER("threads", 0, target, 1, 1024)
/* Above 0; K, M, G and T are understood: into a uint64_t. */
#define TOOL_SIZE(option, short_option, target)                                   \
	{                                                                         \
		.name = option, .letter = short_option, .kind = TOOL_OPTION_SIZE, \
		.to.size = target                                                 \
	}
/* May be given again, at most so often: texts are added to an array, and counted. */
#define TOOL_LIST(option, short_option, array, counter, most)                     \
	{                                                                         \
		.name = option, .letter = short_option, .kind = TOOL_OPTION_LIST, \
		.to.list = array, .count = counter, .high = most                  \
	}
/* Whatever else: a function is called for each value, in the order of the line. */
#define TOOL_CALL(option, short_option, function, data)                           \
	{                                                                         \
		.name = option, .letter = short_option, .kind = TOOL_OPTION_CALL, \
		.to.userdata = data, .take = function                             \
	}
/*
 * One argument, a const char *, with options on both sides of it, but none behind
 * "--", where somebody else's command begins.
 */
#define TOOL_ARGUMENT(target)                                    \
	{                                                        \
		.kind = TOOL_OPTION_ARGUMENT, .to.text = target, \
	}
/* Options end at the first argument. */
#define TOOL_STOP                         \
	{                                 \
		.kind = TOOL_OPTION_STOP, \
	}

/*
 * False when the command is over: *ret_exit_code is THAW_EXIT_OK when the help was
 * printed, and otherwise what an error, which was printed, makes it.
 */
bool tool_options(const struct tool_command *command, int argc, char **argv,
		  const struct tool_option *options, int *ret_exit_code);

/* "--NAME: 'VALUE' is not WHAT", and THAW_EXIT_USAGE. */
int tool_bad_value(const char *command, const char *option, const char *value,
		   const char *what);
/* The whole text. Signs, blanks and suffixes are none of a number's. */
bool tool_parse_size(const char *text, uint64_t *ret_size); /* above 0 */
bool tool_parse_number(const char *text, uint64_t low, uint64_t high,
		       uint64_t *ret_number);
