/*
 * acknowledgements: the sequences one subscriber has fetched and not yet acknowledged, so that the lowest of them is always known: everything below it is finished, in whatever order that came about.
 *
 * Takes memory for what is outstanding, however far the newest is ahead of an old one that does not get finished. Amortised O(1) for what is acknowledged in about the order of fetching, else a binary
 * search. One thread at a time.
 */
#ifndef BUS_ACKNOWLEDGEMENTS_H
#define BUS_ACKNOWLEDGEMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOTHING_OUTSTANDING UINT64_MAX

/* All zero to begin with. */
struct acknowledgements {
    uint64_t *
        sequences; /* ascending, from first on; what was acknowledged out of order is marked until it comes to be the first, or until half of them are */
    bool *finished;          /* the marks */
    size_t first, count;     /* of what lies in the arrays */
    size_t capacity, marked; /* of the arrays; of their marks */
};

/* Fetched: higher than any before. */
void acknowledgements_add(struct acknowledgements *outstanding, uint64_t sequence);
/* Acknowledged. False: it was not outstanding. */
bool acknowledgements_remove(struct acknowledgements *outstanding, uint64_t sequence);
/* The lowest outstanding sequence, or NOTHING_OUTSTANDING. */
uint64_t acknowledgements_lowest(const struct acknowledgements *outstanding);
size_t acknowledgements_count(const struct acknowledgements *outstanding);
/* Those outstanding that are below this sequence. */
size_t acknowledgements_count_below(const struct acknowledgements *outstanding, uint64_t sequence);
void acknowledgements_free(struct acknowledgements *outstanding);

#endif
