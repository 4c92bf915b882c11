/* SPDX-License-Identifier: Apache-2.0 */
/* thaw mount and umount, and the helper that mount(8) calls for type fuse.thaw. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "thaw/mount.h"
#include "tool.h"
#include "util/cleanup.h"

#ifdef THAW_WITH_FUSE
static int do_mount(const char *image, const char *directory,
		    const struct thaw_mount_options *options)
{
	struct thaw_error err = { 0 };
	int r = thaw_mount(image, directory, options, &err);

	return r < 0 ? tool_fail(image, &err) : THAW_EXIT_OK;
}

static int do_umount(const char *directory, bool lazy)
{
	struct thaw_error err = { 0 };
	int r = thaw_umount(directory, lazy, &err);

	return r < 0 ? tool_fail(directory, &err) : THAW_EXIT_OK;
}
#else
static int do_mount(const char *image, const char *directory,
		    const struct thaw_mount_options *options)
{
	return tool_fail_text(THAW_EXIT_IO, image, "this thaw was built without FUSE: "
			      "use thaw extract");
}

static int do_umount(const char *directory, bool lazy)
{
	return tool_fail_text(THAW_EXIT_IO, directory, "this thaw was built without FUSE");
}
#endif

/* "-o a -o b" means "-o a,b". */
static int add_options(void *userdata, const char *option, char *more)
{
	char **options = userdata;
	char *joined;

	(void)option;
	if (asprintf(&joined, "%s%s%s", *options ? *options : "", *options ? "," : "", more) < 0)
		return tool_fail_errno(NULL, -ENOMEM);
	free(*options);
	*options = joined;
	return THAW_EXIT_OK;
}

/*
 * mount(8) says "rw" unless told otherwise: that is nobody's wish, unlike the
 * same word given to thaw mount. Cuts it out, in place.
 */
static void drop_rw(char *options)
{
	char *to = options;

	for (const char *from = options; from && *from;) {
		size_t len = strcspn(from, ","), whole = len + (from[len] == ',');

		if (len != 2 || strncmp(from, "rw", 2) != 0) {
			memmove(to, from, whole);
			to += whole;
		}
		from += whole;
	}
	if (options)
		*to = '\0';
}

/* "warm=SETS" is for us, not for the kernel: cut out, in place; the last one counts. */
static int take_warm(char *options, char **warm)
{
	char *to = options;

	for (const char *from = options; from && *from;) {
		size_t len = strcspn(from, ","), whole = len + (from[len] == ',');

		if (strncmp(from, "warm=", 5) == 0) {
			free(*warm);
			*warm = strndup(from + 5, len - 5);
			if (!*warm)
				return tool_fail_errno(NULL, -ENOMEM);
		} else {
			memmove(to, from, whole);
			to += whole;
		}
		from += whole;
	}
	if (options)
		*to = '\0';
	return THAW_EXIT_OK;
}

static int run_mount(int argc, char **argv)
{
	_cleanup_(freep) char *mount_options = NULL;
	_cleanup_(freep) char *warm = NULL;
	struct thaw_mount_options mount = { 0 };
	unsigned hang_seconds = 0;
	const struct tool_option options[] = {
		TOOL_FLAG("foreground", 'f', &mount.foreground),
		TOOL_THREADS(&mount.threads),
		TOOL_SIZE("cache-size", 0, &mount.cache_bytes),
		TOOL_TEXT("warm", 0, &mount.warm),
		TOOL_FLAG("wait-warm", 0, &mount.wait_warm),
		TOOL_NUMBER("hang-limit", 0, &hang_seconds, 1, 86400),
		TOOL_CALL("options", 'o', add_options, &mount_options),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_mount, argc, argv, options, &exit_code))
		return exit_code;
	mount.hang_ms = hang_seconds * 1000;
	if (argc - optind != 2)
		return tool_usage("mount", "an image and a directory are needed");
	if (mount.foreground && mount.wait_warm)
		return tool_usage("mount", "--wait-warm has no meaning with --foreground");
	if (take_warm(mount_options, &warm))
		return THAW_EXIT_IO;
	if (!mount.warm)
		mount.warm = warm;
	mount.options = mount_options;
	return do_mount(argv[optind], argv[optind + 1], &mount);
}

