/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the members of a tar stream, and where in it their contents lie.
 *
 * libarchive parses. After a header it has consumed just the header, so the
 * position then is where the member's data begins; nothing is taken on trust:
 * the bytes that libarchive returns are compared with the stream's at that
 * place, for which the last few megabytes are kept.
 *
 * The locale must be "C": in a UTF-8 locale libarchive would normalise the
 * names in pax headers (two names that differ only in Unicode form became one,
 * measured with 3.6.2); in "C" it warns that it cannot convert them and hands
 * them out as they are, which is what we want.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"
#include "util/bytes.h"
#include "util/cleanup.h"

/* A power of two; more than libarchive holds back: two blocks and its largest header (1 MiB). */
#define HISTORY_SIZE (4u << 20)
#define TAR_BLOCK 512u
#define END_MARKER (2 * TAR_BLOCK)

struct tar {
	struct archive *archive;
	struct thaw_tree *tree;
	thaw_tar_pull_fn *pull;
	void *pull_data;
	struct thaw_error *pull_error;
	int pull_failed;      /* what pull returned; its text is in place already */
	uint64_t size;	      /* bytes pulled so far */
	uint64_t zeros_from;  /* everything from here on was zero */
	uint8_t *history;     /* the last HISTORY_SIZE bytes of the stream, as a ring */
	struct thaw_tar_counts *counts;
	const char *path; /* the member being read, for messages */
};

static void remember(struct tar *tar, const uint8_t *data, size_t len)
{
	size_t nonzero = len;

	while (nonzero > 0 && data[nonzero - 1] == 0)
		nonzero--;
	if (nonzero > 0)
		tar->zeros_from = tar->size + nonzero;

	tar->size += len;
	if (len > HISTORY_SIZE) {
		data += len - HISTORY_SIZE;
		len = HISTORY_SIZE;
	}
	for (uint64_t at = tar->size - len; len > 0;) {
		size_t place = at % HISTORY_SIZE;
		size_t n = len < HISTORY_SIZE - place ? len : HISTORY_SIZE - place;

		memcpy(tar->history + place, data, n);
		data += n;
		at += n;
		len -= n;
	}
}

/* Is [offset, offset + len) still in the history? */
static bool remembered(const struct tar *tar, uint64_t offset, uint64_t len)
{
	return range_inside(offset, len, tar->size) && tar->size - offset <= HISTORY_SIZE;
}

/* Does the stream hold these bytes at offset? */
static bool stream_equals(const struct tar *tar, uint64_t offset, const uint8_t *data, size_t len)
{
	if (!remembered(tar, offset, len))
		return false;
	while (len > 0) {
		size_t place = offset % HISTORY_SIZE;
		size_t n = len < HISTORY_SIZE - place ? len : HISTORY_SIZE - place;

		if (memcmp(tar->history + place, data, n) != 0)
			return false;
		data += n;
		offset += n;
		len -= n;
	}
	return true;
}

static uint8_t stream_byte(const struct tar *tar, uint64_t offset)
{
	return tar->history[offset % HISTORY_SIZE];
}

static la_ssize_t archive_pull(struct archive *archive, void *userdata, const void **ret_buffer)
{
	struct tar *tar = userdata;
	const uint8_t *data;
	size_t len;
	int r;

	r = tar->pull(tar->pull_data, tar->pull_error, &data, &len);
	if (r < 0) {
		tar->pull_failed = r;
		archive_set_error(archive, -r, "cannot be read");
		return -1;
	}
	remember(tar, data, len);
	*ret_buffer = data;
	return (la_ssize_t)len;
}

/* libarchive's failure in our words. Its raw codes do not leave this file. */
static int failure(struct tar *tar, struct thaw_error *err)
{
	const char *text = archive_error_string(tar->archive);

	if (tar->pull_failed)
		return tar->pull_failed;
	if (archive_errno(tar->archive) == ENOMEM)
		return thaw_oom(err);
	if (!text)
		text = "unknown reason";
	if (strstr(text, "too large"))
		return thaw_limit(err, "a pax header or long name is larger than 1 MiB (%s%s)",
				  tar->path[0] ? "after " : "first member", tar->path);
	if (strstr(text, "Unrecognized archive format"))
		return thaw_damaged(err, "is not a tar archive, nor a zip, PEX or wheel");
	if (tar->path[0] == '\0')
		return thaw_damaged(err, "damaged tar archive (%s)", text);
	return thaw_damaged(err, "damaged tar archive after \"%.200s\" (%s)", tar->path, text);
}

/* A header's size field as libarchive reads it: base 256, or octal behind blanks. */
static uint64_t header_size(const struct tar *tar, uint64_t header)
{
	uint64_t at = header + 124, end = at + 12, size = 0;

	if (stream_byte(tar, at) & 0x80) {
		for (size = stream_byte(tar, at++) & 0x7f; at < end; at++) {
			if (size >> 48)
				return UINT64_MAX;
			size = size << 8 | stream_byte(tar, at);
		}
		return size;
	}
	while (at < end && (stream_byte(tar, at) == ' ' || stream_byte(tar, at) == '\t'))
		at++;
	for (; at < end && stream_byte(tar, at) >= '0' && stream_byte(tar, at) <= '7'; at++)
		size = size * 8 + (uint64_t)(stream_byte(tar, at) - '0');
	return size;
}

