Let the Makefile say where the list of words is.

--- spellbee.c.orig
+++ spellbee.c
@@ -6,7 +6,9 @@
 
 #include <vec.h>
 
+#ifndef WORDS
 #define WORDS	"/usr/share/dict/words"
+#endif
 
 static int
 find(const struct list *words, char *word)
