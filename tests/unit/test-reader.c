/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of files, through the cache of frames. */
#include "check.h"

#include <pthread.h>
#include <unistd.h>

#include "digest.h"
#include "thaw/reader.h"

#define FRAMES 80u
#define FRAME 4099u /* no power of two: boundaries lie anywhere */
#define STREAM (FRAMES * FRAME)
#define SMALL 1000u /* bytes of "a"; "b" is the rest of the stream */

/* A source in memory that counts, dawdles, and may fail. */
struct slow_source {
	struct thaw_source base;
	const struct buffer *bytes;
	unsigned delay; /* microseconds */
	uint64_t fail_from; /* offsets from here on: -EIO, as of a truncated file */
};

struct state {
	struct spec spec;
	uint8_t *stream;
	struct buffer bytes;
	struct slow_source *source; /* owned by the image */
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_inode a, b;
};

static int slow_read(struct thaw_source *source, uint64_t offset, void *buf, size_t len)
{
	struct slow_source *slow = (struct slow_source *)source;

	if (slow->delay)
		usleep(slow->delay);
	if (offset + len > slow->fail_from)
		return -EIO;
	memcpy(buf, slow->bytes->data + offset, len);
	return 0;
}

static void slow_free(struct thaw_source *source)
{
	free(source);
}

/* One stream of many frames in two files. */
static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->stream = malloc(STREAM);
	fill_pattern(s->stream, STREAM, 11);
	spec_sample(&s->spec);
	spec_clear_stream(&s->spec);
	for (unsigned i = 0; i < FRAMES; i++)
		spec_add_frame(&s->spec, s->stream + i * FRAME, FRAME, false);
	s->spec.records[2].data = 0;
	s->spec.records[2].size = SMALL;
	s->spec.records[6].data = SMALL;
	s->spec.records[6].size = STREAM - SMALL;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct state *s = *state;

	thaw_reader_free(s->reader);
	thaw_image_free(s->image);
	spec_deinit(&s->spec);
	buffer_deinit(&s->bytes);
	free(s->stream);
	free(s);
	return 0;
}

static void open_it(struct state *s, uint64_t cache_bytes)
{
	struct thaw_error err;

	spec_build(&s->spec, &s->bytes);
	s->source = calloc(1, sizeof(*s->source));
	s->source->base = (struct thaw_source){
		.size = s->bytes.size, .fd = -1, .read = slow_read, .free = slow_free
	};
	s->source->bytes = &s->bytes;
	s->source->fail_from = UINT64_MAX;
	assert_success(thaw_image_open(&s->source->base, &err, &s->image), &err);
	assert_int_equal(thaw_reader_new(s->image, cache_bytes, &s->reader), 0);
	assert_int_equal(thaw_image_find(s->image, "a", &s->a), 0);
	assert_int_equal(thaw_image_find(s->image, "b/e", &s->b), 0);
}

/* Reads [offset, offset + len) of "b" and compares; false on any difference. */
static bool read_matches(struct state *s, uint64_t offset, size_t len)
{
	uint64_t size = STREAM - SMALL;
	size_t wanted = offset >= size ? 0 : len < size - offset ? len : (size_t)(size - offset);
	uint8_t *buf = malloc(len + 1);
	struct thaw_error err;
	size_t got = 0;
	bool ok;

	buf[wanted] = 0x5a;
	ok = thaw_reader_read(s->reader, &s->b, offset, buf, len, &err, &got) == 0 &&
	     got == wanted && buf[wanted] == 0x5a &&
	     memcmp(buf, s->stream + SMALL + (wanted ? offset : 0), wanted) == 0;
	free(buf);
	return ok;
}

static void random_offsets(struct state *s, uint32_t seed, unsigned rounds)
{
	uint32_t random = seed * 2654435761u + 12345;

	for (unsigned i = 0; i < rounds; i++) {
		uint64_t offset;

		random = random * 1664525 + 1013904223;
		offset = random % (STREAM + 100);
		random = random * 1664525 + 1013904223;
		/* Mostly small, sometimes many frames. */
		if (!read_matches(s, offset, (random >> 8) % (i % 10 ? 9000 : STREAM)))
			fail_msg("seed %u, round %u, offset %llu", seed, i, (unsigned long long)offset);
	}
}

static void whole_files(void **state)
{
	struct state *s = *state;
	uint8_t small[SMALL + 10];
	struct thaw_error err;
	size_t len;

	open_it(s, 0);
	assert_true(read_matches(s, 0, STREAM));
	assert_success(thaw_reader_read(s->reader, &s->a, 0, small, sizeof(small), &err, &len), &err);
	assert_int_equal(len, SMALL);
	assert_memory_equal(small, s->stream, SMALL);
}

