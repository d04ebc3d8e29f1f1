/*
 * connection: a loop of scan, answer, write. While the peer has not taken an answer nothing more is read, so a connection holds at most one
 * head and the answers to what came with it.
 *
 *     HEAD ─▶ (answered) ─▶ IDLE or HEAD again
 *       └──── last answer ─▶ ENDING: the write side is shut, what still arrives is thrown away until the peer closes
 */
#include "admin/connection.h"

#include <stdlib.h>

#include "admin/answer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/transport.h"

#define HEAD_TIME_NS   (10 * NANOSECONDS_PER_SECOND)
#define IDLE_TIME_NS   (75 * NANOSECONDS_PER_SECOND)
#define WRITE_TIME_NS  (30 * NANOSECONDS_PER_SECOND)
#define ENDING_TIME_NS (2 * NANOSECONDS_PER_SECOND)
#define READ_SIZE      4096

static const struct http_limits limits = {
    .max_head_bytes = 16384, .max_headers = 100, .max_target_bytes = 4096};

enum wait { WAIT_NONE, WAIT_HEAD, WAIT_IDLE, WAIT_WRITE, WAIT_ENDING };

struct admin_connection {
    TAILQ_ENTRY(admin_connection) entry;
    struct admin_connections *all;
    const struct admin_settings *settings;
    struct transport *transport;
    struct loop_timer timer;
    enum wait wait; /* what the timer limits */
    bool ending;
    bool peer_ended;
    struct buffer input;
    struct http_scan scan;
    struct http_request request;
};

void admin_connection_close(struct admin_connection *connection)
{
    TAILQ_REMOVE(&connection->all->list, connection, entry);
    connection->all->count--;
    loop_timer_release(&connection->timer);
    transport_free(connection->transport);
    buffer_free(&connection->input);
    http_request_free(&connection->request);
    free(connection);
}

static void wait_for(struct admin_connection *connection, enum wait wait)
{
    static const uint64_t times_ns[] = {
        [WAIT_HEAD] = HEAD_TIME_NS,
        [WAIT_IDLE] = IDLE_TIME_NS,
        [WAIT_WRITE] = WRITE_TIME_NS,
        [WAIT_ENDING] = ENDING_TIME_NS,
    };
    if (connection->wait != wait) {
        connection->wait = wait;
        loop_timer_set(&connection->timer, times_ns[wait]);
    }
}

/* Writes and frees out; false when the connection is broken. */
static bool send_out(struct admin_connection *connection, struct buffer *out, bool last)
{
    struct error error;
    bool sent = transport_write_slice(connection->transport, buffer_slice(out), &error);
    buffer_free(out);
    if (sent && last) {
        transport_shutdown_write(connection->transport);
        connection->ending = true;
        buffer_free(&connection->input);
    }
    connection->wait = WAIT_NONE;
    return sent;
}

static bool answer_problem(struct admin_connection *connection, enum http_fault fault, const char *message)
{
    struct buffer out = {0};
    admin_answer_fault(fault, message, &out);
    return send_out(connection, &out, true);
}

/* One head is complete. False when the connection is broken. */
static bool answer_request(struct admin_connection *connection)
{
    struct http_problem problem;
    struct slice head = {buffer_data(&connection->input), connection->scan.offset};
    struct buffer out = {0};

    if (!http_parse_request(head, &limits, &connection->request, &problem)) {
        return answer_problem(connection, problem.fault, problem.message);
    }
    bool go_on = admin_answer(connection->settings, &connection->request, &out);
    buffer_consume(&connection->input, head.size);
    connection->scan = (struct http_scan){0};
    return send_out(connection, &out, !go_on);
}

/* Answers what can be answered. False when the connection is broken. */
static bool serve(struct admin_connection *connection)
{
    while (!connection->ending && transport_pending(connection->transport) == 0) {
        struct http_problem problem;
        switch (
            http_scan_head(&connection->scan, buffer_slice(&connection->input), false, &limits, &problem)) {
        case HTTP_SCAN_INCOMPLETE:
            return true;
        case HTTP_SCAN_REFUSED:
            return answer_problem(connection, problem.fault, problem.message);
        case HTTP_SCAN_COMPLETE:
            if (!answer_request(connection)) {
                return false;
            }
        }
    }
    return true;
}

/* Serves, then waits for what comes next, or closes. */
static void go_on(struct admin_connection *connection)
{
    if (!serve(connection)) {
        admin_connection_close(connection);
        return;
    }
    bool pending = transport_pending(connection->transport) > 0;
    if (connection->peer_ended && !pending) {
        admin_connection_close(connection);
        return;
    }
    transport_set_reading(connection->transport, !connection->peer_ended && (connection->ending || !pending));
    if (pending) {
        wait_for(connection, WAIT_WRITE);
    } else if (connection->ending) {
        wait_for(connection, WAIT_ENDING);
    } else if (connection->input.size > 0 || connection->wait == WAIT_HEAD) {
        wait_for(connection, WAIT_HEAD);
    } else {
        wait_for(connection, WAIT_IDLE);
    }
}

static void on_readable(void *owner)
{
    struct admin_connection *connection = owner;
    struct error error;
    char thrown_away[READ_SIZE];
    char *into = connection->ending ? thrown_away : buffer_reserve(&connection->input, READ_SIZE);
    ssize_t got = transport_read(connection->transport, into, READ_SIZE, &error);

    if (got == TRANSPORT_AGAIN) {
        return;
    }
    if (got == TRANSPORT_ERROR) {
        admin_connection_close(connection);
        return;
    }
    if (got == TRANSPORT_END) {
        connection->peer_ended = true;
    } else if (!connection->ending) {
        buffer_commit(&connection->input, (size_t)got);
        TAILQ_REMOVE(&connection->all->list, connection, entry);
        TAILQ_INSERT_TAIL(&connection->all->list, connection, entry);
    }
    go_on(connection);
}

static void on_drained(void *owner)
{
    go_on(owner);
}

static void on_failed(void *owner, const struct error *error)
{
    (void)error;
    admin_connection_close(owner);
}

static void on_timeout(void *argument)
{
    struct admin_connection *connection = argument;
    if (connection->wait == WAIT_HEAD && connection->input.size > 0) {
        if (answer_problem(connection, HTTP_REQUEST_TIMEOUT, NULL)) {
            go_on(connection);
            return;
        }
    }
    admin_connection_close(connection);
}

void admin_connection_open(const struct admin_settings *settings, struct admin_connections *connections,
                           int fd)
{
    static const struct transport_callbacks callbacks = {on_readable, on_drained, on_failed};
    struct admin_connection *connection = xcalloc(1, sizeof(*connection));

    connection->settings = settings;
    connection->all = connections;
    connection->transport = transport_new(settings->loop, fd, NULL, &callbacks, connection);
    loop_timer_init(&connection->timer, settings->loop, on_timeout, connection);
    TAILQ_INSERT_TAIL(&connections->list, connection, entry);
    connections->count++;
    wait_for(connection, WAIT_HEAD);
    transport_set_reading(connection->transport, true);
}
