/* SPDX-License-Identifier: Apache-2.0 */
/* thaw pack: a packed environment, or a directory, becomes an image. */
#include "thaw/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pack-steps.h"
#include "progress.h"
#include "tool.h"
#include "util/cleanup.h"

static const char *arg_output;
static bool arg_quiet, arg_json;
static struct thaw_pack_options arg_pack;
static struct pack_steps arg_steps;

/* Beside the source: the archive's suffix gives way to ".thaw". */
static int default_output(const char *source, char **ret_output)
{
	static const char *const suffixes[] = {
		".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".tar", ".zip", ".whl",
		".tgz",	   ".tzst",    ".txz",	  ".tbz2",    ".tbz", ".pex", ".pyz",
	};
	size_t len = strlen(source);
	const char *name;
	struct stat st;

	while (len > 1 && source[len - 1] == '/')
		len--;
	name = memrchr(source, '/', len);
	name = name ? name + 1 : source;
	if (strcmp(source, "-") == 0)
		return tool_usage("pack", "standard input needs -o IMAGE");
	if (len == 1 && source[0] == '/')
		name = "..";
	if (stat(source, &st) < 0)
		return tool_fail_errno(source, -errno);
	if (S_ISDIR(st.st_mode)) {
		size_t name_len = (size_t)(source + len - name);

		if (name[0] == '.' &&
		    (name_len == 1 || (name_len == 2 && name[1] == '.')))
			return tool_usage("pack",
					  "'%s' has no name to go by: use -o IMAGE",
					  source);
	} else {
		for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
			size_t n = strlen(suffixes[i]);

			/* not of a name that is nothing but the suffix */
			if ((size_t)(source + len - name) > n &&
			    memcmp(source + len - n, suffixes[i], n) == 0) {
				len -= n;
				break;
			}
		}
	}
	if (asprintf(ret_output, "%.*s.thaw", (int)len, source) < 0)
		return tool_fail_errno(source, -ENOMEM);
	return THAW_EXIT_OK;
}

static int show_progress(void *userdata, uint64_t consumed, uint64_t total,
			 uint64_t stream)
{
	/* Without a total (standard input, a directory) the stream tells more. */
	tool_progress_update(userdata, total ? consumed : stream, total);
	return tool_interrupted();
}

static json_t *report_json(const char *output, const struct thaw_pack_report *report,
			   double seconds)
{
	const struct thaw_image_info *info = &report->image;
	json_t *object = json_object(), *pyc = json_object(), *dropped = json_object();

	tool_json_name(object, "image", output, strlen(output));
	tool_json_digest(object, "identity", info->identity);
	tool_json_digest(object, "stream_digest", info->stream_digest);
	tool_json_digest(object, "index_digest", info->index_digest);
	(void)json_object_set_new(object, "source_kind",
				  json_string(report->source_kind));
	(void)json_object_set_new(object, "kind",
				  json_string(thaw_kind_name(report->kind)));
	(void)json_object_set_new(object, "python",
				  report->python[0] ? json_string(report->python)
						    : json_null());
	(void)json_object_set_new(object, "platform",
				  report->platform[0] ? json_string(report->platform)
						      : json_null());
	(void)json_object_set_new(object, "interpreter",
				  json_boolean(report->own_interpreter));
#define COUNT_IN(to, name, value) \
	(void)json_object_set_new(to, name, json_integer((json_int_t)(value)))
#define COUNT(name, value) COUNT_IN(object, name, value)
	COUNT("source_size", report->source_size);
	COUNT("stream_size", info->stream_size);
	COUNT("image_size", info->image_size);
	COUNT("content_size", info->content_size);
	COUNT("frames", info->frames);
	COUNT("files", info->files);
	COUNT("directories", info->directories);
	COUNT("symlinks", info->symlinks);
	COUNT("hardlinks", info->hardlinks);
	COUNT("duplicates", report->duplicates);
	COUNT("implied_directories", report->implied);
	COUNT("relocated_files", report->relocated);
	COUNT("relocations", report->sites);
	COUNT("warnings", report->warnings);
	COUNT_IN(pyc, "valid", report->pyc_valid);
	COUNT_IN(pyc, "stale", report->pyc_stale);
	COUNT_IN(pyc, "missing", report->pyc_missing);
	COUNT_IN(dropped, "xattrs", report->dropped_xattrs);
	COUNT_IN(dropped, "setid", report->dropped_setid);
#undef COUNT
#undef COUNT_IN
	(void)json_object_set_new(object, "pyc", pyc);
	(void)json_object_set_new(object, "dropped", dropped);
	pack_steps_json(&arg_steps, object);
	(void)json_object_set_new(object, "seconds", json_real(seconds));
	return object;
}

static void print_python(const struct thaw_pack_report *report)
{
	if (!report->python[0])
		printf("python    none found\n");
	else
		printf("python    %s%s%s, %s\n", report->python,
		       report->platform[0] ? ", " : "", report->platform,
		       report->own_interpreter ? "with its interpreter"
					       : "to be bound to one of each node");
}

