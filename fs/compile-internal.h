/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What compiling and trying imports share: the environment's interpreter over a view. */
#include "thaw/compile.h"
#include "thaw/image.h"
#include "thaw/reader.h"

/*
 * How far programs in the view have come: each writes a line to the descriptor for
 * each module that it is done with.
 */
struct meter {
	const struct thaw_compile_options *options;
	int lines;   /* a file in memory */
	char begins; /* the lines that count begin with this */
	uint64_t total, done;
	off_t seen; /* so much was looked at */
	bool inside; /* of a line */
};

/* An image, open for looking at before it is run. */
struct subject {
	const char *path;
	struct thaw_image *image;
	struct thaw_reader *reader;
	char python[16];   /* "3.11" */
	char tag[32];	   /* "cpython-311" */
	char *interpreter; /* of this node; NULL: the image's own */
	unsigned processes;
	struct meter meter;
};

/* begins: of the meter. */
_must_check_ int subject_open(const char *path,
			      const struct thaw_compile_options *options, char begins,
			      struct thaw_error *err, struct subject *ret_subject);
void subject_close(struct subject *subject);
/* What to do while programs run over it: show how many modules of total are done. */
struct thaw_train_watch subject_watch(struct subject *subject, uint64_t total);

/* Path of the interpreter to run in a view at path: malloc'ed; -EPERM when there is none. */
_must_check_ int subject_interpreter(const struct subject *subject, const char *path,
				     struct thaw_error *err, char **ret_interpreter);

/* A program that is run in the view. */
struct job {
	char *const *argv;
	char *const *envp;
	int input;  /* standard input */
	int output; /* becomes descriptor 3, or -1 */
};
/*
 * Confine ourselves to the view at path, run all jobs at once as children of a
 * process of their own, and wait. 0 when each could be run, whatever became of it.
 */
_must_check_ int run_confined(const char *path, const struct job *jobs, unsigned count,
			      struct thaw_error *err);

/* -- compile-relocated.c: sources that have another text in each view -- */

#define RELOCATED_STAGES 3u /* compiled as in the stream, and for two prefixes */

struct relocated_source {
	uint32_t ino;
	char *path; /* in the image */
};
struct relocated_sources {
	struct relocated_source *items;
	size_t count, capacity;
	uint64_t hidden;    /* whose bytecode cannot be relocated: they are no items */
	char directory[32]; /* in the view: where copies of them stand */
};
struct relocated_result {
	uint64_t compiled, hidden, failed;
};
void relocated_deinit(struct relocated_sources *sources);
_must_check_ int relocated_add(struct relocated_sources *sources,
			       const struct subject *subject, uint32_t directory,
			       struct thaw_name name, uint32_t ino,
			       struct thaw_error *err);
/* Choose a directory that the image does not have. */
void relocated_choose(struct relocated_sources *sources, const struct subject *subject);
/*
 * In the child: write the sources of a stage into the view, and their paths, a line
 * each, to list. *ret_top is the directory above them, to be freed.
 */
_must_check_ int relocated_stage(const struct relocated_sources *sources,
				 const struct subject *subject, const char *view,
				 unsigned stage, int list, char **ret_top,
				 struct thaw_error *err);
/*
 * Of what was gathered, give bytecode that is right at every prefix its path in
 * the image, and its sites. What stays beneath the directory is of no use.
 */
_must_check_ int relocated_gather(const struct relocated_sources *sources,
				  const struct subject *subject,
				  struct thaw_gathered *gathered,
				  struct relocated_result *ret_result,
				  struct thaw_error *err);
