/* SPDX-License-Identifier: Apache-2.0 */
/* Opening zip archives: end record, central directory, local headers (APPNOTE 6.3). */
#include "zip.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "canonical-tar.h"
#include "thaw/format.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/pread.h"

#define SIG_LOCAL      0x04034b50u
#define SIG_CENTRAL    0x02014b50u
#define SIG_END	       0x06054b50u
#define SIG_END64      0x06064b50u
#define SIG_LOCATOR    0x07064b50u
#define SIG_DESCRIPTOR 0x08074b50u

#define LOCAL_SIZE    30u
#define CENTRAL_SIZE  46u
#define END_SIZE      22u
#define END64_SIZE    56u
#define LOCATOR_SIZE  20u
#define COMMENT_MAX   65535u
/* What is held in memory; an environment has some ten thousand members. */
#define MEMBERS_MAX   (4u << 20)
#define DIRECTORY_MAX (512u << 20)

#define FLAG_ENCRYPTED	0x0001u
#define FLAG_DESCRIPTOR 0x0008u
#define FLAG_PATCH	0x0020u
#define FLAG_STRONG	0x0040u
#define FLAG_MASKED	0x2000u

#define EXTRA_ZIP64  0x0001u
#define EXTRA_TIME   0x5455u
#define EXTRA_NAME   0x7075u
#define MADE_BY_UNIX 3u
#define DEFLATE_MAX  1032u     /* the best ratio that deflate can have */
#define EPOCH_1980   315532800 /* the first second of a zip's time */

struct member {
	struct thaw_zip_member pub;
	uint64_t local;	  /* offset of the local header, in the file */
	uint32_t raw_len; /* of the name as it stands in the headers */
};

struct thaw_zip {
	int fd;
	uint64_t offset, size; /* of the archive in the file */
	uint8_t *
		directory; /* the central directory, names moved to the front of records */
	struct member *members;
	size_t count;
};

/* Where the end records say that things are. */
struct end {
	uint64_t count, directory_size, directory_offset;
	uint64_t
		directory_end; /* where the first end record begins: offset in the archive */
};

static int read_at(const struct thaw_zip *zip, uint64_t offset, void *buf, size_t len,
		   struct thaw_error *err)
{
	int r;

	if (!range_inside(offset, len, zip->size))
		return thaw_damaged(err, "the zip archive ends too early");
	r = pread_all(zip->fd, buf, len, zip->offset + offset);
	return r < 0 ? thaw_io(err, r, "cannot be read") : 0;
}

/* -- end records -- */

/* How far from its end the archive's end record begins; 0: nowhere, -1: at two places. */
static int64_t find_end(const uint8_t *tail, size_t size)
{
	int64_t found = 0;

	for (size_t distance = END_SIZE; distance <= size; distance++) {
		const uint8_t *p = tail + size - distance;

		if (get_le32(p) != SIG_END || get_le16(p + 20) != distance - END_SIZE)
			continue;
		if (found)
			return -1;
		found = (int64_t)distance;
	}
	return found;
}

static int read_tail(int fd, uint64_t offset, uint64_t size, struct thaw_error *err,
		     uint8_t **ret_tail, size_t *ret_len)
{
	size_t len = size < END_SIZE + COMMENT_MAX ? (size_t)size
						   : END_SIZE + COMMENT_MAX;
	_cleanup_(freep) uint8_t *tail = malloc(len ? len : 1);
	int r;

	if (!tail)
		return thaw_oom(err);
	r = pread_all(fd, tail, len, offset + size - len);
	if (r < 0)
		return thaw_io(err, r, "cannot be read");
	*ret_tail = steal_ptr(tail);
	*ret_len = len;
	return 0;
}

int thaw_zip_probe(int fd, uint64_t size, struct thaw_error *err)
{
	_cleanup_(freep) uint8_t *tail = NULL;
	size_t len;
	int r;

	if (size < END_SIZE)
		return 0;
	r = read_tail(fd, 0, size, err, &tail, &len);
	return r < 0 ? r : find_end(tail, len) != 0;
}

/* A 64-bit value stands in for the small one only where that is saturated; else both agree. */
static bool agrees(uint64_t small, uint64_t saturated, uint64_t large)
{
	return small == saturated || small == large;
}

static int read_end64(const struct thaw_zip *zip, const uint8_t *end, uint64_t position,
		      struct thaw_error *err, struct end *ret_end)
{
	uint8_t locator[LOCATOR_SIZE], record[END64_SIZE];
	uint64_t start, size;
	int r;

