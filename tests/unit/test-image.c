/* SPDX-License-Identifier: Apache-2.0 */
/* Sound images: opening them, and every look-up in them. */
#include "check.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct state {
	struct spec spec;
	struct buffer bytes;
	struct thaw_image *image;
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	spec_sample(&s->spec);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_image_free(s->image);
	spec_deinit(&s->spec);
	buffer_deinit(&s->bytes);
	free(s);
	return 0;
}

static void open_it(struct state *s)
{
	struct thaw_error err = { 0 };

	spec_build(&s->spec, &s->bytes);
	assert_success(open_memory(&s->bytes, &err, &s->image), &err);
}

static void info(void **state)
{
	struct state *s = *state;
	const struct thaw_image_info *info;
	struct thaw_part_info part;
	char hex[THAW_DIGEST_HEX];
	size_t len;

	open_it(s);
	info = thaw_image_info(s->image);
	assert_int_equal(info->image_size, s->bytes.size);
	assert_int_equal(info->image_start, 0);
	assert_int_equal(info->stream_size, SAMPLE_STREAM);
	assert_int_equal(info->stream_stored, s->spec.stream.size);
	assert_int_equal(info->annex_size, 0);
	assert_int_equal(info->inodes, 8);
	assert_int_equal(info->frames, 2);
	assert_int_equal(info->directories, 2);
	assert_int_equal(info->files, 3);
	assert_int_equal(info->symlinks, 1);
	assert_int_equal(info->hardlinks, 1);
	assert_int_equal(info->content_size, 5005);
	assert_memory_equal(info->stream_digest, s->spec.stream_digest, THAW_DIGEST_SIZE);
	assert_memory_equal(info->identity, s->bytes.data + s->bytes.size - THAW_FOOTER_SIZE +
						    THAW_FOOTER_OFF_IDENTITY, THAW_DIGEST_SIZE);
	assert_memory_equal(thaw_image_meta(s->image, &len), "{\"tool\":\"test\"}", 15);
	assert_int_equal(len, 15);

	assert_int_equal(thaw_image_part_count(s->image), 2);
	thaw_image_part(s->image, 0, &part);
	assert_int_equal(part.type, THAW_PART_STREAM);
	assert_int_equal(part.offset, 0);
	assert_int_equal(part.size, s->spec.stream.size);
	assert_int_equal(part.raw_size, SAMPLE_STREAM);
	thaw_image_part(s->image, 1, &part);
	assert_int_equal(part.type, THAW_PART_INDEX);
	assert_int_equal(part.size, info->index_stored);
	assert_int_equal(part.raw_size, info->index_size);
	assert_memory_equal(part.digest, info->index_digest, THAW_DIGEST_SIZE);

	thaw_digest_hex(info->identity, hex);
	assert_int_equal(strspn(hex, "0123456789abcdef"), 64);
	for (unsigned i = 0; i < THAW_DIGEST_SIZE; i++) {
		unsigned byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		assert_int_equal(byte, info->identity[i]);
	}
}

static void inodes(void **state)
{
	struct state *s = *state;
	struct thaw_inode inode;

	open_it(s);
	assert_int_equal(thaw_image_inode(s->image, 0, &inode), -EINVAL);
	assert_int_equal(thaw_image_inode(s->image, 8, &inode), -EINVAL);
	assert_int_equal(thaw_image_inode(s->image, UINT64_MAX, &inode), -EINVAL);
	/* 2^32 + 2 must not pass for 2. */
	assert_int_equal(thaw_image_inode(s->image, (1ull << 32) + 2, &inode), -EINVAL);
	assert_int_equal(thaw_image_inode(s->image, 5, &inode), -EINVAL); /* a hard link's record */
	assert_int_equal(thaw_image_inode(s->image, 1, &inode), 0);
	assert_int_equal(inode.type, THAW_DIRECTORY);
	assert_int_equal(inode.size, 4);
	assert_int_equal(inode.parent, 1);
	assert_int_equal(thaw_image_inode(s->image, 6, &inode), 0);
	assert_int_equal(inode.ino, 6);
	assert_int_equal(inode.type, THAW_REGULAR);
	assert_int_equal(inode.mode, 0644);
	assert_int_equal(inode.mtime, 1700000000);
	assert_int_equal(inode.nlink, 1);
	assert_int_equal(inode.parent, 3);
	assert_int_equal(inode.size, 5000);
	assert_int_equal(inode.data, 1536);
}

