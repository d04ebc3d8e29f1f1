/*
 * The outstanding sequences, in order, in one array: new ones go to its end, finished ones are marked, and the first is never a marked one:
 *
 *     sequences   . . . 17 18 20 21 22          first = 3, count = 5, marked = 2: lowest 17, 3 outstanding
 *     finished    . . .  -  x  -  x  -
 *
 * When half of them are marked the others are moved together, so that the array never holds more than twice what is outstanding.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bus/acknowledgements.h"

#define SMALLEST_CAPACITY 64u

/* Moves what is outstanding to the beginning of arrays of this capacity. */
static void gather(struct acknowledgements *outstanding, size_t capacity)
{
    uint64_t *sequences = outstanding->sequences;
    if (capacity > outstanding->capacity)
        sequences = xcalloc(capacity, sizeof *sequences);
    size_t kept = 0;
    for (size_t i = outstanding->first; i < outstanding->first + outstanding->count; i++)
        if (!outstanding->finished[i])
            sequences[kept++] = outstanding->sequences[i];
    if (sequences != outstanding->sequences) {
        free(outstanding->sequences);
        free(outstanding->finished);
        outstanding->sequences = sequences;
        outstanding->finished = xcalloc(capacity, sizeof *outstanding->finished);
        outstanding->capacity = capacity;
    } else {
        memset(outstanding->finished, 0, kept * sizeof *outstanding->finished);
    }
    outstanding->first = 0;
    outstanding->count = kept;
    outstanding->marked = 0;
}

void acknowledgements_add(struct acknowledgements *outstanding, uint64_t sequence)
{
    size_t end = outstanding->first + outstanding->count;
    assert(outstanding->count == 0 || sequence > outstanding->sequences[end - 1]);
    if (end == outstanding->capacity) {
        size_t capacity = outstanding->capacity;
        if (capacity == 0)
            capacity = SMALLEST_CAPACITY;
        else if (acknowledgements_count(outstanding) > capacity / 2)
            capacity *= 2;
        gather(outstanding, capacity);
        end = outstanding->count;
    }
    outstanding->sequences[end] = sequence;
    outstanding->finished[end] = false;
    outstanding->count++;
}

static void remove_first(struct acknowledgements *outstanding)
{
    outstanding->first++;
    outstanding->count--;
    while (outstanding->count > 0 && outstanding->finished[outstanding->first]) {
        outstanding->first++;
        outstanding->count--;
        outstanding->marked--;
    }
    if (outstanding->count == 0)
        outstanding->first = 0;
}

bool acknowledgements_remove(struct acknowledgements *outstanding, uint64_t sequence)
{
    size_t low = outstanding->first, end = outstanding->first + outstanding->count, high = end;
    if (low < high && outstanding->sequences[low] == sequence) {
        remove_first(outstanding);
        return true;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (outstanding->sequences[middle] < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == end || outstanding->sequences[low] != sequence || outstanding->finished[low])
        return false;
    outstanding->finished[low] = true;
    outstanding->marked++;
    if (outstanding->marked > outstanding->count / 2)
        gather(outstanding, outstanding->capacity);
    return true;
}

uint64_t acknowledgements_lowest(const struct acknowledgements *outstanding)
{
    return outstanding->count > 0 ? outstanding->sequences[outstanding->first] : NOTHING_OUTSTANDING;
}

size_t acknowledgements_count(const struct acknowledgements *outstanding)
{
    return outstanding->count - outstanding->marked;
}

size_t acknowledgements_count_below(const struct acknowledgements *outstanding, uint64_t sequence)
{
    size_t below = 0;
    for (size_t i = outstanding->first; i < outstanding->first + outstanding->count; i++)
        below += outstanding->sequences[i] < sequence && !outstanding->finished[i];
    return below;
}

void acknowledgements_free(struct acknowledgements *outstanding)
{
    free(outstanding->sequences);
    free(outstanding->finished);
    *outstanding = (struct acknowledgements){0};
}
