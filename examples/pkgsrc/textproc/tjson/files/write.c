#include <string.h>

#include "tjson.h"

static void
write_string(const char *text, struct str *out)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *found;

	str_byte(out, '"');
	for (; *text != '\0'; text++) {
		if ((found = strchr(from, *text)) != NULL) {
			str_byte(out, '\\');
			str_byte(out, to[found - from]);
		} else if ((unsigned char)*text < ' ') {
			str_printf(out, "\\u%04x", (unsigned)(unsigned char)*text);
		} else {
			str_byte(out, *text);
		}
	}
	str_byte(out, '"');
}

static void
write_value(const struct tjson *value, struct str *out, int depth)
{
	static const char *const words[] = { "null", "false", "true" };
	const struct tjson *item;
	int is_object = value->kind == TJSON_OBJECT;
	size_t i;

	switch (value->kind) {
	case TJSON_NULL:
	case TJSON_FALSE:
	case TJSON_TRUE:
		str_add(out, words[value->kind]);
		return;
	case TJSON_NUMBER:
		str_add(out, value->text);
		return;
	case TJSON_STRING:
		write_string(value->text, out);
		return;
	default:
		break;
	}
	str_byte(out, is_object ? '{' : '[');
	for (i = 0; i < value->items.count; i++) {
		item = value->items.items[i];
		str_printf(out, "%s\n%*s", i > 0 ? "," : "", 2 * (depth + 1), "");
		if (is_object) {
			write_string(item->name, out);
			str_add(out, ": ");
		}
		write_value(item, out, depth + 1);
	}
	if (value->items.count > 0)
		str_printf(out, "\n%*s", 2 * depth, "");
	str_byte(out, is_object ? '}' : ']');
}

void
tjson_write(const struct tjson *value, struct str *out)
{
	write_value(value, out, 0);
}
