/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: what is put is found, also by the next process; what is damaged
 * is found out, whatever it is that was damaged.
 */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catalogue-tests.h"
#include "thaw/trace.h"

static struct thaw_catalogue_image sample_image(unsigned number)
{
	struct thaw_catalogue_image image = {
		.name = (char *)"environment",
		.path = (char *)"/images/\xff\xfe.thaw", /* no UTF-8 */
		.kind = (char *)"conda",
		.size = 1ull << 33,
		.mtime_ns = 1700000000123456789,
		.used = 1700000000,
	};

	memset(image.identity, (int)number + 1, sizeof(image.identity));
	memset(image.index_digest, (int)number + 101, sizeof(image.index_digest));
	return image;
}

static void put_image(struct state *s, unsigned number)
{
	struct thaw_catalogue_image image = sample_image(number);
	struct thaw_error err = { 0 };

	assert_success(thaw_catalogue_put_image(s->catalogue, &image, &err), &err);
}

static void assert_sample(const struct thaw_catalogue_image *image, unsigned number)
{
	struct thaw_catalogue_image wanted = sample_image(number);

	assert_memory_equal(image->identity, wanted.identity, sizeof(wanted.identity));
	assert_memory_equal(image->index_digest, wanted.index_digest,
			    sizeof(wanted.index_digest));
	assert_string_equal(image->name, wanted.name);
	assert_string_equal(image->path, wanted.path);
	assert_string_equal(image->kind, wanted.kind);
	assert_null(image->python);
	assert_int_equal(image->size, wanted.size);
	assert_int_equal(image->mtime_ns, wanted.mtime_ns);
}

static const struct thaw_learned_entry sample_entries[] = {
	{ THAW_TRACE_READ, "lib/a.py", NULL, 8, 0, 3, 7 },
	{ THAW_TRACE_LIST, "", NULL, 0, 0, 0, 0 },
	{ THAW_TRACE_MISSED, "lib", "b\xff.so", 3, 5, 0, 0 },
};

static void put_trace(struct state *s, uint8_t digest, const char *workload)
{
	uint8_t index_digest[THAW_DIGEST_SIZE] = { digest };
	struct thaw_error err = { 0 };

	assert_success(thaw_catalogue_put_trace(s->catalogue, index_digest, workload,
						sample_entries,
						ARRAY_SIZE(sample_entries), &err),
		       &err);
}

/* THAW_NOT_FOUND or 0, and then it is the sample. */
static int get_trace(struct state *s, uint8_t digest, const char *workload)
{
	uint8_t index_digest[THAW_DIGEST_SIZE] = { digest };
	struct thaw_learned learned;
	struct thaw_error err = { 0 };
	int r = thaw_catalogue_get_trace(s->catalogue, index_digest, workload, &err,
					 &learned);

	if (r == THAW_NOT_FOUND)
		return r;
	assert_success(r, &err);
	assert_int_equal(learned.count, ARRAY_SIZE(sample_entries));
	for (unsigned i = 0; i < learned.count; i++) {
		const struct thaw_learned_entry *a = &learned.entries[i],
						*b = &sample_entries[i];

		assert_int_equal(a->kind, b->kind);
		assert_int_equal(a->path_len, b->path_len);
		assert_int_equal(a->name_len, b->name_len);
		assert_memory_equal(a->path, b->path, b->path_len);
		if (b->name_len)
			assert_memory_equal(a->name, b->name, b->name_len);
		assert_int_equal(a->first, b->first);
		assert_int_equal(a->count, b->count);
	}
	thaw_learned_deinit(&learned);
	return 0;
}

/* -- what it keeps -- */

