/* Reads JSON into a tree of values. */

#ifndef TJSON_H
#define TJSON_H

#include <vec.h>

enum tjson_kind { TJSON_NULL, TJSON_FALSE, TJSON_TRUE, TJSON_NUMBER, TJSON_STRING, TJSON_LIST,
    TJSON_OBJECT };

struct tjson {
	enum tjson_kind	kind;
	char		*name;		/* of a member of an object, else NULL */
	char		*text;		/* of a number or string, else NULL */
	struct list	 items;		/* of a list or object */
};

struct tjson	*tjson_read(const char *text, struct str *error);
struct tjson	*tjson_find(struct tjson *, const char *path);
void		 tjson_write(const struct tjson *, struct str *);
void		 tjson_free(struct tjson *);

#endif
