/*
 * memory: see memory.h. The one place that calls malloc for small things, so that running out has one answer.
 */
#include "base/memory.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void out_of_memory(void)
{
    static const char line[] = "llm-proxy: out of memory\n";
    ssize_t written = write(STDERR_FILENO, line, sizeof line - 1);
    (void)written;
    abort();
}

void *xmalloc(size_t size)
{
    void *block = malloc(size > 0 ? size : 1);
    if (block == NULL)
        out_of_memory();
    return block;
}

void *xcalloc(size_t count, size_t size)
{
    void *block = count > 0 && size > 0 ? calloc(count, size) : calloc(1, 1);
    if (block == NULL)
        out_of_memory();
    return block;
}

void *xrealloc(void *block, size_t size)
{
    void *larger = realloc(block, size > 0 ? size : 1);
    if (larger == NULL)
        out_of_memory();
    return larger;
}

char *xstrdup(const char *text)
{
    return xmemdup(text, strlen(text));
}

char *xmemdup(const void *data, size_t size)
{
    char *copy = xmalloc(size + 1);
    if (size > 0)
        memcpy(copy, data, size);
    copy[size] = '\0';
    return copy;
}

char *xprintf(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        out_of_memory();
    return text;
}

_Bool memory_budget_take(struct memory_budget *budget, size_t size)
{
    uint64_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
    uint64_t limit = atomic_load_explicit(&budget->limit, memory_order_relaxed);
    do {
        if (used > limit || size > limit - used)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&budget->used, &used, used + size, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void memory_budget_give_back(struct memory_budget *budget, size_t size)
{
    atomic_fetch_sub_explicit(&budget->used, size, memory_order_relaxed);
}
