/* SPDX-License-Identifier: Apache-2.0 */
/* Zip archives: what is read, and what is not believed. */
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

#include "pack-internal.h"
#include "support-zip.h"
#include "util/bytes.h"
#include "zip.h"

static const uint8_t times[] = {
	0x55, 0x54, 5, 0, 1, 0x80, 0xf1, 0x53, 0x65
}; /* 1700000128 */

/* Open; read every member; add what they hold to out, each behind its name. */
static int read_bytes(const struct buffer *bytes, uint64_t offset, struct buffer *out,
		      struct thaw_error *err)
{
	int fd = memory_file(bytes->data, bytes->size), r;
	struct thaw_zip_cursor *cursor;
	struct thaw_zip *zip = NULL;

	memset(err, 0, sizeof(*err));
	assert_int_equal(thaw_zip_cursor_new(&cursor), 0);
	r = thaw_zip_open(fd, offset, bytes->size - offset, err, &zip);
	for (size_t i = 0; r == 0 && i < thaw_zip_count(zip); i++) {
		const struct thaw_zip_member *member = thaw_zip_member(zip, i);
		char line[4200];
		size_t len = 1, total = 0;

		assert_ptr_equal(thaw_zip_find(zip, member->name), member);
		(void)snprintf(line, sizeof(line), "%s %o %lld ", member->name,
			       member->mode, (long long)member->mtime);
		buffer_add(out, line, strlen(line));
		r = thaw_zip_begin(cursor, zip, member, err);
		while (r == 0 && len > 0) {
			const uint8_t *data;

			r = thaw_zip_next(cursor, err, &data, &len);
			if (r == 0)
				buffer_add(out, data, len);
			total += r == 0 ? len : 0;
		}
		if (r == 0)
			assert_int_equal(total, member->size);
		buffer_add(out, "\n", 1);
	}
	thaw_zip_free(zip);
	thaw_zip_cursor_free(cursor);
	(void)close(fd);
	return r;
}

static void expect(const struct buffer *bytes, uint64_t offset, const char *text)
{
	_buffer_ out = { 0 };
	struct thaw_error err;

	assert_success(read_bytes(bytes, offset, &out, &err), &err);
	buffer_add(&out, "", 1);
	assert_string_equal((char *)out.data, text);
}

static int read_fails(const struct buffer *bytes, struct thaw_error *err)
{
	_buffer_ out = { 0 };

	return read_bytes(bytes, 0, &out, err);
}

/* The archive is complete so far as its members go; reading it must fail. */
static int end_fails(struct zip_builder *zip, struct thaw_error *err)
{
	zip_end(zip, false, "");
	return read_fails(&zip->bytes, err);
}

#define SAMPLE_SIZE 7
static struct zip_spec sample_specs(unsigned i)
{
	static const char text[] =
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	const struct zip_spec specs[SAMPLE_SIZE] = {
		{ .name = "lib/a-b",
		  .data = "before a/",
		  .size = 9,
		  .mode = 0100600,
		  .extra = times,
		  .extra_size = sizeof(times) },
		{ .name = "lib/", .mode = 040755 },
		{ .name = "lib/a/deflated",
		  .data = text,
		  .size = 64,
		  .deflated = true,
		  .mode = 0100644,
		  .date = 41 << 9 | 2 << 5 | 29,
		  .time = 12 << 11 | 34 << 5 | 28 },
		{ .name = "bin/tool", .data = "#!x", .size = 3, .mode = 0100755 },
		{ .name = "bin/link", .data = "tool", .size = 4, .mode = 0120777 },
		{ .name = "empty", .mode = 0100644, .deflated = true },
		{ .name = "dos", .data = "d", .size = 1 },
	};

	return specs[i];
}

/* 2021-02-29 does not exist; as a count of days it is March 1. */
#define SAMPLE_TEXT                                                          \
	"bin/link 120777 315532800 tool\n"                                   \
	"bin/tool 100755 315532800 #!x\n"                                    \
	"dos 100644 315532800 d\n"                                           \
	"empty 100644 315532800 \n"                                          \
	"lib 40755 315532800 \n"                                             \
	"lib/a/deflated 100644 1614602096 "                                  \
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" \
	"lib/a-b 100600 1700000128 before a/\n"

