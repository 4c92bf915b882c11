/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Python and platform a wheel is for (PEP 425, 427, 600, 656). Only CPython 3
 * counts, by minor version, since that is what names a site-packages directory.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "wheel.h"

#define BIT(minor)  ((uint64_t)1 << (minor))
#define FROM(minor) (~(BIT(minor) - 1))

/* "39" -> 39; -1 for anything but one or two digits. */
static int small_number(const char *text, size_t len)
{
	if (len < 1 || len > 2 || !isdigit((unsigned char)text[0]) ||
	    (len == 2 && !isdigit((unsigned char)text[1])))
		return -1;
	return len == 1 ? text[0] - '0' : (text[0] - '0') * 10 + text[1] - '0';
}

/* The next of "a.b.c"; *rest is NULL behind the last. */
static bool next_part(const char **rest, size_t *rest_len, const char **ret_part,
		      size_t *ret_len)
{
	const char *dot;

	if (!*rest)
		return false;
	dot = memchr(*rest, '.', *rest_len);
	*ret_part = *rest;
	*ret_len = dot ? (size_t)(dot - *rest) : *rest_len;
	*rest_len -= dot ? *ret_len + 1 : *ret_len;
	*rest = dot ? dot + 1 : NULL;
	return true;
}

static bool is_text(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}

/* What one Python tag and one ABI tag allow together. */
static uint64_t minors_of(const char *python, size_t python_len, const char *abi,
			  size_t abi_len)
{
	int minor;

	if (python_len < 3 || python[2] != '3')
		return 0;
	minor = small_number(python + 3, python_len - 3);
	if (memcmp(python, "py", 2) == 0) {
		if (!is_text(abi, abi_len, "none"))
			return 0;
		return python_len == 3		 ? THAW_MINORS_ALL
		       : minor < 0 || minor > 63 ? 0
						 : FROM(minor);
	}
	if (memcmp(python, "cp", 2) != 0)
		return 0;
	if (python_len == 3) /* "cp3": any CPython 3 */
		return is_text(abi, abi_len, "none") ? THAW_MINORS_ALL : 0;
	if (minor < 0 || minor > 63)
		return 0;
	if (is_text(abi, abi_len, "abi3"))
		return FROM(minor);
	if (is_text(abi, abi_len, "none"))
		return BIT(minor);
	/* "cp37m" is what "cp38" is; "cp313t" is for an interpreter of another kind. */
	if (abi_len >= python_len && memcmp(abi, python, python_len) == 0 &&
	    (abi_len == python_len ||
	     is_text(abi + python_len, abi_len - python_len, "m")))
		return BIT(minor);
	return 0;
}

/* "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64": family and machine. */
static bool linux_platform(const char *tag, size_t len, char *ret_platform, size_t size)
{
	static const char *const families[] = { "manylinux", "musllinux", "linux" };
	char text[64], *machine;

	if (len >= sizeof(text))
		return false;
	memcpy(text, tag, len);
	text[len] = '\0';
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		size_t n = strlen(families[i]);

		if (strncmp(text, families[i], n) != 0)
			continue;
		/* Behind the family a version, "2014_" or "_2_17_", then the machine. */
		machine = text + n + strspn(text + n, "0123456789");
		while (*machine == '_' && isdigit((unsigned char)machine[1]))
			machine += 1 + strspn(machine + 1, "0123456789");
		if (*machine != '_' || machine[1] == '\0')
			return false;
		(void)snprintf(ret_platform, size, "%s%s", families[i],
			       machine); /* fits */
		return true;
	}
	return false;
}

/* Take the last "-part" off; false when there is none. */
static bool take_last(const char *text, size_t *len, const char **ret_part,
		      size_t *ret_len)
{
	const char *dash = memrchr(text, '-', *len);

	if (!dash || dash == text || dash + 1 == text + *len)
		return false;
	*ret_part = dash + 1;
	*ret_len = (size_t)(text + *len - dash - 1);
	*len = (size_t)(dash - text);
	return true;
}

