/*
 * Request heads: any bytes are refused, or understood the same way however they arrive; and what is understood means the same to the next server when the proxy has
 * written it anew. A client's token goes to no server, and who the client is follows from what trusted proxies wrote, and nothing else.
 */
#include <arpa/inet.h>
#include <openssl/sha.h>

#include "heads.h"
#include "proxy/access.h"
#include "proxy/forward.h"
#include "proxy/redact.h"
#include "proxy/route.h"

static struct route_header key_header[] = {{"Authorization", "Bearer of-the-proxy"}, {"X-Removed", NULL}};

static const struct route routes[] = {
    {.prefix = "", .authority = "upstream.test:8080", .base_path = ""},
    {.prefix = "/v1",
     .authority = "[::1]:80",
     .base_path = "/api",
     .strip_prefix = true,
     .forwarded = true,
     .headers = key_header,
     .header_count = 2,
     .sets_credential = true},
    {.prefix = "/v1", .authority = "upstream.test", .base_path = "", .strip_prefix = true},
};

#define TOKEN "token-of-a-client"

static const struct proxy_settings *settings(void)
{
    static struct client_token token = {.name = (char *)(uintptr_t) "client"};
    static struct network trusted[2];
    static struct proxy_settings settings = {
        .tokens = &token, .token_count = 1, .trusted_proxies = {.items = trusted, .count = 2}};
    if (settings.route_count == 0) {
        SHA256((const unsigned char *)TOKEN, strlen(TOKEN), token.digest);
        REQUIRE(network_parse(SLICE("10.0.0.0/8"), &trusted[0]) && network_parse(SLICE("::1"), &trusted[1]));
        settings.routes = (struct route *)(uintptr_t)routes;
        settings.route_count = 1;
    }
    return &settings;
}

/* ------------------------------------------------------------------------------------------------ written anew */

/* A token stands alone in its field, or behind "Bearer" in Authorization. */
static bool is_token(const struct name_value *field)
{
    struct slice value = field->value, scheme = SLICE("bearer ");
    if (slice_equal_nocase(field->name, SLICE("authorization"))) {
        if (value.size < scheme.size || !slice_equal_nocase((struct slice){value.data, scheme.size}, scheme))
            return false;
        value = slice_trim((struct slice){value.data + scheme.size, value.size - scheme.size});
    }
    return redact_is_credential_field(field->name) && slice_equal(value, SLICE(TOKEN));
}

/* A credential whose last word is a token, whatever scheme stands before it: it opens no door, but goes nowhere either. */
static bool ends_with_token(const struct name_value *field)
{
    struct slice value = slice_trim(field->value), token = SLICE(TOKEN);
    if (!redact_is_credential_field(field->name) || value.size < token.size ||
        memcmp(value.data + value.size - token.size, token.data, token.size) != 0)
        return false;
    char before = value.size > token.size ? value.data[value.size - token.size - 1] : ' ';
    return before == ' ' || before == '\t';
}

static bool is_one_of(struct slice name, const char *const *names, size_t count)
{
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found = found || slice_equal_nocase(name, slice_of(names[i]));
    return found;
}

/* Whether the proxy says something of its own in this field, or nothing at all. */
static bool is_replaced(const struct route *route, struct slice name, bool trusted)
{
    static const char *const always[] = {"host", "content-length", "expect", "x-request-id"};
    static const char *const forwarded[] = {"forwarded", "x-forwarded-for", "x-forwarded-proto",
                                            "x-forwarded-host"};
    struct slice prefix = SLICE("x-forwarded-"), begin = {name.data, prefix.size};
    if (is_one_of(name, always, 4) || (route->forwarded && is_one_of(name, forwarded, 4)))
        return true;
    if (route->forwarded && !trusted &&
        (slice_equal_nocase(name, SLICE("x-real-ip")) ||
         (name.size > prefix.size && slice_equal_nocase(begin, prefix))))
        return true;
    return route->sets_credential &&
           (redact_is_credential_field(name) || slice_equal_nocase(name, SLICE("x-removed")));
}

