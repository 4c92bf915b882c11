/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thaw keep: how keepers start each other. In no list of commands: what is given
 * as numbers nobody types. By hand, where there is no node service:
 *
 *	thaw keep start IMAGE DIR STATE   keep IMAGE on DIR, with its state in the directory STATE
 *	thaw keep adopt STATE             a new keeper for a worker whose own has died
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

#include "thaw/keep.h"

static int by_hand(int argc, char **argv, int *ret_exit_code)
{
	struct thaw_error err = { 0 };
	int pid, r;

	if (argc == 5 && strcmp(argv[1], "start") == 0)
		r = thaw_keep_start(argv[2], argv[3], argv[4], &err, &pid);
	else if (argc == 3 && strcmp(argv[1], "adopt") == 0)
		r = thaw_keep_adopt(argv[2], &err, &pid);
	else
		return -EINVAL;
	*ret_exit_code = r < 0 ? tool_fail(argv[2], &err) : THAW_EXIT_OK;
	if (r >= 0)
		printf("%d\n", pid);
	return 0;
}

int tool_keep(int argc, char **argv)
{
	static const struct {
		const char *name;
		enum thaw_keep_how how;
		int fds;
	} ways[] = {
		{ "launched", THAW_KEEP_LAUNCH, 3 },
		{ "adopting", THAW_KEEP_ADOPT, 2 },
		{ "take-over", THAW_KEEP_TAKE_OVER, 3 },
		{ "check", THAW_KEEP_CHECK, 3 },
	};
	struct thaw_error err = { 0 };
	int fds[3] = { -1, -1, -1 }, exit_code;

	if (by_hand(argc, argv, &exit_code) == 0)
		return exit_code;
	for (size_t i = 0; argc > 1 && i < sizeof(ways) / sizeof(ways[0]); i++) {
		if (strcmp(argv[1], ways[i].name) != 0 || argc != 2 + ways[i].fds)
			continue;
		for (int j = 0; j < ways[i].fds; j++) {
			uint64_t number;

			if (!tool_parse_number(argv[2 + j], 3, 1 << 20, &number))
				return tool_usage("keep", "'%s' is no descriptor", argv[2 + j]);
			fds[j] = (int)number;
		}
		if (thaw_keep(ways[i].how, fds, &err) < 0)
			return tool_fail("keep", &err);
		return ways[i].how == THAW_KEEP_CHECK ? THAW_KEEP_COULD : THAW_EXIT_OK;
	}
	return tool_usage("keep", "is for keepers only");
}
