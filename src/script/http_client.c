/*
 * libcurl asks us to watch sockets (on_socket) and to wake it at a time (on_timer); libevent calls us when one of them is due, and we let libcurl act (act). After each act the
 * finished transfers are taken off and their owners told.
 */
#include "script/http_client.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"

#define MAX_HEAD_BYTES   (256 * 1024)
#define IDLE_CONNECTIONS 16L
#define CONNECTIONS      64L         /* more requests than these wait their turn */
#define MOST_PENDING     (64 * 1024) /* of a body that is taken in pieces */
#define SYSTEM_BUNDLE    "/etc/ssl/certs/ca-certificates.crt"

struct http_client {
    struct event_base *base;
    CURLM *multi;
    struct event timer;
    struct http_client_transfer *transfers;
    struct watch *watches;
};

/* A socket libcurl wants to hear of. */
struct watch {
    struct http_client *client;
    struct watch *next, **link;
    struct event event;
};

struct http_client_transfer {
    struct http_client *client;
    struct http_client_transfer *next, **link;
    CURL *easy;
    struct curl_slist *lines; /* of the request's head */
    char *label;              /* the address, for messages */
    double timeout_s;
    size_t max_response_bytes;
    struct buffer head, body;
    bool head_complete, head_too_large, truncated;
    bool readable; /* on_data is due */
    bool paused;
    void (*on_data)(void *owner);
    char reason[CURL_ERROR_SIZE]; /* libcurl's words */
    void (*done)(void *owner, const struct http_client_response *response);
    void *owner;
};

/* Transfers ---------------------------------------------------------------------------------------------- */

static void free_transfer(struct http_client_transfer *transfer)
{
    *transfer->link = transfer->next;
    if (transfer->next != NULL)
        transfer->next->link = transfer->link;
    curl_multi_remove_handle(transfer->client->multi, transfer->easy);
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->lines);
    buffer_free(&transfer->head);
    buffer_free(&transfer->body);
    free(transfer->label);
    free(transfer);
}

/* The address without user, password, query and fragment: they hold secrets. */
static char *label_of(const char *method, const char *url)
{
    const char *authority = strstr(url, "://");
    const char *host = authority != NULL ? authority + 3 : url;
    size_t scheme = (size_t)(host - url);
    size_t authority_size = strcspn(host, "/?#");
    for (size_t i = authority_size; i > 0; i--) {
        if (host[i - 1] == '@') {
            host += i;
            break;
        }
    }
    return xprintf("%s %.*s%.*s", method, (int)scheme, url, (int)strcspn(host, "?#"), host);
}

static const char *system_words(long number)
{
    static _Thread_local char text[128];
    return strerror_r((int)number, text, sizeof(text));
}

/* What failed, in words that hold nothing of the request but its label. */
static char *describe_failure(const struct http_client_transfer *transfer, CURLcode code)
{
    const char *label = transfer->label;
    long number = 0;
    curl_off_t connected_us = 0;
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return xprintf("%s: not an http or https address", label);
    case CURLE_COULDNT_RESOLVE_HOST:
        return xprintf("%s: the host's name was not found", label);
    case CURLE_COULDNT_RESOLVE_PROXY:
        return xprintf("%s: the proxy's name was not found", label);
    case CURLE_COULDNT_CONNECT:
        curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &number);
        return xprintf("%s: cannot connect: %s", label,
                       number != 0 ? system_words(number) : "no address answered");
    case CURLE_OPERATION_TIMEDOUT:
        curl_easy_getinfo(transfer->easy, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
        if (connected_us == 0)
            return xprintf("%s: no connection in time", label);
        if (transfer->timeout_s == 0 || strstr(transfer->reason, "too slow") != NULL)
            return xprintf("%s: nothing came of the answer for too long", label);
        return xprintf("%s: no complete answer within %g s", label, transfer->timeout_s);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return xprintf("%s: TLS: %s", label,
                       transfer->reason[0] != '\0' ? transfer->reason : curl_easy_strerror(code));
    case CURLE_GOT_NOTHING:
        return xprintf("%s: the connection was closed without an answer", label);
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return xprintf("%s: the connection broke before the end of the answer", label);
    case CURLE_SEND_ERROR:
        return xprintf("%s: the connection broke while the request was sent", label);
    case CURLE_WEIRD_SERVER_REPLY:
        return xprintf("%s: the answer is not HTTP", label);
    default:
        return xprintf("%s: %s", label, curl_easy_strerror(code));
    }
}