static void test_leases(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	char longest[THAW_LEASE_ID_MAX + 2];

	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_CREATED, false);
	assert_report(&s->images, THAW_CATALOGUE_CREATED, false);
	assert_int_equal(lease_number(s, "a"), -1);
	put_lease(s, "a", 1);
	put_lease(s, "b", 2);
	put_lease(s, "a", 3);
	assert_int_equal(lease_number(s, "a"), 3);
	assert_int_equal(count_leases(s), 2);
	close_it(s);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	assert_int_equal(lease_number(s, "a"), 3);
	assert_int_equal(lease_number(s, "b"), 2);
	assert_success(thaw_catalogue_remove_lease(s->catalogue, "a", &err), &err);
	assert_success(thaw_catalogue_remove_lease(s->catalogue, "never", &err), &err);
	assert_int_equal(lease_number(s, "a"), -1);
	assert_int_equal(count_leases(s), 1);

	memset(longest, 'x', sizeof(longest));
	longest[THAW_LEASE_ID_MAX] = '\0';
	put_lease(s, longest, 4);
	assert_int_equal(lease_number(s, longest), 4);
	longest[THAW_LEASE_ID_MAX] = 'x';
	longest[THAW_LEASE_ID_MAX + 1] = '\0';
	assert_limit(thaw_catalogue_remove_lease(s->catalogue, longest, &err), &err,
		     "the id of a lease has 201 bytes; 1 to 200 are possible");
	assert_limit(thaw_catalogue_remove_lease(s->catalogue, "", &err), &err,
		     "the id of a lease has 0 bytes; 1 to 200 are possible");
}

static int stop(void *userdata, const char *id, json_t *lease)
{
	struct state *s = userdata;
	struct thaw_error err = { 0 };

	/* Calling the catalogue from inside is allowed. */
	assert_success(thaw_catalogue_remove_lease(s->catalogue, id, &err), &err);
	return strcmp(id, "b") == 0 ? 7 : 0;
}

static void test_iteration_may_change_and_stop(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };
	unsigned dropped;

	open_it(s);
	put_lease(s, "a", 1);
	put_lease(s, "b", 2);
	put_lease(s, "c", 3);
	assert_int_equal(thaw_catalogue_each_lease(s->catalogue, stop, s, &err, &dropped),
			 7);
	assert_int_equal(count_leases(s), 1);
	assert_int_equal(lease_number(s, "c"), 3);
}

static int count_source(void *userdata, const struct thaw_catalogue_source *source,
			const uint8_t identity[THAW_DIGEST_SIZE])
{
	++*(unsigned *)userdata;
	return 0;
}

static int check_image(void *userdata, const struct thaw_catalogue_image *image)
{
	assert_sample(image, (*(unsigned *)userdata)++);
	return 0;
}

