#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vec.h"

void
list_init(struct list *list)
{
	list->items = NULL;
	list->count = list->room = 0;
}

void
list_free(struct list *list)
{
	free(list->items);
	list_init(list);
}

void
list_add(struct list *list, void *item)
{
	if (list->count == list->room) {
		list->room = list->room == 0 ? 8 : 2 * list->room;
		list->items = realloc(list->items, list->room * sizeof(*list->items));
		if (list->items == NULL) {
			perror("libvec");
			exit(71);
		}
	}
	list->items[list->count++] = item;
}

void
list_sort(struct list *list, int (*order)(const void *, const void *))
{
	if (list->count > 1)
		qsort(list->items, list->count, sizeof(*list->items), order);
}

int
list_by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}
