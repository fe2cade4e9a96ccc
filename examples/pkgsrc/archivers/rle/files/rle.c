/*
 * Packs runs of equal bytes: pairs of a count (1 to 255) and a byte, then a zero and the Adler-32
 * checksum of the unpacked bytes, highest byte first.
 */

#include <stdio.h>
#include <string.h>

#include <sum.h>

#include "version.h"

static void
pack(void)
{
	uint32_t sum = ADLER32_START;
	unsigned char byte;
	int c, run, shift, next = getchar();

	while ((c = next) != EOF) {
		for (run = 0; next == c && run < 255; run++) {
			byte = (unsigned char)c;
			sum = sum_adler32(sum, &byte, 1);
			next = getchar();
		}
		putchar(run);
		putchar(c);
	}
	putchar(0);
	for (shift = 24; shift >= 0; shift -= 8)
		putchar((int)(sum >> shift & 0xff));
}

static int
unpack(void)
{
	uint32_t sum = ADLER32_START, wanted = 0;
	unsigned char byte;
	int c, run, i;

	while ((run = getchar()) > 0) {
		if ((c = getchar()) == EOF)
			break;
		byte = (unsigned char)c;
		while (run-- > 0) {
			putchar(c);
			sum = sum_adler32(sum, &byte, 1);
		}
	}
	for (i = 0; i < 4; i++)
		wanted = wanted << 8 | (uint32_t)(getchar() & 0xff);
	if (run != 0 || feof(stdin) || sum != wanted) {
		fprintf(stderr, "rle: the input is damaged\n");
		return 65;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	int status = 0;

	if (argc == 1) {
		pack();
	} else if (argc == 2 && strcmp(argv[1], "-d") == 0) {
		status = unpack();
	} else {
		fprintf(stderr, "rle %s\nusage: rle [-d] < in > out\n", VERSION);
		return 64;
	}
	return fflush(stdout) == 0 ? status : 74;
}
