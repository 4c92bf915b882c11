/* SPDX-License-Identifier: Apache-2.0 */
/* PEX files: PEX-INFO, and what becomes of the parts. The genuine ones are in tests/mount. */
#include "check.h"

#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "pex.h"
#include "support-zip.h"
#include "wheel.h"

static int parse(const char *text, struct thaw_error *err, struct thaw_pex_info *ret)
{
	return thaw_pex_info_parse(text, strlen(text), err, ret);
}

static void info(void **state)
{
	static const char text[] =
		"{\"entry_point\": \"app.main:run\", \"script\": \"\", \"pex_path\": null,"
		" \"interpreter_constraints\": [\"CPython==3.9.*\", \"PyPy\", \"CPython==3.11.*\"],"
		" \"distributions\": {\"b.whl\": \"1\", \"a.whl\": \"2\"}, \"inject_args\": [],"
		" \"inject_env\": {}, \"venv_system_site_packages\": true, \"unknown\": 1}";
	struct thaw_pex_info found;
	struct thaw_error err;

	assert_success(parse(text, &err, &found), &err);
	assert_string_equal(found.entry_point, "app.main:run");
	assert_null(found.script);
	assert_string_equal(found.constraints,
			    "CPython==3.9.* or PyPy or CPython==3.11.*");
	assert_true(found.minors == ((1u << 9) | (1u << 11)));
	assert_int_equal(found.distribution_count, 2);
	assert_string_equal(found.distributions[0], "a.whl");
	assert_string_equal(found.distributions[1], "b.whl");
	assert_true(found.system_packages);
	assert_null(found.arguments);
	assert_null(found.variables);
	thaw_pex_info_deinit(&found);

	assert_success(parse("{}", &err, &found), &err);
	assert_true(found.minors == THAW_MINORS_ALL);
	assert_null(found.entry_point);
	assert_null(found.constraints);
	assert_int_equal(found.distribution_count, 0);
	thaw_pex_info_deinit(&found);
}

