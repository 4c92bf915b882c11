/* SPDX-License-Identifier: Apache-2.0 */
/* thaw info: what an image is and what is in it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packages.h"
#include "thaw/relocation.h"
#include "thaw/stub.h"
#include "thaw/warm.h"
#include "tool.h"
#include "util/cleanup.h"

struct info {
	const char *file;
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct tool_packages packages;
	json_t *meta; /* an object; untrusted, so every look-up checks the type */
};

static const char *part_name(enum thaw_part_type type)
{
	switch (type) {
	case THAW_PART_STREAM:
		return "stream";
	case THAW_PART_ANNEX:
		return "annex";
	case THAW_PART_INDEX:
		return "index";
	case THAW_PART_WARM:
		return "warm set";
	}
	return "unknown";
}

static int load_meta(struct info *info)
{
	size_t len;
	const char *text = thaw_image_meta(info->image, &len);

	if (len > 0)
		info->meta = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	else
		info->meta = json_object();
	if (!json_is_object(info->meta))
		return tool_fail_text(THAW_EXIT_DAMAGED, info->file,
				      "damaged: its meta section is no JSON object");
	return THAW_EXIT_OK;
}

/* -1: not said. */
static json_int_t meta_number(const struct info *info, const char *object,
			      const char *key)
{
	json_t *value = json_object_get(json_object_get(info->meta, object), key);

	return json_is_integer(value) && json_integer_value(value) >= 0
		       ? json_integer_value(value)
		       : -1;
}

static const char *meta_string(const struct info *info, const char *key)
{
	return json_string_value(json_object_get(info->meta, key));
}

/* Is what precedes the image a launcher for it? */
static bool is_executable(const struct info *info)
{
	int fd = thaw_image_fd(info->image);

	return thaw_image_info(info->image)->image_start > 0 && fd >= 0 &&
	       thaw_stub_find(fd, NULL, NULL, NULL) == 0;
}

/* What somebody should know before relying on this image. */
static json_t *find_warnings(const struct info *info)
{
	json_int_t stale = meta_number(info, "bytecode", "stale");
	json_int_t missing = meta_number(info, "bytecode", "missing");
	json_int_t hidden = meta_number(info, "bytecode", "hidden");
	const struct thaw_image_info *image = thaw_image_info(info->image);
	const char *kind = meta_string(info, "kind");
	const json_t *noted = json_object_get(info->meta, "warnings"), *warning;
	json_t *warnings = json_array();
	size_t i;

	if (stale > 0)
		(void)json_array_append_new(
			warnings, json_sprintf("%" JSON_INTEGER_FORMAT
					       " .pyc files are stale: Python compiles "
					       "those modules anew at every start",
					       stale));
	if (missing > 0)
		(void)json_array_append_new(
			warnings, json_sprintf("%" JSON_INTEGER_FORMAT
					       " modules have no .pyc: Python compiles "
					       "them anew at every start",
					       missing));
	if (hidden > 0)
		(void)json_array_append_new(
			warnings, json_sprintf("%" JSON_INTEGER_FORMAT
					       " modules carry its own path in a way that "
					       "bytecode cannot follow: Python compiles "
					       "them anew at every start",
					       hidden));
	if (kind && strcmp(kind, "tree") == 0)
		(void)json_array_append_new(warnings,
					    json_string("no Python environment was found"));
	json_array_foreach(noted, i, warning)
		if (json_is_string(warning))
			(void)json_array_append(warnings, (json_t *)warning);
	if (image->image_start > 0)
		(void)json_array_append_new(
			warnings,
			json_sprintf(is_executable(info)
					     ? "executable: a launcher of %" PRIu64
					       " bytes precedes the image, and the file is "
					       "no plain .tar.zst"
					     : "%" PRIu64 " other bytes precede the image "
					       "in its file",
				     image->image_start));
	return warnings;
}

/* What a warm set holds. Damage of one is no reason not to show the rest. */
static bool open_warm(const struct info *info, unsigned part,
		      struct thaw_warm_info *ret_warm, struct thaw_error *err)
{
	struct thaw_warm *warm;

	if (thaw_warm_open(info->image, part, err, &warm) < 0)
		return false;
	thaw_warm_info(warm, ret_warm);
	thaw_warm_free(warm);
	return true;
}

