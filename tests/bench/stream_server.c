/*
 * stream_server: an upstream for benchmarks that streams like an LLM and costs next to nothing. Any request with a Content-Length is answered by
 * PIECES server-sent events, one every INTERVAL_MS milliseconds, each in one write and one chunk; GET /count answers the number of pieces
 * written so far. Connections are spread over the milliseconds of the interval, so that pieces do not come in bursts.
 *
 *     stream_server PORT PIECES INTERVAL_MS
 *
 * One thread. For use on loopback by a benchmark that behaves: what does not fit is closed.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 4096
#define MAX_REQUEST     16384

struct connection {
    bool open;
    size_t size;   /* of what was received */
    unsigned left; /* pieces; 0: not streaming */
    char received[MAX_REQUEST + 1];
};

static struct connection *connections[MAX_CONNECTIONS]; /* by file descriptor */
static unsigned pieces_each, interval_ms;
static unsigned long long pieces_written;

static const char head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char event[] =
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1767323045,"
    "\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},"
    "\"finish_reason\":null}]}\n\n";
static const char last_event[] = "data: [DONE]\n\n";
static char piece[512], last_piece[128];

static void close_connection(int fd)
{
    connections[fd]->open = false;
    close(fd);
}

static void send_all(int fd, const char *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        close_connection(fd);
}

static void answer_count(int fd)
{
    char number[32], response[128];
    int digits = snprintf(number, sizeof number, "%llu", pieces_written);
    int size = snprintf(response, sizeof response, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", digits,
                        number);
    send_all(fd, response, (size_t)size);
}

/* Begins to answer when the request is complete. */
static void read_request(int fd)
{
    struct connection *connection = connections[fd];
    char *end = strstr(connection->received, "\r\n\r\n");
    if (end == NULL)
        return;
    size_t length = 0;
    for (char *line = connection->received; line < end; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = strtoul(line + 15, NULL, 10);
    if (connection->size < (size_t)(end + 4 - connection->received) + length)
        return;
    connection->size = 0;
    if (strncmp(connection->received, "GET /count ", 11) == 0) {
        answer_count(fd);
    } else {
        connection->left = pieces_each;
        send_all(fd, head, sizeof head - 1);
    }
}

static void receive(int fd)
{
    struct connection *connection = connections[fd];
    ssize_t got = recv(fd, connection->received + connection->size, MAX_REQUEST - connection->size, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || connection->left > 0) {
        close_connection(fd);
        return;
    }
    connection->size += (size_t)got;
    connection->received[connection->size] = 0;
    read_request(fd);
}

static void accept_one(int listener, int epoll)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= MAX_CONNECTIONS) {
        close(fd);
        return;
    }
    if (connections[fd] == NULL)
        connections[fd] = malloc(sizeof *connections[fd]);
    if (connections[fd] == NULL)
        exit(1);
    connections[fd]->open = true;
    connections[fd]->size = connections[fd]->left = 0;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event_of_socket = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event_of_socket);
}

/* A piece for each connection whose turn this millisecond is. */
static void write_pieces(uint64_t millisecond)
{
    for (int fd = (int)(millisecond % interval_ms); fd < MAX_CONNECTIONS; fd += (int)interval_ms) {
        struct connection *connection = connections[fd];
        if (connection == NULL || !connection->open || connection->left == 0)
            continue;
        pieces_written++;
        connection->left--;
        if (connection->left > 0)
            send_all(fd, piece, strlen(piece));
        else
            send_all(fd, last_piece, strlen(last_piece));
    }
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0) {
        perror("stream_server: listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 4 || (pieces_each = (unsigned)atoi(argv[2])) == 0 ||
        (interval_ms = (unsigned)atoi(argv[3])) == 0) {
        fprintf(stderr, "usage: stream_server PORT PIECES INTERVAL_MS\n");
        return 2;
    }
    snprintf(piece, sizeof piece, "%zx\r\n%s\r\n", sizeof event - 1, event);
    snprintf(last_piece, sizeof last_piece, "%zx\r\n%s\r\n0\r\n\r\n", sizeof last_event - 1, last_event);
    int listener = listen_on((uint16_t)atoi(argv[1])), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ready[256], event_of_listener = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event_of_listener);
    uint64_t done = now_ms();
    for (;;) {
        int count = epoll_wait(epoll, ready, 256, 1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == listener)
                accept_one(listener, epoll);
            else if (connections[ready[i].data.fd]->open)
                receive(ready[i].data.fd);
        }
        for (uint64_t now = now_ms(); done < now; done++)
            write_pieces(done);
    }
}
