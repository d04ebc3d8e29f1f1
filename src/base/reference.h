/*
 * reference: a count of owners that may sit on several threads. Starts at 1, owned by whoever made the object.
 */
#ifndef BASE_REFERENCE_H
#define BASE_REFERENCE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>

struct reference {
    atomic_uint count;
};

static inline void reference_init(struct reference *reference)
{
    atomic_init(&reference->count, 1);
}

static inline void reference_take(struct reference *reference)
{
    unsigned before = atomic_fetch_add_explicit(&reference->count, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
}

/* True when this was the last owner: free the object. */
static inline bool reference_release(struct reference *reference)
{
    unsigned before = atomic_fetch_sub_explicit(&reference->count, 1, memory_order_acq_rel);
    assert(before > 0);
    return before == 1;
}

#endif
