/* Growing strings and lists. Memory that cannot be had ends the program. */

#ifndef VEC_H
#define VEC_H

#include <stddef.h>

struct str {
	char	*text;		/* always ends in NUL */
	size_t	 length;
	size_t	 room;
};

struct list {
	void	**items;
	size_t	  count;
	size_t	  room;
};

void	str_init(struct str *);
void	str_free(struct str *);
void	str_clear(struct str *);
void	str_byte(struct str *, int);
void	str_add(struct str *, const char *);
void	str_bytes(struct str *, const char *, size_t);
void	str_printf(struct str *, const char *, ...);

void	list_init(struct list *);
void	list_free(struct list *);		/* the items stay */
void	list_add(struct list *, void *);
void	list_sort(struct list *, int (*)(const void *, const void *));
int	list_by_text(const void *, const void *);	/* for lists of char * */

char	*copy_text(const char *, size_t);

#endif
