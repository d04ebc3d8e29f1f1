/*
 * llmproxy.crypto: hashes, random bytes, ids. Strings in, strings of raw bytes or hexadecimal digits out. Documented in lua/llmproxy/meta/crypto.lua.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/id.h"
#include "script/host.h"
#include "script/modules.h"

#define MOST_RANDOM_BYTES 65536

/* The digest in the form that the argument at index asks for: raw bytes, or "hex". */
static int push_digest(lua_State *lua, int index, const unsigned char *digest, unsigned size)
{
    static const char digits[] = "0123456789abcdef";
    char hex[2 * EVP_MAX_MD_SIZE];
    if (lua_isnoneornil(lua, index)) {
        lua_pushlstring(lua, (const char *)digest, size);
        return 1;
    }
    if (lua_type(lua, index) != LUA_TSTRING || strcmp(lua_tostring(lua, index), "hex") != 0)
        script_argument_error(lua, index, "form", "\"hex\" or nothing");
    for (unsigned i = 0; i < size; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    lua_pushlstring(lua, hex, 2 * (size_t)size);
    return 1;
}

static int hash(lua_State *lua, const EVP_MD *algorithm)
{
    struct slice text = script_check_string(lua, 1, "text");
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (algorithm == NULL || EVP_Digest(text.data, text.size, digest, &size, algorithm, NULL) != 1)
        script_raise(lua, "OpenSSL has it not, or does not allow it here");
    return push_digest(lua, 2, digest, size);
}

static int crypto_sha256(lua_State *lua)
{
    return hash(lua, EVP_sha256());
}

static int crypto_sha512(lua_State *lua)
{
    return hash(lua, EVP_sha512());
}

static int crypto_sha1(lua_State *lua)
{
    return hash(lua, EVP_sha1());
}

static int crypto_md5(lua_State *lua)
{
    return hash(lua, EVP_md5());
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
    return push_digest(lua, 3, digest, size);
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
                                         {"sha512", crypto_sha512},
                                         {"sha1", crypto_sha1},
                                         {"md5", crypto_md5},
                                         {"hmac_sha256", crypto_hmac_sha256},
                                         {"random", crypto_random},
                                         {"uuid", crypto_uuid},
                                         {"uuid7", crypto_uuid7},
                                         {"equal", crypto_equal},
                                         {NULL, NULL}};
    script_new_module(lua, "llmproxy.crypto", functions);
    return 1;
}
