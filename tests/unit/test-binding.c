/* SPDX-License-Identifier: Apache-2.0 */
/* Which interpreter a venv gets, and what is rendered for it. */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pyvenv.h"
#include "thaw/binding.h"

/* -- what an image asks for -- */

static int load_meta(const char *meta, struct thaw_error *err, struct thaw_binding *ret_binding)
{
	struct thaw_image *image = NULL;
	struct spec spec;
	_buffer_ bytes = { 0 };
	int r;

	spec_sample(&spec);
	spec.meta = meta;
	spec.meta_size = strlen(meta);
	spec_build(&spec, &bytes);
	assert_success(open_memory(&bytes, err, &image), err);
	r = thaw_binding_load(image, err, ret_binding);
	thaw_image_free(image);
	spec_deinit(&spec);
	return r;
}

static void test_load(void **state)
{
	struct thaw_error err = { 0 };
	struct thaw_binding binding;

	assert_success(load_meta("{\"python\":\"3.11\",\"interpreter\":false,\"binding\":{"
				 "\"executable\":\"/usr/bin/python3.11\","
				 "\"links\":[\"python\",\"python3.113\"]},"
				 "\"constraints\":\"CPython>=3.11.4\"}",
				 &err, &binding),
		       &err);
	assert_string_equal(binding.python, "3.11");
	assert_string_equal(binding.recorded, "/usr/bin/python3.11");
	assert_string_equal(binding.constraints, "CPython>=3.11.4");
	assert_int_equal(binding.link_count, 2);
	assert_string_equal(binding.links[1], "python3.113");
	thaw_binding_deinit(&binding);
}

static void test_load_none(void **state)
{
	static const char *const metas[] = {
		"{}",
		"{\"python\":\"3.11\"}",
		"{\"python\":\"3.11\",\"interpreter\":true,\"binding\":{\"links\":[]}}",
		"{\"binding\":[]}",
		"{\"x\":\"\\\"binding\\\"\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(metas); i++) {
		struct thaw_error err = { 0 };
		struct thaw_binding binding;

		assert_int_equal(load_meta(metas[i], &err, &binding), THAW_NOT_FOUND);
	}
}

/* Somebody else's text: nothing of it may name another file than an interpreter's in bin. */
static void test_load_hostile(void **state)
{
	static const struct {
		const char *meta, *text;
		bool refused; /* or damaged */
	} cases[] = {
		{ "{\"python\":\"3.11\",\"binding\":{\"links\":[\"../python\"]}}",
		  "damaged: its meta section: a link to an interpreter has no such name", false },
		{ "{\"python\":\"3.11\",\"binding\":{\"links\":[\"python/x\"]}}",
		  "damaged: its meta section: a link to an interpreter has no such name", false },
		{ "{\"python\":\"3.11\",\"binding\":{\"links\":[\"pip\"]}}",
		  "damaged: its meta section: a link to an interpreter has no such name", false },
		{ "{\"python\":\"3.11\",\"binding\":{\"links\":[7]}}",
		  "damaged: its meta section: a link to an interpreter has no such name", false },
		{ "{\"python\":\"3.11/../..\",\"binding\":{}}",
		  "damaged: its meta section: no version of Python", false },
		{ "{\"python\":\"11\",\"binding\":{}}",
		  "damaged: its meta section: no version of Python", false },
		{ "{\"python\":\"3.11111\",\"binding\":{}}",
		  "damaged: its meta section: no version of Python", false },
		{ "{\"binding\":{}}", "nothing in it says which Python it is for", true },
		{ "{\"binding\":", "damaged: its meta section: no JSON", false },
		{ "{\"binding\":{},\"binding\":{}}", "damaged: its meta section: no JSON", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_error err = { 0 };
		struct thaw_binding binding;
		int r = load_meta(cases[i].meta, &err, &binding);

		if (cases[i].refused)
			assert_refused(r, &err, cases[i].text);
		else
			assert_damaged(r, &err, cases[i].text);
	}
}

static void test_load_ignores_odd_paths(void **state)
{
	static const char *const paths[] = { "python3.11", "", "/a\\nb", "/a\\u0007" };

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct thaw_error err = { 0 };
		struct thaw_binding binding;
		char meta[200];

		(void)snprintf(meta, sizeof(meta),
			       "{\"python\":\"3.11\",\"binding\":{\"executable\":\"%s\"}}", paths[i]);
		assert_success(load_meta(meta, &err, &binding), &err);
		assert_null(binding.recorded);
		thaw_binding_deinit(&binding);
	}
}

