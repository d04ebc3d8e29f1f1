/*
 * transport: every byte arrives once and in order, over TCP and over TLS, whatever the sizes and however slow the peer; an end is told from a cut; the owner
 * may free it in every callback. SIGPIPE has its default action here: nothing may raise it.
 */
#include "net_test.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/buffer.h"
#include "net/tls_socket.h"
#include "net/transport.h"

static struct loop *test_loop;
static struct transport *transport;
static bool is_tls;

/* The far end, driven by hand. */
static int peer_fd;
static SSL *peer_ssl;

static struct identity identity;
static SSL_CTX *client_ctx, *server_ctx;

static int readable_count, drained_count, failed_count;
static char failed_text[512];
static struct buffer received;
static ssize_t last_read; /* what the last transport_read() returned */
static struct error last_error;
static size_t read_size; /* at most so much in one call */
static bool read_once;   /* one call for each announcement, instead of all there is */
static bool ignore;      /* reads nothing */
static bool free_in_callback;

/* ------------------------------------------------------------------------------------------------ owner */

static void on_readable(void *owner)
{
    assert_ptr_equal(owner, &received);
    readable_count++;
    if (free_in_callback) {
        transport_free(transport);
        transport = NULL;
        return;
    }
    if (ignore) {
        return;
    }
    do {
        char *room = buffer_reserve(&received, read_size);
        last_read = transport_read(transport, room, read_size, &last_error);
        if (last_read > 0) {
            buffer_commit(&received, (size_t)last_read);
        }
    } while (last_read > 0 && !read_once);
}

static void on_drained(void *owner)
{
    assert_ptr_equal(owner, &received);
    drained_count++;
    assert_int_equal(transport_pending(transport), 0);
    if (free_in_callback) {
        transport_free(transport);
        transport = NULL;
    }
}

static void on_failed(void *owner, const struct error *error)
{
    assert_ptr_equal(owner, &received);
    failed_count++;
    snprintf(failed_text, sizeof failed_text, "%s", error->message);
    if (free_in_callback) {
        transport_free(transport);
        transport = NULL;
    }
}

static const struct transport_callbacks callbacks = {on_readable, on_drained, on_failed};

/* ------------------------------------------------------------------------------------------------ fixture */

static int make_contexts(void **state)
{
    (void)state;
    identity = identity_new(&(struct identity_settings){.name = "peer"});
    server_ctx = server_context(&identity, TLS1_3_VERSION);
    client_ctx = SSL_CTX_new(TLS_client_method());
    return 0;
}

static int free_contexts(void **state)
{
    (void)state;
    SSL_CTX_free(server_ctx);
    SSL_CTX_free(client_ctx);
    identity_free(&identity);
    return 0;
}

static void begin(bool tls, int version)
{
    int fds[2];
    tcp_pair(fds);
    is_tls = tls;
    peer_fd = fds[1];
    peer_ssl = NULL;
    SSL *ssl = NULL;
    if (tls) {
        SSL_CTX_set_min_proto_version(server_ctx, version);
        SSL_CTX_set_max_proto_version(server_ctx, version);
        ssl = SSL_new(client_ctx);
        peer_ssl = SSL_new(server_ctx);
        tls_socket_attach(ssl, fds[0]);
        tls_socket_attach(peer_ssl, fds[1]);
        SSL_set_connect_state(ssl);
        SSL_set_accept_state(peer_ssl);
        int ours = 0, theirs = 0;
        for (int i = 0; i < 10000 && (ours != 1 || theirs != 1); i++) {
            ours = ours == 1 ? 1 : SSL_do_handshake(ssl);
            theirs = theirs == 1 ? 1 : SSL_do_handshake(peer_ssl);
        }
        assert_int_equal(ours, 1);
        assert_int_equal(theirs, 1);
    }
    test_loop = loop_new();
    transport = transport_new(test_loop, fds[0], ssl, &callbacks, &received);
    readable_count = drained_count = failed_count = 0;
    read_size = 65536;
    read_once = ignore = free_in_callback = false;
    last_read = TRANSPORT_AGAIN;
    last_error.message[0] = failed_text[0] = '\0';
}

