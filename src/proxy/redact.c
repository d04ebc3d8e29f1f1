/*
 * redact: tables of names. Header names are compared in any case; parameter names also percent-decoded, because that is how a server reads them.
 */
#include "proxy/redact.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

static const char *const secret_fields[] = {
    "authorization", "proxy-authorization",  "cookie", "set-cookie", "sec-websocket-protocol",
    "helicone-auth", "cf-aig-authorization",
};
static const char *const secret_endings[] = {"-key", "-token", "-secret", "-authorization"};
static const char *const secret_parameters[] = {
    "key", "api_key", "api-key", "access_token", "token", "sig", "signature", "subscription-key",
};
static const char *const credential_fields[] = {"authorization", "x-api-key", "api-key", "x-goog-api-key"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_one_of(struct slice name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_equal_nocase(name, slice_of(names[i]))) {
            return true;
        }
    }
    return false;
}

bool redact_is_secret_field(const struct proxy_settings *settings, struct slice name)
{
    if (is_one_of(name, secret_fields, COUNT(secret_fields)) ||
        is_one_of(name, (const char *const *)settings->redact_headers, settings->redact_header_count)) {
        return true;
    }
    if (slice_equal_nocase(name, SLICE("idempotency-key"))) {
        return false;
    }
    for (size_t i = 0; i < COUNT(secret_endings); i++) {
        if (slice_ends_with_nocase(name, slice_of(secret_endings[i]))) {
            return true;
        }
    }
    return false;
}

/* Decodes name into out; longer names than any we know are cut. */
static struct slice decode_name(struct slice name, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < name.size && used < size; i++) {
        char c = name.data[i];
        if (c == '%' && i + 2 < name.size && ascii_hex_value(name.data[i + 1]) >= 0 &&
            ascii_hex_value(name.data[i + 2]) >= 0) {
            c = (char)(ascii_hex_value(name.data[i + 1]) * 16 + ascii_hex_value(name.data[i + 2]));
            i += 2;
        }
        out[used++] = c;
    }
    return (struct slice){out, used};
}

static bool is_secret_parameter(const struct proxy_settings *settings, struct slice encoded)
{
    char decoded[256];
    struct slice name = decode_name(encoded, decoded, sizeof decoded);
    return is_one_of(name, secret_parameters, COUNT(secret_parameters)) ||
           (name.size >= 6 && slice_equal_nocase((struct slice){name.data, 6}, SLICE("x-amz-"))) ||
           is_one_of(name, (const char *const *)settings->redact_query, settings->redact_query_count);
}

/* Cuts the next parameter off *rest. Servers disagree on whether ';' separates, so it does: a secret behind one is found. *separator is
 * what stood behind the parameter, 0 at the end. */
static bool next_parameter(struct slice *rest, struct slice *name, struct slice *value, bool *has_value,
                           char *separator)
{
    if (rest->data == NULL) {
        return false;
    }
    size_t end = 0;
    while (end < rest->size && rest->data[end] != '&' && rest->data[end] != ';') {
        end++;
    }
    struct slice parameter = {rest->data, end};
    *separator = end < rest->size ? rest->data[end] : 0;
    *rest = *separator != 0 ? (struct slice){rest->data + end + 1, rest->size - end - 1}
                            : (struct slice){NULL, 0};
    const char *equals = parameter.size > 0 ? memchr(parameter.data, '=', parameter.size) : NULL;
    *has_value = equals != NULL;
    *name = equals != NULL ? slice_range(parameter.data, equals) : parameter;
    *value = equals != NULL ? slice_range(equals + 1, parameter.data + parameter.size) : SLICE("");
    return true;
}

void redact_write_query(const struct proxy_settings *settings, struct slice query, struct buffer *out)
{
    struct slice name, value;
    bool has_value;
    char separator;
    while (next_parameter(&query, &name, &value, &has_value, &separator)) {
        bool secret = has_value && is_secret_parameter(settings, name);
        buffer_append_slice(out, name);
        if (has_value) {
            buffer_append_char(out, '=');
            buffer_append_slice(out, secret ? REDACTED : value);
        }
        /* To a server for which only '&' separates, the secret goes on behind a ';'. */
        while (secret && separator == ';' && next_parameter(&query, &name, &value, &has_value, &separator)) {
        }
        if (separator != 0) {
            buffer_append_char(out, separator);
        }
    }
}

void redact_write_reference(const struct proxy_settings *settings, struct slice reference, struct buffer *out)
{
    const char *end = reference.data + reference.size;
    const char *fragment = reference.size > 0 ? memchr(reference.data, '#', reference.size) : NULL;
    fragment = fragment != NULL ? fragment : end;
    const char *query =
        fragment > reference.data ? memchr(reference.data, '?', (size_t)(fragment - reference.data)) : NULL;
    if (query == NULL) {
        buffer_append_slice(out, reference);
        return;
    }
    buffer_append_slice(out, slice_range(reference.data, query + 1));
    redact_write_query(settings, slice_range(query + 1, fragment), out);
    buffer_append_slice(out, slice_range(fragment, end));
}

bool redact_is_credential_field(struct slice name)
{
    return is_one_of(name, credential_fields, COUNT(credential_fields));
}

static struct slice without_scheme(struct slice value)
{
    struct slice scheme = SLICE("Bearer ");
    if (value.size > scheme.size && slice_equal_nocase((struct slice){value.data, scheme.size}, scheme)) {
        return slice_trim((struct slice){value.data + scheme.size, value.size - scheme.size});
    }
    return value;
}

struct credential redact_find_credential(const struct http_fields *fields, struct slice query)
{
    for (size_t i = 0; i < COUNT(credential_fields); i++) {
        const struct name_value *field = http_fields_find(fields, slice_of(credential_fields[i]));
        if (field != NULL && field->value.size > 0) {
            return (struct credential){slice_of(credential_fields[i]), without_scheme(field->value)};
        }
    }
    struct slice name, value;
    bool has_value;
    char separator, decoded[8];
    while (next_parameter(&query, &name, &value, &has_value, &separator)) {
        if (value.size > 0 && slice_equal(decode_name(name, decoded, sizeof decoded), SLICE("key"))) {
            return (struct credential){SLICE("query"), value};
        }
    }
    return (struct credential){{NULL, 0}, {NULL, 0}};
}

void redact_fingerprint(const unsigned char secret[32], struct slice key, char out[FINGERPRINT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    unsigned int size = 0;
    HMAC(EVP_sha256(), secret, 32, (const unsigned char *)key.data, key.size, digest, &size);
    for (size_t i = 0; i < FINGERPRINT_SIZE - 1; i++) {
        out[i] = digits[(i % 2 == 0 ? digest[i / 2] >> 4 : digest[i / 2]) & 15];
    }
    out[FINGERPRINT_SIZE - 1] = 0;
}
