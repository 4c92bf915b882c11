/* SPDX-License-Identifier: Apache-2.0 */
/* Taking an interpreter in, compiling, checking: see pack-steps.h. */
#include "pack-steps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "progress.h"
#include "thaw/rewrite.h"
#include "thaw/stub.h"
#include "thaw/with-python.h"
#include "tool.h"
#include "util/cleanup.h"

static int fail(const char *image, int r, const struct thaw_error *err)
{
	(void)unlink(image); /* nothing that is less than what was asked for */
	if (r == -EINTR && tool_interrupted())
		return tool_fail_interrupted(image, "nothing is left behind");
	return tool_fail(image, err);
}

/* The image again, with files added. */
static int rewrite(const char *path, const struct thaw_image *image,
		   const struct thaw_rewrite *what, struct thaw_pack_report *report,
		   struct thaw_error *err)
{
	struct thaw_rewrite in_place = *what;

	in_place.force = true;
	return thaw_rewrite(image, path, &in_place, err, &report->image);
}

static int open_image(const char *path, struct thaw_error *err,
		      struct thaw_image **ret_image)
{
	struct thaw_source *source;
	int r = thaw_source_open(path, err, &source);

	return r < 0 ? r : thaw_image_open(source, err, ret_image);
}

/* -- the interpreter -- */

static int take_python(struct pack_steps *steps, const char *path,
		       struct thaw_pack_report *report, struct thaw_error *err)
{
	_cleanup_(thaw_image_freep) struct thaw_image *image = NULL;
	_cleanup_(freep) char *interpreter = NULL;
	struct thaw_python_files files;
	struct thaw_rewrite what = { 0 };
	int r;

	r = open_image(path, err, &image);
	if (r == 0)
		r = thaw_binding_find_for(image, steps->python, 0, err, &interpreter);
	if (r == 0 && !interpreter)
		r = thaw_refused(
			err, report->own_interpreter
				     ? "has its own interpreter already (--with-python)"
				     : "is no virtual environment (--with-python)");
	if (r == 0)
		r = thaw_python_gather(image, interpreter, err, &files);
	if (r < 0)
		return r;
	what.additions = files.files;
	what.addition_count = files.count;
	what.meta = files.meta;
	r = rewrite(path, image, &what, report, err);
	if (r == 0) {
		report->own_interpreter = true;
		steps->taken = steal_ptr(interpreter);
		steps->libraries = steal_ptr(files.libraries);
	}
	thaw_python_files_deinit(&files);
	return r;
}

#ifdef THAW_WITH_FUSE
static void show_progress(void *userdata, uint64_t done, uint64_t total)
{
	tool_progress_update(userdata, done, total);
}

/* Whoever has begun a step wipes its bar. */
static struct thaw_compile_options begin_step(const struct pack_steps *steps,
					      const struct thaw_pack_report *report,
					      const char *verb,
					      struct tool_progress *progress)
{
	tool_progress_start(progress, verb, steps->quiet);
	progress->counts = true;
	return (struct thaw_compile_options){
		.python = report->own_interpreter ? NULL : steps->python,
		.interrupted = tool_interrupted,
		.progress = show_progress,
		.progress_data = progress,
	};
}
#endif

/* -- bytecode -- */

#ifdef THAW_WITH_FUSE
/* What packing counted, as it is now. */
static char *describe_bytecode(const struct thaw_compile_result *result)
{
	json_t *meta = json_pack("{s:{s:I, s:I, s:I}}", "bytecode", "valid",
				 (json_int_t)(result->valid + result->compiled), "stale",
				 (json_int_t)0, "missing", (json_int_t)result->failed);
	char *text;

	if (result->hidden)
		(void)json_object_set_new(json_object_get(meta, "bytecode"), "hidden",
					  json_integer((json_int_t)result->hidden));
	text = meta ? json_dumps(meta, JSON_COMPACT) : NULL;
	json_decref(meta);
	return text;
}
#endif

static int compile(struct pack_steps *steps, const char *path,
		   struct thaw_pack_report *report, struct thaw_error *err)
{
#ifdef THAW_WITH_FUSE
	struct tool_progress progress;
	const struct thaw_compile_options options =
		begin_step(steps, report, "compiling", &progress);
	_cleanup_(thaw_image_freep) struct thaw_image *image = NULL;
	_cleanup_(freep) char *meta = NULL;
	struct thaw_gathered gathered = { 0 };
	bool changed = false;
	int r;

	r = thaw_compile(path, &options, &gathered, err, &steps->result);
	tool_progress_clear(&progress);
	if (r == 0) {
		changed = gathered.count || steps->result.hidden;
		meta = describe_bytecode(&steps->result);
		if (!meta)
			r = thaw_oom(err);
	}
	if (r == 0 && changed)
		r = open_image(path, err, &image);
	if (r == 0 && changed) {
		const struct thaw_rewrite what = {
			.additions = gathered.files,
			.addition_count = gathered.count,
			.meta = meta,
		};

		r = rewrite(path, image, &what, report, err);
	}
	thaw_gathered_deinit(&gathered);
	if (r == 0) {
		steps->compiled = true;
		report->pyc_valid = steps->result.valid + steps->result.compiled;
		report->pyc_stale = 0;
		report->pyc_missing = steps->result.failed;
	}
	return r;
#else
	return thaw_io(err, -ENOSYS,
		       "compiling needs FUSE, which this thaw was built without");
#endif
}

/* -- imports -- */

#ifdef THAW_WITH_FUSE
static const char *outcome_name(enum thaw_import_outcome outcome)
{
	static const char *const names[] = { "ok", "lacks", "failed", "died", "hung" };

	return names[outcome];
}

