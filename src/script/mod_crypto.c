/*
 * llmproxy.crypto: hashes, random bytes, ids. Strings in, strings of raw bytes out. Documented in lua/llmproxy/meta/crypto.lua.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/id.h"
#include "script/host.h"
#include "script/modules.h"

#define MOST_RANDOM_BYTES 65536

static int crypto_sha256(lua_State *lua)
{
    struct slice text = script_check_string(lua, 1, "text");
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (EVP_Digest(text.data, text.size, digest, &size, EVP_sha256(), NULL) != 1)
        script_raise(lua, "OpenSSL has no SHA-256 here");
    lua_pushlstring(lua, (const char *)digest, size);
    return 1;
}

static int crypto_hmac_sha256(lua_State *lua)
{
    struct slice key = script_check_string(lua, 1, "key");
    struct slice text = script_check_string(lua, 2, "text");
    if (key.size > INT32_MAX)
        script_raise(lua, "key: expected less than 2 GiB");
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (HMAC(EVP_sha256(), key.data, (int)key.size, (const unsigned char *)text.data, text.size, digest,
             &size) == NULL)
        script_raise(lua, "OpenSSL has no HMAC-SHA-256 here");
    lua_pushlstring(lua, (const char *)digest, size);
    return 1;
}

static int crypto_random(lua_State *lua)
{
    double count = script_check_number(lua, 1, "count");
    if (!(count >= 0 && count <= MOST_RANDOM_BYTES))
        script_raise(lua, "count: expected a number from 0 to %d", MOST_RANDOM_BYTES);
    struct buffer *bytes = script_scratch(lua, SCRIPT_SCRATCH_MODULE);
    size_t size = (size_t)count;
    random_bytes(buffer_reserve(bytes, size + 1), size);
    lua_pushlstring(lua, buffer_data(bytes), size);
    return 1;
}

static int crypto_uuid(lua_State *lua)
{
    char text[UUID_TEXT_SIZE];
    uuid4(text);
    lua_pushstring(lua, text);
    return 1;
}

static int crypto_uuid7(lua_State *lua)
{
    char text[UUID_TEXT_SIZE];
    uuid7(text);
    lua_pushstring(lua, text);
    return 1;
}

static int crypto_equal(lua_State *lua)
{
    struct slice a = script_check_string(lua, 1, "a");
    struct slice b = script_check_string(lua, 2, "b");
    lua_pushboolean(lua, a.size == b.size && CRYPTO_memcmp(a.data, b.data, a.size) == 0);
    return 1;
}

int script_open_crypto(lua_State *lua)
{
    static const luaL_Reg functions[] = {{"sha256", crypto_sha256},
                                         {"hmac_sha256", crypto_hmac_sha256},
                                         {"random", crypto_random},
                                         {"uuid", crypto_uuid},
                                         {"uuid7", crypto_uuid7},
                                         {"equal", crypto_equal},
                                         {NULL, NULL}};
    script_new_module(lua, "llmproxy.crypto", functions);
    return 1;
}
