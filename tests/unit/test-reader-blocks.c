/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of several blocks: whoever wants the beginning gets it before the end is there. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "digest.h"
#include "frame-decoder.h"
#include "util/cleanup.h"

#define BLOCK (128u << 10) /* what zstd makes */
#define SIZE (3 * BLOCK - 7)
/* Of bytes that cannot be compressed: the frame's header, and each block's before it. */
#define FRAME_HEADER 9u
#define BLOCK_HEADER 3u

struct state {
	struct spec spec;
	uint8_t *content;
	struct buffer bytes;
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_inode file;
	unsigned began, ended; /* notes of the reader */
};

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->content = malloc(SIZE);
	fill_pattern(s->content, SIZE, 5);
	spec_sample(&s->spec);
	spec_clear_stream(&s->spec);
	spec_add_frame(&s->spec, s->content, SIZE, false);
	s->spec.records[2].data = 0;
	s->spec.records[2].size = SIZE; /* "a" */
	s->spec.records[6].data = s->spec.records[6].size = 0;
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
	free(s->content);
	free(s);
	return 0;
}

static void note(void *userdata, const struct thaw_frame *frame, bool done)
{
	struct state *s = userdata;

	assert_int_equal(frame->size, SIZE);
	*(done ? &s->ended : &s->began) += 1;
}

static void open_it(struct state *s)
{
	struct thaw_error err;

	spec_build(&s->spec, &s->bytes);
	assert_success(open_memory(&s->bytes, &err, &s->image), &err);
	assert_int_equal(thaw_reader_new(s->image, 0, &s->reader), 0);
	thaw_reader_observe(s->reader, note, s);
	assert_int_equal(thaw_image_find(s->image, "a", &s->file), 0);
}

/* The third block says that it is of a kind that does not exist; the digest is right. */
static void damage_last_block(struct state *s)
{
	struct spec_frame *frame = &s->spec.frames[0];
	uint8_t *stored = s->spec.stream.data + frame->file;

	memset(stored + FRAME_HEADER + 2 * (BLOCK_HEADER + BLOCK), 0xff, BLOCK_HEADER);
	assert_int_equal(thaw_digest_once(stored, frame->stored, frame->digest), 0);
}

static void block_by_block(void **state)
{
	struct state *s = *state;
	const struct {
		size_t until, ready;
	} steps[] = { { 1, BLOCK },	       { BLOCK, BLOCK }, { BLOCK + 1, 2 * BLOCK },
		      { BLOCK, 2 * BLOCK }, { SIZE, SIZE },	 { SIZE, SIZE } };
	struct thaw_frame_decoder *decoder;
	_cleanup_(freep) uint8_t *buf = malloc(SIZE);
	struct thaw_error err;
	size_t ready;

	open_it(s);
	assert_int_equal(thaw_frame_decoder_new(s->image, &decoder), 0);
	for (unsigned attempt = 0; attempt < 2; attempt++) {
		memset(buf, 0, SIZE);
		assert_success(thaw_frame_begin(decoder, 0, buf, &err), &err);
		for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
			assert_success(thaw_frame_advance(decoder, steps[i].until, &ready, &err),
				       &err);
			assert_int_equal(ready, steps[i].ready);
			assert_memory_equal(buf, s->content, ready);
		}
		/* Another is begun in the middle, and one is decoded at once. */
		assert_success(thaw_frame_begin(decoder, 0, buf, &err), &err);
		assert_success(thaw_frame_advance(decoder, 1, &ready, &err), &err);
		assert_success(thaw_frame_decode(decoder, 0, buf, &err), &err);
		assert_memory_equal(buf, s->content, SIZE);
	}
	assert_null(thaw_frame_decoder_free(decoder));
}

