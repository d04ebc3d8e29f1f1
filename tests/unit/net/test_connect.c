/*
 * connect: one callback, late enough, and never after a cancel; the first address that answers wins; no connection to a server whose certificate does not
 * convince; errors that tell what to look at. The servers are driven by hand on the same thread, so that every phase can be stopped in.
 */
#include "net_test.h"

#include "net/connect.h"
#include "net/tls_socket.h"

#define FAKE_NAMES                                                                                           \
    {"server.example", {"127.0.0.1"}}, {"both.example", {"127.0.0.2", "127.0.0.1"}},                         \
        {"dead.example", {"127.0.0.2", "127.0.0.3"}}, {"slow.example", {"127.0.0.1"}},                       \
    {                                                                                                        \
        "broken6.example",                                                                                   \
        {                                                                                                    \
            "100::1", "127.0.0.1"                                                                            \
        }                                                                                                    \
    }
#include "fake_names.h"

#define LONG_NS (20 * NANOSECONDS_PER_SECOND)

static struct loop *test_loop;
static struct resolver *resolver;
static uint16_t port; /* of the server, on 127.0.0.1 */
static int listening;

/* What the attempt came to. */
static struct connect_attempt *attempt;
static struct transport *transport;
static int callback_count;
static bool failed;
static enum connect_failure failure;
static struct error last_error;

/* The server's end of the connection. */
static int server_fd;
static SSL *server_ssl;
static SSL_CTX *server_ctx; /* NULL: plain */
static bool server_ready, server_failed;
static bool server_silent; /* accepts, then says nothing */
static char server_saw_name[128];

static char folder[64];
static char ca_path[96], client_path[96];
static struct identity authority;

/* ------------------------------------------------------------------------------------------------ fixture */

static void on_connected(void *owner, struct transport *new_transport)
{
    assert_ptr_equal(owner, &attempt);
    callback_count++;
    transport = new_transport;
}

static void on_failed(void *owner, enum connect_failure why, const struct error *error)
{
    assert_ptr_equal(owner, &attempt);
    callback_count++;
    failed = true;
    failure = why;
    last_error = *error;
}

static const struct connect_callbacks callbacks = {on_connected, on_failed};