static void lookup(void **state)
{
	struct state *s = *state;
	struct thaw_inode inode;

	open_it(s);
	assert_int_equal(thaw_image_lookup(s->image, 1, "a", 1, &inode), 0);
	assert_int_equal(inode.ino, 2);
	assert_int_equal(thaw_image_lookup(s->image, 1, "d", 1, &inode), 0);
	assert_int_equal(inode.ino, 2); /* resolved */
	assert_int_equal(inode.type, THAW_REGULAR);
	assert_int_equal(thaw_image_lookup(s->image, 1, "c", 1, &inode), 0);
	assert_string_equal(thaw_image_target(s->image, &inode), "a");
	assert_int_equal(thaw_image_lookup(s->image, 3, "f", 1, &inode), 0);
	assert_int_equal(inode.ino, 7);
	/* Before, between, behind the names; prefixes; nothing. */
	assert_int_equal(thaw_image_lookup(s->image, 1, "A", 1, &inode), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_lookup(s->image, 1, "aa", 2, &inode), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_lookup(s->image, 1, "z", 1, &inode), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_lookup(s->image, 1, "", 0, &inode), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_lookup(s->image, 1, "e", 1, &inode), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_lookup(s->image, 2, "a", 1, &inode), -ENOTDIR);
	assert_int_equal(thaw_image_lookup(s->image, 5, "a", 1, &inode), -EINVAL);
	assert_int_equal(thaw_image_lookup(s->image, 0, "a", 1, &inode), -EINVAL);
	assert_int_equal(thaw_image_lookup(s->image, 99, "a", 1, &inode), -EINVAL);
}

static void children(void **state)
{
	static const char names[] = "abcd";
	static const uint32_t numbers[] = { 2, 3, 4, 2 };
	struct state *s = *state;
	struct thaw_inode root, child;
	struct thaw_name name;

	open_it(s);
	assert_int_equal(thaw_image_inode(s->image, THAW_ROOT, &root), 0);
	for (unsigned i = 0; i < 4; i++) {
		thaw_image_child(s->image, &root, i, &name, &child);
		assert_int_equal(name.len, 1);
		assert_int_equal(name.text[0], names[i]);
		assert_int_equal(child.ino, numbers[i]);
	}
}

static void find(void **state)
{
	static const struct {
		const char *path;
		uint32_t ino; /* 0: not found */
	} cases[] = {
		{ "", 1 },	  { "/", 1 },	   { ".", 1 },	 { "//./.", 1 }, { "a", 2 },
		{ "/a/", 2 },	  { "b/e", 6 },	   { "b//e", 6 }, { "./b/./f", 7 }, { "d", 2 },
		{ "b", 3 },	  { "/b/", 3 },	   { "c", 4 },	 { "..", 0 },	 { "b/..", 0 },
		{ "a/x", 0 },	  { "c/x", 0 },	   { "b/g", 0 }, { "bb", 0 },	 { "b/e/f", 0 },
	};
	struct state *s = *state;
	struct thaw_inode inode;

	open_it(s);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(thaw_image_find(s->image, cases[i].path, &inode),
				 cases[i].ino ? 0 : THAW_NOT_FOUND);
		if (cases[i].ino)
			assert_int_equal(inode.ino, cases[i].ino);
	}
}

