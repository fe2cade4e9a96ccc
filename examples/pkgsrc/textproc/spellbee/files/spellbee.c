/* Names the words on standard input that are not in the list of words. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include <vec.h>

#define WORDS	"/usr/share/dict/words"

static int
find(const struct list *words, char *word)
{
	return bsearch(&word, words->items, words->count, sizeof(*words->items), list_by_text) !=
	    NULL;
}

/* Adds the words of a stream to a list, in lower case. */
static void
read_words(FILE *in, struct list *words)
{
	struct str word;
	int c;

	str_init(&word);
	do {
		c = getc(in);
		if (c != EOF && isalpha(c)) {
			str_byte(&word, tolower(c));
		} else if (word.length > 0) {
			list_add(words, copy_text(word.text, word.length));
			str_clear(&word);
		}
	} while (c != EOF);
	str_free(&word);
}

int
main(void)
{
	struct list known, seen;
	size_t i, unknown = 0;
	FILE *in;

	if ((in = fopen(WORDS, "r")) == NULL) {
		perror(WORDS);
		return 66;
	}
	list_init(&known);
	list_init(&seen);
	read_words(in, &known);
	fclose(in);
	list_sort(&known, list_by_text);
	read_words(stdin, &seen);
	list_sort(&seen, list_by_text);
	for (i = 0; i < seen.count; i++) {
		if (i > 0 && list_by_text(&seen.items[i], &seen.items[i - 1]) == 0)
			continue;
		if (!find(&known, seen.items[i])) {
			puts(seen.items[i]);
			unknown++;
		}
	}
	return unknown > 0;
}
