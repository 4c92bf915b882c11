/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A client of the node service. One call at a time; blocking.
 */
#include <jansson.h>

#include "thaw/error.h"

struct thaw_client;

/*
 * Connect to the service at socket or, when that is NULL, to $THAW_SOCKET or the first of
 * these: the socket in our run-time directory, and root's. THAW_NOT_FOUND when
 * no service listens there; err says where it was looked for.
 */
_must_check_ int thaw_client_connect(const char *socket, struct thaw_error *err,
				     struct thaw_client **ret_client);
struct thaw_client *thaw_client_free(struct thaw_client *client);
static inline void thaw_client_freep(struct thaw_client **client)
{
	thaw_client_free(*client);
}

/*
 * Call io.thaw.Node.METHOD. parameters (NULL: none) is taken, fds are borrowed.
 * The service's error becomes err, with its reason as text and the class that fits;
 * its name is returned by thaw_client_error() until the next call.
 */
_must_check_ int thaw_client_call(struct thaw_client *client, const char *method,
				  json_t *parameters, const int *fds, unsigned fd_count,
				  struct thaw_error *err, json_t **ret_parameters);
/* "NotFound", ...; NULL when the last call did not end in an error of the service's. */
const char *thaw_client_error(const struct thaw_client *client);

/*
 * The same for a method that answers with a stream: each answer goes to answer(),
 * which ends the call by a nonzero result, that is then returned.
 */
typedef int thaw_client_answer_fn(void *userdata, json_t *parameters);
_must_check_ int thaw_client_watch(struct thaw_client *client, const char *method,
				   json_t *parameters, thaw_client_answer_fn *answer,
				   void *userdata, struct thaw_error *err);

/*
 * Without a service: the mounts and views that the mount table shows here, an array of
 * {"directory", "identity", "state": "mount" or "view"}. A directory that is no UTF-8 is
 * given in hexadecimal, as "directory_hex".
 */
_must_check_ int thaw_local_views(struct thaw_error *err, json_t **ret_views);
