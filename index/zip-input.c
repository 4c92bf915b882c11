/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zip archives and directories as inputs: which of them are a PEX or wheels, and
 * a zip as the canonical tar of its members.
 */
#include <string.h>
#include <sys/stat.h>

#include "gather.h"
#include "pack-internal.h"
#include "pex.h"
#include "util/cleanup.h"
#include "wheel.h"

/* Takes store in any case. */
static int open_plain(struct thaw_folder_store *store, struct thaw_error *err,
		      struct thaw_input **ret_input)
{
	_cleanup_(thaw_gather_freep) struct thaw_gather *gather = NULL;
	struct thaw_folder all = thaw_folder_all(store);
	int r = thaw_gather_new("zip", err, &gather);

	if (r < 0) {
		thaw_folder_free(store);
		return r;
	}
	r = thaw_gather_keep(gather, store, err);
	for (size_t i = 0; r == 0 && i < all.count; i++) {
		const struct thaw_file *file = &all.files[i];

		r = thaw_gather_file(gather, file->path, file,
				     file->mode & (S_IFMT | 0777), NULL, err);
	}
	if (r == 0)
		r = thaw_gather_finish(gather, false, err);
	return r < 0 ? r : thaw_gather_input(steal_ptr(gather), NULL, err, ret_input);
}

int thaw_input_open_zip(int fd, const char *path,
			const struct thaw_input_options *options, struct thaw_error *err,
			struct thaw_input **ret_input)
{
	_cleanup_(thaw_folder_freep) struct thaw_folder_store *store = NULL;
	const char *name = strrchr(path, '/');
	struct thaw_folder all;
	struct thaw_zip *zip;
	struct stat st;
	int r = 0;

	if (fstat(fd, &st) < 0)
		r = thaw_io(err, -errno, "cannot be read");
	if (r == 0)
		r = thaw_zip_open(fd, 0, (uint64_t)st.st_size, err, &zip);
	if (r < 0) {
		(void)safe_close(fd);
		return r;
	}
	r = thaw_folder_open_zip(fd, zip, err, &store);
	if (r < 0)
		return r;
	name = name ? name + 1 : path;
	all = thaw_folder_all(store);
	if (!options->plain && thaw_pex_recognise(&all))
		return thaw_pex_input(steal_ptr(store), options, err, ret_input);
	if (!options->plain && thaw_wheel_recognise(&all, name))
		return thaw_wheel_input(steal_ptr(store), name, options, err, ret_input);
	return open_plain(steal_ptr(store), err, ret_input);
}

int thaw_input_open_directory_with(int fd, const struct thaw_input_options *options,
				   struct thaw_error *err, struct thaw_input **ret_input)
{
	enum thaw_directory_kind kind = THAW_DIRECTORY_PLAIN;
	struct thaw_folder_store *store;
	int r;

	if (!options->plain)
		kind = thaw_directory_recognise(fd);
	if (kind == THAW_DIRECTORY_PLAIN)
		return thaw_input_open_directory(fd, err, ret_input);
	r = thaw_folder_open_directory(fd, err, &store);
	if (r < 0)
		return r;
	return kind == THAW_DIRECTORY_PEX
		       ? thaw_pex_input(store, options, err, ret_input)
		       : thaw_wheels_input(store, options, err, ret_input);
}