static int begin_plain(void **state)
{
    (void)state;
    begin(false, 0);
    return 0;
}

static int begin_tls13(void **state)
{
    (void)state;
    begin(true, TLS1_3_VERSION);
    return 0;
}

static int begin_tls12(void **state)
{
    (void)state;
    begin(true, TLS1_2_VERSION);
    return 0;
}

static void peer_close(void)
{
    SSL_free(peer_ssl);
    peer_ssl = NULL;
    if (peer_fd >= 0) {
        close(peer_fd);
    }
    peer_fd = -1;
}

static int end(void **state)
{
    (void)state;
    transport_free(transport);
    peer_close();
    loop_free(test_loop);
    buffer_free(&received);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ peer */

/* -1: nothing now. -2: a reset or a TLS error. */
static ssize_t peer_read(char *data, size_t size)
{
    if (peer_ssl == NULL) {
        ssize_t got = recv(peer_fd, data, size, 0);
        return got < 0 && errno != EAGAIN ? -2 : got;
    }
    size_t got = 0;
    struct failure failure;
    tls_socket_prepare();
    int result = SSL_read_ex(peer_ssl, data, size, &got);
    switch (tls_socket_outcome(peer_ssl, result, &failure)) {
    case TLS_DONE:
        return (ssize_t)got;
    case TLS_CLOSED:
        return 0;
    case TLS_FAILED:
        return -2;
    default:
        return -1;
    }
}

static void peer_write(const char *data, size_t size)
{
    while (size > 0) {
        size_t sent = 0;
        if (peer_ssl == NULL) {
            ssize_t result = send(peer_fd, data, size, MSG_NOSIGNAL);
            assert_true(result > 0 || errno == EAGAIN);
            sent = result > 0 ? (size_t)result : 0;
        } else {
            tls_socket_prepare();
            SSL_write_ex(peer_ssl, data, size, &sent);
        }
        data += sent;
        size -= sent;
        turn(test_loop);
    }
}

/* The end of the peer's stream, in order. */
static void peer_end(void)
{
    if (peer_ssl != NULL) {
        SSL_shutdown(peer_ssl);
    }
    shutdown(peer_fd, SHUT_WR);
}

static char pattern(size_t i)
{
    return (char)('A' + (i * 2654435761U >> 13) % 53);
}

static char *make_pattern(size_t size)
{
    char *data = xmalloc(size);
    for (size_t i = 0; i < size; i++) {
        data[i] = pattern(i);
    }
    return data;
}

/* Reads size bytes of the pattern at the peer while the loop runs. */
static void peer_expect_pattern(size_t size)
{
    size_t at = 0;
    char data[50000];
    wait_until_with(test_loop, at == size, {
        ssize_t got;
        while ((got = peer_read(data, sizeof data)) > 0) {
            for (size_t i = 0; i < (size_t)got; i++, at++) {
                if (data[i] != pattern(at)) {
                    fail_msg("byte %zu is wrong", at);
                }
            }
        }
        assert_true(got != -2);
    });
}

static void write_text_to_peer(const char *text)
{
    struct error error;
    assert_true(transport_write_slice(transport, slice_of(text), &error));
}

/* Writes until the kernel takes no more. */
static size_t fill(void)
{
    size_t size = (size_t)3 << 20;
    char *data = make_pattern(size);
    struct error error;
    assert_true(transport_write_slice(transport, (struct slice){data, size}, &error));
    free(data);
    assert_true(transport_pending(transport) > 0);
    return size;
}

/* ------------------------------------------------------------------------------------------------ reading */

static void bytes_are_announced_and_read_in_order(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    assert_true(transport_is_reading(transport));
    size_t size = 3 * 1000 * 1000;
    char *data = make_pattern(size);
    peer_write(data, size);
    wait_until(test_loop, received.size == size);
    assert_memory_equal(buffer_data(&received), data, size);
    assert_int_equal(last_read, TRANSPORT_AGAIN);
    free(data);
}

static void what_is_left_unread_is_announced_again(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    read_once = true;
    read_size = 7;
    char *data = make_pattern(1000);
    peer_write(data, 1000);
    wait_until(test_loop, received.size == 1000);
    assert_memory_equal(buffer_data(&received), data, 1000);
    free(data);
}

static void an_owner_that_reads_nothing_does_not_stop_the_loop(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    ignore = true;
    peer_write("x", 1);
    wait_until(test_loop, readable_count > 3);
    ignore = false;
    wait_until(test_loop, received.size == 1);
}

static void nothing_is_announced_while_reading_is_off(void **state)
{
    (void)state;
    peer_write("hello", 5);
    turns(test_loop);
    assert_int_equal(readable_count, 0);
    transport_set_reading(transport, true);
    wait_until(test_loop, received.size == 5);
    transport_set_reading(transport, false);
    peer_write("again", 5);
    turns(test_loop);
    assert_int_equal(received.size, 5);
    transport_set_reading(transport, true);
    transport_set_reading(transport, false);
    transport_set_reading(transport, true);
    wait_until(test_loop, received.size == 10);
}

static void bytes_that_were_decrypted_while_reading_was_off_are_announced(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    read_once = true;
    read_size = 2;
    peer_write("hello", 5);
    wait_until(test_loop, received.size == 2);
    transport_set_reading(transport, false);
    turns(test_loop);
    assert_int_equal(received.size, 2);
    transport_set_reading(transport, true);
    wait_until(test_loop, received.size == 5);

    /* Also when the owner reads by itself, outside of the callback, and leaves some. */
    ignore = true;
    peer_write("world", 5);
    int before = readable_count;
    wait_until(test_loop, readable_count > before);
    char byte;
    assert_int_equal(transport_read(transport, &byte, 1, &last_error), 1);
    before = readable_count;
    wait_until(test_loop, readable_count > before);
    ignore = false;
    wait_until(test_loop, received.size == 9);
}

static void small_pieces_are_read_together(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        peer_write("data: {}\n\n", 10);
    }
    int on_the_way = 1;
    wait_until(test_loop, ioctl(peer_fd, SIOCOUTQ, &on_the_way) == 0 && on_the_way == 0);
    transport_set_reading(transport, true);
    read_once = true;
    wait_until(test_loop, received.size == 500);
    assert_int_equal(readable_count, 1);
}

