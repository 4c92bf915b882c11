/* SPDX-License-Identifier: Apache-2.0 */
/* Building tar streams, and files to hold them. Images are in support-image.c. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pack-internal.h"

#define TAR_BLOCK 512u

void buffer_add(struct buffer *buffer, const void *data, size_t len)
{
	if (buffer->size + len > buffer->capacity) {
		size_t capacity = 2 * (buffer->size + len) + 64;
		uint8_t *bytes = realloc(buffer->data, capacity);

		if (!bytes)
			abort();
		buffer->data = bytes;
		buffer->capacity = capacity;
	}
	if (len > 0)
		memcpy(buffer->data + buffer->size, data, len);
	buffer->size += len;
}

void buffer_add_zeros(struct buffer *buffer, size_t len)
{
	static const uint8_t zeros[4096];

	while (len > 0) {
		size_t n = len < sizeof(zeros) ? len : sizeof(zeros);

		buffer_add(buffer, zeros, n);
		len -= n;
	}
}

void buffer_deinit(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){ 0 };
}

void fill_pattern(uint8_t *data, size_t len, uint32_t seed)
{
	uint32_t state = seed * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		data[i] = (uint8_t)state;
	}
}

void tar_checksum(struct buffer *tar, size_t offset)
{
	uint8_t *header = tar->data + offset;
	unsigned sum = 0;
	char digits[8];

	memset(header + 148, ' ', 8);
	for (unsigned i = 0; i < TAR_BLOCK; i++)
		sum += header[i];
	(void)snprintf(digits, sizeof(digits), "%06o", sum);
	memcpy(header + 148, digits, 7); /* six digits, NUL; the space stays */
}