static void print_report(const char *output, const struct thaw_pack_report *report,
			 double seconds)
{
	const struct thaw_image_info *info = &report->image;
	char image[TOOL_SIZE_TEXT], stream[TOOL_SIZE_TEXT], source[TOOL_SIZE_TEXT];
	char hex[THAW_DIGEST_HEX];
	uint64_t pyc = report->pyc_valid + report->pyc_stale + report->pyc_missing;

	thaw_digest_hex(info->identity, hex);
	fputs("image     ", stdout);
	if (isatty(STDOUT_FILENO))
		tool_print_escaped(stdout, output, strlen(output));
	else
		fputs(output, stdout);
	printf("\nidentity  %s\n", hex);
	printf("source    %s, %s\n", report->source_kind,
	       tool_size_text(report->source_size, source));
	printf("content   %" PRIu32 " files, %" PRIu32 " directories, %" PRIu32
	       " symlinks, %" PRIu32 " hard links\n",
	       info->files, info->directories, info->symlinks, info->hardlinks);
	printf("size      %s, packed from %s (ratio %.2f)\n",
	       tool_size_text(info->image_size, image),
	       tool_size_text(info->stream_size, stream),
	       info->image_size ? (double)info->stream_size / (double)info->image_size
				: 0);
	printf("kind      %s\n", thaw_kind_name(report->kind));
	print_python(report);
	if (pyc)
		printf("bytecode  %" PRIu64 " valid, %" PRIu64 " stale, %" PRIu64
		       " missing%s\n",
		       report->pyc_valid, report->pyc_stale, report->pyc_missing,
		       report->pyc_stale + report->pyc_missing > report->pyc_valid
			       ? " (Python compiles these anew at every start)"
			       : "");
	if (report->dropped_xattrs || report->dropped_setid)
		printf("dropped   extended attributes of %" PRIu64
		       ", setuid or setgid of %" PRIu64 "\n",
		       report->dropped_xattrs, report->dropped_setid);
	if (report->duplicates)
		printf("replaced  %" PRIu64 " by a later member of the same name\n",
		       report->duplicates);
	if (report->sites)
		printf("paths     %" PRIu64 " in %" PRIu64
		       " files, relocated in each view\n",
		       report->sites, report->relocated);
	pack_steps_print(&arg_steps);
	if (report->warnings)
		printf("warnings  %" PRIu64 " (thaw info shows them)\n",
		       report->warnings);
	printf("time      %.1f s\n", seconds);
}

static int pack(const char *source)
{
	_cleanup_(freep) char *beside = NULL;
	struct thaw_pack_report report;
	struct tool_progress progress;
	const char *output = arg_output;
	struct thaw_error err = { 0 };
	int r, exit_code;
	double seconds;

	if (!output) {
		r = default_output(source, &beside);
		if (r)
			return r;
		output = beside;
	}
	tool_catch_interrupts();
	tool_progress_start(&progress, "packing", arg_quiet);
	arg_pack.progress = show_progress;
	arg_pack.progress_data = &progress;
	r = thaw_pack(source, output, &arg_pack, &err, &report);
	seconds = tool_progress_seconds(&progress);
	tool_progress_clear(&progress);
	if (r == -EINTR && tool_interrupted())
		return tool_fail_interrupted(output, "nothing is left behind");
	if (r < 0)
		return tool_fail(r == -EEXIST ? output : source, &err);
	arg_steps.quiet = arg_quiet;
	exit_code = pack_steps_run(&arg_steps, output, &report);
	if (exit_code != THAW_EXIT_OK && !arg_steps.checked)
		return exit_code;
	seconds = tool_progress_seconds(&progress);
	if (arg_json)
		r = tool_json_print(report_json(output, &report, seconds));
	else if (!arg_quiet)
		print_report(output, &report, seconds);
	if (arg_steps.failed)
		exit_code = tool_fail_text(THAW_EXIT_DAMAGED, output,
					   "%u of its packages cannot be imported",
					   arg_steps.failed);
	pack_steps_deinit(&arg_steps);
	return r && !exit_code ? r : exit_code;
}

static int take_frame_size(void *userdata, const char *option, char *value)
{
	struct thaw_pack_options *pack = userdata;
	uint64_t size;

	if (!tool_parse_size(value, &size) || size < THAW_FRAME_USIZE_MIN ||
	    size > THAW_FRAME_USIZE_MAX)
		return tool_bad_value("pack", option, value, "a size from 4K to 16M");
	pack->frame_size = (uint32_t)size;
	return THAW_EXIT_OK;
}

static int take_links(void *userdata, const char *option, char *value)
{
	struct thaw_pack_options *pack = userdata;

	pack->links_contained = strcmp(value, "contained") == 0;
	if (!pack->links_contained && strcmp(value, "stored") != 0)
		return tool_bad_value("pack", option, value, "'stored' or 'contained'");
	return THAW_EXIT_OK;
}

