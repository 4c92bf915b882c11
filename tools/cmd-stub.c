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
		tool_warn_dynamic();
	if (a->json)
		return print_json(a, &report);
	if (!a->quiet)
		print_report(a, &report);
	return THAW_EXIT_OK;
}

static int check_absolute(const char *option, const char *value)
{
	if (value[0] == '/')
		return THAW_EXIT_OK;
	return tool_bad_value("stub", option, value, "an absolute path");
}

static int check(const struct arguments *a, int argument_count)
{
	const char *image_path = a->stub.image_path;
	int r = THAW_EXIT_OK;

	for (size_t i = 0; r == THAW_EXIT_OK && i < a->stub.search_count; i++)
		r = check_absolute("search", a->search[i]);
	if (r == THAW_EXIT_OK && image_path && *image_path)
		r = check_absolute("image-path", image_path);
	if (r == THAW_EXIT_OK && a->link)
		r = check_absolute("link", a->link);
	if (r != THAW_EXIT_OK)
		return r;
	if (!a->output)
		return tool_usage("stub",
				  "-o is needed: environment.tar.gz, .zip, .pex or .thaw");
	if (argument_count != (a->link ? 0 : 1))
		return tool_usage("stub", a->link ? "--link takes no image"
						  : "one image is needed (see --layer)");
	return THAW_EXIT_OK;
}

static int run(int argc, char **argv)
{
	const char *images[THAW_STUB_IMAGES_MAX], *search[THAW_STUB_SEARCH_MAX];
	/* Of the images, the first place is the environment's. */
	struct arguments a = {
		.images = images,
		.search = search,
		.stub = { .images = images, .image_count = 1, .search = search },
	};
	const struct tool_option options[] = {
		TOOL_TEXT("output", 'o', &a.output),
		TOOL_FLAG("embed", 0, &a.stub.embed),
		TOOL_LIST("search", 0, search, &a.stub.search_count,
			  THAW_STUB_SEARCH_MAX),
		TOOL_TEXT("image-path", 0, &a.stub.image_path),
		TOOL_LIST("layer", 0, images, &a.stub.image_count, THAW_STUB_IMAGES_MAX),
		TOOL_TEXT("launcher", 0, &a.launcher),
		TOOL_TEXT("link", 0, &a.link),
		TOOL_FLAG("force", 0, &a.stub.force),
		TOOL_FLAG("quiet", 0, &a.quiet),
		TOOL_FLAG("json", 0, &a.json),
		{ 0 },
	};
	int r;

	if (!tool_options(&tool_stub, argc, argv, options, &r))
		return r;
	r = check(&a, argc - optind);
	if (r != THAW_EXIT_OK)
		return r;
	images[0] = argv[optind];
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
