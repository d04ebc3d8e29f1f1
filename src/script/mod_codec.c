/*
 * llmproxy.codec: base64, base64url, hex, url (percent signs), gzip, zlib, zstd; each { encode, decode }. A decode of bad input is nil and a message. Documented in lua/llmproxy/meta/codec.lua.
 */
#include "script/compress.h"
#include "script/host.h"
#include "script/modules.h"

#define DEFAULT_MAX_BYTES (64 * 1024 * 1024)
#define MOST_BYTES        (1024 * 1024 * 1024)

static const char BASE64_LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char BASE64URL_LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char HEX_DIGITS[] = "0123456789abcdef";

static int push_buffer(lua_State *lua, const struct buffer *buffer)
{
    lua_pushlstring(lua, buffer->size > 0 ? buffer_data(buffer) : "", buffer->size);
    return 1;
}

/* base64 --------------------------------------------------------------------------------------------------------------------------------------------------------------------- */

static int base64_encode_with(lua_State *lua, const char *letters, bool padded)
{
    struct slice text = script_check_string(lua, 1, "text");
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    char *out = buffer_reserve(buffer, text.size / 3 * 4 + 4), *at = out;
    for (size_t i = 0; i < text.size; i += 3) {
        size_t left = text.size - i;
        const unsigned char *bytes = (const unsigned char *)text.data + i;
        unsigned group =
            (unsigned)bytes[0] << 16 | (left > 1 ? (unsigned)bytes[1] << 8 : 0) | (left > 2 ? bytes[2] : 0);
        *at++ = letters[group >> 18];
        *at++ = letters[group >> 12 & 63];
        if (left > 1)
            *at++ = letters[group >> 6 & 63];
        else if (padded)
            *at++ = '=';
        if (left > 2)
            *at++ = letters[group & 63];
        else if (padded)
            *at++ = '=';
    }
    buffer_commit(buffer, (size_t)(at - out));
    return push_buffer(lua, buffer);
}

/* With its padding or without. */
static int base64_decode_with(lua_State *lua, const char *letters)
{
    struct slice text = script_check_string(lua, 1, "text");
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    if (text.size % 4 == 0 && text.size > 0 && text.data[text.size - 1] == '=')
        text.size -= text.data[text.size - 2] == '=' ? 2 : 1;
    unsigned char values[256];
    memset(values, 0xff, sizeof(values));
    for (unsigned i = 0; i < 64; i++)
        values[(unsigned char)letters[i]] = (unsigned char)i;
    char *out = buffer_reserve(buffer, text.size / 4 * 3 + 3), *at = out;
    unsigned group = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned value = values[(unsigned char)text.data[i]];
        if (value > 63)
            return script_fail(lua, "not base64: byte %zu is no letter of it", i + 1);
        group = group << 6 | value;
        if (i % 4 == 1)
            *at++ = (char)(group >> 4 & 0xff);
        else if (i % 4 == 2)
            *at++ = (char)(group >> 2 & 0xff);
        else if (i % 4 == 3)
            *at++ = (char)(group & 0xff);
    }
    if (text.size % 4 == 1)
        return script_fail(lua, "not base64: it ends too early");
    buffer_commit(buffer, (size_t)(at - out));
    return push_buffer(lua, buffer);
}

static int base64_encode(lua_State *lua)
{
    return base64_encode_with(lua, BASE64_LETTERS, true);
}

static int base64_decode(lua_State *lua)
{
    return base64_decode_with(lua, BASE64_LETTERS);
}

static int base64url_encode(lua_State *lua)
{
    return base64_encode_with(lua, BASE64URL_LETTERS, false);
}

static int base64url_decode(lua_State *lua)
{
    return base64_decode_with(lua, BASE64URL_LETTERS);
}

/* hex and url -------------------------------------------------------------------------------------------- */

static int hex_encode(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    char *out = buffer_reserve(buffer, text.size * 2 + 1);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        out[2 * i] = HEX_DIGITS[byte >> 4];
        out[2 * i + 1] = HEX_DIGITS[byte & 15];
    }
    buffer_commit(buffer, text.size * 2);
    return push_buffer(lua, buffer);
}

static int hex_decode(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    if (text.size % 2 != 0)
        return script_fail(lua, "not hex: an odd number of digits");
    char *out = buffer_reserve(buffer, text.size / 2 + 1);
    for (size_t i = 0; i < text.size; i += 2) {
        int high = ascii_hex_value(text.data[i]), low = ascii_hex_value(text.data[i + 1]);
        if (high < 0 || low < 0)
            return script_fail(lua, "not hex: byte %zu is no digit", high < 0 ? i + 1 : i + 2);
        out[i / 2] = (char)(high << 4 | low);
    }
    buffer_commit(buffer, text.size / 2);
    return push_buffer(lua, buffer);
}

