/*
 * body: one way to read bodies of every framing.
 */
#include "http/body.h"

void http_body_begin(struct http_body_reader *reader, enum http_body kind, uint64_t content_length)
{
    *reader = (struct http_body_reader){.kind = kind, .remaining = content_length};
}

void http_body_be_tolerant(struct http_body_reader *reader)
{
    reader->chunked.tolerant = true;
}

bool http_body_was_odd(const struct http_body_reader *reader)
{
    return reader->chunked.tolerated;
}

static void take(struct slice *input, size_t size, struct slice *data)
{
    *data = (struct slice){input->data, size};
    *input = (struct slice){input->data + size, input->size - size};
}

enum http_chunked_result http_body_next(struct http_body_reader *reader, struct slice *input,
                                        struct slice *data, const char **reason)
{
    switch (reader->kind) {
    case HTTP_BODY_NONE:
        return HTTP_CHUNKED_END;
    case HTTP_BODY_CHUNKED:
        return http_chunked_next(&reader->chunked, input, data, reason);
    case HTTP_BODY_LENGTH:
        if (reader->remaining == 0) {
            return HTTP_CHUNKED_END;
        }
        if (input->size == 0) {
            return HTTP_CHUNKED_MORE;
        }
        take(input, input->size < reader->remaining ? input->size : (size_t)reader->remaining, data);
        reader->remaining -= data->size;
        return HTTP_CHUNKED_DATA;
    case HTTP_BODY_UNTIL_CLOSE:
        break;
    }
    if (input->size == 0) {
        return HTTP_CHUNKED_MORE;
    }
    take(input, input->size, data);
    return HTTP_CHUNKED_DATA;
}

bool http_body_at_close(const struct http_body_reader *reader)
{
    return reader->kind == HTTP_BODY_UNTIL_CLOSE;
}