static void note_import(void *userdata, const struct thaw_import *import)
{
	struct pack_steps *steps = userdata;
	json_t *object = json_object();

	tool_json_name(object, "name", import->name, strlen(import->name));
	(void)json_object_set_new(object, "outcome",
				  json_string(outcome_name(import->outcome)));
	if (import->reason[0])
		tool_json_name(object, "reason", import->reason, strlen(import->reason));
	(void)json_object_set_new(object, "seconds", json_real(import->seconds));
	(void)json_array_append_new(steps->imports, object);
	steps->ok += import->outcome == THAW_IMPORT_OK;
	steps->lacking += import->outcome == THAW_IMPORT_LACKS;
	steps->failed += import->outcome > THAW_IMPORT_LACKS;
}
#endif

static int check(struct pack_steps *steps, const char *path,
		 const struct thaw_pack_report *report, struct thaw_error *err)
{
#ifdef THAW_WITH_FUSE
	struct tool_progress progress;
	const struct thaw_compile_options options =
		begin_step(steps, report, "importing", &progress);
	int r;

	steps->imports = json_array();
	r = thaw_check_imports(path, &options, note_import, steps, err);
	tool_progress_clear(&progress);
	return r;
#else
	return thaw_io(err, -ENOSYS,
		       "checking needs FUSE, which this thaw was built without");
#endif
}

/* -- the launcher -- */

static int make_executable(struct pack_steps *steps, const char *path,
			   const struct thaw_pack_report *packed, struct thaw_error *err)
{
	_cleanup_(closep) int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	const struct thaw_stub_options options = {
		.images = &path,
		.image_count = 1,
		.embed = true,
		.executable = true,
		.force = true,
		.launcher = self,
	};
	struct thaw_stub_report report;
	const char *about;
	int r;

	if (self < 0)
		return thaw_io(err, -errno, "cannot be given a launcher");
	r = thaw_stub_write(path, &options, err, &about, &report);
	if (r < 0)
		return r;
	steps->launcher = report.size - packed->image.image_size;
	if (report.dynamic)
		tool_warn_dynamic();
	return 0;
}

/* -- all -- */

int pack_steps_run(struct pack_steps *steps, const char *image,
		   struct thaw_pack_report *report)
{
	struct thaw_error err = { 0 };
	int r = 0;

	if (steps->with_python)
		r = take_python(steps, image, report, &err);
	if (r == 0 && steps->compile)
		r = compile(steps, image, report, &err);
	if (r == 0 && steps->check)
		r = check(steps, image, report, &err);
	if (r == 0 && steps->executable)
		r = make_executable(steps, image, report, &err);
	if (r < 0)
		return fail(image, r, &err);
	steps->checked = steps->check;
	return steps->failed ? THAW_EXIT_DAMAGED : THAW_EXIT_OK;
}

void pack_steps_print(const struct pack_steps *steps)
{
	const json_t *import;
	size_t i;

	if (steps->taken) {
		fputs("taken in  ", stdout);
		tool_print_escaped(stdout, steps->taken, strlen(steps->taken));
		fputc('\n', stdout);
	}
	if (steps->libraries) {
		fputs("needs     ", stdout);
		tool_print_escaped(stdout, steps->libraries, strlen(steps->libraries));
		fputs(" on each node\n", stdout);
	}
	if (steps->compiled)
		printf("compiled  %" PRIu64 " files; %" PRIu64 " were valid, %" PRIu64
		       " cannot be compiled\n",
		       steps->result.compiled, steps->result.valid, steps->result.failed);
	if (steps->compiled && steps->result.hidden)
		printf("          %" PRIu64 " carry its own path in a way that bytecode "
		       "cannot follow\n",
		       steps->result.hidden);
	if (steps->launcher) {
		char size[TOOL_SIZE_TEXT];

		printf("launcher  %s in front: to be executed, and no plain .tar.zst\n",
		       tool_size_text(steps->launcher, size));
	}
	if (!steps->checked)
		return;
	printf("imports   %u good, %u lack something optional, %u broken\n", steps->ok,
	       steps->lacking, steps->failed);
	json_array_foreach(steps->imports, i, import)
	{
		const char *name = json_string_value(json_object_get(import, "name"));
		const char *outcome =
			json_string_value(json_object_get(import, "outcome"));
		const char *reason = json_string_value(json_object_get(import, "reason"));

		if (strcmp(outcome, "ok") == 0)
			continue;
		printf("  %-7s %-20s ", outcome, name);
		tool_print_escaped(stdout, reason ? reason : "",
				   reason ? strlen(reason) : 0);
		fputc('\n', stdout);
	}
}

void pack_steps_json(const struct pack_steps *steps, json_t *object)
{
	if (steps->taken)
		tool_json_name(object, "taken_in", steps->taken, strlen(steps->taken));
	if (steps->launcher)
		(void)json_object_set_new(object, "launcher_size",
					  json_integer((json_int_t)steps->launcher));
	if (steps->compiled)
		(void)json_object_set_new(
			object, "compiled",
			json_pack("{s:I, s:I, s:I, s:I}", "valid",
				  (json_int_t)steps->result.valid, "compiled",
				  (json_int_t)steps->result.compiled, "hidden",
				  (json_int_t)steps->result.hidden, "failed",
				  (json_int_t)steps->result.failed));
	if (steps->checked)
		(void)json_object_set(object, "imports", steps->imports);
}

void pack_steps_deinit(struct pack_steps *steps)
{
	free(steps->taken);
	free(steps->libraries);
	json_decref(steps->imports);
}