static char *failure_of(const struct http_client_transfer *transfer, CURLcode code)
{
    if (transfer->head_too_large)
        return xprintf("%s: the head of the answer is larger than %d bytes", transfer->label, MAX_HEAD_BYTES);
    if (transfer->truncated)
        return NULL;
    if (code != CURLE_OK)
        return describe_failure(transfer, code);
    /* libcurl takes a head that is cut off between two lines for a whole one. */
    if (!transfer->head_complete)
        return describe_failure(transfer, CURLE_PARTIAL_FILE);
    return NULL;
}

static void finish_transfer(struct http_client_transfer *transfer, CURLcode code)
{
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    char *failure = failure_of(transfer, code);
    struct http_client_response response = {
        .error = failure,
        .status = (unsigned)status,
        .head = buffer_slice(&transfer->head),
        .body = buffer_slice(&transfer->body),
        .truncated = transfer->truncated,
    };
    transfer->done(transfer->owner, &response);
    free(failure);
    free_transfer(transfer);
}

/* Their owners may start and cancel others: the list is looked through anew after each. */
static void tell_readable(struct http_client *client)
{
    struct http_client_transfer *transfer = client->transfers;
    while (transfer != NULL) {
        unsigned status;
        struct slice head;
        if (transfer->readable && http_client_head(transfer, &status, &head)) {
            transfer->readable = false;
            transfer->on_data(transfer->owner);
            transfer = client->transfers;
        } else {
            transfer = transfer->next;
        }
    }
}

static void finish_transfers(struct http_client *client)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        struct http_client_transfer *transfer;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        finish_transfer(transfer, code);
    }
}

/* The response ------------------------------------------------------------------------------------------- */

static size_t on_head_line(char *data, size_t unit, size_t count, void *argument)
{
    struct http_client_transfer *transfer = argument;
    size_t size = unit * count;
    struct slice line = {data, size}, name;
    while (line.size > 0 && (line.data[line.size - 1] == '\n' || line.data[line.size - 1] == '\r'))
        line.size--;
    if (slice_starts_with(line, SLICE("HTTP/"))) { /* the first head, or the next one after a 1xx */
        buffer_clear(&transfer->head);
        transfer->head_complete = false;
        return size;
    }
    if (line.size == 0) {
        transfer->head_complete = true;
        transfer->readable = transfer->on_data != NULL;
    }
    if (transfer->head_complete) /* what still comes is a trailer */
        return size;
    if (transfer->head.size + line.size > MAX_HEAD_BYTES) {
        transfer->head_too_large = true;
        return 0;
    }
    if (!slice_split(&line, ':', &name) || line.data == NULL)
        return size;
    for (size_t i = 0; i < name.size; i++)
        buffer_append_char(&transfer->head, ascii_lower(name.data[i]));
    buffer_append_string(&transfer->head, ": ");
    buffer_append_slice(&transfer->head, slice_trim(line));
    buffer_append_char(&transfer->head, '\n');
    return size;
}

static size_t on_body(char *data, size_t unit, size_t count, void *argument)
{
    struct http_client_transfer *transfer = argument;
    size_t size = unit * count;
    if (transfer->on_data != NULL) {
        if (transfer->body.size >= MOST_PENDING) {
            transfer->paused = true;
            return CURL_WRITEFUNC_PAUSE;
        }
        buffer_append(&transfer->body, data, size);
        transfer->readable = true;
        return size;
    }
    size_t room = transfer->max_response_bytes - transfer->body.size;
    buffer_append(&transfer->body, data, size < room ? size : room);
    if (size <= room)
        return size;
    transfer->truncated = true; /* ends the transfer */
    return 0;
}

