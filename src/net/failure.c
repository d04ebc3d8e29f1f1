/*
 * failure: errno and OpenSSL's error codes in words.
 */
#include "net/failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

#include "base/slice.h"

const char *failure_text_of_sentence(const char *sentence, char out[FAILURE_TEXT_SIZE])
{
    snprintf(out, FAILURE_TEXT_SIZE, "%s", sentence);
    /* "Connection refused", but not "RPC failed". */
    if (out[0] != '\0' && out[1] == ascii_lower(out[1])) {
        out[0] = ascii_lower(out[0]);
    }
    return out;
}

const char *failure_text_of_errno(int number, char out[FAILURE_TEXT_SIZE])
{
    char text[FAILURE_TEXT_SIZE];
    return failure_text_of_sentence(strerror_r(number, text, sizeof text), out);
}

bool failure_is_alert(const struct failure *failure)
{
    return ERR_GET_LIB(failure->tls_error) == ERR_LIB_SSL &&
           ERR_GET_REASON(failure->tls_error) >= SSL_AD_REASON_OFFSET;
}

const char *failure_text(const struct failure *failure, char out[FAILURE_TEXT_SIZE])
{
    if (failure->truncated) {
        return failure_text_of_sentence("closed without close_notify", out);
    }
    if (failure->system_error != 0) {
        return failure_text_of_errno(failure->system_error, out);
    }
    if (ERR_SYSTEM_ERROR(failure->tls_error)) {
        return failure_text_of_errno(ERR_GET_REASON(failure->tls_error), out);
    }
    const char *reason = ERR_reason_error_string(failure->tls_error);
    if (reason == NULL) {
        return failure_text_of_sentence("TLS protocol error", out);
    }
    if (failure_is_alert(failure)) {
        /* "sslv3 alert bad certificate", "tlsv1 unrecognized name": the protocol is another, and "alert" not always there. */
        struct slice text = slice_of(strchr(reason, ' ') + 1), word = SLICE("alert ");
        if (slice_starts_with(text, word)) {
            text.data += word.size;
        }
        snprintf(out, FAILURE_TEXT_SIZE, "TLS alert of the peer: %s", text.data);
        return out;
    }
    return failure_text_of_sentence(reason, out);
}
