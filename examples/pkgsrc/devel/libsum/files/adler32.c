#include "sum.h"

#define BASE	65521u
#define BLOCK	5552u		/* so many bytes cannot overflow the sums */

uint32_t
sum_adler32(uint32_t adler, const void *data, size_t length)
{
	const unsigned char *byte = data;
	uint32_t low = adler & 0xffff, high = adler >> 16;
	size_t part;

	while (length > 0) {
		part = length < BLOCK ? length : BLOCK;
		length -= part;
		while (part-- > 0) {
			low += *byte++;
			high += low;
		}
		low %= BASE;
		high %= BASE;
	}
	return high << 16 | low;
}
