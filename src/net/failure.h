/*
 * failure: why a system call or a TLS operation failed, small enough to keep in every connection, put into words when somebody asks.
 */
#ifndef NET_FAILURE_H
#define NET_FAILURE_H

#include <stdbool.h>
#include <stddef.h>

struct failure {
    int system_error;        /* errno, or 0 */
    unsigned long tls_error; /* of OpenSSL's queue, or 0 */
    bool truncated;          /* TLS: FIN without close_notify */
};

#define FAILURE_TEXT_SIZE 128

/* Did the peer say by a TLS alert that something is wrong? */
bool failure_is_alert(const struct failure *failure);
/* "connection reset by peer", "closed without close_notify", "TLS alert of the peer: bad certificate". Returns out. */
const char *failure_text(const struct failure *failure, char out[FAILURE_TEXT_SIZE]);
/* errno in the same style. */
const char *failure_text_of_errno(int number, char out[FAILURE_TEXT_SIZE]);
/* Somebody else's sentence ("Connection refused") as the end of one of ours ("connection refused"). */
const char *failure_text_of_sentence(const char *sentence, char out[FAILURE_TEXT_SIZE]);

#endif
