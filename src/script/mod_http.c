/*
 * llmproxy.http: requests to destinations. This file reads the options from Lua and puts the response into a table; http_client.c does the rest. Documented in lua/llmproxy/meta/http.lua.
 *
 * What is wrong with the options is a mistake in the plugin and raises, before anything is allocated that Lua does not own; what goes wrong on the way is nil and a message.
 */
#include <stdlib.h>

#include "base/memory.h"
#include "script/compress.h"
#include "script/host.h"
#include "script/http_client.h"
#include "script/mod_http.h"
#include "script/modules.h"

#define DEFAULT_TIMEOUT_S          10.0
#define DEFAULT_CONNECT_TIMEOUT_S  5.0
#define LONGEST_TIMEOUT_S          86400.0
#define DEFAULT_MAX_RESPONSE_BYTES (1024 * 1024)
#define MOST_RESPONSE_BYTES        (1024 * 1024 * 1024)
#define DEFAULT_GZIP_LEVEL         6

static const char *const OPTION_NAMES[] = {
    "idle_timeout",       "url",   "query",  "headers", "body", "gzip", "timeout", "connect_timeout", "tls",
    "max_response_bytes", "proxy", "method", NULL};
static const char *const TLS_NAMES[] = {"ca_file", "verify", "client_cert", "client_key", NULL};

/* The client of this state; freed with it. */

static int free_client(lua_State *lua)
{
    struct http_client **client = lua_touserdata(lua, 1);
    http_client_free(*client);
    *client = NULL;
    return 0;
}

struct http_client *http_client_of(lua_State *lua)
{
    static const char key;
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    struct http_client **client = lua_touserdata(lua, -1);
    lua_pop(lua, 1);
    if (client != NULL)
        return *client;
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&key);
    client = lua_newuserdata(lua, sizeof(struct http_client *));
    *client = NULL;
    lua_newtable(lua);
    lua_pushcfunction(lua, free_client);
    lua_setfield(lua, -2, "__gc");
    lua_setmetatable(lua, -2);
    lua_rawset(lua, LUA_REGISTRYINDEX);
    *client = http_client_new(script_loop(script_of(lua)));
    return *client;
}

/* Options ------------------------------------------------------------------------------------------------ */

/* The option that was probably meant, left on the stack; nil if none. Only on the way to an error, so the runtime library's own function does. */
static const char *nearest_name(lua_State *lua, const char *name, const char *const *names)
{
    lua_getglobal(lua, "require");
    lua_pushliteral(lua, "llmproxy.settings");
    if (lua_pcall(lua, 1, 1, 0) != 0 || !lua_istable(lua, -1))
        return NULL;
    lua_getfield(lua, -1, "nearest");
    lua_pushstring(lua, name);
    lua_newtable(lua);
    for (int i = 0; names[i] != NULL; i++) {
        lua_pushstring(lua, names[i]);
        lua_rawseti(lua, -2, i + 1);
    }
    return lua_pcall(lua, 2, 1, 0) == 0 ? lua_tostring(lua, -1) : NULL;
}

static void check_names(lua_State *lua, int table, const char *prefix, const char *const *names)
{
    lua_pushnil(lua);
    while (lua_next(lua, table) != 0) {
        lua_pop(lua, 1);
        if (lua_type(lua, -1) != LUA_TSTRING)
            script_raise(lua, "the options are named, a %s as key is none", luaL_typename(lua, -1));
        const char *name = lua_tostring(lua, -1);
        bool known = false;
        for (size_t i = 0; names[i] != NULL && !known; i++)
            known = strcmp(name, names[i]) == 0;
        if (known)
            continue;
        const char *meant = nearest_name(lua, name, names);
        if (meant == NULL)
            script_raise(lua, "there is no option '%s%s'", prefix, name);
        script_raise(lua, "there is no option '%s%s', did you mean '%s%s'?", prefix, name, prefix, meant);
    }
}

/* The option as a string that stays on the stack; NULL when absent. */
static const char *read_text(lua_State *lua, int table, const char *prefix, const char *name)
{
    lua_getfield(lua, table, name);
    if (lua_isnil(lua, -1))
        return NULL;
    if (lua_type(lua, -1) != LUA_TSTRING)
        script_raise(lua, "%s%s: expected a string, got a %s", prefix, name, luaL_typename(lua, -1));
    size_t size;
    const char *text = lua_tolstring(lua, -1, &size);
    if (memchr(text, '\0', size) != NULL)
        script_raise(lua, "%s%s: expected text, got a string with NUL bytes", prefix, name);
    return text;
}

