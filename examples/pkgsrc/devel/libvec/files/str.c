#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vec.h"

static void
reserve(struct str *s, size_t more)
{
	size_t wanted = s->length + more + 1;

	if (wanted <= s->room)
		return;
	s->room = wanted < 32 ? 32 : wanted + wanted / 2;
	s->text = realloc(s->text, s->room);
	if (s->text == NULL) {
		perror("libvec");
		exit(71);
	}
}

void
str_init(struct str *s)
{
	s->text = NULL;
	s->room = 0;
	str_clear(s);
}

void
str_free(struct str *s)
{
	free(s->text);
	s->text = NULL;
	s->length = s->room = 0;
}

void
str_clear(struct str *s)
{
	s->length = 0;
	reserve(s, 0);
	s->text[0] = '\0';
}

void
str_bytes(struct str *s, const char *bytes, size_t length)
{
	reserve(s, length);
	memcpy(s->text + s->length, bytes, length);
	s->length += length;
	s->text[s->length] = '\0';
}

void
str_byte(struct str *s, int byte)
{
	char c = (char)byte;

	str_bytes(s, &c, 1);
}

void
str_add(struct str *s, const char *text)
{
	str_bytes(s, text, strlen(text));
}

void
str_printf(struct str *s, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length < 0)
		return;
	reserve(s, (size_t)length);
	va_start(args, format);
	vsnprintf(s->text + s->length, (size_t)length + 1, format, args);
	va_end(args);
	s->length += (size_t)length;
}

char *
copy_text(const char *text, size_t length)
{
	struct str s;

	str_init(&s);
	str_bytes(&s, text, length);
	return s.text;
}