static void paths(void **state)
{
	struct state *s = *state;
	char buf[16];

	open_it(s);
	thaw_image_path(s->image, 1, buf, sizeof(buf));
	assert_string_equal(buf, ".");
	thaw_image_path(s->image, 2, buf, sizeof(buf));
	assert_string_equal(buf, "a");
	thaw_image_path(s->image, 6, buf, sizeof(buf));
	assert_string_equal(buf, "b/e");
	thaw_image_path(s->image, 6, buf, 4);
	assert_string_equal(buf, "b/e");
	/* Too small for it: cut in front, always terminated, never beyond. */
	for (size_t size = 1; size < 4; size++) {
		memset(buf, '#', sizeof(buf));
		thaw_image_path(s->image, 6, buf, size);
		assert_true(strlen(buf) < size);
		assert_int_equal(buf[size], '#');
	}
}

static void long_paths_are_cut(void **state)
{
	struct state *s = *state;
	char buf[200];

	/* "b" becomes a directory of 90 characters, "e" a file of 40. */
	memset(s->spec.strings + s->spec.strings_size, 'b', 90);
	s->spec.records[3].name = (uint32_t)s->spec.strings_size;
	s->spec.records[3].name_len = 90;
	s->spec.strings_size += 90;
	memset(s->spec.strings + s->spec.strings_size, 'e', 40);
	s->spec.records[6].name = (uint32_t)s->spec.strings_size;
	s->spec.records[6].name_len = 40;
	s->spec.strings_size += 40;
	open_it(s);
	thaw_image_path(s->image, 6, buf, sizeof(buf));
	assert_int_equal(strlen(buf), 131);
	thaw_image_path(s->image, 6, buf, 132);
	assert_int_equal(strlen(buf), 131);
	assert_int_equal(buf[0], 'b');
	thaw_image_path(s->image, 6, buf, 131);
	assert_memory_equal(buf, "...e", 4);
	assert_true(strlen(buf) < 131);
}

static void frames(void **state)
{
	struct state *s = *state;
	struct thaw_frame frame;

	open_it(s);
	thaw_image_frame(s->image, 1, &frame);
	assert_int_equal(frame.data_offset, 4096);
	assert_int_equal(frame.file_offset, s->spec.frames[1].file);
	assert_int_equal(frame.size, 4096);
	assert_int_equal(frame.stored, s->spec.frames[1].stored);
	assert_memory_equal(frame.digest, s->spec.frames[1].digest, THAW_DIGEST_SIZE);
	assert_int_equal(thaw_image_frame_at(s->image, 0), 0);
	assert_int_equal(thaw_image_frame_at(s->image, 4095), 0);
	assert_int_equal(thaw_image_frame_at(s->image, 4096), 1);
	assert_int_equal(thaw_image_frame_at(s->image, 8191), 1);
}