static void test_images_and_sources(void **state)
{
	struct state *s = *state;
	struct thaw_catalogue_source source = { .path = "/a/\xff.tar.gz",
						.options = "",
						.size = 5,
						.inode = ~0ull,
						.mtime_ns = -1 };
	struct thaw_catalogue_source other = source;
	struct thaw_catalogue_image image, wanted = sample_image(1);
	struct thaw_error err = { 0 };
	unsigned count, dropped;

	open_it(s);
	assert_int_equal(thaw_catalogue_find_source(s->catalogue, &source, &err, &image),
			 THAW_NOT_FOUND);
	assert_success(
		thaw_catalogue_put_source(s->catalogue, &source, wanted.identity, &err),
		&err);
	/* The source leads to an image that is not known. */
	assert_int_equal(thaw_catalogue_find_source(s->catalogue, &source, &err, &image),
			 THAW_NOT_FOUND);
	put_image(s, 0);
	put_image(s, 1);
	close_it(s);
	open_it(s);
	assert_report(&s->images, THAW_CATALOGUE_OK, false);
	assert_success(thaw_catalogue_find_source(s->catalogue, &source, &err, &image),
		       &err);
	assert_sample(&image, 1);
	thaw_catalogue_image_deinit(&image);

	/* One that says itself where its image lies, which nobody else goes by. */
	other.options = "own";
	other.image = "/b/\xff.thaw";
	assert_success(
		thaw_catalogue_put_source(s->catalogue, &other, wanted.identity, &err),
		&err);
	close_it(s);
	open_it(s);
	assert_success(thaw_catalogue_find_source(s->catalogue, &other, &err, &image),
		       &err);
	assert_string_equal(image.path, "/b/\xff.thaw");
	assert_string_equal(image.name, "\xff.thaw");
	assert_memory_equal(image.identity, wanted.identity, THAW_DIGEST_SIZE);
	thaw_catalogue_image_deinit(&image);
	assert_success(thaw_catalogue_find_source(s->catalogue, &source, &err, &image),
		       &err);
	assert_sample(&image, 1);
	thaw_catalogue_image_deinit(&image);

	/* Whatever of it is another: another source. */
	other = source;
	other.size++;
	assert_int_equal(thaw_catalogue_find_source(s->catalogue, &other, &err, &image),
			 THAW_NOT_FOUND);
	other = source;
	other.inode--;
	assert_int_equal(thaw_catalogue_find_source(s->catalogue, &other, &err, &image),
			 THAW_NOT_FOUND);
	other = source;
	other.mtime_ns++;
	assert_int_equal(thaw_catalogue_find_source(s->catalogue, &other, &err, &image),
			 THAW_NOT_FOUND);
	other = source;
	other.options = "level=9";
	assert_int_equal(thaw_catalogue_find_source(s->catalogue, &other, &err, &image),
			 THAW_NOT_FOUND);
	assert_success(
		thaw_catalogue_put_source(s->catalogue, &other, wanted.identity, &err),
		&err);
	other.path = "/other";
	wanted = sample_image(0);
	assert_success(
		thaw_catalogue_put_source(s->catalogue, &other, wanted.identity, &err),
		&err);

	count = 0;
	assert_success(thaw_catalogue_each_image(s->catalogue, check_image, &count, &err,
						 &dropped),
		       &err);
	assert_int_equal(count, 2);
	count = 0;
	assert_success(thaw_catalogue_each_source(s->catalogue, count_source, &count,
						  &err, &dropped),
		       &err);
	assert_int_equal(count, 4);

	/* With an image go its sources, and no other. */
	wanted = sample_image(1);
	assert_success(thaw_catalogue_remove_image(s->catalogue, wanted.identity, &err),
		       &err);
	count = 0;
	assert_success(thaw_catalogue_each_source(s->catalogue, count_source, &count,
						  &err, &dropped),
		       &err);
	assert_int_equal(count, 1);
	assert_int_equal(
		thaw_catalogue_get_image(s->catalogue, wanted.identity, &err, &image),
		THAW_NOT_FOUND);
	assert_success(thaw_catalogue_find_source(s->catalogue, &other, &err, &image),
		       &err);
	thaw_catalogue_image_deinit(&image);
}

/* An image, and what only looks like one. */
static void make_images(const char *directory)
{
	static const char *const names[] = { "e-1.thaw", "two.thaw", ".unfinished.thaw",
					     "e.tar" };
	struct thaw_pack_options options = { .force = true };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	char *source = join_path(directory, "source");

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		char *path = join_path(directory, names[i]);
		_buffer_ tar = { 0 };

		tar_text(&tar, "f", names[i]);
		tar_end(&tar);
		write_file(source, tar.data, tar.size);
		assert_success(thaw_pack(source, path, &options, &err, &report), &err);
		free(path);
	}
	assert_int_equal(unlink(source), 0);
	free(source);
}

static int check_refilled(void *userdata, const struct thaw_catalogue_image *image)
{
	const char *slash = strrchr(image->path, '/');
	struct stat st;

	++*(unsigned *)userdata;
	assert_int_equal(image->path[0], '/');
	assert_string_equal(slash + 1, image->name);
	assert_int_equal(stat(image->path, &st), 0);
	assert_int_equal(image->size, st.st_size);
	assert_int_equal(image->used, st.st_mtime);
	return 0;
}

static void test_refill(void **state)
{
	struct state *s = *state;
	char *images = join_path(s->directory, "images"), *path;
	struct thaw_error err = { 0 };
	unsigned added = 9, count = 0, dropped;

	open_it(s);
	assert_int_equal(thaw_catalogue_refill(s->catalogue, images, &err, &added),
			 -ENOENT);
	assert_int_equal(mkdir(images, 0755), 0);
	assert_success(thaw_catalogue_refill(s->catalogue, images, &err, &added), &err);
	assert_int_equal(added, 0);
	make_images(images);
	path = join_path(images, "text.thaw");
	write_file(path, "no image", 8);
	free(path);
	path = join_path(images, "link.thaw");
	assert_int_equal(symlink("e-1.thaw", path), 0);
	free(path);
	path = join_path(images, "fifo.thaw");
	assert_int_equal(mkfifo(path, 0600), 0);
	free(path);
	path = join_path(images, "directory.thaw");
	assert_int_equal(mkdir(path, 0700), 0);
	free(path);

	assert_success(thaw_catalogue_refill(s->catalogue, images, &err, &added), &err);
	assert_int_equal(added, 2);
	assert_success(thaw_catalogue_each_image(s->catalogue, check_refilled, &count,
						 &err, &dropped),
		       &err);
	assert_int_equal(count, 2);
	/* What is known stays as it is. */
	assert_success(thaw_catalogue_refill(s->catalogue, images, &err, &added), &err);
	assert_int_equal(added, 0);
	free(images);
}

