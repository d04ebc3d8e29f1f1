/* Connections are counted by address. That nothing is left behind is checked by peers_free() and the leak checker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "proxy/peers.h"

static struct peer *enter(struct peers *peers, const char *text, size_t limit)
{
    struct address address;
    struct error error;
    assert_true(address_parse(text, &address, &error));
    return peers_enter(peers, &address, limit);
}

static void the_limit_is_each_addresss_own(void **state)
{
    (void)state;
    struct peers *peers = peers_new();
    struct peer *a = enter(peers, "10.0.0.1:1", 2), *b = enter(peers, "10.0.0.1:2", 2);
    assert_non_null(a);
    assert_ptr_equal(a, b);
    assert_null(enter(peers, "10.0.0.1:3", 2));
    struct peer *other = enter(peers, "10.0.0.2:1", 2);
    assert_non_null(other);
    assert_ptr_not_equal(other, a);
    peers_leave(peers, a);
    assert_non_null(enter(peers, "10.0.0.1:4", 2));
    assert_null(enter(peers, "10.0.0.1:5", 2));
    peers_leave(peers, a);
    peers_leave(peers, a);
    peers_leave(peers, other);
    peers_free(peers);
}

static void those_without_a_limit_count_for_a_later_one(void **state)
{
    (void)state;
    struct peers *peers = peers_new();
    struct peer *peer = NULL;
    for (int i = 0; i < 5; i++) {
        peer = enter(peers, "[2001:db8::1]:1", 0);
        assert_non_null(peer);
    }
    assert_null(enter(peers, "[2001:db8::1]:1", 5));
    for (int i = 0; i < 5; i++) {
        peers_leave(peers, peer);
    }
    peers_free(peers);
}

static void a_64_of_ip6_is_one_client(void **state)
{
    (void)state;
    struct peers *peers = peers_new();
    struct peer *first = enter(peers, "[2001:db8:0:1::1]:1", 1);
    assert_non_null(first);
    assert_null(enter(peers, "[2001:db8:0:1:ffff::2]:1", 1));
    struct peer *next = enter(peers, "[2001:db8:0:2::1]:1", 1);
    assert_non_null(next);
    peers_leave(peers, first);
    peers_leave(peers, next);
    peers_free(peers);
}

static void many_addresses_come_and_go(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct peers *peers = peers_new();
    struct peer **all = calloc(COUNT, sizeof *all);
    assert_non_null(all);
    struct address address;
    for (int i = 0; i < COUNT; i++) {
        address = (struct address){.size = sizeof(struct sockaddr_in)};
        address.socket.ip4.sin_family = AF_INET;
        address.socket.ip4.sin_addr.s_addr = htonl(0x0a000000u + (uint32_t)i);
        all[i] = peers_enter(peers, &address, 1);
        assert_non_null(all[i]);
        assert_null(peers_enter(peers, &address, 1));
    }
    for (int i = 0; i < COUNT; i++) {
        peers_leave(peers, all[i]);
    }
    assert_non_null(all[0] = peers_enter(peers, &address, 1));
    peers_leave(peers, all[0]);
    free(all);
    peers_free(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_is_each_addresss_own),
        cmocka_unit_test(those_without_a_limit_count_for_a_later_one),
        cmocka_unit_test(a_64_of_ip6_is_one_client),
        cmocka_unit_test(many_addresses_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
