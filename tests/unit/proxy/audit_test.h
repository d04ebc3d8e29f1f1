/*
 * What the tests of audit share: a memory bus that says an event is stored when the test tells it to, and looks at the bytes that come before and after.
 */
#ifndef AUDIT_TEST_H
#define AUDIT_TEST_H

#include <pthread.h>

#include "proxy_test.h"

#define MAX_WAITING 256
#define MARK        "Date: d\r\nX-Request-Id: r\r\n" /* so that the proxy adds neither */
#define OK          "HTTP/1.1 200 OK\r\n" MARK
#define HELLO       "Content-Length: 5\r\n\r\nhello"

struct promise {
    bus_done done;
    void *argument;
};

struct late_bus {
    struct bus bus;
    struct bus *memory;
    pthread_mutex_t mutex;
    struct promise waiting[MAX_WAITING]; /* published, oldest first; guarded by the mutex */
    size_t count;
    atomic_bool at_once; /* stored when it is published */
    atomic_bool full;
};

static inline struct late_bus *late(struct bus *bus)
{
    return container_of(bus, struct late_bus, bus);
}

static inline void late_publish(struct bus *bus, struct event_record *event, bus_done done, void *argument)
{
    struct late_bus *b = late(bus);
    bus_publish(b->memory, event, NULL, NULL);
    if (done != NULL && atomic_load(&b->at_once)) {
        done(argument, true);
    } else if (done != NULL) {
        pthread_mutex_lock(&b->mutex);
        assert(b->count < MAX_WAITING);
        b->waiting[b->count++] = (struct promise){done, argument};
        pthread_mutex_unlock(&b->mutex);
    }
}

static inline bool late_has_room(struct bus *bus)
{
    return !atomic_load(&late(bus)->full);
}

static inline void late_free(struct bus *bus)
{
    bus_free(late(bus)->memory);
    pthread_mutex_destroy(&late(bus)->mutex);
    free(late(bus));
}

static inline int set_up_audit(void **state)
{
    static const struct bus_operations operations = {
        .publish = late_publish, .has_room = late_has_room, .free = late_free};
    set_up(state);
    struct fixture *f = *state;
    struct late_bus *bus = xcalloc(1, sizeof *bus);
    *bus = (struct late_bus){.bus = {.operations = &operations}, .memory = f->bus};
    pthread_mutex_init(&bus->mutex, NULL);
    f->bus = &bus->bus;
    f->settings->audit = true;
    return 0;
}

static inline size_t held(struct fixture *f)
{
    struct late_bus *bus = late(f->bus);
    pthread_mutex_lock(&bus->mutex);
    size_t count = bus->count;
    pthread_mutex_unlock(&bus->mutex);
    return count;
}

/* Until the worker has published one more event: all that it wrote before is then on its way to the client. */
static inline void wait_for_hold(struct fixture *f)
{
    for (int i = 0; i < 500 && held(f) == 0; i++) {
        usleep(10000);
    }
    assert_int_equal(held(f), 1);
}

static inline struct promise take_promise(struct fixture *f)
{
    struct late_bus *bus = late(f->bus);
    wait_for_hold(f);
    pthread_mutex_lock(&bus->mutex);
    struct promise promise = bus->waiting[0];
    bus->count--;
    memmove(bus->waiting, bus->waiting + 1, bus->count * sizeof bus->waiting[0]);
    pthread_mutex_unlock(&bus->mutex);
    return promise;
}

static inline void answer(struct fixture *f, bool stored)
{
    struct promise promise = take_promise(f);
    promise.done(promise.argument, stored);
}

static inline void expect_silence(int fd)
{
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 50), 0);
}

/* Exactly text, and nothing behind it for a moment. */
static inline void expect_bytes(struct fixture *f, int fd, const char *text)
{
    size_t size = 0, expected = strlen(text);
    while (size < expected) {
        ssize_t got = recv(fd, f->received + size, sizeof f->received - 1 - size, 0);
        if (got <= 0) {
            break;
        }
        size += (size_t)got;
    }
    f->received[size] = 0;
    assert_string_equal(f->received, text);
}

static inline int64_t gauge(struct fixture *f, const char *name)
{
    return metric_value(metrics_gauge(f->metrics, name, "", (struct metric_label[]){{NULL, NULL}}));
}

static inline void reconnect(struct fixture *f)
{
    close(f->client);
    f->client = connect_to_proxy(f);
}

static inline void send_request(struct fixture *f, const char *line)
{
    char request[128];
    snprintf(request, sizeof request, "%s\r\nHost: x\r\n\r\n", line);
    send_all(f->client, request);
}

#define AUDIT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_audit, tear_down)

#endif
