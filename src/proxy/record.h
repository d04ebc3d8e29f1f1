/*
 * record: what remains of an exchange: its event on the bus, its counters, its line in the access log. Private to proxy/.
 */
#ifndef PROXY_RECORD_H
#define PROXY_RECORD_H

#include "proxy/exchange.h"

/* Called exactly once, when all is known. Takes the captured bodies out of the exchange. done and argument are for the bus; no event is wanted: done is not called. */
void record_exchange(struct exchange *exchange, bus_done done, void *argument);

#endif