/* In hundredths of all bytes that the image's files have. */
static double warm_share(const struct info *info, const struct thaw_warm_info *warm)
{
	uint64_t content = thaw_image_info(info->image)->content_size;

	return content ? 100.0 * (double)warm->bytes / (double)content : 0;
}

static void add_warm_json(const struct info *info, unsigned number, json_t *object)
{
	struct thaw_error err = { 0 };
	struct thaw_warm_info warm;

	if (!open_warm(info, number, &warm, &err)) {
		(void)json_object_set_new(object, "damage", json_string(err.text));
		return;
	}
#define COUNT(name) \
	(void)json_object_set_new(object, #name, json_integer((json_int_t)warm.name))
	COUNT(bytes);
	COUNT(pages);
	COUNT(files);
	COUNT(directories);
	COUNT(names);
	COUNT(frames);
#undef COUNT
	(void)json_object_set_new(object, "share",
				  json_real(warm_share(info, &warm) / 100));
}

static int print_json(const struct info *info)
{
	const struct thaw_image_info *image = thaw_image_info(info->image);
	/* from the meta section, null where it does not say */
	static const char *const said[] = { "kind", "python", "python_version", "platform", "libc",
					    "interpreter", "constraints", "entry_point",
					    "script", "command" };
	json_t *top = json_object(), *parts = json_array(), *packages = json_array();

	tool_json_name(top, "image", info->file, strlen(info->file));
	(void)json_object_set_new(top, "format", json_integer(THAW_VERSION));
	tool_json_digest(top, "identity", image->identity);
	tool_json_digest(top, "stream_digest", image->stream_digest);
	tool_json_digest(top, "index_digest", image->index_digest);
#define COUNT(name) \
	(void)json_object_set_new(top, #name, json_integer((json_int_t)image->name))
	COUNT(image_size);
	COUNT(image_start);
	COUNT(stream_size);
	COUNT(stream_stored);
	COUNT(annex_size);
	COUNT(annex_stored);
	COUNT(index_size);
	COUNT(index_stored);
	COUNT(content_size);
	COUNT(frames);
	COUNT(files);
	COUNT(directories);
	COUNT(symlinks);
	COUNT(hardlinks);
	COUNT(compat);
	COUNT(incompat);
#undef COUNT
	(void)json_object_set_new(top, "executable", json_boolean(is_executable(info)));
	for (unsigned i = 0; i < thaw_image_part_count(info->image); i++) {
		struct thaw_part_info part;
		json_t *object = json_object();

		thaw_image_part(info->image, i, &part);
		(void)json_object_set_new(object, "type",
					  json_string(part_name(part.type)));
		if (part.name[0])
			tool_json_name(object, "name", part.name, strlen(part.name));
		(void)json_object_set_new(object, "offset",
					  json_integer((json_int_t)part.offset));
		(void)json_object_set_new(object, "size",
					  json_integer((json_int_t)part.size));
		(void)json_object_set_new(object, "raw_size",
					  json_integer((json_int_t)part.raw_size));
		if (part.type == THAW_PART_WARM)
			add_warm_json(info, i, object);
		(void)json_array_append_new(parts, object);
	}
	(void)json_object_set_new(top, "parts", parts);
	for (size_t i = 0; i < info->packages.count; i++) {
		const struct tool_package *package = &info->packages.items[i];
		char path[THAW_PATH_MAX + 1];
		json_t *object = json_object();

		thaw_image_path(info->image, package->ino, path, sizeof(path));
		(void)json_object_set_new(object, "name", json_string(package->name));
		(void)json_object_set_new(object, "version",
					  json_string(package->version));
		tool_json_name(object, "path", path, strlen(path));
		(void)json_array_append_new(packages, object);
	}
	(void)json_object_set_new(top, "packages", packages);
	(void)json_object_set_new(
		top, "relocations",
		json_pack("{s:I, s:I}", "files",
			  (json_int_t)thaw_image_relocated_count(info->image), "places",
			  (json_int_t)thaw_image_site_count(info->image)));
	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
		json_t *value = json_object_get(info->meta, said[i]);

		(void)json_object_set(top, said[i], value ? value : json_null());
	}
	(void)json_object_set(top, "meta", info->meta);
	(void)json_object_set_new(top, "warnings", find_warnings(info));
	return tool_json_print(top);
}

/* A value of the meta section: whoever wrote the image wrote it. */
static void print_said(const struct info *info, const char *label, const char *key)
{
	const char *value = meta_string(info, key);

	if (!value || !value[0])
		return;
	printf("%-10s ", label);
	tool_print_escaped(stdout, value, strlen(value));
	fputc('\n', stdout);
}

static void print_digest(const char *label, const uint8_t digest[THAW_DIGEST_SIZE])
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(digest, hex);
	printf("%-10s sha256:%s\n", label, hex);
}

