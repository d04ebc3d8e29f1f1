/*
 * The proxy from start to end: what it leaves behind.
 */
#include "proxy_test.h"

static char path[] = "/tmp/llm-proxy-test-XXXXXX";
static char socket_path[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(socket_path, sizeof socket_path, "%s/socket", mkdtemp(path));
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(path); /* fails when something is left in it */
}

static struct proxy *start_on(struct fixture *f, struct address *listen, size_t count, struct error *error)
{
    struct proxy_start begin = {.settings = f->settings,
                                .listen = listen,
                                .listen_count = count,
                                .workers = 2,
                                .bus = f->bus,
                                .metrics = f->metrics,
                                .capture_budget = &f->budget};
    return proxy_new(&begin, error);
}

static struct address parse(const char *text)
{
    struct address address;
    struct error error;
    assert_true(address_parse(text, &address, &error));
    return address;
}

static struct address unix_address(void)
{
    char text[80];
    snprintf(text, sizeof text, "unix:%s", socket_path);
    return parse(text);
}

static void a_socket_file_goes_with_its_proxy(void **state)
{
    struct fixture *f = *state;
    struct error error;
    struct address address = unix_address();
    struct proxy *proxy = start_on(f, &address, 1, &error);
    assert_non_null(proxy);
    assert_int_equal(access(socket_path, F_OK), 0);
    proxy_free(proxy);
    assert_int_equal(access(socket_path, F_OK), -1);
}

static void a_draining_proxy_leaves_the_socket_file_of_the_next(void **state)
{
    struct fixture *f = *state;
    struct error error;
    atomic_bool idle = false;
    struct address address = unix_address();
    struct proxy *before = start_on(f, &address, 1, &error);
    assert_non_null(before);
    proxy_drain(before, set_flag, &idle);
    wait_for_flag(&idle);
    struct proxy *after = start_on(f, &address, 1, &error);
    assert_non_null(after);
    proxy_free(before);
    assert_int_equal(access(socket_path, F_OK), 0);
    proxy_free(after);
}

static void a_failed_start_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct error error;
    start(f);
    struct address addresses[2] = {unix_address(), *proxy_address(f->proxy, 0)};
    assert_null(start_on(f, addresses, 2, &error));
    assert_non_null(strstr(error.message, "address already in use"));
    assert_int_equal(access(socket_path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_socket_file_goes_with_its_proxy),
        TEST(a_draining_proxy_leaves_the_socket_file_of_the_next),
        TEST(a_failed_start_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
