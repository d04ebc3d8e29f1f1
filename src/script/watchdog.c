/* The thread that looks for overdue runs, and the signal that stops them; the idea is in watchdog.h. */
#include "script/watchdog.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

#define PERIOD_NS 50000000

static LIST_HEAD(, watch) watches = LIST_HEAD_INITIALIZER(watches);
static pthread_mutex_t mutex =
    PTHREAD_MUTEX_INITIALIZER; /* the list, and that no watch leaves it while its thread is signalled */
static pthread_cond_t listed = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static _Thread_local struct watch *volatile running; /* what this thread's signal is about */
static _Thread_local bool unblocked;

bool watch_is_overdue(struct watch *watch)
{
    uint64_t deadline_ns = atomic_load(&watch->deadline_ns);
    return deadline_ns != 0 && clock_monotonic_ns() >= deadline_ns;
}

/* The innermost line that is not of the runtime library. The first error tells it: when it is caught, the next comes from whoever called. */
static void remember_place(struct watch *watch, lua_State *lua)
{
    lua_Debug frame;
    watch->stopped = true;
    for (int level = 0; lua_getstack(lua, level, &frame) != 0; level++) {
        lua_getinfo(lua, "Sl", &frame);
        if ((frame.source[0] == '@' || frame.source[0] == '=') && frame.currentline > 0 &&
            strstr(frame.source, "/lua/llmproxy/") == NULL) {
            snprintf(watch->place, sizeof watch->place, "%s:%d", frame.source + 1, frame.currentline);
            return;
        }
    }
}

void watch_stop(struct watch *watch, lua_State *lua)
{
    if (!watch->stopped) {
        remember_place(watch, lua);
    }
    luaL_where(lua, 0);
    if (lua_objlen(lua, -1) == 0) { /* a C function looked at the time: where it was called */
        lua_pop(lua, 1);
        luaL_where(lua, 1);
    }
    lua_pushfstring(lua, "stopped: ran for more than %f s without a break", watch->seconds);
    lua_concat(lua, 2);
    lua_error(lua);
    abort(); /* for the compiler */
}

static void stop(lua_State *lua, lua_Debug *activation)
{
    (void)activation;
    struct watch *watch = running;
    if (watch == NULL || !watch_is_overdue(watch)) {
        lua_sethook(lua, NULL, 0, 0);
        return;
    }
    watch_stop(watch, lua);
}

static void on_signal(int signal)
{
    (void)signal;
    int saved_errno = errno;
    struct watch *watch = running;
    if (watch != NULL && watch_is_overdue(watch)) {
        lua_sethook(watch->lua, stop, LUA_MASKCOUNT, 1);
    }
    errno = saved_errno;
}

static void *look(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (LIST_EMPTY(&watches)) {
            pthread_cond_wait(&listed, &mutex);
        }
        struct watch *watch;
        LIST_FOREACH(watch, &watches, entry)
        {
            if (watch_is_overdue(watch)) {
                pthread_kill(watch->thread, SIGURG);
            }
        }
        pthread_mutex_unlock(&mutex);
        nanosleep(&(struct timespec){.tv_nsec = PERIOD_NS}, NULL);
    }
    return NULL;
}

static void start(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(SIGURG, &action, NULL);

    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int failure = pthread_create(&thread, NULL, look, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        log_error("no thread for the Lua watchdog: runaway code will not be stopped",
                  log_string("reason", strerror(failure)));
        return;
    }
    pthread_detach(thread);
}

static void watch_list(struct watch *watch)
{
    pthread_once(&once, start);
    if (!unblocked) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGURG);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        unblocked = true;
    }
    if (watch->listed && pthread_equal(watch->thread, pthread_self())) {
        return;
    }
    pthread_mutex_lock(&mutex);
    watch->thread = pthread_self();
    if (!watch->listed) {
        LIST_INSERT_HEAD(&watches, watch, entry);
        watch->listed = true;
    }
    pthread_cond_signal(&listed);
    pthread_mutex_unlock(&mutex);
}

struct watch_run watch_begin(struct watch *watch, double seconds)
{
    struct watch_run before = {running, watch->seconds, atomic_load(&watch->deadline_ns), seconds > 0};
    if (before.limited) {
        watch_list(watch);
        running = watch;
        watch->seconds = seconds;
        watch->stopped = false;
        watch->place[0] = '\0';
        atomic_store(&watch->deadline_ns,
                     clock_monotonic_ns() + (uint64_t)(seconds * (double)NANOSECONDS_PER_SECOND));
    }
    return before;
}

void watch_end(struct watch *watch, const struct watch_run *before)
{
    if (!before->limited) {
        return;
    }
    bool late = watch_is_overdue(watch);
    watch->seconds = before->seconds;
    atomic_store(&watch->deadline_ns, before->deadline_ns);
    running = before->watch;
    if (late) { /* the signal may be under way: not past the end of this thread */
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
    if (lua_gethook(watch->lua) != NULL) {
        lua_sethook(watch->lua, NULL, 0, 0);
    }
}

uint64_t watch_suspend(struct watch *watch)
{
    uint64_t deadline_ns = atomic_exchange(&watch->deadline_ns, 0), now_ns = clock_monotonic_ns();
    return deadline_ns == 0 ? 0 : deadline_ns > now_ns ? deadline_ns - now_ns : 1;
}

void watch_resume(struct watch *watch, uint64_t left_ns)
{
    atomic_store(&watch->deadline_ns, left_ns == 0 ? 0 : clock_monotonic_ns() + left_ns);
}

void watch_remove(struct watch *watch)
{
    if (watch->listed) {
        pthread_mutex_lock(&mutex);
        LIST_REMOVE(watch, entry);
        watch->listed = false;
        pthread_mutex_unlock(&mutex);
    }
}