static void bad_info(void **state)
{
	static const struct {
		const char *text;
		int error;
		const char *message;
	} cases[] = {
		{ "", EBADMSG, "PEX-INFO is no JSON object" },
		{ "[]", EBADMSG, "PEX-INFO is no JSON object" },
		{ "{\"a\": 1, \"a\": 2}", EBADMSG, "PEX-INFO is no JSON object" },
		{ "{} x", EBADMSG, "PEX-INFO is no JSON object" },
		{ "{\"entry_point\": 1}", EBADMSG,
		  "PEX-INFO: \"entry_point\" is not what it should be" },
		{ "{\"entry_point\": \"a:b()\"}", EBADMSG,
		  "PEX-INFO: entry point \"a:b()\"" },
		{ "{\"entry_point\": \"a\\nimport os\"}", EBADMSG,
		  "PEX-INFO: entry point \"a\\x0aimport os\"" },
		{ "{\"script\": \"../x\"}", EPERM, "PEX-INFO: script \"../x\"" },
		{ "{\"distributions\": []}", EBADMSG,
		  "PEX-INFO: \"distributions\" is not what it should be" },
		{ "{\"distributions\": {\"../a.whl\": \"\"}}", EPERM,
		  "PEX-INFO: distribution \"../a.whl\"" },
		{ "{\"distributions\": {\"\": \"\"}}", EPERM,
		  "PEX-INFO: distribution \"\"" },
		{ "{\"interpreter_constraints\": [\"CPython>=2.7,<3\"]}", EPERM,
		  "is for \"CPython>=2.7,<3\", which no CPython 3 is" },
		{ "{\"interpreter_constraints\": [1]}", EBADMSG,
		  "PEX-INFO: \"interpreter_constraints\" is not what it should be" },
		{ "{\"inject_args\": \"x\"}", EBADMSG,
		  "PEX-INFO: \"inject_args\" is not what it should be" },
		{ "{\"inject_env\": {\"a\": 1}}", EBADMSG,
		  "PEX-INFO: \"inject_env\" is not what it should be" },
		{ "{\"pex_path\": \"other.pex\"}", EPERM,
		  "needs other PEX files to run (PEX_PATH)" },
		{ "{\"pex_paths\": [\"other.pex\"]}", EPERM,
		  "needs other PEX files to run (PEX_PATH)" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_pex_info found;
		struct thaw_error err;
		int r = parse(cases[i].text, &err, &found);

		if (r != -cases[i].error || strcmp(err.text, cases[i].message) != 0)
			fail_msg("%s: %d %s", cases[i].text, r, err.text);
	}
}

#define HEAD \
	"#!/usr/bin/env python3\nimport os\nimport sys\n\nif __name__ == \"__main__\":\n"

static void starts(void **state)
{
	static const struct {
		const char *text, *script;
	} cases[] = {
		{ "{}", NULL },
		{ "{\"entry_point\": \"a.b:C.d\"}",
		  HEAD "    from a.b import C\n    sys.exit(C.d())\n" },
		{ "{\"entry_point\": \"a.b\"}", HEAD
		  "    import runpy\n"
		  "    runpy.run_module(\"a.b\", run_name=\"__main__\", alter_sys=True)\n" },
		{ "{\"script\": \"to\\\"ol\\n\"}",
		  HEAD "    script = os.path.join(sys.prefix, \"bin\", \"to\\\"ol\\n\")\n"
		       "    os.execv(script, [script, *sys.argv[1:]])\n" },
		{ "{\"entry_point\": \"a:b\", \"inject_env\": {\"A\": \"\\\"\\n\"}}",
		  HEAD "    for name, value in {\"A\": \"\\\"\\n\"}.items():\n"
		       "        os.environ.setdefault(name, value)\n"
		       "    from a import b\n    sys.exit(b())\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thaw_pex_info found;
		struct thaw_error err;
		char *script;

		assert_success(parse(cases[i].text, &err, &found), &err);
		assert_success(thaw_pex_start(&found, &err, &script), &err);
		if (cases[i].script)
			assert_string_equal(script, cases[i].script);
		else
			assert_null(script);
		free(script);
		thaw_pex_info_deinit(&found);
	}
}

/* -- whole ones -- */

static int collect(const char *path, unsigned minor, struct buffer *tar,
		   struct thaw_error *err, char *ret_python)
{
	const struct thaw_input_options options = { .python_minor = minor };
	struct thaw_input *input;
	int r = thaw_input_open_with(path, &options, err, &input);

	if (r < 0)
		return r;
	assert_string_equal(input->kind, "pex");
	assert_int_equal(input->environment->hints.kind, THAW_KIND_PEX);
	strcpy(ret_python, input->environment->hints.python);
	r = read_input(input, err, tar);
	thaw_input_free(input);
	return r;
}

struct pex {
	char *directory, *path;
	struct zip_builder zip;
};

static void begin(struct pex *pex, const char *pex_info)
{
	static const char line[] = "#!/usr/bin/env python3.12\n";

	*pex = (struct pex){ .directory = make_directory() };
	pex->path = join_path(pex->directory, "app");
	buffer_add(&pex->zip.bytes, line, strlen(line));
	zip_file(&pex->zip, "PEX-INFO", pex_info);
	zip_file(&pex->zip, "__main__.py", "#!/usr/bin/env python3.12\nboot()\n");
	zip_file(&pex->zip, ".bootstrap/pex/boot.py", "boot");
	zip_file(&pex->zip, "__pex__/__init__.py", "boot");
}

static int end(struct pex *pex, unsigned minor, struct buffer *tar,
	       struct thaw_error *err, char *ret_python)
{
	int r;

	zip_end(&pex->zip, false, "");
	write_file(pex->path, pex->zip.bytes.data, pex->zip.bytes.size);
	r = collect(pex->path, minor, tar, err, ret_python);
	zip_deinit(&pex->zip);
	free(pex->path);
	remove_directory(pex->directory);
	return r;
}

static bool holds(const struct buffer *tar, const char *text)
{
	return memmem(tar->data, tar->size, text, strlen(text)) != NULL;
}

#define DEPENDENCY "d-1-py3-none-any.whl"
#define INFO \
	"{\"entry_point\": \"app:run\", \"distributions\": {\"" DEPENDENCY "\": \"\"}}"

static void add_installed(struct pex *pex)
{
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/.layout.json", "{}");
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/d/__init__.py", "dependency\n");
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/d-1.dist-info/METADATA",
		 "Name: d\nRequires-Python: >=3.9\n");
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/d-1.dist-info/RECORD",
		 "d/__init__.py,,11\n");
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/d-1.pex-info/original-whl-info.json",
		 "notes");
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/.prefix/bin/tool", "#!python\ntool\n");
	zip_file(&pex->zip, ".deps/" DEPENDENCY "/.prefix/include/site/pythonX.Y/d/d.h",
		 "header");
}

