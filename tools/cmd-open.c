/* SPDX-License-Identifier: Apache-2.0 */
/* thaw open: a view of an image for a session, held by the node service. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node.h"
#include "thaw/directories.h"
#include "thaw/pack.h"
#include "util/cleanup.h"

#define LAYERS_MAX 8

struct opening {
	const char *socket, *session, *image, *directory, *warm;
	const char *layers[LAYERS_MAX];
	size_t layer_count;
	bool writable, shared, json;
	uint64_t scratch_size;
	json_t *labels, *lease;
	int64_t uid, gid; /* -1: ours */
};

#ifdef THAW_WITH_FUSE

/* -- archives: packed once, and found again -- */

static bool is_image(int fd, struct thaw_error *err)
{
	uint8_t identity[THAW_DIGEST_SIZE];
	struct thaw_source *source;
	int r = thaw_source_from_fd(fd, err, &source);

	if (r == 0)
		r = thaw_image_identify(source, err, identity);
	/* Cut short or not an image at all; anything else is for the service to say. */
	return r != -EBADMSG;
}

static json_t *source_parameters(const char *path)
{
	return json_pack("{s:s, s:i}", "source", path, "fd", 0);
}

/* A packed image that is still what it was: its descriptor, or -1. */
static int known_image(struct thaw_client *client, const char *path, int archive)
{
	uint8_t found[THAW_DIGEST_SIZE];
	_cleanup_(closep) int fd = -1;
	char hex[THAW_DIGEST_HEX];
	struct thaw_source *source;
	json_t *answer;
	bool same = false;

	if (thaw_client_call(client, "Lookup", source_parameters(path), &archive, 1, NULL,
			     &answer) < 0)
		return -1;
	/* A hint, and perhaps somebody's lie: nothing that waits. */
	fd = open(node_text(answer, "path"), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0 && thaw_source_from_fd(fd, NULL, &source) == 0 &&
	    thaw_image_identify(source, NULL, found) == 0) {
		thaw_digest_hex(found, hex);
		same = strcmp(hex, node_text(answer, "identity")) == 0;
	}
	json_decref(answer);
	return same ? steal_fd(&fd) : -1;
}

/* "environment.tar.gz": "environment" */
static size_t stem_length(const char *name)
{
	static const char *const suffixes[] = { ".tar.gz",  ".tar.zst", ".tar.xz",
						".tar.bz2", ".tgz",	".tar",
						".zip",	    ".pex" };
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t n = strlen(suffixes[i]);

		if (len > n && strcmp(name + len - n, suffixes[i]) == 0)
			return len - n;
	}
	return len;
}

