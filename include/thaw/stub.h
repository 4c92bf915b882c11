/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Stubs: what is shipped in place of an environment.
 *
 * A stub has a launcher (a thaw executable) under the names of the environment's
 * programs, and says which images make the environment and where they may be. It
 * is an archive, or one executable file:
 *
 *	bin/PROGRAM	   for every program of the image: a few lines of shell that
 *			   check the machine and call the launcher
 *	thaw/launcher	   the thaw executable
 *	thaw/stub.json	   what the stub stands for
 *	thaw/IDENTITY.thaw the images themselves, when they are embedded
 *
 *	[executable][stub.json][trailer][image, when embedded]
 *
 * The same images, launcher and options give the same bytes: Spark refuses an
 * artifact that comes again under its name with other bytes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/error.h"
#include "thaw/image.h"

/* -- what a stub says -- */

#define THAW_STUB_IMAGES_MAX 64u
#define THAW_STUB_SEARCH_MAX 64u
#define THAW_STUB_SIZE_MAX   (1u << 18) /* of stub.json */

struct thaw_stub_image {
	char identity[THAW_DIGEST_HEX];
	char *name;	/* the image's file name */
	char *path;	/* where it was, or will be: absolute; or NULL */
	bool embedded;	/* in the stub */
};

struct thaw_stub {
	char machine[32]; /* as uname(2) has it: "x86_64" */
	/* The environment first, further images behind it in the order they are laid on top. */
	struct thaw_stub_image *images;
	size_t image_count;
	char **search; /* directories, absolute */
	size_t search_count;
};

/* Errors: -EBADMSG when it is no such text. *ret_stub is to be deinit'ed. */
_must_check_ int thaw_stub_parse(const char *text, size_t len, struct thaw_error *err,
				 struct thaw_stub *ret_stub);
void thaw_stub_deinit(struct thaw_stub *stub);

/*
 * Look behind an executable file for what it is the launcher of. 0, THAW_NOT_FOUND
 * when there is nothing, -EBADMSG, I/O. *ret_end is where the executable itself
 * ends; both may be NULL.
 */
_must_check_ int thaw_stub_find(int fd, struct thaw_error *err, struct thaw_stub *ret_stub,
				uint64_t *ret_end);

/* -- finding its images -- */

/*
 * Find image number i: in the directories given, by identity (IDENTITY.thaw) or by
 * name; then where the stub says that it was. Only footer and parts table are looked at:
 * the rest is checked by whoever opens it. *ret_path is to be freed. THAW_NOT_FOUND, with a
 * text in err that says where it was looked for.
 */
_must_check_ int thaw_stub_locate(const struct thaw_stub *stub, size_t i,
				  const char *const *directories, size_t count,
				  struct thaw_error *err, char **ret_path);
/*
 * Take an embedded image over into a directory of the node's, as IDENTITY.thaw: by
 * another name of the file, or by a copy. file is an image, maybe behind an
 * executable. -EBADMSG when it is another image.
 */
_must_check_ int thaw_stub_adopt(const struct thaw_stub_image *image, const char *file,
				 const char *directory, struct thaw_error *err, char **ret_path);

/* -- making one -- */

enum thaw_stub_form {
	THAW_STUB_TAR_GZ,     /* .tar.gz, .tgz */
	THAW_STUB_ZIP,	      /* .zip */
	THAW_STUB_EXECUTABLE, /* .pex, .thaw: one file */
};

/* By the suffix of a file's name; THAW_NOT_FOUND for others. */
_must_check_ int thaw_stub_form(const char *path, enum thaw_stub_form *ret_form);

struct thaw_stub_options {
	const char *const *images; /* the environment first */
	size_t image_count;
	/* Where the environment will be found; NULL: where it is now. "": not said. */
	const char *image_path;
	const char *const *search; /* directories to look in, absolute */
	size_t search_count;
	bool embed;
	bool executable; /* one executable file, whatever the suffix says */
	bool force;	 /* replace an existing file */
	int launcher; /* descriptor of the executable; what follows it in a stub is left off */
};

struct thaw_stub_report {
	enum thaw_stub_form form;
	uint64_t size;	   /* of the stub */
	uint64_t launcher; /* bytes of the launcher */
	size_t programs;
	char machine[32];
	bool dynamic; /* the launcher needs shared libraries on every node */
	char identity[THAW_DIGEST_HEX];
};

/*
 * Make the stub. Errors name the file they are about in *ret_about (an image, output
 * or "launcher"; static or of the options): -EPERM (no programs inside, images for
 * another machine, not an executable), -EEXIST, -EFBIG, those of thaw_image_open().
 */
_must_check_ int thaw_stub_write(const char *output, const struct thaw_stub_options *options,
				 struct thaw_error *err, const char **ret_about,
				 struct thaw_stub_report *ret_report);

/* A stub of links: bin, lib, ... lead into directory. For views that stand already. */
_must_check_ int thaw_stub_write_links(const char *output, const char *directory, bool force,
				       struct thaw_error *err,
				       struct thaw_stub_report *ret_report);
