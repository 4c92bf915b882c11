/* SPDX-License-Identifier: Apache-2.0 */
/* Trying to import what an environment holds: see thaw/compile.h. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compile-internal.h"
#include "util/cleanup.h"
#include "util/write-all.h"

#define REASON_MAX   300u
#define RESULT_MAX   (64u << 20)
/* Where programs may put what they must; in the scratch layer, out of the packages' sight. */
#define SCRATCH_HOME ".thaw-check"

/*
 * What is run: a process forked for each name, which has imported nothing yet.
 * Names come as a JSON array on standard input, results go as lines of JSON to
 * descriptor 3. What a package starts, prints or breaks stays in its process. A
 * process that takes longer than a minute is ended by its alarm, also when it
 * hangs in C code.
 */
static const char driver[] =
	"import importlib, json, os, select, signal, sys, time\n"
	"out = os.fdopen(3, 'w')\n"
	"os.set_inheritable(3, False)\n"
	"names = json.load(sys.stdin)\n"
	"limit, site_packages = int(sys.argv[1]), sys.argv[2:]\n"
	"if site_packages:\n"
	"    import site\n"
	"    for path in site_packages:\n"
	"        site.addsitedir(path)\n"
	"importlib.invalidate_caches()\n"
	"def lacking(e, name):\n"
	"    # many say in words of their own what to install, instead of the first error\n"
	"    while isinstance(e, ImportError) and not isinstance(e, ModuleNotFoundError):\n"
	"        e = e.__cause__ or e.__context__\n"
	"    if isinstance(e, ModuleNotFoundError) and e.name and e.name.split('.')[0] != name:\n"
	"        return str(e)\n"
	"def attempt(name):\n"
	"    try:\n"
	"        importlib.import_module(name)\n"
	"        return 'ok', ''\n"
	"    except BaseException as e:\n"
	"        text = lacking(e, name)\n"
	"        if text:\n"
	"            return 'lacks', text\n"
	"        text = ' '.join(str(e).split())\n"
	"        return 'failed', type(e).__name__ + (': ' + text if text else '')\n"
	"running = {}\n"
	"def start(name):\n"
	"    r, w = os.pipe()\n"
	"    pid = os.fork()\n"
	"    if pid == 0:\n"
	"        out.close = lambda: None\n"
	"        signal.signal(signal.SIGALRM, signal.SIG_DFL)\n"
	"        signal.alarm(60)\n"
	"        began = time.monotonic()\n"
	"        result = attempt(name)\n"
	"        os.write(w, json.dumps([*result, time.monotonic() - began])[:60000].encode())\n"
	"        os._exit(0)\n"
	"    os.close(w)\n"
	"    running[pid] = name, r\n"
	"def finish():\n"
	"    pid, status = os.waitpid(-1, 0)\n"
	"    if pid not in running:\n"
	"        return\n"
	"    name, r = running.pop(pid)\n"
	"    # without waiting: what the package started may hold the other end\n"
	"    ready = select.select([r], [], [], 0)[0]\n"
	"    data = os.read(r, 65536) if ready else b''\n"
	"    os.close(r)\n"
	"    try:\n"
	"        outcome, reason, seconds = json.loads(data)\n"
	"    except ValueError:\n"
	"        seconds = 0\n"
	"        if os.WIFSIGNALED(status):\n"
	"            number = os.WTERMSIG(status)\n"
	"            outcome = 'hung' if number == signal.SIGALRM else 'died'\n"
	"            reason = 'more than 60 s' if number == signal.SIGALRM else signal.Signals(number).name\n"
	"        else:\n"
	"            outcome, reason = 'died', 'exit code %d' % os.WEXITSTATUS(status)\n"
	"    out.write(json.dumps([name, outcome, reason[:300], seconds]) + '\\n')\n"
	"    out.flush()\n"
	"for name in names:\n"
	"    start(name)\n"
	"    while len(running) >= limit:\n"
	"        finish()\n"
	"while running:\n"
	"    finish()\n";

/* -- what there is to import -- */

