/* SPDX-License-Identifier: Apache-2.0 */
/* What wheels say in text: RECORD (a CSV), entry_points.txt (an INI), headers. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"
#include "util/growing.h"
#include "wheel.h"

#define ROWS_MAX    (4u << 20)
#define SCRIPTS_MAX 65536u

/* -- RECORD -- */

/*
 * One field of a CSV, unquoted in place; *at moves behind what ends it, which is
 * returned: ',', '\n', or '\0' at the text's end. -1: a stray quote.
 */
static int next_field(char **at, char **ret_field)
{
	char *from = *at, *to = from;
	int end;

	*ret_field = to;
	if (*from == '"') {
		for (from++; *from != '\0'; from++) {
			if (*from == '"' && from[1] != '"')
				break;
			from += *from == '"';
			*to++ = *from;
		}
		if (*from != '"')
			return -1;
		from++;
	} else {
		while (*from != ',' && *from != '\n' && *from != '\r' && *from != '\0')
			*to++ = *from++;
	}
	if (*from == '\r' && (from[1] == '\n' || from[1] == '\0'))
		from++;
	end = *from;
	if (end != ',' && end != '\n' && end != '\0')
		return -1;
	*at = from + (end != '\0');
	*to = '\0';
	return end;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* 43 characters of URL-safe base64, without padding or with it. */
static bool parse_sha256(const char *text, uint8_t *sum)
{
	size_t len = strlen(text), n = 0;
	uint32_t bits = 0;
	unsigned have = 0;

	if (len == 44 && text[43] == '=')
		len--;
	if (len != 43)
		return false;
	for (size_t i = 0; i < len; i++) {
		int value = base64_value(text[i]);

		if (value < 0)
			return false;
		bits = bits << 6 | (uint32_t)value;
		have += 6;
		if (have >= 8) {
			have -= 8;
			sum[n++] = (uint8_t)(bits >> have);
		}
	}
	return (bits & 3) == 0;
}

static bool parse_size(const char *text, uint64_t *ret_size)
{
	size_t len = strspn(text, "0123456789");

	if (len == 0 || len > 18 || text[len] != '\0')
		return false;
	*ret_size = strtoull(text, NULL, 10);
	return true;
}

/* Digests other than SHA-256, which hardly any wheel has, prove nothing here. */
static bool parse_proof(const char *hash, const char *size, struct thaw_gather_proof *ret)
{
	*ret = (struct thaw_gather_proof){ 0 };
	if (strncmp(hash, "sha256=", 7) == 0) {
		ret->has_sha256 = true;
		if (!parse_sha256(hash + 7, ret->sha256))
			return false;
	}
	ret->has_size = *size != '\0';
	return !ret->has_size || parse_size(size, &ret->size);
}

static int by_path(const void *a, const void *b)
{
	const struct thaw_record_row *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static bool same_proof(const struct thaw_gather_proof *a,
		       const struct thaw_gather_proof *b)
{
	return a->has_size == b->has_size && a->size == b->size &&
	       a->has_sha256 == b->has_sha256 &&
	       memcmp(a->sha256, b->sha256, sizeof(a->sha256)) == 0;
}

static int parse_rows(struct thaw_record *record, struct thaw_error *err)
{
	char *at = record->text;

	while (*at != '\0') {
		const char *fields[3] = { "", "", "" };
		char *field;
		struct thaw_record_row *row;
		unsigned count = 0;
		int end;

		do {
			end = next_field(&at, &field);
			if (end < 0)
				return thaw_damaged(
					err,
					"RECORD is no table of comma-separated values");
			if (count < 3)
				fields[count] = field;
			count++;
		} while (end == ',');
		if (count == 1 && fields[0][0] == '\0')
			continue; /* an empty line */
		if (count != 3 || fields[0][0] == '\0')
			return thaw_damaged(err, "RECORD has a row of %u fields", count);
		if (record->count >= ROWS_MAX)
			return thaw_limit(err, "RECORD has more than %u rows", ROWS_MAX);
		if (grow(&record->rows, &record->capacity, record->count + 1,
			 sizeof(*record->rows)) < 0)
			return thaw_oom(err);
		row = &record->rows[record->count++];
		row->path = fields[0];
		if (!parse_proof(fields[1], fields[2], &row->proof))
			return thaw_damaged(err,
					    "RECORD: bad digest or size of \"%.200s\"",
					    row->path);
	}
	return 0;
}

int thaw_record_parse(char *text, size_t len, struct thaw_error *err,
		      struct thaw_record *ret)
{
	struct thaw_record record = { .text = text };
	int r = 0;

	if (memchr(text, '\0', len))
		r = thaw_damaged(err, "RECORD has a NUL in it");
	if (r == 0)
		r = parse_rows(&record, err);
	if (r == 0 && record.count > 0)
		qsort(record.rows, record.count, sizeof(*record.rows), by_path);
	for (size_t i = 1; r == 0 && i < record.count; i++)
		if (strcmp(record.rows[i - 1].path, record.rows[i].path) == 0 &&
		    !same_proof(&record.rows[i - 1].proof, &record.rows[i].proof))
			r = thaw_damaged(err, "RECORD says two things of \"%.200s\"",
					 record.rows[i].path);
	if (r < 0)
		thaw_record_deinit(&record);
	else
		*ret = record;
	return r;
}

const struct thaw_record_row *thaw_record_find(const struct thaw_record *record,
					       const char *path)
{
	const struct thaw_record_row key = { .path = path };

	if (record->count == 0)
		return NULL;
	return bsearch(&key, record->rows, record->count, sizeof(key), by_path);
}

void thaw_record_deinit(struct thaw_record *record)
{
	free(record->rows);
	free(record->text);
	*record = (struct thaw_record){ 0 };
}

/* -- lines -- */

struct line {
	const char *text;
	size_t len;
};

static void trim(struct line *line)
{
	while (line->len > 0 && isspace((unsigned char)line->text[0]))
		line->text++, line->len--;
	while (line->len > 0 && isspace((unsigned char)line->text[line->len - 1]))
		line->len--;
}

/* The next line, without its end; false behind the last. */
static bool next_line(const char **at, const char *end, struct line *ret)
{
	const char *newline;

	if (*at >= end)
		return false;
	newline = memchr(*at, '\n', (size_t)(end - *at));
	ret->text = *at;
	ret->len = (size_t)((newline ? newline : end) - *at);
	*at = newline ? newline + 1 : end;
	return true;
}

/* -- entry points -- */

bool thaw_is_dotted_name(const char *text)
{
	bool start = true;

	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '.') {
			if (start)
				return false;
			start = true;
			continue;
		}
		/* Identifiers may be of any script: bytes of UTF-8 are let through. */
		if (!(isalpha(c) || c == '_' || c >= 0x80 || (!start && isdigit(c))))
			return false;
		start = false;
	}
	return !start;
}