static void raw_bytes(void **state)
{
	struct state *s = *state;
	uint8_t buf[64];

	open_it(s);
	assert_int_equal(thaw_image_pread(s->image, 3, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, s->bytes.data + 3, sizeof(buf));
	assert_int_equal(thaw_image_pread(s->image, s->bytes.size - 63, buf, sizeof(buf)), -EIO);
	assert_int_equal(thaw_image_pread(s->image, UINT64_MAX, buf, sizeof(buf)), -EIO);
}

/* An image may follow anything, an executable for example. */
static void after_other_bytes(void **state)
{
	for (size_t prefix = 1; prefix < 100000; prefix = prefix * 7 + 3) {
		struct state *s = *state;
		_buffer_ bytes = { 0 };
		struct thaw_image *image;
		struct thaw_error err;
		struct thaw_inode inode;
		uint8_t first[8];

		spec_build(&s->spec, &s->bytes);
		for (size_t i = 0; i < prefix; i++)
			buffer_add(&bytes, "\x7f", 1);
		buffer_add(&bytes, s->bytes.data, s->bytes.size);
		assert_success(open_memory(&bytes, &err, &image), &err);
		assert_int_equal(thaw_image_info(image)->image_start, prefix);
		assert_int_equal(thaw_image_info(image)->image_size, s->bytes.size);
		assert_int_equal(thaw_image_find(image, "b/e", &inode), 0);
		assert_int_equal(thaw_image_pread(image, 0, first, sizeof(first)), 0);
		assert_memory_equal(first, s->bytes.data, sizeof(first));
		/* What is before the image is not part of it. */
		assert_int_equal(thaw_image_pread(image, s->bytes.size, first, 1), -EIO);
		thaw_image_free(image);
	}
}

static void with_annex(void **state)
{
	struct state *s = *state;
	uint8_t data[3000];

	fill_pattern(data, sizeof(data), 9);
	spec_add_frame(&s->spec, data, sizeof(data), true);
	s->spec.records[7].size = 3000;
	s->spec.records[7].data = SAMPLE_STREAM;
	open_it(s);
	assert_int_equal(thaw_image_info(s->image)->annex_size, 3000);
	assert_int_equal(thaw_image_info(s->image)->annex_stored, s->spec.annex.size);
	assert_int_equal(thaw_image_frame_at(s->image, SAMPLE_STREAM), 2);
	assert_int_equal(thaw_image_part_count(s->image), 3);
}

static void empty(void **state)
{
	struct state *s = *state;
	struct thaw_inode inode;

	/* A root without children, a stream without bytes. */
	spec_clear_stream(&s->spec);
	s->spec.record_count = 2;
	s->spec.records[1].size = 0;
	s->spec.strings_size = 0;
	s->spec.meta_size = 0;
	open_it(s);
	assert_int_equal(thaw_image_find(s->image, "a", &inode), THAW_NOT_FOUND);
	assert_int_equal(thaw_image_lookup(s->image, 1, "a", 1, &inode), THAW_NOT_FOUND);
}

/* What a later version may add, and this one ignores. */
static void unknown_but_optional(void **state)
{
	struct state *s = *state;
	struct thaw_part_info part;

	s->spec.compat = 1ull << 40 | 1;
	s->spec.sections[s->spec.section_count++] = (struct spec_section){ 1000, 0, "later", 5 };
	s->spec.parts[s->spec.part_count++] =
		(struct spec_part){ .type = 77, .data = "from the future", .size = 15, .raw_size = 99 };
	s->spec.parts[s->spec.part_count++] = (struct spec_part){
		.type = THAW_PART_WARM, .data = "set", .size = 3, .raw_size = 4096, .name = "import"
	};
	open_it(s);
	assert_true(thaw_image_info(s->image)->compat == (1ull << 40 | 1));
	assert_int_equal(thaw_image_part_count(s->image), 4);
	thaw_image_part(s->image, 2, &part);
	assert_int_equal(part.type, 77);
	assert_string_equal(part.name, "");
	thaw_image_part(s->image, 3, &part);
	assert_int_equal(part.type, THAW_PART_WARM);
	assert_string_equal(part.name, "import");
	assert_int_equal(part.size, 3);
}

static void as_many_parts_as_allowed(void **state)
{
	struct state *s = *state;

	while (s->spec.part_count < THAW_PARTS_MAX - 2)
		s->spec.parts[s->spec.part_count++] = (struct spec_part){
			.type = THAW_PART_WARM, .data = "set", .size = 3, .raw_size = 3, .name = "w"
		};
	open_it(s);
	assert_int_equal(thaw_image_part_count(s->image), THAW_PARTS_MAX);
}

/* A name of 255 bytes, with every byte that a name may have. */
static void every_byte_in_a_name(void **state)
{
	struct state *s = *state;
	char name[THAW_NAME_MAX];
	struct thaw_inode inode;
	size_t len = 0;

	for (unsigned byte = 1; byte < 256; byte++)
		if (byte != '/')
			name[len++] = (char)byte;
	memcpy(s->spec.strings + s->spec.strings_size, name, len);
	s->spec.records[7].name = (uint32_t)s->spec.strings_size;
	s->spec.records[7].name_len = (uint8_t)len;
	s->spec.strings_size += len;
	/* Byte 1 comes before "e". */
	s->spec.records[0] = s->spec.records[6];
	s->spec.records[6] = s->spec.records[7];
	s->spec.records[7] = s->spec.records[0];
	s->spec.records[0] = (struct spec_record){ 0 };
	open_it(s);
	assert_int_equal(thaw_image_lookup(s->image, 3, name, len, &inode), 0);
	assert_int_equal(inode.ino, 6);
	assert_int_equal(thaw_image_lookup(s->image, 3, name, len - 1, &inode), THAW_NOT_FOUND);
}

/* A source that fails: its error comes through, at every single read. */
struct failing {
	struct thaw_source base;
	const struct buffer *bytes;
	unsigned left;
};

static int failing_read(struct thaw_source *source, uint64_t offset, void *buf, size_t len)
{
	struct failing *failing = (struct failing *)source;

	if (failing->left-- == 0)
		return -ESTALE;
	memcpy(buf, failing->bytes->data + offset, len);
	return 0;
}

static void failing_free(struct thaw_source *source)
{
	free(source);
}

static void source_errors(void **state)
{
	static const char *const texts[] = {
		"the footer cannot be read: Stale file handle",
		"the parts table cannot be read: Stale file handle",
		"a part cannot be read: Stale file handle",
		"the index cannot be read: Stale file handle",
	};
	struct state *s = *state;

	spec_build(&s->spec, &s->bytes);
	for (unsigned i = 0; i <= ARRAY_SIZE(texts); i++) {
		struct failing *failing = calloc(1, sizeof(*failing));
		struct thaw_image *image = NULL;
		struct thaw_error err;
		int r;

		failing->base = (struct thaw_source){
			.size = s->bytes.size, .fd = -1, .read = failing_read, .free = failing_free
		};
		failing->bytes = &s->bytes;
		failing->left = i;
		r = thaw_image_open(&failing->base, &err, &image);
		if (i < ARRAY_SIZE(texts))
			assert_failure(r, &err, ESTALE, THAW_EXIT_IO, texts[i]);
		else
			assert_success(r, &err);
		thaw_image_free(image);
	}
}

/* Every record, by both. */
static void same_images(const struct thaw_image *a, const struct thaw_image *b)
{
	size_t a_len, b_len;
	const char *a_meta = thaw_image_meta(a, &a_len), *b_meta = thaw_image_meta(b, &b_len);

	assert_memory_equal(thaw_image_info(a), thaw_image_info(b), sizeof(struct thaw_image_info));
	assert_int_equal(a_len, b_len);
	assert_memory_equal(a_meta, b_meta, a_len);
	for (uint32_t ino = 1; ino < thaw_image_info(a)->inodes; ino++) {
		struct thaw_inode x = { 0 }, y = { 0 };
		char x_path[64], y_path[64];

		assert_int_equal(thaw_image_inode(a, ino, &x), thaw_image_inode(b, ino, &y));
		assert_memory_equal(&x, &y, sizeof(x));
		thaw_image_path(a, ino, x_path, sizeof(x_path));
		thaw_image_path(b, ino, y_path, sizeof(y_path));
		assert_string_equal(x_path, y_path);
		if (x.type == THAW_SYMLINK)
			assert_string_equal(thaw_image_target(a, &x), thaw_image_target(b, &y));
	}
	for (uint32_t i = 0; i < thaw_image_info(a)->frames; i++) {
		struct thaw_frame x, y;

		thaw_image_frame(a, i, &x);
		thaw_image_frame(b, i, &y);
		assert_int_equal(x.file_offset, y.file_offset);
		assert_memory_equal(x.digest, y.digest, THAW_DIGEST_SIZE);
	}
}

/* What was shared, as whoever maps it sees it. */
static void *map_shared(const struct thaw_image *image, size_t *ret_size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct thaw_error err = { 0 };
	struct stat st;
	void *map;

	/* Not from the beginning: others write before. */
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(lseek(fd, 4096, SEEK_SET), 4096);
	assert_success(thaw_image_share(image, fd, &err), &err);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size % 8, 0);
	*ret_size = (size_t)st.st_size - 4096;
	map = mmap(NULL, *ret_size, PROT_READ, MAP_SHARED, fd, 4096);
	assert_ptr_not_equal(map, MAP_FAILED);
	close(fd);
	return map;
}

