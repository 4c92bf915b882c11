/* SPDX-License-Identifier: Apache-2.0 */
/* thaw stub: what Spark ships in place of an environment. */
#include "thaw/stub.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"
#include "util/cleanup.h"

struct arguments {
	struct thaw_stub_options stub;
	const char **images, **search;
	const char *output, *launcher, *link;
	bool json, quiet;
};

static const char *form_name(enum thaw_stub_form form)
{
	static const char *const names[] = {
		[THAW_STUB_TAR_GZ] = "tar.gz",
		[THAW_STUB_ZIP] = "zip",
		[THAW_STUB_EXECUTABLE] = "executable",
	};

	return names[form];
}

static int print_json(const struct arguments *a, const struct thaw_stub_report *report)
{
	json_t *object = json_object();

	tool_json_name(object, "stub", a->output, strlen(a->output));
	(void)json_object_set_new(object, "form", json_string(form_name(report->form)));
	(void)json_object_set_new(object, "size", json_integer((json_int_t)report->size));
	if (a->link)
		return tool_json_print(object);
	(void)json_object_set_new(object, "identity", json_string(report->identity));
	(void)json_object_set_new(object, "machine", json_string(report->machine));
	(void)json_object_set_new(object, "programs", json_integer((json_int_t)report->programs));
	(void)json_object_set_new(object, "launcher_size",
				  json_integer((json_int_t)report->launcher));
	(void)json_object_set_new(object, "embedded", json_boolean(a->stub.embed));
	return tool_json_print(object);
}

static void print_report(const struct arguments *a, const struct thaw_stub_report *report)
{
	char size[TOOL_SIZE_TEXT], launcher[TOOL_SIZE_TEXT];

	fputs("stub      ", stdout);
	tool_print_escaped(stdout, a->output, strlen(a->output));
	printf("\nsize      %s\n", tool_size_text(report->size, size));
	if (a->link) {
		printf("links     %zu, into %s\n", report->programs, a->link);
		return;
	}
	printf("image     %s%s\n", report->identity, a->stub.embed ? ", embedded" : "");
	if (report->form == THAW_STUB_EXECUTABLE)
		printf("machine   %s\n", report->machine);
	else
		printf("unpacked  %s for %s, %zu programs%s\n",
		       tool_size_text(report->launcher, launcher), report->machine,
		       report->programs, a->stub.embed ? ", and the image" : "");
}

