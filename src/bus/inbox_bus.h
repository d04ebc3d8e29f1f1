/*
 * The inbox bus: what a pipeline fetched from a bus of another kind, which only it can reach (a broker, by a plugin), until the pipeline takes it. Nobody publishes: each subscriber is put its own events in, and tells
 * which of them were acknowledged, so that they can be acknowledged where they came from. So whatever takes events from a bus needs not know.
 *
 * Events that are not acknowledged come again, from where they came. Those that come in may be such ones: see owed.
 */
#ifndef BUS_INBOX_BUS_H
#define BUS_INBOX_BUS_H

#include "bus/bus.h"

struct bus *inbox_bus_new(void);

/* On the subscriber's thread. Queues the event (takes a reference of its own), whatever room there is. Returns its sequence. */
uint64_t inbox_put(struct subscriber *subscriber, struct event_record *event);
/* How many more events may be queued by the subscriber's limits. */
size_t inbox_room(const struct subscriber *subscriber);
/* At most max sequences that were acknowledged and not told yet, in the order in which they were. Returns how many. */
size_t inbox_acknowledged(struct subscriber *subscriber, uint64_t *sequences, size_t max);
/* How many are acknowledged and not told yet. */
size_t inbox_acknowledged_count(const struct subscriber *subscriber);

/* An event came that cannot be queued. It is received all the same. */
void inbox_count_received(struct subscriber *subscriber);

/*
 * Events that were given back count as received and waiting still: so many of those that come next are not counted again, whether they are the same or others, and the counters add up and never go back. A subscriber owes
 * none to begin with. Any thread.
 */
void inbox_owe(struct subscriber *subscriber, size_t events);
size_t inbox_owed(const struct subscriber *subscriber);

#endif
