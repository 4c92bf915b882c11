/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Giving up what a process does not need. Whoever decodes an image's bytes does
 * so in a process that could not do much if they got the better of it: no
 * capabilities, no new privileges, no files, no programs, few system calls.
 */
#include <stdbool.h>

#include "thaw/error.h"

enum thaw_sandbox {
	THAW_SANDBOX_WORKER, /* descriptors that it has, memory, threads */
	THAW_SANDBOX_PUSHER, /* and reading the kernel's accounts in /proc and /sys */
	THAW_SANDBOX_READER, /* or listing, and reading files, below one place */
	THAW_SANDBOX_CLONER, /* the same, and cloning a mount, for which the capability stays */
	/*
	 * Descriptors, and making and changing files below one place. It must be the root
	 * directory already (chroot(2)), which alone does on kernels whose Landlock cannot.
	 */
	THAW_SANDBOX_RENDERER,
	/* Reading and running what everybody may; as nobody, when root enters it. */
	THAW_SANDBOX_FINDER,
};

/*
 * For the calling process, which must have one thread, and for good. What the
 * kernel does not have is left out: Landlock (5.13) is. place: for those who have one,
 * a descriptor of the only directory below which they may, borrowed; else -1.
 * -errno when system calls cannot be restricted although the kernel could, or a user
 * that is nobody cannot be had.
 */
_must_check_ int thaw_sandbox_enter(enum thaw_sandbox kind, int place);