int thaw_entry_point_split(const char *text, char **ret_module, char **ret_object)
{
	const char *colon = strchr(text, ':');
	struct line module = { text, colon ? (size_t)(colon - text) : strlen(text) };
	struct line object = { colon ? colon + 1 : "", colon ? strlen(colon + 1) : 0 };
	const char *extras = memchr(object.text, '[', object.len);
	_cleanup_(freep) char *first = NULL;
	_cleanup_(freep) char *second = NULL;

	if (extras) /* "module:function [extra]" */
		object.len = (size_t)(extras - object.text);
	trim(&module);
	trim(&object);
	first = strndup(module.text, module.len);
	second = colon ? strndup(object.text, object.len) : NULL;
	if (!first || (colon && !second))
		return -ENOMEM;
	if (!thaw_is_dotted_name(first) || (second && !thaw_is_dotted_name(second)))
		return -EBADMSG;
	*ret_module = steal_ptr(first);
	*ret_object = steal_ptr(second);
	return 0;
}

/* A name that can stand in bin, and in a message. */
static bool is_script_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) > 255 || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return false;
	for (; *name != '\0'; name++)
		if (*name == '/' || (unsigned char)*name < ' ' || *name == 0x7f)
			return false;
	return true;
}

static int add_script(struct thaw_scripts *scripts, const struct line *line,
		      struct thaw_error *err)
{
	const char *equals = memchr(line->text, '=', line->len);
	struct line name = { line->text, equals ? (size_t)(equals - line->text) : 0 };
	_cleanup_(freep) char *value = NULL;
	struct thaw_script *script;
	int r;