static int setup(void **state)
{
    (void)state;
    test_loop = loop_new();
    resolver = resolver_new();
    port = 0;
    listening = listen_on("127.0.0.1", &port, 5);
    fake_hold_slow_names();
    attempt = NULL;
    transport = NULL;
    callback_count = 0;
    failed = false;
    last_error.message[0] = '\0';
    server_fd = -1;
    server_ssl = NULL;
    server_ctx = NULL;
    server_ready = server_failed = server_silent = false;
    server_saw_name[0] = '\0';
    strcpy(folder, "/tmp/llm-proxy-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(ca_path, sizeof ca_path, "%s/ca.pem", folder);
    snprintf(client_path, sizeof client_path, "%s/client.pem", folder);
    authority = identity_new(&(struct identity_settings){.name = "test authority", .authority = true});
    write_certificate(ca_path, "w", &authority);
    return 0;
}

static void server_close(void)
{
    SSL_free(server_ssl);
    server_ssl = NULL;
    if (server_fd >= 0) {
        close(server_fd);
    }
    server_fd = -1;
    server_ready = server_failed = false;
}

static void stop_listening(void)
{
    if (listening >= 0) {
        close(listening);
    }
    listening = -1;
}

static int teardown(void **state)
{
    (void)state;
    transport_free(transport);
    server_close();
    stop_listening();
    SSL_CTX_free(server_ctx);
    resolver_free(resolver);
    loop_free(test_loop);
    fake_let_slow_names_go();
    while (fake_at_once > 0) {
        usleep(100);
    }
    identity_free(&authority);
    unlink(ca_path);
    unlink(client_path);
    rmdir(folder);
    return 0;
}

static int on_name(SSL *ssl, int *alert, void *argument)
{
    (void)alert;
    (void)argument;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    snprintf(server_saw_name, sizeof server_saw_name, "%s", name != NULL ? name : "");
    return SSL_TLSEXT_ERR_OK;
}

/* Makes the server speak TLS with a certificate of its own; what is not said about it is that of a good one for server.example and 127.0.0.1. */
static void serve_tls(struct identity_settings settings, int version)
{
    if (settings.name == NULL) {
        settings.name = "server.example";
    }
    if (settings.alternatives == NULL) {
        settings.alternatives = "DNS:server.example,IP:127.0.0.1";
    }
    struct identity identity = identity_new(&settings);
    SSL_CTX_free(server_ctx);
    server_ctx = server_context(&identity, version);
    SSL_CTX_set_tlsext_servername_callback(server_ctx, on_name);
    identity_free(&identity);
}

/* One step of whatever the server has to do. */
static void serve(void)
{
    if (server_fd < 0 && listening >= 0) {
        server_fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (server_fd >= 0 && server_ctx != NULL && !server_silent) {
            server_ssl = SSL_new(server_ctx);
            tls_socket_attach(server_ssl, server_fd);
            SSL_set_accept_state(server_ssl);
        } else if (server_fd >= 0) {
            server_ready = server_ctx == NULL;
        }
    }
    if (server_ssl != NULL && !server_ready && !server_failed) {
        struct failure why;
        tls_socket_prepare();
        enum tls_outcome outcome = tls_socket_outcome(server_ssl, SSL_do_handshake(server_ssl), &why);
        server_ready = outcome == TLS_DONE;
        server_failed = outcome == TLS_FAILED;
    }
}

static struct tls *make_tls(struct tls_settings settings, const char *host)
{
    struct error error = {0};
    if (settings.ca_file == NULL) {
        settings.ca_file = ca_path;
    }
    struct tls *tls = tls_new(&settings, host, &error);
    if (tls == NULL) {
        fail_msg("%s", error.message);
    }
    return tls;
}

static struct connect_target target;

static void start(const char *host, struct tls *tls, uint64_t timeout_ns)
{
    target = (struct connect_target){.host = host, .port = port, .tls = tls};
    int before = callback_count;
    attempt = connect_start(test_loop, resolver, &target, timeout_ns, &callbacks, &attempt);
    assert_int_equal(callback_count, before);
}

static void expect_connected(void)
{
    wait_until_with(test_loop, callback_count > 0 && (failed || server_ready), serve());
    if (failed) {
        fail_msg("%s", last_error.message);
    }
    turns(test_loop);
    assert_int_equal(callback_count, 1);
    assert_non_null(transport);
}

/* The error ends with text. */
static void expect_failed(enum connect_failure why, const char *text)
{
    wait_until_with(test_loop, callback_count > 0, serve());
    turns(test_loop);
    assert_int_equal(callback_count, 1);
    assert_true(failed);
    assert_int_equal(failure, why);
    if (strstr(last_error.message, text) == NULL) {
        assert_string_equal(last_error.message, text);
    }
}

static void on_nothing(void *owner)
{
    (void)owner;
}

/* Bytes go both ways. */
static void expect_usable(void)
{
    static const struct transport_callbacks quiet = {.on_readable = on_nothing, .on_drained = on_nothing};
    struct error error;
    char data[16] = {0};
    transport_set_owner(transport, &quiet, NULL);
    assert_true(transport_write_slice(transport, SLICE("ping"), &error));
    int got = 0;
    wait_until(test_loop, (got = server_ssl != NULL ? SSL_read(server_ssl, data, sizeof data)
                                                    : (int)recv(server_fd, data, sizeof data, 0)) > 0);
    assert_int_equal(got, 4);
    assert_memory_equal(data, "ping", 4);
    if (server_ssl != NULL) {
        assert_int_equal(SSL_write(server_ssl, "pong!", 5), 5);
    } else {
        assert_int_equal(send(server_fd, "pong!", 5, MSG_NOSIGNAL), 5);
    }
    ssize_t read;
    wait_until(test_loop, (read = transport_read(transport, data, sizeof data, &error)) != TRANSPORT_AGAIN);
    assert_int_equal(read, 5);
    assert_memory_equal(data, "pong!", 5);
}

/* A port on the address whose connections stay on the way for ever: its queue is full. */
static int black_hole_fds[8];
static void black_hole(const char *ip, uint16_t *hole_port)
{
    black_hole_fds[0] = listen_on(ip, hole_port, 0);
    for (int i = 1; i < 8; i++) {
        black_hole_fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct sockaddr_in address = loopback(ip, *hole_port);
        connect(black_hole_fds[i], (struct sockaddr *)&address, sizeof address);
    }
}

static void black_hole_close(void)
{
    for (int i = 0; i < 8; i++) {
        close(black_hole_fds[i]);
    }
}

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

/* ------------------------------------------------------------------------------------------------ TCP */

static void a_literal_and_a_name_connect(void **state)
{
    (void)state;
    start("127.0.0.1", NULL, LONG_NS);
    expect_connected();
    expect_usable();
    int fd = transport_fd(transport);
    assert_true(option(fd, IPPROTO_TCP, TCP_NODELAY) != 0);
    assert_true(option(fd, SOL_SOCKET, SO_KEEPALIVE) != 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_false(transport_is_reading(transport));
    transport_free(transport);
    transport = NULL;
    server_close();
    for (int i = 0; i < 2; i++) { /* asked, then from the cache */
        callback_count = 0;
        start("server.example", NULL, LONG_NS);
        expect_connected();
        expect_usable();
        transport_free(transport);
        transport = NULL;
        server_close();
    }
}

static void a_refused_connection_is_named(void **state)
{
    (void)state;
    stop_listening();
    char expected[128];
    snprintf(expected, sizeof expected, "connect to 127.0.0.1:%u: connection refused", port);
    start("127.0.0.1", NULL, LONG_NS);
    expect_failed(CONNECT_UNREACHABLE, expected);
}

static void all_refused_addresses_are_one_failure(void **state)
{
    (void)state;
    char expected[128];
    snprintf(expected, sizeof expected, "connect to dead.example:%u: connection refused", port);
    start("dead.example", NULL, LONG_NS);
    expect_failed(CONNECT_UNREACHABLE, expected);
}

static void an_ip6_literal_is_named_in_brackets(void **state)
{
    (void)state;
    start("100::1", NULL, 50 * NANOSECONDS_PER_MILLISECOND); /* the discard prefix: no route, or no answer */
    wait_until(test_loop, callback_count == 1);
    char expected[64];
    snprintf(expected, sizeof expected, "connect to [100::1]:%u: ", port);
    assert_memory_equal(last_error.message, expected, strlen(expected));
}

static void an_unknown_name_is_named(void **state)
{
    (void)state;
    start("nowhere.example", NULL, LONG_NS);
    expect_failed(CONNECT_UNREACHABLE, "cannot resolve nowhere.example: name or service not known");
    callback_count = 0;
    start("nowhere.example", NULL, LONG_NS); /* from the cache */
    expect_failed(CONNECT_UNREACHABLE, "cannot resolve nowhere.example: name or service not known");
}

static void after_a_refusal_the_next_address_is_tried(void **state)
{
    (void)state;
    start("both.example", NULL, LONG_NS);
    expect_connected();
    expect_usable();
}

static void after_a_family_without_route_the_other_is_tried(void **state)
{
    (void)state;
    start("broken6.example", NULL, LONG_NS);
    expect_connected();
    expect_usable();
}

static void while_one_address_is_silent_the_next_is_tried(void **state)
{
    (void)state;
    black_hole("127.0.0.2", &port);
    stop_listening();
    listening = listen_on("127.0.0.1", &port, 5);
    int before = open_descriptors();
    start("both.example", NULL, LONG_NS);
    expect_connected();
    expect_usable();
    assert_int_equal(open_descriptors(), before + 2); /* the loser is closed */
    black_hole_close();
}

static void a_silent_address_times_out(void **state)
{
    (void)state;
    uint16_t hole_port = 0;
    black_hole("127.0.0.1", &hole_port);
    port = hole_port;
    char expected[128];
    snprintf(expected, sizeof expected, "connect to 127.0.0.1:%u: timed out", port);
    start("127.0.0.1", NULL, 20 * NANOSECONDS_PER_MILLISECOND);
    expect_failed(CONNECT_TIMED_OUT, expected);
    black_hole_close();
}

static void a_silent_name_server_times_out(void **state)
{
    (void)state;
    start("slow.example", NULL, 20 * NANOSECONDS_PER_MILLISECOND);
    expect_failed(CONNECT_TIMED_OUT, "cannot resolve slow.example: timed out");
}

/* ------------------------------------------------------------------------------------------------ TLS */

static void a_good_certificate_connects(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        callback_count = 0;
        serve_tls((struct identity_settings){.issuer = &authority}, version);
        struct tls *tls = make_tls((struct tls_settings){0}, "server.example");
        start("server.example", tls, LONG_NS);
        expect_connected();
        assert_string_equal(server_saw_name, "server.example");
        const unsigned char *protocol;
        unsigned size;
        SSL_get0_alpn_selected(server_ssl, &protocol, &size);
        assert_int_equal(size, 8);
        assert_memory_equal(protocol, "http/1.1", 8);
        tls_free(tls); /* before its connection */
        expect_usable();
        transport_free(transport);
        transport = NULL;
        server_close();
    }
}

static void an_ip_address_is_checked_and_not_sent_as_a_name(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){.issuer = &authority}, TLS1_3_VERSION);
    struct tls *tls = make_tls((struct tls_settings){0}, "127.0.0.1");
    start("127.0.0.1", tls, LONG_NS);
    expect_connected();
    assert_string_equal(server_saw_name, "");
    tls_free(tls);
}

