/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The parts of verifying that come after the frames of the stream. */
#include "thaw/extract.h"
#include "tree.h"

/*
 * Does the image's index say what tree says? One fault for each path that
 * differs, up to a bound. What lies in the annex is no matter of the tree's.
 * Returns -ENOMEM only.
 */
_must_check_ int thaw_verify_index(const struct thaw_image *image,
				   const struct thaw_tree *tree,
				   thaw_verify_fault_fn *fault, void *fault_data,
				   struct thaw_error *err, bool *ret_same);

/* Are the pages of all warm sets those of the files? Failures other than faults: -ENOMEM. */
_must_check_ int thaw_verify_warm(const struct thaw_image *image,
				  thaw_verify_fault_fn *fault, void *fault_data,
				  struct thaw_error *err,
				  struct thaw_verify_result *result);

/* Do placeholders stand where relocations say? Failures other than faults: -ENOMEM. */
_must_check_ int thaw_verify_relocations(const struct thaw_image *image,
					 thaw_verify_fault_fn *fault, void *fault_data,
					 struct thaw_error *err,
					 struct thaw_verify_result *result);
