/* Checksums of bytes. Start with the value for no bytes and feed the last result back. */

#ifndef SUM_H
#define SUM_H

#include <stddef.h>
#include <stdint.h>

#define CRC32_START	0u
#define ADLER32_START	1u
#define FNV1A_START	2166136261u

uint32_t	sum_crc32(uint32_t, const void *, size_t);
uint32_t	sum_adler32(uint32_t, const void *, size_t);
uint32_t	sum_fnv1a(uint32_t, const void *, size_t);

#endif