static void require_same_fields(const struct route *route, bool trusted, const struct http_request *request,
                                const struct http_request *again)
{
    size_t next = 1;
    REQUIRE(field_equals(&again->fields, 0, SLICE("Host"), slice_of(route->authority)));
    for (size_t i = 0; i < request->fields.count; i++) {
        struct name_value field = request->fields.items[i];
        if (is_replaced(route, field.name, trusted) || ends_with_token(&field) ||
            http_fields_is_hop_by_hop(&request->fields, field.name))
            continue;
        if (slice_equal_nocase(field.name, SLICE("max-forwards")))
            REQUIRE(next < again->fields.count && slice_equal(again->fields.items[next].name, field.name));
        else
            REQUIRE(field_equals(&again->fields, next, field.name, field.value));
        next++;
    }
    REQUIRE(field_equals(&again->fields, next++, SLICE("Via"),
                         request->minor_version == 0 ? SLICE("1.0 fuzz") : SLICE("1.1 fuzz")));
    REQUIRE(http_fields_count(&again->fields, SLICE("x-request-id")) == 1);
    size_t own = request->body == HTTP_BODY_NONE ? 1 : 2;
    if (route->header_count > 0)
        own++;
    if (route->forwarded)
        own += request->authority.size > 0 ? 3 : 2;
    REQUIRE(again->fields.count == next + own);
    for (size_t i = 0; i < again->fields.count; i++)
        REQUIRE(!ends_with_token(&again->fields.items[i]));
    if (route->sets_credential) {
        const struct name_value *credential = http_fields_find(&again->fields, SLICE("authorization"));
        REQUIRE(slice_equal(credential->value, SLICE("Bearer of-the-proxy")));
        REQUIRE(http_fields_count(&again->fields, SLICE("x-api-key")) == 0);
    }
}

static void require_same_target(const struct route *route, const struct http_request *request,
                                const struct http_request *again)
{
    struct slice base = slice_of(route->base_path), path = request->path;
    size_t cut = route->strip_prefix ? strlen(route->prefix) : 0;
    path = (struct slice){path.data + cut, path.size - cut};
    if (base.size + path.size == 0)
        path = SLICE("/");
    REQUIRE(slice_starts_with(again->path, base));
    REQUIRE(slice_equal((struct slice){again->path.data + base.size, again->path.size - base.size}, path));
    REQUIRE(again->has_query == request->has_query && slice_equal(again->query, request->query));
    REQUIRE(slice_equal(again->authority, slice_of(route->authority)));
}

/* What a trusted proxy wrote, and the peer behind it. */
static void require_forwarded_for(const struct http_request *request, const struct http_request *again,
                                  bool trusted)
{
    struct buffer expected = {0};
    for (size_t i = 0; trusted && i < request->fields.count; i++) {
        struct name_value field = request->fields.items[i];
        if (slice_equal_nocase(field.name, SLICE("x-forwarded-for")) && field.value.size > 0) {
            buffer_append_slice(&expected, field.value);
            buffer_append_string(&expected, ", ");
        }
    }
    buffer_append_string(&expected, "127.0.0.1");
    const struct name_value *field = http_fields_find(&again->fields, SLICE("x-forwarded-for"));
    REQUIRE(field != NULL && slice_equal(field->value, buffer_slice(&expected)));
    buffer_free(&expected);
}

static void forward_through(const struct route *route, const struct http_request *request, bool trusted)
{
    struct proxy_settings only = *settings();
    char request_id[FORWARD_REQUEST_ID_SIZE];
    struct buffer out = {0};
    struct http_request again = {0};
    struct http_problem problem = {.reason = ""};
    only.routes = (struct route *)(uintptr_t)route;
    forward_is_loop(request, SLICE("fuzz"));
    if (route_find(&only, request->path) == NULL || !route_target_is_safe(route, request->path))
        return;
    forward_request_id(request, request_id);
    forward_write_request(&(struct forward_request){.request = request,
                                                    .route = route,
                                                    .request_id = request_id,
                                                    .via_name = "fuzz",
                                                    .client = "127.0.0.1:4711",
                                                    .settings = &only,
                                                    .trusted = trusted},
                          &out);
    struct scanned scanned = scan_cut(buffer_slice(&out), false, &fuzz_no_limits, FUZZ_WHOLE);
    REQUIRE(scanned.result == HTTP_SCAN_COMPLETE && scanned.size == out.size);
    REQUIRE_MESSAGE(http_parse_request(buffer_slice(&out), &fuzz_no_limits, &again, &problem),
                    problem.reason);
    REQUIRE(slice_equal(again.method, request->method));
    REQUIRE(again.body == request->body && again.content_length == request->content_length);
    REQUIRE(again.minor_version == 1 && again.keep_alive && !again.expect_continue);
    REQUIRE(forward_is_loop(&again, SLICE("fuzz")));
    require_same_target(route, request, &again);
    require_same_fields(route, trusted, request, &again);
    if (route->forwarded)
        require_forwarded_for(request, &again, trusted);
    http_request_free(&again);
    buffer_free(&out);
}

