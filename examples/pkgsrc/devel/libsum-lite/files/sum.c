#include "sum.h"

uint32_t
sum_crc32(uint32_t crc, const void *data, size_t length)
{
	const unsigned char *byte = data;
	int bit;

	crc = ~crc;
	while (length-- > 0) {
		crc ^= *byte++;
		for (bit = 0; bit < 8; bit++)
			crc = crc & 1 ? (crc >> 1) ^ 0xedb88320u : crc >> 1;
	}
	return ~crc;
}

uint32_t
sum_adler32(uint32_t adler, const void *data, size_t length)
{
	const unsigned char *byte = data;
	uint32_t low = adler & 0xffff, high = adler >> 16;

	while (length-- > 0) {
		low = (low + *byte++) % 65521u;
		high = (high + low) % 65521u;
	}
	return high << 16 | low;
}

uint32_t
sum_fnv1a(uint32_t hash, const void *data, size_t length)
{
	const unsigned char *byte = data;

	while (length-- > 0)
		hash = (hash ^ *byte++) * 16777619u;
	return hash;
}