static int64_t used(struct state *s, const uint8_t identity[THAW_DIGEST_SIZE])
{
	struct thaw_catalogue_image image;
	struct thaw_error err = { 0 };
	int64_t when;

	assert_success(thaw_catalogue_get_image(s->catalogue, identity, &err, &image),
		       &err);
	when = image.used;
	thaw_catalogue_image_deinit(&image);
	return when;
}

static void test_touch(void **state)
{
	struct state *s = *state;
	struct thaw_catalogue_image image = sample_image(0);
	struct thaw_error err = { 0 };
	int64_t hour = image.used / 3600 * 3600;

	open_it(s);
	assert_int_equal(
		thaw_catalogue_touch_image(s->catalogue, image.identity, 1, &err),
		THAW_NOT_FOUND);
	put_image(s, 0);
	assert_success(thaw_catalogue_touch_image(s->catalogue, image.identity,
						  hour + 3599, &err),
		       &err);
	assert_int_equal(used(s, image.identity), image.used); /* the same hour */
	assert_success(thaw_catalogue_touch_image(s->catalogue, image.identity,
						  hour + 3600, &err),
		       &err);
	assert_int_equal(used(s, image.identity), hour + 3600);
}

static void test_traces(void **state)
{
	struct state *s = *state;
	const struct thaw_learned_entry bad = { 9, "x", NULL, 1, 0, 0, 0 };
	const struct thaw_learned_entry nul = {
		THAW_TRACE_READ, "a\0b", NULL, 3, 0, 0, 0
	};
	uint8_t digest[THAW_DIGEST_SIZE] = { 1 };
	struct thaw_error err = { 0 };

	open_it(s);
	assert_int_equal(get_trace(s, 1, "etl"), THAW_NOT_FOUND);
	put_trace(s, 1, "etl");
	put_trace(s, 2, "etl");
	close_it(s);
	open_it(s);
	assert_int_equal(get_trace(s, 1, "etl"), 0);
	assert_int_equal(get_trace(s, 1, "ml"), THAW_NOT_FOUND);
	assert_success(thaw_catalogue_remove_trace(s->catalogue, digest, "etl", &err),
		       &err);
	assert_int_equal(get_trace(s, 1, "etl"), THAW_NOT_FOUND);
	assert_int_equal(get_trace(s, 2, "etl"), 0);
	assert_limit(thaw_catalogue_put_trace(s->catalogue, digest, "etl", &bad, 1, &err),
		     &err, "entry 0 of a trace is out of bounds");
	assert_limit(thaw_catalogue_put_trace(s->catalogue, digest, "etl", &nul, 1, &err),
		     &err, "entry 0 of a trace is out of bounds");
	assert_limit(thaw_catalogue_put_trace(s->catalogue, digest, "", sample_entries, 1,
					      &err),
		     &err, "the name of a workload has 0 bytes; 1 to 255 are possible");
}

static void test_traces_are_bounded(void **state)
{
	struct state *s = *state;
	unsigned found = 0;
	char name[16];

	open_it(s);
	for (unsigned i = 0; i < THAW_CATALOGUE_TRACES + 3; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		put_trace(s, 1, name);
	}
	put_trace(s, 1, name); /* one that is there drives none out */
	for (unsigned i = 0; i < THAW_CATALOGUE_TRACES + 3; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		found += get_trace(s, 1, name) == 0;
	}
	assert_int_equal(found, THAW_CATALOGUE_TRACES);
	assert_int_equal(get_trace(s, 1, name), 0); /* the newest */
}

