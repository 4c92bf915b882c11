/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Training runs: a command is run over a recording view with a scratch layer.
 * What it touches goes into a trace; the .pyc files that it writes are kept.
 */
#include "thaw/rewrite.h"
#include "thaw/trace.h"
#include "thaw/view.h"

/* .pyc files that training runs wrote, to be added to the image. */
struct thaw_gathered {
	struct thaw_addition *files; /* paths and data are malloc'ed */
	size_t count, capacity;
};
void thaw_gathered_deinit(struct thaw_gathered *gathered);

/*
 * Run argv (PATH and THAW_ENV as in `thaw run`, Python free to write bytecode)
 * and wait for it. view's scratch and trace are set here. *ret_status is as of
 * waitpid(2). Files of a run that fails are not gathered. A file that is there
 * already is replaced by a later run's. interrupted (may be NULL) is asked when
 * a signal ends the waiting: the signal that argv is then ended with, or 0;
 * -EINTR once it has ended.
 */
_must_check_ int thaw_train(const struct thaw_view_options *view, char *const *argv,
			    struct thaw_trace *trace, struct thaw_gathered *gathered,
			    int (*interrupted)(void), struct thaw_error *err,
			    int *ret_status);

/* What the caller does while it waits. */
struct thaw_train_watch {
	int (*interrupted)(void);      /* as above; may be NULL */
	void (*tick)(void *userdata); /* ten times a second, until an exec; may be NULL */
	void *userdata;
};

/*
 * The same with a function of ours in the child, inside of the view at path: it
 * returns an exit code, or a negative errno with err, or execs. trace may be NULL.
 */
typedef int thaw_train_body(void *userdata, const char *path, struct thaw_error *err);
_must_check_ int thaw_train_with(const struct thaw_view_options *view, thaw_train_body *body,
				 void *userdata, struct thaw_trace *trace,
				 struct thaw_gathered *gathered,
				 const struct thaw_train_watch *watch,
				 struct thaw_error *err, int *ret_status);

/*
 * Drop what Python would not accept in image: bytecode of modules that only the
 * run had, or had changed, and of sources that carry the environment's own path,
 * which have another text elsewhere. What stays gets the mtime of its source, so that the
 * same bytecode gives the same image.
 */
void thaw_gathered_keep(struct thaw_gathered *gathered, const struct thaw_image *image);