struct tags {
	const char *text[3]; /* Python, ABI, platform; each may be several */
	size_t len[3];
};

static uint64_t all_minors(const struct tags *tags)
{
	const char *pythons = tags->text[0], *python, *abi;
	size_t pythons_len = tags->len[0], python_len, abi_len;
	uint64_t minors = 0;

	while (next_part(&pythons, &pythons_len, &python, &python_len)) {
		const char *abis = tags->text[1];
		size_t abis_len = tags->len[1];

		while (next_part(&abis, &abis_len, &abi, &abi_len))
			minors |= minors_of(python, python_len, abi, abi_len);
	}
	return minors;
}

/* False when it is not for Linux. */
static bool one_platform(const struct tags *tags, char *ret_platform, size_t size)
{
	const char *rest = tags->text[2], *part;
	size_t rest_len = tags->len[2], len;
	char platform[64];

	ret_platform[0] = '\0';
	while (next_part(&rest, &rest_len, &part, &len)) {
		if (is_text(part, len, "any")) {
			ret_platform[0] = '\0';
			return true;
		}
		if (!linux_platform(part, len, platform, sizeof(platform)))
			continue;
		/* For both C libraries: then it does not matter which. */
		if (ret_platform[0] != '\0' && strcmp(ret_platform, platform) != 0)
			(void)snprintf(ret_platform, size, "linux%s",
				       strchr(platform, '_'));
		else
			(void)snprintf(ret_platform, size, "%s", platform);
	}
	return ret_platform[0] != '\0';
}

int thaw_wheel_name_parse(const char *name, struct thaw_error *err,
			  struct thaw_wheel_name *ret_name)
{
	struct thaw_wheel_name found = { 0 };
	const char *version, *build;
	size_t version_len, build_len, len = strlen(name), before;
	struct tags tags;

	if (len < 4 || strcmp(name + len - 4, ".whl") != 0)
		return thaw_damaged(err, "%.200s: not the name of a wheel", name);
	len -= 4;
	for (unsigned i = 3; i-- > 0;)
		if (!take_last(name, &len, &tags.text[i], &tags.len[i]))
			return thaw_damaged(err, "%.200s: not the name of a wheel", name);
	if (!take_last(name, &len, &version, &version_len))
		return thaw_damaged(err, "%.200s: not the name of a wheel", name);
	/* NAME-VERSION or NAME-VERSION-BUILD; a name has no dash in it. */
	before = len;
	if (memchr(name, '-', len)) {
		if (!take_last(name, &before, &build, &build_len) ||
		    memchr(name, '-', before) || !isdigit((unsigned char)version[0]))
			return thaw_damaged(err, "%.200s: not the name of a wheel", name);
		version = build;
		version_len = build_len;
	}
	if (before >= sizeof(found.project) || version_len >= sizeof(found.version))
		return thaw_damaged(err, "%.200s: not the name of a wheel", name);
	memcpy(found.project, name, before);
	memcpy(found.version, version, version_len);
	found.minors = all_minors(&tags);
	if (found.minors == 0)
		return thaw_refused(err, "%.200s: is not for CPython 3", name);
	if (!one_platform(&tags, found.platform, sizeof(found.platform)))
		return thaw_refused(err, "%.200s: is not for Linux", name);
	*ret_name = found;
	return 0;
}

/* -- the target -- */

void thaw_wheel_target_init(struct thaw_wheel_target *target)
{
	memset(target, 0, sizeof(*target));
	target->minors = THAW_MINORS_ALL;
}

/* manylinux and musllinux exclude each other; linux says nothing of the C library. */
static bool platforms_agree(const char *a, const char *b)
{
	const char *machine_a = strchr(a, '_'), *machine_b = strchr(b, '_');

	if (a[0] == '\0' || b[0] == '\0')
		return true;
	if (!machine_a || !machine_b || strcmp(machine_a, machine_b) != 0)
		return false;
	return strcmp(a, b) == 0 || strncmp(a, "linux", 5) == 0 ||
	       strncmp(b, "linux", 5) == 0;
}