/* Does a pax record at [at, stop), "LEN KEY=VALUE\n", hold a name with a NUL in it? */
static bool records_have_nul(const struct tar *tar, uint64_t at, uint64_t stop)
{
	static const char *const keys[] = { "path=", "linkpath=", "GNU.sparse.name=" };

	while (at < stop) {
		uint64_t len = 0, p = at;

		while (p < stop && stream_byte(tar, p) >= '0' && stream_byte(tar, p) <= '9' &&
		       len <= stop - at)
			len = len * 10 + (uint64_t)(stream_byte(tar, p++) - '0');
		/* What does not parse is libarchive's to complain about. */
		if (len <= p - at + 1 || !range_inside(at, len, stop))
			break;
		p++; /* the space */
		for (unsigned k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
			size_t key_len = strlen(keys[k]);

			if (!stream_equals(tar, p, (const uint8_t *)keys[k], key_len))
				continue;
			for (uint64_t v = p + key_len; v < at + len; v++)
				if (stream_byte(tar, v) == '\0')
					return true;
		}
		at += len;
	}
	return false;
}

/*
 * libarchive hands names out as C strings, cut at a NUL that a pax record may
 * hold. Look for one in the headers at [offset, end), of which the last is the
 * member's own. A walk that does not end just there has lost its way, and must
 * not pass for one that found nothing.
 */
static int check_names(const struct tar *tar, uint64_t offset, uint64_t end,
		       struct thaw_error *err)
{
	if (!remembered(tar, offset, end - offset))
		return thaw_limit(err, "\"%.200s\": has headers of more than %u MiB", tar->path,
				  HISTORY_SIZE >> 20);
	while (end - offset > TAR_BLOCK) {
		uint8_t type = stream_byte(tar, offset + 156);
		uint64_t size = header_size(tar, offset), at = offset + TAR_BLOCK;

		/*
		 * The types that say something of the next member. Readers differ
		 * on whether the size of a volume's label (V) means a body.
		 */
		if (!memchr("AKLVXgx", type, 7) || (type == 'V' && size != 0) ||
		    !range_inside(at, size, end) || round_up(at + size, TAR_BLOCK) > end)
			break;
		if ((type == 'x' || type == 'X' || type == 'g') &&
		    records_have_nul(tar, at, at + size))
			return thaw_refused(err, "\"%.200s\": has a NUL byte in its name", tar->path);
		offset = round_up(at + size, TAR_BLOCK);
	}
	if (end - offset != TAR_BLOCK)
		return thaw_damaged(err, "\"%.200s\": has headers that do not add up", tar->path);
	return 0;
}

/* Read a regular file's data past, comparing it; keep the first bytes. */
static int check_data(struct tar *tar, const struct thaw_member *member,
		      uint8_t head[THAW_PYC_HEADER], struct thaw_error *err)
{
	uint64_t done = 0;

	for (;;) {
		const void *data;
		la_int64_t offset;
		size_t len;
		int r = archive_read_data_block(tar->archive, &data, &len, &offset);

		if (r == ARCHIVE_EOF)
			break;
		if (r != ARCHIVE_OK)
			return failure(tar, err);
		if ((uint64_t)offset != done ||
		    !stream_equals(tar, member->data + done, data, len))
			return thaw_damaged(err, "\"%.200s\": its contents are not where they should be",
					    tar->path);
		if (done < THAW_PYC_HEADER) {
			size_t n = THAW_PYC_HEADER - (size_t)done;

			memcpy(head + done, data, len < n ? len : n);
		}
		done += len;
	}
	if (done != member->size)
		return thaw_damaged(err, "\"%.200s\": is cut short", tar->path);
	return 0;
}

static const char *kind_of(struct archive_entry *entry)
{
	switch (archive_entry_filetype(entry)) {
	case AE_IFCHR:
	case AE_IFBLK:
		return "is a device";
	case AE_IFIFO:
		return "is a fifo";
	case AE_IFSOCK:
		return "is a socket";
	default:
		return "is of an unknown type";
	}
}

static int describe(struct tar *tar, struct archive_entry *entry, struct thaw_member *member,
		    struct thaw_error *err)
{
	const char *link = archive_entry_hardlink(entry);

