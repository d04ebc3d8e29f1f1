/*
 * id: see id.h. Each thread keeps a small pool of kernel randomness, because one system call for every id would cost more than all
 * the rest of it. Bytes are wiped as they are handed out.
 */
#include "base/id.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

/* getrandom() gives up to 256 bytes in one piece, never fewer. */
enum { POOL_SIZE = 256 };

static _Thread_local struct {
    unsigned char bytes[POOL_SIZE];
    size_t left; /* unused ones, at the end */
} pool;

static void from_kernel(unsigned char *out, size_t size)
{
    while (size > 0) {
        size_t piece = size < POOL_SIZE ? size : POOL_SIZE;
        ssize_t got = getrandom(out, piece, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            abort(); /* no kernel we run on lacks it; ids and keys that are not random are no option */
        }
        out += got;
        size -= (size_t)got;
    }
}

void random_bytes(void *out, size_t size)
{
    if (size > POOL_SIZE / 4) {
        from_kernel(out, size);
        return;
    }
    if (size > pool.left) {
        from_kernel(pool.bytes, POOL_SIZE);
        pool.left = POOL_SIZE;
    }
    unsigned char *taken = pool.bytes + POOL_SIZE - pool.left;
    memcpy(out, taken, size);
    memset(taken, 0, size);
    pool.left -= size;
}

static void format(const unsigned char id[16], char out[UUID_TEXT_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[id[i] >> 4];
        *out++ = hex[id[i] & 15];
    }
    *out = '\0';
}

void uuid4(char out[UUID_TEXT_SIZE])
{
    unsigned char id[16];
    random_bytes(id, sizeof id);
    id[6] = (unsigned char)(0x40 | (id[6] & 0x0F));
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3F));
    format(id, out);
}

void uuid7(char out[UUID_TEXT_SIZE])
{
    static _Thread_local uint64_t last_ms;
    static _Thread_local unsigned
        counter; /* 12 bits; begins in the lower half so that it has room to count */
    unsigned char id[16];
    random_bytes(id + 6, 10);
    uint64_t now_ms = clock_realtime_us() / 1000;
    if (now_ms > last_ms) {
        last_ms = now_ms;
        counter = ((unsigned)id[6] << 8 | id[7]) & 0x7FF;
    } else if (++counter > 0xFFF) {
        last_ms++; /* more than 2048 in one millisecond, or the clock was set back: run ahead of it */
        counter = ((unsigned)id[6] << 8 | id[7]) & 0x7FF;
    }
    for (size_t i = 0; i < 6; i++)
        id[i] = (unsigned char)(last_ms >> (40 - 8 * i));
    id[6] = (unsigned char)(0x70 | counter >> 8);
    id[7] = (unsigned char)(counter & 0xFF);
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3F));
    format(id, out);
}