/* The module that a child of site-packages is; 0 bytes: none. */
static size_t module_name(const struct subject *subject, struct thaw_name name,
			  const struct thaw_inode *inode)
{
	struct thaw_inode init;
	const char *dot = memchr(name.text, '.', name.len);
	size_t len = dot ? (size_t)(dot - name.text) : name.len;

	if (len == 0 || name.text[0] == '_' ||
	    (name.text[0] >= '0' && name.text[0] <= '9'))
		return 0;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name.text[i] < 128 && name.text[i] != '_' &&
		    !(name.text[i] >= '0' && name.text[i] <= '9') &&
		    !((name.text[i] | 32) >= 'a' && (name.text[i] | 32) <= 'z'))
			return 0;
	if (inode->type == THAW_DIRECTORY)
		/* without it a namespace, in which nothing is run when it is imported */
		return !dot && thaw_image_lookup(subject->image, inode->ino,
						 "__init__.py", 11, &init) == 0
			       ? len
			       : 0;
	if (inode->type != THAW_REGULAR || !dot)
		return 0;
	if (name.len - len == 3 && memcmp(dot, ".py", 3) == 0)
		return len;
	return name.len - len >= 3 && memcmp(name.text + name.len - 3, ".so", 3) == 0
		       ? len
		       : 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(json_string_value(*(json_t *const *)a),
		      json_string_value(*(json_t *const *)b));
}

/* Sorted, each once. */
static json_t *sorted(const json_t *names)
{
	size_t count = json_array_size(names);
	json_t **items = malloc((count + 1) * sizeof(*items));
	json_t *result = json_array();

	for (size_t i = 0; items && i < count; i++)
		items[i] = json_array_get(names, i);
	if (items && count)
		qsort(items, count, sizeof(*items), compare_names);
	for (size_t i = 0; items && i < count; i++)
		if (i == 0 || compare_names(&items[i - 1], &items[i]) != 0)
			(void)json_array_append(result,
						items[i]); /* short of memory: one less */
	free(items);
	return result;
}

static int list_modules(const struct subject *subject, struct thaw_error *err,
			json_t **ret_names)
{
	static const char *const libs[] = { "lib", "lib64" };
	json_t *names = json_array();

	for (size_t i = 0; names && i < 2; i++) {
		struct thaw_inode directory, child;
		struct thaw_name name;
		char path[64];

		(void)snprintf(path, sizeof(path), "%s/python%s/site-packages", libs[i],
			       subject->python);
		if (thaw_image_find(subject->image, path, &directory) != 0 ||
		    directory.type != THAW_DIRECTORY)
			continue;
		for (uint64_t j = 0; j < directory.size; j++) {
			size_t len;

			thaw_image_child(subject->image, &directory, j, &name, &child);
			len = module_name(subject, name, &child);
			if (len > 0) /* no UTF-8: no identifier either */
				(void)json_array_append_new(names,
							    json_stringn(name.text, len));
		}
	}
	*ret_names = names ? sorted(names) : NULL;
	json_decref(names);
	return *ret_names ? 0 : thaw_oom(err);
}

/* -- in the child, inside of the view -- */

struct imports {
	const struct subject *subject;
	const json_t *names;
	int results;
};

static int names_file(const json_t *names, struct thaw_error *err)
{
	_cleanup_(closep) int fd = memfd_create("names", MFD_CLOEXEC);

	if (fd < 0 || json_dumpfd(names, fd, JSON_COMPACT) < 0 ||
	    lseek(fd, 0, SEEK_SET) < 0)
		return thaw_io(err, -EIO, "no list can be written");
	return steal_fd(&fd);
}

/* The view's own, which is bound to one of this node's where the environment has none. */
static bool view_interpreter(const struct subject *subject, const char *path,
			     char *candidate, size_t size)
{
	(void)snprintf(candidate, size, "%s/bin/python%s", path, subject->python);
	if (access(candidate, X_OK) == 0)
		return true;
	(void)snprintf(candidate, size, "%s/bin/python", path);
	return access(candidate, X_OK) == 0;
}

static int import_in_view(void *userdata, const char *path, struct thaw_error *err)
{
	const struct imports *imports = userdata;
	_cleanup_(freep) char *interpreter = NULL;
	char home[THAW_PATH_MAX + 64], tmp[THAW_PATH_MAX + 64], limit[16],
		own[THAW_PATH_MAX + 64];
	char packages[2][THAW_PATH_MAX + 64];
	char *const envp[] = {
		(char *)"PATH=/usr/bin:/bin",
		home,
		tmp,
		(char *)"LC_ALL=C.UTF-8",
		(char *)"PYTHONNOUSERSITE=1",
		(char *)"PYTHONDONTWRITEBYTECODE=1",
		(char *)"PYTHONSAFEPATH=1",
		(char *)"MPLBACKEND=agg",
		NULL,
	};
	bool bound = view_interpreter(imports->subject, path, own, sizeof(own));
	struct job job = { .envp = envp, .output = imports->results };
	int r;

	r = subject_interpreter(imports->subject, path, err, &interpreter);
	if (r < 0)
		return r;
	char *const with_site[] = { own, (char *)"-c", (char *)driver, limit, NULL };
	char *const without[] = { interpreter, (char *)"-S", (char *)"-c", (char *)driver,
				  limit,       packages[0],  packages[1],  NULL };

	(void)snprintf(limit, sizeof(limit), "%u", imports->subject->processes);
	(void)snprintf(home, sizeof(home), "HOME=%s/" SCRATCH_HOME, path);
	(void)snprintf(tmp, sizeof(tmp), "TMPDIR=%s/" SCRATCH_HOME, path);
	if (mkdir(home + strlen("HOME="), 0700) < 0 && errno != EEXIST)
		return thaw_io(err, -errno, "\"%.200s\" cannot be made",
			       home + strlen("HOME="));
	(void)snprintf(packages[0], sizeof(packages[0]), "%s/lib/python%s/site-packages",
		       path, imports->subject->python);
	(void)snprintf(packages[1], sizeof(packages[1]),
		       "%s/lib64/python%s/site-packages", path, imports->subject->python);
	job.argv = bound ? with_site : without;
	job.input = names_file(imports->names, err);
	return job.input < 0 ? job.input : run_confined(path, &job, 1, err);
}