static int open_shared(const struct buffer *bytes, const void *map, size_t size,
		       struct thaw_error *err, struct thaw_image **ret_image)
{
	struct thaw_source *source;
	size_t used = 0;
	int r = thaw_source_from_memory(bytes->data, bytes->size, &source);

	if (r == 0)
		r = thaw_image_open_shared(source, map, size, err, ret_image, &used);
	if (r == 0)
		assert_int_equal(used, size);
	return r;
}

static void shared(void **state)
{
	struct state *s = *state;
	struct thaw_image *image = NULL, *again = NULL;
	struct thaw_error err = { 0 };
	size_t size, second_size;
	void *map, *second;

	open_it(s);
	map = map_shared(s->image, &size);
	assert_success(open_shared(&s->bytes, map, size, &err, &image), &err);
	same_images(s->image, image);
	/* What was shared can be shared again, and needs nobody to stay. */
	second = map_shared(image, &second_size);
	assert_int_equal(second_size, size);
	thaw_image_free(image);
	assert_int_equal(munmap(map, size), 0);
	assert_success(open_shared(&s->bytes, second, second_size, &err, &again), &err);
	same_images(s->image, again);
	thaw_image_free(again);
	assert_int_equal(munmap(second, second_size), 0);
}

static void shared_and_cut(void **state)
{
	struct state *s = *state;
	struct thaw_image *image = NULL;
	struct thaw_error err = { 0 };
	struct buffer shorter;
	size_t size;
	void *map;

	open_it(s);
	map = map_shared(s->image, &size);
	for (size_t cut = 0; cut < size; cut += cut < 64 ? 1 : 61)
		assert_failure(open_shared(&s->bytes, map, cut, &err, &image), &err, EBADMSG,
			       THAW_EXIT_DAMAGED, "the shared index is none");
	shorter = s->bytes;
	shorter.size--;
	assert_failure(open_shared(&shorter, map, size, &err, &image), &err, EBADMSG,
		       THAW_EXIT_DAMAGED, "the shared index is another image's");
	assert_int_equal(munmap(map, size), 0);
}

