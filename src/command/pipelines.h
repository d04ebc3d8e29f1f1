/*
 * pipelines: the pipelines of the process, one generation after the other.
 *
 * A reload makes anew those whose definition changed: what the configuration says about them, their plugins, the libraries these could use. The others go on untouched. A new one takes the place of the one of its name,
 * which ends its running deliveries in the background; what else that one had, waiting for another try too, goes on with the new one. Where a name is gone the pipeline gets no more events and delivers what waits.
 * Nothing of an old generation lives longer than shutdown_timeout. A pipeline whose plugins keep so much memory that it cannot go on is replaced in the same way by itself.
 *
 * Main thread only.
 */
#ifndef COMMAND_PIPELINES_H
#define COMMAND_PIPELINES_H

#include "bus/bus.h"
#include "config/config.h"
#include "net/loop.h"
#include "pipeline/pipeline.h"

struct pipelines;

/* What the configuration says about its pipeline of this index; metrics, bus and dead letters are left out. The configuration is borrowed. */
struct pipeline_settings pipelines_settings(struct config *config, size_t index);

/* None to begin with. All are borrowed. inbox: where pipelines put what they fetch themselves from a bus that is a plugin, to which one of them publishes what is on bus; NULL: all take events from bus. */
struct pipelines *pipelines_new(struct loop *loop, struct metrics *metrics, struct bus *bus,
                                struct bus *inbox);
/* Those of this configuration (none where observability is off) from now on. False: nothing has changed, *error says why. The configuration is borrowed until the next one that is taken. */
bool pipelines_renew(struct pipelines *pipelines, struct config *config, struct error *error);
void pipelines_reopen_files(struct pipelines *pipelines);
/* No more events come: done(argument) is called when all are through, perhaps at once. */
void pipelines_drain(struct pipelines *pipelines, void (*done)(void *argument), void *argument);
/* Stops what still runs. */
void pipelines_free(struct pipelines *pipelines);

#endif
