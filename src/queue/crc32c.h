/* crc32c.h - CRC-32C (Castagnoli; RFC 3720, appendix B.4), with the processor's instruction where there is one.
 * Start with 0; feed the result back in to go on over more bytes. Safe in any thread. */
#ifndef ANGARIUM_QUEUE_CRC32C_H
#define ANGARIUM_QUEUE_CRC32C_H

#include "base/str.h"

uint32_t crc32c(uint32_t crc, struct str bytes);
uint32_t crc32c_portable(uint32_t crc, struct str bytes); /* for the test that compares the two */
#endif
