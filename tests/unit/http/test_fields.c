/*
 * fields: a list of fields and the questions HTTP asks of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/fields.h"

static void order_and_repetition_are_kept(void **state)
{
    (void)state;
    struct http_fields fields = {0};
    char names[100][8];
    for (size_t i = 0; i < 100; i++) {
        snprintf(names[i], sizeof(names[i]), "x-%zu", i / 2);
        http_fields_add(&fields, slice_of(names[i]), i % 2 ? SLICE("second") : SLICE("first"));
    }
    assert_int_equal(fields.count, 100);
    assert_true(slice_equal(fields.items[99].name, SLICE("x-49")));
    assert_true(slice_equal(http_fields_find(&fields, SLICE("X-20"))->value, SLICE("first")));
    assert_int_equal(http_fields_count(&fields, SLICE("X-20")), 2);
    assert_null(http_fields_find(&fields, SLICE("x-200")));
    assert_int_equal(http_fields_count(&fields, SLICE("x-")), 0);
    http_fields_free(&fields);
    assert_int_equal(fields.count, 0);
}

static void lists_are_split_at_commas_outside_of_quotes(void **state)
{
    (void)state;
    struct slice rest = SLICE(" , a ,,\tb;x=\"1,\\\",2\" , \"c\\\\\",\"unterminated, d"), member;
    static const char *const expected[] = {"a", "b;x=\"1,\\\",2\"", "\"c\\\\\"", "\"unterminated, d"};
    for (size_t i = 0; i < 4; i++) {
        assert_true(http_list_next(&rest, &member));
        assert_true(slice_equal(member, slice_of(expected[i])));
    }
    assert_false(http_list_next(&rest, &member));
    rest = SLICE(" ,, ");
    assert_false(http_list_next(&rest, &member));
    rest = (struct slice){NULL, 0};
    assert_false(http_list_next(&rest, &member));
}

static void members_are_found_over_all_lines_in_any_case_without_parameters(void **state)
{
    (void)state;
    struct http_fields fields = {0};
    http_fields_add(&fields, SLICE("Connection"), SLICE("keep-alive, Upgrade"));
    http_fields_add(&fields, SLICE("connection"), SLICE("foo ; x=1"));
    assert_true(http_fields_has_member(&fields, SLICE("Connection"), SLICE("KEEP-ALIVE")));
    assert_true(http_fields_has_member(&fields, SLICE("connection"), SLICE("upgrade")));
    assert_true(http_fields_has_member(&fields, SLICE("connection"), SLICE("foo")));
    assert_false(http_fields_has_member(&fields, SLICE("connection"), SLICE("keep")));
    assert_false(http_fields_has_member(&fields, SLICE("connect"), SLICE("foo")));
    http_fields_free(&fields);
}

static void a_hop_keeps_its_own_fields_and_those_named_by_connection(void **state)
{
    (void)state;
    static const char *const bound[] = {"Connection",
                                        "keep-alive",
                                        "Proxy-Connection",
                                        "TE",
                                        "Trailer",
                                        "Upgrade",
                                        "Transfer-Encoding",
                                        "HTTP2-Settings",
                                        "Close",
                                        "Proxy-Authenticate",
                                        "Proxy-Authorization",
                                        "Proxy-Authentication-Info",
                                        "X-Foo",
                                        "accept"};
    static const char *const kept[] = {
        "Host",         "Content-Length", "Authorization",   "Cookie",
        "X-Request-Id", "X-Api-Key",      "Api-Key",         "X-Goog-Api-Key",
        "Via",          "Forwarded",      "X-Forwarded-For", "X-Forwarded-Proto",
        "Content-Type", "X-Fo",           "X-Foo-Bar"};
    struct http_fields fields = {0};
    http_fields_add(
        &fields, SLICE("Connection"),
        SLICE("close, x-foo, Host, content-length, Authorization, cookie, x-request-id, x-api-key, api-key, "
              "x-goog-api-key, via, forwarded"));
    http_fields_add(&fields, SLICE("connection"), SLICE("Accept, x-forwarded-for, X-Forwarded-Proto"));
    for (size_t i = 0; i < sizeof(bound) / sizeof(bound[0]); i++) {
        if (!http_fields_is_hop_by_hop(&fields, slice_of(bound[i]))) {
            fail_msg("%s passes", bound[i]);
        }
    }
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (http_fields_is_hop_by_hop(&fields, slice_of(kept[i]))) {
            fail_msg("%s is removed", kept[i]);
        }
    }
    http_fields_free(&fields);
    assert_false(http_fields_is_hop_by_hop(&fields, SLICE("accept")));
}

static void tokens_and_values_are_told_by_their_octets(void **state)
{
    (void)state;
    for (int octet = 0; octet < 256; octet++) {
        char c = (char)octet;
        bool token = octet > 0x20 && octet < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", octet) == NULL;
        assert_int_equal(http_is_token((struct slice){&c, 1}), token);
        assert_int_equal(http_is_field_value((struct slice){&c, 1}),
                         octet == '\t' || (octet >= 0x20 && octet != 0x7f));
    }
    assert_false(http_is_token((struct slice){NULL, 0}));
    assert_true(http_is_field_value((struct slice){NULL, 0}));
    assert_false(http_is_token(SLICE("a b")));
    assert_false(http_is_field_value(SLICE("a\nb")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_and_repetition_are_kept),
        cmocka_unit_test(lists_are_split_at_commas_outside_of_quotes),
        cmocka_unit_test(members_are_found_over_all_lines_in_any_case_without_parameters),
        cmocka_unit_test(a_hop_keeps_its_own_fields_and_those_named_by_connection),
        cmocka_unit_test(tokens_and_values_are_told_by_their_octets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
