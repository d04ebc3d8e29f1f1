/*
 * listener: a port in use is an error, nobody who waits in the queue is lost at the end, and a process without descriptors does not spin.
 */
#include "net_test.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include "net/listener.h"

static struct loop *test_loop;
static struct listener *listener;
static char folder[64];
static char socket_path[96];

static int accepted_count, exhausted_count;
static int accepted_fds[512];
static char last_peer[ADDRESS_TEXT_SIZE];
static bool free_when_accepted, stop_when_accepted, close_when_exhausted;
static uint16_t come_again_port; /* not 0: for each client that is taken another comes */

static void on_accepted(void *owner, int fd, const struct address *peer)
{
    assert_ptr_equal(owner, &accepted_count);
    if (come_again_port != 0) {
        close_with_reset(fd);
        close_with_reset(connect_to(come_again_port));
        return;
    }
    accepted_fds[accepted_count++] = fd;
    address_format(peer, last_peer);
    if (free_when_accepted) {
        listener_free(listener);
        listener = NULL;
    }
    if (stop_when_accepted) {
        listener_set_accepting(listener, false);
    }
}

static void on_exhausted(void *owner)
{
    assert_ptr_equal(owner, &accepted_count);
    exhausted_count++;
    if (close_when_exhausted && accepted_count > 0) {
        close(accepted_fds[--accepted_count]);
    }
}

static const struct listener_callbacks callbacks = {on_accepted, on_exhausted};

static int setup(void **state)
{
    (void)state;
    test_loop = loop_new();
    listener = NULL;
    accepted_count = exhausted_count = 0;
    free_when_accepted = stop_when_accepted = close_when_exhausted = false;
    come_again_port = 0;
    strcpy(folder, "/tmp/llm-proxy-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(socket_path, sizeof socket_path, "%s/socket", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_free(listener);
    for (int i = 0; i < accepted_count; i++) {
        close(accepted_fds[i]);
    }
    loop_free(test_loop);
    unlink(socket_path);
    rmdir(folder);
    return 0;
}

static struct address parse(const char *text)
{
    struct address address;
    struct error error = {0};
    if (!address_parse(text, &address, &error)) {
        fail_msg("%s", error.message);
    }
    return address;
}

static uint16_t port_of(const struct address *address)
{
    return ntohs(address->socket.any.sa_family == AF_INET ? address->socket.ip4.sin_port
                                                          : address->socket.ip6.sin6_port);
}

/* One listening socket on a free port of text, with a listener on it. */
static uint16_t start(const char *text)
{
    struct address address = parse(text);
    struct error error = {0};
    int fd;
    if (!listener_bind(&address, &fd, 1, &error)) {
        fail_msg("%s", error.message);
    }
    listener = listener_new(test_loop, fd, &callbacks, &accepted_count);
    return port_of(&address);
}

static int connect_unix(void)
{
    struct address address;
    char text[128];
    snprintf(text, sizeof text, "unix:%s", socket_path);
    address = parse(text);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &address.socket.any, address.size), 0);
    return fd;
}

/* ------------------------------------------------------------------------------------------------ binding */

