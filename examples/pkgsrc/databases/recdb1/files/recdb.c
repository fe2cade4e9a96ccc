/*
 * Records in a file of text: a line "key=value" for each change, the last one for a key counts.
 * In the second format (RECDB_SUMS) a checksum stands before each line.
 */

#include <stdio.h>
#include <string.h>

#ifdef RECDB_SUMS
#include <sum.h>
#define FORMAT	2
#else
#define FORMAT	1
#endif
#define LONGEST	4096

static int
usage(void)
{
	fprintf(stderr, "usage: recdb%d put file key value | get file key | check file\n", FORMAT);
	return 64;
}

static void
format_line(char *out, const char *key, const char *value)
{
#ifdef RECDB_SUMS
	uint32_t sum = sum_crc32(CRC32_START, key, strlen(key));

	sum = sum_crc32(sum, value, strlen(value));
	snprintf(out, LONGEST, "%08lx %s=%s\n", (unsigned long)sum, key, value);
#else
	snprintf(out, LONGEST, "%s=%s\n", key, value);
#endif
}

/* Splits a line into key and value; 0 if it is damaged. */
static int
parse_line(char *line, char **key, char **value)
{
	char copy[LONGEST], whole[LONGEST];

	snprintf(copy, sizeof(copy), "%s", line);
	*key = line + (FORMAT == 2 && strlen(line) > 9 ? 9 : 0);
	*value = strchr(*key, '=');
	if (*value == NULL || strchr(line, '\n') == NULL)
		return 0;
	*(*value)++ = '\0';
	(*value)[strcspn(*value, "\n")] = '\0';
	format_line(whole, *key, *value);
	return strcmp(copy, whole) == 0;
}

static int
put(const char *file, const char *key, const char *value)
{
	char line[LONGEST];
	FILE *out;

	if (strlen(key) + strlen(value) + 16 > LONGEST || strpbrk(key, "=\n") != NULL ||
	    strchr(value, '\n') != NULL) {
		fprintf(stderr, "recdb%d: key or value cannot be stored\n", FORMAT);
		return 65;
	}
	if ((out = fopen(file, "a")) == NULL) {
		perror(file);
		return 73;
	}
	format_line(line, key, value);
	fputs(line, out);
	if (fclose(out) != 0) {
		perror(file);
		return 74;
	}
	return 0;
}

/* With a key prints its value; without one counts the damaged lines. */
static int
look(const char *file, const char *wanted)
{
	char line[LONGEST], found[LONGEST] = "", *key, *value;
	int any = 0, damaged = 0, number = 0;
	FILE *in;

	if ((in = fopen(file, "r")) == NULL) {
		perror(file);
		return 66;
	}
	while (fgets(line, sizeof(line), in) != NULL) {
		number++;
		if (!parse_line(line, &key, &value)) {
			fprintf(stderr, "%s: line %d is damaged\n", file, number);
			damaged++;
		} else if (wanted != NULL && strcmp(key, wanted) == 0) {
			snprintf(found, sizeof(found), "%s", value);
			any = 1;
		}
	}
	fclose(in);
	if (wanted == NULL)
		return damaged > 0 ? 65 : 0;
	if (any)
		puts(found);
	return !any;
}

int
main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "put") == 0)
		return put(argv[2], argv[3], argv[4]);
	if (argc == 4 && strcmp(argv[1], "get") == 0)
		return look(argv[2], argv[3]);
	if (argc == 3 && strcmp(argv[1], "check") == 0)
		return look(argv[2], NULL);
	return usage();
}