/* RFC 3986: letters, digits and -._~ stay. */
static bool is_unreserved(char c)
{
    char lower = ascii_lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
           c == '~';
}

static int url_encode(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.data[i];
        if (is_unreserved(text.data[i]))
            buffer_append_char(buffer, text.data[i]);
        else
            buffer_printf(buffer, "%%%02X", byte);
    }
    return push_buffer(lua, buffer);
}

static int url_decode(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != '%') {
            buffer_append_char(buffer, text.data[i]);
            continue;
        }
        int high = i + 2 < text.size ? ascii_hex_value(text.data[i + 1]) : -1,
            low = high >= 0 ? ascii_hex_value(text.data[i + 2]) : -1;
        if (low < 0)
            return script_fail(lua, "not URL-encoded: byte %zu begins no two hex digits", i + 1);
        buffer_append_char(buffer, (char)(high << 4 | low));
        i += 2;
    }
    return push_buffer(lua, buffer);
}

/* gzip, zlib and zstd ------------------------------------------------------------------------------------------ */

/* The one option of a function, a whole number. */
static size_t read_option(lua_State *lua, const char *name, double usual, double least, double most)
{
    if (lua_isnoneornil(lua, 2))
        return (size_t)usual;
    script_check_table(lua, 2, "options");
    for (lua_pushnil(lua); lua_next(lua, 2) != 0; lua_pop(lua, 1)) {
        if (lua_type(lua, -2) != LUA_TSTRING || strcmp(lua_tostring(lua, -2), name) != 0)
            script_raise(lua, "options: there is only %s", name);
        if (lua_type(lua, -1) != LUA_TNUMBER ||
            !(lua_tonumber(lua, -1) >= least && lua_tonumber(lua, -1) <= most))
            script_raise(lua, "%s: expected a number from %.15g to %.15g", name, least, most);
        usual = lua_tonumber(lua, -1);
    }
    return (size_t)usual;
}

static int encode_with(lua_State *lua, const char *(*encode)(struct slice, int, struct buffer *),
                       double level, double highest)
{
    struct slice text = script_check_string(lua, 1, "text");
    size_t chosen = read_option(lua, "level", level, 1, highest);
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    const char *problem = encode(text, (int)chosen, buffer);
    if (problem != NULL)
        script_raise(lua, "%s", problem);
    return push_buffer(lua, buffer);
}

static int decode_with(lua_State *lua, const char *(*decode)(struct slice, size_t, struct buffer *))
{
    struct slice text = script_check_string(lua, 1, "text");
    size_t limit = read_option(lua, "max_bytes", DEFAULT_MAX_BYTES, 0, MOST_BYTES);
    struct buffer *buffer = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    const char *problem = decode(text, limit, buffer);
    if (problem != NULL)
        return script_fail(lua, "%s", problem);
    return push_buffer(lua, buffer);
}

static int codec_gzip_encode(lua_State *lua)
{
    return encode_with(lua, gzip_encode, 6, 9);
}

static int codec_gzip_decode(lua_State *lua)
{
    return decode_with(lua, gzip_decode);
}

static int codec_zlib_encode(lua_State *lua)
{
    return encode_with(lua, zlib_encode, 6, 9);
}

static int codec_zlib_decode(lua_State *lua)
{
    return decode_with(lua, zlib_decode);
}

static int codec_zstd_encode(lua_State *lua)
{
    return encode_with(lua, zstd_encode, 3, 19);
}

static int codec_zstd_decode(lua_State *lua)
{
    return decode_with(lua, zstd_decode);
}

int script_open_codec(lua_State *lua)
{
    static const struct {
        const char *name, *full_name;
        luaL_Reg functions[3];
    } codecs[] = {
        {"base64", "llmproxy.codec.base64", {{"encode", base64_encode}, {"decode", base64_decode}}},
        {"base64url",
         "llmproxy.codec.base64url",
         {{"encode", base64url_encode}, {"decode", base64url_decode}}},
        {"hex", "llmproxy.codec.hex", {{"encode", hex_encode}, {"decode", hex_decode}}},
        {"url", "llmproxy.codec.url", {{"encode", url_encode}, {"decode", url_decode}}},
        {"gzip", "llmproxy.codec.gzip", {{"encode", codec_gzip_encode}, {"decode", codec_gzip_decode}}},
        {"zlib", "llmproxy.codec.zlib", {{"encode", codec_zlib_encode}, {"decode", codec_zlib_decode}}},
        {"zstd", "llmproxy.codec.zstd", {{"encode", codec_zstd_encode}, {"decode", codec_zstd_decode}}},
    };
    lua_newtable(lua);
    for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
        script_new_module(lua, codecs[i].full_name, codecs[i].functions);
        lua_setfield(lua, -2, codecs[i].name);
    }
    return 1;
}