static void print_meta(const struct info *info)
{
	json_int_t valid = meta_number(info, "bytecode", "valid");
	json_int_t stale = meta_number(info, "bytecode", "stale");
	json_int_t missing = meta_number(info, "bytecode", "missing");
	json_int_t hidden = meta_number(info, "bytecode", "hidden");
	json_int_t xattrs = meta_number(info, "dropped", "xattrs");
	json_int_t setid = meta_number(info, "dropped", "setid");
	const json_t *own = json_object_get(info->meta, "interpreter");
	const char *python = meta_string(info, "python_version");
	const char *source = meta_string(info, "source");

	if (!python)
		python = meta_string(info, "python");

	/* Whoever wrote the image wrote these strings. */
	if (source) {
		fputs("source     ", stdout);
		tool_print_escaped(stdout, source, strlen(source));
		fputc('\n', stdout);
	}
	print_said(info, "kind", "kind");
	fputs("python     ", stdout);
	if (python && python[0])
		tool_print_escaped(stdout, python, strlen(python));
	else
		fputs("none found", stdout);
	if (json_is_boolean(own))
		fputs(json_is_true(own) ? ", with its interpreter"
					: ", to be bound to one of each node",
		      stdout);
	fputc('\n', stdout);
	print_said(info, "platform", "platform");
	print_said(info, "needs", "libc");
	print_said(info, "wants", "constraints");
	print_said(info, "starts", "entry_point");
	print_said(info, "starts", "script");
	if (thaw_image_site_count(info->image))
		printf("paths      %" PRIu64 " in %" PRIu32 " files, relocated in each view\n",
		       thaw_image_site_count(info->image),
		       thaw_image_relocated_count(info->image));
	if (valid >= 0 && stale >= 0 && missing >= 0)
		printf("bytecode   %" JSON_INTEGER_FORMAT " valid, %" JSON_INTEGER_FORMAT
		       " stale, %" JSON_INTEGER_FORMAT " missing",
		       valid, stale, missing);
	if (valid >= 0 && stale >= 0 && missing >= 0 && hidden > 0)
		printf(", %" JSON_INTEGER_FORMAT " hidden", hidden);
	if (valid >= 0 && stale >= 0 && missing >= 0)
		putchar('\n');
	if (xattrs > 0 || setid > 0)
		printf("dropped    extended attributes of %" JSON_INTEGER_FORMAT
		       " members, setuid or setgid of %" JSON_INTEGER_FORMAT "\n",
		       xattrs > 0 ? xattrs : 0, setid > 0 ? setid : 0);
}

static void print_warm(const struct info *info, unsigned number)
{
	struct thaw_error err = { 0 };
	struct thaw_warm_info warm;
	char bytes[TOOL_SIZE_TEXT];

	if (open_warm(info, number, &warm, &err))
		printf("           %" PRIu32 " pages of %" PRIu32
		       " files (%s, %.1f%% of the content), %" PRIu32 " names\n",
		       warm.pages, warm.files, tool_size_text(warm.bytes, bytes),
		       warm_share(info, &warm), warm.names);
	else
		printf("           %s\n", err.text);
}