static void environment(void **state)
{
	static const char *const there[] = {
		"lib/python3.12/site-packages/d/__init__.py",
		"lib/python3.12/site-packages/app.py",
		"lib/python3.12/site-packages/d-1.dist-info/RECORD",
		"include/site/python3.12/d/d.h",
		"#!/usr/bin/env python3\ntool\n",
		"bin/tool",
		"bin/__pex__",
		"__main__.py",
		"from app import run",
		"/usr/bin/python3.12",
	};
	static const char *const not_there[] = {
		".deps",    ".bootstrap", "__pex__/", "PEX-INFO",
		"pex-info", ".layout",	  "boot",     "pythonX.Y",
	};
	_buffer_ tar = { 0 };
	struct thaw_error err;
	struct pex pex;
	char python[16];

	begin(&pex, INFO);
	add_installed(&pex);
	zip_file(&pex.zip, "app.py", "def run(): pass\n");
	assert_success(end(&pex, 0, &tar, &err, python), &err);
	/* Its first line says what it was built with, and no wheel speaks against it. */
	assert_string_equal(python, "3.12");
	for (size_t i = 0; i < ARRAY_SIZE(there); i++)
		if (!holds(&tar, there[i]))
			fail_msg("no %s", there[i]);
	for (size_t i = 0; i < ARRAY_SIZE(not_there); i++)
		if (holds(&tar, not_there[i]))
			fail_msg("%s is there", not_there[i]);
}

static void wanted_python(void **state)
{
	_buffer_ tar = { 0 };
	struct thaw_error err;
	struct pex pex;
	char python[16];

	begin(&pex, INFO);
	add_installed(&pex);
	assert_success(end(&pex, 10, &tar, &err, python), &err);
	assert_string_equal(python, "3.10");
	begin(&pex, INFO);
	add_installed(&pex);
	assert_refused(end(&pex, 8, &tar, &err, python), &err,
		       DEPENDENCY " is not for Python 3.8");
	begin(&pex, "{\"interpreter_constraints\": [\"CPython<3.9\"],"
		    " \"distributions\": {\"" DEPENDENCY "\": \"\"}}");
	add_installed(&pex);
	assert_refused(end(&pex, 0, &tar, &err, python), &err,
		       "interpreter_constraints and " DEPENDENCY
		       " have no version of Python in common");
}

#define ONE(tag, version) "e-" version "-" tag ".whl"

static void add_alternative(struct pex *pex, const char *name, const char *content)
{
	char path[200];

	assert_true(strlen(name) <= 100);
	(void)snprintf(path, sizeof(path), ".deps/%.100s/e.py", name);
	zip_file(&pex->zip, path, content);
	(void)snprintf(path, sizeof(path), ".deps/%.100s/e-1.dist-info/METADATA", name);
	zip_file(&pex->zip, path, "Name: e\n");
}

/* A PEX for several Pythons has a wheel for each: that for the one chosen is taken. */
static void alternatives(void **state)
{
	struct utsname system;
	char names[6][100], info[1000];
	static const struct {
		const char *tag;
		bool here; /* the tag goes on with this machine's name */
		const char *content;
	} wheels[] = {
		{ "cp310-cp310-manylinux2014_", true, "for 3.10\n" },
		{ "py3-none-any", false, "for all\n" },
		{ "cp312-cp312-manylinux2014_other", false, "for another machine\n" },
		{ "cp312-cp312-manylinux2014_", true, "for 3.12\n" },
		{ "cp312-cp312-musllinux_1_2_", true, "for another library\n" },
		{ "cp312-cp312-win_amd64", false, "for another system\n" },
	};
	static const struct {
		unsigned minor;
		const char *content;
	} cases[] = { { 0, "for 3.12\n" }, { 10, "for 3.10\n" }, { 11, "for all\n" } };

	assert_int_equal(uname(&system), 0);
	strcpy(info, "{\"distributions\": {");
	for (size_t i = 0; i < ARRAY_SIZE(wheels); i++) {
		(void)snprintf(names[i], sizeof(names[i]), "e-1-%s%.30s.whl",
			       wheels[i].tag, wheels[i].here ? system.machine : "");
		(void)snprintf(info + strlen(info), sizeof(info) - strlen(info),
			       "%s\"%s\": \"\"", i ? ", " : "", names[i]);
	}
	strcat(info, "}}");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_buffer_ tar = { 0 };
		struct thaw_error err;
		struct pex pex;
		char python[16];

		begin(&pex, info);
		for (size_t j = 0; j < ARRAY_SIZE(wheels); j++)
			add_alternative(&pex, names[j], wheels[j].content);
		assert_success(end(&pex, cases[i].minor, &tar, &err, python), &err);
		for (size_t j = 0; j < ARRAY_SIZE(wheels); j++)
			if (holds(&tar, wheels[j].content) !=
			    (strcmp(wheels[j].content, cases[i].content) == 0))
				fail_msg("3.%u: %s", cases[i].minor, wheels[j].content);
	}
}

