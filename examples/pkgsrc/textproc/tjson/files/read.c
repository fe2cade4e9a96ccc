#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "tjson.h"

#define DEEPEST	200

struct reader {
	const char	*start;
	const char	*at;
	int		 depth;
	struct str	*error;
};

static struct tjson *read_value(struct reader *);

static struct tjson *
new_value(enum tjson_kind kind)
{
	struct tjson *value = calloc(1, sizeof(*value));

	if (value == NULL)
		abort();
	value->kind = kind;
	list_init(&value->items);
	return value;
}

void
tjson_free(struct tjson *value)
{
	size_t i;

	if (value == NULL)
		return;
	for (i = 0; i < value->items.count; i++)
		tjson_free(value->items.items[i]);
	list_free(&value->items);
	free(value->name);
	free(value->text);
	free(value);
}

static void *
fail(struct reader *r, const char *what)
{
	const char *p;
	int line = 1, column = 1;

	for (p = r->start; p < r->at; p++) {
		column++;
		if (*p == '\n') {
			line++;
			column = 1;
		}
	}
	if (r->error->length == 0)
		str_printf(r->error, "line %d, column %d: %s", line, column, what);
	return NULL;
}

static void
skip_blanks(struct reader *r)
{
	while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')
		r->at++;
}

/* Appends a character of the Basic Multilingual Plane as UTF-8. */
static void
add_utf8(struct str *s, unsigned c)
{
	if (c < 0x80) {
		str_byte(s, (int)c);
	} else if (c < 0x800) {
		str_byte(s, (int)(0xc0 | c >> 6));
		str_byte(s, (int)(0x80 | (c & 0x3f)));
	} else {
		str_byte(s, (int)(0xe0 | c >> 12));
		str_byte(s, (int)(0x80 | (c >> 6 & 0x3f)));
		str_byte(s, (int)(0x80 | (c & 0x3f)));
	}
}

static int
read_escape(struct reader *r, struct str *s)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *found;
	char digits[5] = "";
	int i;

	if (*r->at == 'u') {
		for (i = 0; i < 4; i++) {
			digits[i] = r->at[i + 1];
			if (!isxdigit((unsigned char)digits[i]))
				return 0;
		}
		add_utf8(s, (unsigned)strtoul(digits, NULL, 16));
		r->at += 5;
		return 1;
	}
	if (*r->at == '\0' || (found = strchr(from, *r->at)) == NULL)
		return 0;
	str_byte(s, to[found - from]);
	r->at++;
	return 1;
}

static char *
read_string(struct reader *r)
{
	struct str s;

	if (*r->at != '"')
		return fail(r, "a string was expected");
	r->at++;
	str_init(&s);
	while (*r->at != '"') {
		if ((unsigned char)*r->at < ' ') {
			str_free(&s);
			return fail(r, "unfinished string");
		}
		if (*r->at != '\\') {
			str_byte(&s, *r->at++);
			continue;
		}
		r->at++;
		if (!read_escape(r, &s)) {
			str_free(&s);
			return fail(r, "unknown escape");
		}
	}
	r->at++;
	return s.text;
}

static struct tjson *
read_number(struct reader *r)
{
	const char *start = r->at;
	struct tjson *value;
	char *end;

	(void)strtod(start, &end);
	if (end == start || !(isdigit((unsigned char)*start) || *start == '-'))
		return fail(r, "a value was expected");
	r->at = end;
	value = new_value(TJSON_NUMBER);
	value->text = copy_text(start, (size_t)(end - start));
	return value;
}

/* A list or object, with its bracket still to come. */
static struct tjson *
read_items(struct reader *r, enum tjson_kind kind, char closing)
{
	struct tjson *value = new_value(kind), *item;
	char *name = NULL;

	r->at++;
	skip_blanks(r);
	if (*r->at == closing) {
		r->at++;
		return value;
	}
	for (;;) {
		skip_blanks(r);
		if (kind == TJSON_OBJECT) {
			if ((name = read_string(r)) == NULL)
				break;
			skip_blanks(r);
			if (*r->at++ != ':') {
				r->at--;
				free(name);
				fail(r, "a colon was expected");
				break;
			}
		}
		if ((item = read_value(r)) == NULL) {
			free(name);
			break;
		}
		item->name = name;
		list_add(&value->items, item);
		skip_blanks(r);
		if (*r->at == closing) {
			r->at++;
			return value;
		}
		if (*r->at != ',') {
			fail(r, "a comma or the closing bracket was expected");
			break;
		}
		r->at++;
	}
	tjson_free(value);
	return NULL;
}

static int
skip_word(struct reader *r, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(r->at, word, length) != 0)
		return 0;
	r->at += length;
	return 1;
}

static struct tjson *
read_value(struct reader *r)
{
	struct tjson *value;
	char *text;

	if (r->depth >= DEEPEST)
		return fail(r, "nested too deeply");
	r->depth++;
	skip_blanks(r);
	if (*r->at == '{') {
		value = read_items(r, TJSON_OBJECT, '}');
	} else if (*r->at == '[') {
		value = read_items(r, TJSON_LIST, ']');
	} else if (*r->at == '"') {
		value = NULL;
		if ((text = read_string(r)) != NULL) {
			value = new_value(TJSON_STRING);
			value->text = text;
		}
	} else if (skip_word(r, "null")) {
		value = new_value(TJSON_NULL);
	} else if (skip_word(r, "true")) {
		value = new_value(TJSON_TRUE);
	} else if (skip_word(r, "false")) {
		value = new_value(TJSON_FALSE);
	} else {
		value = read_number(r);
	}
	r->depth--;
	return value;
}

struct tjson *
tjson_read(const char *text, struct str *error)
{
	struct reader r = { text, text, 0, error };
	struct tjson *value = read_value(&r);

	skip_blanks(&r);
	if (value != NULL && *r.at != '\0') {
		tjson_free(value);
		return fail(&r, "the end was expected");
	}
	return value;
}

struct tjson *
tjson_find(struct tjson *value, const char *path)
{
	struct tjson *item, *found;
	size_t i, length;

	while (value != NULL && *path != '\0') {
		length = strcspn(path, ".");
		found = NULL;
		for (i = 0; i < value->items.count && found == NULL; i++) {
			item = value->items.items[i];
			if (item->name == NULL ? i == strtoul(path, NULL, 10) :
			    strlen(item->name) == length && strncmp(item->name, path, length) == 0)
				found = item;
		}
		value = found;
		path += length;
		if (*path == '.')
			path++;
	}
	return value;
}