static void an_end_is_told_after_the_bytes_before_it_and_only_once(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    read_once = true;
    peer_write("bye", 3);
    peer_end();
    wait_until(test_loop, last_read == TRANSPORT_END);
    assert_int_equal(received.size, 3);
    assert_false(transport_is_reading(transport));
    int count = readable_count;
    turns(test_loop);
    assert_int_equal(readable_count, count);
    assert_int_equal(transport_read(transport, failed_text, 1, &last_error), TRANSPORT_END);
    assert_false(transport_was_truncated(transport));
    /* Asked for again it is told again. */
    last_read = TRANSPORT_AGAIN;
    transport_set_reading(transport, true);
    wait_until(test_loop, last_read == TRANSPORT_END);
    /* The other direction goes on. */
    write_text_to_peer("still here");
    char data[32];
    ssize_t got;
    wait_until(test_loop, (got = peer_read(data, sizeof data)) > 0);
    assert_int_equal(got, 10);
}

static void a_close_notify_without_fin_is_announced(void **state)
{
    (void)state;
    peer_write("bye", 3);
    SSL_shutdown(peer_ssl);
    transport_set_reading(transport, true);
    read_once = true;
    wait_until(test_loop, last_read == TRANSPORT_END);
    assert_int_equal(received.size, 3);
}

static void a_fin_without_close_notify_is_a_cut(void **state)
{
    (void)state;
    peer_write("half", 4);
    shutdown(peer_fd, SHUT_WR);
    transport_set_reading(transport, true);
    read_once = true;
    wait_until(test_loop, last_read == TRANSPORT_ERROR);
    assert_int_equal(received.size, 4);
    assert_string_equal(last_error.message, "closed without close_notify");
    assert_true(transport_was_truncated(transport));
    assert_int_equal(transport_read(transport, failed_text, 1, &last_error), TRANSPORT_ERROR);
}

