/*
 * The answer of a forward proxy to CONNECT: any bytes open the tunnel or fail with a reason, the same one however they arrive. It is open exactly at the end of a head that the HTTP codec takes for one, too, with a
 * status of 2xx, and only when nothing has come behind it: those bytes would be taken for the peer's.
 */
#include "net/tunnel.h"

#include <sys/socket.h>
#include <unistd.h>

#include "heads.h"

/* Each byte is a turn of system calls: more of them show nothing new. */
#define MOST_SINGLE_BYTES 600

struct answered {
    enum tunnel_outcome outcome;
    size_t arrived;
    char why[TUNNEL_TEXT_SIZE];
};

static struct answered answer(struct slice input, enum fuzz_cut cut)
{
    struct answered answered = {.outcome = TUNNEL_WANT_READ, .why = ""};
    struct fuzz_cutter cutter = fuzz_cutter(cut, input, 0);
    struct slice request = SLICE("CONNECT a.test:443 HTTP/1.1\r\n\r\n"), piece;
    char got[64];
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    struct tunnel *tunnel = tunnel_new(request);
    REQUIRE(tunnel_advance(tunnel, fds[0], answered.why) == TUNNEL_WANT_READ);
    REQUIRE(recv(fds[1], got, sizeof got, 0) == (ssize_t)request.size &&
            memcmp(got, request.data, request.size) == 0);
    while (answered.outcome == TUNNEL_WANT_READ && (piece = fuzz_next_piece(&cutter)).size > 0) {
        REQUIRE(send(fds[1], piece.data, piece.size, MSG_NOSIGNAL) == (ssize_t)piece.size);
        answered.arrived += piece.size;
        answered.outcome = tunnel_advance(tunnel, fds[0], answered.why);
        REQUIRE(answered.outcome != TUNNEL_WANT_WRITE);
    }
    fuzz_show_rest(&cutter);
    REQUIRE(answered.outcome != TUNNEL_FAILED || answered.why[0] != 0);
    tunnel_free(tunnel);
    close(fds[0]);
    close(fds[1]);
    return answered;
}

static void require_head(struct slice input, size_t size)
{
    struct slice head = fuzz_copy((struct slice){input.data, size});
    ((char *)(uintptr_t)head.data)[7] = '1'; /* a later version is read as the one we know (RFC 9110 2.5) */
    struct scanned scanned = scan_cut(head, true, &fuzz_no_limits, FUZZ_WHOLE);
    REQUIRE_MESSAGE(scanned.result == HTTP_SCAN_COMPLETE && scanned.size == head.size,
                    scanned.problem.reason);
    REQUIRE(head.data[9] == '2');
    free((char *)(uintptr_t)head.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    struct answered whole = answer(input, FUZZ_WHOLE);
    if (whole.outcome == TUNNEL_OPEN)
        require_head(input, size);
    for (enum fuzz_cut cut = FUZZ_BYTES; cut < FUZZ_CUTS; cut++) {
        if (cut == FUZZ_BYTES && size > MOST_SINGLE_BYTES)
            continue;
        struct answered pieces = answer(input, cut);
        if (pieces.outcome == TUNNEL_OPEN && pieces.arrived < size) {
            require_head(input, pieces.arrived);
            REQUIRE_MESSAGE(strcmp(whole.why, "sent bytes behind the head of its answer") == 0, whole.why);
        } else {
            REQUIRE_MESSAGE(pieces.outcome == whole.outcome && strcmp(pieces.why, whole.why) == 0,
                            pieces.why);
        }
    }
    free((char *)(uintptr_t)input.data);
    return 0;
}
