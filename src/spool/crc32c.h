/*
 * crc32c: the Castagnoli CRC (RFC 3720 12.1) that guards what is on disk. By the processor's instruction where it has one.
 */
#ifndef SPOOL_CRC32C_H
#define SPOOL_CRC32C_H

#include "base/slice.h"

/* Goes on from the crc of what came before; 0 to begin with. */
uint32_t crc32c(uint32_t crc, struct slice data);

#endif
