#include "sum.h"

static uint32_t table[256];

static void
make_table(void)
{
	uint32_t value;
	unsigned i, bit;

	for (i = 0; i < 256; i++) {
		value = i;
		for (bit = 0; bit < 8; bit++)
			value = value & 1 ? (value >> 1) ^ 0xedb88320u : value >> 1;
		table[i] = value;
	}
}

uint32_t
sum_crc32(uint32_t crc, const void *data, size_t length)
{
	const unsigned char *byte = data;

	if (table[1] == 0)
		make_table();
	crc = ~crc;
	while (length-- > 0)
		crc = table[(crc ^ *byte++) & 0xff] ^ (crc >> 8);
	return ~crc;
}