static void expect_tls_failure(struct tls_settings settings, const char *host, const char *text)
{
    struct tls *tls = make_tls(settings, host);
    int before = open_descriptors();
    start(host, tls, LONG_NS);
    expect_failed(CONNECT_UNREACHABLE, text);
    server_close();
    assert_int_equal(open_descriptors(), before);
    tls_free(tls);
}

static void another_ip_address_is_refused(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){.issuer = &authority, .alternatives = "IP:127.0.0.9,DNS:127.0.0.1"},
              TLS1_3_VERSION);
    expect_tls_failure((struct tls_settings){0}, "127.0.0.1",
                       "TLS handshake with 127.0.0.1: IP address mismatch: the certificate is not for "
                       "127.0.0.1 but for 127.0.0.9, 127.0.0.1");
}

static void another_host_is_refused(void **state)
{
    (void)state;
    serve_tls(
        (struct identity_settings){.issuer = &authority, .alternatives = "DNS:other.example,DNS:s*.example"},
        TLS1_3_VERSION);
    expect_tls_failure((struct tls_settings){0}, "server.example",
                       "TLS handshake with server.example: hostname mismatch: the certificate is not for "
                       "server.example but for other.example, s*.example");
}

static void an_expired_certificate_is_refused(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){.issuer = &authority, .from_s = -7200, .until_s = -3600},
              TLS1_3_VERSION);
    expect_tls_failure(
        (struct tls_settings){0}, "server.example",
        "TLS handshake with server.example: certificate has expired: CN=server.example was valid until 20");
}

