/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record list of bin/conda-unpack:
 *
 *	_prefix_records = [
 *	('bin/pip', '/home/me/env', 'text'),
 *	...
 *	]
 *
 * conda-pack writes each element with repr(). So this is no Python parser: it
 * knows tuples of three string literals with the escapes of repr(), and refuses
 * whatever else stands there. The script may come from anybody; nothing in it is
 * executed.
 */
#include <errno.h>
#include <string.h>

#include "conda.h"

#define LIST_NAME "_prefix_records"

struct parser {
	const char *text;
	size_t size, at;
	struct thaw_error *err;
	/* The strings of the current record. */
	char path[THAW_PATH_MAX + 1];
	char placeholder[THAW_PATH_MAX + 1];
	char mode[16];
};

static int refuse(const struct parser *parser, const char *what)
{
	unsigned long line = 1;

	for (size_t i = 0; i < parser->at && i < parser->size; i++)
		line += parser->text[i] == '\n';
	return thaw_refused(parser->err, "bin/conda-unpack: line %lu: %s", line, what);
}

static char peek(const struct parser *parser)
{
	return parser->at < parser->size ? parser->text[parser->at] : '\0';
}

static void skip_blanks(struct parser *parser, const char *blanks)
{
	while (parser->at < parser->size && parser->text[parser->at] != '\0' &&
	       strchr(blanks, parser->text[parser->at]))
		parser->at++;
}

#define WHITE " \t\r\n"

static int expect(struct parser *parser, char c, const char *what)
{
	skip_blanks(parser, WHITE);
	if (peek(parser) != c)
		return refuse(parser, what);
	parser->at++;
	return 0;
}

/* -- string literals -- */

static int hex_digits(struct parser *parser, unsigned count, uint32_t *ret_value)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < count; i++) {
		char c = peek(parser);

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint32_t)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			value = value << 4 | (uint32_t)(c - 'A' + 10);
		else
			return refuse(parser, "an escape that repr() does not write");
		parser->at++;
	}
	*ret_value = value;
	return 0;
}

/*
 * UTF-8; and as Python keeps bytes of names that are none (surrogateescape),
 * those bytes. 0 when there is no such character.
 */
static size_t encode(uint32_t c, char out[4])
{
	if (c >= 0xDC80 && c <= 0xDCFF) {
		out[0] = (char)(c - 0xDC00);
		return 1;
	}
	if (c == 0 || (c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF)
		return 0;
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xC0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3F));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xE0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3F));
		out[2] = (char)(0x80 | (c & 0x3F));
		return 3;
	}
	out[0] = (char)(0xF0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3F));
	out[2] = (char)(0x80 | (c >> 6 & 0x3F));
	out[3] = (char)(0x80 | (c & 0x3F));
	return 4;
}

/* Behind the backslash. */
static int escape(struct parser *parser, char out[4], size_t *ret_len)
{
	char c = peek(parser);
	uint32_t value = 0; /* some compilers cannot see that it is set */
	int r = 0;

	parser->at++;
	switch (c) {
	case '\\':
	case '\'':
	case '"':
		value = (uint8_t)c;
		break;
	case 'n':
		value = '\n';
		break;
	case 'r':
		value = '\r';
		break;
	case 't':
		value = '\t';
		break;
	case 'x':
		r = hex_digits(parser, 2, &value);
		break;
	case 'u':
		r = hex_digits(parser, 4, &value);
		break;
	case 'U':
		r = hex_digits(parser, 8, &value);
		break;
	default:
		return refuse(parser, "an escape that repr() does not write");
	}
	if (r < 0)
		return r;
	*ret_len = encode(value, out);
	return *ret_len ? 0 : refuse(parser, "an impossible character");
}

static int string(struct parser *parser, char *buf, size_t size, size_t *ret_len)
{
	size_t len = 0;
	char quote;

	skip_blanks(parser, WHITE);
	if (peek(parser) == 'u') /* conda-pack on Python 2 */
		parser->at++;
	quote = peek(parser);
	if (quote != '\'' && quote != '"')
		return refuse(parser, "something that is no string literal");
	parser->at++;
	while (peek(parser) != quote) {
		char c = peek(parser), out[4] = { c };
		size_t n = 1;

		if (c == '\0' || c == '\n' || c == '\r')
			return refuse(parser, "a string without an end");
		parser->at++;
		if (c == '\\') {
			int r = escape(parser, out, &n);

			if (r < 0)
				return r;
		}
		if (n > size - len)
			return refuse(parser, "a string that is too long");
		memcpy(buf + len, out, n);
		len += n;
	}
	parser->at++;
	*ret_len = len;
	return 0;
}

/* -- records -- */

