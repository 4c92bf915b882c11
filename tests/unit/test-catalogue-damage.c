/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue on files that were damaged: no crash, nothing that was not put, and
 * never "ok" when something is missing.
 */
#include "catalogue-tests.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void read_whole(const char *path, struct buffer *bytes)
{
	uint8_t block[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = read(fd, block, sizeof(block))) > 0)
		buffer_add(bytes, block, (size_t)n);
	close(fd);
}

static void put_bytes(const char *path, const struct buffer *bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes->data, bytes->size), bytes->size);
	close(fd);
}

static int damage_lease(void *userdata, const char *id, json_t *lease)
{
	int number = (int)json_integer_value(json_object_get(lease, "number"));

	/* Never one that was not put: ids, and one of the two numbers that each once had. */
	assert_int_equal(id[0], 'n');
	assert_true(number == atoi(id + 1) || number == atoi(id + 1) + 1000);
	assert_string_equal(json_string_value(json_object_get(lease, "session")), id);
	++*(unsigned *)userdata;
	return 0;
}

static void fill_for_damage(struct state *s)
{
	struct thaw_error err = { 0 };
	char id[16], text[3000];
	json_t *lease;

	s->only_leases = true;
	open_it(s);
	/* Two versions of each, some removed: pages that are free, and some that were. */
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 36; i++) {
			(void)snprintf(id, sizeof(id), "n%d", i);
			put_lease(s, id, i + round * 1000);
		}
	}
	for (int i = 36; i < 38; i++) { /* of more than a page */
		(void)snprintf(id, sizeof(id), "n%d", i);
		memset(text, 'x', sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		lease = json_pack("{s:s,s:i,s:s,s:s}", "session", id, "number", i, "a",
				  text, "b", text);
		assert_success(thaw_catalogue_put_lease(s->catalogue, id, lease, &err),
			       &err);
		json_decref(lease);
	}
	for (int i = 0; i < 10; i++) {
		(void)snprintf(id, sizeof(id), "n%d", i);
		assert_success(thaw_catalogue_remove_lease(s->catalogue, id, &err), &err);
	}
	close_it(s);
}

#define DAMAGE_LEASES 28u
#define SECTOR	      512u

struct tally {
	unsigned ok, rebuilt, all_kept;
};

/* Open what lies there now: never a crash of ours, never a wrong record, and it can be used. */
static void open_damaged(struct state *s, bool clean, struct tally *tally)
{
	struct thaw_error err = { 0 };
	unsigned count = 0, dropped = 0;

	open_it(s);
	assert_false(s->leases.in_memory);
	assert_int_equal(s->leases.unclean, !clean);
	assert_success(thaw_catalogue_each_lease(s->catalogue, damage_lease, &count, &err,
						 &dropped),
		       &err);
	assert_int_equal(dropped, 0); /* found out when it was opened */
	/* "OK" is a promise. */
	if (s->leases.state == THAW_CATALOGUE_OK) {
		assert_int_equal(count, DAMAGE_LEASES);
		tally->ok++;
	} else {
		tally->rebuilt++;
	}
	tally->all_kept += count == DAMAGE_LEASES;
	put_lease(s, "n1", 1);
	assert_int_equal(lease_number(s, "n1"), 1);
	close_it(s);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	assert_int_equal(lease_number(s, "n1"), 1);
	close_it(s);
}