/* A megabyte each: the file begins with a bound of that size, and grows. */
static void test_grows(void **state)
{
	struct state *s = *state;
	char *text = calloc(1, THAW_CATALOGUE_JSON_MAX);
	struct thaw_error err = { 0 };
	json_t *lease, *found;
	char id[8];

	memset(text, 'x', THAW_CATALOGUE_JSON_MAX - 1000);
	lease = json_pack("{s:s}", "text", text);
	open_it(s);
	for (unsigned i = 0; i < 20; i++) {
		(void)snprintf(id, sizeof(id), "%u", i);
		assert_success(thaw_catalogue_put_lease(s->catalogue, id, lease, &err),
			       &err);
	}
	close_it(s);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	for (unsigned i = 0; i < 20; i++) {
		(void)snprintf(id, sizeof(id), "%u", i);
		assert_success(thaw_catalogue_get_lease(s->catalogue, id, &err, &found),
			       &err);
		assert_true(json_equal(found, lease));
		json_decref(found);
	}
	json_decref(lease);
	memset(text, 'x', THAW_CATALOGUE_JSON_MAX - 1);
	lease = json_pack("{s:s}", "text", text);
	assert_limit(thaw_catalogue_put_lease(s->catalogue, "a", lease, &err), &err,
		     "1048586 bytes are too much for a record of the catalogue");
	json_decref(lease);
	free(text);
}

/* The bound of the leases' file is 64 MiB. */
static void test_bound(void **state)
{
	struct state *s = *state;
	char *text = calloc(1, THAW_CATALOGUE_JSON_MAX), id[8];
	struct thaw_error err = { 0 };
	unsigned put = 0, dropped, count = 0;
	json_t *lease;
	int r;

	memset(text, 'x', THAW_CATALOGUE_JSON_MAX - 1000);
	lease = json_pack("{s:s,s:s}", "session", "", "text", text);
	open_it(s);
	for (;; put++) {
		(void)snprintf(id, sizeof(id), "%u", put);
		(void)json_object_set_new(lease, "session", json_string(id));
		r = thaw_catalogue_put_lease(s->catalogue, id, lease, &err);
		if (r < 0)
			break;
		assert_true(put < 100);
	}
	assert_failure(
		r, &err, ENOSPC, THAW_EXIT_IO,
		"the catalogue of leases has reached its bound of 64 MiB: No space left on device");
	assert_true(put > 50);
	/* Nothing is lost, and what is removed makes room. */
	assert_success(thaw_catalogue_each_lease(s->catalogue, count_lease, &count, &err,
						 &dropped),
		       &err);
	assert_int_equal(count, put);
	for (unsigned i = 0; i < 3; i++) {
		char old[8];

		(void)snprintf(old, sizeof(old), "%u", i);
		assert_success(thaw_catalogue_remove_lease(s->catalogue, old, &err),
			       &err);
	}
	assert_success(thaw_catalogue_put_lease(s->catalogue, id, lease, &err), &err);
	json_decref(lease);
	free(text);
}

static void test_in_memory(void **state)
{
	struct state *s = *state;
	struct thaw_error err = { 0 };

	assert_success(open_in(s, NULL, &err), &err);
	assert_true(s->leases.in_memory && s->images.in_memory);
	put_lease(s, "a", 1);
	put_image(s, 0);
	assert_int_equal(lease_number(s, "a"), 1);
	close_it(s);
	assert_success(open_in(s, NULL, &err), &err);
	assert_int_equal(lease_number(s, "a"), -1);
}

static void test_no_descriptor_is_inherited_or_left(void **state)
{
	struct state *s = *state;
	unsigned before = 0, after = 0;
	struct dirent *entry;
	DIR *fds = opendir("/proc/self/fd");

	while ((entry = readdir(fds)))
		before++;
	open_it(s);
	put_lease(s, "a", 1);
	rewinddir(fds);
	while ((entry = readdir(fds))) {
		int fd = atoi(entry->d_name);
		char path[64], target[512] = "";

		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (entry->d_name[0] == '.' ||
		    readlink(path, target, sizeof(target) - 1) < 0)
			continue;
		if (strstr(target, s->directory))
			assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	}
	close_it(s);
	rewinddir(fds);
	while ((entry = readdir(fds)))
		after++;
	closedir(fds);
	assert_int_equal(after, before);
}