static double read_number(lua_State *lua, int table, const char *name, double usual, double least,
                          double most)
{
    lua_getfield(lua, table, name);
    if (lua_isnil(lua, -1)) {
        lua_pop(lua, 1);
        return usual;
    }
    if (lua_type(lua, -1) != LUA_TNUMBER)
        script_raise(lua, "%s: expected a number, got a %s", name, luaL_typename(lua, -1));
    double number = lua_tonumber(lua, -1);
    lua_pop(lua, 1);
    if (!(number >= least && number <= most))
        script_raise(lua, "%s: expected a number from %g to %.15g, got %g", name, least, most, number);
    return number;
}

static bool is_token(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        bool letter = ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z', digit = c >= '0' && c <= '9';
        if (!letter && !digit && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return text.size > 0;
}

/* Framing and connection are not the plugin's to set: two opinions about where a request ends are a way to smuggle another. */
static bool is_reserved(struct slice name)
{
    return slice_equal_nocase(name, SLICE("content-length")) ||
           slice_equal_nocase(name, SLICE("transfer-encoding")) ||
           slice_equal_nocase(name, SLICE("connection")) || slice_equal_nocase(name, SLICE("upgrade")) ||
           slice_equal_nocase(name, SLICE("expect"));
}

/* The header whose name is at -2 and value at -1. Values are not shown in messages: they hold credentials. */
static struct name_value read_header(lua_State *lua)
{
    struct name_value header;
    if (lua_type(lua, -2) != LUA_TSTRING)
        script_raise(lua, "headers: expected names as keys, got a %s", luaL_typename(lua, -2));
    header.name.data = lua_tolstring(lua, -2, &header.name.size);
    if (!is_token(header.name))
        script_raise(lua, "headers: a name has characters that are not allowed in one");
    if (is_reserved(header.name))
        script_raise(lua, "headers: %s is set by the host alone", header.name.data);
    if (lua_type(lua, -1) != LUA_TSTRING)
        script_raise(lua, "headers: %s: expected a string, got a %s", header.name.data,
                     luaL_typename(lua, -1));
    header.value.data = lua_tolstring(lua, -1, &header.value.size);
    for (size_t i = 0; i < header.value.size; i++) {
        unsigned char c = (unsigned char)header.value.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            script_raise(lua, "headers: %s: the value has CR, LF, NUL or another control character",
                         header.name.data);
    }
    return header;
}

static void read_headers(lua_State *lua, int table, struct http_client_request *request)
{
    lua_getfield(lua, table, "headers");
    if (lua_isnil(lua, -1)) {
        lua_newtable(lua);
        lua_replace(lua, -2);
    }
    if (!lua_istable(lua, -1))
        script_raise(lua, "headers: expected a table, got a %s", luaL_typename(lua, -1));
    int headers = lua_gettop(lua);
    size_t count = 0;
    for (lua_pushnil(lua); lua_next(lua, headers) != 0; lua_pop(lua, 1))
        count++;
    struct name_value *list = lua_newuserdata(lua, (count + 2) * sizeof(*list)); /* and content-encoding */
    for (lua_pushnil(lua); lua_next(lua, headers) != 0; lua_pop(lua, 1))
        list[request->header_count++] = read_header(lua);
    request->headers = list;
}

/* Calls the function on top of the stack until it returns nothing; what it returned, joined, takes its place. */
static void collect_body(lua_State *lua)
{
    int function = lua_gettop(lua), count = 0;
    lua_newtable(lua);
    for (;;) {
        lua_pushvalue(lua, function);
        lua_call(lua, 0, 1);
        if (lua_isnil(lua, -1))
            break;
        if (lua_type(lua, -1) != LUA_TSTRING)
            script_raise(lua, "body: expected a function that returns strings and then nil, it returned a %s",
                         luaL_typename(lua, -1));
        lua_rawseti(lua, function + 1, ++count);
    }
    luaL_Buffer out;
    luaL_buffinit(lua, &out);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(lua, function + 1, i);
        luaL_addvalue(&out);
    }
    luaL_pushresult(&out);
    lua_replace(lua, function);
    lua_settop(lua, function);
}