static void a_reset_is_an_error_for_ever(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    close_with_reset(peer_fd);
    peer_fd = -1;
    wait_until(test_loop, last_read == TRANSPORT_ERROR);
    assert_string_equal(last_error.message, "connection reset by peer");
    assert_false(transport_was_truncated(transport));
    assert_false(transport_is_reading(transport));
    last_error.message[0] = '\0';
    assert_int_equal(transport_read(transport, failed_text, 1, &last_error), TRANSPORT_ERROR);
    assert_string_equal(last_error.message, "connection reset by peer");
    int count = readable_count;
    turns(test_loop);
    assert_int_equal(readable_count, count);
}

static void a_reset_that_a_write_met_is_no_end_for_the_reader(void **state)
{
    (void)state;
    close_with_reset(peer_fd);
    peer_fd = -1;
    struct error error;
    assert_false(transport_write_slice(transport, SLICE("x"), &error));
    assert_string_equal(error.message, "connection reset by peer");
    assert_false(transport_write_slice(transport, SLICE("x"), &error));
    assert_string_equal(error.message, "connection reset by peer");
    transport_set_reading(transport, true);
    wait_until(test_loop, last_read == TRANSPORT_ERROR);
}

static void a_changed_record_is_an_error(void **state)
{
    (void)state;
    static const unsigned char record[] = {23, 3,  3,  0,  20, 1,  2,  3,  4,  5,  6,  7, 8,
                                           9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
    assert_int_equal(send(peer_fd, record, sizeof record, 0), sizeof record);
    transport_set_reading(transport, true);
    wait_until(test_loop, last_read == TRANSPORT_ERROR);
    assert_true(last_error.message[0] != 0); /* in OpenSSL's words, which change with its version */
    assert_int_equal(received.size, 0);
}

/* What the peer sends, cut into single bytes on the way. */
static void records_may_arrive_byte_by_byte(void **state)
{
    (void)state;
    BIO *sent = BIO_new(BIO_s_mem());
    SSL_set0_wbio(peer_ssl, sent);
    assert_int_equal(SSL_write(peer_ssl, "first", 5), 5);
    assert_int_equal(SSL_write(peer_ssl, "second", 6), 6);
    SSL_shutdown(peer_ssl);
    char *bytes;
    long size = BIO_get_mem_data(sent, &bytes);
    transport_set_reading(transport, true);
    for (long i = 0; i < size; i++) {
        assert_int_equal(send(peer_fd, bytes + i, 1, 0), 1);
        int count = readable_count;
        wait_until(test_loop, readable_count > count);
        /* Half a record is not announced again and again. */
        count = readable_count;
        turn(test_loop);
        turn(test_loop);
        turn(test_loop);
        assert_true(readable_count <= count + 1);
    }
    assert_int_equal(received.size, 11);
    assert_memory_equal(buffer_data(&received), "firstsecond", 11);
    assert_int_equal(last_read, TRANSPORT_END);
}

/* ------------------------------------------------------------------------------------------------ writing */

static void pieces_arrive_as_one_stream(void **state)
{
    (void)state;
    char *data = make_pattern(200000);
    static const size_t sizes[] = {1, 0, 5, 16383, 16384, 16385, 2, 100000, 3, 0, 40000, 1};
    struct iovec pieces[sizeof sizes / sizeof sizes[0]];
    size_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        pieces[i] = (struct iovec){.iov_base = data + at, .iov_len = sizes[i]};
        at += sizes[i];
    }
    struct error error;
    assert_true(transport_write(transport, pieces, sizeof sizes / sizeof sizes[0], &error));
    peer_expect_pattern(at);
    assert_int_equal(transport_bytes_written(transport), at);
    assert_int_equal(transport_pending(transport), 0);
    free(data);
}

static void more_pieces_than_the_kernel_takes_at_once_arrive(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    char *data = make_pattern(COUNT);
    struct iovec pieces[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        pieces[i] = (struct iovec){.iov_base = data + i, .iov_len = 1};
    }
    struct error error;
    assert_true(transport_write(transport, pieces, COUNT, &error));
    peer_expect_pattern(COUNT);
    free(data);
}

