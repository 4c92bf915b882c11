/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the tests of the catalogue share. */
#include "check.h"

#include "catalogue-internal.h"

struct state {
	char *directory;
	bool only_leases; /* the other file is written to disk each time, which takes a while */
	struct thaw_catalogue *catalogue;
	struct thaw_catalogue_report leases, images;
};

static inline int open_in(struct state *s, const char *directory, struct thaw_error *err)
{
	const struct thaw_catalogue_options options = {
		.leases = directory,
		.images = s->only_leases ? NULL : directory,
	};

	return thaw_catalogue_open(&options, err, &s->leases, &s->images, &s->catalogue);
}

static inline void open_it(struct state *s)
{
	struct thaw_error err = { 0 };

	assert_success(open_in(s, s->directory, &err), &err);
}

static inline void close_it(struct state *s)
{
	s->catalogue = thaw_catalogue_close(s->catalogue);
}

static inline int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->directory = make_directory();
	*state = s;
	return 0;
}

static inline int teardown(void **state)
{
	struct state *s = *state;

	close_it(s);
	remove_directory(s->directory);
	free(s);
	return 0;
}

static inline void put_lease(struct state *s, const char *id, int number)
{
	struct thaw_error err = { 0 };
	json_t *lease = json_pack("{s:s,s:i}", "session", id, "number", number);

	assert_success(thaw_catalogue_put_lease(s->catalogue, id, lease, &err), &err);
	json_decref(lease);
}

/* Its number, or -1 when there is none. */
static inline int lease_number(struct state *s, const char *id)
{
	struct thaw_error err = { 0 };
	json_t *lease = NULL;
	int number, r;

	r = thaw_catalogue_get_lease(s->catalogue, id, &err, &lease);
	if (r == THAW_NOT_FOUND)
		return -1;
	assert_success(r, &err);
	assert_string_equal(json_string_value(json_object_get(lease, "session")), id);
	number = (int)json_integer_value(json_object_get(lease, "number"));
	json_decref(lease);
	return number;
}

static inline int count_lease(void *userdata, const char *id, json_t *lease)
{
	++*(unsigned *)userdata;
	assert_string_equal(json_string_value(json_object_get(lease, "session")), id);
	return 0;
}

static inline unsigned count_leases(struct state *s)
{
	struct thaw_error err = { 0 };
	unsigned count = 0, dropped = 99;

	assert_success(thaw_catalogue_each_lease(s->catalogue, count_lease, &count, &err,
						 &dropped),
		       &err);
	assert_int_equal(dropped, 0);
	return count;
}

static inline void assert_report(const struct thaw_catalogue_report *report,
				 enum thaw_catalogue_state wanted, bool unclean)
{
	if (report->state != wanted)
		fail_msg("%s instead of %s: %s", thaw_catalogue_state_name(report->state),
			 thaw_catalogue_state_name(wanted), report->why);
	assert_int_equal(report->unclean, unclean);
	assert_false(report->in_memory);
	if (wanted == THAW_CATALOGUE_REBUILT)
		assert_string_not_equal(report->why, "");
	else
		assert_string_equal(report->why, "");
}

static inline char *in_directory(struct state *s, const char *name)
{
	return join_path(s->directory, name);
}
