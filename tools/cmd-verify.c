/* SPDX-License-Identifier: Apache-2.0 */
/* thaw verify: is every byte of an image what it should be? */
#include <errno.h>
#include <string.h>

#include "progress.h"
#include "thaw/extract.h"
#include "tool.h"
#include "util/cleanup.h"

struct verify {
	const char *file;
	struct tool_progress progress;
	uint64_t reported;
	json_t *faults; /* with --json; NULL otherwise */
};

static void report_fault(void *userdata, const char *fault)
{
	struct verify *verify = userdata;

	verify->reported++;
	tool_progress_clear(&verify->progress);
	/* Names in a fault are escaped already. */
	fprintf(stderr, "thaw: ");
	tool_print_escaped(stderr, verify->file, strlen(verify->file));
	fprintf(stderr, ": %s\n", fault);
	if (verify->faults)
		(void)json_array_append_new(verify->faults, json_string(fault));
}

static bool is_good(const struct verify *verify, const struct thaw_verify_result *result)
{
	return verify->reported == 0 && result->bad_frames == 0 &&
	       result->bad_files == 0 && result->bad_warm_pages == 0 &&
	       result->bad_sites == 0 &&
	       result->stream_ok && result->index_ok;
}

static int print_json(const struct verify *verify, const struct thaw_image_info *info,
		      const struct thaw_verify_result *result)
{
	json_t *object = json_object();

	(void)json_object_set_new(object, "ok", json_boolean(is_good(verify, result)));
	tool_json_digest(object, "identity", info->identity);
#define COUNT(name) \
	(void)json_object_set_new(object, #name, json_integer((json_int_t)result->name))
	COUNT(frames);
	COUNT(bad_frames);
	COUNT(files);
	COUNT(bad_files);
	COUNT(warm_pages);
	COUNT(bad_warm_pages);
	COUNT(sites);
	COUNT(bad_sites);
#undef COUNT
	(void)json_object_set_new(object, "stream_ok", json_boolean(result->stream_ok));
	(void)json_object_set_new(object, "index_ok", json_boolean(result->index_ok));
	(void)json_object_set(object, "faults", verify->faults);
	return tool_json_print(object);
}

static void print_summary(const struct verify *verify,
			  const struct thaw_verify_result *result)
{
	printf("%s: %llu frames, %llu bad; %llu files, %llu bad; ",
	       is_good(verify, result) ? "good" : "damaged",
	       (unsigned long long)result->frames, (unsigned long long)result->bad_frames,
	       (unsigned long long)result->files, (unsigned long long)result->bad_files);
	if (result->warm_pages)
		printf("%llu warm pages, %llu bad; ",
		       (unsigned long long)result->warm_pages,
		       (unsigned long long)result->bad_warm_pages);
	if (result->sites)
		printf("%llu relocations, %llu bad; ", (unsigned long long)result->sites,
		       (unsigned long long)result->bad_sites);
	printf("stream %s; index %s\n", result->stream_ok ? "good" : "bad",
	       result->index_ok ? "good" : "bad");
}

static int run(int argc, char **argv)
{
	struct thaw_pass_options pass = { 0 };
	struct thaw_verify_result result;
	struct verify verify = { 0 };
	struct thaw_error err = { 0 };
	struct thaw_image *image;
	bool json = false, quiet = false;
	const struct tool_option options[] = {
		TOOL_THREADS(&pass.threads),
		TOOL_FLAG("json", 0, &json),
		TOOL_FLAG("quiet", 0, &quiet),
		{ 0 },
	};
	int r, exit_code;

	if (!tool_options(&tool_verify, argc, argv, options, &exit_code))
		return exit_code;
	if (argc - optind != 1)
		return tool_usage("verify", "an image is needed");
	verify.file = argv[optind];
	r = tool_open_image(verify.file, &image);
	if (r)
		return r;
	tool_catch_interrupts();
	tool_progress_start(&verify.progress, "verifying", quiet);
	pass.progress = tool_progress_pass;
	pass.progress_data = &verify.progress;
	verify.faults = json ? json_array() : NULL;
	r = thaw_verify(image, &pass, report_fault, &verify, &err, &result);
	tool_progress_clear(&verify.progress);
	if (r == -EINTR && tool_interrupted()) {
		r = tool_fail_interrupted(verify.file, "not everything was checked");
	} else if (r < 0) {
		r = tool_fail(verify.file, &err);
	} else {
		if (json)
			r = print_json(&verify, thaw_image_info(image), &result);
		else if (!quiet)
			print_summary(&verify, &result);
		if (r == 0 && !is_good(&verify, &result))
			r = THAW_EXIT_DAMAGED;
	}
	json_decref(verify.faults);
	thaw_image_free(image);
	return r;
}

const struct tool_command tool_verify = {
	.name = "verify",
	.run = run,
	.summary = "check every byte of an image",
	.help = "Usage: thaw verify [OPTION...] IMAGE\n"
		"\n"
		"Checks the digest of every frame, that it decompresses, the digest of the\n"
		"stream, that the index says of the stream what a fresh look at it says, and\n"
		"that files hold what their relocations say.\n"
		"Each fault is one line on standard error; a summary follows on standard\n"
		"output. The exit code is 4 when a fault was found.\n"
		"\n"
		"Options:\n"
		"  --threads N  threads to use (default: one for each CPU)\n"
		"  --json       print the result as JSON\n"
		"  --quiet      neither progress bar nor summary\n"
		"  --help       show this help\n",
};