static void test_every_sector_damaged(void **state)
{
	struct state *s = *state;
	char *file = in_directory(s, "leases.mdb"),
	     *marker = in_directory(s, "leases.clean");
	_buffer_ good = { 0 };
	_buffer_ good_marker = { 0 };
	_buffer_ bad = { 0 };
	struct tally tally = { 0 }, unclean = { 0 };
	unsigned sectors;

	fill_for_damage(s);
	read_whole(file, &good);
	read_whole(marker, &good_marker);
	assert_int_equal(good.size % SECTOR, 0);
	sectors = (unsigned)(good.size / SECTOR);
	assert_true(sectors > 60);
	buffer_add(&bad, good.data, good.size);
	for (unsigned i = 0; i < sectors; i++) {
		for (unsigned kind = 0; kind < 3; kind++) {
			uint8_t *sector = bad.data + i * SECTOR;

			if (kind == 0)
				memset(sector, 0, SECTOR);
			else if (kind == 1)
				fill_pattern(sector, SECTOR, i + 1);
			else /* another part of the same file: it looks right */
				memcpy(sector, good.data + (i * 7 + 8) % sectors * SECTOR,
				       SECTOR);
			put_bytes(file, &bad);
			put_bytes(marker, &good_marker);
			open_damaged(s, true, &tally);
			if (kind == 1) {
				put_bytes(file, &bad);
				assert_int_equal(unlink(marker), 0);
				open_damaged(s, false, &unclean);
			}
			memcpy(sector, good.data + i * SECTOR, SECTOR);
		}
	}
	print_message(
		"# %u sectors: closed %u ok, %u rebuilt, %u complete; killed %u, %u, %u\n",
		sectors, tally.ok, tally.rebuilt, tally.all_kept, unclean.ok,
		unclean.rebuilt, unclean.all_kept);
	/* Some sectors were zero before. Of the others each change is found out. */
	assert_true(tally.rebuilt >= sectors);
	/* Much can be saved: what was there before the damage, and after it. */
	assert_true(unclean.ok > 0 && unclean.rebuilt > 0);
	free(file);
	free(marker);
}

static void test_cut_and_grown_files(void **state)
{
	struct state *s = *state;
	char *file = in_directory(s, "leases.mdb");
	_buffer_ good = { 0 };
	_buffer_ bad = { 0 };
	struct tally tally = { 0 };

	fill_for_damage(s);
	read_whole(file, &good);
	for (size_t size = 0; size < good.size;
	     size += size < 300 ? 100 : 4096 - size % 4096 + 1) {
		bad.size = 0;
		buffer_add(&bad, good.data, size);
		put_bytes(file, &bad);
		open_damaged(s, true, &tally);
	}
	assert_int_equal(tally.ok, 0);
	bad.size = 0;
	buffer_add(&bad, good.data, good.size);
	buffer_add_zeros(&bad, 4096);
	put_bytes(file, &bad);
	open_damaged(s, true, &tally);
	assert_int_equal(tally.ok, 0);
	assert_true(tally.all_kept >= 1);
	free(file);
}

static void test_damaged_marker(void **state)
{
	struct state *s = *state;
	char *marker = in_directory(s, "leases.clean");
	_buffer_ text = { 0 };

	open_it(s);
	put_lease(s, "a", 1);
	for (unsigned i = 0; i < 3; i++) {
		close_it(s);
		text.size = 0;
		buffer_add(
			&text,
			"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0",
			i == 0	 ? 64
			: i == 1 ? 65
				 : 0);
		put_bytes(marker, &text);
		open_it(s);
		assert_report(&s->leases, THAW_CATALOGUE_REBUILT, false);
		assert_int_equal(s->leases.kept, 1);
		assert_int_equal(lease_number(s, "a"), 1);
	}
	free(marker);
}