static void make_sample(struct zip_builder *zip, unsigned descriptor, bool zip64)
{
	for (unsigned i = 0; i < SAMPLE_SIZE; i++) {
		struct zip_spec spec = sample_specs(i);

		if (!(spec.mode & 040000))
			spec.descriptor = descriptor;
		spec.zip64 = zip64;
		zip_member(zip, &spec);
	}
}

static void members(void **state)
{
	static const unsigned descriptors[] = { 0, 12, 16, 20, 24 };

	for (size_t i = 0; i < ARRAY_SIZE(descriptors); i++) {
		for (int zip64 = 0; zip64 < 2; zip64++) {
			_zip_ zip = { 0 };

			make_sample(&zip, descriptors[i], zip64);
			zip_end(&zip, zip64, zip64 ? "" : "a comment");
			expect(&zip.bytes, 0, SAMPLE_TEXT);
		}
	}
}

/* What is in front: counted by the offsets, or not; and an archive inside of another file. */
static void prefixes(void **state)
{
	static const char line[] = "#!/usr/bin/env python3\n";

	for (int counted = 0; counted < 2; counted++) {
		for (int zip64 = 0; zip64 < 2; zip64++) {
			_zip_ zip = { 0 };

			buffer_add(&zip.bytes, line, strlen(line));
			zip.base = counted ? 0 : strlen(line);
			make_sample(&zip, 0, zip64);
			zip_end(&zip, zip64, "");
			expect(&zip.bytes, 0, SAMPLE_TEXT);
			if (!counted)
				expect(&zip.bytes, strlen(line), SAMPLE_TEXT);
		}
	}
}

static void empty(void **state)
{
	_zip_ zip = { 0 };

	zip_end(&zip, false, "");
	expect(&zip.bytes, 0, "");
}

static void large_member(void **state)
{
	for (int deflated = 0; deflated < 2; deflated++) {
		size_t size = (1u << 20) + 12345;
		uint8_t *data = calloc(1, size);
		struct zip_spec spec = { .name = "large",
					 .data = data,
					 .size = size,
					 .deflated = deflated,
					 .mode = 0100644 };
		_buffer_ out = { 0 };
		struct thaw_error err;
		_zip_ zip = { 0 };

		fill_pattern(data, size / 2, 3);
		zip_member(&zip, &spec);
		zip_end(&zip, false, "");
		assert_success(read_bytes(&zip.bytes, 0, &out, &err), &err);
		assert_int_equal(out.size, strlen("large 100644 315532800 ") + size + 1);
		assert_memory_equal(out.data + strlen("large 100644 315532800 "), data,
				    size);
		free(data);
	}
}

/* -- names -- */

static void names(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		const char *text;
	} cases[] = {
		{ "../x", 0, "\"../x\": component \"..\" in a name" },
		{ "a/../../x", 0, "\"a/../../x\": component \"..\" in a name" },
		{ "a/./x", 0, "\"a/./x\": component \".\" in a name" },
		{ "a//x", 0, "\"a//x\": component \"\" in a name" },
		{ "a//", 0, "\"a//\": component \"\" in a name" },
		{ "/x", 0, "\"/x\": absolute name" },
		{ "/", 0, "\"/\": absolute name" },
		{ "a\\b", 0, "\"a\\b\": backslash in a name" },
		{ "a\0b", 3, "\"a\": NUL in a name" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct zip_spec spec = { .name = cases[i].name,
					 .name_len = cases[i].len,
					 .mode = 0100644 };
		struct thaw_error err;
		_zip_ zip = { 0 };

		zip_member(&zip, &spec);
		assert_refused(end_fails(&zip, &err), &err, cases[i].text);
	}
}

static void nameless(void **state)
{
	struct zip_spec spec = { .name = "a", .mode = 0100644 };
	struct thaw_error err;
	_zip_ zip = { 0 };

	zip_member(&zip, &spec);
	put_le16(zip.central.data + 28, 0);
	put_le16(zip.central.data + 30, 1); /* the name's byte becomes an extra field */
	assert_refused(end_fails(&zip, &err), &err, "a member has no name");
}