static void every_socket_gets_the_same_free_port(void **state)
{
    (void)state;
    struct address address = parse("127.0.0.1:0");
    struct error error;
    int fds[4];
    assert_true(listener_bind(&address, fds, 4, &error));
    assert_true(port_of(&address) != 0);
    for (int i = 0; i < 4; i++) {
        struct address own = {.size = sizeof own.socket};
        assert_int_equal(getsockname(fds[i], &own.socket.any, &own.size), 0);
        assert_int_equal(port_of(&own), port_of(&address));
        assert_true((fcntl(fds[i], F_GETFL) & O_NONBLOCK) != 0);
        assert_true((fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0);
        close(fds[i]);
    }
}

static void a_port_in_use_is_an_error_that_names_it(void **state)
{
    (void)state;
    uint16_t port = 0;
    int other = listen_on("127.0.0.1", &port, 5);
    char text[64], expected[128];
    snprintf(text, sizeof text, "127.0.0.1:%u", port);
    snprintf(expected, sizeof expected, "listen on 127.0.0.1:%u: address already in use", port);
    struct address address = parse(text);
    struct error error;
    int fds[2];
    int before = open_descriptors();
    assert_false(listener_bind(&address, fds, 2, &error));
    assert_string_equal(error.message, expected);
    assert_int_equal(open_descriptors(), before);
    close(other);
    /* Even one that was made to be shared. */
    assert_true(listener_bind(&address, fds, 2, &error));
    assert_false(listener_bind(&address, fds, 2, &error));
    assert_string_equal(error.message, expected);
    close(fds[0]);
    close(fds[1]);
}

static void an_address_of_another_machine_is_an_error(void **state)
{
    (void)state;
    struct address address = parse("192.0.2.1:8080");
    struct error error;
    int fd;
    assert_false(listener_bind(&address, &fd, 1, &error));
    assert_string_equal(error.message, "listen on 192.0.2.1:8080: cannot assign requested address");
}

static void all_addresses_take_ip4_clients_and_name_them_as_such(void **state)
{
    (void)state;
    uint16_t port = start(":0");
    int fd = connect_to(port);
    wait_until(test_loop, accepted_count == 1);
    assert_memory_equal(last_peer, "127.0.0.1:", 10);
    close(fd);
}

static void a_unix_socket_is_for_its_owner_only_and_shared_by_all(void **state)
{
    (void)state;
    char text[128];
    snprintf(text, sizeof text, "unix:%s", socket_path);
    struct address address = parse(text);
    struct error error;
    int fds[3];
    mode_t before = umask(0);
    assert_true(listener_bind(&address, fds, 3, &error));
    umask(before);
    struct stat status;
    assert_int_equal(stat(socket_path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    close(fds[0]);
    close(fds[1]);
    listener = listener_new(test_loop, fds[2], &callbacks, &accepted_count);
    int fd = connect_unix();
    wait_until(test_loop, accepted_count == 1);
    assert_string_equal(last_peer, "unix:");
    close(fd);
}

static void a_unix_socket_somebody_answers_on_is_left_alone(void **state)
{
    (void)state;
    char text[128], expected[192];
    snprintf(text, sizeof text, "unix:%s", socket_path);
    snprintf(expected, sizeof expected, "listen on %s: address already in use", text);
    struct address address = parse(text);
    struct error error;
    int first, second;
    assert_true(listener_bind(&address, &first, 1, &error));
    assert_false(listener_bind(&address, &second, 1, &error));
    assert_string_equal(error.message, expected);
    close(connect_unix());
    close(first);
    /* Now it is stale. */
    assert_true(listener_bind(&address, &second, 1, &error));
    close(connect_unix());
    close(second);
}

static void a_file_in_the_way_of_a_unix_socket_is_left_alone(void **state)
{
    (void)state;
    char text[128];
    snprintf(text, sizeof text, "unix:%s", socket_path);
    write_text(socket_path, "precious");
    struct address address = parse(text);
    struct error error;
    int fd;
    assert_false(listener_bind(&address, &fd, 1, &error));
    assert_non_null(strstr(error.message, "a file that is no socket is in the way"));
    assert_int_equal(access(socket_path, F_OK), 0);
    address = parse("unix:/no/such/folder/socket");
    assert_false(listener_bind(&address, &fd, 1, &error));
    assert_string_equal(error.message, "listen on unix:/no/such/folder/socket: no such file or directory");
}

/* ------------------------------------------------------------------------------------------------ accepting */

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

static void an_accepted_socket_is_ready_for_use(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int fd = connect_to(port);
    wait_until(test_loop, accepted_count == 1);
    assert_true((fcntl(accepted_fds[0], F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(accepted_fds[0], F_GETFD) & FD_CLOEXEC) != 0);
    assert_true(option(accepted_fds[0], IPPROTO_TCP, TCP_NODELAY) != 0);
    assert_true(option(accepted_fds[0], SOL_SOCKET, SO_KEEPALIVE) != 0);
    struct address own = {.size = sizeof own.socket};
    char text[ADDRESS_TEXT_SIZE];
    getsockname(fd, &own.socket.any, &own.size);
    address_format(&own, text);
    assert_string_equal(last_peer, text);
    close(fd);
}

static void a_burst_is_taken_64_at_a_turn(void **state)
{
    (void)state;
    enum { COUNT = 150 };
    int fds[COUNT];
    uint16_t port = start("127.0.0.1:0");
    for (int i = 0; i < COUNT; i++) {
        fds[i] = connect_to(port);
    }
    turn(test_loop);
    assert_in_range(accepted_count, 1, 64);
    wait_until(test_loop, accepted_count == COUNT);
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
}

static void accepting_can_be_switched_off_and_on(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    listener_set_accepting(listener, false);
    int first = connect_to(port), second = connect_to(port);
    turns(test_loop);
    assert_int_equal(accepted_count, 0);
    stop_when_accepted = true;
    listener_set_accepting(listener, true);
    wait_until(test_loop, accepted_count == 1);
    turns(test_loop);
    assert_int_equal(accepted_count, 1); /* switched off in the callback: at once */
    listener_set_accepting(listener, true);
    wait_until(test_loop, accepted_count == 2);
    close(first);
    close(second);
}

static void a_listener_may_be_freed_when_it_accepts(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int first = connect_to(port), second = connect_to(port);
    free_when_accepted = true;
    wait_until(test_loop, listener == NULL);
    turns(test_loop);
    assert_int_equal(accepted_count, 1);
    close(first);
    close(second);
}

/* Leaves room for so many more descriptors. */
static struct rlimit limit_descriptors(int more)
{
    struct rlimit before, now;
    getrlimit(RLIMIT_NOFILE, &before);
    now = before;
    int lowest = dup(0);
    assert_true(lowest >= 0);
    close(lowest);
    now.rlim_cur = (rlim_t)(lowest + more);
    setrlimit(RLIMIT_NOFILE, &now);
    return before;
}

static void without_descriptors_accepting_pauses_and_goes_on(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int first = connect_to(port), second = connect_to(port);
    struct rlimit before = limit_descriptors(1);
    wait_until(test_loop, exhausted_count == 1);
    assert_int_equal(accepted_count, 1);
    turns(test_loop);
    assert_int_equal(exhausted_count, 1);
    setrlimit(RLIMIT_NOFILE, &before);
    wait_until(test_loop, accepted_count == 2);
    close(first);
    close(second);
}

static void a_resumed_listener_does_not_wait_for_the_pause(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int first = connect_to(port);
    struct rlimit before = limit_descriptors(0);
    wait_until(test_loop, exhausted_count == 1);
    setrlimit(RLIMIT_NOFILE, &before);
    listener_resume(listener);
    turn(test_loop);
    assert_int_equal(accepted_count, 1);
    close(first);
}

static void switched_on_during_the_pause_it_still_pauses(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int first = connect_to(port);
    struct rlimit before = limit_descriptors(0);
    wait_until(test_loop, exhausted_count == 1);
    listener_set_accepting(listener, false);
    listener_set_accepting(listener, true);
    turn(test_loop);
    assert_int_equal(exhausted_count, 1);
    setrlimit(RLIMIT_NOFILE, &before);
    close(first);
}

/* ------------------------------------------------------------------------------------------------ the end */

static void who_waits_in_the_queue_is_served_at_the_end(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    int fds[COUNT];
    uint16_t port = start("127.0.0.1:0");
    for (int i = 0; i < COUNT; i++) {
        fds[i] = connect_to(port);
    }
    listener_drain_and_free(listener);
    listener = NULL;
    assert_int_equal(accepted_count, COUNT);
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    int late = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback("127.0.0.1", port);
    assert_int_equal(connect(late, (struct sockaddr *)&address, sizeof address), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(late);
}

static void a_drain_without_descriptors_ends(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int first = connect_to(port), second = connect_to(port), third = connect_to(port);
    struct rlimit before = limit_descriptors(1);
    listener_drain_and_free(listener);
    listener = NULL;
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(accepted_count, 1);
    assert_int_equal(exhausted_count, 1);
    close(first);
    close(second);
    close(third);
}

static void a_drain_goes_on_while_the_owner_finds_something_to_close(void **state)
{
    (void)state;
    uint16_t port = start("127.0.0.1:0");
    int first = connect_to(port), second = connect_to(port), third = connect_to(port);
    struct rlimit before = limit_descriptors(1);
    close_when_exhausted = true;
    listener_drain_and_free(listener);
    listener = NULL;
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(accepted_count, 1);
    assert_int_equal(exhausted_count, 2);
    close(first);
    close(second);
    close(third);
}

static void a_drain_ends_although_clients_keep_coming(void **state)
{
    (void)state;
    come_again_port = start("127.0.0.1:0");
    int first = connect_to(come_again_port);
    listener_drain_and_free(listener);
    listener = NULL;
    close(first);
}

#define listener_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        listener_test(every_socket_gets_the_same_free_port),
        listener_test(a_port_in_use_is_an_error_that_names_it),
        listener_test(an_address_of_another_machine_is_an_error),
        listener_test(all_addresses_take_ip4_clients_and_name_them_as_such),
        listener_test(a_unix_socket_is_for_its_owner_only_and_shared_by_all),
        listener_test(a_unix_socket_somebody_answers_on_is_left_alone),
        listener_test(a_file_in_the_way_of_a_unix_socket_is_left_alone),
        listener_test(an_accepted_socket_is_ready_for_use),
        listener_test(a_burst_is_taken_64_at_a_turn),
        listener_test(accepting_can_be_switched_off_and_on),
        listener_test(a_listener_may_be_freed_when_it_accepts),
        listener_test(without_descriptors_accepting_pauses_and_goes_on),
        listener_test(a_resumed_listener_does_not_wait_for_the_pause),
        listener_test(switched_on_during_the_pause_it_still_pauses),
        listener_test(who_waits_in_the_queue_is_served_at_the_end),
        listener_test(a_drain_without_descriptors_ends),
        listener_test(a_drain_goes_on_while_the_owner_finds_something_to_close),
        listener_test(a_drain_ends_although_clients_keep_coming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
