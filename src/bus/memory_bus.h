/*
 * memory_bus: a bus of bounded queues, one for each subscriber. When a queue is full (events or bytes) the newest event is dropped for that subscriber and counted; the first drop is
 * logged with the setting that would have prevented it, then at most one line a second. done is called at once: an event is as safe as it will be.
 */
#ifndef BUS_MEMORY_BUS_H
#define BUS_MEMORY_BUS_H

#include "bus/bus.h"

struct bus *memory_bus_new(void);

#endif