static void any_offset_with_a_large_cache(void **state)
{
	struct thaw_reader_stats stats;

	open_it(*state, 0);
	random_offsets(*state, 1, 500);
	thaw_reader_stats(((struct state *)*state)->reader, &stats);
	assert_true(stats.misses <= FRAMES);
	assert_int_equal(stats.bytes_decompressed, stats.misses * FRAME);
}

static void any_offset_with_a_tiny_cache(void **state)
{
	struct thaw_reader_stats stats;

	open_it(*state, 1);
	random_offsets(*state, 2, 300);
	thaw_reader_stats(((struct state *)*state)->reader, &stats);
	assert_true(stats.misses > 10 * FRAMES); /* it really had to throw frames out */
	assert_int_equal(stats.errors, 0);
}

static void ends(void **state)
{
	struct state *s = *state;
	uint64_t size = STREAM - SMALL;

	open_it(s, 0);
	assert_true(read_matches(s, size - 1, 1));
	assert_true(read_matches(s, size - 1, 2));
	assert_true(read_matches(s, size, 1));
	assert_true(read_matches(s, UINT64_MAX, 10));
	assert_true(read_matches(s, 0, 0));
	/* Around the boundary of the first two frames. */
	for (unsigned offset = FRAME - SMALL - 3; offset < FRAME - SMALL + 3; offset++)
		for (unsigned len = 0; len < 6; len++)
			assert_true(read_matches(s, offset, len));
}

static void empty_file(void **state)
{
	struct state *s = *state;
	struct thaw_inode empty;
	struct thaw_error err;
	uint8_t byte;
	size_t len = 1;

	open_it(s, 0);
	assert_int_equal(thaw_image_find(s->image, "b/f", &empty), 0);
	assert_success(thaw_reader_read(s->reader, &empty, 0, &byte, 1, &err, &len), &err);
	assert_int_equal(len, 0);
}

static void hits_and_misses(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;

	open_it(s, 2 * FRAME);
	/* Frame 0, 0, 1, 0, 2 (throws out 1, the longest unused), 0, 1. */
	static const unsigned order[] = { 0, 0, 1, 0, 2, 0, 1 };
	static const unsigned misses[] = { 1, 1, 2, 2, 3, 3, 4 };
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		uint64_t offset = order[i] ? order[i] * FRAME - SMALL : 0;

		assert_true(read_matches(s, offset, 1));
		thaw_reader_stats(s->reader, &stats);
		assert_int_equal(stats.misses, misses[i]);
		assert_int_equal(stats.hits, i + 1 - misses[i]);
	}
	assert_int_equal(stats.bytes_decompressed, 4 * FRAME);
}

struct job {
	struct state *s;
	unsigned seed, rounds;
	bool few; /* only the first three frames */
	unsigned wrong;
};

static void *run_job(void *userdata)
{
	struct job *job = userdata;
	uint32_t random = job->seed * 2654435761u;

	for (unsigned i = 0; i < job->rounds; i++) {
		uint32_t offset;

		random = random * 1664525 + 1013904223;
		offset = (random >> 8) % (job->few ? 3 * FRAME - SMALL - 2 : STREAM);
		job->wrong += !read_matches(job->s, offset, job->few ? 2 : 12000);
	}
	return NULL;
}

static void run_threads(struct state *s, unsigned count, unsigned rounds, bool few)
{
	struct job jobs[16];
	pthread_t threads[16];

	for (unsigned i = 0; i < count; i++) {
		jobs[i] = (struct job){ .s = s, .seed = i + 1, .rounds = rounds, .few = few };
		assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
	}
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(jobs[i].wrong, 0);
	}
}

/* However many want a frame at once, it is read and decompressed once. */
static void threads_share_one_decompression(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;

	open_it(s, 0);
	s->source->delay = 20000; /* long enough for all of them to arrive */
	run_threads(s, 12, 20, true);
	thaw_reader_stats(s->reader, &stats);
	assert_true(stats.misses <= 3);
	assert_true(stats.misses >= 1);
	assert_int_equal(stats.bytes_decompressed, stats.misses * FRAME);
	assert_true(stats.hits >= 12 * 20 - 3);
}

static void threads_with_a_tiny_cache(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;

	open_it(s, 3 * FRAME);
	run_threads(s, 8, 60, false);
	thaw_reader_stats(s->reader, &stats);
	assert_int_equal(stats.errors, 0);
	assert_int_equal(stats.bytes_decompressed, stats.misses * FRAME);
}

