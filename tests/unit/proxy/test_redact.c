/* Which names are secret, and that nothing but their values changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "proxy/redact.h"

static char *own_headers[] = {(char *)"x-internal"};
static char *own_query[] = {(char *)"session"};
static const struct proxy_settings settings = {.redact_headers = own_headers,
                                               .redact_header_count = 1,
                                               .redact_query = own_query,
                                               .redact_query_count = 1};

static void secret_fields_are_known_in_any_case(void **state)
{
    (void)state;
    const char *secret[] = {
        "Authorization", "COOKIE",    "set-cookie",    "Proxy-Authorization",  "x-api-key", "X-Goog-Api-Key",
        "X-Some-Token",  "my-secret", "Helicone-Auth", "cf-aig-authorization", "X-Internal"};
    const char *plain[] = {
        "Idempotency-Key", "X-Request-Id", "Content-Type", "keynote", "token", "X-Keys", ""};
    for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++) {
        assert_true(redact_is_secret_field(&settings, slice_of(secret[i])));
    }
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        assert_false(redact_is_secret_field(&settings, slice_of(plain[i])));
    }
}

static void expect_query(const char *query, const char *expected)
{
    struct buffer out = {0};
    redact_write_query(&settings, slice_of(query), &out);
    char *got = buffer_take_string(&out);
    assert_string_equal(got, expected);
    free(got);
}

static void only_the_values_of_secret_parameters_change(void **state)
{
    (void)state;
    expect_query("", "");
    expect_query("a=b", "a=b");
    expect_query("key=1", "key=[redacted]");
    expect_query("a=b&KEY=1&c", "a=b&KEY=[redacted]&c");
    expect_query("%6Bey=1", "%6Bey=[redacted]");
    expect_query("key", "key");
    expect_query("key=", "key=[redacted]");
    expect_query("&&=x&", "&&=x&");
    expect_query("a=1;token=2", "a=1;token=[redacted]");
    expect_query("token=abc;def&b=1", "token=[redacted]&b=1");
    expect_query("token=abc;def;g=h", "token=[redacted]");
    expect_query("X-Amz-Signature=abc&alt=sse", "X-Amz-Signature=[redacted]&alt=sse");
    expect_query("session=1&sessions=2", "session=[redacted]&sessions=2");
    expect_query("key%=1&keys=2", "key%=1&keys=2");
    expect_query("sig=a=b", "sig=[redacted]");
}

static void a_reference_keeps_all_but_its_secrets(void **state)
{
    (void)state;
    const char *cases[][2] = {{"https://x/y", "https://x/y"},
                              {"/y?token=1#key=2", "/y?token=[redacted]#key=2"},
                              {"#a?key=1", "#a?key=1"},
                              {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer out = {0};
        redact_write_reference(&settings, slice_of(cases[i][0]), &out);
        char *got = buffer_take_string(&out);
        assert_string_equal(got, cases[i][1]);
        free(got);
    }
}

static void the_same_key_has_the_same_fingerprint_wherever_it_stands(void **state)
{
    (void)state;
    struct http_fields fields = {0};
    const unsigned char secret[32] = {1};
    char first[FINGERPRINT_SIZE], second[FINGERPRINT_SIZE], other[FINGERPRINT_SIZE];
    struct credential none = redact_find_credential(&fields, SLICE("a=b&keys=1"));
    assert_null(none.kind.data);
    struct credential query = redact_find_credential(&fields, SLICE("a=b&key=sk-1"));
    assert_true(slice_equal(query.kind, SLICE("query")));
    http_fields_add(&fields, SLICE("X-Api-Key"), SLICE("sk-2"));
    struct credential key = redact_find_credential(&fields, SLICE("key=sk-1"));
    assert_true(slice_equal(key.kind, SLICE("x-api-key")));
    http_fields_add(&fields, SLICE("Authorization"), SLICE("bearer  sk-1"));
    struct credential bearer = redact_find_credential(&fields, SLICE(""));
    assert_true(slice_equal(bearer.kind, SLICE("authorization")));
    redact_fingerprint(secret, query.key, first);
    redact_fingerprint(secret, bearer.key, second);
    redact_fingerprint(secret, key.key, other);
    assert_string_equal(first, second);
    assert_string_not_equal(first, other);
    assert_int_equal(strlen(first), 12);
    http_fields_free(&fields);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret_fields_are_known_in_any_case),
        cmocka_unit_test(only_the_values_of_secret_parameters_change),
        cmocka_unit_test(a_reference_keeps_all_but_its_secrets),
        cmocka_unit_test(the_same_key_has_the_same_fingerprint_wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
