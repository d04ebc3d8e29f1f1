/* Networks in CIDR notation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/network.h"

static bool contains(const char *network_text, const char *address_text)
{
    struct network network;
    struct address address;
    struct error error;
    assert_true(network_parse(slice_of(network_text), &network));
    assert_true(address_parse(address_text, &address, &error));
    return network_contains(&network, &address);
}

static void the_bits_of_the_prefix_decide(void **state)
{
    (void)state;
    assert_true(contains("10.0.0.0/8", "10.255.0.1:80"));
    assert_false(contains("10.0.0.0/8", "11.0.0.1:80"));
    assert_true(contains("10.0.0.99/8", "10.1.2.3:80"));
    assert_true(contains("192.168.64.0/18", "192.168.127.255:80"));
    assert_false(contains("192.168.64.0/18", "192.168.128.0:80"));
    assert_true(contains("127.0.0.1/31", "127.0.0.0:80"));
    assert_false(contains("127.0.0.1/31", "127.0.0.2:80"));
    assert_true(contains("0.0.0.0/0", "8.8.8.8:53"));
    assert_true(contains("2001:db8::/33", "[2001:db8:7fff::1]:1"));
    assert_false(contains("2001:db8::/33", "[2001:db8:8000::1]:1"));
    assert_true(contains("::/0", "[fe80::1]:1"));
}

static void an_address_alone_is_only_itself(void **state)
{
    (void)state;
    assert_true(contains("127.0.0.1", "127.0.0.1:9"));
    assert_false(contains("127.0.0.1", "127.0.0.2:9"));
    assert_true(contains("::1", "[::1]:9"));
    assert_false(contains("::1", "[::2]:9"));
}

static void families_do_not_mix(void **state)
{
    (void)state;
    assert_false(contains("::/0", "10.0.0.1:1"));
    assert_false(contains("0.0.0.0/0", "[::1]:1"));
    assert_false(contains("0.0.0.0/0", "unix:/x"));
    assert_true(contains("unix:", "unix:/x"));
    assert_false(contains("unix:", "127.0.0.1:1"));
}

static void what_is_no_network_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",          "/8",         "10.0.0.0/",     "10.0.0.0/33",  "10.0.0/8",
        "::/129",    "10.0.0.0/x", "10.0.0.0/-1",   "10.0.0.0/8/8", "[::1]/128",
        "localhost", "*",          "10.0.0.1:8080", "10.0.0.0 /8",  "::ffff:10.0.0.0/104",
        "fe80::1%1", "unix:/path"};
    struct network network;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (network_parse(slice_of(wrong[i]), &network)) {
            fail_msg("%s was taken", wrong[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_of_the_prefix_decide),
        cmocka_unit_test(an_address_alone_is_only_itself),
        cmocka_unit_test(families_do_not_mix),
        cmocka_unit_test(what_is_no_network_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