void tar_member(struct buffer *tar, const char *path, char type, unsigned mode, uint64_t mtime,
		const char *target, const void *data, size_t size)
{
	size_t offset = tar->size, len = strlen(path);
	char digits[16];
	uint8_t *header;

	if (len > 100 || (target && strlen(target) > 100)) {
		fputs("tar_member: use tar_pax for long names\n", stderr);
		abort();
	}
	buffer_add_zeros(tar, TAR_BLOCK);
	header = tar->data + offset;
	memcpy(header, path, len);
	(void)snprintf(digits, sizeof(digits), "%07o", mode & 07777777);
	memcpy(header + 100, digits, 8);
	memcpy(header + 108, "0000000", 8);
	memcpy(header + 116, "0000000", 8);
	(void)snprintf(digits, sizeof(digits), "%011llo", (unsigned long long)size);
	memcpy(header + 124, digits, 12);
	(void)snprintf(digits, sizeof(digits), "%011llo", (unsigned long long)mtime & 077777777777);
	memcpy(header + 136, digits, 12);
	header[156] = (uint8_t)type;
	if (target)
		memcpy(header + 157, target, strlen(target));
	memcpy(header + 257, "ustar\00000", 8);
	tar_checksum(tar, offset);
	if (data) {
		buffer_add(tar, data, size);
		buffer_add_zeros(tar, (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
	}
}

void tar_file(struct buffer *tar, const char *path, const void *data, size_t size)
{
	tar_member(tar, path, '0', 0644, 1700000000, NULL, size ? data : NULL, size);
}

void tar_text(struct buffer *tar, const char *path, const char *text)
{
	tar_file(tar, path, text, strlen(text));
}

void tar_directory(struct buffer *tar, const char *path)
{
	tar_member(tar, path, '5', 0755, 1700000000, NULL, NULL, 0);
}

void tar_symlink(struct buffer *tar, const char *path, const char *target)
{
	tar_member(tar, path, '2', 0777, 1700000000, target, NULL, 0);
}

void tar_hardlink(struct buffer *tar, const char *path, const char *target)
{
	tar_member(tar, path, '1', 0644, 1700000000, target, NULL, 0);
}

void tar_pax(struct buffer *tar, char type, const char *key, const void *value, size_t len)
{
	_buffer_ record = { 0 };
	size_t rest = 1 + strlen(key) + 1 + len + 1, total = rest + 1;
	char digits[24];

	/* The length counts its own digits. */
	while ((size_t)snprintf(digits, sizeof(digits), "%zu", total) + rest != total)
		total++;
	buffer_add(&record, digits, strlen(digits));
	buffer_add(&record, " ", 1);
	buffer_add(&record, key, strlen(key));
	buffer_add(&record, "=", 1);
	buffer_add(&record, value, len);
	buffer_add(&record, "\n", 1);
	tar_member(tar, "PaxHeader/x", type, 0644, 0, NULL, record.data, record.size);
}

void tar_end(struct buffer *tar)
{
	buffer_add_zeros(tar, 2 * TAR_BLOCK);
}

void tar_sample(struct buffer *tar)
{
	uint8_t *large = malloc(70000);

	if (!large)
		abort();
	fill_pattern(large, 70000, 7);
	tar_directory(tar, "bin/");
	tar_member(tar, "bin/python3", '0', 0755, 1700000001, NULL, "#!binary\n", 9);
	tar_symlink(tar, "bin/python", "python3");
	tar_directory(tar, "lib/");
	tar_file(tar, "lib/large.so", large, 70000);
	tar_hardlink(tar, "lib/large.so.1", "lib/large.so");
	tar_file(tar, "lib/empty", NULL, 0);
	tar_text(tar, "share/doc/readme", "implied directories\n");
	tar_end(tar);
	free(large);
}

char *make_directory(void)
{
	const char *parent = getenv("TMPDIR");
	char *path = NULL;

	if (asprintf(&path, "%s/thaw-unit-XXXXXX", parent && *parent ? parent : "/tmp") < 0 ||
	    !mkdtemp(path))
		abort();
	return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void remove_directory(char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
		abort();
	free(path);
}

char *join_path(const char *directory, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		abort();
	return path;
}

static void write_all(int fd, const void *data, size_t size)
{
	const uint8_t *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0)
			abort();
		p += n;
		size -= (size_t)n;
	}
}

void write_file(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		abort();
	write_all(fd, data, size);
	(void)close(fd);
}

void read_file(const char *path, struct buffer *ret_bytes)
{
	uint8_t piece[65536];
	FILE *file = fopen(path, "re");
	size_t n;

	if (!file)
		abort();
	while ((n = fread(piece, 1, sizeof(piece), file)) > 0)
		buffer_add(ret_bytes, piece, n);
	(void)fclose(file);
}

unsigned count_entries(const char *directory)
{
	DIR *dir = opendir(directory);
	unsigned count = 0;

	if (!dir)
		abort();
	for (struct dirent *entry; (entry = readdir(dir));)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	(void)closedir(dir);
	return count;
}

int memory_file(const void *data, size_t size)
{
	int fd = memfd_create("thaw-unit", MFD_CLOEXEC);

	if (fd < 0)
		abort();
	write_all(fd, data, size);
	if (lseek(fd, 0, SEEK_SET) != 0)
		abort();
	return fd;
}

int pack_bytes(const struct buffer *tar, const char *output, const struct thaw_pack_options *options,
	       struct thaw_error *err, struct thaw_pack_report *ret_report)
{
	int fd = memory_file(tar->data, tar->size), r;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = thaw_pack(path, output, options, err, ret_report);
	(void)close(fd);
	return r;
}

int open_path(const char *path, struct thaw_error *err, struct thaw_image **ret_image)
{
	struct thaw_source *source;
	int r = thaw_source_open(path, err, &source);

	return r < 0 ? r : thaw_image_open(source, err, ret_image);
}

int read_input(struct thaw_input *input, struct thaw_error *err, struct buffer *tar)
{
	for (;;) {
		const uint8_t *data;
		size_t len;
		int r = input->next(input, err, &data, &len);

		if (r < 0 || len == 0)
			return r;
		buffer_add(tar, data, len);
	}
}