static void a_certificate_of_the_future_is_refused(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){.issuer = &authority, .from_s = 3600, .until_s = 7200},
              TLS1_2_VERSION);
    expect_tls_failure((struct tls_settings){0}, "server.example",
                       "TLS handshake with server.example: certificate is not yet valid: CN=server.example "
                       "is valid from 20");
}

static void a_self_signed_certificate_is_refused(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){0}, TLS1_3_VERSION);
    expect_tls_failure((struct tls_settings){0}, "server.example",
                       "TLS handshake with server.example: self-signed certificate: CN=server.example is no "
                       "trusted authority");
}

static void an_unknown_authority_is_refused(void **state)
{
    (void)state;
    struct identity other =
        identity_new(&(struct identity_settings){.name = "other authority", .authority = true});
    serve_tls((struct identity_settings){.issuer = &other}, TLS1_3_VERSION);
    expect_tls_failure(
        (struct tls_settings){0}, "server.example",
        "TLS handshake with server.example: unable to get local issuer certificate: CN=other authority is no "
        "trusted authority, nor was its certificate sent; it issued that of CN=server.example");
    identity_free(&other);
}

static void an_unverified_connection_takes_any_certificate(void **state)
{
    (void)state;
    serve_tls(
        (struct identity_settings){.alternatives = "DNS:other.example", .from_s = -7200, .until_s = -3600},
        TLS1_3_VERSION);
    struct tls *tls = make_tls((struct tls_settings){.insecure = true}, "server.example");
    start("server.example", tls, LONG_NS);
    expect_connected();
    assert_string_equal(server_saw_name, "server.example");
    expect_usable();
    tls_free(tls);
}