/* A record under another key than its own is damaged, even though its bytes are all right. */
static void test_record(void **state)
{
	uint8_t *record;
	const uint8_t *payload;
	size_t len, payload_len;

	assert_int_equal(thaw_record_encode("lkey", 4, "payload", 7, &record, &len), 0);
	assert_int_equal(len, THAW_RECORD_HEADER + 7);
	assert_int_equal(
		thaw_record_decode("lkey", 4, record, len, &payload, &payload_len), 0);
	assert_int_equal(payload_len, 7);
	assert_memory_equal(payload, "payload", 7);
	assert_int_equal(
		thaw_record_decode("lkez", 4, record, len, &payload, &payload_len),
		-EBADMSG);
	assert_int_equal(
		thaw_record_decode("ikey", 4, record, len, &payload, &payload_len),
		-EBADMSG);
	assert_int_equal(
		thaw_record_decode("lke", 3, record, len, &payload, &payload_len),
		-EBADMSG);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(
			thaw_record_decode("lkey", 4, record, i, &payload, &payload_len),
			-EBADMSG);
	for (size_t i = 0; i < len * 8; i++) {
		record[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(thaw_record_decode("lkey", 4, record, len, &payload,
						    &payload_len),
				 -EBADMSG);
		record[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	free(record);
}

/* Of another version, put with a checksum that is right: dropped when rebuilding, and no sooner. */
static void test_senseless_records(void **state)
{
	struct state *s = *state;
	const struct thaw_store_options options = { .directory = s->directory,
						    .name = "leases",
						    .tables = "l",
						    .limit = 1 << 20 };
	const struct thaw_store_change changes[] = {
		{ THAW_TABLE_LEASES, "a", 1, "no JSON", 7 },
		{ THAW_TABLE_LEASES, "b", 1, "{\"session\":\"b\"}", 15 },
		{ THAW_TABLE_IMAGES, "c", 1, "{}", 2 }, /* not in this file */
	};
	struct thaw_catalogue_report report;
	struct thaw_error err = { 0 };
	struct thaw_store *store;
	unsigned count = 0, dropped = 0;
	json_t *lease;
	char *marker = in_directory(s, "leases.clean");

	assert_success(thaw_store_open(&options, &err, &report, &store), &err);
	assert_success(thaw_store_change(store, changes, ARRAY_SIZE(changes), &err),
		       &err);
	thaw_store_close(store);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	assert_damaged(thaw_catalogue_get_lease(s->catalogue, "a", &err, &lease), &err,
		       "a record of the catalogue that makes no sense was dropped");
	assert_int_equal(thaw_catalogue_get_lease(s->catalogue, "a", &err, &lease),
			 THAW_NOT_FOUND);
	close_it(s);

	assert_success(thaw_store_open(&options, &err, &report, &store), &err);
	assert_success(thaw_store_change(store, changes, 1, &err), &err);
	thaw_store_close(store);
	open_it(s);
	assert_success(thaw_catalogue_each_lease(s->catalogue, count_lease, &count, &err,
						 &dropped),
		       &err);
	assert_int_equal(count, 1);
	assert_int_equal(dropped, 1);
	close_it(s);

	assert_int_equal(unlink(marker), 0);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_REBUILT, true);
	assert_int_equal(s->leases.kept, 1);
	assert_int_equal(s->leases.dropped, 1);
	free(marker);
}

/* -- salvage by itself -- */

static int count_record(void *userdata, const uint8_t *key, size_t key_len,
			const uint8_t *record, size_t len)
{
	return ++*(int *)userdata == 3 ? -ESTALE : 0;
}

static void test_salvage(void **state)
{
	struct state *s = *state;
	char *file = in_directory(s, "leases.mdb"), *fifo = in_directory(s, "fifo");
	struct thaw_salvage_result result;
	struct thaw_error err = { 0 };
	int count = 0;

	open_it(s);
	put_lease(s, "a", 1);
	put_lease(s, "b", 1);
	close_it(s);
	/* The third is the schema's: what the caller says ends it. */
	assert_int_equal(
		thaw_salvage(file, 1 << 20, 5000, count_record, &count, &err, &result),
		-ESTALE);
	/* A child that hangs: LMDB waits for somebody to write into the fifo. */
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_success(
		thaw_salvage(fifo, 1 << 20, 100, count_record, &count, &err, &result),
		&err);
	assert_false(result.complete);
	assert_string_equal(result.why, "reading it hung");
	free(file);
	free(fifo);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_sector_damaged),
		TEST(test_cut_and_grown_files),
		TEST(test_damaged_marker),
		TEST(test_senseless_records),
		TEST(test_salvage),
		cmocka_unit_test(test_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
