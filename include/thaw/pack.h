/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The indexer: a packed environment becomes an image.
 *
 * One pass: the source is decompressed (libarchive, liblzma), its tar stream
 * goes to the frame compressors and to the tar parser at the same time, and the
 * index is written behind the frames. Then the image, which can be read by now,
 * is looked at: what kind of environment it is, and where it names the machine
 * that built it (thaw/environment.h); and the index is written again, with what
 * was found. The same input and options give the same
 * bytes, whatever the number of threads. The output appears under its name
 * complete and synced, or not at all.
 */
#include <stdbool.h>
#include <stdint.h>

#include "thaw/environment.h"
#include "thaw/error.h"
#include "thaw/image.h"

struct thaw_pack_options {
	int level;		/* zstd level; 0 means the default, 9 */
	uint32_t frame_size;	/* bytes before compression; 0 means the default */
	unsigned threads;	/* compressors; 0 means one for each CPU */
	uint64_t max_bytes;	/* of the stream; 0 means the default, 256 GiB */
	uint64_t max_entries;	/* 0 means the default, 4,194,304 */
	uint64_t max_ratio;	/* stream against source bytes, once past 64 MiB; 0 = 250 */
	bool links_contained;	/* refuse symlinks that lead out of the environment */
	/*
	 * What the source is, against what its content suggests; THAW_KIND_UNKNOWN:
	 * find out. THAW_KIND_TREE takes a PEX or wheels for the files they are.
	 */
	enum thaw_environment_kind kind;
	unsigned python_minor;	/* PEX and wheels: make it for Python 3.N; 0: as they ask */
	bool force;		/* replace an existing image */
	/*
	 * Called now and then from the calling thread (may be NULL): bytes of the
	 * source consumed and their total (0: unknown), bytes of stream seen.
	 * A nonzero result cancels: thaw_pack() cleans up and returns -EINTR.
	 */
	int (*progress)(void *userdata, uint64_t consumed, uint64_t total, uint64_t stream);
	void *progress_data;
};

struct thaw_pack_report {
	char source_kind[32];	/* "tar", "tar.gz", ..., "directory" */
	enum thaw_environment_kind kind;
	char python[16];	/* "3.11", or empty */
	char platform[64];	/* "linux-x86_64", or empty */
	bool own_interpreter;	/* with its standard library */
	uint64_t relocated, sites; /* files that name the builder's machine, and in how many places */
	uint64_t warnings;	/* texts are in the meta section */
	uint64_t source_size;	/* bytes read */
	uint64_t pyc_valid, pyc_stale, pyc_missing;
	uint64_t dropped_xattrs, dropped_setid; /* members that had any */
	uint64_t duplicates;	/* members replaced by a later one of the same name */
	uint64_t implied;	/* directories that no member named */
	struct thaw_image_info image; /* identity, sizes, counts */
};

/*
 * source: path of an archive or directory, or "-" for standard input.
 * Errors (err says what and where): -EPERM refused, -EBADMSG malformed, -EFBIG
 * limit, -EEXIST output exists (class refused), -EINTR cancelled, I/O.
 */
_must_check_ int thaw_pack(const char *source, const char *output,
			   const struct thaw_pack_options *options, struct thaw_error *err,
			   struct thaw_pack_report *ret_report);
