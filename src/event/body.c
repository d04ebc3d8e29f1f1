/* Bodies as chains of blocks: appending never moves what is there, so a body goes from the capture to the disk without a copy. */
#include <stdlib.h>

#include "event/event.h"

#define SMALLEST_BLOCK 1024u /* with its head */
#define LARGEST_BLOCK  65536u

static size_t block_memory(const struct body_block *block)
{
    return sizeof *block + block->capacity;
}

void body_init(struct body *body, struct memory_budget *budget)
{
    *body = (struct body){.budget = budget};
}

/* Twice the last one, or what is wanted, as a power of two within the two bounds. */
static size_t next_block_memory(size_t last, size_t wanted)
{
    size_t memory = SMALLEST_BLOCK;
    while (memory < LARGEST_BLOCK && (memory < 2 * last || memory < wanted + sizeof(struct body_block)))
        memory *= 2;
    return memory;
}

static void free_blocks(struct body_block *block)
{
    while (block != NULL) {
        struct body_block *next = block->next;
        free(block);
        block = next;
    }
}

/* Empty blocks with room for size more bytes; NULL and nothing taken when the budget does not allow them. */
static struct body_block *new_blocks(struct body *body, size_t size, size_t *charged)
{
    struct body_block *first = NULL, *last = body->last;
    *charged = 0;
    while (size > 0) {
        size_t memory = next_block_memory(last != NULL ? block_memory(last) : 0, size);
        if (body->budget != NULL && !memory_budget_take(body->budget, memory)) {
            if (*charged > 0)
                memory_budget_give_back(body->budget, *charged);
            free_blocks(first);
            return NULL;
        }
        *charged += memory;
        struct body_block *block = xmalloc(memory);
        *block = (struct body_block){.capacity = (uint32_t)(memory - sizeof *block)};
        if (first == NULL)
            first = block;
        else
            last->next = block;
        last = block;
        size -= size < block->capacity ? size : block->capacity;
    }
    return first;
}

bool body_append(struct body *body, struct slice data)
{
    size_t room = body->last != NULL ? body->last->capacity - body->last->size : 0;
    if (data.size > room) {
        size_t charged;
        struct body_block *blocks = new_blocks(body, data.size - room, &charged);
        if (blocks == NULL)
            return false;
        body->charged += charged;
        if (body->last != NULL)
            body->last->next = blocks;
        else
            body->first = body->last = blocks;
    }
    while (data.size > 0) {
        struct body_block *block = body->last;
        if (block->size == block->capacity) {
            body->last = block = block->next;
        }
        size_t size = block->capacity - block->size;
        if (size > data.size)
            size = data.size;
        memcpy(block->data + block->size, data.data, size);
        block->size += (uint32_t)size;
        body->size += size;
        data.data += size;
        data.size -= size;
    }
    return true;
}

void body_free(struct body *body)
{
    free_blocks(body->first);
    if (body->budget != NULL && body->charged > 0)
        memory_budget_give_back(body->budget, body->charged);
    body_init(body, body->budget);
}

void body_copy(const struct body *body, struct buffer *out)
{
    if (body->size > 0)
        buffer_reserve(out, body->size);
    for (const struct body_block *block = body->first; block != NULL; block = block->next)
        buffer_append(out, block->data, block->size);
}