static int take_kind(void *userdata, const char *option, char *value)
{
	struct thaw_pack_options *pack = userdata;

	pack->kind = thaw_kind_by_name(value);
	if (pack->kind == THAW_KIND_UNKNOWN)
		return tool_bad_value("pack", option, value,
				      "tree, conda-pack, conda, venv-pack, venv, pex, "
				      "wheels or python");
	return THAW_EXIT_OK;
}

static int take_python_version(void *userdata, const char *option, char *value)
{
	struct thaw_pack_options *pack = userdata;
	uint64_t minor;

	if (strncmp(value, "3.", 2) != 0 || !tool_parse_number(value + 2, 1, 99, &minor))
		return tool_bad_value("pack", option, value, "a version like 3.11");
	pack->python_minor = (unsigned)minor;
	return THAW_EXIT_OK;
}

static int run(int argc, char **argv)
{
	static const struct tool_option options[] = {
		TOOL_TEXT("output", 'o', &arg_output),
		TOOL_NUMBER("level", 0, &arg_pack.level, 1, 22),
		TOOL_CALL("frame-size", 0, take_frame_size, &arg_pack),
		TOOL_THREADS(&arg_pack.threads),
		TOOL_SIZE("max-bytes", 0, &arg_pack.max_bytes),
		TOOL_NUMBER("max-entries", 0, &arg_pack.max_entries, 1, UINT64_MAX),
		TOOL_NUMBER("max-ratio", 0, &arg_pack.max_ratio, 1, UINT64_MAX),
		TOOL_CALL("links", 0, take_links, &arg_pack),
		TOOL_CALL("kind", 0, take_kind, &arg_pack),
		TOOL_TEXT("python", 0, &arg_steps.python),
		TOOL_CALL("python-version", 0, take_python_version, &arg_pack),
		TOOL_FLAG("with-python", 0, &arg_steps.with_python),
		TOOL_FLAG("compile", 0, &arg_steps.compile),
		TOOL_FLAG("check", 0, &arg_steps.check),
		TOOL_FLAG("executable", 0, &arg_steps.executable),
		TOOL_FLAG("force", 0, &arg_pack.force),
		TOOL_FLAG("quiet", 0, &arg_quiet),
		TOOL_FLAG("json", 0, &arg_json),
		{ 0 },
	};
	int exit_code;

	if (!tool_options(&tool_pack, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 1)
		return tool_usage("pack",
				  "one source is needed: an archive, a directory, or -");
	return pack(argv[optind]);
}

const struct tool_command tool_pack = {
	.name = "pack",
	.run = run,
	.summary = "make an image from a packed environment or a directory",
	.help = "Usage: thaw pack [OPTION...] SOURCE [-o IMAGE]\n"
		"\n"
		"SOURCE is a .tar, .tar.gz, .tar.zst, .tar.xz, .tar.bz2, .zip, PEX or wheel\n"
		"(recognised by its content), a directory, of wheels perhaps, or - for standard\n"
		"input. IMAGE is made beside it, with the suffix .thaw, complete or not at all.\n"
		"It is a valid .tar.zst, unless --executable.\n"
		"\n"
		"Options:\n"
		"  -o, --output IMAGE  where to write the image\n"
		"      --force         replace an existing image\n"
		"      --kind KIND     what it is: conda-pack, conda, venv-pack, venv, pex,\n"
		"                      wheels, python, tree (default: found by its content)\n"
		"      --with-python   take the interpreter of a venv, PEX or wheels, and its\n"
		"                      standard library, into the image\n"
		"      --python PATH   the interpreter to take, or to compile and check with\n"
		"      --python-version 3.N\n"
		"                      make a PEX or wheels an environment for this version\n"
		"      --compile       compile modules that have no valid bytecode\n"
		"      --check         import every top-level package, and report\n"
		"      --executable    put a launcher in front: IMAGE is its own python, and no\n"
		"                      plain .tar.zst (for Spark, see also thaw stub)\n"
		"      --level N       zstd level, 1 to 22 (default 9)\n"
		"      --frame-size SIZE\n"
		"                      bytes compressed together, 4K to 16M\n"
		"      --threads N     compressors (default: one for each CPU)\n"
		"      --links=stored  keep symlinks as they are (the default)\n"
		"      --links=contained\n"
		"                      refuse symlinks that lead out of the environment\n"
		"      --max-bytes SIZE\n"
		"                      limit of the unpacked size (default 256G)\n"
		"      --max-entries N limit of members (default 4194304)\n"
		"      --max-ratio N   limit of unpacked against packed size (default 250)\n"
		"      --quiet         neither progress bar nor report\n"
		"      --json          print the report as JSON\n"
		"      --help          show this help\n"
		"\n"
		"SIZE takes the suffixes K, M, G and T.\n",
};
