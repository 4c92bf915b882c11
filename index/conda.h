/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What conda environments say about the paths in their files: the records of a
 * conda-pack archive (bin/conda-unpack), or of a live prefix (conda-meta).
 * Nothing of it is ever executed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/reader.h"
#include "thaw/relocation.h"

enum thaw_conda_kind {
	THAW_CONDA_NONE = 0, /* no conda environment */
	THAW_CONDA_PACK,     /* conda-pack's, with records to be unpacked */
	/*
	 * Its files hold the path where it was installed: a live prefix, a copy of
	 * one, a pack made for one path (--dest-prefix), or one that was unpacked
	 * with conda-unpack.
	 */
	THAW_CONDA_PREFIX,
};

typedef void thaw_conda_warn_fn(void *userdata, const char *warning);

struct thaw_conda_options {
	/*
	 * Live prefixes: where the environment stood when it was packed, as far as
	 * that is known (a directory as it was named, the same with links resolved).
	 * The first that occurs in a file counts; if none does, what the first
	 * lines of the scripts in bin/ name.
	 */
	const char *const *prefixes;
	size_t prefix_count;
	thaw_conda_warn_fn *warn; /* one line each; may be NULL */
	void *warn_data;
};

struct thaw_conda_report {
	enum thaw_conda_kind kind;
	char prefix[THAW_PATH_MAX + 1]; /* live prefixes: the one that was found, or empty */
	uint64_t records;  /* files that the environment names */
	uint64_t missing;  /* of them: not there, or no regular files */
	uint64_t files;	   /* files with sites */
	uint64_t sites;
	uint64_t editable; /* packages installed in editable mode: a warning was given for each */
};

/*
 * Find the sites of a conda environment and add them. Each file is read once,
 * in the order of the image. Returns 0 with kind THAW_CONDA_NONE for other
 * trees. Errors: -EPERM (records that are no records, an impossible path or
 * placeholder, too many of them), -EBADMSG (damage), -EFBIG, -ENOMEM.
 */
_must_check_ int thaw_conda_relocations(const struct thaw_image *image,
					struct thaw_reader *reader,
					struct thaw_relocations *relocations,
					const struct thaw_conda_options *options,
					struct thaw_error *err,
					struct thaw_conda_report *ret_report);

/*
 * Packages whose source lies outside (setuptools' .egg-link and __editable__
 * files, direct_url.json): a warning for each, in any environment with a
 * lib/pythonX.Y/site-packages. Errors as above.
 */
_must_check_ int thaw_editable_installs(const struct thaw_image *image,
					struct thaw_reader *reader, thaw_conda_warn_fn *warn,
					void *warn_data, struct thaw_error *err,
					uint64_t *ret_count);

/* Limits, each with its reason. */
#define THAW_CONDA_RECORDS_MAX 500000u	   /* a file each; the largest seen has 6,784 */
#define THAW_CONDA_SCRIPT_MAX  (128u << 20) /* bytes of bin/conda-unpack: that many long records */
#define THAW_CONDA_META_MAX    (64u << 20)  /* bytes of one conda-meta/NAME.json */

/* -- conda-records.c: the list in bin/conda-unpack -- */

/* A record; the strings are valid during the call. */
struct thaw_conda_record {
	const char *path; /* relative; no "..", no empty component */
	size_t path_len;
	const char *placeholder;
	size_t placeholder_len;
	bool binary;
};
typedef int thaw_conda_record_fn(void *userdata, const struct thaw_conda_record *record,
				 struct thaw_error *err);

/* Where the list's elements stand in the script: between the brackets. */
struct thaw_conda_list {
	size_t start, end;
	size_t records;
};

/*
 * Read the list `_prefix_records` of a conda-unpack: tuples of three string
 * literals, as repr() writes them, and nothing else. note may be NULL. -EPERM
 * when it is not there, or is anything else; what note returns, when negative.
 */
_must_check_ int thaw_conda_records(const char *script, size_t size, thaw_conda_record_fn *note,
				    void *userdata, struct thaw_error *err,
				    struct thaw_conda_list *ret_list);

/* -- conda-search.c: where placeholders stand -- */

/* To look for in one file; of the rule, room is what a string can have at most. */
struct thaw_conda_want {
	uint32_t ino;
	enum thaw_conda_mode {
		THAW_CONDA_TEXT,
		THAW_CONDA_BINARY,
		THAW_CONDA_UNKNOWN, /* as text, if the whole file is UTF-8 */
	} mode;
	uint64_t data; /* private: where the file lies */
	uint32_t placeholder, placeholder_len; /* in the list's strings */
	uint32_t room; /* BINARY: the placeholder's length when it was built in */
	uint32_t order; /* private */
};

struct thaw_conda_wants {
	struct thaw_conda_want *wants;
	size_t count, capacity;
	char *strings;
	size_t strings_size, strings_capacity;
	uint32_t last, last_len; /* the string that was added last */
	/* What stands in the first line of a Python script is a shebang. */
	bool shebangs;
};

void thaw_conda_wants_deinit(struct thaw_conda_wants *wants);
/* room 0: the placeholder's length. */
_must_check_ int thaw_conda_want(struct thaw_conda_wants *wants, uint32_t ino,
				 const char *placeholder, size_t len,
				 enum thaw_conda_mode mode, uint32_t room,
				 struct thaw_error *err);
/*
 * Look for all of it, and add the sites: as conda-unpack would find them, file by
 * file in the order of the wants. Wants are sorted in passing.
 */
_must_check_ int thaw_conda_search(const struct thaw_image *image,
				   struct thaw_reader *reader,
				   struct thaw_conda_wants *wants,
				   struct thaw_relocations *relocations,
				   struct thaw_error *err, uint64_t *ret_files);

/* -- conda-meta.c: conda-meta/NAME.json of a live prefix -- */

/*
 * What is to be looked for in a prefix that stands at `prefix`. records counts
 * the files that the packages name, missing those that are not there.
 */
_must_check_ int thaw_conda_meta(const struct thaw_image *image, struct thaw_reader *reader,
				 const char *prefix, struct thaw_conda_wants *wants,
				 struct thaw_error *err, uint64_t *ret_records,
				 uint64_t *ret_missing);
/* Is there a conda-meta with a package in it? */
bool thaw_conda_meta_exists(const struct thaw_image *image);
/* A whole file, NUL-terminated, to be freed; -EPERM when it is longer than max. */
_must_check_ int thaw_conda_read(const struct thaw_image *image, struct thaw_reader *reader,
				 const struct thaw_inode *inode, uint64_t max,
				 struct thaw_error *err, char **ret_text, size_t *ret_size);
