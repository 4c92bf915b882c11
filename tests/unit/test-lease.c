/* SPDX-License-Identifier: Apache-2.0 */
/* Leases: names, ids, JSON there and back, and records that are none. */
#include "check.h"

#include "lease.h"

static void names(void **state)
{
	char text[THAW_SESSION_NAME_MAX + 2];

	assert_true(thaw_session_name_valid("a"));
	assert_true(thaw_session_name_valid("5f2c2f6e-7e0e-4d9e"));
	assert_true(thaw_session_name_valid("a..b~!"));
	assert_false(thaw_session_name_valid(""));
	assert_false(thaw_session_name_valid("."));
	assert_false(thaw_session_name_valid(".a"));
	assert_false(thaw_session_name_valid("a/b"));
	assert_false(thaw_session_name_valid("a b"));
	assert_false(thaw_session_name_valid("a\n"));
	assert_false(thaw_session_name_valid("\x7f"));
	assert_false(thaw_session_name_valid("\xc3\xbc"));
	memset(text, 'n', sizeof(text));
	text[THAW_SESSION_NAME_MAX] = '\0';
	assert_true(thaw_session_name_valid(text));
	text[THAW_SESSION_NAME_MAX] = 'n';
	text[THAW_SESSION_NAME_MAX + 1] = '\0';
	assert_false(thaw_session_name_valid(text));
}

static void ids(void **state)
{
	char a[THAW_VIEW_ID], b[THAW_VIEW_ID];

	assert_int_equal(thaw_lease_id("s", "/d", a), 0);
	assert_int_equal(strlen(a), THAW_VIEW_ID - 1);
	assert_int_equal(thaw_lease_id("s", "/d", b), 0);
	assert_string_equal(a, b);
	assert_int_equal(thaw_lease_id("t", "/d", b), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(thaw_lease_id("s", "/e", b), 0);
	assert_string_not_equal(a, b);
}

static void labels(void **state)
{
	json_t *object = json_object();
	char key[16];

	assert_true(thaw_labels_valid(NULL));
	assert_true(thaw_labels_valid(object));
	for (unsigned i = 0; i < THAW_LABELS_MAX; i++) {
		(void)snprintf(key, sizeof(key), "k%u", i);
		(void)json_object_set_new(object, key, json_string("v"));
	}
	assert_true(thaw_labels_valid(object));
	(void)json_object_set_new(object, "more", json_string("v"));
	assert_false(thaw_labels_valid(object));
	(void)json_object_clear(object);
	(void)json_object_set_new(object, "k", json_integer(1));
	assert_false(thaw_labels_valid(object));
	(void)json_object_clear(object);
	(void)json_object_set_new(object, "", json_string("v"));
	assert_false(thaw_labels_valid(object));
	json_decref(object);
	object = json_array();
	assert_false(thaw_labels_valid(object));
	json_decref(object);
}

static void digests(void **state)
{
	uint8_t digest[THAW_DIGEST_SIZE];
	char hex[THAW_DIGEST_HEX];

	memset(hex, 'a', sizeof(hex) - 1);
	hex[sizeof(hex) - 1] = '\0';
	assert_true(thaw_digest_from_hex(hex, digest));
	assert_int_equal(digest[31], 0xaa);
	hex[5] = 'A';
	assert_false(thaw_digest_from_hex(hex, digest));
	hex[5] = 'g';
	assert_false(thaw_digest_from_hex(hex, digest));
	hex[63] = '\0';
	assert_false(thaw_digest_from_hex(hex, digest));
	assert_false(thaw_digest_from_hex("", digest));
}

static struct thaw_lease full(void)
{
	struct thaw_lease lease = {
		.session = strdup("s"),
		.directory = strdup("/d/e f"),
		.uid = 1000,
		.gid = 1001,
		.image_count = 2,
		.warm = strdup("none"),
		.writable = true,
		.shared = true,
		.scratch_size = 1 << 20,
		.scratch = strdup("/scratch"),
		.made = true,
		.labels = json_pack("{s:s}", "application", "x"),
		.opened = 1234567,
		.kind = THAW_LEASE_PROCESS,
		.pid = 4242,
		.pid_start = 99,
		.deadline = 77,
	};

	lease.images[0].name = strdup("env.thaw");
	lease.images[1].name = strdup("more.thaw");
	memset(lease.images[0].identity, 1, THAW_DIGEST_SIZE);
	memset(lease.images[1].identity, 2, THAW_DIGEST_SIZE);
	assert_int_equal(thaw_lease_id(lease.session, lease.directory, lease.id), 0);
	return lease;
}

static void there_and_back(void **state)
{
	struct thaw_lease lease = full(), back;
	json_t *record = thaw_lease_to_record(&lease), *again;

	assert_non_null(record);
	assert_int_equal(thaw_lease_from_record(record, &back), 0);
	assert_string_equal(back.id, lease.id);
	assert_string_equal(back.directory, "/d/e f");
	assert_string_equal(back.scratch, "/scratch");
	assert_string_equal(back.warm, "none");
	assert_int_equal(back.image_count, 2);
	assert_memory_equal(back.images[1].identity, lease.images[1].identity,
			    THAW_DIGEST_SIZE);
	assert_int_equal(back.pid_start, 99);
	assert_int_equal(back.deadline, 77);
	assert_int_equal(back.gid, 1001);
	assert_true(back.made && back.writable && back.shared);
	again = thaw_lease_to_record(&back);
	assert_true(json_equal(record, again));
	json_decref(again);
	json_decref(record);
	thaw_lease_deinit(&back);
	thaw_lease_deinit(&lease);
}

/* Each member missing, and each of another type: refused or harmless, never a crash. */
static void damaged_records(void **state)
{
	static const char *const needed[] = { "session",  "directory", "image",
					      "identity", "layers",    "uid",
					      "gid",	  "opened",    "lease" };
	struct thaw_lease lease = full(), back;
	json_t *record = thaw_lease_to_record(&lease);
	const char *key;
	json_t *value;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		json_t *copy = json_deep_copy(record);

		assert_int_equal(json_object_del(copy, needed[i]), 0);
		assert_int_equal(thaw_lease_from_record(copy, &back), -EBADMSG);
		json_decref(copy);
	}
	json_object_foreach(record, key, value)
	{
		json_t *others[] = { json_integer(-1), json_string("x"), json_array(),
				     json_object(),    json_null(),	 json_true() };

		for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
			json_t *copy = json_deep_copy(record);

			(void)json_object_set_new(copy, key, others[i]);
			if (thaw_lease_from_record(copy, &back) == 0)
				thaw_lease_deinit(&back);
			json_decref(copy);
		}
	}
	assert_int_equal(thaw_lease_from_record(NULL, &back), -EBADMSG);
	json_decref(record);
	thaw_lease_deinit(&lease);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),	  cmocka_unit_test(ids),
		cmocka_unit_test(labels),	  cmocka_unit_test(digests),
		cmocka_unit_test(there_and_back), cmocka_unit_test(damaged_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
