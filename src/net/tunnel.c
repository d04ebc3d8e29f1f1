/*
 * tunnel: the request is written, then the answer is judged line by line as it comes, so that junk is told from a slow proxy before the time is up.
 */
#include "net/tunnel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/memory.h"
#include "net/failure.h"

#define MAX_HEAD_BYTES (16 << 10)

struct tunnel {
    struct slice request; /* what is left of it */
    bool has_status;
    size_t line; /* where the first line that is not complete yet begins */
    size_t size;
    char head[MAX_HEAD_BYTES];
};

void tunnel_proxy_free(struct tunnel_proxy *proxy)
{
    if (proxy != NULL) {
        free(proxy->host);
        free(proxy->request);
        free(proxy);
    }
}

struct tunnel *tunnel_new(struct slice request)
{
    struct tunnel *tunnel = xcalloc(1, sizeof *tunnel);
    tunnel->request = request;
    return tunnel;
}

void tunnel_free(struct tunnel *tunnel)
{
    free(tunnel);
}

static enum tunnel_outcome failed(char why[TUNNEL_TEXT_SIZE], const char *text)
{
    snprintf(why, TUNNEL_TEXT_SIZE, "%s", text);
    return TUNNEL_FAILED;
}

/* ------------------------------------------------------------------------------------------------ the answer */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A tab, or a character that is shown; bytes of other character sets as well. */
static bool is_text(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Could these bytes be, or begin, a status line? */
static bool begins_like_http(struct slice begin)
{
    struct slice expected = SLICE("HTTP/1.");
    expected.size = begin.size < expected.size ? begin.size : expected.size;
    return slice_starts_with(begin, expected);
}

/* "HTTP/1.1 200 Connection established", the phrase may be missing: 200; 0 for what is no status line. */
static int status_of(struct slice line)
{
    const char *text = line.data;
    bool well_formed = line.size >= 12 && begins_like_http(line) && is_digit(text[7]) && text[8] == ' ' &&
                       text[9] >= '1' && text[9] <= '5' && is_digit(text[10]) && is_digit(text[11]) &&
                       (line.size == 12 || text[12] == ' ') && is_text(line);
    return well_formed ? (text[9] - '0') * 100 + (text[10] - '0') * 10 + text[11] - '0' : 0;
}

static bool is_field(struct slice line)
{
    static const char letters[] =
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t name = 0;
    while (name < line.size && memchr(letters, line.data[name], sizeof letters - 1) != NULL) {
        name++;
    }
    return name > 0 && name < line.size && line.data[name] == ':' && is_text(line);
}

static enum tunnel_outcome take_status(struct tunnel *tunnel, struct slice line, char why[TUNNEL_TEXT_SIZE])
{
    int status = status_of(line);
    if (status == 0) {
        return failed(why, "the answer is not HTTP");
    }
    if (status < 200 || status > 299) {
        snprintf(why, TUNNEL_TEXT_SIZE, "refused with status %d", status);
        return TUNNEL_FAILED;
    }
    tunnel->has_status = true;
    return TUNNEL_WANT_READ;
}

/* Judges the lines that have become complete. */
static enum tunnel_outcome take_lines(struct tunnel *tunnel, char why[TUNNEL_TEXT_SIZE])
{
    while (tunnel->line < tunnel->size) {
        struct slice rest = {tunnel->head + tunnel->line, tunnel->size - tunnel->line};
        const char *end = memchr(rest.data, '\n', rest.size);
        if (end == NULL) {
            bool hopeful = tunnel->has_status || begins_like_http(rest);
            return hopeful ? TUNNEL_WANT_READ : failed(why, "the answer is not HTTP");
        }
        tunnel->line += (size_t)(end - rest.data) + 1;
        struct slice line = slice_range(rest.data, end);
        bool ended_well = line.size > 0 && line.data[line.size - 1] == '\r';
        line.size -= ended_well;
        if (!tunnel->has_status) {
            enum tunnel_outcome outcome =
                ended_well ? take_status(tunnel, line, why) : failed(why, "the answer is not HTTP");
            if (outcome == TUNNEL_FAILED) {
                return outcome;
            }
        } else if (ended_well && line.size == 0) {
            return tunnel->line == tunnel->size ? TUNNEL_OPEN
                                                : failed(why, "sent bytes behind the head of its answer");
        } else if (!ended_well || !is_field(line)) {
            return failed(why, "the head of the answer is malformed");
        }
    }
    return TUNNEL_WANT_READ;
}

/* ------------------------------------------------------------------------------------------------ the socket */

static enum tunnel_outcome stopped(enum tunnel_outcome want, char why[TUNNEL_TEXT_SIZE])
{
    if (errno == EAGAIN) {
        return want;
    }
    failure_text_of_errno(errno, why);
    return TUNNEL_FAILED;
}

enum tunnel_outcome tunnel_advance(struct tunnel *tunnel, int fd, char why[TUNNEL_TEXT_SIZE])
{
    _Static_assert(TUNNEL_TEXT_SIZE >= FAILURE_TEXT_SIZE, "why takes a failure's text");
    while (tunnel->request.size > 0) {
        ssize_t sent = send(fd, tunnel->request.data, tunnel->request.size, MSG_NOSIGNAL);
        if (sent < 0) {
            return stopped(TUNNEL_WANT_WRITE, why);
        }
        tunnel->request.data += sent;
        tunnel->request.size -= (size_t)sent;
    }
    while (tunnel->size < sizeof tunnel->head) {
        ssize_t got = recv(fd, tunnel->head + tunnel->size, sizeof tunnel->head - tunnel->size, 0);
        if (got < 0) {
            return stopped(TUNNEL_WANT_READ, why);
        }
        if (got == 0) {
            return failed(why, "closed the connection");
        }
        tunnel->size += (size_t)got;
        enum tunnel_outcome outcome = take_lines(tunnel, why);
        if (outcome != TUNNEL_WANT_READ) {
            return outcome;
        }
    }
    return failed(why, "the head of the answer is larger than 16 KiB");
}
