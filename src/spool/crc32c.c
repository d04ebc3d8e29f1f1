/* Eight bytes a step by SSE 4.2 or ARMv8's CRC extension where the processor has it, else byte by byte from a table. */
#include "spool/crc32c.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL UINT32_C(0x82f63b78) /* reflected */

static uint32_t table[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        }
        table[byte] = crc;
    }
}

static uint32_t by_table(uint32_t crc, const unsigned char *data, size_t size)
{
    pthread_once(&once, make_table);
    while (size-- > 0) {
        crc = crc >> 8 ^ table[(crc ^ *data++) & 0xff];
    }
    return crc;
}

#if defined(__x86_64__)

static bool has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const unsigned char *data,
                                                                 size_t size)
{
    uint64_t wide = crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    while (size-- > 0) {
        crc = __builtin_ia32_crc32qi(crc, *data++);
    }
    return crc;
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

#include <arm_acle.h>

static bool has_instruction(void)
{
    return true;
}

static uint32_t by_instruction(uint32_t crc, const unsigned char *data, size_t size)
{
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        crc = __crc32cd(crc, word);
    }
    while (size-- > 0) {
        crc = __crc32cb(crc, *data++);
    }
    return crc;
}

#else

static bool has_instruction(void)
{
    return false;
}

static uint32_t by_instruction(uint32_t crc, const unsigned char *data, size_t size)
{
    return by_table(crc, data, size);
}

#endif

uint32_t crc32c(uint32_t crc, struct slice data)
{
    const unsigned char *bytes = (const unsigned char *)data.data;
    crc = ~crc;
    return ~(has_instruction() ? by_instruction(crc, bytes, data.size) : by_table(crc, bytes, data.size));
}