/* The request -------------------------------------------------------------------------------------------- */

static void add_line(struct http_client_transfer *transfer, const char *line)
{
    struct curl_slist *lines = curl_slist_append(transfer->lines, line);
    assert(lines != NULL);
    transfer->lines = lines;
}

static void set_head(struct http_client_transfer *transfer, const struct http_client_request *request)
{
    bool has_type = false;
    for (size_t i = 0; i < request->header_count; i++) {
        struct slice name = request->headers[i].name, value = request->headers[i].value;
        /* "name:" would remove a header of libcurl's own, "name;" sends an empty one. */
        char *line = value.size > 0 ? xprintf("%.*s: %.*s", SLICE_ARGUMENTS(name), SLICE_ARGUMENTS(value))
                                    : xprintf("%.*s;", SLICE_ARGUMENTS(name));
        add_line(transfer, line);
        free(line);
        has_type = has_type || slice_equal_nocase(name, SLICE("content-type"));
    }
    if (!has_type)
        add_line(transfer, "Content-Type:");
    add_line(transfer, "Expect:");
    curl_easy_setopt(transfer->easy, CURLOPT_USERAGENT, "llm-proxy/" LLM_PROXY_VERSION);
    curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->lines);
}

static void set_method_and_body(CURL *easy, const struct http_client_request *request)
{
    bool is_post = strcmp(request->method, "POST") == 0;
    if (request->has_body || is_post) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
        curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request->body.size > 0 ? request->body.data : "");
        if (!is_post)
            curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    } else if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (strcmp(request->method, "GET") != 0) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    }
}

static void set_tls(CURL *easy, const struct http_client_request *request)
{
    const char *bundle = getenv("SSL_CERT_FILE");
    if (bundle == NULL || bundle[0] == '\0')
        bundle = SYSTEM_BUNDLE;
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* The folder of hashed certificates is read file by file in every handshake, and keeps libcurl from caching the bundle. */
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file != NULL ? request->ca_file : bundle);
    if (request->insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (request->client_cert != NULL)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, request->client_cert);
    if (request->client_key != NULL)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, request->client_key);
}

static long milliseconds(double seconds)
{
    return seconds < 0.001 ? 1L : (long)(seconds * 1000);
}

static void set_limits(CURL *easy, const struct http_client_request *request)
{
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    if (request->timeout_s > 0)
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds(request->timeout_s));
    if (request->idle_timeout_s > 0) { /* which libcurl looks at once a second */
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(request->idle_timeout_s + 0.999));
    }
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(request->connect_timeout_s));
    /* A transfer that ends during a name look-up leaves the look-up to end by itself; without this the loop would wait for it. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    if (request->proxy != NULL)
        curl_easy_setopt(easy, CURLOPT_PROXY, request->proxy);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
}

struct http_client_transfer *
http_client_start(struct http_client *client, const struct http_client_request *request,
                  void (*done)(void *owner, const struct http_client_response *response), void *owner)
{
    struct http_client_transfer *transfer = xcalloc(1, sizeof(*transfer));
    transfer->client = client;
    transfer->done = done;
    transfer->owner = owner;
    transfer->label = label_of(request->method, request->url);
    transfer->timeout_s = request->timeout_s;
    transfer->max_response_bytes = request->max_response_bytes;
    transfer->on_data = request->on_data;
    transfer->next = client->transfers;
    transfer->link = &client->transfers;
    if (transfer->next != NULL)
        transfer->next->link = &transfer->next;
    client->transfers = transfer;

    CURL *easy = curl_easy_init();
    assert(easy != NULL);
    transfer->easy = easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->reason);
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head_line);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    set_limits(easy, request);
    set_tls(easy, request);
    set_method_and_body(easy, request);
    set_head(transfer, request);
    CURLMcode added = curl_multi_add_handle(client->multi, easy);
    assert(added == CURLM_OK);
    (void)added;
    return transfer;
}

bool http_client_head(const struct http_client_transfer *transfer, unsigned *status, struct slice *head)
{
    long code = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &code);
    *status = (unsigned)code;
    *head = buffer_slice(&transfer->head);
    return transfer->head_complete && code >= 200;
}

struct slice http_client_pending(const struct http_client_transfer *transfer)
{
    return buffer_slice(&transfer->body);
}

void http_client_took(struct http_client_transfer *transfer)
{
    buffer_clear(&transfer->body);
    if (transfer->paused) {
        transfer->paused = false;
        curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
    }
}

void http_client_cancel(struct http_client_transfer *transfer)
{
    free_transfer(transfer);
}

/* The loop ----------------------------------------------------------------------------------------------- */