static bool path_possible(const char *path, size_t len)
{
	const char *end = path + len, *slash;

	for (const char *name = path;; name = slash + 1) {
		size_t n;

		slash = memchr(name, '/', (size_t)(end - name));
		n = (size_t)((slash ? slash : end) - name);
		if (n == 0 || (n == 1 && name[0] == '.') ||
		    (n == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		if (!slash)
			return true;
	}
}

/* One tuple; its parenthesis is the next character. */
static int record(struct parser *parser, struct thaw_conda_record *ret_record)
{
	size_t mode_len = 0;
	int r;

	*ret_record = (struct thaw_conda_record){
		.path = parser->path,
		.placeholder = parser->placeholder,
	};
	parser->at++;
	r = string(parser, parser->path, THAW_PATH_MAX, &ret_record->path_len);
	if (r == 0 && !path_possible(parser->path, ret_record->path_len))
		r = refuse(parser, "a path that does not stay inside, or is none");
	if (r == 0)
		r = expect(parser, ',', "a record that is no tuple of three strings");
	if (r == 0)
		r = string(parser, parser->placeholder, THAW_PATH_MAX,
			   &ret_record->placeholder_len);
	if (r == 0 && ret_record->placeholder_len < THAW_PLACEHOLDER_MIN)
		r = refuse(parser, "a placeholder of less than two bytes");
	if (r == 0)
		r = expect(parser, ',', "a record that is no tuple of three strings");
	if (r == 0)
		r = string(parser, parser->mode, sizeof(parser->mode), &mode_len);
	if (r < 0)
		return r;
	ret_record->binary = mode_len == 6 && memcmp(parser->mode, "binary", 6) == 0;
	if (!ret_record->binary &&
	    !(mode_len == 4 && memcmp(parser->mode, "text", 4) == 0))
		return refuse(parser, "a mode that is neither text nor binary");
	return expect(parser, ')', "a record that is no tuple of three strings");
}

/* -- the list -- */

static bool line_assigns(const char *line, const char *end)
{
	size_t len = strlen(LIST_NAME);
	char c;

	if ((size_t)(end - line) < len || memcmp(line, LIST_NAME, len) != 0)
		return false;
	c = (size_t)(end - line) > len ? line[len] : '\n';
	return !(c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
		 (c >= 'A' && c <= 'Z'));
}

/* The next line that begins with the list's name, from the start of a line. */
static const char *find_line(const char *line, const char *end)
{
	while (line < end && !line_assigns(line, end)) {
		line = memchr(line, '\n', (size_t)(end - line));
		if (!line)
			return NULL;
		line++;
	}
	return line < end ? line : NULL;
}

static int list(struct parser *parser, thaw_conda_record_fn *note, void *userdata,
		struct thaw_conda_list *list)
{
	for (;;) {
		struct thaw_conda_record found;
		int r;

		skip_blanks(parser, WHITE);
		if (peek(parser) == ']')
			return 0;
		if (peek(parser) != '(')
			return refuse(parser, "something that is no record");
		if (list->records == THAW_CONDA_RECORDS_MAX)
			return thaw_refused(parser->err,
					    "bin/conda-unpack: more than %u records",
					    THAW_CONDA_RECORDS_MAX);
		r = record(parser, &found);
		if (r == 0 && note)
			r = note(userdata, &found, parser->err);
		if (r < 0)
			return r;
		list->records++;
		skip_blanks(parser, WHITE);
		if (peek(parser) == ',')
			parser->at++;
		else if (peek(parser) != ']')
			return refuse(parser, "something that is no record");
	}
}

int thaw_conda_records(const char *script, size_t size, thaw_conda_record_fn *note,
		       void *userdata, struct thaw_error *err,
		       struct thaw_conda_list *ret_list)
{
	struct parser parser = { .text = script, .size = size, .err = err };
	struct thaw_conda_list found = { 0 };
	const char *end = script + size, *line = find_line(script, end);
	int r;

	if (!line)
		return thaw_refused(err, "bin/conda-unpack: has no " LIST_NAME);
	parser.at = (size_t)(line - script) + strlen(LIST_NAME);
	skip_blanks(&parser, " \t");
	if (peek(&parser) != '=')
		return refuse(&parser, "no list of records");
	parser.at++;
	skip_blanks(&parser, " \t");
	if (peek(&parser) != '[')
		return refuse(&parser, "no list of records");
	found.start = ++parser.at;
	r = list(&parser, note, userdata, &found);
	if (r < 0)
		return r;
	found.end = parser.at++;
	skip_blanks(&parser, " \t\r");
	if (parser.at < size && peek(&parser) != '\n')
		return refuse(&parser, "something behind the list of records");
	if (parser.at < size && find_line(script + parser.at + 1, end))
		return thaw_refused(err, "bin/conda-unpack: has two lists of records");
	*ret_list = found;
	return 0;
}
