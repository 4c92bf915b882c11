/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The stations of the indexer, in the order in which bytes pass them:
 *
 *	input      the source's tar stream, block by block (archive or directory)
 *	tar        finds the members in the stream, with libarchive
 *	tree       what the members add up to: names, files, attributes
 *	frames     compresses the stream and writes it
 *	output     the file that appears whole or not at all
 *
 * pack.c joins them. Everything here is used by one thread, but for the frames'
 * own compressors.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/environment.h"
#include "thaw/pack.h"

/* -- input.c, directory.c, zip-input.c, wheel-input.c, pex-input.c -- */

/*
 * What is known of an environment that was put together from wheels, before
 * anybody looks into the tree. Its tree is a virtual environment: bin/python
 * leads to /usr/bin/pythonX.Y and pyvenv.cfg names /usr/bin, until a view binds
 * both to an interpreter of its node.
 */
struct thaw_input_environment {
	/* constraints: of a PEX, joined by " or ", since one of them must hold */
	struct thaw_environment_hints hints;
	bool python_guessed; /* wheels left it open: the newest that this machine has */
	const char *command; /* below bin/: what starts the PEX's own entry point, or NULL */
};

struct thaw_input {
	/*
	 * The next block, valid until the next call; length 0 is the end. All
	 * failures are final.
	 */
	int (*next)(struct thaw_input *input, struct thaw_error *err, const uint8_t **ret_data,
		    size_t *ret_len);
	void (*free)(struct thaw_input *input);
	uint64_t consumed, total; /* bytes of the source; total 0 when unknown */
	const char *kind;	  /* "tar.gz", "directory", "zip", "pex", "wheels", ... */
	const struct thaw_input_environment *environment; /* "pex" and "wheels"; else NULL */
};

/*
 * stop is asked now and then while a pipe has nothing to read, and after
 * signals: a nonzero answer makes the read fail with -EINTR.
 */
typedef int thaw_input_stop_fn(void *userdata);

struct thaw_input_options {
	thaw_input_stop_fn *stop; /* may be NULL */
	void *stop_data;
	/*
	 * Take a PEX, a wheel or a directory of wheels for the files that it is made
	 * of: "zip" or "directory" instead of an environment.
	 */
	bool plain;
	unsigned python_minor; /* pex, wheels: make it for Python 3.N; 0: what they ask for */
};

/* path "-" is standard input. A directory becomes a canonical tar. options may be NULL. */
_must_check_ int thaw_input_open_with(const char *path,
				      const struct thaw_input_options *options,
				      struct thaw_error *err, struct thaw_input **ret_input);
static inline _must_check_ int thaw_input_open_stoppable(const char *path,
							 thaw_input_stop_fn *stop,
							 void *stop_data, struct thaw_error *err,
							 struct thaw_input **ret_input)
{
	const struct thaw_input_options options = { .stop = stop, .stop_data = stop_data };

	return thaw_input_open_with(path, &options, err, ret_input);
}
static inline _must_check_ int thaw_input_open(const char *path, struct thaw_error *err,
					       struct thaw_input **ret_input)
{
	return thaw_input_open_with(path, NULL, err, ret_input);
}
/* Those take fd in any case. A directory or zip as it is: */
_must_check_ int thaw_input_open_directory(int fd, struct thaw_error *err,
					   struct thaw_input **ret_input);
/* A directory, which may be a PEX or hold wheels; a zip, which may be a PEX or a wheel. */
_must_check_ int thaw_input_open_directory_with(int fd, const struct thaw_input_options *options,
						struct thaw_error *err,
						struct thaw_input **ret_input);
_must_check_ int thaw_input_open_zip(int fd, const char *path,
				     const struct thaw_input_options *options,
				     struct thaw_error *err, struct thaw_input **ret_input);
struct thaw_input *thaw_input_free(struct thaw_input *input);
static inline void thaw_input_freep(struct thaw_input **input)
{
	thaw_input_free(*input);
}

/* -- output.c -- */

struct thaw_output;

/*
 * Begin a file that will be called path. -EEXIST when it exists and force is
 * not given. The file has no name, or a hidden one that the next attempt
 * takes over, until it is committed.
 */
_must_check_ int thaw_output_open(const char *path, bool force, struct thaw_error *err,
				  struct thaw_output **ret_output);
_must_check_ int thaw_output_write(struct thaw_output *output, const void *data, size_t len,
				   struct thaw_error *err);
/* Append len bytes from offset of another file; shared with it where the file system can. */
_must_check_ int thaw_output_copy(struct thaw_output *output, int fd, uint64_t offset,
				  uint64_t len, struct thaw_error *err);
/* Take back what was written from size on. */
_must_check_ int thaw_output_truncate(struct thaw_output *output, uint64_t size,
				      struct thaw_error *err);
uint64_t thaw_output_offset(const struct thaw_output *output);
/* The open file, for reading back; borrowed. */
int thaw_output_fd(const struct thaw_output *output);
/* Sync it, name it, sync the directory. */
_must_check_ int thaw_output_commit(struct thaw_output *output, struct thaw_error *err);
/* Uncommitted bytes vanish. */
struct thaw_output *thaw_output_free(struct thaw_output *output);
static inline void thaw_output_freep(struct thaw_output **output)
{
	thaw_output_free(*output);
}

/* -- frames.c -- */

struct thaw_frames;

/* output is borrowed; frames are written to it in order, from the calling thread. */
_must_check_ int thaw_frames_new(struct thaw_output *output, int level, uint32_t frame_size,
				 unsigned threads, struct thaw_error *err,
				 struct thaw_frames **ret_frames);
_must_check_ int thaw_frames_add(struct thaw_frames *frames, const uint8_t *data, size_t len,
				 struct thaw_error *err);
/* Compress what is left and wait for all. */
_must_check_ int thaw_frames_end(struct thaw_frames *frames, struct thaw_error *err);
/* Frame records (format.h) of all that was written; valid until frames is freed. */
const uint8_t *thaw_frames_table(const struct thaw_frames *frames, size_t *ret_size);
struct thaw_frames *thaw_frames_free(struct thaw_frames *frames);
static inline void thaw_frames_freep(struct thaw_frames **frames)
{
	thaw_frames_free(*frames);
}
