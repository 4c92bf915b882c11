/* SPDX-License-Identifier: Apache-2.0 */
/* Making stubs. */
#include <elf.h>
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "stub-internal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/pread.h"

/*
 * What stands in for a program. Some lines of shell and not the launcher itself: on
 * another machine that would fail as "Exec format error", or as a script full of
 * syntax errors, and nobody would know why.
 */
#define SCRIPT                                                                               \
	"#!/bin/sh\n"                                                                        \
	"# A stub made by thaw: starts this program of the environment %.16s.\n"             \
	"me=$0\n"                                                                            \
	"[ ! -L \"$me\" ] || me=$(readlink -f -- \"$me\")\n"                                 \
	"case $me in */*) stub=${me%%/*}/.. ;; *) stub=.. ;; esac\n"                         \
	"machine=$(uname -m)\n"                                                              \
	"if [ \"$machine\" != %s ]; then\n"                                                  \
	"\techo \"thaw: ${me##*/}: this environment is for %s, and this node is $machine\" >&2\n" \
	"\texit 125\n"                                                                       \
	"fi\n"                                                                               \
	"exec \"$stub/thaw/launcher\" launch \"$stub\" \"${me##*/}\" \"$@\"\n"

struct making {
	const struct thaw_stub_options *options;
	struct thaw_stub stub;
	struct thaw_image **images;
	uint64_t launcher_size;
	char *text; /* stub.json */
	struct thaw_stub_report *report;
};

static void making_deinit(struct making *m)
{
	for (size_t i = 0; m->images && i < m->options->image_count; i++)
		thaw_image_free(m->images[i]);
	free(m->images);
	free(m->text);
	thaw_stub_deinit(&m->stub);
}

static bool ends_with(const char *text, const char *suffix)
{
	size_t len = strlen(text), n = strlen(suffix);

	return len > n && strcmp(text + len - n, suffix) == 0;
}

int thaw_stub_form(const char *path, enum thaw_stub_form *ret_form)
{
	if (ends_with(path, ".tar.gz") || ends_with(path, ".tgz"))
		*ret_form = THAW_STUB_TAR_GZ;
	else if (ends_with(path, ".zip"))
		*ret_form = THAW_STUB_ZIP;
	else if (ends_with(path, ".pex") || ends_with(path, ".thaw"))
		*ret_form = THAW_STUB_EXECUTABLE;
	else
		return THAW_NOT_FOUND;
	return 0;
}

/* -- the launcher -- */

/* As uname(2) calls it; NULL for machines that thaw was never built for. */
static const char *machine_name(const uint8_t *elf)
{
	switch (get_le16(elf + offsetof(Elf64_Ehdr, e_machine))) {
	case EM_X86_64:
		return "x86_64";
	case EM_AARCH64:
		return "aarch64";
	case EM_RISCV:
		return "riscv64";
	case EM_PPC64:
		return "ppc64le";
	}
	return NULL;
}

/* Does it ask for a dynamic linker? */
static int is_dynamic(int fd, const uint8_t *elf, bool *ret_dynamic)
{
	uint64_t offset = get_le64(elf + offsetof(Elf64_Ehdr, e_phoff));
	unsigned count = get_le16(elf + offsetof(Elf64_Ehdr, e_phnum));

	*ret_dynamic = false;
	for (unsigned i = 0; i < count; i++) {
		uint8_t header[sizeof(Elf64_Phdr)];
		int r = pread_all(fd, header, sizeof(header), offset + i * sizeof(header));

		if (r < 0)
			return r;
		*ret_dynamic |= get_le32(header) == PT_INTERP;
	}
	return 0;
}

static int look_at_launcher(struct making *m, struct thaw_error *err)
{
	int fd = m->options->launcher, r;
	uint8_t elf[sizeof(Elf64_Ehdr)];
	const char *machine;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return thaw_io(err, -errno, "cannot be read");
	m->launcher_size = (uint64_t)st.st_size;
	r = thaw_stub_find(fd, err, NULL, &m->launcher_size); /* itself one: without its image */
	if (r < 0)
		return r;
	if (m->launcher_size < sizeof(elf) || pread_all(fd, elf, sizeof(elf), 0) < 0 ||
	    memcmp(elf, ELFMAG, SELFMAG) != 0 || elf[EI_CLASS] != ELFCLASS64 ||
	    elf[EI_DATA] != ELFDATA2LSB)
		return thaw_refused(err, "is no executable that can be a launcher");
	machine = machine_name(elf);
	if (!machine)
		return thaw_refused(err, "is for a machine that thaw does not know");
	strcpy(m->stub.machine, machine);
	r = is_dynamic(fd, elf, &m->report->dynamic);
	return r < 0 ? thaw_io(err, r, "cannot be read") : 0;
}