static void damaged_frame(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;
	struct thaw_error err;
	uint8_t byte;
	size_t len;

	open_it(s, 0);
	s->bytes.data[s->spec.frames[7].file + 20] ^= 1;
	for (unsigned attempt = 0; attempt < 2; attempt++) {
		assert_damaged(thaw_reader_read(s->reader, &s->b, 7 * FRAME - SMALL, &byte, 1, &err, &len),
			       &err, "frame 7 is damaged (digest)");
		/* Its neighbours are as good as ever, up to its very edge. */
		assert_true(read_matches(s, 6 * FRAME - SMALL, FRAME));
		assert_true(read_matches(s, 8 * FRAME - SMALL, FRAME));
	}
	/* A read that only touches it at its end fails as a whole. */
	assert_damaged(thaw_reader_read(s->reader, &s->b, 7 * FRAME - SMALL - 1, &byte, 1, &err, &len) ?:
			       thaw_reader_read(s->reader, &s->b, 8 * FRAME - SMALL - 1, &byte, 1, &err, &len),
		       &err, "frame 7 is damaged (digest)");
	thaw_reader_stats(s->reader, &stats);
	assert_int_equal(stats.errors, 3);
	/* Repaired under us, for example a file system that recovered: it is tried again. */
	s->bytes.data[s->spec.frames[7].file + 20] ^= 1;
	assert_true(read_matches(s, 7 * FRAME - SMALL, FRAME));
}

static void read_frame_0(struct state *s, struct thaw_error *err)
{
	uint8_t byte;
	size_t len;

	assert_int_equal(thaw_reader_read(s->reader, &s->a, 0, &byte, 1, err, &len), -EBADMSG);
}

/* Digests are right, the frame is not what the index says. */
static void frame_is_not_zstd(void **state)
{
	struct state *s = *state;
	struct thaw_error err;

	memset(s->spec.stream.data, 0xee, 4);
	assert_int_equal(thaw_digest_once(s->spec.stream.data, s->spec.frames[0].stored,
					  s->spec.frames[0].digest), 0);
	open_it(s, 0);
	read_frame_0(s, &err);
	assert_string_equal(err.text, "frame 0 is damaged (Unknown frame descriptor)");
}

static void shift_frames(struct state *s, int by)
{
	s->spec.frames[0].size += (uint32_t)by;
	for (unsigned i = 1; i < FRAMES; i++)
		s->spec.frames[i].data += (uint64_t)(int64_t)by;
	s->spec.stream_size += (uint64_t)(int64_t)by;
}

static void frame_is_longer(void **state)
{
	struct state *s = *state;
	struct thaw_error err;

	shift_frames(s, -1);
	s->spec.records[6].size--;
	open_it(s, 0);
	read_frame_0(s, &err);
	assert_string_equal(err.text, "frame 0 is damaged (Destination buffer is too small)");
}

static void frame_is_shorter(void **state)
{
	struct state *s = *state;
	struct thaw_error err;

	shift_frames(s, 1);
	open_it(s, 0);
	read_frame_0(s, &err);
	assert_string_equal(err.text, "frame 0 is damaged (its length)");
}

static void truncated_under_it(void **state)
{
	struct state *s = *state;
	struct thaw_error err;
	uint8_t byte;
	size_t len;

	open_it(s, 0);
	assert_true(read_matches(s, 50 * FRAME, 1)); /* frame 50, cached */
	s->source->fail_from = s->spec.frames[40].file;
	assert_failure(thaw_reader_read(s->reader, &s->b, 60 * FRAME, &byte, 1, &err, &len), &err,
		       EIO, THAW_EXIT_IO, "frame 60 cannot be read: Input/output error");
	assert_true(read_matches(s, 39 * FRAME - SMALL, FRAME));
	assert_true(read_matches(s, 50 * FRAME, 1));
	assert_int_equal(thaw_reader_read(s->reader, &s->b, 39 * FRAME, &byte, 1, &err, &len), 0);
	assert_int_equal(thaw_reader_read(s->reader, &s->b, 40 * FRAME, &byte, 1, &err, &len), -EIO);
}

/* Threads that wait for a frame that then fails: all of them hear of it, nobody hangs. */
static void *expect_damage(void *userdata)
{
	struct job *job = userdata;
	struct thaw_error err;
	uint8_t byte;
	size_t len;

	job->wrong = thaw_reader_read(job->s->reader, &job->s->a, 0, &byte, 1, &err, &len) !=
			     -EBADMSG ||
		     strncmp(err.text, "frame 0 ", 8) != 0;
	return NULL;
}