/* -- the search -- */

/* A directory that looks like an interpreter's prefix: ours is the ELF file. */
static char *make_prefix(const char *top, const char *name, const char *version, bool library)
{
	char *prefix = join_path(top, name), path[512];
	struct buffer self = { 0 };

	assert_int_equal(mkdir(prefix, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/bin", prefix);
	assert_int_equal(mkdir(path, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/bin/python%s", prefix, version);
	read_file("/proc/self/exe", &self);
	write_file(path, self.data, self.size < 4096 ? self.size : 4096);
	assert_int_equal(chmod(path, 0755), 0);
	buffer_deinit(&self);
	if (library) {
		(void)snprintf(path, sizeof(path), "%s/lib", prefix);
		assert_int_equal(mkdir(path, 0755), 0);
		(void)snprintf(path, sizeof(path), "%s/lib/python%s", prefix, version);
		assert_int_equal(mkdir(path, 0755), 0);
		(void)snprintf(path, sizeof(path), "%s/lib/python%s/os.py", prefix, version);
		write_file(path, "", 0);
	}
	return prefix;
}

static char *interpreter_of(const char *prefix, const char *version)
{
	char path[512], *real;

	(void)snprintf(path, sizeof(path), "%s/bin/python%s", prefix, version);
	real = realpath(path, NULL);
	assert_non_null(real);
	return real;
}

/* No interpreter of the machine's has this version, so that only ours are found. */
#define VERSION "3.57"
#define BINDING { .python = VERSION }

static char *saved_path;

static int setup(void **state)
{
	saved_path = strdup(getenv("PATH") ? getenv("PATH") : "");
	assert_int_equal(unsetenv("THAW_PYTHON_PATH"), 0);
	*state = make_directory();
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(setenv("PATH", saved_path, 1), 0);
	assert_int_equal(unsetenv("THAW_PYTHON_PATH"), 0);
	free(saved_path);
	remove_directory(*state);
	return 0;
}

static void test_recorded(void **state)
{
	char *prefix = make_prefix(*state, "one", VERSION, true), *found = NULL;
	char *path = interpreter_of(prefix, VERSION);
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };

	binding.recorded = path;
	assert_success(thaw_binding_find(&binding, NULL, 0, &err, &found), &err);
	assert_string_equal(found, path);
	free(found);
	free(path);
	free(prefix);
}

static void write_script(const char *path, const char *text)
{
	write_file(path, text, strlen(text));
	assert_int_equal(chmod(path, 0755), 0);
}

/* What the image names is not run: a program under that name is passed over, and leaves no trace. */
static void test_recorded_is_never_run(void **state)
{
	char *script = join_path(*state, "python" VERSION), *proof = join_path(*state, "ran");
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };
	char text[600], *found;

	(void)snprintf(text, sizeof(text), "#!/bin/sh\n: > '%s'\n", proof);
	write_script(script, text);
	binding.recorded = script;
	assert_int_equal(setenv("PATH", "/nonexistent", 1), 0);
	assert_int_equal(thaw_binding_find(&binding, NULL, 0, &err, &found), -ENOENT);
	assert_int_equal(access(proof, F_OK), -1);
	/* and is run when the user says so */
	assert_int_equal(thaw_binding_find(&binding, script, 0, &err, &found), -ENOENT);
	assert_int_equal(access(proof, F_OK), 0);
	free(script);
	free(proof);
}

static void test_search(void **state)
{
	char *one = make_prefix(*state, "one", VERSION, false); /* no library */
	char *two = make_prefix(*state, "two", "3.76", true);	/* another version */
	char *three = make_prefix(*state, "three", VERSION, true);
	char *path = interpreter_of(three, VERSION), list[1000], *found;
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };

	(void)snprintf(list, sizeof(list), "relative:/nonexistent:%s/bin:%s/bin:%s/bin", one, two,
		       three);
	assert_int_equal(setenv("PATH", list, 1), 0);
	assert_success(thaw_binding_find(&binding, NULL, 0, &err, &found), &err);
	assert_string_equal(found, path);
	free(found);
	/* views that others see do not go by the service's PATH, but by what it is told */
	assert_int_equal(thaw_binding_find(&binding, NULL, THAW_BINDING_SHARED, &err, &found),
			 -ENOENT);
	assert_int_equal(setenv("THAW_PYTHON_PATH", list, 1), 0);
	assert_int_equal(chmod(*state, 0755), 0);
	if (!getenv("TMPDIR")) { /* /tmp is everybody's */
		assert_success(thaw_binding_find(&binding, NULL, THAW_BINDING_SHARED, &err, &found),
			       &err);
		assert_string_equal(found, path);
		free(found);
	}
	/* ... and not to where others cannot go */
	assert_int_equal(chmod(three, 0700), 0);
	assert_int_equal(thaw_binding_find(&binding, NULL, THAW_BINDING_SHARED, &err, &found),
			 -ENOENT);
	free(path);
	free(one);
	free(two);
	free(three);
}

static void test_symlinks_are_resolved(void **state)
{
	char *prefix = make_prefix(*state, "real", VERSION, true);
	char *path = interpreter_of(prefix, VERSION), *venv = join_path(*state, "venv");
	char link[512], *found;
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };

	assert_int_equal(mkdir(venv, 0755), 0);
	(void)snprintf(link, sizeof(link), "%s/python", venv);
	assert_int_equal(symlink(path, link), 0);
	assert_success(thaw_binding_find(&binding, link, 0, &err, &found), &err);
	assert_string_equal(found, path);
	free(found);
	/* a name is looked for as a shell does */
	assert_int_equal(setenv("PATH", venv, 1), 0);
	assert_success(thaw_binding_find(&binding, "python", 0, &err, &found), &err);
	assert_string_equal(found, path);
	free(found);
	free(venv);
	free(path);
	free(prefix);
}

