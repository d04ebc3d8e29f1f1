/*
 * answer: the checks come in the order in which they give the least away: host, token, path, method, body.
 */
#include "admin/answer.h"

#include "http/write.h"

enum page { PAGE_NONE, PAGE_HEALTH, PAGE_READY, PAGE_METRICS, PAGE_STATS };

static enum page find_page(struct slice path)
{
    static const struct {
        struct slice path;
        enum page page;
    } pages[] = {
        {{"/healthz", 8}, PAGE_HEALTH},
        {{"/readyz", 7}, PAGE_READY},
        {{"/metrics", 8}, PAGE_METRICS},
        {{"/stats", 6}, PAGE_STATS},
    };
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        if (slice_equal(path, pages[i].path)) {
            return pages[i].page;
        }
    }
    return PAGE_NONE;
}

/* A page in a browser can be made to send requests here under a name of its maker, never under an address. HTTP/1.0 may name no host at all. */
static bool is_own_host(const struct admin_settings *settings, struct slice authority)
{
    struct address ignored;
    const char *colon = authority.size > 0 ? memchr(authority.data, ':', authority.size) : NULL;
    struct slice host = colon != NULL ? slice_range(authority.data, colon) : authority;

    if (authority.size == 0 || authority.data[0] == '[' || slice_equal_nocase(host, SLICE("localhost")) ||
        address_from_ip(host, 0, &ignored)) {
        return true;
    }
    for (size_t i = 0; settings->hosts != NULL && settings->hosts[i] != NULL; i++) {
        if (slice_equal_nocase(host, slice_of(settings->hosts[i]))) {
            return true;
        }
    }
    return false;
}

/* Takes the same time wherever the first difference is. */
static bool is_same_secret(struct slice given, struct slice secret)
{
    volatile unsigned char difference = given.size != secret.size;
    for (size_t i = 0; i < given.size; i++) {
        char expected = secret.size > 0 ? secret.data[i % secret.size] : 0;
        difference = (unsigned char)(difference | (given.data[i] ^ expected));
    }
    return difference == 0;
}

static bool is_authorized(const struct admin_settings *settings, const struct http_request *request)
{
    const struct name_value *field = http_fields_find(&request->fields, SLICE("authorization"));
    static const struct slice scheme = {"Bearer ", 7};
    if (settings->token == NULL) {
        return true;
    }
    if (field == NULL || field->value.size < scheme.size ||
        !slice_equal_nocase((struct slice){field->value.data, scheme.size}, scheme)) {
        return false;
    }
    struct slice given = {field->value.data + scheme.size, field->value.size - scheme.size};
    return is_same_secret(slice_trim(given), slice_of(settings->token));
}

struct response {
    int status;
    const char *content_type;
    struct slice extra_name, extra_value; /* one more field, if it has a name */
    struct buffer body;
};

static void fault(struct response *response, enum http_fault what, const char *message)
{
    response->status = http_fault_status(what);
    response->content_type = "application/json";
    http_write_fault_body(&response->body, what, message, (struct slice){NULL, 0});
}

static void text(struct response *response, int status, const char *line)
{
    response->status = status;
    response->content_type = "text/plain; charset=utf-8";
    buffer_append_string(&response->body, line);
    buffer_append_char(&response->body, '\n');
}

static void show_page(const struct admin_settings *settings, enum page page, struct response *response)
{
    const char *reason = "not ready";
    switch (page) {
    case PAGE_NONE:
        fault(response, HTTP_NO_ROUTE, "there is no such page");
        break;
    case PAGE_HEALTH:
        text(response, 200, "ok");
        break;
    case PAGE_READY:
        if (settings->is_ready == NULL || settings->is_ready(settings->argument, &reason)) {
            text(response, 200, "ready");
        } else {
            text(response, 503, reason);
        }
        break;
    case PAGE_METRICS:
        response->status = 200;
        response->content_type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_write(settings->metrics, &response->body);
        break;
    case PAGE_STATS:
        response->status = 200;
        response->content_type = "application/json";
        settings->write_stats(settings->argument, &response->body);
        break;
    }
}

static void write_response(struct response *response, bool close, bool head_only, struct buffer *out)
{
    http_write_status_line(out, response->status);
    http_write_date(out);
    http_write_field(out, SLICE("Content-Type"), slice_of(response->content_type));
    http_write_field(out, SLICE("X-Content-Type-Options"), SLICE("nosniff"));
    http_write_field(out, SLICE("Cache-Control"), SLICE("no-store"));
    http_write_field_uint64(out, SLICE("Content-Length"), response->body.size);
    if (response->extra_name.size > 0) {
        http_write_field(out, response->extra_name, response->extra_value);
    }
    if (close) {
        http_write_field(out, SLICE("Connection"), SLICE("close"));
    }
    http_write_end(out);
    if (!head_only) {
        buffer_append_slice(out, buffer_slice(&response->body));
    }
    buffer_free(&response->body);
}

bool admin_answer(const struct admin_settings *settings, const struct http_request *request,
                  struct buffer *out)
{
    struct response response = {0};
    enum page page = find_page(request->path);
    bool head_only = slice_equal(request->method, SLICE("HEAD"));
    bool has_body = request->body == HTTP_BODY_CHUNKED || request->content_length > 0;
    bool close = !request->keep_alive || request->minor_version == 0 || has_body;

    if (!is_own_host(settings, request->authority)) {
        fault(&response, HTTP_MISDIRECTED_REQUEST, NULL);
    } else if ((page == PAGE_NONE || page == PAGE_STATS) && !is_authorized(settings, request)) {
        fault(&response, HTTP_UNAUTHORIZED, NULL);
        response.extra_name = SLICE("WWW-Authenticate");
        response.extra_value = SLICE("Bearer");
    } else if (page != PAGE_NONE && !head_only && !slice_equal(request->method, SLICE("GET"))) {
        fault(&response, HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
        response.extra_name = SLICE("Allow");
        response.extra_value = SLICE("GET, HEAD");
    } else if (page != PAGE_NONE && has_body) {
        fault(&response, HTTP_REQUEST_TOO_LARGE, "requests have no body here");
    } else {
        show_page(settings, page, &response);
    }
    write_response(&response, close, head_only, out);
    return !close;
}

void admin_answer_fault(enum http_fault what, const char *message, struct buffer *out)
{
    struct response response = {0};
    fault(&response, what, message);
    write_response(&response, true, false, out);
}
