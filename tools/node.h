/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the commands that talk with the node service share. */
#include <jansson.h>

#include "thaw/client.h"
#include "tool.h"

/* What they take alike. */
#define NODE_OPTIONS(socket, json) \
	TOOL_TEXT("socket", 0, socket), TOOL_FLAG("json", 0, json)

/* Connect, or print why not and return an exit code. */
int node_connect(const char *socket, struct thaw_client **ret_client);
/*
 * Call, or print the error under this name and return an exit code. parameters is
 * taken; *ret_answer is the caller's.
 */
int node_call(struct thaw_client *client, const char *name, const char *method,
	      json_t *parameters, const int *fds, unsigned count, json_t **ret_answer);
/*
 * A directory that need not exist as the service wants it: absolute, its parent
 * resolved. Prints what is wrong.
 */
int node_directory(const char *directory, char **ret_path);
/* Text that JSON can carry, or an error that says that it cannot. */
int node_check_text(const char *what, const char *text);

/* Members of an answer; "" and 0 when they are missing. */
/* "session/NAME" where only a session can be meant: NAME. */
const char *node_session(const char *name);
const char *node_text(const json_t *object, const char *key);
int64_t node_number(const json_t *object, const char *key);

/* cmd-stat.c: what "session/ID", "image/NAME" or a bare NAME means. */
struct node_places {
	char **paths; /* directories whose mounts are meant */
	size_t count, capacity;
};
void node_places_deinit(struct node_places *places);
/*
 * Directories that a name stands for. TOOL_NODE_NONE: it is a directory's path, or
 * nothing that the service knows: to be taken as a path. Otherwise an exit code.
 */
#define TOOL_NODE_NONE (-1)
int node_resolve(const char *name, struct node_places *places);