static void test_none(void **state)
{
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };
	char *found;

	assert_int_equal(setenv("PATH", "/nonexistent", 1), 0);
	assert_int_equal(thaw_binding_find(&binding, NULL, 0, &err, &found), -ENOENT);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	assert_non_null(strstr(err.text, "needs Python " VERSION ", which is not on this node"));
	assert_non_null(strstr(err.text, "/usr/local/bin"));
}

static void test_wanted_does_not_fit(void **state)
{
	char *prefix = make_prefix(*state, "two", "3.76", true), *path, *found;
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };

	path = interpreter_of(prefix, "3.76");
	assert_int_equal(thaw_binding_find(&binding, path, 0, &err, &found), -ENOENT);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	assert_non_null(strstr(err.text, "is Python 3.76, not " VERSION));
	assert_int_equal(thaw_binding_find(&binding, "/nonexistent/python", 0, &err, &found),
			 -ENOENT);
	assert_int_equal(thaw_binding_find(&binding, "", 0, &err, &found), -ENOENT);
	free(path);
	free(prefix);
}

/* A program that answers as an interpreter of this version does; its path, to be freed. */
static char *make_answerer(const char *directory, const char *version)
{
	char *path = join_path(directory, version), text[2000];

	(void)snprintf(text, sizeof(text),
		       "#!/bin/sh\necho\necho 'thaw-interpreter:{\"executable\":\"%s\","
		       "\"prefix\":\"/p\",\"library\":\"/p/lib\",\"platlibdir\":\"lib\","
		       "\"implementation\":\"cpython\",\"python\":\"%.4s\","
		       "\"version\":\"%s\"}'\n",
		       path, version, version);
	write_script(path, text);
	return path;
}

