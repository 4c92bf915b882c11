/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the images that a stub stands for, on the node where it is started. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "stub-internal.h"
#include "thaw/source.h"
#include "util/cleanup.h"

static int read_identity(const char *path, char ret_hex[THAW_DIGEST_HEX])
{
	uint8_t identity[THAW_DIGEST_SIZE];
	struct thaw_source *source;
	int r = thaw_source_open(path, NULL, &source);

	if (r == 0)
		r = thaw_image_identify(source, NULL, identity);
	if (r == 0)
		thaw_digest_hex(identity, ret_hex);
	return r;
}

/* 0: it is the image. Otherwise *ret_why says why not, NULL when it is just not there. */
static int try_file(const struct thaw_stub_image *image, const char *path, const char **ret_why)
{
	char identity[THAW_DIGEST_HEX];
	int r = read_identity(path, identity);

	*ret_why = NULL;
	if (r == 0 && strcmp(identity, image->identity) == 0)
		return 0;
	if (r == 0)
		*ret_why = "another image";
	else if (r == -EBADMSG || r == -EPERM || r == -EFBIG)
		*ret_why = "no image";
	else if (r != -ENOENT && r != -ENOTDIR)
		*ret_why = strerrordesc_np(-r);
	return THAW_NOT_FOUND;
}

/* Where it was looked for, as far as there is room. */
struct places {
	char text[320];
	size_t len;
};

static void add_place(struct places *places, const char *path, const char *why)
{
	size_t room = sizeof(places->text) - places->len;
	int n = snprintf(places->text + places->len, room, "%s%s%s%s%s", places->len ? ", " : "",
			 path, why ? " (" : "", why ? why : "", why ? ")" : "");

	if (n > 0 && (size_t)n < room)
		places->len += (size_t)n;
	else
		places->text[places->len] = '\0'; /* what did not fit is left out */
}

static int try_directory(const struct thaw_stub_image *image, const char *directory,
			 struct places *places, char **ret_path)
{
	const char *why = NULL;

	for (unsigned by_name = 0; by_name <= 1; by_name++) {
		_cleanup_(freep) char *path = NULL;

		if (asprintf(&path, "%s/%s%s", directory, by_name ? image->name : image->identity,
			     by_name ? "" : ".thaw") < 0) {
			path = NULL;
			return -ENOMEM;
		}
		if (try_file(image, path, &why) == 0) {
			*ret_path = steal_ptr(path);
			return 0;
		}
	}
	add_place(places, directory, why);
	return THAW_NOT_FOUND;
}

int thaw_stub_locate(const struct thaw_stub *stub, size_t i, const char *const *directories,
		     size_t count, struct thaw_error *err, char **ret_path)
{
	const struct thaw_stub_image *image = &stub->images[i];
	struct places places = { 0 };
	const char *why;
	int r = THAW_NOT_FOUND;

	for (size_t n = 0; r == THAW_NOT_FOUND && n < count; n++)
		r = try_directory(image, directories[n], &places, ret_path);
	if (r == THAW_NOT_FOUND && image->path) {
		r = try_file(image, image->path, &why);
		if (r == 0) {
			*ret_path = strdup(image->path);
			r = *ret_path ? 0 : -ENOMEM;
		} else {
			add_place(&places, image->path, why);
		}
	}
	if (r == -ENOMEM)
		return thaw_oom(err);
	if (r == THAW_NOT_FOUND)
		(void)thaw_io(err, 0, "the image %.60s (%.16s) is not on this node: looked at %s; "
				      "put it there, or embed it in the stub",
			      image->name, image->identity, places.text);
	return r;
}

/* The file as it is: what precedes the image in it takes room, and harms nobody. */
static int copy(const char *file, const char *path, struct thaw_error *err)
{
	_cleanup_(thaw_output_freep) struct thaw_output *output = NULL;
	_cleanup_(closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return thaw_io(err, -errno, "\"%.300s\"", file);
	r = thaw_output_open(path, false, err, &output);
	if (r == 0)
		r = thaw_output_copy(output, fd, 0, (uint64_t)st.st_size, err);
	return r == 0 ? thaw_output_commit(output, err) : r;
}

int thaw_stub_adopt(const struct thaw_stub_image *image, const char *file,
		    const char *directory, struct thaw_error *err, char **ret_path)
{
	_cleanup_(freep) char *path = NULL;
	const char *why;
	int r;

	if (try_file(image, file, &why) != 0)
		return thaw_damaged(err, "the image in the stub is missing or another one%s%s",
				    why ? ": " : "", why ? why : "");
	if (asprintf(&path, "%s/%s.thaw", directory, image->identity) < 0) {
		path = NULL;
		return thaw_oom(err);
	}
	/* Followed: "/proc/self/exe" is one's own executable file. */
	if (linkat(AT_FDCWD, file, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 && errno != EEXIST) {
		r = copy(file, path, err);
		if (r < 0 && r != -EEXIST && r != -EBUSY)
			return r;
	}
	/* Somebody else's with that name, which is no image or another. */
	if (try_file(image, path, &why) != 0)
		return thaw_io(err, -EEXIST, "\"%.300s\"", path);
	*ret_path = steal_ptr(path);
	return 0;
}