/*
 * mount(8) calls: mount.fuse.thaw IMAGE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]
 * [-t TYPE]. -s tolerates options we do not know, -f is a dry run, -n and -v
 * change nothing here.
 */
int tool_mount_helper(int argc, char **argv)
{
	_cleanup_(freep) char *mount_options = NULL;
	_cleanup_(freep) char *warm = NULL;
	struct thaw_mount_options mount = { 0 };
	bool dry = false;
	int c;

	opterr = 0;
	while ((c = getopt(argc, argv, "sfnvN:o:t:")) != -1) {
		switch (c) {
		case 'f':
			dry = true;
			break;
		case 'o':
			if (add_options(&mount_options, "options", optarg))
				return THAW_EXIT_IO;
			break;
		case 's':
		case 'n':
		case 'v':
		case 't':
			break;
		case 'N':
			return tool_usage("mount.fuse.thaw",
					  "mounting in another namespace (-N) is not supported");
		default:
			return tool_usage("mount.fuse.thaw", "unknown option '-%c'", optopt);
		}
	}
	if (argc - optind != 2)
		return tool_usage("mount.fuse.thaw", "an image and a directory are needed");
	drop_rw(mount_options);
	if (take_warm(mount_options, &warm))
		return THAW_EXIT_IO;
	mount.warm = warm;
	mount.options = mount_options;
	return dry ? THAW_EXIT_OK : do_mount(argv[optind], argv[optind + 1], &mount);
}

static int run_umount(int argc, char **argv)
{
	bool lazy = false;
	const struct tool_option options[] = { TOOL_FLAG("lazy", 'l', &lazy), { 0 } };
	int exit_code;

	if (!tool_options(&tool_umount, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 1)
		return tool_usage("umount", "a directory is needed");
	return do_umount(argv[optind], lazy);
}

const struct tool_command tool_mount = {
	.name = "mount",
	.run = run_mount,
	.summary = "present an image as a directory",
	.help = "Usage: thaw mount [OPTION...] IMAGE DIR\n"
		"\n"
		"Mounts IMAGE at DIR, read-only, and returns when it can be used. Works for\n"
		"root and, through fusermount3, for ordinary users. The mount's source, as\n"
		"findmnt(8) shows it, is the image's identity.\n"
		"\n"
		"Options:\n"
		"  -f, --foreground     stay in the foreground until unmounted\n"
		"      --threads N      threads that serve requests\n"
		"      --cache-size SIZE\n"
		"                       bound of the cache of decompressed frames (32M)\n"
		"      --warm=SETS      warm sets to push into memory: all (default), none, or\n"
		"                       a name; also -o warm=SETS\n"
		"      --wait-warm      return only when they are in memory\n"
		"      --hang-limit SECONDS\n"
		"                       replace a worker that leaves a request unanswered for\n"
		"                       so long (30)\n"
		"  -o, --options OPTS   mount options: allow_other, noexec, noatime, ...\n"
		"      --help           show this help\n"
		"\n"
		"SIZE takes the suffixes K, M, G and T. In fstab the type is fuse.thaw.\n",
};

const struct tool_command tool_umount = {
	.name = "umount",
	.run = run_umount,
	.summary = "end a mount",
	.help = "Usage: thaw umount [--lazy] DIR\n"
		"\n"
		"Unmounts DIR, which must be a mount of thaw's.\n"
		"\n"
		"Options:\n"
		"  -l, --lazy  also when in use: it vanishes at once, and its keeper ends\n"
		"              with the last user\n"
		"      --help  show this help\n",
};
