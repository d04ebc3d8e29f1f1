/*
 * buffer: bytes that grow at the end and are taken off at the front. Owned by whoever holds the struct; all zero is a valid empty
 * buffer. Taking from the front moves an offset; the room is won back when the buffer runs empty or grows.
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include "base/slice.h"

struct buffer {
    char *block;
    size_t start, size, capacity; /* the bytes are block[start .. start + size) */
};

static inline char *buffer_data(const struct buffer *buffer)
{
    return buffer->block + buffer->start;
}

static inline struct slice buffer_slice(const struct buffer *buffer)
{
    return (struct slice){buffer->block != NULL ? buffer->block + buffer->start : NULL, buffer->size};
}

/* buffer_reserve() when there is no such room yet. */
char *buffer_grow(struct buffer *buffer, size_t size);

/* Room for size more bytes behind the data; write there, then buffer_commit() what was written. */
static inline char *buffer_reserve(struct buffer *buffer, size_t size)
{
    if (buffer->block == NULL || size > buffer->capacity - buffer->start - buffer->size)
        return buffer_grow(buffer, size);
    return buffer_data(buffer) + buffer->size;
}

void buffer_commit(struct buffer *buffer, size_t size);

static inline void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
    if (size == 0)
        return;
    memcpy(buffer_reserve(buffer, size), data, size);
    buffer->size += size;
}

static inline void buffer_append_slice(struct buffer *buffer, struct slice s)
{
    buffer_append(buffer, s.data, s.size);
}

static inline void buffer_append_string(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

static inline void buffer_append_char(struct buffer *buffer, char c)
{
    *buffer_reserve(buffer, 1) = c;
    buffer->size++;
}

void buffer_append_uint64(struct buffer *buffer, uint64_t number);
void buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Drops size bytes at the front (at most all). */
void buffer_consume(struct buffer *buffer, size_t size);
/* Empties, keeps the room. */
void buffer_clear(struct buffer *buffer);
/* Gives the memory back; the buffer is empty and usable. */
void buffer_free(struct buffer *buffer);
/* The bytes as a NUL-terminated string that the caller frees; the buffer is empty afterwards. */
char *buffer_take_string(struct buffer *buffer);

#endif
