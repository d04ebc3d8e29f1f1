/* See loopback.h. */
#include "loopback.h"

#include <arpa/inet.h>
#include <assert.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <strings.h>

#include "base/memory.h"
#include "script/host.h"

struct answer {
    char *text;
    size_t size;
    double delay_s;
    bool close;
};

struct server {
    struct event_base *base;
    struct evconnlistener *listener;
    SSL_CTX *tls;
    struct peer *peers;
    struct answer *answers;
    size_t answer_count, next_answer;
    char **requests;
    size_t *request_sizes;
    size_t request_count, connection_count;
};

struct peer {
    struct server *server;
    struct peer *next, **link;
    struct bufferevent *stream;
    struct event delay;
    const struct answer *answer;
};

static char certificate_path[512];

/* A key and a certificate signed with itself, in one file. */
const char *loopback_certificate(const char *folder)
{
    if (certificate_path[0] != '\0')
        return certificate_path;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    assert(key != NULL && certificate != NULL);
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    X509_add_ext(certificate, names, -1);
    X509_EXTENSION_free(names);
    X509_sign(certificate, key, EVP_sha256());

    snprintf(certificate_path, sizeof(certificate_path), "%s/server.pem", folder);
    FILE *file = fopen(certificate_path, "w");
    assert(file != NULL);
    PEM_write_X509(file, certificate);
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return certificate_path;
}

static void free_peer(struct peer *peer)
{
    evtimer_del(&peer->delay);
    bufferevent_free(peer->stream);
    *peer->link = peer->next;
    if (peer->next != NULL)
        peer->next->link = peer->link;
    free(peer);
}

static void on_written(struct bufferevent *stream, void *argument)
{
    struct peer *peer = argument;
    if (peer->answer != NULL && peer->answer->close &&
        evbuffer_get_length(bufferevent_get_output(stream)) == 0)
        free_peer(peer);
}

static void on_delay_over(evutil_socket_t none, short events, void *argument)
{
    (void)none;
    (void)events;
    struct peer *peer = argument;
    if (peer->answer->size > 0)
        bufferevent_write(peer->stream, peer->answer->text, peer->answer->size);
    else if (peer->answer->close)
        free_peer(peer);
}

/* The length of the request at the front, 0 while it is not complete. Bodies have a Content-Length here. */
static size_t request_size(struct evbuffer *input)
{
    struct evbuffer_ptr end = evbuffer_search(input, "\r\n\r\n", 4, NULL);
    if (end.pos < 0)
        return 0;
    size_t head = (size_t)end.pos + 4, body = 0;
    const char *text = (const char *)evbuffer_pullup(input, (ev_ssize_t)head);
    for (const char *line = text; line < text + head; line = strchr(line, '\n') + 1) {
        if (strncasecmp(line, "content-length:", 15) == 0)
            body = strtoul(line + 15, NULL, 10);
    }
    return evbuffer_get_length(input) >= head + body ? head + body : 0;
}

static void on_readable(struct bufferevent *stream, void *argument)
{
    struct peer *peer = argument;
    struct server *server = peer->server;
    struct evbuffer *input = bufferevent_get_input(stream);
    size_t size = request_size(input);
    if (size == 0)
        return;
    size_t index = server->request_count++;
    server->requests = xrealloc(server->requests, server->request_count * sizeof(*server->requests));
    server->request_sizes =
        xrealloc(server->request_sizes, server->request_count * sizeof(*server->request_sizes));
    server->requests[index] = xmalloc(size);
    server->request_sizes[index] = size;
    evbuffer_remove(input, server->requests[index], size);

    peer->answer = &server->answers[server->next_answer];
    if (server->next_answer + 1 < server->answer_count)
        server->next_answer++;
    struct timeval delay = {(time_t)peer->answer->delay_s,
                            (suseconds_t)(peer->answer->delay_s * 1e6) % 1000000};
    evtimer_add(&peer->delay, &delay);
}

static void on_event(struct bufferevent *stream, short what, void *argument)
{
    (void)stream;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        free_peer(argument);
}

