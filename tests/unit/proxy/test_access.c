/* Who may come in, and whose word on the client's address counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/sha.h>

#include "proxy/access.h"

static struct client_token tokens[] = {
    {.name = (char *)"alice"}, {.name = (char *)"bob"}, {.name = (char *)"carol"}};
static struct network inside[1], proxies[2];
static struct proxy_settings settings;

static int set_up(void **state)
{
    (void)state;
    static const char *const secrets[] = {"alice-secret", "bob-secret", "carol-secret"};
    settings = (struct proxy_settings){0};
    for (size_t i = 0; i < 3; i++) {
        SHA256((const unsigned char *)secrets[i], strlen(secrets[i]), tokens[i].digest);
    }
    assert_true(network_parse(SLICE("192.0.2.0/24"), &inside[0]));
    assert_true(network_parse(SLICE("10.0.0.0/8"), &proxies[0]));
    assert_true(network_parse(SLICE("2001:db8::/32"), &proxies[1]));
    return 0;
}

static void use_tokens(void)
{
    settings.tokens = tokens;
    settings.token_count = 3;
}

static void use_networks(void)
{
    settings.networks = (struct network_list){inside, 1};
}

static void use_proxies(void)
{
    settings.trusted_proxies = (struct network_list){proxies, 2};
}

/* fields: pairs of name and value, NULL at the end. */
static struct access check(const char *peer, const char *const *texts)
{
    struct address address;
    struct error error;
    struct http_fields fields = {0};
    struct access access;
    assert_true(address_parse(peer, &address, &error));
    for (; texts != NULL && *texts != NULL; texts += 2) {
        http_fields_add(&fields, slice_of(texts[0]), slice_of(texts[1]));
    }
    access_check(&settings, &address, &fields, &access);
    http_fields_free(&fields);
    return access;
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void without_settings_anyone_may_come_in(void **state)
{
    (void)state;
    struct access access =
        check("8.8.8.8:1", FIELDS("X-Forwarded-For", "1.2.3.4", "Authorization", "Bearer alice-secret"));
    assert_null(access.refusal);
    assert_null(access.client_name);
    assert_string_equal(access.client, "");
    assert_false(access.trusted);
}

static void expect_name(const char *const *fields, const char *name)
{
    struct access access = check("8.8.8.8:1", fields);
    if (name == NULL) {
        assert_null(access.client_name);
        assert_non_null(access.refusal);
    } else {
        assert_non_null(access.client_name);
        assert_string_equal(access.client_name, name);
        assert_null(access.refusal);
    }
}

static void a_token_is_found_where_keys_are(void **state)
{
    (void)state;
    use_tokens();
    expect_name(FIELDS("Authorization", "Bearer alice-secret"), "alice");
    expect_name(FIELDS("AUTHORIZATION", "bearer  bob-secret"), "bob");
    expect_name(FIELDS("x-api-key", "carol-secret"), "carol");
    expect_name(FIELDS("api-key", "alice-secret"), "alice");
    expect_name(FIELDS("X-Goog-Api-Key", "alice-secret"), "alice");
    expect_name(FIELDS("Authorization", "Bearer a-provider's", "x-api-key", "bob-secret"), "bob");
    expect_name(NULL, NULL);
    expect_name(FIELDS("x-api-key", ""), NULL);
    expect_name(FIELDS("Authorization", "Bearer "), NULL);
    expect_name(FIELDS("Authorization", "Bearer alice-secre"), NULL);
    expect_name(FIELDS("Authorization", "Bearer alice-secret1"), NULL);
    expect_name(FIELDS("Authorization", "Bearer ALICE-SECRET"), NULL);
    expect_name(FIELDS("Authorization", "Basic alice-secret"), NULL);
    expect_name(FIELDS("Authorization", "alice-secret"), NULL);
    expect_name(FIELDS("x-api-key", "alice"), NULL);
    expect_name(FIELDS("x-other-key", "alice-secret"), NULL);
}

static void only_fields_with_a_token_stay_here(void **state)
{
    (void)state;
    struct name_value ours = {SLICE("x-api-key"), SLICE("bob-secret")},
                      other = {SLICE("x-api-key"), SLICE("sk-1")},
                      elsewhere = {SLICE("x-team"), SLICE("bob-secret")};
    assert_false(access_is_token(&settings, &ours));
    use_tokens();
    assert_true(access_is_token(&settings, &ours));
    assert_false(access_is_token(&settings, &other));
    assert_false(access_is_token(&settings, &elsewhere));
}

static void a_token_that_lets_nobody_in_stays_here_all_the_same(void **state)
{
    (void)state;
    static const char *const carriers[] = {"Basic alice-secret", "Token\talice-secret", "token  alice-secret",
                                           "alice-secret", "Bearer alice-secret"};
    static const char *const others[] = {"", "Basic", "Basic alice-secre", "alice-secret sk-1"};
    use_tokens();
    for (size_t i = 0; i < sizeof carriers / sizeof carriers[0]; i++) {
        struct name_value field = {SLICE("Authorization"), slice_of(carriers[i])};
        assert_true(access_is_token(&settings, &field));
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct name_value field = {SLICE("Authorization"), slice_of(others[i])};
        assert_false(access_is_token(&settings, &field));
    }
}

static void networks_bound_where_clients_come_from(void **state)
{
    (void)state;
    use_networks();
    assert_null(check("192.0.2.7:1", NULL).refusal);
    assert_non_null(check("192.0.3.7:1", NULL).refusal);
    assert_non_null(check("[::1]:1", NULL).refusal);
    assert_non_null(check("unix:/x", NULL).refusal);
    assert_non_null(check("8.8.8.8:1", FIELDS("X-Forwarded-For", "192.0.2.7")).refusal);
    use_tokens();
    assert_non_null(check("192.0.2.7:1", NULL).refusal);
    assert_non_null(check("192.0.3.7:1", FIELDS("x-api-key", "bob-secret")).refusal);
    assert_null(check("192.0.2.7:1", FIELDS("x-api-key", "bob-secret")).refusal);
}

static void expect_client(const char *peer, const char *const *fields, const char *client)
{
    assert_string_equal(check(peer, fields).client, client);
}

static void a_trusted_proxy_names_the_client(void **state)
{
    (void)state;
    use_proxies();
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7"), "192.0.2.7");
    expect_client("10.0.0.1:1", FIELDS("x-forwarded-for", "1.1.1.1, 192.0.2.7"), "192.0.2.7");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "1.1.1.1,192.0.2.7 ,\t10.2.3.4"), "192.0.2.7");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "junk, 192.0.2.7"), "192.0.2.7");
    expect_client("10.0.0.1:1",
                  FIELDS("X-Forwarded-For", "192.0.2.7", "X-Other", "a", "X-Forwarded-For", "10.0.0.2"),
                  "192.0.2.7");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "10.0.0.3, 10.0.0.2"), "10.0.0.3");
    expect_client("[2001:db8::1]:1", FIELDS("X-Forwarded-For", "2a00::9"), "2a00::9");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "::ffff:192.0.2.7"), "192.0.2.7");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7:4711"), "192.0.2.7");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "[2a00::9]:4711"), "2a00::9");
    assert_true(check("10.0.0.1:1", NULL).trusted);
    use_networks();
    assert_null(check("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7")).refusal);
    assert_non_null(check("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7, 8.8.8.8")).refusal);
}