/* -- the results -- */

static enum thaw_import_outcome outcome_of(const char *word)
{
	static const struct {
		const char *word;
		enum thaw_import_outcome outcome;
	} words[] = { { "ok", THAW_IMPORT_OK },
		      { "lacks", THAW_IMPORT_LACKS },
		      { "died", THAW_IMPORT_DIED },
		      { "hung", THAW_IMPORT_HUNG } };

	for (size_t i = 0; word && i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(words[i].word, word) == 0)
			return words[i].outcome;
	return THAW_IMPORT_FAILED;
}

/* By name; a name without a result was not reached: the driver itself has ended. */
static void note_results(const json_t *names, const json_t *results, thaw_import_fn *note,
			 void *userdata)
{
	const json_t *name;
	size_t i;

	json_array_foreach(names, i, name)
	{
		const json_t *result = json_object_get(results, json_string_value(name));
		const char *reason = json_string_value(json_array_get(result, 2));
		struct thaw_import import = {
			.name = json_string_value(name),
			.outcome = result ? outcome_of(json_string_value(
						    json_array_get(result, 1)))
					  : THAW_IMPORT_DIED,
			.reason = reason   ? reason
				  : result ? ""
					   : "the interpreter ended before",
			.seconds = json_number_value(json_array_get(result, 3)),
		};

		note(userdata, &import);
	}
}

static int read_results(int fd, struct thaw_error *err, json_t **ret_results)
{
	json_t *results = json_object();
	off_t size = lseek(fd, 0, SEEK_END);
	_cleanup_(closefp) FILE *file = NULL;
	_cleanup_(freep) char *line = NULL;
	size_t capacity = 0;
	ssize_t len;
	int copy;

	if (!results)
		return thaw_oom(err);
	copy = size >= 0 && size <= (off_t)RESULT_MAX && lseek(fd, 0, SEEK_SET) == 0
		       ? dup(fd)
		       : -1;
	file = copy >= 0 ? fdopen(copy, "r") : NULL;
	while (file && (len = getline(&line, &capacity, file)) > 0) {
		json_t *result = json_loadb(line, (size_t)len, 0, NULL);
		const char *name = json_string_value(json_array_get(result, 0));

		if (name)
			(void)json_object_set(results, name, result);
		json_decref(result);
	}
	*ret_results = results;
	return 0;
}

int thaw_check_imports(const char *image, const struct thaw_compile_options *options,
		       thaw_import_fn *note, void *userdata, struct thaw_error *err)
{
	const struct thaw_view_options view = {
		.image = image,
		.mode = THAW_VIEW_PRIVATE,
		.python = options->python,
	};
	json_t *names = NULL, *results = NULL;
	struct subject subject;
	struct imports imports = { .subject = &subject };
	struct thaw_train_watch watch;
	int status, r;

	r = subject_open(image, options, '[', err, &subject);
	if (r < 0)
		return r;
	r = list_modules(&subject, err, &names);
	imports.names = names;
	imports.results = subject.meter.lines; /* those are the results */
	watch = subject_watch(&subject, json_array_size(names));
	if (r == 0 && json_array_size(names) > 0)
		r = thaw_train_with(&view, import_in_view, &imports, NULL, NULL,
				    &watch, err, &status);
	if (r == 0)
		r = read_results(subject.meter.lines, err, &results);
	if (r == 0)
		note_results(names, results, note, userdata);
	json_decref(results);
	json_decref(names);
	subject_close(&subject);
	return r;
}