/* -- images -- */

/* "linux-x86_64" in the meta section: what the image has binaries for. */
static int check_machine(const struct thaw_image *image, const char *machine,
			 struct thaw_error *err)
{
	size_t len;
	const char *text = thaw_image_meta(image, &len);
	json_t *meta = len ? json_loadb(text, len, 0, NULL) : NULL;
	const char *platform = json_string_value(json_object_get(meta, "platform"));
	const char *of = platform ? strchr(platform, '-') : NULL;
	int r = 0;

	if (of && strcmp(of + 1, machine) != 0)
		r = thaw_refused(err, "is for %.40s, and the launcher for %s: name one with "
				      "--launcher", of + 1, machine);
	json_decref(meta);
	return r;
}

static int describe_image(struct making *m, size_t i, struct thaw_error *err)
{
	const struct thaw_stub_options *options = m->options;
	struct thaw_stub_image *out = &m->stub.images[i];
	const char *path = options->images[i], *slash = strrchr(path, '/');
	const char *said = i == 0 ? options->image_path : NULL;
	struct thaw_source *source;
	int r = thaw_source_open(path, err, &source);

	if (r == 0)
		r = thaw_image_open(source, err, &m->images[i]);
	if (r == 0)
		r = check_machine(m->images[i], m->stub.machine, err);
	if (r < 0)
		return r;
	thaw_digest_hex(thaw_image_info(m->images[i])->identity, out->identity);
	out->embedded = options->embed;
	out->name = strdup(slash ? slash + 1 : path);
	if (!out->name)
		return thaw_oom(err);
	if (said ? *said == '\0' : options->embed)
		return 0; /* the same stub wherever the image lay */
	out->path = said ? strdup(said) : realpath(path, NULL);
	return out->path ? 0 : thaw_io(err, -errno, "has no path");
}

static int describe(struct making *m, struct thaw_error *err, const char **ret_about)
{
	const struct thaw_stub_options *options = m->options;
	int r = 0;

	m->stub.images = calloc(options->image_count, sizeof(*m->stub.images));
	m->images = calloc(options->image_count, sizeof(*m->images));
	m->stub.search = calloc(options->search_count + 1, sizeof(char *));
	if (!m->stub.images || !m->images || !m->stub.search)
		return thaw_oom(err);
	m->stub.image_count = options->image_count;
	for (size_t i = 0; r == 0 && i < options->image_count; i++) {
		*ret_about = options->images[i];
		r = describe_image(m, i, err);
	}
	for (size_t i = 0; r == 0 && i < options->search_count; i++) {
		m->stub.search[m->stub.search_count++] = strdup(options->search[i]);
		if (!m->stub.search[i])
			r = thaw_oom(err);
	}
	if (r == 0 && thaw_stub_text(&m->stub, &m->text) < 0)
		r = thaw_oom(err);
	return r;
}

/* -- programs -- */

/* A program that can be started by its name: a file, or a link, which may lead out. */
static bool is_program(const struct thaw_name *name, const struct thaw_inode *inode)
{
	if (name->len > 200) /* beside "bin/", as a tar's header has it */
		return false;
	return inode->type == THAW_SYMLINK ||
	       (inode->type == THAW_REGULAR && (inode->mode & 0111));
}

static bool has_name(const struct thaw_image *image, const struct thaw_inode *bin,
		     const char *name)
{
	struct thaw_inode inode;

	return thaw_image_lookup(image, bin->ino, name, strlen(name), &inode) == 0;
}

/* bin/python comes first: in a tar the others are further names of it. */
static int add_programs(struct making *m, struct thaw_stub_archive *archive,
			const struct thaw_stub_bytes *script, struct thaw_error *err)
{
	const char *first = "bin/python";
	int r;

	r = thaw_stub_archive_directory(archive, "bin", err);
	if (r == 0)
		r = thaw_stub_archive_file(archive, first, 0755, script, err);
	m->report->programs = 1;
	for (size_t i = 0; r == 0 && i < m->options->image_count; i++) {
		const struct thaw_image *image = m->images[i];
		struct thaw_inode bin;

		if (thaw_image_find(image, "bin", &bin) != 0 || bin.type != THAW_DIRECTORY)
			continue;
		for (uint64_t n = 0; r == 0 && n < bin.size; n++) {
			struct thaw_inode inode, other;
			struct thaw_name name;
			char path[256];
			bool known = false;

			thaw_image_child(image, &bin, n, &name, &inode);
			for (size_t j = 0; j < i && !known; j++) /* of an image below */
				known = thaw_image_find(m->images[j], "bin", &other) == 0 &&
					thaw_image_lookup(m->images[j], other.ino, name.text,
							  name.len, &inode) == 0;
			(void)snprintf(path, sizeof(path), "bin/%.*s", (int)name.len, name.text);
			if (known || !is_program(&name, &inode) || strcmp(path, first) == 0)
				continue;
			r = thaw_stub_archive_again(archive, path, first, 0755, script, err);
			m->report->programs++;
		}
	}
	return r;
}

