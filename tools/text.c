/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people and for programs: names that may hold any bytes, sizes, times,
 * JSON. The locale is "C" (see main.c), so UTF-8 is decoded here.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tool.h"
#include "util/cleanup.h"

/* Length of the character at text and the character, or 0 when it is no UTF-8. */
static size_t decode_utf8(const unsigned char *text, size_t len, uint32_t *ret_point)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t point;
	size_t n;

	if (text[0] < 0x80) {
		*ret_point = text[0];
		return 1;
	}
	if (text[0] >= 0xc2 && text[0] < 0xe0)
		n = 2;
	else if (text[0] >= 0xe0 && text[0] < 0xf0)
		n = 3;
	else if (text[0] >= 0xf0 && text[0] < 0xf5)
		n = 4;
	else
		return 0;
	if (n > len)
		return 0;
	point = text[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (text[i] & 0x3f);
	}
	if (point < least[n] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
		return 0;
	*ret_point = point;
	return n;
}

/* Would it steer a terminal, or hide what the line says? */
static bool unprintable(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0xad ||
	       (point >= 0x200b && point <= 0x200f) ||
	       (point >= 0x2028 && point <= 0x202e) ||
	       (point >= 0x2060 && point <= 0x206f) || point == 0xfeff ||
	       (point >= 0xe0000 && point <= 0xe0fff);
}

/* Columns on a terminal; roughly Unicode's East Asian Width. */
static size_t width_of(uint32_t point)
{
	if (point >= 0x300 && point < 0x370)
		return 0;
	if ((point >= 0x1100 && point < 0x1160) || (point >= 0x2e80 && point < 0xa4d0) ||
	    (point >= 0xac00 && point < 0xd7a4) || (point >= 0xf900 && point < 0xfb00) ||
	    (point >= 0xfe30 && point < 0xfe70) || (point >= 0xff00 && point < 0xff61) ||
	    (point >= 0xffe0 && point < 0xffe7) ||
	    (point >= 0x1f300 && point < 0x1fb00) ||
	    (point >= 0x20000 && point < 0x3fffe))
		return 2;
	return 1;
}

/* Writes to file unless it is NULL; returns the columns taken. */
static size_t escape(FILE *file, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + len;
	size_t width = 0;

	while (p < end) {
		uint32_t point = 0;
		size_t n = decode_utf8(p, (size_t)(end - p), &point);

		if (n == 0 || unprintable(point)) {
			for (size_t i = 0; i < (n ? n : 1); i++) {
				if (file)
					fprintf(file, "\\x%02x", p[i]);
				width += 4;
			}
			p += n ? n : 1;
			continue;
		}
		if (file)
			(void)fwrite(p, 1, n, file); /* ferror() is asked at the end */
		width += width_of(point);
		p += n;
	}
	return width;
}

void tool_print_escaped(FILE *file, const char *text, size_t len)
{
	(void)escape(file, text, len); /* the width is of no interest */
}

size_t tool_escaped_width(const char *text, size_t len)
{
	return escape(NULL, text, len);
}

const char *tool_size_text(uint64_t size, char buf[TOOL_SIZE_TEXT])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)size;
	unsigned unit = 0;

	if (size < 1024) {
		(void)snprintf(buf, TOOL_SIZE_TEXT, "%u bytes", (unsigned)size);
		return buf;
	}
	for (value /= 1024;
	     value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024;
	(void)snprintf(buf, TOOL_SIZE_TEXT, "%.1f %s", value, units[unit]); /* fits */
	return buf;
}

const char *tool_time_text(uint32_t seconds, char buf[TOOL_TIME_TEXT])
{
	time_t when = (time_t)seconds;
	struct tm parts;

	if (!gmtime_r(&when, &parts) ||
	    strftime(buf, TOOL_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
		buf[0] = '\0';
	return buf;
}

char tool_type_letter(enum thaw_inode_type type)
{
	return type == THAW_DIRECTORY ? 'd' : type == THAW_SYMLINK ? 'l' : '-';
}

const char *tool_type_name(enum thaw_inode_type type)
{
	return type == THAW_DIRECTORY ? "directory"
	       : type == THAW_SYMLINK ? "symlink"
				      : "file";
}

/* Out of memory while building JSON: the value is missing, and printing fails. */
void tool_json_name(json_t *object, const char *key, const char *text, size_t len)
{
	static const char replacement[] = "\xef\xbf\xbd";
	const unsigned char *p = (const unsigned char *)text;
	_cleanup_(freep) char *utf8 = malloc(3 * len + 1);
	_cleanup_(freep) char *hex = malloc(2 * len + 1);
	bool exact = true;
	size_t used = 0;
	char name[64];

	if (!utf8 || !hex)
		return;
	for (size_t i = 0; i < len;) {
		uint32_t point;
		size_t n = decode_utf8(p + i, len - i, &point);

		if (n) {
			memcpy(utf8 + used, p + i, n);
			used += n;
			i += n;
		} else {
			memcpy(utf8 + used, replacement, 3);
			used += 3;
			i++;
			exact = false;
		}
	}
	utf8[used] = '\0';
	(void)json_object_set_new(object, key, json_stringn(utf8, used));
	if (exact)
		return;
	for (size_t i = 0; i < len; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", p[i]);
	(void)snprintf(name, sizeof(name), "%s_hex", key);
	(void)json_object_set_new(object, name, json_stringn(hex, 2 * len));
}

void tool_json_digest(json_t *object, const char *key,
		      const uint8_t digest[THAW_DIGEST_SIZE])
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(digest, hex);
	(void)json_object_set_new(object, key, json_string(hex));
}

int tool_json_print(json_t *value)
{
	int r = value ? json_dumpf(value, stdout, JSON_INDENT(2)) : -1;

	json_decref(value);
	/* A failed write is found by main(), with its cause. */
	if (r < 0 && !ferror(stdout))
		return tool_fail_text(THAW_EXIT_IO, NULL, "no memory");
	fputc('\n', stdout);
	return THAW_EXIT_OK;
}