static void nothing_to_write_is_written(void **state)
{
    (void)state;
    struct error error;
    assert_true(transport_write(transport, NULL, 0, &error));
    assert_true(transport_write_slice(transport, (struct slice){NULL, 0}, &error));
    char byte;
    assert_int_equal(peer_read(&byte, 1), -1);
}

static void what_a_slow_peer_does_not_take_is_pending_until_drained(void **state)
{
    (void)state;
    size_t size = fill();
    turns(test_loop);
    assert_int_equal(drained_count, 0);
    /* Behind it comes what is written later, in order. */
    char *data = make_pattern(size + 100000);
    struct iovec pieces[2] = {{data + size, 40000}, {data + size + 40000, 60000}};
    size_t pending = transport_pending(transport);
    struct error error;
    assert_true(transport_write(transport, pieces, 2, &error));
    assert_int_equal(transport_pending(transport), pending + 100000);
    free(data);
    peer_expect_pattern(size + 100000);
    wait_until(test_loop, drained_count > 0);
    turns(test_loop);
    assert_int_equal(drained_count, 1);
    assert_int_equal(transport_pending(transport), 0);
    assert_int_equal(transport_bytes_written(transport), size + 100000);
}

static void a_write_tells_its_time(void **state)
{
    (void)state;
    uint64_t created = transport_last_write_ns(transport);
    assert_true(created > 0 && created <= clock_monotonic_ns());
    write_text_to_peer("x");
    assert_true(transport_last_write_ns(transport) > created);
    char first;
    assert_true(peer_read(&first, 1) == 1);
    size_t size = fill();
    uint64_t stuck = transport_last_write_ns(transport);
    write_text_to_peer((char[]){pattern(size), '\0'}); /* queued behind the rest */
    assert_int_equal(transport_last_write_ns(transport), stuck);
    peer_expect_pattern(size + 1);
    wait_until(test_loop, drained_count == 1);
    assert_true(transport_last_write_ns(transport) > stuck);
}

/* However long ago the kernel last took something. */
static void the_time_of_a_write_that_waits_begins_with_the_waiting(void **state)
{
    (void)state;
    static const char block[65536];
    while (send(transport_fd(transport), block, sizeof block, MSG_NOSIGNAL) > 0) {
    }
    usleep(1000);
    uint64_t before = clock_monotonic_ns();
    write_text_to_peer("x");
    assert_int_equal(transport_pending(transport), 1);
    assert_true(transport_last_write_ns(transport) >= before);
}

static void both_directions_at_once(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    size_t size = fill();
    char *data = make_pattern(1000000);
    peer_write(data, 1000000);
    peer_expect_pattern(size);
    wait_until(test_loop, received.size == 1000000);
    assert_memory_equal(buffer_data(&received), data, 1000000);
    free(data);
}

static void a_peer_that_resets_fails_what_is_pending(void **state)
{
    (void)state;
    fill();
    close_with_reset(peer_fd);
    peer_fd = -1;
    wait_until(test_loop, failed_count > 0);
    assert_string_equal(failed_text, "connection reset by peer");
    turns(test_loop);
    assert_int_equal(failed_count, 1);
    assert_int_equal(drained_count, 0);
    assert_int_equal(transport_pending(transport), 0);
    struct error error;
    assert_false(transport_write_slice(transport, SLICE("x"), &error));
}

static void a_half_close_comes_after_what_is_pending(void **state)
{
    (void)state;
    size_t size = fill();
    transport_shutdown_write(transport);
    transport_shutdown_write(transport);
    struct error error;
    assert_false(transport_write_slice(transport, SLICE("late"), &error));
    peer_expect_pattern(size);
    char byte;
    ssize_t got;
    wait_until(test_loop, (got = peer_read(&byte, 1)) != -1);
    assert_int_equal(got, 0);
    assert_int_equal(drained_count, 1);
    /* The peer can still answer. */
    transport_set_reading(transport, true);
    peer_write("answer", 6);
    wait_until(test_loop, received.size == 6);
}