	if (!equals)
		return thaw_damaged(err, "entry_points.txt: \"%.*s\"", (int)line->len,
				    line->text);
	if (scripts->count >= SCRIPTS_MAX)
		return thaw_limit(err, "entry_points.txt: more than %u scripts",
				  SCRIPTS_MAX);
	if (grow(&scripts->scripts, &scripts->capacity, scripts->count + 1,
		 sizeof(*scripts->scripts)) < 0)
		return thaw_oom(err);
	script = &scripts->scripts[scripts->count];
	*script = (struct thaw_script){ 0 };
	trim(&name);
	value = strndup(equals + 1, line->len - (size_t)(equals + 1 - line->text));
	script->name = strndup(name.text, name.len);
	scripts->count++;
	if (!value || !script->name)
		return thaw_oom(err);
	if (!is_script_name(script->name))
		return thaw_refused(
			err, "entry_points.txt: \"%.200s\" cannot be a script's name",
			script->name);
	r = thaw_entry_point_split(value, &script->module, &script->object);
	if (r == -ENOMEM)
		return thaw_oom(err);
	if (r < 0 || !script->object)
		return thaw_damaged(
			err, "entry_points.txt: \"%.200s\" does not name a function",
			script->name);
	return 0;
}

int thaw_scripts_parse(const char *text, size_t len, struct thaw_error *err,
		       struct thaw_scripts *ret_scripts)
{
	struct thaw_scripts scripts = { 0 };
	const char *end = text + len;
	bool wanted = false;
	struct line line;
	int r = 0;

	if (memchr(text, '\0', len))
		return thaw_damaged(err, "entry_points.txt has a NUL in it");
	while (r == 0 && next_line(&text, end, &line)) {
		trim(&line);
		if (line.len == 0 || line.text[0] == '#' || line.text[0] == ';')
			continue;
		if (line.text[0] == '[') {
			wanted = (line.len == 17 &&
				  memcmp(line.text, "[console_scripts]", 17) == 0) ||
				 (line.len == 13 &&
				  memcmp(line.text, "[gui_scripts]", 13) == 0);
			continue;
		}
		if (wanted)
			r = add_script(&scripts, &line, err);
	}
	if (r < 0)
		thaw_scripts_deinit(&scripts);
	else
		*ret_scripts = scripts;
	return r;
}

void thaw_scripts_deinit(struct thaw_scripts *scripts)
{
	for (size_t i = 0; i < scripts->count; i++) {
		free(scripts->scripts[i].name);
		free(scripts->scripts[i].module);
		free(scripts->scripts[i].object);
	}
	free(scripts->scripts);
	*scripts = (struct thaw_scripts){ 0 };
}

/* -- headers -- */

const char *thaw_metadata_find(const char *text, size_t len, const char *header,
			       size_t *ret_len)
{
	const char *end = text + len;
	size_t name_len = strlen(header);
	struct line line;

	/* An empty line ends the headers; a description follows. */
	while (next_line(&text, end, &line) && line.len > 0 && line.text[0] != '\r') {
		if (line.len <= name_len || line.text[name_len] != ':' ||
		    strncasecmp(line.text, header, name_len) != 0)
			continue;
		line.text += name_len + 1;
		line.len -= name_len + 1;
		trim(&line);
		*ret_len = line.len;
		return line.text;
	}
	return NULL;
}