	if (position < LOCATOR_SIZE + END64_SIZE)
		return 0;
	r = read_at(zip, position - LOCATOR_SIZE, locator, sizeof(locator), err);
	if (r < 0)
		return r;
	if (get_le32(locator) != SIG_LOCATOR)
		return 0;
	/*
	 * The record lies right in front of its locator. What the locator says of its
	 * place does not count the bytes in front of the archive, perhaps, so that
	 * only the record's own size can be relied on; the two must be consistent.
	 */
	start = get_le64(locator + 8);
	if (start > position - LOCATOR_SIZE - END64_SIZE)
		return thaw_damaged(err,
				    "the zip64 end record is not where it is said to be");
	r = read_at(zip, position - LOCATOR_SIZE - END64_SIZE, record, sizeof(record),
		    err);
	if (r < 0)
		return r;
	size = get_le64(record + 4);
	if (get_le32(record) != SIG_END64 || size != END64_SIZE - 12)
		return thaw_damaged(err,
				    "the zip64 end record is not where it is said to be");
	if (get_le32(locator + 4) != 0 || get_le32(locator + 16) > 1 ||
	    get_le32(record + 16) != 0 || get_le32(record + 20) != 0)
		return thaw_refused(err, "is one of several parts of a zip archive");
	if (get_le64(record + 24) != get_le64(record + 32) ||
	    !agrees(get_le16(end + 8), UINT16_MAX, get_le64(record + 24)) ||
	    !agrees(get_le16(end + 10), UINT16_MAX, get_le64(record + 32)) ||
	    !agrees(get_le32(end + 12), UINT32_MAX, get_le64(record + 40)) ||
	    !agrees(get_le32(end + 16), UINT32_MAX, get_le64(record + 48)))
		return thaw_damaged(err, "the end records of the zip archive disagree");
	ret_end->count = get_le64(record + 32);
	ret_end->directory_size = get_le64(record + 40);
	ret_end->directory_offset = get_le64(record + 48);
	ret_end->directory_end = position - LOCATOR_SIZE - END64_SIZE;
	/* Both offsets count the bytes in front of the archive, or neither does. */
	if (ret_end->directory_size > ret_end->directory_end ||
	    ret_end->directory_end - start != ret_end->directory_end -
						      ret_end->directory_size -
						      ret_end->directory_offset)
		return thaw_damaged(err,
				    "the zip64 end record is not where it is said to be");
	return 0;
}

static int read_end(const struct thaw_zip *zip, struct thaw_error *err,
		    struct end *ret_end)
{
	_cleanup_(freep) uint8_t *tail = NULL;
	const uint8_t *end;
	int64_t distance;
	size_t len;
	int r;

	if (zip->size < END_SIZE)
		return thaw_damaged(err, "is too short for a zip archive");
	r = read_tail(zip->fd, zip->offset, zip->size, err, &tail, &len);
	if (r < 0)
		return r;
	distance = find_end(tail, len);
	if (distance == 0)
		return thaw_damaged(
			err, "the zip archive is cut off, or followed by other bytes");
	if (distance < 0)
		return thaw_damaged(err, "the zip archive has two end records");
	end = tail + len - distance;
	if (get_le16(end + 4) != get_le16(end + 6) ||
	    (get_le16(end + 4) != 0 && get_le16(end + 4) != UINT16_MAX))
		return thaw_refused(err, "is one of several parts of a zip archive");
	if (get_le16(end + 8) != get_le16(end + 10))
		return thaw_damaged(
			err, "the end record of the zip archive contradicts itself");
	ret_end->count = get_le16(end + 10);
	ret_end->directory_size = get_le32(end + 12);
	ret_end->directory_offset = get_le32(end + 16);
	ret_end->directory_end = zip->size - (uint64_t)distance;
	return read_end64(zip, end, ret_end->directory_end, err, ret_end);
}

/* -- central directory -- */