static void read_body(lua_State *lua, int table, struct http_client_request *request)
{
    lua_getfield(lua, table, "body");
    if (lua_isnil(lua, -1))
        return;
    if (lua_isfunction(lua, -1))
        collect_body(lua);
    if (lua_type(lua, -1) != LUA_TSTRING)
        script_raise(lua, "body: expected a string or a function, got a %s", luaL_typename(lua, -1));
    request->body.data = lua_tolstring(lua, -1, &request->body.size);
    request->has_body = true;
}

static void read_tls(lua_State *lua, int table, struct http_client_request *request)
{
    lua_getfield(lua, table, "tls");
    if (lua_isnil(lua, -1))
        return;
    if (!lua_istable(lua, -1))
        script_raise(lua, "tls: expected a table, got a %s", luaL_typename(lua, -1));
    int tls = lua_gettop(lua);
    check_names(lua, tls, "tls.", TLS_NAMES);
    request->ca_file = read_text(lua, tls, "tls.", "ca_file");
    request->client_cert = read_text(lua, tls, "tls.", "client_cert");
    request->client_key = read_text(lua, tls, "tls.", "client_key");
    lua_getfield(lua, tls, "verify");
    if (!lua_isnil(lua, -1) && !lua_isboolean(lua, -1))
        script_raise(lua, "tls.verify: expected true or false, got a %s", luaL_typename(lua, -1));
    request->insecure = lua_isboolean(lua, -1) && lua_toboolean(lua, -1) == 0;
}

static void append_encoded(struct buffer *out, struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        bool letter = ascii_lower((char)c) >= 'a' && ascii_lower((char)c) <= 'z',
             digit = c >= '0' && c <= '9';
        if (letter || digit || c == '-' || c == '.' || c == '_' || c == '~')
            buffer_append_char(out, (char)c);
        else
            buffer_printf(out, "%%%02X", c);
    }
}

/* One parameter, or several of one name: the name is at -2, the value at -1. */
static void append_parameter(lua_State *lua, struct buffer *out)
{
    struct slice name;
    int kind = lua_type(lua, -1);
    if (lua_type(lua, -2) != LUA_TSTRING)
        script_raise(lua, "query: expected names as keys, got a %s", luaL_typename(lua, -2));
    name.data = lua_tolstring(lua, -2, &name.size);
    if (kind == LUA_TTABLE) {
        for (int i = 1, count = (int)lua_objlen(lua, -1); i <= count; i++) {
            lua_pushvalue(lua, -2);
            lua_rawgeti(lua, -2, i);
            if (lua_istable(lua, -1))
                script_raise(lua, "query: %s: expected a list of strings and numbers", name.data);
            append_parameter(lua, out);
            lua_pop(lua, 2);
        }
        return;
    }
    if (kind != LUA_TSTRING && kind != LUA_TNUMBER && kind != LUA_TBOOLEAN)
        script_raise(lua, "query: %s: expected a string, a number, true or false, or a list, got a %s",
                     name.data, luaL_typename(lua, -1));
    struct slice value = SLICE("false");
    if (kind != LUA_TBOOLEAN) {
        lua_pushvalue(
            lua, -1); /* what turns a number into a text shall not touch the table that is walked through */
        value.data = lua_tolstring(lua, -1, &value.size);
    } else if (lua_toboolean(lua, -1)) {
        value = SLICE("true");
    }
    if (out->size > 0)
        buffer_append_char(out, '&');
    append_encoded(out, name);
    buffer_append_char(out, '=');
    append_encoded(out, value);
    if (kind != LUA_TBOOLEAN)
        lua_pop(lua, 1);
}

/* The address with the parameters of `query` behind those that it has, in front of a fragment. */
static const char *with_query(lua_State *lua, int table, const char *url)
{
    lua_getfield(lua, table, "query");
    if (lua_isnil(lua, -1))
        return url;
    if (!lua_istable(lua, -1))
        script_raise(lua, "query: expected a table, got a %s", luaL_typename(lua, -1));
    struct buffer *query = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    int parameters = lua_gettop(lua);
    for (lua_pushnil(lua); lua_next(lua, parameters) != 0; lua_pop(lua, 1))
        append_parameter(lua, query);
    if (query->size == 0)
        return url;
    size_t size = strcspn(url, "#");
    lua_pushlstring(lua, url, size);
    lua_pushstring(lua, memchr(url, '?', size) != NULL ? "&" : "?");
    lua_pushlstring(lua, buffer_data(query), query->size);
    lua_pushstring(lua, url + size);
    lua_concat(lua, 4);
    return lua_tostring(lua, -1);
}

