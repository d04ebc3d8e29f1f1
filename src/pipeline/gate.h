/*
 * gate: where one task of a pipeline waits for something to change. Opening it ends the wait, or the next one; so what changes between a look and the wait is not missed. Whoever waited looks again.
 */
#ifndef PIPELINE_GATE_H
#define PIPELINE_GATE_H

#include <lua.h>

#include "net/loop.h"

struct script_wait;

/* Longer waits have no end of their own. */
#define GATE_MAX_SECONDS (366.0 * 86400)

struct gate {
    struct script_wait *waiting;
    struct loop_timer timer;
    bool open;
};

void gate_init(struct gate *gate, struct loop *loop);
/* Nobody waits any more: the script was freed. */
void gate_release(struct gate *gate);
void gate_open(struct gate *gate);
/* The end of a host function without results: waits until the gate is open, and closes it, or for so many seconds. */
int gate_wait(struct gate *gate, lua_State *lua, double seconds);

#endif
