/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The namespaces that a private view is made in. For processes of one thread. */
#include <stdbool.h>

#include "thaw/error.h"

/* Whether we may mount where we are: CAP_SYS_ADMIN. Else a user namespace gives it. */
bool thaw_may_mount(void);

/*
 * A user namespace in which we are who we are. Mapped to ourselves, not to root:
 * programs inside see the ids that they expect, and own their files.
 */
_must_check_ int thaw_enter_user_namespace(struct thaw_error *err);
/*
 * The same, after a child has tried both: when it fails, nothing has changed. For
 * callers that have something else to do then.
 */
_must_check_ int thaw_enter_namespaces_or_stay(struct thaw_error *err,
					       bool *ret_user_namespace);

/*
 * A mount namespace: what is mounted outside still arrives; what we mount does not
 * leave.
 */
_must_check_ int thaw_enter_mount_namespace(struct thaw_error *err);