static int pack(struct thaw_client *client, const char *path, int archive,
		const char *store, int *ret_fd)
{
	const char *name = strrchr(path, '/') + 1;
	_cleanup_(freep) char *temporary = NULL;
	_cleanup_(freep) char *final = NULL;
	struct thaw_pack_options options = { .force = true };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	char hex[THAW_DIGEST_HEX];
	json_t *parameters, *answer;
	int fd, r = THAW_EXIT_OK;

	if (asprintf(&temporary, "%s/.%d.thaw", store, (int)getpid()) < 0) {
		temporary = NULL;
		return tool_fail_errno(path, -ENOMEM);
	}
	if (thaw_pack(path, temporary, &options, &err, &report) < 0)
		return tool_fail(path, &err);
	thaw_digest_hex(report.image.identity, hex);
	if (asprintf(&final, "%s/%.*s-%.16s.thaw", store, (int)stem_length(name), name,
		     hex) < 0) {
		final = NULL;
		r = tool_fail_errno(path, -ENOMEM);
	}
	if (r == THAW_EXIT_OK && rename(temporary, final) < 0)
		r = tool_fail_errno(final, -errno);
	if (r != THAW_EXIT_OK) {
		(void)unlink(temporary);
		return r;
	}
	fd = open(final, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return tool_fail_errno(final, -errno);
	*ret_fd = fd;
	parameters = source_parameters(path);
	(void)json_object_set_new(parameters, "path", json_string(final));
	(void)json_object_set_new(parameters, "identity", json_string(hex));
	/* Without it, the next time is as long as this one: no reason to fail. */
	if (thaw_client_call(client, "Register", parameters, &archive, 1, NULL,
			     &answer) == 0)
		json_decref(answer);
	return r;
}

static int open_archive(struct thaw_client *client, const char *file, int archive,
			int *ret_fd)
{
	_cleanup_(freep) char *path = realpath(file, NULL);
	_cleanup_(freep) char *store = NULL;
	_cleanup_(freep) char *lock_path = NULL;
	_cleanup_(closep) int lock = -1;
	struct thaw_error err = { 0 };
	struct stat st;
	int r;

	if (!path || fstat(archive, &st) < 0)
		return tool_fail_errno(file, -errno);
	r = node_check_text(file, path);
	if (r != THAW_EXIT_OK)
		return r;
	*ret_fd = known_image(client, path, archive);
	if (*ret_fd >= 0)
		return THAW_EXIT_OK;
	if (thaw_state_directory("images", NULL, &err, &store) < 0)
		return tool_fail(file, &err);
	if (asprintf(&lock_path, "%s/.packing-%llx-%llx.lock", store,
		     (unsigned long long)st.st_dev, (unsigned long long)st.st_ino) < 0) {
		lock_path = NULL;
		return tool_fail_errno(file, -ENOMEM);
	}
	/* Of many that open one archive at once, one packs it, and the others find it packed. */
	lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	while (lock >= 0 && flock(lock, LOCK_EX) < 0 && errno == EINTR)
		;
	*ret_fd = lock >= 0 ? known_image(client, path, archive) : -1;
	if (*ret_fd < 0)
		r = pack(client, path, archive, store, ret_fd);
	if (lock >= 0)
		(void)unlink(
			lock_path); /* whoever waits holds the same file, and looks again */
	return r;
}

static int open_image(struct thaw_client *client, const char *file, int *ret_fd)
{
	_cleanup_(closep) int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct thaw_error err = { 0 };
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return tool_fail_errno(file, -errno);
	if (S_ISDIR(st.st_mode))
		return tool_fail_text(THAW_EXIT_REFUSED, file,
				      "is a directory: thaw pack makes an image of it");
	if (!S_ISREG(st.st_mode))
		return tool_fail_text(THAW_EXIT_REFUSED, file, "is no regular file");
	if (!is_image(fd, &err))
		return open_archive(client, file, fd, ret_fd);
	*ret_fd = steal_fd(&fd);
	return THAW_EXIT_OK;
}

/* -- the call -- */

static json_t *parameters_of(const struct opening *opening, const char *directory)
{
	json_t *layers = json_array();
	json_t *object = json_pack(
		"{s:s, s:s, s:i, s:s, s:b, s:b, s:o, s:O, s:O}", "session",
		opening->session, "image", opening->image, "fd", 0, "directory",
		directory, "writable", opening->writable, "shared", opening->shared,
		"layers", layers, "labels", opening->labels, "lease", opening->lease);

	for (size_t i = 0; i < opening->layer_count; i++)
		(void)json_array_append_new(layers, json_pack("{s:s, s:i}", "image",
							      opening->layers[i], "fd",
							      (int)i + 1));
	if (opening->scratch_size)
		(void)json_object_set_new(
			object, "scratch_size",
			json_integer((json_int_t)opening->scratch_size));
	if (opening->warm)
		(void)json_object_set_new(object, "warm", json_string(opening->warm));
	if (opening->uid >= 0)
		(void)json_object_set_new(object, "uid", json_integer(opening->uid));
	if (opening->gid >= 0)
		(void)json_object_set_new(object, "gid", json_integer(opening->gid));
	return object;
}

static int check_texts(const struct opening *opening)
{
	int r = node_check_text(opening->session, opening->session);

	if (r == THAW_EXIT_OK)
		r = node_check_text(opening->image, opening->image);
	for (size_t i = 0; r == THAW_EXIT_OK && i < opening->layer_count; i++)
		r = node_check_text(opening->layers[i], opening->layers[i]);
	return r;
}

static int open_view(const struct opening *opening)
{
	_cleanup_(thaw_client_freep) struct thaw_client *client = NULL;
	_cleanup_(freep) char *directory = NULL;
	int fds[1 + LAYERS_MAX];
	unsigned count = 0;
	json_t *answer;
	int r = check_texts(opening);

	if (r == THAW_EXIT_OK)
		r = node_directory(opening->directory, &directory);
	if (r == THAW_EXIT_OK)
		r = node_connect(opening->socket, &client);
	for (size_t i = 0; r == THAW_EXIT_OK && i < 1 + opening->layer_count; i++) {
		r = open_image(client, i == 0 ? opening->image : opening->layers[i - 1],
			       &fds[i]);
		count += r == THAW_EXIT_OK;
	}
	if (r == THAW_EXIT_OK)
		r = node_call(client, opening->directory, "Open",
			      parameters_of(opening, directory), fds, count, &answer);
	for (unsigned i = 0; i < count; i++)
		(void)close(fds[i]);
	if (r != THAW_EXIT_OK)
		return r;
	if (opening->json)
		return tool_json_print(answer);
	json_decref(answer);
	return THAW_EXIT_OK;
}
#else
static int open_view(const struct opening *opening)
{
	return tool_fail_text(THAW_EXIT_IO, opening->image,
			      "this thaw was built without FUSE");
}
#endif

/* -- options -- */

static int take_label(void *userdata, const char *option, char *text)
{
	struct opening *opening = userdata;
	char *value = strchr(text, '=');

	if (!value || value == text)
		return tool_bad_value("open", option, text, "NAME=VALUE");
	*value++ = '\0';
	if (json_object_set_new(opening->labels, text, json_string(value)) < 0)
		return tool_usage("open", "--%s: '%s=%s' is no UTF-8", option, text,
				  value);
	return THAW_EXIT_OK;
}

static int take_lease(void *userdata, const char *option, char *text)
{
	struct opening *opening = userdata;
	uint64_t number;

	json_decref(opening->lease);
	opening->lease = NULL;
	if (strncmp(text, "pid:", 4) == 0 &&
	    tool_parse_number(text + 4, 1, INT_MAX, &number))
		opening->lease = json_pack("{s:s, s:I}", "kind", "process", "pid",
					   (json_int_t)number);
	else if (strncmp(text, "ttl:", 4) == 0 &&
		 tool_parse_number(text + 4, 1, INT_MAX, &number))
		opening->lease = json_pack("{s:s, s:I}", "kind", "ttl", "seconds",
					   (json_int_t)number);
	else
		return tool_bad_value("open", option, text, "pid:N or ttl:SECONDS");
	return opening->lease ? THAW_EXIT_OK : tool_fail_errno(NULL, -ENOMEM);
}

static int take_user(void *userdata, const char *option, char *text)
{
	struct opening *opening = userdata;
	char *colon = strchr(text, ':');
	uint64_t uid, gid;
	bool good;

	if (colon)
		*colon = '\0';
	good = tool_parse_number(text, 0, UINT32_MAX - 1, &uid) &&
	       (!colon || tool_parse_number(colon + 1, 0, UINT32_MAX - 1, &gid));
	if (colon)
		*colon = ':';
	if (!good)
		return tool_bad_value("open", option, text, "UID or UID:GID");
	opening->uid = (int64_t)uid;
	if (colon)
		opening->gid = (int64_t)gid;
	return THAW_EXIT_OK;
}

static int run_with(struct opening *opening, int argc, char **argv)
{
	const struct tool_option options[] = {
		TOOL_FLAG("writable", 0, &opening->writable),
		TOOL_SIZE("scratch-size", 0, &opening->scratch_size),
		TOOL_LIST("layer", 0, opening->layers, &opening->layer_count, LAYERS_MAX),
		TOOL_CALL("label", 0, take_label, opening),
		TOOL_CALL("lease", 0, take_lease, opening),
		TOOL_FLAG("shared", 0, &opening->shared),
		TOOL_TEXT("warm", 0, &opening->warm),
		TOOL_CALL("user", 0, take_user, opening),
		NODE_OPTIONS(&opening->socket, &opening->json),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_open, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 3)
		return tool_usage("open",
				  "a session, an image and a directory are needed");
	if (opening->scratch_size && !opening->writable)
		return tool_usage("open",
				  "--scratch-size has no meaning without --writable");
	opening->session = argv[optind];
	opening->image = argv[optind + 1];
	opening->directory = argv[optind + 2];
	if (!opening->lease) /* until closed */
		opening->lease = json_pack("{s:s}", "kind", "ttl");
	return open_view(opening);
}

static int run(int argc, char **argv)
{
	struct opening opening = { .labels = json_object(), .uid = -1, .gid = -1 };
	int r = run_with(&opening, argc, argv);

	json_decref(opening.labels);
	json_decref(opening.lease);
	return r;
}

const struct tool_command tool_open = {
	.name = "open",
	.run = run,
	.summary = "open a view of an image for a session",
	.help = "Usage: thaw open [OPTION...] SESSION IMAGE DIR\n"
		"\n"
		"Asks the node service for a view of IMAGE at DIR, which must be missing (then\n"
		"it is made, and removed with the view) or an empty directory of one's own.\n"
		"Asking again for the same view is no error. An archive in the place of IMAGE\n"
		"is packed first, once.\n"
		"\n"
		"  --writable           with a scratch layer of this session's alone\n"
		"  --scratch-size=SIZE  keep that in memory, and no more than SIZE\n"
		"  --layer=IMAGE        stack another image over it (may be repeated)\n"
		"  --lease=LEASE        pid:N as long as that process lives, ttl:SECONDS; else\n"
		"                       until it is closed\n"
		"  --label=NAME=VALUE   shown by thaw ps (may be repeated)\n"
		"  --shared             others may see and attach it\n"
		"  --warm=SETS          warm sets to use: all (default), none, or a name\n"
		"  --user=UID[:GID]     for another user (root only)\n"
		"  --socket=PATH        of the node service\n"
		"  --json               print the view as JSON\n"
		"  --help               show this help\n",
};
