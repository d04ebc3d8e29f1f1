/*
 * id: random bytes and UUIDs. Randomness is the kernel's, fetched in larger pieces per thread. Any thread.
 */
#ifndef BASE_ID_H
#define BASE_ID_H

#include <stddef.h>

#define UUID_TEXT_SIZE 37 /* 36 characters and NUL */

void random_bytes(void *out, size_t size);
/* Random (RFC 9562, version 4). */
void uuid4(char out[UUID_TEXT_SIZE]);
/* Ordered by time (RFC 9562, version 7): milliseconds, then a counter that keeps one thread's ids ascending, then random bits. */
void uuid7(char out[UUID_TEXT_SIZE]);

#endif