static void a_half_close_with_nothing_pending_is_at_once(void **state)
{
    (void)state;
    write_text_to_peer("all");
    transport_shutdown_write(transport);
    char data[8];
    ssize_t got;
    wait_until(test_loop, (got = peer_read(data, sizeof data)) != -1);
    assert_int_equal(got, 3);
    wait_until(test_loop, (got = peer_read(data, sizeof data)) != -1);
    assert_int_equal(got, 0);
    assert_int_equal(drained_count, 0);
}

/* A key update makes a read need a write. (A second one before the first could be answered is more than OpenSSL 3.0 can do.) */
static void a_key_update_while_bytes_are_pending_loses_nothing(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    size_t size = fill();
    char *data = make_pattern(300000);
    peer_write(data, 100000);
    SSL_key_update(peer_ssl, SSL_KEY_UPDATE_REQUESTED);
    peer_write(data + 100000, 200000);
    wait_until(test_loop, received.size == 300000);
    peer_expect_pattern(size);
    assert_memory_equal(buffer_data(&received), data, 300000);
    free(data);
    SSL_key_update(peer_ssl, SSL_KEY_UPDATE_REQUESTED);
    peer_write("x", 1);
    wait_until(test_loop, received.size == 300001);
    write_text_to_peer("y");
    char byte;
    wait_until(test_loop, peer_read(&byte, 1) == 1);
    assert_int_equal(byte, 'y');
}

/* ------------------------------------------------------------------------------------------------ life */

static void the_owner_may_free_it_when_readable(void **state)
{
    (void)state;
    free_in_callback = true;
    transport_set_reading(transport, true);
    peer_write("x", 1);
    wait_until(test_loop, transport == NULL);
    turns(test_loop);
    assert_int_equal(readable_count, 1);
}

static void the_owner_may_free_it_when_drained(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    turns(
        test_loop); /* session tickets are read: the kernel resets a connection that is closed with bytes unread */
    size_t size = fill();
    free_in_callback = true;
    peer_expect_pattern(size);
    wait_until(test_loop, transport == NULL);
    turns(test_loop);
}

static void the_owner_may_free_it_when_failed(void **state)
{
    (void)state;
    fill();
    free_in_callback = true;
    close_with_reset(peer_fd);
    peer_fd = -1;
    wait_until(test_loop, transport == NULL);
    turns(test_loop);
    assert_int_equal(failed_count, 1);
}

static void it_may_be_freed_with_everything_under_way(void **state)
{
    (void)state;
    transport_set_reading(transport, true);
    read_once = true;
    read_size = 1;
    peer_write("several", 7);
    fill();
    wait_until(test_loop, received.size > 0);
    transport_free(transport);
    transport = NULL;
    turns(test_loop);
}

static int other_readable;

static void on_other_readable(void *owner)
{
    assert_ptr_equal(owner, &other_readable);
    other_readable++;
    char data[16];
    assert_int_equal(transport_read(transport, data, sizeof data, &last_error), 2);
}

static void it_changes_hands(void **state)
{
    (void)state;
    static const struct transport_callbacks others = {.on_readable = on_other_readable};
    transport_set_reading(transport, true);
    peer_write("a", 1);
    wait_until(test_loop, received.size == 1);
    transport_set_owner(transport, &others, &other_readable);
    other_readable = 0;
    assert_int_equal(send(peer_fd, "", 0, MSG_NOSIGNAL), 0);
    peer_write("bc", 2);
    wait_until(test_loop, other_readable == 1);
    assert_int_equal(received.size, 1);
}

static void a_close_is_an_end_for_the_peer(void **state)
{
    (void)state;
    write_text_to_peer("x");
    transport_free(transport);
    transport = NULL;
    char data[4];
    assert_int_equal(peer_read(data, sizeof data), 1);
    assert_int_equal(peer_read(data, sizeof data), 0);
}

static void a_reset_is_no_end_for_the_peer(void **state)
{
    (void)state;
    transport_free_with_reset(transport);
    transport = NULL;
    char data[4];
    assert_int_equal(peer_read(data, sizeof data), -2);
}

static void an_idle_connection_is_quiet_until_something_comes(void **state)
{
    (void)state;
    assert_true(transport_is_quiet(transport)); /* session tickets do not count */
    assert_true(transport_is_quiet(transport));
    peer_write("x", 1);
    assert_false(transport_is_quiet(transport));
}