static int check_programs(struct making *m, struct thaw_error *err)
{
	struct thaw_inode bin;

	if (thaw_image_find(m->images[0], "bin", &bin) != 0 || bin.type != THAW_DIRECTORY ||
	    !(has_name(m->images[0], &bin, "python") || has_name(m->images[0], &bin, "python3")))
		return thaw_refused(err, "has no bin/python: no environment that a stub could start");
	return 0;
}

/* -- output -- */

static struct thaw_stub_bytes image_bytes(const struct making *m, size_t i)
{
	const struct thaw_image_info *info = thaw_image_info(m->images[i]);

	return (struct thaw_stub_bytes){
		.fd = thaw_image_fd(m->images[i]),
		.offset = info->image_start,
		.size = info->image_size,
		.packed = true,
	};
}

static int write_archive(struct making *m, struct thaw_output *output, struct thaw_error *err)
{
	_cleanup_(thaw_stub_archive_freep) struct thaw_stub_archive *archive = NULL;
	const struct thaw_stub_bytes launcher = {
		.fd = m->options->launcher,
		.size = m->launcher_size,
	};
	const struct thaw_stub_bytes text = { .data = m->text, .size = strlen(m->text) };
	struct thaw_stub_bytes script;
	char code[2048];
	int r;

	(void)snprintf(code, sizeof(code), SCRIPT, m->stub.images[0].identity, m->stub.machine,
		       m->stub.machine);
	script = (struct thaw_stub_bytes){ .data = code, .size = strlen(code) };
	r = thaw_stub_archive_new(m->report->form, output, err, &archive);
	if (r == 0)
		r = add_programs(m, archive, &script, err);
	if (r == 0)
		r = thaw_stub_archive_directory(archive, "thaw", err);
	if (r == 0)
		r = thaw_stub_archive_file(archive, "thaw/launcher", 0755, &launcher, err);
	if (r == 0)
		r = thaw_stub_archive_file(archive, "thaw/stub.json", 0644, &text, err);
	for (size_t i = 0; r == 0 && m->options->embed && i < m->options->image_count; i++) {
		struct thaw_stub_bytes image = image_bytes(m, i);
		char path[128];

		(void)snprintf(path, sizeof(path), "thaw/%s.thaw", m->stub.images[i].identity);
		r = thaw_stub_archive_file(archive, path, 0644, &image, err);
	}
	return r == 0 ? thaw_stub_archive_end(archive, err) : r;
}

/* size bytes of launcher, and what it is to start. */
static int write_front(struct thaw_output *output, int launcher, uint64_t size,
		       const char *text, struct thaw_error *err)
{
	uint8_t trailer[THAW_STUB_TRAILER] = THAW_STUB_TRAILER_MAGIC;
	size_t len = strlen(text);
	int r;

	put_le64(trailer + 8, len);
	put_le64(trailer + 16, 0);
	r = thaw_output_copy(output, launcher, 0, size, err);
	if (r == 0)
		r = thaw_output_write(output, text, len, err);
	if (r == 0)
		r = thaw_output_write(output, trailer, sizeof(trailer), err);
	return r;
}

static int write_executable(struct making *m, struct thaw_output *output, struct thaw_error *err)
{
	int r = write_front(output, m->options->launcher, m->launcher_size, m->text, err);

	if (r == 0 && m->options->embed) {
		struct thaw_stub_bytes image = image_bytes(m, 0);

		r = thaw_output_copy(output, image.fd, image.offset, image.size, err);
	}
	return r;
}

/* What may be executed as it is: with the permissions that a compiler would give. */
static int make_executable(struct thaw_output *output, struct thaw_error *err)
{
	struct stat st;

	if (fstat(thaw_output_fd(output), &st) < 0 ||
	    fchmod(thaw_output_fd(output), st.st_mode | (st.st_mode & 0444) >> 2) < 0)
		return thaw_io(err, -errno, "cannot be made executable");
	return 0;
}

int thaw_stub_carry(const struct thaw_image *image, const uint8_t identity[THAW_DIGEST_SIZE],
		    struct thaw_output *output, struct thaw_error *err)
{
	uint64_t start = thaw_image_info(image)->image_start, launcher;
	int fd = thaw_image_fd(image), r;
	_cleanup_(freep) char *text = NULL;
	struct thaw_stub stub = { 0 };
	struct stat st;

