#include "sum.h"

uint32_t
sum_fnv1a(uint32_t hash, const void *data, size_t length)
{
	const unsigned char *byte = data;

	while (length-- > 0)
		hash = (hash ^ *byte++) * 16777619u;
	return hash;
}