/* Days since 1970 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
	static const uint16_t before[] = { 0,	31,  59,  90,  120, 151,
					   181, 212, 243, 273, 304, 334 };
	int64_t leaps = (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400 - 477;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return (year - 1970) * 365 + leaps + before[month - 1] + (leap && month > 2) +
	       day - 1;
}

static int64_t dos_time(uint16_t date, uint16_t time)
{
	unsigned month = date >> 5 & 15, day = date & 31;

	if (month < 1 || month > 12 || day < 1)
		return EPOCH_1980;
	return days_of(1980 + (date >> 9), month, day) * 86400 + (time >> 11) * 3600 +
	       (time >> 5 & 63) * 60 + (time & 31) * 2;
}

/* Take one more 64-bit number from a zip64 field, when the small one is saturated. */
static bool widen(uint64_t *value, const uint8_t **field, size_t *left)
{
	if (*value != UINT32_MAX)
		return true;
	if (*left < 8)
		return false;
	*value = get_le64(*field);
	*field += 8;
	*left -= 8;
	return true;
}

/* The Info-ZIP field that repeats the name in UTF-8: another name would be a second truth. */
static bool is_same_name(const uint8_t *field, size_t len, const uint8_t *name,
			 size_t name_len)
{
	return len >= 5 && field[0] == 1 && len - 5 == name_len &&
	       memcmp(field + 5, name, name_len) == 0;
}

static int damaged_extra(const struct member *member, const uint8_t *name,
			 struct thaw_error *err)
{
	return thaw_damaged(err, "\"%.*s\": damaged extra field", (int)member->raw_len,
			    name);
}

static int parse_extra(struct member *member, const uint8_t *name, const uint8_t *extra,
		       size_t len, struct thaw_error *err)
{
	bool widened = false;

	while (len >= 4) {
		unsigned id = get_le16(extra);
		size_t size = get_le16(extra + 2);
		const uint8_t *field = extra + 4;

		if (size > len - 4)
			return damaged_extra(member, name, err);
		extra += 4 + size;
		len -= 4 + size;
		if (id == EXTRA_ZIP64) {
			if (widened || !widen(&member->pub.size, &field, &size) ||
			    !widen(&member->pub.stored, &field, &size) ||
			    !widen(&member->local, &field, &size))
				return damaged_extra(member, name, err);
			widened = true;
		} else if (id == EXTRA_TIME && size >= 5 && (field[0] & 1)) {
			member->pub.mtime = (int32_t)get_le32(field + 1);
		} else if (id == EXTRA_NAME &&
			   !is_same_name(field, size, name, member->raw_len)) {
			return thaw_refused(err, "\"%.*s\": has a second, different name",
					    (int)member->raw_len, name);
		}
	}
	/* Some writers align with a few zeros. */
	return all_zero(extra, len) ? 0 : damaged_extra(member, name, err);
}

