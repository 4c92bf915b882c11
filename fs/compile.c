/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling what has no valid bytecode: see thaw/compile.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compile-internal.h"
#include "thaw/relocation.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "util/write-all.h"

#define PROCESSES_MAX 256u
#define PYC_HEADER    16u /* PEP 552: magic, flags, then mtime and size, or a hash */
#define FLAG_HASH     1u

/* A module, and what its .pyc says. */
struct source {
	uint32_t ino;
	uint32_t magic; /* 0: there is no .pyc, or it is no good in any case */
};

struct sources {
	struct source *items;
	size_t count, capacity;
};

static bool ends_with(struct thaw_name name, const char *suffix)
{
	size_t len = strlen(suffix);

	return name.len > len && memcmp(name.text + name.len - len, suffix, len) == 0;
}

/* The magic of a .pyc that Python would take for this source, were it its own; else 0. */
static int read_magic(const struct subject *subject, const struct thaw_inode *directory,
		      struct thaw_name name, const struct thaw_inode *source,
		      struct thaw_error *err, uint32_t *ret_magic)
{
	char pyc[THAW_NAME_MAX + sizeof(subject->tag) + 8];
	struct thaw_inode cache, file;
	uint8_t head[PYC_HEADER];
	size_t n = 0;
	int len, r;

	*ret_magic = 0;
	len = snprintf(pyc, sizeof(pyc), "%.*s.%s.pyc", (int)name.len - 3, name.text,
		       subject->tag);
	if (thaw_image_lookup(subject->image, directory->ino, "__pycache__", 11,
			      &cache) != 0 ||
	    cache.type != THAW_DIRECTORY ||
	    thaw_image_lookup(subject->image, cache.ino, pyc, (size_t)len, &file) != 0 ||
	    file.type != THAW_REGULAR)
		return 0;
	r = thaw_reader_read(subject->reader, &file, 0, head, sizeof(head), err, &n);
	if (r < 0 || n < sizeof(head))
		return r;
	if (get_le32(head + 4) & FLAG_HASH ||
	    (get_le32(head + 4) == 0 && get_le32(head + 8) == source->mtime &&
	     get_le32(head + 12) == (uint32_t)source->size))
		*ret_magic = get_le32(head);
	return 0;
}

static int list_directory(const struct subject *subject,
			  const struct thaw_inode *directory, struct sources *sources,
			  struct relocated_sources *relocated, struct thaw_error *err)
{
	struct thaw_relocated file;
	struct thaw_inode child;
	struct thaw_name name;

	for (uint64_t i = 0; i < directory->size; i++) {
		struct source source;
		int r;

		thaw_image_child(subject->image, directory, i, &name, &child);
		/* The interpreter reads names line by line: one with a newline cannot be said. */
		if (child.type != THAW_REGULAR || !ends_with(name, ".py") ||
		    memchr(name.text, '\n', name.len))
			continue;
		/* Another text in each view: what is there already is hidden. */
		if (thaw_image_relocated_find(subject->image, child.ino, &file) == 0) {
			r = relocated_add(relocated, subject, directory->ino, name,
					  child.ino, err);
			if (r < 0)
				return r;
			continue;
		}
		source.ino = child.ino;
		r = read_magic(subject, directory, name, &child, err, &source.magic);
		if (r < 0)
			return r;
		if (grow(&sources->items, &sources->capacity, sources->count + 1,
			 sizeof(source)) < 0)
			return thaw_oom(err);
		sources->items[sources->count++] = source;
	}
	return 0;
}

/* Modules beneath lib/pythonX.Y. A directory's record comes before those of what is in it. */
static int list_sources(const struct subject *subject, struct sources *sources,
			struct relocated_sources *relocated, struct thaw_error *err)
{
	static const char *const libs[] = { "lib", "lib64" };
	uint32_t inodes = thaw_image_info(subject->image)->inodes;
	_cleanup_(freep) uint8_t *beneath = calloc(inodes, 1);
	struct thaw_inode directory;
	char path[64];
	int r = 0;

