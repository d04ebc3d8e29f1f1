/*
 * address: text to socket address and back; what is no address is refused.
 */
#include "net_test.h"

#include "net/address.h"

static void expect_parsed(const char *text, const char *formatted)
{
    struct address address;
    struct error error = {0};
    char out[ADDRESS_TEXT_SIZE];
    if (!address_parse(text, &address, &error)) {
        fail_msg("%s: %s", text, error.message);
    }
    address_format(&address, out);
    assert_string_equal(out, formatted);
}

static void addresses_are_read_and_written(void **state)
{
    (void)state;
    expect_parsed("127.0.0.1:8080", "127.0.0.1:8080");
    expect_parsed("0.0.0.0:0", "0.0.0.0:0");
    expect_parsed("localhost:80", "127.0.0.1:80");
    expect_parsed("LOCALHOST:80", "127.0.0.1:80");
    expect_parsed(":65535", "[::]:65535");
    expect_parsed("[::1]:8080", "[::1]:8080");
    expect_parsed("[2001:DB8::0:1]:1", "[2001:db8::1]:1");
    expect_parsed("[fe80::1%7]:80", "[fe80::1%7]:80");
    expect_parsed("[fe80::1%lo]:80", "[fe80::1%1]:80");
    expect_parsed("unix:/run/proxy.sock", "unix:/run/proxy.sock");
}

static void what_is_no_address_is_refused_with_its_text(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1: 1",
        "127.0.0.1:1x",
        "127.1:80",
        "1:80",
        "example.com:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[127.0.0.1]:80",
        "[]:80",
        "[::1:80",
        "::1]:80",
        "[::g]:80",
        "[fe80::1%]:80",
        "[fe80::1%nosuchinterface]:80",
        "unix:",
        "127.0.0.1:000080",
        "0x7f.1:80",
        "host name:80",
        "[fe80::1%99999999999]:80",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct address address;
        struct error error = {0};
        if (address_parse(bad[i], &address, &error)) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_non_null(strstr(error.message, bad[i]));
    }
}

static void a_socket_path_has_to_fit(void **state)
{
    (void)state;
    struct address address;
    struct error error = {0};
    char text[256] = "unix:";
    memset(text + 5, 'a', 107);
    assert_true(address_parse(text, &address, &error));
    char out[ADDRESS_TEXT_SIZE];
    address_format(&address, out);
    assert_string_equal(out, text);
    text[5 + 107] = 'a';
    assert_false(address_parse(text, &address, &error));
}

static void an_unnamed_unix_peer_is_unix(void **state)
{
    (void)state;
    struct address address = {.size = sizeof(sa_family_t), .socket.any.sa_family = AF_UNIX};
    char out[ADDRESS_TEXT_SIZE];
    address_format(&address, out);
    assert_string_equal(out, "unix:");
}

static bool is_loopback(const char *text)
{
    struct address address;
    struct error error = {0};
    assert_true(address_parse(text, &address, &error));
    return address_is_loopback(&address);
}

static void loopback_is_all_of_127_and_one_of_ip6_and_unix(void **state)
{
    (void)state;
    assert_true(is_loopback("127.0.0.1:1"));
    assert_true(is_loopback("127.255.0.9:1"));
    assert_true(is_loopback("[::1]:1"));
    assert_true(is_loopback("[::ffff:127.0.0.1]:1"));
    assert_true(is_loopback("unix:/x"));
    assert_false(is_loopback(":1"));
    assert_false(is_loopback("0.0.0.0:1"));
    assert_false(is_loopback("128.0.0.1:1"));
    assert_false(is_loopback("[::2]:1"));
    assert_false(is_loopback("[::ffff:10.0.0.1]:1"));
}

static void only_literals_are_ip_addresses(void **state)
{
    (void)state;
    struct address address;
    char out[ADDRESS_TEXT_SIZE];
    assert_true(address_from_ip(SLICE("1.2.3.4"), 99, &address));
    address_format(&address, out);
    assert_string_equal(out, "1.2.3.4:99");
    address_format_ip(&address, out);
    assert_string_equal(out, "1.2.3.4");
    assert_true(address_from_ip(SLICE("::1"), 99, &address));
    assert_true(address_from_ip(SLICE("[::1]"), 99, &address));
    address_format(&address, out);
    assert_string_equal(out, "[::1]:99");
    address_format_ip(&address, out);
    assert_string_equal(out, "::1");
    assert_false(address_from_ip(SLICE("localhost"), 99, &address));
    assert_false(address_from_ip(SLICE("1.2.3"), 99, &address));
    assert_false(address_from_ip(SLICE("1.2.3.4\0"), 99, &address));
    assert_false(address_from_ip(SLICE(""), 99, &address));
    assert_false(address_from_ip(SLICE("[]"), 99, &address));
    assert_false(address_from_ip((struct slice){NULL, 0}, 99, &address));
}

static void ip4_in_ip6_becomes_ip4(void **state)
{
    (void)state;
    struct address address;
    char out[ADDRESS_TEXT_SIZE];
    assert_true(address_from_ip(SLICE("::ffff:10.1.2.3"), 5, &address));
    address_unmap(&address);
    address_format(&address, out);
    assert_string_equal(out, "10.1.2.3:5");
    assert_true(address_from_ip(SLICE("::1"), 5, &address));
    address_unmap(&address);
    address_format(&address, out);
    assert_string_equal(out, "[::1]:5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written),
        cmocka_unit_test(what_is_no_address_is_refused_with_its_text),
        cmocka_unit_test(a_socket_path_has_to_fit),
        cmocka_unit_test(an_unnamed_unix_peer_is_unix),
        cmocka_unit_test(loopback_is_all_of_127_and_one_of_ip6_and_unix),
        cmocka_unit_test(only_literals_are_ip_addresses),
        cmocka_unit_test(ip4_in_ip6_becomes_ip4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
