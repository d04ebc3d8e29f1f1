/*
 * tls: whatever is wrong with the files of a route is found at start and named. (What the connections do with it is in test_connect.c.)
 */
#include "net_test.h"

#include <sys/stat.h>

#include "net/tls.h"

static char folder[64];
static char ca_path[96], cert_path[96], key_path[96], other_path[96];
static struct identity authority, client, other;

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/llm-proxy-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(ca_path, sizeof ca_path, "%s/ca.pem", folder);
    snprintf(cert_path, sizeof cert_path, "%s/cert.pem", folder);
    snprintf(key_path, sizeof key_path, "%s/key.pem", folder);
    snprintf(other_path, sizeof other_path, "%s/other.pem", folder);
    authority = identity_new(&(struct identity_settings){.name = "authority", .authority = true});
    client = identity_new(&(struct identity_settings){.name = "client", .issuer = &authority});
    other = identity_new(&(struct identity_settings){.name = "other", .issuer = &authority});
    write_certificate(ca_path, "w", &authority);
    write_certificate(cert_path, "w", &client);
    write_key(key_path, "w", &client);
    unsetenv("SSL_CERT_FILE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unsetenv("SSL_CERT_FILE");
    unlink(ca_path);
    unlink(cert_path);
    unlink(key_path);
    unlink(other_path);
    rmdir(folder);
    identity_free(&authority);
    identity_free(&client);
    identity_free(&other);
    return 0;
}

static void expect_good(struct tls_settings settings)
{
    struct error error = {0};
    struct tls *tls = tls_new(&settings, "api.example", &error);
    if (tls == NULL) {
        fail_msg("%s", error.message);
    }
    tls_free(tls);
    assert_int_equal(ERR_peek_error(), 0);
}

/* The error holds all of the parts. */
static void expect_refused(struct tls_settings settings, const char *first, const char *second,
                           const char *third)
{
    struct error error = {0};
    struct tls *tls = tls_new(&settings, "api.example", &error);
    assert_null(tls);
    const char *parts[] = {first, second, third};
    for (int i = 0; i < 3; i++) {
        if (strstr(error.message, parts[i]) == NULL) {
            fail_msg("'%s' is not in: %s", parts[i], error.message);
        }
    }
    assert_int_equal(ERR_peek_error(), 0);
}

static void a_file_of_certificates_is_enough(void **state)
{
    (void)state;
    expect_good((struct tls_settings){.ca_file = ca_path});
    write_certificate(ca_path, "a", &authority); /* twice the same is no error */
    write_certificate(ca_path, "a", &other);
    expect_good((struct tls_settings){.ca_file = ca_path});
    expect_good((struct tls_settings){.ca_file = ca_path, .client_cert = cert_path, .client_key = key_path});
    write_key(cert_path, "a", &client);
    expect_good((struct tls_settings){.ca_file = ca_path, .client_cert = cert_path});
}

static void the_environment_names_the_file_when_the_route_does_not(void **state)
{
    (void)state;
    setenv("SSL_CERT_FILE", ca_path, 1);
    expect_good((struct tls_settings){0});
    setenv("SSL_CERT_FILE", "/no/such/file", 1);
    expect_refused((struct tls_settings){0}, "SSL_CERT_FILE", "/no/such/file", "o such file");
    expect_good((struct tls_settings){.ca_file = ca_path});
    expect_good((struct tls_settings){.insecure = true});
}

static void a_bad_ca_file_is_named_with_the_reason(void **state)
{
    (void)state;
    expect_refused((struct tls_settings){.ca_file = "/no/such/file"}, "ca_file", "/no/such/file",
                   "o such file");
    expect_refused((struct tls_settings){.ca_file = folder}, "ca_file", folder, "folder");
    write_text(other_path, "");
    expect_refused((struct tls_settings){.ca_file = other_path}, "ca_file", other_path,
                   "no certificate in PEM form");
    write_text(other_path, "this is not PEM\n");
    expect_refused((struct tls_settings){.ca_file = other_path}, "ca_file", other_path,
                   "no certificate in PEM form");
    expect_refused((struct tls_settings){.ca_file = key_path}, "ca_file", key_path,
                   "no certificate in PEM form");
    write_certificate(other_path, "w", &authority);
    FILE *file = fopen(other_path, "a");
    fputs("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", file);
    fclose(file);
    expect_refused((struct tls_settings){.ca_file = other_path}, "ca_file", other_path,
                   "certificate 2 cannot be read");
    /* Also when it would not be needed. */
    expect_refused((struct tls_settings){.ca_file = "/no/such/file", .insecure = true}, "ca_file",
                   "/no/such/file", "o such");
}

static void a_bad_client_certificate_is_named_with_the_reason(void **state)
{
    (void)state;
    struct tls_settings settings = {
        .ca_file = ca_path, .client_cert = "/no/such/file", .client_key = key_path};
    expect_refused(settings, "client_cert", "/no/such/file", "o such file");
    settings.client_cert = key_path;
    expect_refused(settings, "client_cert", key_path, "no certificate in PEM form");
    settings.client_cert = cert_path;
    settings.client_key = "/no/such/key";
    expect_refused(settings, "client_key", "/no/such/key", "o such file");
    settings.client_key = folder;
    expect_refused(settings, "client_key", folder, "folder");
    settings.client_key = cert_path;
    expect_refused(settings, "client_key", cert_path, "no private key in PEM form");
    settings.client_key = NULL;
    expect_refused(settings, "client_cert", cert_path, "no private key in PEM form");
    write_key(other_path, "w", &other);
    settings.client_key = other_path;
    expect_refused(settings, other_path, "does not belong to the certificate", cert_path);
}

static void an_encrypted_key_is_refused_and_nobody_is_asked(void **state)
{
    (void)state;
    FILE *file = fopen(other_path, "w");
    PEM_write_PrivateKey(file, client.key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL, NULL);
    fclose(file);
    expect_refused(
        (struct tls_settings){.ca_file = ca_path, .client_cert = cert_path, .client_key = other_path},
        "client_key", other_path, "encrypted");
}

static void the_name_is_the_host_or_the_one_that_was_set(void **state)
{
    (void)state;
    struct error error;
    struct tls *tls = tls_new(&(struct tls_settings){.ca_file = ca_path}, "api.example.", &error);
    assert_string_equal(tls_name(tls), "api.example");
    tls_free(tls);
    tls = tls_new(&(struct tls_settings){.ca_file = ca_path, .server_name = "other.example"}, "10.0.0.1",
                  &error);
    assert_string_equal(tls_name(tls), "other.example");
    tls_free(tls);
    tls_free(NULL);
}

#define tls_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        tls_test(a_file_of_certificates_is_enough),
        tls_test(the_environment_names_the_file_when_the_route_does_not),
        tls_test(a_bad_ca_file_is_named_with_the_reason),
        tls_test(a_bad_client_certificate_is_named_with_the_reason),
        tls_test(an_encrypted_key_is_refused_and_nobody_is_asked),
        tls_test(the_name_is_the_host_or_the_one_that_was_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