static void long_names(void **state)
{
	char name[4200];
	struct zip_spec spec = { .name = name, .mode = 0100644 };
	struct thaw_error err;
	_zip_ zip = { 0 };

	memset(name, 'n', sizeof(name));
	for (size_t i = 100; i < sizeof(name); i += 100)
		name[i] = '/';
	name[4096] = '\0';
	zip_member(&zip, &spec);
	assert_int_equal(end_fails(&zip, &err), -EPERM);
}

static void duplicates(void **state)
{
	static const char *const pairs[][2] = { { "a", "a" },
						{ "a/", "a" },
						{ "a/", "a/" } };

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct zip_spec first = { .name = pairs[i][0] },
				second = { .name = pairs[i][1] };
		struct thaw_error err;
		_zip_ zip = { 0 };

		zip_member(&zip, &first);
		zip_member(&zip, &second);
		assert_refused(end_fails(&zip, &err), &err,
			       "\"a\": two members of this name");
	}
}

/* A second name, in Info-ZIP's field. */
static void second_name(void **state)
{
	const uint8_t same[] = { 0x75, 0x70, 6, 0, 1, 0, 0, 0, 0, 'a' };
	const uint8_t other[] = { 0x75, 0x70, 6, 0, 1, 0, 0, 0, 0, 'b' };
	struct zip_spec spec = { .name = "a", .extra = same, .extra_size = sizeof(same) };
	struct thaw_error err;
	_zip_ zip = { 0 };
	_zip_ bad = { 0 };

	zip_member(&zip, &spec);
	zip_end(&zip, false, "");
	expect(&zip.bytes, 0, "a 100644 315532800 \n");
	spec.extra = other;
	zip_member(&bad, &spec);
	assert_refused(end_fails(&bad, &err), &err,
		       "\"a\": has a second, different name");
}

/* -- headers that lie -- */

/*
 * Two files; one field of a header is set to something else. at counts from the
 * header's start (LOCAL, CENTRAL: of the first file; END).
 */
enum header { LOCAL, CENTRAL, END };
static const struct {
	enum header header;
	unsigned at, width;
	uint64_t value;
	int error;
	const char *text;
} lies[] = {
	{ LOCAL, 0, 4, 0, EBADMSG, "\"a\": there is no member where the directory says" },
	{ LOCAL, 6, 2, 2, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 8, 2, 8, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 14, 4, 1, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 14, 4, 0, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 18, 4, 4, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 22, 4, 4, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 22, 4, UINT32_MAX, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 26, 2, 2, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ LOCAL, 28, 2, 1, EBADMSG, "\"a\": overlaps what follows it" },
	{ LOCAL, 28, 2, 60000, EBADMSG, "the zip archive ends too early" },
	{ LOCAL, 30, 1, 'z', EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ CENTRAL, 0, 4, 0, EBADMSG,
	  "the central directory of the zip archive is damaged" },
	{ CENTRAL, 8, 2, 1, EPERM, "\"a\": is encrypted" },
	{ CENTRAL, 8, 2, 0x40, EPERM, "\"a\": is encrypted" },
	{ CENTRAL, 8, 2, 0x2000, EPERM, "\"a\": is encrypted" },
	{ CENTRAL, 8, 2, 0x20, EPERM, "\"a\": is patch data" },
	{ CENTRAL, 10, 2, 12, EPERM,
	  "\"a\": compression method 12; thaw knows stored and deflated" },
	{ CENTRAL, 10, 2, 99, EPERM,
	  "\"a\": compression method 99; thaw knows stored and deflated" },
	{ CENTRAL, 16, 4, 1, EBADMSG,
	  "\"a\": its local header disagrees with the directory" },
	{ CENTRAL, 20, 4, 4, EBADMSG, "\"a\": 3 bytes cannot have been stored as 4" },
	{ CENTRAL, 24, 4, 4, EBADMSG, "\"a\": 4 bytes cannot have been stored as 3" },
	{ CENTRAL, 28, 2, 0xffff, EBADMSG,
	  "the central directory of the zip archive is damaged" },
	{ CENTRAL, 30, 2, 1, EBADMSG, "\"a\": damaged extra field" },
	{ CENTRAL, 34, 2, 1, EPERM, "is one of several parts of a zip archive" },
	{ CENTRAL, 40, 2, 0020644, EPERM, "\"a\": is no file, directory or symlink" },
	{ CENTRAL, 40, 2, 0040755, EBADMSG, "\"a\": a directory by name or mode only" },
	{ CENTRAL, 42, 4, 1, EBADMSG,
	  "\"a\": there is no member where the directory says" },
	{ CENTRAL, 42, 4, 60000, EBADMSG, "\"a\": lies beyond the members" },
	{ CENTRAL, 42, 4, UINT32_MAX, EBADMSG, "\"a\": lies beyond the members" },
	{ END, 4, 2, 1, EPERM, "is one of several parts of a zip archive" },
	{ END, 8, 2, 1, EBADMSG, "the end record of the zip archive contradicts itself" },
	{ END, 12, 4, 200, EBADMSG,
	  "the end record of the zip archive contradicts itself" },
	{ END, 12, 4, 95, EBADMSG,
	  "the central directory of the zip archive is not where it is said to be" },
	{ END, 16, 4, 200, EBADMSG,
	  "the central directory of the zip archive is not where it is said to be" },
	{ END, 20, 2, 1, EBADMSG,
	  "the zip archive is cut off, or followed by other bytes" },
};