static const char *read_url(lua_State *lua, int table)
{
    const char *url = read_text(lua, table, "", "url");
    if (url == NULL)
        script_raise(lua, "url: expected a string, got nothing");
    return with_query(lua, table, url);
}

/* Compresses the body, as `gzip` says: true, or a level. */
static void compress_body(lua_State *lua, int table, struct http_client_request *request)
{
    lua_getfield(lua, table, "gzip");
    if (!lua_toboolean(lua, -1))
        return;
    int level = lua_isboolean(lua, -1) ? DEFAULT_GZIP_LEVEL : (int)lua_tointeger(lua, -1);
    if ((!lua_isboolean(lua, -1) && lua_type(lua, -1) != LUA_TNUMBER) || level < 1 || level > 9)
        script_raise(lua, "gzip: expected true, false or a level from 1 to 9");
    for (size_t i = 0; i < request->header_count; i++) {
        if (slice_equal_nocase(request->headers[i].name, SLICE("content-encoding")))
            script_raise(lua, "gzip: the header content-encoding is given already");
    }
    if (!request->has_body)
        return;
    struct buffer *out = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    const char *failure = gzip_encode(request->body, level, out);
    if (failure != NULL)
        script_raise(lua, "gzip: %s", failure);
    lua_pushlstring(lua, buffer_data(out), out->size);
    request->body.data = lua_tolstring(lua, -1, &request->body.size);
    struct name_value *headers = (struct name_value *)(uintptr_t)request->headers;
    headers[request->header_count++] = (struct name_value){SLICE("content-encoding"), SLICE("gzip")};
}

static const char *read_method(lua_State *lua, int table, const char *fixed)
{
    const char *method = read_text(lua, table, "", "method");
    if (method == NULL)
        return fixed != NULL ? fixed : "GET";
    if (fixed != NULL && strcmp(method, fixed) != 0)
        script_raise(lua, "method: this function sends %s only", fixed);
    if (!is_token(slice_of(method)))
        script_raise(lua, "method: expected a name such as GET, got something else");
    return method;
}

/* Leaves what the request borrows on the stack. */
void http_read_request(lua_State *lua, const char *method, struct http_client_request *request)
{
    script_check_table(lua, 1, "options");
    luaL_checkstack(lua, 40, "options");
    check_names(lua, 1, "", OPTION_NAMES);
    request->url = read_url(lua, 1);
    request->method = read_method(lua, 1, method);
    read_headers(lua, 1, request);
    read_body(lua, 1, request);
    compress_body(lua, 1, request);
    read_tls(lua, 1, request);
    request->proxy = read_text(lua, 1, "", "proxy");
    request->timeout_s = read_number(lua, 1, "timeout", DEFAULT_TIMEOUT_S, 0.001, LONGEST_TIMEOUT_S);
    request->idle_timeout_s = read_number(lua, 1, "idle_timeout", 0, 0, LONGEST_TIMEOUT_S);
    request->connect_timeout_s =
        read_number(lua, 1, "connect_timeout", DEFAULT_CONNECT_TIMEOUT_S, 0.001, LONGEST_TIMEOUT_S);
    request->max_response_bytes =
        (size_t)read_number(lua, 1, "max_response_bytes", DEFAULT_MAX_RESPONSE_BYTES, 0, MOST_RESPONSE_BYTES);
}

/* The response ------------------------------------------------------------------------------------------- */

void http_push_headers(lua_State *lua, struct slice head)
{
    struct slice line;
    lua_newtable(lua);
    while (slice_split(&head, '\n', &line)) {
        struct slice name;
        if (!slice_split(&line, ':', &name) || line.data == NULL)
            continue;
        lua_pushlstring(lua, name.data, name.size);
        lua_pushvalue(lua, -1);
        lua_rawget(lua, -3);
        bool repeated = !lua_isnil(lua, -1);
        if (repeated)
            lua_pushliteral(lua, ", ");
        else
            lua_pop(lua, 1);
        lua_pushlstring(lua, line.data + 1, line.size - 1);
        if (repeated)
            lua_concat(lua, 3);
        lua_rawset(lua, -3);
    }
}