	if (start == 0 || fd < 0)
		return 0;
	r = thaw_stub_find(fd, err, &stub, &launcher);
	if (r < 0)
		return r;
	if (r == THAW_NOT_FOUND) {
		r = thaw_output_copy(output, fd, 0, start, err);
	} else {
		/* What lies where the image once lay is the old one. */
		free(stub.images[0].path);
		stub.images[0].path = NULL;
		thaw_digest_hex(identity, stub.images[0].identity);
		r = thaw_stub_text(&stub, &text) < 0 ?
			    thaw_oom(err) :
			    write_front(output, fd, launcher, text, err);
	}
	if (r == 0 && fstat(fd, &st) == 0 && (st.st_mode & 0111))
		r = make_executable(output, err);
	thaw_stub_deinit(&stub);
	return r;
}

int thaw_stub_write(const char *path, const struct thaw_stub_options *options,
		    struct thaw_error *err, const char **ret_about,
		    struct thaw_stub_report *ret_report)
{
	_cleanup_(thaw_output_freep) struct thaw_output *output = NULL;
	_cleanup_(making_deinit) struct making m = { .options = options, .report = ret_report };
	int r;

	*ret_report = (struct thaw_stub_report){ 0 };
	*ret_about = path;
	if (options->executable)
		ret_report->form = THAW_STUB_EXECUTABLE;
	else if (thaw_stub_form(path, &ret_report->form) != 0)
		return thaw_refused(err, "a stub is called .tar.gz, .tgz, .zip, .pex or .thaw (Spark "
					 "takes the execute bit from .tar and .jar)");
	if (ret_report->form == THAW_STUB_EXECUTABLE && options->embed && options->image_count > 1)
		return thaw_refused(err, "one file can hold one image: use .tar.gz for several");
	*ret_about = "launcher";
	r = look_at_launcher(&m, err);
	if (r == 0)
		r = describe(&m, err, ret_about);
	if (r < 0)
		return r;
	*ret_about = options->images[0];
	r = check_programs(&m, err);
	if (r < 0)
		return r;
	*ret_about = path;
	r = thaw_output_open(path, options->force, err, &output);
	if (r == 0 && ret_report->form == THAW_STUB_EXECUTABLE) {
		r = write_executable(&m, output, err);
		if (r == 0)
			r = make_executable(output, err);
	} else if (r == 0) {
		r = write_archive(&m, output, err);
	}
	ret_report->size = output ? thaw_output_offset(output) : 0;
	ret_report->launcher = m.launcher_size;
	memcpy(ret_report->identity, m.stub.images[0].identity, THAW_DIGEST_HEX);
	strcpy(ret_report->machine, m.stub.machine);
	return r == 0 ? thaw_output_commit(output, err) : r;
}

/* -- links -- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_dots(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

int thaw_stub_write_links(const char *path, const char *directory, bool force,
			  struct thaw_error *err, struct thaw_stub_report *ret_report)
{
	_cleanup_(thaw_output_freep) struct thaw_output *output = NULL;
	_cleanup_(thaw_stub_archive_freep) struct thaw_stub_archive *archive = NULL;
	struct dirent **names = NULL;
	int count, r;

	*ret_report = (struct thaw_stub_report){ 0 };
	if (thaw_stub_form(path, &ret_report->form) != 0 ||
	    ret_report->form != THAW_STUB_TAR_GZ)
		return thaw_refused(err, "links need a .tar.gz: Spark unpacks those of a .zip as "
					 "files");
	count = scandir(directory, &names, not_dots, by_name);
	if (count < 0)
		return thaw_io(err, -errno, "\"%.300s\"", directory);
	r = count == 0 ? thaw_refused(err, "\"%.300s\" is empty: no view stands there", directory) :
			 thaw_output_open(path, force, err, &output);
	if (r == 0)
		r = thaw_stub_archive_new(THAW_STUB_TAR_GZ, output, err, &archive);
	for (int i = 0; r == 0 && i < count; i++) {
		_cleanup_(freep) char *target = NULL;

		if (asprintf(&target, "%s/%s", directory, names[i]->d_name) < 0) {
			target = NULL;
			r = thaw_oom(err);
		} else {
			r = thaw_stub_archive_symlink(archive, names[i]->d_name, target, err);
		}
		ret_report->programs++;
	}
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	if (r == 0)
		r = thaw_stub_archive_end(archive, err);
	if (r == 0)
		r = thaw_output_commit(output, err);
	ret_report->size = output ? thaw_output_offset(output) : 0;
	return r;
}