static void act(struct http_client *client, curl_socket_t socket, int events)
{
    int running;
    curl_multi_socket_action(client->multi, socket, events, &running);
    tell_readable(client);
    finish_transfers(client);
}

static void on_socket_ready(evutil_socket_t socket, short events, void *argument)
{
    struct watch *watch = argument;
    act(watch->client, socket,
        (events & EV_READ ? CURL_CSELECT_IN : 0) | (events & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_time(evutil_socket_t none, short events, void *argument)
{
    (void)none;
    (void)events;
    act(argument, CURL_SOCKET_TIMEOUT, 0);
}

static void free_watch(struct watch *watch)
{
    event_del(&watch->event);
    *watch->link = watch->next;
    if (watch->next != NULL)
        watch->next->link = watch->link;
    free(watch);
}

static struct watch *new_watch(struct http_client *client, curl_socket_t socket)
{
    struct watch *watch = xcalloc(1, sizeof(*watch));
    watch->client = client;
    watch->next = client->watches;
    watch->link = &client->watches;
    if (watch->next != NULL)
        watch->next->link = &watch->next;
    client->watches = watch;
    event_assign(&watch->event, client->base, socket, 0, on_socket_ready, watch);
    curl_multi_assign(client->multi, socket, watch);
    return watch;
}

static int on_socket(CURL *easy, curl_socket_t socket, int what, void *argument, void *assigned)
{
    (void)easy;
    struct http_client *client = argument;
    struct watch *watch = assigned;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL)
            free_watch(watch);
        curl_multi_assign(client->multi, socket, NULL);
        return 0;
    }
    if (watch == NULL)
        watch = new_watch(client, socket);
    short events =
        (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
    event_del(&watch->event);
    event_assign(&watch->event, client->base, socket, events, on_socket_ready, watch);
    event_add(&watch->event, NULL);
    return 0;
}

static int on_timer(CURLM *multi, long delay_ms, void *argument)
{
    (void)multi;
    struct http_client *client = argument;
    if (delay_ms < 0) {
        evtimer_del(&client->timer);
        return 0;
    }
    struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (delay_ms % 1000) * 1000};
    evtimer_add(&client->timer, &delay);
    return 0;
}

static void start_library(void)
{
    CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
    assert(code == CURLE_OK);
    (void)code;
}

struct http_client *http_client_new(struct loop *loop)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_library);

    struct http_client *client = xcalloc(1, sizeof(*client));
    client->base = loop_base(loop);
    evtimer_assign(&client->timer, client->base, on_time, client);
    client->multi = curl_multi_init();
    assert(client->multi != NULL);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS);
    curl_multi_setopt(client->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, CONNECTIONS);
    return client;
}

void http_client_free(struct http_client *client)
{
    if (client == NULL)
        return;
    while (client->transfers != NULL)
        free_transfer(client->transfers);
    curl_multi_cleanup(client->multi);
    while (client->watches != NULL)
        free_watch(client->watches);
    evtimer_del(&client->timer);
    free(client);
}
