/*
 * version: of the program and of the libraries it runs on.
 */
#include <brotli/decode.h>
#include <curl/curl.h>
#include <event2/event.h>
#include <luajit.h>
#include <openssl/crypto.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "command/command.h"

static int run(const struct options *options)
{
    (void)options;
    struct buffer text = {0};
    unsigned brotli = BrotliDecoderVersion();
    buffer_printf(&text, "llm-proxy %s\n", LLM_PROXY_VERSION);
    buffer_printf(&text, "libevent %s\n", event_get_version());
    buffer_printf(&text, "%s\n", LUAJIT_VERSION);
    buffer_printf(&text, "OpenSSL %s\n", OpenSSL_version(OPENSSL_VERSION_STRING));
    buffer_printf(&text, "libcurl %s\n", curl_version_info(CURLVERSION_NOW)->version);
    buffer_printf(&text, "zlib %s\n", zlibVersion());
    buffer_printf(&text, "brotli %u.%u.%u\n", brotli >> 24, (brotli >> 12) & 0xfff, brotli & 0xfff);
    buffer_printf(&text, "zstd %s\n", ZSTD_versionString());
    char pcre2[64];
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    buffer_printf(&text, "PCRE2 %s\n", pcre2);
    char *string = buffer_take_string(&text);
    int status = command_print(string);
    free(string);
    return status;
}

const struct command command_version = {
    .name = "version",
    .summary = "prints the version, and those of the libraries it runs on",
    .synopsis = "version",
    .details = "Prints the version of the program and of the libraries it runs on, one a line.",
    .run = run,
};