static void what_is_malformed_or_said_by_others_is_not_believed(void **state)
{
    (void)state;
    use_proxies();
    expect_client("10.0.0.1:1", NULL, "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", ""), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7, junk"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7,"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "192.0.2.7, , 10.0.0.2"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", ":80"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "unknown"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "8.8.8.8:"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "8.8.8.8:x"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "[2a00::9]:65536"), "");
    expect_client("10.0.0.1:1", FIELDS("X-Forwarded-For", "fe80::1%lo"), "");
    expect_client("192.0.2.9:1", FIELDS("X-Forwarded-For", "192.0.2.7"), "");
    assert_false(check("192.0.2.9:1", NULL).trusted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_settings_anyone_may_come_in, set_up),
        cmocka_unit_test_setup(a_token_is_found_where_keys_are, set_up),
        cmocka_unit_test_setup(only_fields_with_a_token_stay_here, set_up),
        cmocka_unit_test_setup(a_token_that_lets_nobody_in_stays_here_all_the_same, set_up),
        cmocka_unit_test_setup(networks_bound_where_clients_come_from, set_up),
        cmocka_unit_test_setup(a_trusted_proxy_names_the_client, set_up),
        cmocka_unit_test_setup(what_is_malformed_or_said_by_others_is_not_believed, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
