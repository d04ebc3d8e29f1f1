/* An open gate ends the wait in the loop's next turn: whoever opens it goes on first. */
#include "pipeline/gate.h"

#include <assert.h>

#include "base/clock.h"
#include "script/script.h"

static void cancel(void *object)
{
    struct gate *gate = object;
    gate->waiting = NULL;
}

static int push_nothing(lua_State *lua, void *argument)
{
    (void)lua;
    (void)argument;
    return 0;
}

static void end_wait(void *argument)
{
    struct gate *gate = argument;
    struct script_wait *wait = gate->waiting;
    if (wait == NULL)
        return;
    gate->waiting = NULL;
    gate->open = false;
    script_resume(wait, push_nothing, NULL);
}

void gate_init(struct gate *gate, struct loop *loop)
{
    loop_timer_init(&gate->timer, loop, end_wait, gate);
}

void gate_release(struct gate *gate)
{
    loop_timer_release(&gate->timer);
}

void gate_open(struct gate *gate)
{
    gate->open = true;
    if (gate->waiting != NULL)
        loop_timer_set(&gate->timer, 0);
}

int gate_wait(struct gate *gate, lua_State *lua, double seconds)
{
    if (gate->open) {
        gate->open = false;
        return 0;
    }
    assert(gate->waiting == NULL);
    gate->waiting = script_wait(lua, cancel, gate);
    if (seconds < GATE_MAX_SECONDS)
        loop_timer_set(&gate->timer, seconds > 0 ? (uint64_t)(seconds * (double)NANOSECONDS_PER_SECOND) : 0);
    else
        loop_timer_clear(&gate->timer);
    return lua_yield(lua, 0);
}
