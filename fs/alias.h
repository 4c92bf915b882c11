/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The directory that a private view stands on at its alias.
 *
 * One that thaw made is removed when the last view on it has ended, if it is empty. Views
 * of several commands may stand on it, each in a mount namespace of its own, and all would
 * vanish with it: so the janitor of each holds a shared lock (flock) on it, and the
 * janitor of the view that made it waits until its own is the only one.
 */
#include <stdbool.h>

#include "thaw/error.h"

struct thaw_alias {
	int directory; /* open, and locked as long as anybody has it open; -1: none */
	bool made;
};
#define THAW_ALIAS_NONE { .directory = -1 }

/*
 * Make the directory of this name, or take the empty one that is there. -EPERM when it
 * is none, or not empty; I/O.
 */
_must_check_ int thaw_alias_take(const char *name, struct thaw_error *err,
				 struct thaw_alias *ret_alias);
/*
 * Remove it from path, if thaw_alias_take() has made it, nobody has put anything there, and
 * no other view stands on it; wait: when none does any more. The lock is lost in any case.
 */
void thaw_alias_remove(const struct thaw_alias *alias, const char *path, bool wait);
void thaw_alias_deinit(struct thaw_alias *alias);