static void a_closed_connection_is_not_quiet(void **state)
{
    (void)state;
    assert_true(transport_is_quiet(transport));
    assert_false(transport_peer_is_gone(transport));
    peer_end();
    assert_false(transport_is_quiet(transport));
    assert_true(transport_peer_is_gone(transport));
    assert_false(transport_is_reset(transport));
}

static void a_reset_connection_is_not_quiet(void **state)
{
    (void)state;
    close_with_reset(peer_fd);
    peer_fd = -1;
    assert_true(transport_peer_is_gone(transport));
    assert_true(transport_is_reset(transport));
    assert_false(transport_is_quiet(transport));
}

static void the_beginning_of_a_record_is_not_quiet(void **state)
{
    (void)state;
    assert_true(transport_is_quiet(transport));
    assert_int_equal(send(peer_fd, "\x17", 1, 0), 1);
    assert_false(transport_is_quiet(transport));
}

static void a_gone_peer_is_seen_past_unread_bytes(void **state)
{
    (void)state;
    peer_write("unread", 6);
    assert_false(transport_peer_is_gone(transport));
    peer_end();
    assert_true(transport_peer_is_gone(transport));
}

#define plain(name)                                                                                          \
    {                                                                                                        \
#name ", plain", name, begin_plain, end, NULL                                                        \
    }
#define tls13(name)                                                                                          \
    {                                                                                                        \
#name ", TLS 1.3", name, begin_tls13, end, NULL                                                      \
    }
#define tls12(name)                                                                                          \
    {                                                                                                        \
#name ", TLS 1.2", name, begin_tls12, end, NULL                                                      \
    }
#define every(name) plain(name), tls13(name), tls12(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        every(bytes_are_announced_and_read_in_order),
        every(what_is_left_unread_is_announced_again),
        every(an_owner_that_reads_nothing_does_not_stop_the_loop),
        every(nothing_is_announced_while_reading_is_off),
        every(bytes_that_were_decrypted_while_reading_was_off_are_announced),
        every(small_pieces_are_read_together),
        every(an_end_is_told_after_the_bytes_before_it_and_only_once),
        tls13(a_close_notify_without_fin_is_announced),
        tls12(a_close_notify_without_fin_is_announced),
        tls13(a_fin_without_close_notify_is_a_cut),
        tls12(a_fin_without_close_notify_is_a_cut),
        every(a_reset_is_an_error_for_ever),
        every(a_reset_that_a_write_met_is_no_end_for_the_reader),
        tls13(a_changed_record_is_an_error),
        tls12(a_changed_record_is_an_error),
        tls13(records_may_arrive_byte_by_byte),
        tls12(records_may_arrive_byte_by_byte),
        every(pieces_arrive_as_one_stream),
        every(more_pieces_than_the_kernel_takes_at_once_arrive),
        every(nothing_to_write_is_written),
        every(what_a_slow_peer_does_not_take_is_pending_until_drained),
        every(a_write_tells_its_time),
        plain(the_time_of_a_write_that_waits_begins_with_the_waiting),
        every(both_directions_at_once),
        every(a_peer_that_resets_fails_what_is_pending),
        every(a_half_close_comes_after_what_is_pending),
        every(a_half_close_with_nothing_pending_is_at_once),
        tls13(a_key_update_while_bytes_are_pending_loses_nothing),
        every(the_owner_may_free_it_when_readable),
        every(the_owner_may_free_it_when_drained),
        every(the_owner_may_free_it_when_failed),
        every(it_may_be_freed_with_everything_under_way),
        every(it_changes_hands),
        every(a_close_is_an_end_for_the_peer),
        every(a_reset_is_no_end_for_the_peer),
        every(an_idle_connection_is_quiet_until_something_comes),
        every(a_closed_connection_is_not_quiet),
        every(a_reset_connection_is_not_quiet),
        tls13(the_beginning_of_a_record_is_not_quiet),
        tls12(the_beginning_of_a_record_is_not_quiet),
        every(a_gone_peer_is_seen_past_unread_bytes),
    };
    return cmocka_run_group_tests(tests, make_contexts, free_contexts);
}