static void all_who_wait_hear_of_damage(void **state)
{
	struct state *s = *state;
	struct job jobs[8];
	pthread_t threads[8];

	open_it(s, 0);
	s->source->delay = 20000;
	s->bytes.data[20] ^= 1;
	for (unsigned i = 0; i < 8; i++) {
		jobs[i] = (struct job){ .s = s };
		assert_int_equal(pthread_create(&threads[i], NULL, expect_damage, &jobs[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(jobs[i].wrong, 0);
	}
}

static void pin_is_bounded(void **state)
{
	struct state *s = *state;
	struct thaw_error err;
	struct thaw_pin pin;
	size_t at = 0;

	open_it(s, 1); /* pins may exceed the bound */
	assert_success(thaw_reader_pin(s->reader, &s->b, 5, STREAM, &err, &pin), &err);
	assert_int_equal(pin.count, THAW_PIN_MAX);
	assert_int_equal(pin.length, THAW_PIN_MAX * FRAME - SMALL - 5);
	/* Churn: what is pinned must stay. */
	assert_true(read_matches(s, 70 * FRAME, 8 * FRAME));
	for (unsigned i = 0; i < pin.count; i++) {
		assert_memory_equal(pin.iov[i].iov_base, s->stream + SMALL + 5 + at, pin.iov[i].iov_len);
		at += pin.iov[i].iov_len;
	}
	assert_int_equal(at, pin.length);
	thaw_reader_unpin(s->reader, &pin);
	assert_int_equal(pin.count, 0);
	thaw_reader_unpin(s->reader, &pin); /* nothing left: nothing happens */
}

static void pin_twice(void **state)
{
	struct state *s = *state;
	struct thaw_pin first, second;
	struct thaw_error err;

	open_it(s, 1);
	assert_success(thaw_reader_pin(s->reader, &s->a, 0, 10, &err, &first), &err);
	assert_success(thaw_reader_pin(s->reader, &s->a, 5, 10, &err, &second), &err);
	assert_ptr_equal((uint8_t *)first.iov[0].iov_base + 5, second.iov[0].iov_base);
	thaw_reader_unpin(s->reader, &first);
	assert_true(read_matches(s, 70 * FRAME, 8 * FRAME));
	assert_memory_equal(second.iov[0].iov_base, s->stream + 5, 10);
	thaw_reader_unpin(s->reader, &second);
}

static void pin_at_end(void **state)
{
	struct state *s = *state;
	struct thaw_error err;
	struct thaw_pin pin;

	open_it(s, 0);
	assert_success(thaw_reader_pin(s->reader, &s->a, SMALL, 10, &err, &pin), &err);
	assert_int_equal(pin.length, 0);
	assert_int_equal(pin.count, 0);
	thaw_reader_unpin(s->reader, &pin);
}

/* A failed pin holds nothing: the frames before the damaged one can be thrown out again. */
static void failed_pin_holds_nothing(void **state)
{
	struct state *s = *state;
	struct thaw_error err;
	struct thaw_pin pin;

	open_it(s, 1);
	s->bytes.data[s->spec.frames[3].file + 20] ^= 1;
	assert_damaged(thaw_reader_pin(s->reader, &s->b, 0, STREAM, &err, &pin), &err,
		       "frame 3 is damaged (digest)");
	assert_int_equal(pin.count, 0);
	/* LeakSanitizer finds entries that are still pinned when the reader goes. */
}

static void decoder(void **state)
{
	struct state *s = *state;
	struct thaw_frame_decoder *frame_decoder;
	struct thaw_error err;
	uint8_t buf[FRAME];

	open_it(s, 0);
	assert_int_equal(thaw_frame_decoder_new(s->image, &frame_decoder), 0);
	for (uint32_t i = FRAMES; i-- > 0;) {
		assert_success(thaw_frame_decode(frame_decoder, i, buf, &err), &err);
		assert_memory_equal(buf, s->stream + i * FRAME, FRAME);
	}
	s->bytes.data[s->spec.frames[3].file + 20] ^= 1;
	assert_damaged(thaw_frame_decode(frame_decoder, 3, buf, &err), &err,
		       "frame 3 is damaged (digest)");
	assert_success(thaw_frame_decode(frame_decoder, 4, buf, &err), &err);
	assert_null(thaw_frame_decoder_free(frame_decoder));
	assert_null(thaw_frame_decoder_free(NULL));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(whole_files),
		TEST(any_offset_with_a_large_cache),
		TEST(any_offset_with_a_tiny_cache),
		TEST(ends),
		TEST(empty_file),
		TEST(hits_and_misses),
		TEST(threads_share_one_decompression),
		TEST(threads_with_a_tiny_cache),
		TEST(damaged_frame),
		TEST(frame_is_not_zstd),
		TEST(frame_is_longer),
		TEST(frame_is_shorter),
		TEST(truncated_under_it),
		TEST(all_who_wait_hear_of_damage),
		TEST(pin_is_bounded),
		TEST(pin_twice),
		TEST(pin_at_end),
		TEST(failed_pin_holds_nothing),
		TEST(decoder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
