/*
 * failure: error codes in words that end a sentence.
 */
#include "net_test.h"

#include "net/failure.h"

static void expect_text(struct failure failure, const char *expected)
{
    char out[FAILURE_TEXT_SIZE];
    assert_ptr_equal(failure_text(&failure, out), out);
    assert_string_equal(out, expected);
}

static void errors_are_told_in_lower_case_words(void **state)
{
    (void)state;
    char out[FAILURE_TEXT_SIZE];
    OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS, NULL);
    expect_text((struct failure){.system_error = ECONNRESET}, "connection reset by peer");
    expect_text((struct failure){.system_error = EPIPE}, "broken pipe");
    expect_text((struct failure){.truncated = true}, "closed without close_notify");
    expect_text((struct failure){.tls_error = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_WRONG_VERSION_NUMBER)},
                "wrong version number");
    expect_text((struct failure){.tls_error = ERR_PACK(ERR_LIB_SSL, 0, 4000)}, "TLS protocol error");
    expect_text((struct failure){.tls_error = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_SSLV3_ALERT_BAD_CERTIFICATE)},
                "TLS alert of the peer: bad certificate");
    expect_text((struct failure){.tls_error = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_TLSV1_UNRECOGNIZED_NAME)},
                "TLS alert of the peer: unrecognized name");
    expect_text((struct failure){.tls_error = ERR_SYSTEM_FLAG | ETIMEDOUT}, "connection timed out");
    assert_string_equal(failure_text_of_sentence("RPC failed", out), "RPC failed");
    assert_string_equal(failure_text_of_sentence("", out), "");
}

static void a_long_text_is_cut(void **state)
{
    (void)state;
    char text[1000], out[FAILURE_TEXT_SIZE];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(strlen(failure_text_of_sentence(text, out)), FAILURE_TEXT_SIZE - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_told_in_lower_case_words),
        cmocka_unit_test(a_long_text_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