/* Constraints of a PEX may tell patch levels apart: then names are not enough. */
static void test_patch_levels(void **state)
{
	char *prefix = make_prefix(*state, "one", VERSION, true); /* which cannot be run */
	char *old = make_answerer(*state, VERSION ".3"), *new = make_answerer(*state, VERSION ".4");
	char *named = interpreter_of(prefix, VERSION), list[1000], *found;
	struct thaw_binding binding = BINDING;
	struct thaw_error err = { 0 };

	(void)snprintf(list, sizeof(list), "%s/bin:%s:%s", prefix, old, new);
	assert_int_equal(setenv("THAW_PYTHON_PATH", list, 1), 0);
	binding.constraints = (char *)"CPython>=3.9";
	assert_success(thaw_binding_find(&binding, NULL, 0, &err, &found), &err);
	assert_string_equal(found, named);
	free(found);
	binding.recorded = named; /* what the image names is not asked either */
	binding.constraints = (char *)"PyPy or CPython>=" VERSION ".4";
	assert_success(thaw_binding_find(&binding, NULL, 0, &err, &found), &err);
	assert_string_equal(found, new);
	free(found);
	assert_int_equal(thaw_binding_find(&binding, old, 0, &err, &found), -ENOENT);
	assert_int_equal(err.exit_code, THAW_EXIT_REFUSED);
	assert_non_null(strstr(err.text, "is Python " VERSION ".3, not PyPy or CPython>="));
	binding.constraints = (char *)"CPython==" VERSION ".5";
	assert_int_equal(thaw_binding_find(&binding, NULL, 0, &err, &found), -ENOENT);
	assert_non_null(strstr(err.text, "needs Python " VERSION " (CPython==" VERSION ".5), which"));
	free(prefix);
	free(old);
	free(new);
	free(named);
}

/* -- pyvenv.cfg -- */

