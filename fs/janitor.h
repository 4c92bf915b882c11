/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Janitors: processes outside of a view's mount namespace that remove something when the
 * view's mount is gone, whatever ended those who used it.
 *
 * That of a scratch layer on disk holds the layer's lock meanwhile. Should it be killed
 * itself, the next thaw_scratch_new() sees that no process is left in the namespace,
 * and removes it. That of an alias holds the lock of its directory: see alias.h. Should it be
 * killed, the directory stays.
 */
#include "alias.h"
#include "thaw/error.h"

struct thaw_janitor {
	int socket; /* to it; -1: none */
};

/*
 * Start one for the scratch layer at path; lock (of thaw_scratch_new()) is taken.
 * Call in the user namespace that the view is made in, before its mount namespace is
 * entered. Until thaw_janitor_watch(), the end of the caller means that there is no view.
 */
_must_check_ int thaw_janitor_start(const char *path, int lock, struct thaw_error *err,
				    struct thaw_janitor *ret_janitor);
/* The same for the directory of an alias, which is at path; it stays the caller's, too. */
_must_check_ int thaw_janitor_start_alias(const struct thaw_alias *alias, const char *path,
					  struct thaw_error *err,
					  struct thaw_janitor *ret_janitor);
/*
 * From inside of the mount namespace: view is where it stands. For a scratch layer,
 * thaw_scratch_note_namespace() comes before.
 */
_must_check_ int thaw_janitor_watch(struct thaw_janitor *janitor, const char *view,
				    struct thaw_error *err);
/* Without thaw_janitor_watch() before: it removes the layer or directory now. */
void thaw_janitor_deinit(struct thaw_janitor *janitor);