/* Whoever knows which image it must be looks into no other. */
static void known(void **state)
{
	struct state *s = *state;
	uint8_t identity[THAW_DIGEST_SIZE];
	struct thaw_image *image = NULL;
	struct thaw_source *source;
	struct thaw_error err = { 0 };

	open_it(s);
	memcpy(identity, thaw_image_info(s->image)->identity, sizeof(identity));
	assert_int_equal(thaw_source_from_memory(s->bytes.data, s->bytes.size, &source), 0);
	assert_success(thaw_image_open_known(source, identity, &err, &image), &err);
	thaw_image_free(image);
	identity[31] ^= 1;
	assert_int_equal(thaw_source_from_memory(s->bytes.data, s->bytes.size, &source), 0);
	assert_failure(thaw_image_open_known(source, identity, &err, &image), &err, EBADMSG,
		       THAW_EXIT_DAMAGED, "was replaced by another image while it was opened");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(info),
		TEST(inodes),
		TEST(lookup),
		TEST(children),
		TEST(find),
		TEST(paths),
		TEST(long_paths_are_cut),
		TEST(frames),
		TEST(raw_bytes),
		TEST(after_other_bytes),
		TEST(with_annex),
		TEST(empty),
		TEST(unknown_but_optional),
		TEST(as_many_parts_as_allowed),
		TEST(every_byte_in_a_name),
		TEST(source_errors),
		TEST(shared),
		TEST(shared_and_cut),
		TEST(known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
