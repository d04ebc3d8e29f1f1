/* The interface's functions: each hands over to the implementation that made the bus. */
#include "bus/bus.h"

void bus_publish(struct bus *bus, struct event_record *event, bus_done done, void *argument)
{
    bus->operations->publish(bus, event, done, argument);
}

struct subscriber *bus_subscribe(struct bus *bus, const struct subscriber_settings *settings,
                                 struct error *error)
{
    return bus->operations->subscribe(bus, settings, error);
}

void bus_renew(struct subscriber *subscriber, const struct subscriber_settings *settings)
{
    subscriber->bus->operations->renew(subscriber, settings);
}

void bus_close(struct subscriber *subscriber)
{
    subscriber->bus->operations->close(subscriber);
}

size_t bus_unsubscribe(struct subscriber *subscriber)
{
    return subscriber->bus->operations->unsubscribe(subscriber);
}

size_t bus_fetch(struct subscriber *subscriber, struct bus_entry *entries, size_t max, size_t max_bytes)
{
    return subscriber->bus->operations->fetch(subscriber, entries, max, max_bytes);
}

bool bus_await(struct subscriber *subscriber, size_t events)
{
    return subscriber->bus->operations->await(subscriber, events);
}

void bus_acknowledge(struct subscriber *subscriber, uint64_t sequence)
{
    subscriber->bus->operations->acknowledge(subscriber, sequence);
}

size_t bus_depth(const struct subscriber *subscriber)
{
    return subscriber->bus->operations->depth(subscriber);
}

bool bus_is_healthy(struct bus *bus, const char **reason)
{
    return bus->operations->is_healthy(bus, reason);
}

bool bus_has_room(struct bus *bus)
{
    return bus->operations->has_room(bus);
}

bool bus_keeps_events(const struct bus *bus)
{
    return bus->keeps_events;
}

const char *bus_drop_name(enum bus_drop drop)
{
    static const char *const names[BUS_DROP_COUNT] = {
        [BUS_DROP_BUFFER_FULL] = "buffer_full", [BUS_DROP_TOO_LARGE] = "too_large",
        [BUS_DROP_DISK_FULL] = "disk_full",     [BUS_DROP_DISK_FAILED] = "disk_failed",
        [BUS_DROP_DAMAGED] = "damaged",         [BUS_DROP_LAGGED] = "lagged",
        [BUS_DROP_EXPIRED] = "expired",
    };
    return names[drop];
}

void bus_count_drop(const struct subscriber_settings *settings, enum bus_drop drop, size_t count)
{
    if (settings->dropped != NULL)
        metric_add(settings->dropped, (int64_t)count);
    if (settings->dropped_by[drop] != NULL)
        metric_add(settings->dropped_by[drop], (int64_t)count);
}

void bus_free(struct bus *bus)
{
    if (bus != NULL)
        bus->operations->free(bus);
}
