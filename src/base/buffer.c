/*
 * buffer: see buffer.h. Capacity doubles, so appending costs constant time on average; bytes are moved to the front only when
 * that wins at least half of the block, so taking and adding in turns costs constant time as well.
 */
#include "base/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

enum { SMALLEST_CAPACITY = 64 };

char *buffer_grow(struct buffer *buffer, size_t size)
{
    assert(size <= SIZE_MAX / 2 - buffer->size);
    size_t needed = buffer->size + size;
    if (buffer->block != NULL && needed <= buffer->capacity / 2) {
        memmove(buffer->block, buffer_data(buffer), buffer->size);
    } else {
        size_t capacity = needed < SMALLEST_CAPACITY ? SMALLEST_CAPACITY : needed;
        if (capacity < buffer->capacity * 2)
            capacity = buffer->capacity * 2;
        if (buffer->start == 0) {
            buffer->block = xrealloc(buffer->block, capacity);
        } else {
            char *block = xmalloc(capacity);
            memcpy(block, buffer_data(buffer), buffer->size);
            free(buffer->block);
            buffer->block = block;
        }
        buffer->capacity = capacity;
    }
    buffer->start = 0;
    return buffer->block + buffer->size;
}

void buffer_commit(struct buffer *buffer, size_t size)
{
    assert(size <= buffer->capacity - buffer->start - buffer->size);
    buffer->size += size;
}

void buffer_append_uint64(struct buffer *buffer, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    buffer_append(buffer, digits + at, sizeof digits - at);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    assert(length >= 0);
    char *room = buffer_reserve(buffer, (size_t)length + 1);
    vsnprintf(room, (size_t)length + 1, format, again);
    buffer->size += (size_t)length;
    va_end(again);
    va_end(arguments);
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    if (size >= buffer->size) {
        buffer_clear(buffer);
    } else {
        buffer->start += size;
        buffer->size -= size;
    }
}

void buffer_clear(struct buffer *buffer)
{
    buffer->start = buffer->size = 0;
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->block);
    *buffer = (struct buffer){0};
}

char *buffer_take_string(struct buffer *buffer)
{
    buffer_append_char(buffer, '\0');
    if (buffer->start > 0)
        memmove(buffer->block, buffer_data(buffer), buffer->size);
    char *text = buffer->block;
    *buffer = (struct buffer){0};
    return text;
}