/* ------------------------------------------------------------------------------------------------ who asks */

static struct access access_from(const char *peer, const struct http_fields *fields)
{
    struct address address;
    struct access access;
    struct error error;
    REQUIRE_MESSAGE(address_parse(peer, &address, &error), error.message);
    access_check(settings(), &address, fields, &access);
    return access;
}

/* With one more X-Forwarded-For in front or behind. */
static struct access access_with(const struct http_fields *fields, const char *before, const char *behind)
{
    struct http_fields more = {0};
    if (before != NULL)
        http_fields_add(&more, SLICE("X-Forwarded-For"), slice_of(before));
    for (size_t i = 0; i < fields->count; i++)
        http_fields_add(&more, fields->items[i].name, fields->items[i].value);
    if (behind != NULL)
        http_fields_add(&more, SLICE("x-forwarded-for"), slice_of(behind));
    struct access access = access_from("10.0.0.1:80", &more);
    http_fields_free(&more);
    return access;
}

static bool is_ip(const char *text)
{
    unsigned char ip[16];
    return inet_pton(AF_INET, text, ip) == 1 || inet_pton(AF_INET6, text, ip) == 1;
}

static bool is_trusted(const char *ip)
{
    return strncmp(ip, "10.", 3) == 0 || strcmp(ip, "::1") == 0;
}

static void check_access(const struct http_fields *fields)
{
    struct access unknown = access_from("192.0.2.1:80", fields), proxied = access_with(fields, NULL, NULL);
    REQUIRE(!unknown.trusted && unknown.client[0] == 0);
    REQUIRE(proxied.trusted && (proxied.client[0] == 0 || is_ip(proxied.client)));
    bool has_token = false;
    for (size_t i = 0; i < fields->count; i++)
        has_token = has_token || is_token(&fields->items[i]);
    REQUIRE((proxied.client_name != NULL) == has_token && (unknown.client_name != NULL) == has_token);
    REQUIRE((proxied.refusal == NULL) == has_token);
    /* The last that is not trusted counts, whoever wrote what before it. */
    REQUIRE(strcmp(access_with(fields, NULL, "192.0.2.7").client, "192.0.2.7") == 0);
    REQUIRE(access_with(fields, NULL, "unknown").client[0] == 0);
    if (proxied.client[0] == 0)
        return;
    REQUIRE(strcmp(access_with(fields, NULL, "10.9.9.9:8080").client, proxied.client) == 0);
    struct access lied = access_with(fields, "192.0.2.8", NULL);
    REQUIRE(strcmp(lied.client, is_trusted(proxied.client) ? "192.0.2.8" : proxied.client) == 0);
}

/* --------------------------------------------------------------------------------------------------------------- */

static void check(struct slice data, const struct http_limits *limits)
{
    static struct http_request request; /* used again and again, as a connection does */
    struct http_problem problem = {.reason = "", .message = ""};
    struct scanned scanned = scan_any_way(data, false, limits);
    if (scanned.result != HTTP_SCAN_COMPLETE) {
        REQUIRE(!http_parse_request(data, limits, &request, &problem));
        require_problem(&problem);
        return;
    }
    struct slice head = fuzz_copy((struct slice){data.data, scanned.size});
    if (http_parse_request(head, limits, &request, &problem)) {
        REQUIRE(http_is_token(request.method) && request.target.size <= limits->max_target_bytes);
        REQUIRE(slice_equal(request.path, SLICE("*")) || http_path_is_safe(request.path));
        REQUIRE(request.body != HTTP_BODY_UNTIL_CLOSE);
        require_fields(&request.fields, limits);
        for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
            forward_through(&routes[i], &request, false);
        forward_through(&routes[1], &request, true);
        check_access(&request.fields);
    } else {
        require_problem(&problem);
    }
    free((char *)(uintptr_t)head.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < FUZZ_LIMITS; i++)
        check((struct slice){(const char *)data, size}, &fuzz_limits[i]);
    return 0;
}
