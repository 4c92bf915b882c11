/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical tar, written by libarchive into a buffer. */
#include "canonical-tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/growing.h"

struct thaw_canonical {
	struct archive *archive;
	struct archive_entry *entry;
	uint8_t *out;
	size_t size, capacity;
};

static la_ssize_t collect(struct archive *archive, void *userdata, const void *data,
			  size_t len)
{
	struct thaw_canonical *tar = userdata;

	if (grow(&tar->out, &tar->capacity, tar->size + len, 1) < 0) {
		archive_set_error(archive, ENOMEM, "no memory");
		return -1;
	}
	memcpy(tar->out + tar->size, data, len);
	tar->size += len;
	return (la_ssize_t)len;
}

static int write_failure(struct thaw_canonical *tar, const char *path,
			 struct thaw_error *err)
{
	const char *text = archive_error_string(tar->archive);

	if (archive_errno(tar->archive) == ENOMEM)
		return thaw_oom(err);
	return thaw_refused(err, "\"%.200s\": cannot be put into a tar (%s)", path,
			    text ? text : "unknown");
}

int thaw_canonical_new(struct thaw_error *err, struct thaw_canonical **ret_tar)
{
	_cleanup_(thaw_canonical_freep) struct thaw_canonical *tar = calloc(1,
									    sizeof(*tar));

	if (!tar)
		return thaw_oom(err);
	tar->archive = archive_write_new();
	tar->entry = archive_entry_new();
	if (!tar->archive || !tar->entry)
		return thaw_oom(err);
	/* GNU tar's format keeps names as bytes; pax would want two blocks more for each entry. */
	if (archive_write_set_format_gnutar(tar->archive) != ARCHIVE_OK ||
	    archive_write_set_bytes_per_block(tar->archive, 0) != ARCHIVE_OK ||
	    archive_write_open(tar->archive, tar, NULL, collect, NULL) != ARCHIVE_OK)
		return write_failure(tar, ".", err);
	*ret_tar = steal_ptr(tar);
	return 0;
}

struct thaw_canonical *thaw_canonical_free(struct thaw_canonical *tar)
{
	if (!tar)
		return NULL;
	if (tar->archive)
		(void)archive_write_free(tar->archive); /* its bytes are all in out */
	if (tar->entry)
		archive_entry_free(tar->entry);
	free(tar->out);
	free(tar);
	return NULL;
}

int thaw_canonical_member(struct thaw_canonical *tar,
			  const struct thaw_canonical_member *member,
			  struct thaw_error *err)
{
	bool has_data = S_ISREG(member->mode) && !member->hardlink;

	archive_entry_clear(tar->entry);
	archive_entry_set_pathname(tar->entry, member->path);
	archive_entry_set_mode(tar->entry, member->mode & (S_IFMT | 0777));
	archive_entry_set_mtime(tar->entry, member->mtime, 0);
	archive_entry_set_size(tar->entry, has_data ? (la_int64_t)member->size : 0);
	if (member->hardlink)
		archive_entry_set_hardlink(tar->entry, member->hardlink);
	else if (S_ISLNK(member->mode))
		archive_entry_set_symlink(tar->entry, member->target);
	if (archive_write_header(tar->archive, tar->entry) != ARCHIVE_OK)
		return write_failure(tar, member->path, err);
	return 0;
}

int thaw_canonical_data(struct thaw_canonical *tar, const char *path, const void *data,
			size_t len, struct thaw_error *err)
{
	if (archive_write_data(tar->archive, data, len) != (la_ssize_t)len)
		return write_failure(tar, path, err);
	return 0;
}

int thaw_canonical_end(struct thaw_canonical *tar, struct thaw_error *err)
{
	if (archive_write_close(tar->archive) != ARCHIVE_OK)
		return write_failure(tar, "end of the archive", err);
	return 0;
}

size_t thaw_canonical_take(struct thaw_canonical *tar, const uint8_t **ret_data)
{
	size_t size = tar->size;

	*ret_data = tar->out;
	tar->size = 0;
	return size;
}

int thaw_canonical_compare(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b)
		a++, b++;
	if (*a == *b)
		return 0;
	/* A slash ends a component, and what ends first comes first. */
	if (*a == '\0' || *b == '\0')
		return *a == '\0' ? -1 : 1;
	if (*a == '/' || *b == '/')
		return *a == '/' ? -1 : 1;
	return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
}