static int push_response(lua_State *lua, void *argument)
{
    const struct http_client_response *response = argument;
    if (response->error != NULL)
        return script_fail(lua, "%s", response->error);
    lua_createtable(lua, 0, 4);
    lua_pushinteger(lua, (lua_Integer)response->status);
    lua_setfield(lua, -2, "status");
    http_push_headers(lua, response->head);
    lua_setfield(lua, -2, "headers");
    lua_pushlstring(lua, response->body.data != NULL ? response->body.data : "", response->body.size);
    lua_setfield(lua, -2, "body");
    lua_pushboolean(lua, response->truncated);
    lua_setfield(lua, -2, "truncated");
    return 1;
}

/* A task that waits for its response. */
struct waiting {
    struct script_wait *wait;
    struct http_client_transfer *transfer;
};

static void on_response(void *owner, const struct http_client_response *response)
{
    struct waiting *waiting = owner;
    struct script_wait *wait = waiting->wait;
    free(waiting);
    script_resume(wait, push_response, (void *)(uintptr_t)response);
}

static void cancel(void *object)
{
    struct waiting *waiting = object;
    http_client_cancel(waiting->transfer);
    free(waiting);
}

/* libcurl guesses a protocol where none is written, and is asked for no more than it is given here. */
bool http_is_address(struct slice url)
{
    struct slice scheme;
    for (size_t i = 0; i < url.size; i++) {
        if ((unsigned char)url.data[i] <= ' ' || url.data[i] == 0x7f)
            return false;
    }
    return slice_split(&url, ':', &scheme) && slice_starts_with(url, SLICE("//")) &&
           (slice_equal_nocase(scheme, SLICE("http")) || slice_equal_nocase(scheme, SLICE("https")));
}

static const char interceptor_key; /* its address: the registry's function that answers instead */

void http_intercept(lua_State *lua)
{
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&interceptor_key);
    lua_insert(lua, -2);
    lua_rawset(lua, LUA_REGISTRYINDEX);
}

/* Whether somebody answered; then the two results are on the stack. */
bool http_is_intercepted(lua_State *lua, const struct http_client_request *request)
{
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&interceptor_key);
    lua_rawget(lua, LUA_REGISTRYINDEX);
    if (lua_isnil(lua, -1))
        return false;
    lua_pushstring(lua, request->method);
    lua_pushvalue(lua, 1);
    lua_pushstring(lua, request->url);
    lua_call(lua, 3, 2);
    return lua_type(lua, -2) != LUA_TBOOLEAN;
}

static int send_request(lua_State *lua, const char *method)
{
    struct http_client_request request = {0};
    http_read_request(lua, method, &request);
    script_check_wait(lua);
    if (!http_is_address(slice_of(request.url)))
        return script_fail(lua, "url: not an http or https address");
    if (http_is_intercepted(lua, &request))
        return 2;
    struct http_client *client = http_client_of(lua);
    struct waiting *waiting = xcalloc(1, sizeof(*waiting));
    waiting->transfer = http_client_start(client, &request, on_response, waiting);
    waiting->wait = script_wait(lua, cancel, waiting);
    return lua_yield(lua, 0);
}

static int http_request(lua_State *lua)
{
    return send_request(lua, NULL);
}

static int http_get(lua_State *lua)
{
    return send_request(lua, "GET");
}

static int http_post(lua_State *lua)
{
    return send_request(lua, "POST");
}

static int http_put(lua_State *lua)
{
    return send_request(lua, "PUT");
}

static int http_patch(lua_State *lua)
{
    return send_request(lua, "PATCH");
}

static int http_delete(lua_State *lua)
{
    return send_request(lua, "DELETE");
}

static int http_head(lua_State *lua)
{
    return send_request(lua, "HEAD");
}

int script_open_http(lua_State *lua)
{
    static const luaL_Reg functions[] = {
        {"request", http_request}, {"get", http_get},       {"post", http_post},
        {"put", http_put},         {"patch", http_patch},   {"delete", http_delete},
        {"head", http_head},       {"stream", http_stream}, {NULL, NULL}};
    script_new_module(lua, "llmproxy.http", functions);
    return 1;
}