static void print_parts(const struct info *info)
{
	char stored[TOOL_SIZE_TEXT], raw[TOOL_SIZE_TEXT];

	puts("parts");
	for (unsigned i = 0; i < thaw_image_part_count(info->image); i++) {
		struct thaw_part_info part;

		thaw_image_part(info->image, i, &part);
		printf("  %-8s %12s", part_name(part.type),
		       tool_size_text(part.size, stored));
		/* of a warm set the table knows only its head's size */
		if (part.type != THAW_PART_WARM)
			printf("  (%s when decompressed)",
			       tool_size_text(part.raw_size, raw));
		if (part.name[0]) {
			fputs("  \"", stdout);
			tool_print_escaped(stdout, part.name, strlen(part.name));
			fputc('"', stdout);
		}
		fputc('\n', stdout);
		if (part.type == THAW_PART_WARM)
			print_warm(info, i);
	}
}

static void print_human(const struct info *info)
{
	const struct thaw_image_info *image = thaw_image_info(info->image);
	char size[TOOL_SIZE_TEXT], stream[TOOL_SIZE_TEXT], content[TOOL_SIZE_TEXT];
	json_t *warnings, *warning;
	size_t i;

	fputs("image      ", stdout);
	if (isatty(STDOUT_FILENO))
		tool_print_escaped(stdout, info->file, strlen(info->file));
	else
		fputs(info->file, stdout);
	fputc('\n', stdout);
	print_digest("identity", image->identity);
	print_digest("stream", image->stream_digest);
	print_digest("index", image->index_digest);
	printf("format     version %u", THAW_VERSION);
	if (image->compat || image->incompat)
		printf(", features 0x%" PRIx64 " (0x%" PRIx64 " required)",
		       image->compat | image->incompat, image->incompat);
	fputc('\n', stdout);
	printf("size       %s, packed from %s (ratio %.2f)\n",
	       tool_size_text(image->image_size, size),
	       tool_size_text(image->stream_size + image->annex_size, stream),
	       image->image_size ? (double)(image->stream_size + image->annex_size) /
					   (double)image->image_size
				 : 0);
	printf("content    %" PRIu32 " files (%s), %" PRIu32 " directories, %" PRIu32
	       " symlinks, %" PRIu32 " hard links\n",
	       image->files, tool_size_text(image->content_size, content),
	       image->directories, image->symlinks, image->hardlinks);
	printf("frames     %" PRIu32 " of %s on average\n", image->frames,
	       tool_size_text(image->frames ? (image->stream_size + image->annex_size) /
						      image->frames
					    : 0,
			      size));
	print_meta(info);
	print_parts(info);
	if (info->packages.count)
		printf("packages   %zu\n", info->packages.count);
	for (i = 0; i < info->packages.count; i++)
		printf("  %-30s %s\n", info->packages.items[i].name,
		       info->packages.items[i].version);
	warnings = find_warnings(info);
	json_array_foreach(warnings, i, warning) {
		const char *text = json_string_value(warning);

		fputs("warning    ", stdout);
		tool_print_escaped(stdout, text, strlen(text));
		fputc('\n', stdout);
	}
	json_decref(warnings);
}

static int run(int argc, char **argv)
{
	struct info info = { 0 };
	struct thaw_error err = { 0 };
	bool json = false;
	const struct tool_option options[] = { TOOL_FLAG("json", 0, &json), { 0 } };
	int r, exit_code;

	if (!tool_options(&tool_info, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 1)
		return tool_usage("info", "an image is needed");
	info.file = argv[optind];
	r = tool_open_image(info.file, &info.image);
	if (r == 0)
		r = load_meta(&info);
	if (r == 0)
		r = tool_open_reader(info.file, info.image, &info.reader);
	if (r == 0 &&
	    tool_packages_find(info.image, info.reader, &err, &info.packages) < 0)
		r = tool_fail(info.file, &err);
	if (r == 0 && json)
		r = print_json(&info);
	else if (r == 0)
		print_human(&info);
	tool_packages_deinit(&info.packages);
	json_decref(info.meta);
	thaw_reader_free(info.reader);
	thaw_image_free(info.image);
	return r;
}

const struct tool_command tool_info = {
	.name = "info",
	.run = run,
	.summary = "show what an image is and what is in it",
	.help = "Usage: thaw info [--json] IMAGE\n"
		"\n"
		"Shows identity and digests, sizes, counts, the kind of environment, Python\n"
		"version and platform, the state of compiled files, how many paths are\n"
		"relocated, the parts of the image, installed packages, and warnings.\n"
		"\n"
		"Options:\n"
		"  --json  print it as JSON\n"
		"  --help  show this help\n",
};
