/* SPDX-License-Identifier: Apache-2.0 */
/* Talking with the node service, for all commands that do. */
#include "node.h"

#ifdef THAW_WITH_FUSE
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/growing.h"

int node_connect(const char *socket, struct thaw_client **ret_client)
{
	struct thaw_error err = { 0 };
	int r = thaw_client_connect(socket, &err, ret_client);

	return r != 0 ? tool_fail(NULL, &err) : THAW_EXIT_OK;
}

int node_call(struct thaw_client *client, const char *name, const char *method,
	      json_t *parameters, const int *fds, unsigned count, json_t **ret_answer)
{
	struct thaw_error err = { 0 };
	int r = thaw_client_call(client, method, parameters, fds, count, &err,
				 ret_answer);

	return r < 0 ? tool_fail(name, &err) : THAW_EXIT_OK;
}

int node_check_text(const char *what, const char *text)
{
	json_t *probe = json_string(text);

	if (!probe)
		return tool_fail_text(
			THAW_EXIT_REFUSED, what,
			"is no UTF-8, which the node service's protocol cannot carry");
	json_decref(probe);
	return THAW_EXIT_OK;
}

int node_directory(const char *directory, char **ret_path)
{
	_cleanup_(freep) char *copy = strdup(directory);
	char parent[PATH_MAX], *slash, *name;
	size_t len = copy ? strlen(copy) : 0;

	if (!copy)
		return tool_fail_errno(directory, -ENOMEM);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	name = slash ? slash + 1 : copy;
	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return tool_fail_text(THAW_EXIT_REFUSED, directory,
				      "is no name of a directory");
	if (slash)
		*slash = '\0';
	if (!realpath(!slash ? "." : slash == copy ? "/" : copy, parent))
		return tool_fail_errno(directory, -errno);
	if (asprintf(ret_path, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name) < 0)
		return tool_fail_errno(directory, -ENOMEM);
	return node_check_text(directory, *ret_path);
}

const char *node_session(const char *name)
{
	return strncmp(name, "session/", 8) == 0 ? name + 8 : name;
}

const char *node_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

int64_t node_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* -- names -- */

void node_places_deinit(struct node_places *places)
{
	for (size_t i = 0; i < places->count; i++)
		free(places->paths[i]);
	free(places->paths);
	*places = (struct node_places){ 0 };
}

static int add_place(struct node_places *places, const char *path)
{
	for (size_t i = 0; i < places->count; i++)
		if (strcmp(places->paths[i], path) == 0)
			return 0;
	if (grow(&places->paths, &places->capacity, places->count + 1, sizeof(char *)) <
	    0)
		return -ENOMEM;
	places->paths[places->count] = strdup(path);
	if (!places->paths[places->count])
		return -ENOMEM;
	places->count++;
	return 0;
}

/* "env.thaw" is also called "env", and by the beginning of its identity. */
static bool image_is_called(const json_t *image, const char *name)
{
	const char *file = node_text(image, "image"), *slash = strrchr(file, '/');
	size_t len = strlen(name), base_len;

	file = slash ? slash + 1 : file;
	base_len = strlen(file);
	if (base_len > 5 && strcmp(file + base_len - 5, ".thaw") == 0)
		base_len -= 5;
	return strcmp(file, name) == 0 ||
	       (len == base_len && strncmp(file, name, len) == 0) ||
	       (len >= 8 && strncmp(node_text(image, "identity"), name, len) == 0);
}

static int sessions_called(struct thaw_client *client, const char *name,
			   struct node_places *places)
{
	json_t *answer, *view;
	size_t i;
	int r = node_call(client, name, "List", json_pack("{s:s}", "session", name), NULL,
			  0, &answer);

	if (r != THAW_EXIT_OK)
		return r;
	json_array_foreach(json_object_get(answer, "views"), i,
			   view) if (add_place(places, node_text(view, "directory")) < 0)
		r = tool_fail_errno(name, -ENOMEM);
	json_decref(answer);
	return r;
}

static int images_called(struct thaw_client *client, const char *name,
			 struct node_places *places)
{
	json_t *answer, *image;
	size_t i;
	int r = node_call(client, name, "Images", NULL, NULL, 0, &answer);

	if (r != THAW_EXIT_OK)
		return r;
	json_array_foreach(json_object_get(answer, "images"), i,
			   image) if (json_object_get(image, "directory") &&
				      image_is_called(image, name) &&
				      add_place(places, node_text(image, "directory")) <
					      0) r = tool_fail_errno(name, -ENOMEM);
	json_decref(answer);
	return r;
}

static int resolve_bare(struct thaw_client *client, const char *name,
			struct node_places *places)
{
	struct node_places images = { 0 };
	struct stat st;
	bool directory = stat(name, &st) == 0 && S_ISDIR(st.st_mode);
	int r = sessions_called(client, name, places);

	if (r == THAW_EXIT_OK)
		r = images_called(client, name, &images);
	if (r == THAW_EXIT_OK && (places->count > 0) + (images.count > 0) + directory > 1)
		r = tool_fail_text(
			THAW_EXIT_REFUSED, name, "is ambiguous:%s%s%s%s%s%s%s",
			places->count ? " session/" : "", places->count ? name : "",
			images.count ? (places->count ? " or image/" : " image/") : "",
			images.count ? name : "", directory ? " or ./" : "",
			directory ? name : "", "");
	if (r == THAW_EXIT_OK && images.count > 0) {
		node_places_deinit(places);
		*places = images;
		return r;
	}
	node_places_deinit(&images);
	if (r == THAW_EXIT_OK && places->count == 0)
		r = TOOL_NODE_NONE;
	return r;
}

int node_resolve(const char *name, struct node_places *places)
{
	_cleanup_(thaw_client_freep) struct thaw_client *client = NULL;
	bool session = strncmp(name, "session/", 8) == 0,
	     image = strncmp(name, "image/", 6) == 0;
	struct thaw_error err = { 0 };
	int r;

	if (!session && !image && strchr(name, '/'))
		return TOOL_NODE_NONE;
	r = thaw_client_connect(NULL, &err, &client);
	/* Without a service, or one that hears us, a bare name can only be a directory's. */
	if (r != 0 && !session && !image)
		return TOOL_NODE_NONE;
	if (r != 0)
		return tool_fail(name, &err);
	if (!session && !image)
		return resolve_bare(client, name, places);
	r = session ? sessions_called(client, name + 8, places)
		    : images_called(client, name + 6, places);
	if (r == THAW_EXIT_OK && places->count == 0)
		r = tool_fail_text(THAW_EXIT_REFUSED, name, "there is no such %s",
				   session ? "session" : "image");
	return r;
}
#endif
