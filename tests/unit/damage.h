/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Damaged images. Each case changes one thing in the sound sample; all digests
 * that cover it are right again, so that only the check that the case is about
 * can find it. Its exact words are expected.
 */
#include "check.h"

struct damage {
	const char *name;
	void (*edit)(struct spec *spec);
	int error;
	const char *text; /* NULL: whatever it says */
};

#define TABLE_PART(n, field) (THAW_TABLE_HEADER + (n) * THAW_PART_ENTRY + (field))
#define SECTION(n, field) (THAW_INDEX_HEADER + (n) * THAW_SECTION_ENTRY + (field))

#define BAD(edit, text) { #edit, edit, EBADMSG, "damaged: " text }
#define RECORD(edit, number, text) { #edit, edit, EBADMSG, "damaged: index record " #number ": " text }

static inline void damaged(void **state)
{
	const struct damage *damage = *state;
	struct spec *spec = calloc(1, sizeof(*spec));
	_buffer_ bytes = { 0 };
	struct thaw_image *image = NULL;
	struct thaw_error err = { 0 };
	int r;

	spec_sample(spec);
	damage->edit(spec);
	spec_build(spec, &bytes);
	r = open_memory(&bytes, &err, &image);
	spec_deinit(spec);
	free(spec);
	assert_null(image);
	if (damage->text)
		assert_failure(r, &err, damage->error,
			       damage->error == EPERM ? THAW_EXIT_REFUSED :
			       damage->error == EFBIG ? THAW_EXIT_LIMIT :
							THAW_EXIT_DAMAGED,
			       damage->text);
	else
		assert_int_equal(r, -damage->error);
}

#define DAMAGES_MAX 128

/* Each damage as a test of its own, behind the others. */
static inline int run_damages(const char *name, const struct damage *damages, size_t count,
			      const struct CMUnitTest *others, size_t other_count)
{
	struct CMUnitTest tests[DAMAGES_MAX];

	if (other_count + count > DAMAGES_MAX)
		abort();
	for (size_t i = 0; i < other_count; i++)
		tests[i] = others[i];
	for (size_t i = 0; i < count; i++)
		tests[other_count + i] = (struct CMUnitTest){
			.name = damages[i].name,
			.test_func = damaged,
			.initial_state = (void *)&damages[i],
		};
	return _cmocka_run_group_tests(name, tests, other_count + count, NULL, NULL);
}