/* Is every component of this name an ordinary one? */
static int check_name(const char *name, size_t len, struct thaw_error *err)
{
	const char *end = name + len;

	if (len == 0)
		return thaw_refused(err, "a member has no name");
	if (memchr(name, '\0', len))
		return thaw_refused(err, "\"%.*s\": NUL in a name", (int)len, name);
	if (memchr(name, '\\', len))
		return thaw_refused(err, "\"%.*s\": backslash in a name", (int)len, name);
	if (name[0] == '/')
		return thaw_refused(err, "\"%.*s\": absolute name", (int)len, name);
	if (len > THAW_PATH_MAX)
		return thaw_refused(err, "\"%.100s...\": name of %zu bytes", name, len);
	for (const char *p = name; p < end;) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		size_t n = (size_t)((slash ? slash : end) - p);

		if (n == 0 || (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return thaw_refused(err, "\"%.*s\": component \"%.*s\" in a name",
					    (int)len, name, (int)n, p);
		p += n + (slash != NULL);
	}
	return 0;
}

static int set_mode(struct member *member, unsigned made_by, uint32_t attributes,
		    bool slash, struct thaw_error *err)
{
	const char *name = member->pub.name;
	mode_t mode = made_by == MADE_BY_UNIX ? attributes >> 16 : 0;

	if (mode & S_IFMT) {
		if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
			return thaw_refused(
				err, "\"%s\": is no file, directory or symlink", name);
		if (S_ISDIR(mode) != slash)
			return thaw_damaged(
				err, "\"%s\": a directory by name or mode only", name);
	} else {
		/* What makes members from memory (Python's writestr) leaves the type out. */
		mode |= slash ? S_IFDIR : S_IFREG;
		if ((mode & 0777) == 0)
			mode |= slash ? 0755 : 0644;
	}
	member->pub.mode = mode & (S_IFMT | 07777);
	return 0;
}

static int check_member(const struct member *member, struct thaw_error *err)
{
	const struct thaw_zip_member *pub = &member->pub;

	if (pub->flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
		return thaw_refused(err, "\"%s\": is encrypted", pub->name);
	if (pub->flags & FLAG_PATCH)
		return thaw_refused(err, "\"%s\": is patch data", pub->name);
	if (pub->method != THAW_ZIP_STORED && pub->method != THAW_ZIP_DEFLATED)
		return thaw_refused(
			err,
			"\"%s\": compression method %u; thaw knows stored and deflated",
			pub->name, pub->method);
	if (pub->method == THAW_ZIP_STORED ? pub->stored != pub->size
					   : pub->size / DEFLATE_MAX > pub->stored)
		return thaw_damaged(err,
				    "\"%s\": %" PRIu64
				    " bytes cannot have been stored as %" PRIu64,
				    pub->name, pub->size, pub->stored);
	if (S_ISDIR(pub->mode) && pub->size > 0)
		return thaw_damaged(err, "\"%s\": a directory with content", pub->name);
	if (S_ISLNK(pub->mode) && (pub->size == 0 || pub->size > THAW_PATH_MAX))
		return thaw_refused(err, "\"%s\": symlink of %" PRIu64 " bytes",
				    pub->name, pub->size);
	return 0;
}

/* One record of the central directory at p; its name is moved to p and terminated. */
static int parse_record(uint8_t *p, size_t left, struct thaw_error *err,
			struct member *ret_member, size_t *ret_len)
{
	unsigned made_by, name_len, extra_len, disk;
	uint32_t attributes;
	bool slash;
	int r;

	if (left < CENTRAL_SIZE || get_le32(p) != SIG_CENTRAL)
		return thaw_damaged(
			err, "the central directory of the zip archive is damaged");
	name_len = get_le16(p + 28);
	extra_len = get_le16(p + 30);
	*ret_len = CENTRAL_SIZE + name_len + extra_len + get_le16(p + 32);
	if (*ret_len > left)
		return thaw_damaged(
			err, "the central directory of the zip archive is damaged");
	*ret_member = (struct member){
		.pub = {
			.mtime = dos_time(get_le16(p + 14), get_le16(p + 12)),
			.size = get_le32(p + 24),
			.stored = get_le32(p + 20),
			.crc = get_le32(p + 16),
			.method = get_le16(p + 10),
			.flags = get_le16(p + 8),
		},
		.local = get_le32(p + 42),
		.raw_len = name_len,
	};
	made_by = p[5];
	disk = get_le16(p + 34);
	attributes = get_le32(p + 38);
	r = check_name((const char *)p + CENTRAL_SIZE, name_len, err);
	if (r == 0)
		r = parse_extra(ret_member, p + CENTRAL_SIZE, p + CENTRAL_SIZE + name_len,
				extra_len, err);
	if (r < 0)
		return r;
	if (disk != 0 && disk != UINT16_MAX)
		return thaw_refused(err, "is one of several parts of a zip archive");
	slash = p[CENTRAL_SIZE + name_len - 1] == '/';
	memmove(p, p + CENTRAL_SIZE, name_len);
	p[name_len - slash] = '\0';
	ret_member->pub.name = (const char *)p;
	r = set_mode(ret_member, made_by, attributes, slash, err);
	return r < 0 ? r : check_member(ret_member, err);
}

static int read_directory(struct thaw_zip *zip, const struct end *end,
			  struct thaw_error *err)
{
	uint64_t start, at = 0;
	int r;

	if (end->count > MEMBERS_MAX || end->directory_size > DIRECTORY_MAX)
		return thaw_limit(err, "more than %u members in a zip archive",
				  MEMBERS_MAX);
	if (end->directory_size > end->directory_end ||
	    end->count > end->directory_size / CENTRAL_SIZE)
		return thaw_damaged(
			err, "the end record of the zip archive contradicts itself");
	start = end->directory_end - end->directory_size;
	if (end->directory_offset > start)
		return thaw_damaged(
			err,
			"the central directory of the zip archive is not where it is said to be");
	zip->directory = malloc(end->directory_size ? (size_t)end->directory_size : 1);
	zip->members = calloc(end->count ? (size_t)end->count : 1, sizeof(*zip->members));
	if (!zip->directory || !zip->members)
		return thaw_oom(err);
	r = read_at(zip, start, zip->directory, (size_t)end->directory_size, err);
	for (uint64_t i = 0; r == 0 && i < end->count; i++) {
		struct member *member = &zip->members[i];
		size_t len = 0;

		r = parse_record(zip->directory + at, (size_t)(end->directory_size - at),
				 err, member, &len);
		if (r < 0)
			return r;
		at += len;
		/* What lies in front of the archive, offsets may or may not count. */
		if (member->local >= end->directory_offset)
			return thaw_damaged(err, "\"%s\": lies beyond the members",
					    member->pub.name);
		member->local += start - end->directory_offset;
		zip->count++;
	}
	if (r == 0 && at != end->directory_size)
		return thaw_damaged(err, "the zip archive has more members than it says");
	return r;
}

/* -- local headers -- */

/* Is the value of a local header that of the central one, or left to what follows the data? */
static bool local_agrees(const struct member *member, uint64_t local, uint64_t central)
{
	return local == central || (local == 0 && (member->pub.flags & FLAG_DESCRIPTOR));
}

static bool local_sizes_agree(const struct member *member, const uint8_t *header,
			      const uint8_t *extra, size_t len)
{
	uint64_t stored = get_le32(header + 18), size = get_le32(header + 22);

	if (stored == UINT32_MAX || size == UINT32_MAX) {
		while (len >= 4 && get_le16(extra) != EXTRA_ZIP64) {
			size_t n = 4u + get_le16(extra + 2);

			if (n > len)
				return false;
			extra += n;
			len -= n;
		}
		if (len < 4 || get_le16(extra + 2) > len - 4)
			return false;
		len = get_le16(extra + 2);
		extra += 4;
		if (!widen(&size, &extra, &len) || !widen(&stored, &extra, &len))
			return false;
	}
	return local_agrees(member, stored, member->pub.stored) &&
	       local_agrees(member, size, member->pub.size);
}

/* Check the local header, and find the data behind it. */
static int check_local(const struct thaw_zip *zip, struct member *member,
		       struct thaw_error *err)
{
	struct thaw_zip_member *pub = &member->pub;
	uint8_t room[1024], *header = room;
	_cleanup_(freep) uint8_t *larger = NULL;
	size_t have = sizeof(room), len;
	int r;

	if (have > zip->size - member->local)
		have = (size_t)(zip->size - member->local);
	r = read_at(zip, member->local, header, have, err);
	if (r < 0)
		return r;
	if (have < LOCAL_SIZE || get_le32(header) != SIG_LOCAL)
		return thaw_damaged(err,
				    "\"%s\": there is no member where the directory says",
				    pub->name);
	len = LOCAL_SIZE + (size_t)get_le16(header + 26) + get_le16(header + 28);
	if (len > have) {
		larger = malloc(len);
		if (!larger)
			return thaw_oom(err);
		r = read_at(zip, member->local, larger, len, err);
		if (r < 0)
			return r;
		header = larger;
	}
	/* The directory's name has lost a slash at its end: its mode tells. */
	if (get_le16(header + 26) != member->raw_len ||
	    memcmp(header + LOCAL_SIZE, pub->name, strlen(pub->name)) != 0 ||
	    (S_ISDIR(pub->mode) && header[LOCAL_SIZE + member->raw_len - 1] != '/') ||
	    get_le16(header + 6) != pub->flags || get_le16(header + 8) != pub->method ||
	    !local_agrees(member, get_le32(header + 14), pub->crc) ||
	    !local_sizes_agree(member, header, header + LOCAL_SIZE + member->raw_len,
			       get_le16(header + 28)))
		return thaw_damaged(
			err, "\"%s\": its local header disagrees with the directory",
			pub->name);
	pub->offset = member->local + len;
	return 0;
}

static bool descriptor_agrees(const struct member *member, const uint8_t *p, size_t len)
{
	const struct thaw_zip_member *pub = &member->pub;

	if (len % 8 == 0) { /* with its signature */
		if (get_le32(p) != SIG_DESCRIPTOR)
			return false;
		p += 4;
		len -= 4;
	}
	if (get_le32(p) != pub->crc)
		return false;
	if (len == 12)
		return get_le32(p + 4) == pub->stored && get_le32(p + 8) == pub->size;
	return get_le64(p + 4) == pub->stored && get_le64(p + 12) == pub->size;
}

/* Between a member's data and what comes next: its descriptor if it has one, and nothing else. */
static int check_end(const struct thaw_zip *zip, const struct member *member,
		     uint64_t next, struct thaw_error *err)
{
	const struct thaw_zip_member *pub = &member->pub;
	uint8_t descriptor[24];
	uint64_t left;
	int r;

	if (pub->offset > next || pub->stored > next - pub->offset)
		return thaw_damaged(err, "\"%s\": overlaps what follows it", pub->name);
	left = next - pub->offset - pub->stored;
	if (!(pub->flags & FLAG_DESCRIPTOR)) {
		if (left > 0)
			return thaw_damaged(err,
					    "\"%s\": is followed by bytes of no member",
					    pub->name);
		return 0;
	}
	if (left != 12 && left != 16 && left != 20 && left != 24)
		return thaw_damaged(err, "\"%s\": is not followed by its descriptor",
				    pub->name);
	r = read_at(zip, next - left, descriptor, (size_t)left, err);
	if (r < 0)
		return r;
	if (!descriptor_agrees(member, descriptor, (size_t)left))
		return thaw_damaged(err,
				    "\"%s\": its descriptor disagrees with the directory",
				    pub->name);
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	return (x->local > y->local) - (x->local < y->local);
}

static int by_name(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	return thaw_canonical_compare(x->pub.name, y->pub.name);
}

/* What is in front is for others to read; but not an archive to whoever reads from the front. */
static int check_front(const struct thaw_zip *zip, uint64_t first, struct thaw_error *err)
{
	uint8_t signature[4];
	int r;

	if (first < sizeof(signature))
		return 0;
	r = read_at(zip, 0, signature, sizeof(signature), err);
	if (r < 0)
		return r;
	if (get_le32(signature) == SIG_LOCAL || get_le32(signature) == SIG_END)
		return thaw_damaged(err, "another zip archive is in front of this one");
	return 0;
}

static int check_places(struct thaw_zip *zip, uint64_t directory, struct thaw_error *err)
{
	int r;

	qsort(zip->members, zip->count, sizeof(*zip->members), by_place);
	r = check_front(zip, zip->count ? zip->members[0].local : directory, err);
	for (size_t i = 0; r == 0 && i < zip->count; i++) {
		uint64_t next = i + 1 < zip->count ? zip->members[i + 1].local
						   : directory;

		r = check_local(zip, &zip->members[i], err);
		if (r == 0)
			r = check_end(zip, &zip->members[i], next, err);
	}
	return r;
}

static int check_names(struct thaw_zip *zip, struct thaw_error *err)
{
	qsort(zip->members, zip->count, sizeof(*zip->members), by_name);
	for (size_t i = 1; i < zip->count; i++)
		if (strcmp(zip->members[i - 1].pub.name, zip->members[i].pub.name) == 0)
			return thaw_refused(err, "\"%s\": two members of this name",
					    zip->members[i].pub.name);
	return 0;
}

int thaw_zip_open(int fd, uint64_t offset, uint64_t size, struct thaw_error *err,
		  struct thaw_zip **ret_zip)
{
	_cleanup_(thaw_zip_freep) struct thaw_zip *zip = calloc(1, sizeof(*zip));
	struct end end = { 0 };
	int r;

	if (!zip)
		return thaw_oom(err);
	zip->fd = fd;
	zip->offset = offset;
	zip->size = size;
	r = read_end(zip, err, &end);
	if (r == 0)
		r = read_directory(zip, &end, err);
	if (r == 0)
		r = check_places(zip, end.directory_end - end.directory_size, err);
	if (r == 0)
		r = check_names(zip, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < zip->count; i++)
		zip->members[i].pub.offset += offset;
	*ret_zip = steal_ptr(zip);
	return 0;
}

struct thaw_zip *thaw_zip_free(struct thaw_zip *zip)
{
	if (zip) {
		free(zip->directory);
		free(zip->members);
		free(zip);
	}
	return NULL;
}

size_t thaw_zip_count(const struct thaw_zip *zip)
{
	return zip->count;
}

const struct thaw_zip_member *thaw_zip_member(const struct thaw_zip *zip, size_t number)
{
	return &zip->members[number].pub;
}

const struct thaw_zip_member *thaw_zip_find(const struct thaw_zip *zip, const char *name)
{
	struct member key = { .pub.name = name };
	struct member *found = bsearch(&key, zip->members, zip->count, sizeof(key),
				       by_name);

	return found ? &found->pub : NULL;
}

int thaw_zip_fd(const struct thaw_zip *zip)
{
	return zip->fd;
}