/* -- other processes -- */

static void in_child(struct state *s, void (*work)(struct state *), int wanted_signal)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		work(s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (wanted_signal)
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == wanted_signal);
	else
		assert_int_equal(status, 0);
}

static void expect_busy(struct state *s)
{
	const struct thaw_catalogue_options images = { .images = s->directory };
	struct state other = { .directory = s->directory };
	struct thaw_error err = { 0 };

	if (open_in(&other, s->directory, &err) != -EBUSY ||
	    strcmp(err.text, "the catalogue of leases is in use by another process: "
			     "Device or resource busy") != 0)
		_exit(1);
	/* Of images another process's is no reason not to work. */
	if (thaw_catalogue_open(&images, &err, &other.leases, &other.images,
				&other.catalogue) != 0 ||
	    !other.images.in_memory || !strstr(other.images.why, "in use"))
		_exit(2);
	put_image(&other, 5);
	thaw_catalogue_close(other.catalogue);
}

static void test_one_process_at_a_time(void **state)
{
	struct state *s = *state;

	open_it(s);
	put_lease(s, "a", 1);
	in_child(s, expect_busy, 0);
	assert_int_equal(lease_number(s, "a"), 1);
	close_it(s);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	assert_int_equal(lease_number(s, "a"), 1);
}

static void die_after_writing(struct state *s)
{
	open_it(s);
	put_lease(s, "a", 1);
	put_image(s, 0);
	put_trace(s, 1, "etl");
	raise(SIGKILL);
}

static void test_killed(void **state)
{
	struct state *s = *state;

	in_child(s, die_after_writing, SIGKILL);
	open_it(s);
	/* All of it is there; but it had to be looked at. */
	assert_report(&s->leases, THAW_CATALOGUE_OK, true);
	assert_report(&s->images, THAW_CATALOGUE_OK, true);
	assert_int_equal(s->leases.kept, 1);
	assert_int_equal(s->images.kept, 2);
	assert_int_equal(lease_number(s, "a"), 1);
	assert_int_equal(get_trace(s, 1, "etl"), 0);
	close_it(s);
	open_it(s);
	assert_report(&s->leases, THAW_CATALOGUE_OK, false);
	assert_int_equal(s->leases.kept, 0); /* opened as it is */
	assert_int_equal(lease_number(s, "a"), 1);
}

/* A child writes all the time and is killed at some moment; what it said was put is there. */
static void test_killed_while_writing(void **state)
{
	struct state *s = *state;

	for (unsigned round = 0; round < 20; round++) {
		int pipes[2], said = -1, now;
		pid_t pid;

		assert_int_equal(pipe(pipes), 0);
		pid = fork();
		if (pid == 0) {
			open_it(s);
			for (int i = 0;; i++) {
				put_lease(s, "a", i);
				put_image(s, (unsigned)i % 8);
				if (write(pipes[1], &i, sizeof(i)) < 0)
					_exit(1);
			}
		}
		close(pipes[1]);
		/* Not by the clock: after it has done so and so much. */
		for (unsigned n = 0; n <= round * 3; n++)
			assert_int_equal(read(pipes[0], &said, sizeof(said)),
					 sizeof(said));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		while (read(pipes[0], &now, sizeof(now)) == sizeof(now))
			said = now;
		close(pipes[0]);
		open_it(s);
		assert_int_not_equal(s->leases.state, THAW_CATALOGUE_REBUILT);
		assert_int_not_equal(s->images.state, THAW_CATALOGUE_REBUILT);
		now = lease_number(s, "a");
		if (now != said && now != said + 1)
			fail_msg("round %u: said %d, found %d", round, said, now);
		close_it(s);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_leases),
		TEST(test_iteration_may_change_and_stop),
		TEST(test_images_and_sources),
		TEST(test_refill),
		TEST(test_touch),
		TEST(test_traces),
		TEST(test_traces_are_bounded),
		TEST(test_grows),
		TEST(test_bound),
		TEST(test_in_memory),
		TEST(test_no_descriptor_is_inherited_or_left),
		TEST(test_one_process_at_a_time),
		TEST(test_killed),
		TEST(test_killed_while_writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
