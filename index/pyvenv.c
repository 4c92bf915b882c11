/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing pyvenv.cfg. */
#include "pyvenv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/growing.h"

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

/* A copy without space at either end. */
static char *trimmed(const char *text, size_t len)
{
	while (len > 0 && is_space(text[0])) {
		text++;
		len--;
	}
	while (len > 0 && is_space(text[len - 1]))
		len--;
	return strndup(text, len);
}

static struct pyvenv_line *find_line(const struct pyvenv *config, const char *key)
{
	for (size_t i = 0; i < config->count; i++)
		if (strcmp(config->lines[i].key, key) == 0)
			return &config->lines[i];
	return NULL;
}

const char *pyvenv_get(const struct pyvenv *config, const char *key)
{
	const struct pyvenv_line *line = find_line(config, key);

	return line ? line->value : NULL;
}

int pyvenv_set(struct pyvenv *config, const char *key, const char *value)
{
	struct pyvenv_line *line = find_line(config, key);
	_cleanup_(freep) char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return -ENOMEM;
	if (line && value) {
		free(line->value);
		line->value = steal_ptr(copy);
	} else if (line) {
		free(line->key);
		free(line->value);
		config->count--;
		memmove(line, line + 1,
			(size_t)(config->lines + config->count - line) * sizeof(*line));
	} else if (value) {
		_cleanup_(freep) char *name = strdup(key);

		if (!name || grow(&config->lines, &config->capacity, config->count + 1,
				  sizeof(*config->lines)) < 0)
			return -ENOMEM;
		config->lines[config->count++] = (struct pyvenv_line){
			.key = steal_ptr(name),
			.value = steal_ptr(copy),
		};
	}
	return 0;
}

static int parse_line(const char *line, size_t len, struct pyvenv *config)
{
	const char *equals = memchr(line, '=', len);
	_cleanup_(freep) char *key = NULL;
	_cleanup_(freep) char *value = NULL;

	if (!equals)
		return 0;
	key = trimmed(line, (size_t)(equals - line));
	value = trimmed(equals + 1, (size_t)(line + len - equals - 1));
	if (!key || !value)
		return -ENOMEM;
	if (key[0] == '\0' || key[0] == '#')
		return 0;
	for (char *p = key; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
	return pyvenv_set(config, key, value);
}

int pyvenv_parse(const char *text, size_t len, struct pyvenv *ret_config)
{
	struct pyvenv config = { 0 };
	const char *end = text + len;
	int r = 0;

	/* A million different keys would cost a million squared: real files have ten. */
	while (text < end && r == 0 && config.count < 256) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;
		bool plain = stop - text <= (ptrdiff_t)PYVENV_LINE_MAX;

		for (const char *p = text; p < stop; p++)
			plain &= (unsigned char)*p >= 32 ? *p != 127 : is_space(*p);
		if (plain)
			r = parse_line(text, (size_t)(stop - text), &config);
		text = newline ? newline + 1 : end;
	}
	if (r < 0) {
		pyvenv_deinit(&config);
		return r;
	}
	*ret_config = config;
	return 0;
}

void pyvenv_deinit(struct pyvenv *config)
{
	for (size_t i = 0; i < config->count; i++) {
		free(config->lines[i].key);
		free(config->lines[i].value);
	}
	free(config->lines);
	*config = (struct pyvenv){ 0 };
}

char *pyvenv_text(const struct pyvenv *config, size_t *ret_len)
{
	size_t size = 1, at = 0;
	char *text;

	for (size_t i = 0; i < config->count; i++)
		size += strlen(config->lines[i].key) + strlen(config->lines[i].value) + 4;
	text = malloc(size);
	if (!text)
		return NULL;
	for (size_t i = 0; i < config->count; i++) {
		char *end = stpcpy(text + at, config->lines[i].key);

		end = stpcpy(end, " = ");
		end = stpcpy(end, config->lines[i].value);
		*end++ = '\n';
		at = (size_t)(end - text);
	}
	*ret_len = at;
	return text;
}
