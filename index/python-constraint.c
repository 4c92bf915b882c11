/* SPDX-License-Identifier: Apache-2.0 */
/* Which versions of CPython 3 a constraint allows (PEP 440): see python-constraint.h. */
#include "python-constraint.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* More than there are; every version is tried, which needs no algebra. */
#define MINORS	64
#define PATCHES 100

static bool is_text(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}

struct version {
	int parts[3];	/* of what is missing, 0 */
	unsigned count; /* of parts given */
	bool wildcard;
};

/* "3.11.2", "3.11.*", "3.11rc1" (whose suffix is left out: no minor depends on it). */
static bool parse_version(const char *text, size_t len, struct version *ret)
{
	*ret = (struct version){ 0 };
	for (size_t i = 0; i < len;) {
		int value = 0;
		size_t digits = 0;

		if (text[i] == '*') {
			ret->wildcard = ret->count > 0;
			return ret->wildcard && i + 1 == len;
		}
		while (i < len && isdigit((unsigned char)text[i]) && digits < 6)
			value = value * 10 + (text[i++] - '0'), digits++;
		if (digits == 0)
			return false;
		if (ret->count < 3)
			ret->parts[ret->count++] = value;
		if (i == len || text[i] != '.')
			return i == len || isalpha((unsigned char)text[i]) ||
			       text[i] == '+';
		if (++i == len)
			return false;
	}
	return ret->count > 0;
}

static int compare_parts(const int *a, const int *b, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (a[i] != b[i])
			return a[i] < b[i] ? -1 : 1;
	return 0;
}

static bool satisfies(const int *candidate, const char *op, size_t op_len,
		      const struct version *version)
{
	int order = compare_parts(candidate, version->parts, 3);

	if (is_text(op, op_len, "=="))
		return version->wildcard ? compare_parts(candidate, version->parts,
							 version->count) == 0
					 : order == 0;
	if (is_text(op, op_len, "==="))
		return order == 0;
	if (is_text(op, op_len, "!="))
		return version->wildcard ? compare_parts(candidate, version->parts,
							 version->count) != 0
					 : order != 0;
	if (is_text(op, op_len, ">="))
		return order >= 0;
	if (is_text(op, op_len, "<="))
		return order <= 0;
	if (is_text(op, op_len, ">"))
		return order > 0;
	if (is_text(op, op_len, "<"))
		return order < 0;
	/* "~=3.8": the last part given may grow, those before it may not. */
	return order >= 0 &&
	       compare_parts(candidate, version->parts, version->count - 1) == 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

/* One "OP VERSION": what it leaves of the candidates [minor][patch]. */
static int apply(const char *text, size_t len, bool (*left)[PATCHES])
{
	static const char *const ops[] = {
		"===", "==", "!=", ">=", "<=", "~=", ">", "<"
	};
	struct version version;
	const char *op = NULL;
	size_t op_len = 0;

	while (len > 0 && is_space(*text))
		text++, len--;
	while (len > 0 && is_space(text[len - 1]))
		len--;
	if (len == 0)
		return 0;
	for (size_t i = 0; !op && i < sizeof(ops) / sizeof(ops[0]); i++) {
		op_len = strlen(ops[i]);
		if (len > op_len && memcmp(text, ops[i], op_len) == 0)
			op = text;
	}
	if (!op)
		return -EBADMSG;
	text += op_len;
	len -= op_len;
	while (len > 0 && is_space(*text))
		text++, len--;
	if (!parse_version(text, len, &version) ||
	    (version.wildcard && op[0] != '=' && op[0] != '!') ||
	    (op[0] == '~' && version.count < 2))
		return -EBADMSG;
	for (int minor = 0; minor < MINORS; minor++)
		for (int patch = 0; patch < PATCHES; patch++) {
			const int candidate[3] = { 3, minor, patch };

			left[minor][patch] &= satisfies(candidate, op, op_len, &version);
		}
	return 0;
}

/* "CPython>=3.9,<3.12" */
static int evaluate(const char *text, size_t len, bool (*left)[PATCHES])
{
	const char *end = text + len;

	memset(left, true, MINORS * sizeof(*left));
	/* "CPython", "CPython-t" in front: PyPy, or free-threaded, is another interpreter. */
	if (len >= 7 && memcmp(text, "CPython", 7) == 0) {
		text += 7;
		if (end - text >= 2 && memcmp(text, "-t", 2) == 0)
			text += 2;
		else if (text < end && *text == '[')
			return -EBADMSG;
	}
	while (text <= end) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		const char *stop = comma ? comma : end;
		int r = apply(text, (size_t)(stop - text), left);

		if (r < 0)
			return r;
		text = stop + 1;
	}
	return 0;
}

int thaw_python_constraint(const char *text, size_t len, uint64_t *ret_minors)
{
	bool left[MINORS][PATCHES];
	uint64_t minors = 0;
	int r = evaluate(text, len, left);

	if (r < 0)
		return r;
	for (int minor = 0; minor < MINORS; minor++)
		if (memchr(left[minor], true, PATCHES))
			minors |= (uint64_t)1 << minor;
	*ret_minors = minors;
	return 0;
}

bool thaw_python_allowed(const char *constraints, const char *version)
{
	bool left[MINORS][PATCHES], any[PATCHES] = { false };
	unsigned major, minor, patch;
	int given = sscanf(version, "%1u.%3u.%3u", &major, &minor, &patch);

	if (!constraints)
		return true;
	if (given < 2 || major != 3 || minor >= MINORS || (given > 2 && patch >= PATCHES))
		return false;
	for (const char *text = constraints; text;) {
		const char *next = strstr(text, " or ");

		if (evaluate(text, next ? (size_t)(next - text) : strlen(text), left) ==
		    0)
			for (int i = 0; i < PATCHES; i++)
				any[i] |= left[minor][i];
		text = next ? next + strlen(" or ") : NULL;
	}
	return given > 2 ? any[patch] : !memchr(any, false, PATCHES);
}
