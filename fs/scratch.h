/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Scratch layers: what a session writes into its view. A directory with "upper"
 * (the files) and "work" (overlayfs's own), of this session alone; either a new one
 * beside others, on disk, or one in memory of a given size.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "thaw/error.h"

/*
 * In a scratch layer's directory: boot and number of the mount namespace that the view is
 * in, the maker's at first. As long as a process is in it, nobody else removes the
 * layer, even when whoever held its lock was killed.
 */
#define THAW_SCRATCH_NAMESPACE "namespace"
/* Say that it is the caller's namespace now. -errno. */
_must_check_ int thaw_scratch_note_namespace(const char *path);
/* Whether any process is in that namespace; true also when that cannot be told. */
bool thaw_scratch_is_in_use(const char *path);

/*
 * Make a new directory below base (a directory of our own, see
 * thaw_state_directory()) and return its path (malloc'ed) and a descriptor: a lock
 * that says that it is in use as long as anybody has the descriptor open. "upper",
 * and with it the view's top directory, belongs to uid and gid. Scratch layers below base
 * that nobody uses any more are removed first. -ENOSPC and the like are class I/O.
 */
_must_check_ int thaw_scratch_new(const char *base, uid_t uid, gid_t gid,
				  struct thaw_error *err, char **ret_path, int *ret_lock);
/*
 * Take up again one that thaw_scratch_new() made and that nobody holds (a service that
 * was restarted), to use it or to remove it: its lock, or -EBUSY.
 */
_must_check_ int thaw_scratch_adopt(const char *path, struct thaw_error *err,
				    int *ret_lock);

/*
 * Mount a file system in memory, of size bytes (0: the kernel's default, half of the
 * memory), on directory and make it a scratch layer. It ends with its mount.
 */
_must_check_ int thaw_scratch_mount(const char *directory, uint64_t size, uid_t uid,
				    gid_t gid, struct thaw_error *err);

/* Bytes that the files of a scratch layer take, as du(1) counts them. */
_must_check_ int thaw_scratch_usage(const char *path, struct thaw_error *err,
				    uint64_t *ret_bytes);

/*
 * Remove all of it, also what its owner closed to us; nothing beyond it. -errno of the
 * first thing that stays. For any tree that nobody else can write to.
 */
_must_check_ int thaw_scratch_remove(const char *path);

/*
 * Remove those below base that nobody uses; their number. What cannot be removed stays.
 */
unsigned thaw_scratch_sweep(const char *base);
