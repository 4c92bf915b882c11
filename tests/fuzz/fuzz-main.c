/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay files, and the files of directories, through a fuzz target without an
 * engine. An input of no bytes comes first. Fails when there was nothing to
 * replay, since an empty corpus would otherwise pass for a tested one.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

#define SIZE_MAX_FILE (16u << 20)

static int replay_file(const char *path)
{
	FILE *file = fopen(path, "re");
	uint8_t *data;
	size_t size;

	if (!file) {
		perror(path);
		return -1;
	}
	data = malloc(SIZE_MAX_FILE);
	size = data ? fread(data, 1, SIZE_MAX_FILE, file) : 0;
	(void)fclose(file);
	/* Of exactly its size, so that a sanitizer sees the first byte beyond. */
	if (data && size > 0)
		data = realloc(data, size);
	if (!data)
		return -1;
	fprintf(stderr, "%s\n", path); /* the last line before a crash names the culprit */
	(void)LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 1;
}

static int replay_directory(const char *path)
{
	struct dirent **entries;
	int count = scandir(path, &entries, NULL, alphasort), done = 0;

	if (count < 0) {
		perror(path);
		return -1;
	}
	for (int i = 0; i < count; i++) {
		char *file;

		if (entries[i]->d_name[0] != '.' && done >= 0) {
			if (asprintf(&file, "%s/%s", path, entries[i]->d_name) < 0)
				abort();
			done = replay_file(file) < 0 ? -1 : done + 1;
			free(file);
		}
		free(entries[i]);
	}
	free(entries);
	return done;
}

int main(int argc, char **argv)
{
	uint8_t nothing = 0;
	int total = 0;

	(void)LLVMFuzzerTestOneInput(&nothing, 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;
		int n;

		if (stat(argv[i], &st) < 0) {
			perror(argv[i]);
			return 1;
		}
		n = S_ISDIR(st.st_mode) ? replay_directory(argv[i]) : replay_file(argv[i]);
		if (n < 0)
			return 1;
		total += n;
	}
	printf("%d inputs\n", total);
	return total > 0 ? 0 : 1;
}