static int make(struct arguments *a)
{
	_cleanup_(closep) int fd = -1;
	struct thaw_stub_report report;
	struct thaw_error err = { 0 };
	const char *about = a->output;
	int r;

	if (a->link) {
		r = thaw_stub_write_links(a->output, a->link, a->stub.force, &err, &report);
	} else {
		fd = open(a->launcher ? a->launcher : "/proc/self/exe", O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return tool_fail_errno(a->launcher ? a->launcher : "/proc/self/exe",
					       -errno);
		a->stub.launcher = fd;
		r = thaw_stub_write(a->output, &a->stub, &err, &about, &report);
	}
	if (r < 0)
		return tool_fail(strcmp(about, "launcher") == 0 && a->launcher ? a->launcher :
										 about,
				 &err);
	if (!a->link && report.dynamic)
		fprintf(stderr, "thaw: launcher: is linked dynamically: nodes need its libraries "
				"(a static thaw needs none)\n");
	if (a->json)
		return print_json(a, &report);
	if (!a->quiet)
		print_report(a, &report);
	return THAW_EXIT_OK;
}

enum {
	OPT_EMBED = TOOL_BAD_OPTION + 1,
	OPT_SEARCH,
	OPT_IMAGE_PATH,
	OPT_LAYER,
	OPT_LAUNCHER,
	OPT_LINK,
	OPT_FORCE,
	OPT_QUIET,
	OPT_JSON,
};

static int absolute(const char *option, const char *value)
{
	if (value[0] == '/')
		return THAW_EXIT_OK;
	return tool_usage("stub", "%s: '%s' is no absolute path", option, value);
}

static int parse_option(struct arguments *a, int c, const char *value)
{
	switch (c) {
	case 'o':
		a->output = value;
		break;
	case OPT_EMBED:
		a->stub.embed = true;
		break;
	case OPT_SEARCH:
		if (a->stub.search_count == THAW_STUB_SEARCH_MAX)
			return tool_usage("stub", "--search: %u directories at most",
					  THAW_STUB_SEARCH_MAX);
		a->search[a->stub.search_count++] = value;
		return absolute("--search", value);
	case OPT_IMAGE_PATH:
		a->stub.image_path = value;
		return *value ? absolute("--image-path", value) : THAW_EXIT_OK;
	case OPT_LAYER:
		if (a->stub.image_count == THAW_STUB_IMAGES_MAX)
			return tool_usage("stub", "--layer: %u images at most",
					  THAW_STUB_IMAGES_MAX - 1);
		a->images[a->stub.image_count++] = value;
		break;
	case OPT_LAUNCHER:
		a->launcher = value;
		break;
	case OPT_LINK:
		a->link = value;
		return absolute("--link", value);
	case OPT_FORCE:
		a->stub.force = true;
		break;
	case OPT_QUIET:
		a->quiet = true;
		break;
	case OPT_JSON:
		a->json = true;
		break;
	}
	return THAW_EXIT_OK;
}

static int parse(struct arguments *a, int argc, char **argv)
{
	static const struct option options[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "embed", no_argument, NULL, OPT_EMBED },
		{ "search", required_argument, NULL, OPT_SEARCH },
		{ "image-path", required_argument, NULL, OPT_IMAGE_PATH },
		{ "layer", required_argument, NULL, OPT_LAYER },
		{ "launcher", required_argument, NULL, OPT_LAUNCHER },
		{ "link", required_argument, NULL, OPT_LINK },
		{ "force", no_argument, NULL, OPT_FORCE },
		{ "quiet", no_argument, NULL, OPT_QUIET },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, TOOL_HELP },
		{ 0 },
	};
	int c, r;

	a->stub.image_count = 1; /* the environment's place */
	while ((c = tool_getopt(&tool_stub, argc, argv, ":o:", options)) != -1) {
		if (c == TOOL_HELP || c == TOOL_BAD_OPTION)
			return c;
		r = parse_option(a, c, optarg);
		if (r)
			return TOOL_BAD_OPTION;
	}
	if (!a->output) {
		(void)tool_usage("stub", "-o is needed: environment.tar.gz, .zip, .pex or .thaw");
		return TOOL_BAD_OPTION;
	}
	if (argc - optind != (a->link ? 0 : 1)) {
		(void)tool_usage("stub", a->link ? "--link takes no image" :
						   "one image is needed (see --layer)");
		return TOOL_BAD_OPTION;
	}
	a->images[0] = argv[optind];
	return THAW_EXIT_OK;
}

static int run(int argc, char **argv)
{
	const char *images[THAW_STUB_IMAGES_MAX], *search[THAW_STUB_SEARCH_MAX];
	struct arguments a = { .images = images, .search = search };
	int r = parse(&a, argc, argv);

	if (r)
		return r == TOOL_HELP ? THAW_EXIT_OK : THAW_EXIT_USAGE;
	a.stub.images = images;
	a.stub.search = search;
	return make(&a);
}

const struct tool_command tool_stub = {
	.name = "stub",
	.run = run,
	.summary = "make what Spark ships in place of an environment",
	.help = "Usage: thaw stub [OPTION...] IMAGE -o STUB\n"
		"       thaw stub [OPTION...] --link DIR -o STUB.tar.gz\n"
		"\n"
		"A stub is a small archive with the programs of the environment in IMAGE.\n"
		"Started where it was unpacked, bin/python finds the image on that machine,\n"
		"opens a private view of it and becomes its interpreter. The machine needs\n"
		"nothing installed. The same image gives the same bytes.\n"
		"\n"
		"  -o, --output STUB  .tar.gz, .tgz or .zip: for addArtifact(archive=True) and\n"
		"                     --archives; .pex or .thaw: one executable file, which is\n"
		"                     the interpreter itself\n"
		"      --embed        with the image inside: nodes need no copy of it\n"
		"      --search DIR   where nodes have images (again for more); besides\n"
		"                     $THAW_IMAGES and /var/lib/thaw/images\n"
		"      --image-path PATH\n"
		"                     where nodes find the image (default: where it is now)\n"
		"      --layer IMAGE  a further image, laid over those before it\n"
		"      --launcher FILE\n"
		"                     the thaw to put in (default: this one)\n"
		"      --link DIR     instead: links into a view that nodes have at DIR\n"
		"      --force        replace an existing stub\n"
		"      --quiet        no report\n"
		"      --json         print the report as JSON\n"
		"      --help         show this help\n"
		"\n"
		"Example: thaw stub environment.thaw -o environment.tar.gz\n",
};
