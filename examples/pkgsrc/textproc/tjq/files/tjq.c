/* Shows JSON, or the part of it that a path leads to. */

#include <stdio.h>
#include <unistd.h>

#include <tjson.h>
#include <vec.h>

int
main(int argc, char **argv)
{
	struct str input, error, out;
	struct tjson *root, *found;
	int c, count = 0, raw = 0;

	while ((c = getopt(argc, argv, "cr")) != -1) {
		switch (c) {
		case 'c':
			count = 1;
			break;
		case 'r':
			raw = 1;
			break;
		default:
			fprintf(stderr, "usage: tjq [-cr] [path] < file\n");
			return 64;
		}
	}
	str_init(&input);
	str_init(&error);
	str_init(&out);
	while ((c = getchar()) != EOF)
		str_byte(&input, c);
	if ((root = tjson_read(input.text, &error)) == NULL) {
		fprintf(stderr, "tjq: %s\n", error.text);
		return 65;
	}
	if ((found = tjson_find(root, optind < argc ? argv[optind] : "")) == NULL)
		return 1;
	if (count)
		str_printf(&out, "%lu", (unsigned long)found->items.count);
	else if (raw && found->kind == TJSON_STRING)
		str_add(&out, found->text);
	else
		tjson_write(found, &out);
	puts(out.text);
	tjson_free(root);
	return 0;
}