static size_t two_files(struct zip_builder *zip)
{
	size_t directory;

	zip_file(zip, "a", "one");
	zip_file(zip, "b", "two");
	directory = zip->bytes.size;
	zip_end(zip, false, "");
	return directory;
}

static void poke(struct buffer *bytes, size_t at, unsigned width, uint64_t value)
{
	for (unsigned i = 0; i < width; i++)
		bytes->data[at + i] = (uint8_t)(value >> (8 * i));
}

static void lying_headers(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct thaw_error err;
		_zip_ zip = { 0 };
		size_t directory = two_files(&zip), at = lies[i].at;

		at += lies[i].header == CENTRAL ? directory
		      : lies[i].header == END	? zip.bytes.size - 22
						: 0;
		poke(&zip.bytes, at, lies[i].width, lies[i].value);
		if (read_fails(&zip.bytes, &err) != -lies[i].error ||
		    strcmp(err.text, lies[i].text) != 0)
			fail_msg("case %zu: \"%s\" instead of \"%s\"", i, err.text,
				 lies[i].text);
	}
}

/* The central record of the second member says that it lies where the first does. */
static void overlap(void **state)
{
	struct thaw_error err;
	_zip_ zip = { 0 };
	size_t directory = two_files(&zip);

	poke(&zip.bytes, directory + 47 + 42, 4, 0);
	assert_int_equal(read_fails(&zip.bytes, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "overlaps what follows it"));
}

/* A member within another's data: quoted, as in the zip bombs that need no recursion. */
static void nested(void **state)
{
	_zip_ inner = { 0 };
	_zip_ zip = { 0 };
	struct zip_spec quoted = {
		.name = "b", .data = "two", .size = 3, .mode = 0100644
	};
	struct zip_spec outer = { .name = "a", .mode = 0100644 };
	struct thaw_error err;

	zip_member(&inner, &quoted);
	outer.data = inner.bytes.data;
	outer.size = inner.bytes.size;
	zip_member(&zip, &outer);
	put_le32(inner.central.data + 42, (uint32_t)outer.data_at);
	buffer_add(&zip.central, inner.central.data, inner.central.size);
	zip.count++;
	assert_damaged(end_fails(&zip, &err), &err,
		       "\"a\": overlaps what follows it");
}

