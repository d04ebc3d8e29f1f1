/*
 * memory: allocation that cannot fail, for the small and bounded things every module needs.
 *
 * Running out of memory for a few bytes leaves nothing sensible to do: these write one line to stderr and abort. What
 * grows with the traffic (captured bodies, queues) is bounded by a budget of its own and is refused before it gets
 * here. Any thread.
 */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *block, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((malloc, returns_nonnull));
/* A copy of size bytes with a NUL behind it. */
char *xmemdup(const void *data, size_t size) __attribute__((malloc, returns_nonnull));
/* printf into a new string. */
char *xprintf(const char *format, ...) __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));

/* The struct that holds a member. */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/*
 * A budget in bytes, shared by threads: what captured bodies may take together. Taking never blocks.
 */
struct memory_budget {
    _Atomic uint64_t used, limit;
};

/* True and counted, or false and nothing taken. */
_Bool memory_budget_take(struct memory_budget *budget, size_t size) __attribute__((warn_unused_result));
void memory_budget_give_back(struct memory_budget *budget, size_t size);

#endif