	if (!beneath)
		return thaw_oom(err);
	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/python%s", libs[i],
			       subject->python);
		if (thaw_image_find(subject->image, path, &directory) == 0)
			beneath[directory.ino] = 1;
	}
	for (uint32_t ino = THAW_ROOT; r == 0 && ino < inodes; ino++) {
		if (thaw_image_inode(subject->image, ino, &directory) < 0 ||
		    directory.type != THAW_DIRECTORY)
			continue;
		beneath[ino] |= beneath[directory.parent];
		if (beneath[ino])
			r = list_directory(subject, &directory, sources, relocated, err);
	}
	return r;
}

static int compare_magics(const void *a, const void *b)
{
	uint32_t x = ((const struct source *)a)->magic,
		 y = ((const struct source *)b)->magic;

	return (x > y) - (x < y);
}

static int compare_inodes(const void *a, const void *b)
{
	uint32_t x = ((const struct source *)a)->ino, y = ((const struct source *)b)->ino;

	return (x > y) - (x < y);
}

/*
 * Keep what has to be compiled, in the order of inodes. As when packing, the magic
 * that most files have is taken for the interpreter's. Returns how many are gone.
 */
static uint64_t drop_valid(struct sources *sources)
{
	uint32_t magic = 0;
	size_t run = 0, best = 0, kept = 0, all = sources->count;

	if (all == 0)
		return 0;
	qsort(sources->items, all, sizeof(*sources->items), compare_magics);
	for (size_t i = 0; i < all; i++) {
		run = i && sources->items[i].magic == sources->items[i - 1].magic
			      ? run + 1
			      : 1;
		if (sources->items[i].magic && run > best) {
			best = run;
			magic = sources->items[i].magic;
		}
	}
	for (size_t i = 0; i < all; i++)
		if (!magic || sources->items[i].magic != magic)
			sources->items[kept++] = sources->items[i];
	sources->count = kept;
	qsort(sources->items, kept, sizeof(*sources->items), compare_inodes);
	return all - kept;
}

/* -- in the child, inside of the view -- */

struct compile {
	const struct subject *subject;
	const struct sources *sources;
	const struct relocated_sources *relocated;
	int lines; /* what is being compiled, a line each */
};

/*
 * python -m compileall, but what it says goes to descriptor 3, and at once: standard
 * output is nobody's.
 */
static const char driver[] = "import compileall, sys\n"
			     "sys.stdout = open(3, 'w', 1, errors='replace')\n"
			     "sys.exit(not compileall.main())\n";

/* Every count-th path, from number on: neighbours are alike, so that no process gets all large ones. */
static int write_list(const struct compile *compile, const char *view, unsigned number,
		      unsigned count, struct thaw_error *err)
{
	_cleanup_(closep) int fd = memfd_create("sources", MFD_CLOEXEC);
	char path[THAW_PATH_MAX + 2];
	FILE *file;
	bool ok;
	int copy;

	if (fd < 0)
		return thaw_io(err, -errno, "no list can be written");
	copy = dup(fd);
	file = copy < 0 ? NULL : fdopen(copy, "w");
	if (!file) {
		(void)safe_close(copy);
		return thaw_oom(err);
	}
	for (size_t i = number; i < compile->sources->count; i += count) {
		thaw_image_path(compile->subject->image, compile->sources->items[i].ino,
				path, sizeof(path));
		if (!strchr(path, '\n'))
			(void)fprintf(file, "%s/%s\n", view,
				      path); /* checked by ferror() */
	}
	ok = !ferror(file);
	if (fclose(file) != 0 || !ok || lseek(fd, 0, SEEK_SET) < 0)
		return thaw_io(err, -EIO, "no list can be written");
	return steal_fd(&fd);
}

/* An interpreter compiling what it is told; top is left out of the names of files. */
struct compiler {
	char *argv[16];
	char *envp[8];
};

static void set_compiler(struct compiler *compiler, char *interpreter, char *top,
			 bool columns)
{
	/* -S: no code of the environment's is run, only compiled. */
	*compiler = (struct compiler){
		.argv = {
			interpreter,
			(char *)"-S",
			(char *)"-c",
			(char *)driver,
			(char *)"-f",
			(char *)"--invalidation-mode",
			(char *)"unchecked-hash",
			(char *)"-s",
			top,
			(char *)"-i",
			(char *)"-",
		},
		.envp = {
			(char *)"PATH=/usr/bin:/bin",
			(char *)"HOME=/nonexistent",
			(char *)"LC_ALL=C.UTF-8",
			(char *)"PYTHONHASHSEED=0", /* the same bytes each time */
			(char *)"PYTHONNOUSERSITE=1",
			(char *)"PYTHONSAFEPATH=1",
			columns ? NULL : (char *)"PYTHONNODEBUGRANGES=1", /* from 3.11 on */
		},
	};
}