static void gaps(void **state)
{
	struct thaw_error err;
	_zip_ between = { 0 };
	_zip_ behind = { 0 };

	zip_file(&between, "a", "one");
	buffer_add(&between.bytes, "hidden", 6);
	zip_file(&between, "b", "two");
	assert_damaged(end_fails(&between, &err), &err,
		       "\"a\": is followed by bytes of no member");
	zip_file(&behind, "a", "one");
	buffer_add(&behind.bytes, "hidden", 6);
	assert_damaged(end_fails(&behind, &err), &err,
		       "\"a\": is followed by bytes of no member");
}

static void descriptors(void **state)
{
	static const unsigned sizes[] = { 12, 16, 20, 24 };
	struct thaw_error err;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct zip_spec spec = { .name = "a",
					 .data = "one",
					 .size = 3,
					 .mode = 0100644,
					 .descriptor = sizes[i] };

		for (unsigned at = 0; at < sizes[i]; at++) {
			_zip_ zip = { 0 };

			zip_member(&zip, &spec);
			zip.bytes.data[spec.data_at + 3 + at] ^= 1;
			assert_damaged(
				end_fails(&zip, &err), &err,
				"\"a\": its descriptor disagrees with the directory");
		}
	}
	for (unsigned wrong = 0; wrong < 3; wrong++) { /* a flag, and no descriptor */
		struct zip_spec spec = { .name = "a", .mode = 0100644, .flags = 8 };
		_zip_ zip = { 0 };

		zip_member(&zip, &spec);
		buffer_add_zeros(&zip.bytes, wrong);
		assert_damaged(end_fails(&zip, &err), &err,
			       "\"a\": is not followed by its descriptor");
	}
}

static void two_ends(void **state)
{
	_zip_ inner = { 0 };
	_zip_ zip = { 0 };
	struct thaw_error err;

	zip_end(&inner, false, "");
	zip_file(&zip, "a", "one");
	assert_int_equal(inner.bytes.size, 22);
	zip_end(&zip, false, "");
	/* The end record of an empty archive as the comment of this one. */
	put_le16(zip.bytes.data + zip.bytes.size - 2, 22);
	buffer_add(&zip.bytes, inner.bytes.data, 22);
	assert_damaged(read_fails(&zip.bytes, &err), &err,
		       "the zip archive has two end records");
}

/* Two archives in a row: from the front it is the one, from the end the other. */
static void in_front(void **state)
{
	struct thaw_error err;

	for (int counted = 0; counted < 2; counted++) {
		_zip_ first = { 0 };
		_zip_ zip = { 0 };

		zip_file(&first, "a", "one");
		zip_end(&first, false, "");
		buffer_add(&zip.bytes, first.bytes.data, first.bytes.size);
		zip.base = counted ? 0 : first.bytes.size;
		zip_file(&zip, "b", "two");
		assert_damaged(end_fails(&zip, &err), &err,
			       "another zip archive is in front of this one");
	}
}

static void trailing(void **state)
{
	_zip_ zip = { 0 };
	struct thaw_error err;

	two_files(&zip);
	buffer_add(&zip.bytes, "", 1);
	assert_damaged(read_fails(&zip.bytes, &err), &err,
		       "the zip archive is cut off, or followed by other bytes");
}