static void the_rest_comes_with_unpinning(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;
	struct thaw_error err;
	struct thaw_pin pin, second;

	open_it(s);
	assert_success(thaw_reader_pin(s->reader, &s->file, 10, 100, &err, &pin), &err);
	assert_int_equal(s->began, 1);
	assert_int_equal(s->ended, 0);
	assert_memory_equal(pin.iov[0].iov_base, s->content + 10, 100);
	/* What is there is given to others; it is one frame. */
	assert_success(thaw_reader_pin(s->reader, &s->file, BLOCK - 1, 1, &err, &second), &err);
	assert_memory_equal(second.iov[0].iov_base, s->content + BLOCK - 1, 1);
	thaw_reader_unpin(s->reader, &second);
	assert_int_equal(s->ended, 0);
	thaw_reader_unpin(s->reader, &pin);
	assert_int_equal(s->ended, 1);
	assert_success(thaw_reader_pin(s->reader, &s->file, 0, SIZE, &err, &pin), &err);
	assert_memory_equal(pin.iov[0].iov_base, s->content, SIZE);
	thaw_reader_unpin(s->reader, &pin);
	thaw_reader_stats(s->reader, &stats);
	assert_int_equal(stats.misses, 1);
	assert_int_equal(stats.hits, 2);
	assert_int_equal(stats.bytes_decompressed, SIZE);
}

/* Who wants the end decodes all of it at once. */
static void nothing_is_left_of_the_end(void **state)
{
	struct state *s = *state;
	struct thaw_error err;
	struct thaw_pin pin;

	open_it(s);
	assert_success(thaw_reader_pin(s->reader, &s->file, SIZE - 1, 1, &err, &pin), &err);
	assert_int_equal(s->ended, 1);
	thaw_reader_unpin(s->reader, &pin);
	assert_int_equal(s->ended, 1);
}

struct waiter {
	struct state *s;
	atomic_int result; /* 1: waits */
};

static void *want_the_end(void *userdata)
{
	struct waiter *waiter = userdata;
	struct thaw_error err;
	uint8_t byte = 0;
	size_t len = 0;
	int r;

	r = thaw_reader_read(waiter->s->reader, &waiter->s->file, SIZE - 1, &byte, 1, &err, &len);
	if (r == 0 && (len != 1 || byte != waiter->s->content[SIZE - 1]))
		r = -EPROTO;
	waiter->result = r;
	return NULL;
}

/* Eight threads wait for the end of what a ninth has the beginning of. */
static void wait_for_the_end(struct state *s, int wanted)
{
	struct waiter waiters[8];
	pthread_t threads[8];
	struct thaw_error err;
	struct thaw_pin pin;

	assert_success(thaw_reader_pin(s->reader, &s->file, 0, 1, &err, &pin), &err);
	for (unsigned i = 0; i < 8; i++) {
		waiters[i].s = s;
		waiters[i].result = 1;
		assert_int_equal(pthread_create(&threads[i], NULL, want_the_end, &waiters[i]), 0);
	}
	usleep(20000);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(waiters[i].result, 1); /* it cannot be there */
	thaw_reader_unpin(s->reader, &pin);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(waiters[i].result, wanted);
	}
}

static void others_wait_for_the_rest(void **state)
{
	open_it(*state);
	wait_for_the_end(*state, 0);
}

static void all_who_wait_hear_of_damage(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;

	damage_last_block(s);
	open_it(s);
	wait_for_the_end(s, -EBADMSG);
	thaw_reader_stats(s->reader, &stats);
	assert_int_equal(stats.bytes_decompressed, 0);
}

/* Its beginning can be had again and again, and its end never. */
static void damage_in_the_last_block(void **state)
{
	struct state *s = *state;
	struct thaw_reader_stats stats;
	struct thaw_error err;
	uint8_t buf[100];
	size_t len;

	damage_last_block(s);
	open_it(s);
	for (unsigned i = 0; i < 2; i++) {
		assert_success(thaw_reader_read(s->reader, &s->file, 5, buf, sizeof(buf), &err,
						&len), &err);
		assert_memory_equal(buf, s->content + 5, sizeof(buf));
		assert_damaged(thaw_reader_read(s->reader, &s->file, SIZE - 1, buf, 1, &err, &len),
			       &err, "frame 0 is damaged (Data corruption detected)");
	}
	thaw_reader_stats(s->reader, &stats);
	assert_int_equal(stats.errors, 4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(block_by_block),
		TEST(the_rest_comes_with_unpinning),
		TEST(nothing_is_left_of_the_end),
		TEST(others_wait_for_the_rest),
		TEST(all_who_wait_hear_of_damage),
		TEST(damage_in_the_last_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