	member->mode = (unsigned)archive_entry_perm(entry);
	member->mtime = archive_entry_mtime_is_set(entry) ? archive_entry_mtime(entry) : 0;
	if (link) {
		if (archive_entry_size_is_set(entry) && archive_entry_size(entry) > 0)
			return thaw_refused(err, "\"%.200s\": is a hard link with contents of its own",
					    tar->path);
		member->type = THAW_HARDLINK;
		member->target = link;
		member->target_len = strlen(link);
		return 0;
	}
	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
		if (archive_entry_sparse_count(entry) > 0)
			return thaw_refused(err, "\"%.200s\": is a sparse file", tar->path);
		if (archive_entry_size(entry) < 0)
			return thaw_damaged(err, "\"%.200s\": has an impossible size", tar->path);
		member->type = THAW_REGULAR;
		member->size = (uint64_t)archive_entry_size(entry);
		member->data = (uint64_t)archive_filter_bytes(tar->archive, 0);
		return 0;
	case AE_IFDIR:
		member->type = THAW_DIRECTORY;
		return 0;
	case AE_IFLNK:
		member->type = THAW_SYMLINK;
		member->target = archive_entry_symlink(entry);
		member->target_len = member->target ? strlen(member->target) : 0;
		return 0;
	default:
		return thaw_refused(err, "\"%.200s\": %s", tar->path, kind_of(entry));
	}
}

static int add_member(struct tar *tar, struct archive_entry *entry, struct thaw_error *err)
{
	uint64_t header = (uint64_t)archive_read_header_position(tar->archive);
	const char *path = archive_entry_pathname(entry);
	uint8_t head[THAW_PYC_HEADER];
	struct thaw_member member = { .path = path };
	int r;

	if (!path)
		return thaw_damaged(err, "a member after \"%.200s\" has no name", tar->path);
	tar->path = path;
	member.path_len = strlen(path);
	r = describe(tar, entry, &member, err);
	if (r < 0)
		return r;
	r = check_names(tar, header, (uint64_t)archive_filter_bytes(tar->archive, 0), err);
	if (r < 0)
		return r;
	if (member.type == THAW_REGULAR) {
		r = check_data(tar, &member, head, err);
		if (r < 0)
			return r;
		if (member.size >= THAW_PYC_HEADER && member.path_len > 4 &&
		    memcmp(path + member.path_len - 4, ".pyc", 4) == 0)
			member.head = head;
	}
	if (archive_entry_xattr_count(entry) > 0 || archive_entry_acl_types(entry) != 0)
		tar->counts->dropped_xattrs++;
	if (member.mode & 06000)
		tar->counts->dropped_setid++;
	return thaw_tree_add(tar->tree, &member, err);
}

/*
 * Two blocks of zeros end an archive; what follows them may only be more zeros:
 * tools disagree about anything else (a second archive, say), and an archive
 * without the marker has lost its tail.
 */
static int check_end(struct tar *tar, uint64_t marker, struct thaw_error *err)
{
	const void *unused;

	/* libarchive stops reading at the marker: pull the rest. */
	for (;;) {
		la_ssize_t n = archive_pull(tar->archive, tar, &unused);

		if (n < 0)
			return tar->pull_failed;
		if (n == 0)
			break;
	}
	if (tar->zeros_from > marker)
		return thaw_damaged(err, "other bytes follow the end-of-archive marker");
	if (tar->size < marker || tar->size - marker < END_MARKER)
		return thaw_damaged(err, "the tar archive ends too early "
					 "(the end-of-archive marker is missing)");
	tar->counts->size = tar->size;
	return 0;
}

static int read_members(struct tar *tar, struct thaw_error *err)
{
	struct archive_entry *entry;
	_cleanup_(freep) char *last = NULL;

	for (;;) {
		int r = archive_read_next_header(tar->archive, &entry);

		if (r == ARCHIVE_EOF)
			return check_end(tar, (uint64_t)archive_read_header_position(tar->archive),
					 err);
		/* The one warning that is expected: see the top. */
		if (r != ARCHIVE_OK &&
		    !(r == ARCHIVE_WARN &&
		      strstr(archive_error_string(tar->archive), "can't be converted")))
			return failure(tar, err);
		r = add_member(tar, entry, err);
		if (r < 0)
			return r;
		/* entry's memory is reused: keep the name for the next message. */
		free(last);
		last = strdup(tar->path);
		tar->path = last ? last : "";
	}
}

int thaw_tar_index(thaw_tar_pull_fn *pull, void *userdata, struct thaw_tree *tree,
		   struct thaw_error *err, struct thaw_tar_counts *ret_counts)
{
	_cleanup_(freep) uint8_t *history = malloc(HISTORY_SIZE);
	struct thaw_tar_counts counts = { 0 };
	struct tar tar = {
		.archive = archive_read_new(),
		.tree = tree,
		.pull = pull,
		.pull_data = userdata,
		.pull_error = err,
		.history = history,
		.counts = &counts,
		.path = "",
	};
	int r;

	if (!history || !tar.archive ||
	    archive_read_support_format_tar(tar.archive) != ARCHIVE_OK)
		r = thaw_oom(err);
	else if (archive_read_open(tar.archive, &tar, NULL, archive_pull, NULL) != ARCHIVE_OK)
		r = failure(&tar, err);
	else
		r = read_members(&tar, err);
	if (tar.archive)
		(void)archive_read_free(tar.archive); /* reading: nothing to lose */
	if (r == 0)
		*ret_counts = counts;
	return r;
}
