/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Confining what is run out of an image that somebody packs: its interpreter, and
 * its packages, when they are compiled or tried.
 */
#include "thaw/error.h"

/*
 * For a process with one thread that has entered a private view (thaw/view.h)
 * with a scratch layer: from here on no network, no capabilities, no other
 * processes than its own children to signal, no sockets to the machine's
 * services, and nothing that can be written but the view at path. Children of
 * this process, not it itself, are in the new process namespace.
 */
_must_check_ int thaw_confine(const char *path, struct thaw_error *err);