static void the_name_can_be_another_than_the_host(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){.issuer = &authority}, TLS1_3_VERSION);
    struct tls *tls = make_tls((struct tls_settings){.server_name = "server.example"}, "127.0.0.1");
    start("127.0.0.1", tls, LONG_NS);
    expect_connected();
    assert_string_equal(server_saw_name, "server.example");
    tls_free(tls);
}

static void an_old_version_is_refused(void **state)
{
    (void)state;
    serve_tls((struct identity_settings){.issuer = &authority}, TLS1_2_VERSION);
    SSL_CTX_set_min_proto_version(server_ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(server_ctx, TLS1_1_VERSION);
    expect_tls_failure((struct tls_settings){0}, "server.example",
                       "TLS handshake with server.example: TLS alert of the peer: protocol version");
}

static void a_server_that_does_not_speak_tls_is_told_so(void **state)
{
    (void)state;
    struct tls *tls = make_tls((struct tls_settings){0}, "server.example");
    start("server.example", tls, LONG_NS);
    wait_until_with(test_loop, server_fd >= 0, serve());
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    assert_int_equal(send(server_fd, answer, sizeof answer - 1, 0), sizeof answer - 1);
    expect_failed(CONNECT_UNREACHABLE, "TLS handshake with server.example: the answer is not TLS");
    tls_free(tls);
}

static void a_server_that_closes_or_resets_is_told_so(void **state)
{
    (void)state;
    struct tls *tls = make_tls((struct tls_settings){0}, "server.example");
    server_ctx = SSL_CTX_new(TLS_server_method());
    server_silent = true;
    start("server.example", tls, LONG_NS);
    wait_until_with(test_loop, server_fd >= 0, serve());
    char data[4096];
    wait_until(test_loop, recv(server_fd, data, sizeof data, 0) > 0);
    server_close();
    stop_listening();
    expect_failed(CONNECT_UNREACHABLE, "TLS handshake with server.example: closed by the peer");

    callback_count = 0;
    listening = listen_on("127.0.0.1", &port, 5);
    start("server.example", tls, LONG_NS);
    wait_until_with(test_loop, server_fd >= 0, serve());
    close_with_reset(server_fd);
    server_fd = -1;
    stop_listening();
    expect_failed(CONNECT_UNREACHABLE, "TLS handshake with server.example: connection reset by peer");
    tls_free(tls);
}

static void a_silent_handshake_times_out(void **state)
{
    (void)state;
    struct tls *tls = make_tls((struct tls_settings){0}, "server.example");
    server_ctx = SSL_CTX_new(TLS_server_method());
    server_silent = true;
    start("127.0.0.1", tls, 50 * NANOSECONDS_PER_MILLISECOND);
    expect_failed(CONNECT_TIMED_OUT, "TLS handshake with 127.0.0.1: timed out");
    tls_free(tls);
}

static void a_client_certificate_is_shown(void **state)
{
    (void)state;
    struct identity client =
        identity_new(&(struct identity_settings){.name = "the client", .issuer = &authority});
    write_certificate(client_path, "w", &client);
    write_key(client_path, "a", &client);
    identity_free(&client);
    serve_tls((struct identity_settings){.issuer = &authority}, TLS1_2_VERSION);
    SSL_CTX_set_verify(server_ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_load_verify_file(server_ctx, ca_path);
    struct tls *tls = make_tls((struct tls_settings){.client_cert = client_path}, "server.example");
    start("server.example", tls, LONG_NS);
    expect_connected();
    X509 *shown = SSL_get0_peer_certificate(server_ssl);
    assert_non_null(shown);
    tls_free(tls);
    transport_free(transport);
    transport = NULL;
    server_close();

    callback_count = 0;
    expect_tls_failure((struct tls_settings){0}, "server.example",
                       "TLS handshake with server.example: TLS alert of the peer: handshake failure");
}

static void a_session_is_resumed(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        serve_tls((struct identity_settings){.issuer = &authority}, version);
        struct tls *tls = make_tls((struct tls_settings){0}, "server.example");
        for (int i = 0; i < 4; i++) {
            callback_count = 0;
            start("server.example", tls, LONG_NS);
            expect_connected();
            expect_usable(); /* the tickets of TLS 1.3 come with the first bytes */
            assert_int_equal(SSL_session_reused(server_ssl), i > 0);
            if (i % 2 == 0) {
                transport_free(transport);
            } else {
                transport_free_with_reset(transport);
            }
            transport = NULL;
            server_close();
        }
        tls_free(tls);
    }
}

/* ------------------------------------------------------------------------------------------------ forward proxy */

static const char CONNECT_REQUEST[] = "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n";

/* To api.example:443, a name that is nowhere known, by the server as the forward proxy. */
static void start_tunnelled(const char *proxy_host, struct tls *tls, uint64_t timeout_ns)
{
    static struct tunnel_proxy proxy;
    proxy = (struct tunnel_proxy){
        .host = (char *)(uintptr_t)proxy_host, .port = port, .request = (char *)(uintptr_t)CONNECT_REQUEST};
    target = (struct connect_target){.host = "api.example", .port = 443, .tls = tls, .proxy = &proxy};
    attempt = connect_start(test_loop, resolver, &target, timeout_ns, &callbacks, &attempt);
    assert_int_equal(callback_count, 0);
}

/* The proxy has the request. */
static void expect_connect_request(void)
{
    char got[256];
    int size;
    wait_until_with(test_loop, server_fd >= 0, serve());
    wait_until(test_loop, (size = (int)recv(server_fd, got, sizeof got, 0)) > 0);
    assert_int_equal(size, sizeof CONNECT_REQUEST - 1);
    assert_memory_equal(got, CONNECT_REQUEST, sizeof CONNECT_REQUEST - 1);
}

static void proxy_answers(const char *text)
{
    assert_int_equal(send(server_fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* "forward proxy HOST:PORT: " and text. */
static const char *blamed(const char *host, const char *text)
{
    static char expected[256];
    snprintf(expected, sizeof expected, "forward proxy %s:%u: %s", host, port, text);
    return expected;
}

static void a_tunnel_leads_to_the_target(void **state)
{
    (void)state;
    start_tunnelled("server.example", NULL, LONG_NS);
    expect_connect_request();
    turns(test_loop);
    assert_int_equal(callback_count, 0);
    proxy_answers("HTTP/1.1 200 OK\r\n\r\n");
    expect_connected();
    expect_usable();
}

static void tls_is_spoken_through_the_tunnel_and_to_the_target(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        callback_count = 0;
        serve_tls((struct identity_settings){.issuer = &authority, .alternatives = "DNS:api.example"},
                  version);
        server_silent = true;
        struct tls *tls = make_tls((struct tls_settings){0}, "api.example");
        start_tunnelled("127.0.0.1", tls, LONG_NS);
        expect_connect_request();
        proxy_answers("HTTP/1.1 200 OK\r\n\r\n");
        server_ssl = SSL_new(server_ctx);
        tls_socket_attach(server_ssl, server_fd);
        SSL_set_accept_state(server_ssl);
        expect_connected();
        assert_string_equal(server_saw_name, "api.example");
        expect_usable();
        transport_free(transport);
        transport = NULL;
        server_close();
        tls_free(tls);
    }
}

static void a_proxy_that_cannot_be_reached_is_named(void **state)
{
    (void)state;
    start_tunnelled("nowhere.example", NULL, LONG_NS);
    expect_failed(CONNECT_UNREACHABLE,
                  blamed("nowhere.example", "cannot resolve nowhere.example: name or service not known"));
    callback_count = 0;
    stop_listening();
    start_tunnelled("127.0.0.1", NULL, LONG_NS);
    expect_failed(CONNECT_UNREACHABLE, blamed("127.0.0.1", "connection refused"));
    callback_count = 0;
    start_tunnelled("slow.example", NULL, 20 * NANOSECONDS_PER_MILLISECOND);
    expect_failed(CONNECT_TIMED_OUT, blamed("slow.example", "cannot resolve slow.example: timed out"));
}

static void a_proxy_that_refuses_is_named_with_the_status(void **state)
{
    (void)state;
    int before = open_descriptors();
    start_tunnelled("127.0.0.1", NULL, LONG_NS);
    expect_connect_request();
    proxy_answers("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n");
    expect_failed(CONNECT_UNREACHABLE,
                  blamed("127.0.0.1", "CONNECT api.example:443: refused with status 407"));
    server_close();
    assert_int_equal(open_descriptors(), before);
}

static void a_proxy_that_closes_or_resets_is_named(void **state)
{
    (void)state;
    start_tunnelled("127.0.0.1", NULL, LONG_NS);
    expect_connect_request();
    server_close();
    expect_failed(CONNECT_UNREACHABLE, blamed("127.0.0.1", "CONNECT api.example:443: closed the connection"));
    callback_count = 0;
    start_tunnelled("127.0.0.1", NULL, LONG_NS);
    expect_connect_request();
    close_with_reset(server_fd);
    server_fd = -1;
    expect_failed(CONNECT_UNREACHABLE,
                  blamed("127.0.0.1", "CONNECT api.example:443: connection reset by peer"));
}

static void a_proxy_that_hangs_times_out(void **state)
{
    (void)state;
    start_tunnelled("127.0.0.1", NULL, 50 * NANOSECONDS_PER_MILLISECOND);
    expect_connect_request();
    proxy_answers("HTTP/1.1 200 OK\r\n");
    expect_failed(CONNECT_TIMED_OUT, blamed("127.0.0.1", "CONNECT api.example:443: timed out"));
}

static void a_tunnel_can_be_cancelled(void **state)
{
    (void)state;
    int before = open_descriptors();
    start_tunnelled("127.0.0.1", NULL, LONG_NS);
    expect_connect_request();
    connect_cancel(attempt);
    turns(test_loop);
    assert_int_equal(callback_count, 0);
    server_close();
    assert_int_equal(open_descriptors(), before);
}

/* ------------------------------------------------------------------------------------------------ cancelling */

/* Cancels and expects that nothing is left. */
static void cancel_and_expect_nothing(int descriptors)
{
    connect_cancel(attempt);
    turns(test_loop);
    assert_int_equal(callback_count, 0);
    server_close();
    assert_int_equal(open_descriptors(), descriptors);
}

static void it_can_be_cancelled_while_resolving(void **state)
{
    (void)state;
    int before = open_descriptors();
    start("slow.example", NULL, LONG_NS);
    turns(test_loop);
    cancel_and_expect_nothing(before);
    fake_let_slow_names_go();
    struct resolver_result result;
    wait_until(test_loop, resolver_cached(resolver, "slow.example", 1, &result));
    turns(test_loop);
    assert_int_equal(callback_count, 0);
}

static void it_can_be_cancelled_at_once(void **state)
{
    (void)state;
    int before = open_descriptors();
    start("127.0.0.1", NULL, LONG_NS);
    cancel_and_expect_nothing(before);
}

static void it_can_be_cancelled_while_connecting(void **state)
{
    (void)state;
    uint16_t hole_port = 0;
    black_hole("127.0.0.1", &hole_port);
    port = hole_port;
    int before = open_descriptors();
    start("127.0.0.1", NULL, LONG_NS);
    turns(test_loop);
    cancel_and_expect_nothing(before);
    black_hole_close();
}

static void it_can_be_cancelled_in_the_handshake(void **state)
{
    (void)state;
    struct tls *tls = make_tls((struct tls_settings){0}, "server.example");
    server_ctx = SSL_CTX_new(TLS_server_method());
    server_silent = true;
    int before = open_descriptors();
    start("127.0.0.1", tls, LONG_NS);
    wait_until_with(test_loop, server_fd >= 0, serve());
    char data[4096];
    wait_until(test_loop, recv(server_fd, data, sizeof data, 0) > 0);
    cancel_and_expect_nothing(before);
    tls_free(tls);
}

static void it_can_be_cancelled_between_the_failure_and_its_callback(void **state)
{
    (void)state;
    int before = open_descriptors();
    start("nowhere.example", NULL, LONG_NS);
    wait_until(test_loop, callback_count == 1);
    callback_count = 0;
    start("nowhere.example", NULL, LONG_NS); /* known to fail before it returns */
    cancel_and_expect_nothing(before);
}

#define connect_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        connect_test(a_literal_and_a_name_connect),
        connect_test(a_refused_connection_is_named),
        connect_test(all_refused_addresses_are_one_failure),
        connect_test(an_ip6_literal_is_named_in_brackets),
        connect_test(an_unknown_name_is_named),
        connect_test(after_a_refusal_the_next_address_is_tried),
        connect_test(after_a_family_without_route_the_other_is_tried),
        connect_test(while_one_address_is_silent_the_next_is_tried),
        connect_test(a_silent_address_times_out),
        connect_test(a_silent_name_server_times_out),
        connect_test(a_good_certificate_connects),
        connect_test(an_ip_address_is_checked_and_not_sent_as_a_name),
        connect_test(another_ip_address_is_refused),
        connect_test(another_host_is_refused),
        connect_test(an_expired_certificate_is_refused),
        connect_test(a_certificate_of_the_future_is_refused),
        connect_test(a_self_signed_certificate_is_refused),
        connect_test(an_unknown_authority_is_refused),
        connect_test(an_unverified_connection_takes_any_certificate),
        connect_test(the_name_can_be_another_than_the_host),
        connect_test(an_old_version_is_refused),
        connect_test(a_server_that_does_not_speak_tls_is_told_so),
        connect_test(a_server_that_closes_or_resets_is_told_so),
        connect_test(a_silent_handshake_times_out),
        connect_test(a_client_certificate_is_shown),
        connect_test(a_session_is_resumed),
        connect_test(a_tunnel_leads_to_the_target),
        connect_test(tls_is_spoken_through_the_tunnel_and_to_the_target),
        connect_test(a_proxy_that_cannot_be_reached_is_named),
        connect_test(a_proxy_that_refuses_is_named_with_the_status),
        connect_test(a_proxy_that_closes_or_resets_is_named),
        connect_test(a_proxy_that_hangs_times_out),
        connect_test(a_tunnel_can_be_cancelled),
        connect_test(it_can_be_cancelled_while_resolving),
        connect_test(it_can_be_cancelled_at_once),
        connect_test(it_can_be_cancelled_while_connecting),
        connect_test(it_can_be_cancelled_in_the_handshake),
        connect_test(it_can_be_cancelled_between_the_failure_and_its_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