int thaw_wheel_target_narrow(struct thaw_wheel_target *target, uint64_t minors,
			     const char *platform, const char *by, struct thaw_error *err)
{
	uint64_t lost = target->minors & ~minors;

	if (!platforms_agree(target->platform, platform))
		return thaw_refused(err, "%.120s is for %s, %.120s for %s", by, platform,
				    target->platform_by, target->platform);
	if (platform[0] != '\0' &&
	    (target->platform[0] == '\0' || strncmp(target->platform, "linux", 5) == 0)) {
		(void)snprintf(target->platform, sizeof(target->platform), "%s",
			       platform);
		(void)snprintf(target->platform_by, sizeof(target->platform_by), "%s",
			       by);
	}
	if ((target->minors & minors) == 0) {
		/* Whoever ruled out a version that this one wants. */
		for (unsigned minor = 0; minor < 64; minor++)
			if ((minors & BIT(minor)) &&
			    target->narrowed_by[minor][0] != '\0')
				return thaw_refused(
					err,
					"%.120s and %.120s have no version of Python in common",
					target->narrowed_by[minor], by);
		return thaw_refused(err, "%.120s: is for no version of Python", by);
	}
	for (unsigned minor = 0; minor < 64; minor++)
		if (lost & BIT(minor))
			(void)snprintf(target->narrowed_by[minor],
				       sizeof(target->narrowed_by[minor]), "%s", by);
	target->minors &= minors;
	return 0;
}

/* The newest python3.N in a directory that is among minors; -1: none. */
static int newest_in(const char *directory, uint64_t minors)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	int newest = -1;

	while (dir && (entry = readdir(dir))) {
		int minor = -1;

		if (strncmp(entry->d_name, "python3.", 8) == 0)
			minor = small_number(entry->d_name + 8,
					     strlen(entry->d_name + 8));
		if (minor > newest && minor < 64 && (minors & BIT(minor)) &&
		    faccessat(dirfd(dir), entry->d_name, X_OK, 0) == 0)
			newest = minor;
	}
	if (dir)
		(void)closedir(dir);
	return newest;
}

static int newest_here(uint64_t minors)
{
	const char *path = getenv("PATH");
	_cleanup_(freep) char *copy = NULL;
	int newest = -1;

	if (asprintf(&copy, "%s:/usr/local/bin:/usr/bin", path ? path : "") < 0) {
		copy = NULL;
		return -1;
	}
	for (char *rest = copy, *directory; (directory = strsep(&rest, ":"));) {
		int found = directory[0] == '/' ? newest_in(directory, minors) : -1;

		newest = found > newest ? found : newest;
	}
	return newest;
}

int thaw_wheel_target_choose(const struct thaw_wheel_target *target, unsigned wanted,
			     unsigned preferred, struct thaw_error *err,
			     unsigned *ret_minor, bool *ret_guessed)
{
	uint64_t minors = target->minors;
	int newest;

	*ret_guessed = false;
	if (wanted) {
		if (wanted > 63 || !(minors & BIT(wanted)))
			return thaw_refused(err, "%.120s is not for Python 3.%u",
					    wanted > 63 ? "this"
							: target->narrowed_by[wanted],
					    wanted);
		*ret_minor = wanted;
		return 0;
	}
	if ((minors & (minors - 1)) == 0) {
		*ret_minor = (unsigned)__builtin_ctzll(minors);
		return 0;
	}
	if (preferred && preferred < 64 && (minors & BIT(preferred))) {
		*ret_minor = preferred;
		return 0;
	}
	newest = newest_here(minors);
	if (newest < 0)
		return thaw_refused(
			err,
			"leaves the version of Python open, and this machine has none "
			"that fits: say which (--python-version)");
	*ret_minor = (unsigned)newest;
	*ret_guessed = true;
	return 0;
}