static void no_alternative(void **state)
{
	static const struct {
		const char *one, *other, *text;
	} cases[] = {
		{ ONE("cp310-cp310-linux_other", "1"),
		  ONE("cp311-cp311-linux_other", "1"),
		  ": none of this project is for Python 3.11 on " },
		{ ONE("py3-none-any", "1"), ONE("py3-none-any", "2"), " both fit" },
		{ ONE("cp310-cp310-any", "1"), ONE("cp39-cp39-any", "1"),
		  "is not for Python 3.11" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char info[300], python[16];
		_buffer_ tar = { 0 };
		struct thaw_error err;
		struct pex pex;

		(void)snprintf(info, sizeof(info),
			       "{\"distributions\": {\"%s\": \"\", \"%s\": \"\"}}",
			       cases[i].one, cases[i].other);
		begin(&pex, info);
		add_alternative(&pex, cases[i].one, "one");
		add_alternative(&pex, cases[i].other, "other");
		assert_int_equal(end(&pex, 11, &tar, &err, python), -EPERM);
		if (!strstr(err.text, cases[i].text))
			fail_msg("%s", err.text);
	}
}

/* What it depends on as wheels, stored or deflated in the PEX. */
static void wheels_inside(void **state)
{
	for (int deflated = 0; deflated < 2; deflated++) {
		_zip_ wheel = { 0 };
		_buffer_ tar = { 0 };
		struct zip_spec spec = { .name = ".deps/" DEPENDENCY,
					 .deflated = deflated,
					 .mode = 0100644 };
		struct thaw_error err;
		struct pex pex;
		char python[16];

		zip_file(&wheel, "d/__init__.py", "dependency\n");
		zip_file(&wheel, "d-1.data/scripts/tool", "#!python\ntool\n");
		zip_file(&wheel, "d-1.dist-info/WHEEL", "Wheel-Version: 1.0\n");
		zip_file(&wheel, "d-1.dist-info/RECORD", "d/__init__.py,,\n");
		zip_end(&wheel, false, "");
		begin(&pex, INFO);
		spec.data = wheel.bytes.data;
		spec.size = wheel.bytes.size;
		zip_member(&pex.zip, &spec);
		assert_success(end(&pex, 0, &tar, &err, python), &err);
		assert_true(holds(&tar, "lib/python3.12/site-packages/d/__init__.py"));
		assert_true(holds(&tar, "#!/usr/bin/env python3\ntool\n"));
	}
}

static void broken(void **state)
{
	_buffer_ tar = { 0 };
	struct thaw_error err;
	struct pex pex;
	char python[16];

	begin(&pex, INFO);
	assert_damaged(end(&pex, 0, &tar, &err, python), &err,
		       "PEX-INFO names \"" DEPENDENCY "\", which is not in .deps");
	begin(&pex, INFO);
	zip_file(&pex.zip, ".deps/" DEPENDENCY, "no zip");
	assert_damaged(end(&pex, 0, &tar, &err, python), &err,
		       ".deps/" DEPENDENCY ": is too short for a zip archive");
	begin(&pex, INFO);
	add_installed(&pex);
	zip_file(&pex.zip, "d/__init__.py", "the user's own\n");
	assert_refused(
		end(&pex, 0, &tar, &err, python), &err,
		"\"lib/python3.12/site-packages/d/__init__.py\": different content in " DEPENDENCY
		" and the PEX's own code");
	begin(&pex, "{\"distributions\": {\"nonsense\": \"\"}}");
	zip_file(&pex.zip, ".deps/nonsense/d-1.dist-info/METADATA", "");
	assert_damaged(end(&pex, 0, &tar, &err, python), &err,
		       "nonsense: not the name of a wheel");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(info),		  cmocka_unit_test(bad_info),
		cmocka_unit_test(starts),	  cmocka_unit_test(environment),
		cmocka_unit_test(wanted_python),  cmocka_unit_test(wheels_inside),
		cmocka_unit_test(broken),	  cmocka_unit_test(alternatives),
		cmocka_unit_test(no_alternative),
	};

	return cmocka_run_group_tests_name("pex", tests, NULL, NULL);
}