static void on_connection(struct evconnlistener *listener, evutil_socket_t socket, struct sockaddr *address,
                          int size, void *argument)
{
    (void)listener;
    (void)address;
    (void)size;
    struct server *server = argument;
    struct peer *peer = xcalloc(1, sizeof(*peer));
    server->connection_count++;
    peer->server = server;
    peer->next = server->peers;
    peer->link = &server->peers;
    if (peer->next != NULL)
        peer->next->link = &peer->next;
    server->peers = peer;
    evtimer_assign(&peer->delay, server->base, on_delay_over, peer);
    peer->stream = server->tls != NULL
                       ? bufferevent_openssl_socket_new(server->base, socket, SSL_new(server->tls),
                                                        BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE)
                       : bufferevent_socket_new(server->base, socket, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(peer->stream, on_readable, on_written, on_event, peer);
    bufferevent_enable(peer->stream, EV_READ | EV_WRITE);
}

/* Lua ------------------------------------------------------------------------------------------------------- */

static struct server *server_of(lua_State *lua)
{
    return *(struct server **)luaL_checkudata(lua, 1, "testing.server");
}

static int server_free(lua_State *lua)
{
    struct server *server = server_of(lua);
    while (server->peers != NULL)
        free_peer(server->peers);
    evconnlistener_free(server->listener);
    SSL_CTX_free(server->tls);
    for (size_t i = 0; i < server->request_count; i++)
        free(server->requests[i]);
    for (size_t i = 0; i < server->answer_count; i++)
        free(server->answers[i].text);
    free(server->requests);
    free(server->request_sizes);
    free(server->answers);
    free(server);
    return 0;
}

static int server_requests(lua_State *lua)
{
    struct server *server = server_of(lua);
    lua_newtable(lua);
    for (size_t i = 0; i < server->request_count; i++) {
        lua_pushlstring(lua, server->requests[i], server->request_sizes[i]);
        lua_rawseti(lua, -2, (int)i + 1);
    }
    return 1;
}

static int server_connections(lua_State *lua)
{
    lua_pushinteger(lua, (lua_Integer)server_of(lua)->connection_count);
    return 1;
}

static int server_port(lua_State *lua)
{
    struct sockaddr_in address;
    socklen_t size = sizeof(address);
    getsockname(evconnlistener_get_fd(server_of(lua)->listener), (struct sockaddr *)&address, &size);
    lua_pushinteger(lua, ntohs(address.sin_port));
    return 1;
}

static void push_server(lua_State *lua, struct server *server)
{
    static const luaL_Reg methods[] = {{"requests", server_requests},
                                       {"connections", server_connections},
                                       {"port", server_port},
                                       {NULL, NULL}};
    *(struct server **)lua_newuserdata(lua, sizeof(server)) = server;
    if (luaL_newmetatable(lua, "testing.server")) {
        script_new_module(lua, "server", methods);
        lua_setfield(lua, -2, "__index");
        lua_pushcfunction(lua, server_free);
        lua_setfield(lua, -2, "__gc");
    }
    lua_setmetatable(lua, -2);
}

static void read_answers(lua_State *lua, struct server *server)
{
    lua_getfield(lua, 1, "answers");
    server->answer_count = lua_objlen(lua, -1);
    server->answers = xcalloc(server->answer_count, sizeof(*server->answers));
    for (size_t i = 0; i < server->answer_count; i++) {
        struct answer *answer = &server->answers[i];
        lua_rawgeti(lua, -1, (int)i + 1);
        lua_getfield(lua, -1, "text");
        const char *text = luaL_optlstring(lua, -1, "", &answer->size);
        answer->text = xmemdup(text, answer->size);
        lua_getfield(lua, -2, "delay");
        answer->delay_s = lua_tonumber(lua, -1);
        lua_getfield(lua, -3, "close");
        answer->close = lua_toboolean(lua, -1);
        lua_pop(lua, 4);
    }
    lua_pop(lua, 1);
}

int loopback_listen(lua_State *lua)
{
    luaL_checktype(lua, 1, LUA_TTABLE);
    struct server *server = xcalloc(1, sizeof(*server));
    server->base = loop_base(script_loop(script_of(lua)));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server->listener = evconnlistener_new_bind(server->base, on_connection, server, LEV_OPT_CLOSE_ON_FREE, 16,
                                               (struct sockaddr *)&address, sizeof(address));
    assert(server->listener != NULL);
    push_server(lua, server);
    read_answers(lua, server);
    lua_getfield(lua, 1, "certificate");
    if (!lua_isnil(lua, -1)) {
        server->tls = SSL_CTX_new(TLS_server_method());
        const char *path = lua_tostring(lua, -1);
        if (SSL_CTX_use_certificate_file(server->tls, path, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_use_PrivateKey_file(server->tls, path, SSL_FILETYPE_PEM) != 1)
            return luaL_error(lua, "cannot use %s", path);
    }
    lua_pop(lua, 1);
    return 1;
}
