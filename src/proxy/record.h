/*
 * record: what remains of an exchange: its event on the bus, its counters, its line in the access log. Private to proxy/.
 */
#ifndef PROXY_RECORD_H
#define PROXY_RECORD_H

#include "proxy/exchange.h"

/* Called exactly once, at the end. Takes the captured bodies out of the exchange. */
void record_exchange(struct exchange *exchange);

#endif