/* One process a stage, so that each meets the same sources in the same order. */
static int stage_relocated(const struct compile *compile, const char *path,
			   char *interpreter, struct compiler *compilers, char **tops,
			   struct job *jobs, struct thaw_error *err)
{
	for (unsigned i = 0; i < RELOCATED_STAGES; i++) {
		int fd = memfd_create("sources", MFD_CLOEXEC);
		int r;

		if (fd < 0)
			return thaw_io(err, -errno, "no list can be written");
		r = relocated_stage(compile->relocated, compile->subject, path, i, fd,
				    &tops[i], err);
		if (r < 0)
			return r;
		set_compiler(&compilers[i], interpreter, tops[i], false);
		jobs[i] = (struct job){ compilers[i].argv, compilers[i].envp, fd,
					compile->lines };
	}
	return 0;
}

/* What is open and allocated here goes with the process. */
static int compile_in_view(void *userdata, const char *path, struct thaw_error *err)
{
	const struct compile *compile = userdata;
	struct compiler compiler, relocated[RELOCATED_STAGES];
	struct job jobs[PROCESSES_MAX + RELOCATED_STAGES];
	char *interpreter, *tops[RELOCATED_STAGES];
	unsigned count = compile->subject->processes;
	int r = subject_interpreter(compile->subject, path, err, &interpreter);

	if (r < 0)
		return r;
	set_compiler(&compiler, interpreter, (char *)path, true);
	if (count > PROCESSES_MAX)
		count = PROCESSES_MAX;
	if (count > compile->sources->count)
		count = (unsigned)compile->sources->count;
	for (unsigned i = 0; i < count; i++) {
		r = write_list(compile, path, i, count, err);
		if (r < 0)
			return r;
		jobs[i] = (struct job){ compiler.argv, compiler.envp, r, compile->lines };
	}
	if (compile->relocated->count) {
		r = stage_relocated(compile, path, interpreter, relocated, tops,
				    jobs + count, err);
		if (r < 0)
			return r;
		count += RELOCATED_STAGES;
	}
	return run_confined(path, jobs, count, err);
}

/* -- */

int thaw_compile(const char *image, const struct thaw_compile_options *options,
		 struct thaw_gathered *gathered, struct thaw_error *err,
		 struct thaw_compile_result *ret_result)
{
	const struct thaw_view_options view = {
		.image = image,
		.mode = THAW_VIEW_PRIVATE,
		.python = options->python,
	};
	struct thaw_compile_result result = { 0 };
	struct sources sources = { 0 };
	struct relocated_sources relocated = { 0 };
	struct relocated_result kept = { 0 };
	struct subject subject;
	struct compile compile = {
		.subject = &subject,
		.sources = &sources,
		.relocated = &relocated,
	};
	size_t before = gathered->count;
	struct thaw_train_watch watch;
	int status = 0, r;

	r = subject_open(image, options, 'C', err, &subject); /* "Compiling ..." */
	if (r < 0)
		return r;
	r = list_sources(&subject, &sources, &relocated, err);
	if (r == 0) {
		result.valid = drop_valid(&sources);
		compile.lines = subject.meter.lines;
		watch = subject_watch(&subject,
				      sources.count + RELOCATED_STAGES * relocated.count);
		relocated_choose(&relocated, &subject);
		if (sources.count || relocated.count)
			r = thaw_train_with(&view, compile_in_view, &compile, NULL,
					    gathered, &watch, err, &status);
	}
	if (r == 0 && status != 0)
		r = thaw_io(err, -EIO, "compiling it was ended (status %d)", status);
	if (r == 0)
		r = relocated_gather(&relocated, &subject, gathered, &kept, err);
	if (r == 0) {
		thaw_gathered_keep(gathered, subject.image);
		result.compiled = gathered->count - before;
		result.hidden = kept.hidden;
		result.failed = sources.count + kept.compiled + kept.failed -
				result.compiled;
		*ret_result = result;
	}
	free(sources.items);
	relocated_deinit(&relocated);
	subject_close(&subject);
	return r;
}
