/* SPDX-License-Identifier: Apache-2.0 */
/* Options of subcommands: see options.h. */
#include "options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define OPTIONS_MAX 32	/* of a command, --help included */
#define HELP	    256 /* no letter; options of the table are HELP + 1 and on */

bool tool_parse_number(const char *text, uint64_t low, uint64_t high,
		       uint64_t *ret_number)
{
	unsigned long long value;
	char *end;

	if (text[0] < '0' || text[0] > '9') /* strtoull takes signs and blanks */
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end != '\0' || value < low || value > high)
		return false;
	*ret_number = value;
	return true;
}

bool tool_parse_size(const char *text, uint64_t *ret_size)
{
	static const char suffixes[] = "KMGT";
	unsigned long long value;
	unsigned shift = 0;
	const char *suffix;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end != '\0') {
		char upper = *end >= 'a' ? (char)(*end - 32) : *end;

		suffix = strchr(suffixes, upper);
		if (!suffix)
			return false;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		end++;
		if (strcmp(end, "iB") == 0)
			end += 2;
		if (*end != '\0' || value > UINT64_MAX >> shift)
			return false;
	}
	*ret_size = (uint64_t)value << shift;
	return value != 0;
}

int tool_bad_value(const char *command, const char *option, const char *value,
		   const char *what)
{
	return tool_usage(command, "--%s: '%s' is not %s", option, value, what);
}

static int take_number(const char *command, const struct tool_option *option,
		       const char *value)
{
	uint64_t number;
	char what[80];

	if (!tool_parse_number(value, option->low, option->high, &number)) {
		if (option->high == UINT64_MAX)
			(void)snprintf(what, sizeof(what), "a number of at least %llu",
				       (unsigned long long)option->low);
		else
			(void)snprintf(what, sizeof(what), "a number from %llu to %llu",
				       (unsigned long long)option->low,
				       (unsigned long long)option->high);
		return tool_bad_value(command, option->name, value, what);
	}
	if (option->width == sizeof(uint64_t)) {
		memcpy(option->to.number, &number, sizeof(number));
	} else {
		uint32_t narrow = (uint32_t)number;

		assert(option->width == sizeof(narrow) && option->high <= UINT32_MAX);
		memcpy(option->to.number, &narrow, sizeof(narrow));
	}
	return THAW_EXIT_OK;
}

static int take(const char *command, const struct tool_option *option, char *value)
{
	switch (option->kind) {
	case TOOL_OPTION_FLAG:
		*option->to.flag = true;
		break;
	case TOOL_OPTION_TEXT:
		*option->to.text = value;
		break;
	case TOOL_OPTION_NUMBER:
		return take_number(command, option, value);
	case TOOL_OPTION_SIZE:
		if (!tool_parse_size(value, option->to.size))
			return tool_bad_value(command, option->name, value, "a size");
		break;
	case TOOL_OPTION_LIST:
		if (*option->count == option->high)
			return tool_usage(command, "--%s: more than %zu", option->name,
					  *option->count);
		option->to.list[(*option->count)++] = value;
		break;
	case TOOL_OPTION_CALL:
		return option->take(option->to.userdata, option->name, value);
	case TOOL_OPTION_ARGUMENT:
		if (*option->to.text) /* the command, without "--" in front */
			return tool_usage(command, "put -- in front of the command");
		*option->to.text = value;
		break;
	case TOOL_OPTION_STOP:
	case TOOL_OPTION_END:
		break;
	}
	return THAW_EXIT_OK;
}

/* The table as getopt_long() wants it. letters: room for 2 + 2 * OPTIONS_MAX. */
static void translate(const struct tool_option *options, char *letters,
		      struct option *ret_long)
{
	char *letter = letters + 2;
	size_t count = 0;

	letters[0] = ' '; /* the order of arguments, as below */
	letters[1] = ':'; /* so that a missing value is told apart */
	for (size_t i = 0; options[i].kind != TOOL_OPTION_END; i++) {
		const struct tool_option *option = &options[i];
		bool value = option->kind != TOOL_OPTION_FLAG;

		assert(i < OPTIONS_MAX);
		if (option->kind == TOOL_OPTION_STOP)
			letters[0] = '+';
		if (option->kind == TOOL_OPTION_ARGUMENT)
			letters[0] = '-';
		if (option->letter) {
			*letter++ = option->letter;
			if (value)
				*letter++ = ':';
		}
		if (option->name)
			ret_long[count++] = (struct option){
				.name = option->name,
				.has_arg = value ? required_argument : no_argument,
				.val = HELP + 1 + (int)i,
			};
	}
	ret_long[count++] = (struct option){ .name = "help", .val = HELP };
	ret_long[count] = (struct option){ 0 };
	*letter = '\0';
}

/* What getopt_long() returned: a place in the table, a letter, or 1 for an argument. */
static const struct tool_option *find(const struct tool_option *options, int c)
{
	if (c > HELP)
		return &options[c - HELP - 1];
	for (; options->kind != TOOL_OPTION_END; options++)
		if (c == 1 ? options->kind == TOOL_OPTION_ARGUMENT
			   : options->letter == c)
			break;
	assert(options->kind != TOOL_OPTION_END);
	return options;
}

static bool is_assignment(const char *argument)
{
	return strncmp(argument, "--", 2) == 0 && strchr(argument, '=');
}

static int fail_unknown(const char *command, const char *argument)
{
	/* A letter, unless a long option was given a value that it does not take. */
	if (optopt > 0 && optopt < HELP && !is_assignment(argument))
		return tool_usage(command, "unknown option '-%c' (see thaw %s --help)",
				  optopt, command);
	return tool_usage(command, "bad option '%s' (see thaw %s --help)", argument,
			  command);
}

bool tool_options(const struct tool_command *command, int argc, char **argv,
		  const struct tool_option *options, int *ret_exit_code)
{
	struct option long_options[OPTIONS_MAX + 2];
	char order[3 + 2 * OPTIONS_MAX];
	const char *letters;
	int c, r;

	translate(options, order, long_options);
	letters = order[0] == ' ' ? order + 1 : order;
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
		if (c == HELP)
			r = tool_help(command);
		else if (c == ':')
			r = tool_usage(command->name, "option '%s' needs a value",
				       argv[optind - 1]);
		else if (c == '?')
			r = fail_unknown(command->name, argv[optind - 1]);
		else
			r = take(command->name, find(options, c), optarg);
		if (r != THAW_EXIT_OK || c == HELP) {
			*ret_exit_code = r;
			return false;
		}
	}
	return true;
}
