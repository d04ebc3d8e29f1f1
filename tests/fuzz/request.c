/*
 * Request heads: any bytes are refused, or understood the same way however they arrive; and what is understood means the same to the next server when the proxy has
 * written it anew.
 */
#include "heads.h"
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

/* Whether the proxy says something of its own in this field, or nothing at all. */
static bool is_replaced(const struct route *route, struct slice name)
{
    static const char *const always[] = {"host", "content-length", "expect", "x-request-id"};
    static const char *const forwarded[] = {"forwarded", "x-forwarded-for", "x-forwarded-proto",
                                            "x-forwarded-host"};
    for (size_t i = 0; i < 4; i++) {
        if (slice_equal_nocase(name, slice_of(always[i])) ||
            (route->forwarded && slice_equal_nocase(name, slice_of(forwarded[i]))))
            return true;
    }
    return route->sets_credential &&
           (redact_is_credential_field(name) || slice_equal_nocase(name, SLICE("x-removed")));
}

static void require_same_fields(const struct route *route, const struct http_request *request,
                                const struct http_request *again)
{
    size_t next = 1;
    REQUIRE(field_equals(&again->fields, 0, SLICE("Host"), slice_of(route->authority)));
    for (size_t i = 0; i < request->fields.count; i++) {
        struct name_value field = request->fields.items[i];
        if (is_replaced(route, field.name) || http_fields_is_hop_by_hop(&request->fields, field.name))
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

static void forward_through(const struct route *route, const struct http_request *request)
{
    struct proxy_settings settings = {.routes = (struct route *)(uintptr_t)route, .route_count = 1};
    char request_id[FORWARD_REQUEST_ID_SIZE];
    struct buffer out = {0};
    struct http_request again = {0};
    struct http_problem problem = {.reason = ""};
    forward_is_loop(request, SLICE("fuzz"));
    if (route_find(&settings, request->path) == NULL || !route_target_is_safe(route, request->path))
        return;
    forward_request_id(request, request_id);
    forward_write_request(&(struct forward_request){.request = request,
                                                    .route = route,
                                                    .request_id = request_id,
                                                    .via_name = "fuzz",
                                                    .client = "127.0.0.1:4711",
                                                    .settings = &settings},
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
    require_same_fields(route, request, &again);
    http_request_free(&again);
    buffer_free(&out);
}

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
            forward_through(&routes[i], &request);
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