static void zip64_lies(void **state)
{
	static const struct {
		unsigned at, width; /* from the zip64 end record's start */
		uint64_t value;
		const char *text;
	} cases[] = {
		{ 0, 4, 0, "the zip64 end record is not where it is said to be" },
		{ 4, 8, 45, "the zip64 end record is not where it is said to be" },
		{ 24, 8, 3, "the end records of the zip archive disagree" },
		{ 40, 8, 1u << 20, "the zip64 end record is not where it is said to be" },
		{ 48, 8, 1, "the zip64 end record is not where it is said to be" },
		{ 48, 8, UINT64_MAX,
		  "the zip64 end record is not where it is said to be" },
		{ 56 + 8, 8, 1, "the zip64 end record is not where it is said to be" },
		{ 56 + 8, 8, UINT64_MAX,
		  "the zip64 end record is not where it is said to be" },
		{ 76 + 10, 2, 3, "the end record of the zip archive contradicts itself" },
		{ 76 + 12, 4, 5, "the end records of the zip archive disagree" },
		{ 76 + 16, 4, 5, "the end records of the zip archive disagree" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_error err;
		_zip_ zip = { 0 };
		size_t record;

		zip_file(&zip, "a", "one");
		zip_file(&zip, "b", "two");
		record = zip.bytes.size + zip.central.size;
		zip_end(&zip, true, "");
		poke(&zip.bytes, record + cases[i].at, cases[i].width, cases[i].value);
		if (read_fails(&zip.bytes, &err) != -EBADMSG ||
		    strcmp(err.text, cases[i].text) != 0)
			fail_msg("case %zu: \"%s\"", i, err.text);
	}
	/* Counts of which one says more members than fit, the other the truth. */
	for (unsigned both = 0; both < 2; both++) {
		struct thaw_error err;
		_zip_ zip = { 0 };
		size_t record;

		zip_file(&zip, "a", "one");
		record = zip.bytes.size + zip.central.size;
		zip_end(&zip, true, "");
		poke(&zip.bytes, record + 24, 8, both ? 1ull << 40 : 2);
		poke(&zip.bytes, record + 32, 8, both ? 1ull << 40 : 2);
		assert_int_equal(read_fails(&zip.bytes, &err), both ? -EFBIG : -EBADMSG);
	}
}

/* -- content that lies -- */

static void wrong_content(void **state)
{
	static const char text[] =
		"some text that is long enough to be deflated, deflated";
	struct thaw_error err;

	for (int deflated = 0; deflated < 2; deflated++) {
		struct zip_spec spec = { .name = "a",
					 .data = text,
					 .size = strlen(text),
					 .deflated = deflated,
					 .mode = 0100644 };
		_zip_ zip = { 0 };

		zip_member(&zip, &spec);
		poke(&zip.bytes, spec.local + 14, 4, spec.crc ^ 1);
		poke(&zip.central, 16, 4, spec.crc ^ 1);
		assert_damaged(end_fails(&zip, &err), &err,
			       "\"a\": damaged zip member (wrong CRC)");
	}
	for (int more = 0; more < 2; more++) {
		struct zip_spec spec = { .name = "a",
					 .data = text,
					 .size = strlen(text),
					 .deflated = true,
					 .mode = 0100644 };
		uint32_t size = (uint32_t)strlen(text) + (more ? 1 : -1);
		_zip_ zip = { 0 };

		zip_member(&zip, &spec);
		poke(&zip.bytes, spec.local + 22, 4, size);
		poke(&zip.central, 24, 4, size);
		assert_damaged(
			end_fails(&zip, &err), &err,
			more ? "\"a\": damaged zip member (it is shorter than it says)"
			     : "\"a\": damaged zip member (it is longer than it says)");
	}
	for (int more = 0; more < 2; more++) {
		struct zip_spec spec = { .name = "a",
					 .data = text,
					 .size = strlen(text),
					 .deflated = true,
					 .mode = 0100644 };
		_zip_ zip = { 0 };
		uint32_t stored;

		zip_member(&zip, &spec);
		stored = spec.stored + (more ? 1 : -1);
		if (more)
			buffer_add(&zip.bytes, "", 1);
		else
			zip.bytes.size--;
		poke(&zip.bytes, spec.local + 18, 4, stored);
		poke(&zip.central, 20, 4, stored);
		assert_damaged(
			end_fails(&zip, &err), &err,
			more ? "\"a\": damaged zip member (other bytes follow its data)"
			     : "\"a\": damaged zip member (its data ends too early)");
	}
}

/* More than deflate can have made of it. */
static void impossible_ratio(void **state)
{
	struct zip_spec spec = {
		.name = "a", .data = "text", .size = 4, .deflated = true, .mode = 0100644
	};
	struct thaw_error err;
	_zip_ zip = { 0 };

	zip_member(&zip, &spec);
	poke(&zip.bytes, spec.local + 22, 4, 1u << 30);
	poke(&zip.central, 24, 4, 1u << 30);
	assert_damaged(end_fails(&zip, &err), &err,
		       "\"a\": 1073741824 bytes cannot have been stored as 6");
}

static void links(void **state)
{
	struct zip_spec spec = { .name = "a", .mode = 0120777 };
	struct thaw_error err;
	_zip_ zip = { 0 };

	zip_member(&zip, &spec);
	assert_refused(end_fails(&zip, &err), &err, "\"a\": symlink of 0 bytes");
}

/* Cut anywhere, nothing of it is taken for an archive. */
static void every_truncation(void **state)
{
	_zip_ zip = { 0 };

	make_sample(&zip, 16, true);
	zip_end(&zip, true, "");
	for (size_t size = 0; size < zip.bytes.size; size++) {
		struct buffer cut = { .data = zip.bytes.data, .size = size };
		struct thaw_error err;

		if (read_fails(&cut, &err) != -EBADMSG)
			fail_msg("%zu bytes: \"%s\"", size, err.text);
	}
}

/* One wrong bit is found, or lies where it changes a name, a mode, a time or nothing. */
static void every_bit(void **state)
{
	for (int zip64 = 0; zip64 < 2; zip64++) {
		static const char *const contents[] = {
			"tool",
			"#!x",
			"before a/",
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		};
		_zip_ zip = { 0 };

		make_sample(&zip, zip64 ? 24 : 0, zip64);
		zip_end(&zip, zip64, "");
		for (size_t bit = 0; bit < 8 * zip.bytes.size; bit++) {
			_buffer_ out = { 0 };
			struct thaw_error err;

			zip.bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (read_bytes(&zip.bytes, 0, &out, &err) == 0)
				for (size_t i = 0; i < ARRAY_SIZE(contents); i++)
					if (!memmem(out.data, out.size, contents[i],
						    strlen(contents[i])))
						fail_msg("bit %zu", bit);
			zip.bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
}

/* As an input: the canonical tar, whatever the order in the zip. */
static void collect(const struct buffer *bytes, struct buffer *tar)
{
	int fd = memory_file(bytes->data, bytes->size);
	struct thaw_input *input;
	struct thaw_error err;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_success(thaw_input_open(path, &err, &input), &err);
	assert_string_equal(input->kind, "zip");
	assert_null(input->environment);
	assert_success(read_input(input, &err, tar), &err);
	assert_int_equal(input->consumed, input->total);
	thaw_input_free(input);
	(void)close(fd);
}

static void canonical(void **state)
{
	_buffer_ first = { 0 };
	_buffer_ second = { 0 };
	_zip_ forwards = { 0 };
	_zip_ backwards = { 0 };

	make_sample(&forwards, 0, false);
	zip_end(&forwards, false, "");
	for (unsigned i = SAMPLE_SIZE; i-- > 0;) {
		struct zip_spec spec = sample_specs(i);

		zip_member(&backwards, &spec);
	}
	zip_end(&backwards, false, "");
	collect(&forwards.bytes, &first);
	collect(&backwards.bytes, &second);
	assert_int_equal(first.size, second.size);
	assert_memory_equal(first.data, second.data, first.size);
	/* Seven headers, three files and a link's target, and the end. */
	assert_int_equal(first.size, 512 * (7 + 4 + 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members),	 cmocka_unit_test(prefixes),
		cmocka_unit_test(empty),	 cmocka_unit_test(large_member),
		cmocka_unit_test(names),	 cmocka_unit_test(nameless),
		cmocka_unit_test(long_names),	 cmocka_unit_test(duplicates),
		cmocka_unit_test(second_name),	 cmocka_unit_test(lying_headers),
		cmocka_unit_test(overlap),	 cmocka_unit_test(nested),
		cmocka_unit_test(gaps),		 cmocka_unit_test(descriptors),
		cmocka_unit_test(two_ends),	 cmocka_unit_test(in_front),
		cmocka_unit_test(trailing),	 cmocka_unit_test(zip64_lies),
		cmocka_unit_test(wrong_content), cmocka_unit_test(impossible_ratio),
		cmocka_unit_test(links),	 cmocka_unit_test(every_truncation),
		cmocka_unit_test(every_bit),	 cmocka_unit_test(canonical),
	};

	return cmocka_run_group_tests_name("zip", tests, NULL, NULL);
}
