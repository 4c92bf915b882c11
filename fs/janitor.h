/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The janitor of a scratch layer on disk: a process outside of the view's mount
 * namespace that removes the layer when the view's mount is gone, whatever ended
 * those who used it. It holds the layer's lock meanwhile. Should it be killed itself,
 * the next thaw_scratch_new() sees that no process is left in the namespace, and
 * removes it.
 */
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
/* From inside of the mount namespace: view is where it stands. */
_must_check_ int thaw_janitor_watch(struct thaw_janitor *janitor, const char *path,
				    const char *view, struct thaw_error *err);
/* Without thaw_janitor_watch() before: it removes the layer now. */
void thaw_janitor_deinit(struct thaw_janitor *janitor);