static void test_pyvenv(void **state)
{
	static const struct {
		const char *text, *written;
	} cases[] = {
		{ "", "" },
		{ "home = /a\n", "home = /a\n" },
		{ "home=/a\r\nhome = /b", "home = /b\n" },	  /* the last one counts */
		{ "HOME = /a\nPrompt= x = y \n", "home = /a\nprompt = x = y\n" },
		{ "no value\n= no key\n# home = /x\n\n", "" },
		{ "a = 1\nb = \007\nc = 3\n", "a = 1\nc = 3\n" }, /* what terminals act on */
		{ "a = b\001\n", "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pyvenv config;
		char *text;
		size_t len;

		assert_int_equal(pyvenv_parse(cases[i].text, strlen(cases[i].text), &config), 0);
		text = pyvenv_text(&config, &len);
		assert_int_equal(len, strlen(cases[i].written));
		assert_memory_equal(text, cases[i].written, len);
		free(text);
		pyvenv_deinit(&config);
	}
}

/* -- rendering -- */

struct rendered {
	char *directory, *tree;
	struct buffer bytes;
	struct thaw_image *image;
	struct thaw_reader *reader;
	int fd;
};

static void open_venv(const char *pyvenv, const char *activate, struct rendered *r)
{
	struct thaw_pack_options options = { .level = 1 };
	struct thaw_pack_report report;
	struct thaw_error err = { 0 };
	_buffer_ tar = { 0 };
	char *path;

	*r = (struct rendered){ .directory = make_directory() };
	tar_member(&tar, "pyvenv.cfg", '0', 0600, 1234, NULL, pyvenv, strlen(pyvenv));
	tar_symlink(&tar, "bin/python", "/build/bin/python3.113");
	tar_symlink(&tar, "bin/python3.113", "/build/bin/python3.113");
	tar_text(&tar, "bin/activate", activate);
	tar_text(&tar, "lib/python3.11/site-packages/a.py", "");
	tar_end(&tar);
	path = join_path(r->directory, "image");
	assert_success(pack_bytes(&tar, path, &options, &err, &report), &err);
	read_file(path, &r->bytes);
	free(path);
	assert_success(open_memory(&r->bytes, &err, &r->image), &err);
	assert_int_equal(thaw_reader_new(r->image, 0, &r->reader), 0);
	r->tree = join_path(r->directory, "tree");
	assert_int_equal(mkdir(r->tree, 0755), 0);
	r->fd = open(r->tree, O_RDONLY | O_DIRECTORY);
	assert_true(r->fd >= 0);
}

static void close_venv(struct rendered *r)
{
	thaw_reader_free(r->reader);
	thaw_image_free(r->image);
	buffer_deinit(&r->bytes);
	(void)close(r->fd);
	free(r->tree);
	remove_directory(r->directory);
}

static void assert_link(const struct rendered *r, const char *name, const char *target)
{
	char found[200];
	ssize_t n = readlinkat(r->fd, name, found, sizeof(found) - 1);

	if (n < 0)
		fail_msg("%s: %s", name, strerror(errno));
	found[n] = '\0';
	assert_string_equal(found, target);
}

static void assert_text(const struct rendered *r, const char *name, const char *text)
{
	char *path = join_path(r->tree, name);
	struct buffer bytes = { 0 };

	read_file(path, &bytes);
	buffer_add(&bytes, "", 1);
	assert_string_equal((char *)bytes.data, text);
	buffer_deinit(&bytes);
	free(path);
}

static void test_render(void **state)
{
	struct thaw_error err = { 0 };
	struct rendered r;
	struct stat st;

	/* as venv-pack writes it, twice, and with what virtualenv adds */
	open_venv("home = /build/bin\ninclude-system-site-packages = false\nversion = 3.11.7\n"
		  "executable = /build/bin/python3.11\ncommand = /build/bin/python3 -m venv /x\n"
		  "prompt = mine\nbase-executable = /build/x\nversion_info = 3.11.7.final.0\n"
		  "home = /build/second\n",
		  "VIRTUAL_ENV=\"/b\"\n", &r);
	assert_success(thaw_binding_render(r.image, r.reader, "/view", "/opt/py/bin/python3.11",
					   r.fd, &err),
		       &err);
	assert_text(&r, "pyvenv.cfg",
		    "home = /opt/py/bin\ninclude-system-site-packages = false\nversion = 3.11\n"
		    "executable = /opt/py/bin/python3.11\nprompt = mine\n");
	assert_int_equal(fstatat(r.fd, "pyvenv.cfg", &st, 0), 0);
	assert_int_equal(st.st_mtim.tv_sec, 1234);
	assert_int_equal(st.st_mode & 0777, 0644); /* as served: readable by all */
	assert_link(&r, "bin/python", "/opt/py/bin/python3.11");
	assert_link(&r, "bin/python3", "/opt/py/bin/python3.11");
	assert_link(&r, "bin/python3.11", "/opt/py/bin/python3.11");
	assert_link(&r, "bin/python3.113", "/opt/py/bin/python3.11");
	assert_int_equal(count_entries(r.tree), 2); /* activate is the relocations' matter */
	/* again, over what is there: the same */
	assert_success(thaw_binding_render(r.image, r.reader, "/view", "/build/bin/python3.11",
					   r.fd, &err),
		       &err);
	assert_link(&r, "bin/python", "/build/bin/python3.11");
	/* the recorded one: its full version is known */
	assert_text(&r, "pyvenv.cfg",
		    "home = /build/bin\ninclude-system-site-packages = false\nversion = 3.11.7\n"
		    "executable = /build/bin/python3.11\nprompt = mine\n");
	close_venv(&r);
}

static void test_render_needs_an_interpreter(void **state)
{
	struct thaw_error err = { 0 };
	struct rendered r;

	open_venv("home = /x\n", "", &r);
	assert_refused(thaw_binding_render(r.image, r.reader, "/view", NULL, r.fd, &err), &err,
		       "needs Python 3.11 of this node, and none was chosen");
	assert_refused(thaw_binding_render(r.image, r.reader, "/view", "python3", r.fd, &err),
		       &err, "\"python3\": an interpreter's path is absolute");
	assert_refused(thaw_binding_render(r.image, r.reader, "/view", "/a\nb", r.fd, &err), &err,
		       "\"/a\\x0ab\": an interpreter's path is absolute");
	assert_int_equal(count_entries(r.tree), 0);
	close_venv(&r);
}

/* Planted in the directory: replaced, never written through. */
static void test_render_replaces_links(void **state)
{
	struct thaw_error err = { 0 };
	struct rendered r;
	char *victim;

	open_venv("home = /x\n", "", &r);
	victim = join_path(r.directory, "victim");
	write_file(victim, "mine", 4);
	assert_int_equal(symlinkat(victim, r.fd, "pyvenv.cfg"), 0);
	assert_success(thaw_binding_render(r.image, r.reader, "/view", "/p/bin/python3.11", r.fd,
					   &err),
		       &err);
	{
		struct buffer bytes = { 0 };

		read_file(victim, &bytes);
		assert_int_equal(bytes.size, 4);
		buffer_deinit(&bytes);
	}
	/* a link for a directory is not gone through either */
	assert_int_equal(renameat(r.fd, "bin", r.fd, "old"), 0);
	assert_int_equal(symlinkat(r.directory, r.fd, "bin"), 0);
	assert_int_not_equal(thaw_binding_render(r.image, r.reader, "/view", "/p/bin/python3.11",
						 r.fd, &err),
			     0);
	free(victim);
	close_venv(&r);
}

/* A shell reads the path back, whatever is in it. */
static void test_activate_quotes(void **state)
{
	static const char *const prefixes[] = { "/a b", "/it's", "/\"", "/$HOME", "/`id`", "/a\\b",
						"/$(id)", "/a'b\"c$d`e\\f;g&h|i" };
	static const char *const forms[] = { "VIRTUAL_ENV=\"/b/x\"\n", "VIRTUAL_ENV='/b/x'\n",
					     "VIRTUAL_ENV=/b/x\n" };

	for (size_t i = 0; i < ARRAY_SIZE(prefixes) * ARRAY_SIZE(forms); i++) {
		const char *prefix = prefixes[i % ARRAY_SIZE(prefixes)];
		struct thaw_error err = { 0 };
		struct rendered r;
		char command[600], found[200] = "";
		FILE *shell;

		open_venv("home = /x\n", forms[i / ARRAY_SIZE(prefixes)], &r);
		assert_success(thaw_binding_render(r.image, r.reader, prefix, "/p/bin/python3.11",
						   r.fd, &err),
			       &err);
		(void)snprintf(command, sizeof(command),
			       ". '%s/bin/activate'; printf %%s \"$VIRTUAL_ENV\"", r.tree);
		shell = popen(command, "r");
		assert_non_null(shell);
		found[fread(found, 1, sizeof(found) - 1, shell)] = '\0';
		assert_int_equal(pclose(shell), 0);
		assert_string_equal(found, prefix);
		close_venv(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_load_none),
		cmocka_unit_test(test_load_hostile),
		cmocka_unit_test(test_load_ignores_odd_paths),
		cmocka_unit_test_setup_teardown(test_recorded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_recorded_is_never_run, setup, teardown),
		cmocka_unit_test_setup_teardown(test_search, setup, teardown),
		cmocka_unit_test_setup_teardown(test_symlinks_are_resolved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_none, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wanted_does_not_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_patch_levels, setup, teardown),
		cmocka_unit_test(test_pyvenv),
		cmocka_unit_test(test_render),
		cmocka_unit_test(test_render_needs_an_interpreter),
		cmocka_unit_test(test_render_replaces_links),
		cmocka_unit_test(test_activate_quotes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
