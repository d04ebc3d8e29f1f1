/*
 * Secrets in queries and in references: of any text nothing is left that a server could take for the value of a secret parameter, whether ';' separates for it or not; what is no secret stays as it was. The
 * names of the secrets are said here once more, and decoded in another way.
 */
#include "proxy/redact.h"

#include "fuzz.h"

static char *configured[] = {(char *)(uintptr_t) "mine"};
static const struct proxy_settings settings = {.redact_query = configured, .redact_query_count = 1};

/* As a server reads it; what is no escape stays. */
static struct buffer decoded(struct slice text)
{
    struct buffer out = {0};
    while (text.size > 0) {
        size_t used = 1;
        char c = *text.data;
        if (c == '%' && text.size >= 3 && ascii_hex_value(text.data[1]) >= 0 &&
            ascii_hex_value(text.data[2]) >= 0) {
            c = (char)(ascii_hex_value(text.data[1]) << 4 | ascii_hex_value(text.data[2]));
            used = 3;
        }
        buffer_append_char(&out, ascii_lower(c));
        text = (struct slice){text.data + used, text.size - used};
    }
    return out;
}

/* None has a ';' in it. */
static bool is_secret(struct slice name)
{
    static const char *const names[] = {"key", "api_key",   "api-key",          "access_token", "token",
                                        "sig", "signature", "subscription-key", "mine"};
    if (memchr(name.data, ';', name.size) != NULL)
        return false;
    struct buffer plain = decoded(name);
    bool secret = slice_starts_with(buffer_slice(&plain), SLICE("x-amz-"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        secret = secret || slice_equal(buffer_slice(&plain), slice_of(names[i]));
    buffer_free(&plain);
    return secret;
}

/* Is there a secret parameter in this text, read as one? *value: what it has. */
static bool has_secret(struct slice parameter, struct slice *value)
{
    *value = parameter;
    struct slice name;
    return slice_split(value, '=', &name) && value->data != NULL && is_secret(name);
}

static bool hides_secret(struct slice parameter)
{
    struct slice piece, value;
    bool found = has_secret(parameter, &value);
    while (slice_split(&parameter, ';', &piece))
        found = found || has_secret(piece, &value);
    return found;
}

/* To nobody is there a secret left. */
static void require_clean(struct slice query)
{
    struct slice piece, inner, value;
    while (slice_split(&query, '&', &piece)) {
        REQUIRE(!has_secret(piece, &value) || slice_equal(value, REDACTED));
        while (slice_split(&piece, ';', &inner))
            REQUIRE(!has_secret(inner, &value) || slice_equal(value, REDACTED));
    }
}

/* And nothing else was touched. */
static void require_rest(struct slice query, struct slice redacted)
{
    struct slice piece, other;
    while (slice_split(&query, '&', &piece)) {
        REQUIRE(slice_split(&redacted, '&', &other));
        REQUIRE(hides_secret(piece) || slice_equal(piece, other));
    }
    REQUIRE(redacted.data == NULL);
}

static void check_query(struct slice query, struct buffer *out)
{
    struct buffer again = {0};
    redact_write_query(&settings, query, out);
    require_clean(buffer_slice(out));
    if (query.size > 0)
        require_rest(query, buffer_slice(out));
    redact_write_query(&settings, buffer_slice(out), &again);
    REQUIRE(slice_equal(buffer_slice(&again), buffer_slice(out)));
    buffer_free(&again);
}

static void check_credential(struct slice query, struct slice redacted)
{
    const struct http_fields none = {0};
    struct credential credential = redact_find_credential(&none, query);
    if (credential.kind.data != NULL) {
        REQUIRE(slice_equal(credential.kind, SLICE("query")) && credential.key.size > 0);
        REQUIRE(credential.key.data >= query.data &&
                credential.key.data + credential.key.size <= query.data + query.size);
        credential = redact_find_credential(&none, redacted);
        REQUIRE(credential.kind.data == NULL || slice_equal(credential.key, REDACTED));
    }
}

static void check_reference(struct slice reference)
{
    struct buffer out = {0}, expected = {0};
    struct slice rest = reference, address, query;
    redact_write_reference(&settings, reference, &out);
    const char *fragment = memchr(reference.data, '#', reference.size);
    rest.size = fragment != NULL ? (size_t)(fragment - reference.data) : reference.size;
    query = rest;
    if (slice_split(&query, '?', &address) && query.data != NULL) {
        buffer_append_slice(&expected, address);
        buffer_append_char(&expected, '?');
        redact_write_query(&settings, query, &expected);
    } else {
        buffer_append_slice(&expected, rest);
    }
    buffer_append(&expected, reference.data + rest.size, reference.size - rest.size);
    REQUIRE(slice_equal(buffer_slice(&out), buffer_slice(&expected)));
    buffer_free(&out);
    buffer_free(&expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    struct buffer redacted = {0};
    check_query(input, &redacted);
    check_credential(input, buffer_slice(&redacted));
    check_reference(input);
    buffer_free(&redacted);
    free((char *)(uintptr_t)input.data);
    return 0;
}
