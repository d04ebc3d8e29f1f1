/*
 * answer: what the admin listener answers to a request; bytes into a buffer, no sockets.
 */
#ifndef ADMIN_ANSWER_H
#define ADMIN_ANSWER_H

#include "admin/admin.h"
#include "base/buffer.h"
#include "http/head.h"

/* Appends the whole response. Uses token, hosts, metrics and is_ready of the settings. False: the connection must be closed behind it. */
bool admin_answer(const struct admin_settings *settings, const struct http_request *request,
                  struct buffer *out);
/* The same for what is no request; always to be closed behind. */
void admin_answer_fault(enum http_fault fault, const char *message, struct buffer *out);

#endif
