/* SPDX-License-Identifier: Apache-2.0 */
/* thaw keep: how keepers start each other. In no list of commands: nobody types it. */
#include <string.h>

#include "tool.h"

#include "thaw/keep.h"

int tool_keep(int argc, char **argv)
{
	static const struct {
		const char *name;
		enum thaw_keep_how how;
		int fds;
	} ways[] = {
		{ "launch", THAW_KEEP_LAUNCH, 3 },
		{ "adopt", THAW_KEEP_ADOPT, 2 },
		{ "take-over", THAW_KEEP_TAKE_OVER, 3 },
		{ "check", THAW_KEEP_CHECK, 3 },
	};
	struct thaw_error err = { 0 };
	int fds[3] = { -1, -1, -1 };

	for (size_t i = 0; argc > 1 && i < sizeof(ways) / sizeof(ways[0]); i++) {
		if (strcmp(argv[1], ways[i].name) != 0 || argc != 2 + ways[i].fds)
			continue;
		for (int j = 0; j < ways[i].fds; j++) {
			uint64_t number;

			if (!tool_parse_number(argv[2 + j], 3, 1 << 20, &number))
				return tool_usage("keep", "'%s' is no descriptor", argv[2 + j]);
			fds[j] = (int)number;
		}
		return thaw_keep(ways[i].how, fds, &err) < 0 ? tool_fail("keep", &err) :
							       THAW_EXIT_OK;
	}
	return tool_usage("keep", "is for keepers only");
}
