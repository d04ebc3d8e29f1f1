/*
 * chunked: a state machine over single octets for the lines, and over whole pieces for the data between them.
 *
 *     SIZE ─▶ (extensions) ─▶ SIZE_LF ─▶ DATA ─▶ DATA_CR ─▶ DATA_LF ─▶ SIZE
 *                                 └ size 0 ─▶ TRAILER_START ─▶ NAME ─▶ VALUE ─▶ TRAILER_LF ─▶ TRAILER_START
 *                                                   └ CR ─▶ END_LF ─▶ END
 */
#include "http/chunked.h"

#include "http/octets.h"

#define MAX_DIGITS          16
#define MAX_LINE_BYTES      1024
#define MAX_EXTENSION_BYTES (16 * 1024)
#define MAX_TRAILER_BYTES   (8 * 1024)
#define MAX_TRAILER_FIELDS  32

enum state {
    SIZE,
    SIZE_BLANK, /* blanks behind the size: only an extension may follow */
    NAME_START, /* behind ';' */
    NAME,
    NAME_BLANK,  /* blanks behind the name */
    VALUE_START, /* behind '=' */
    VALUE,
    VALUE_BLANK, /* blanks behind the value: only ';' may follow */
    QUOTED,
    QUOTED_ESCAPE,
    QUOTED_END,
    JUNK, /* tolerated */
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    END,
};

/* Every state function gives the next state, or one of these and *reason. */
enum { MALFORMED = -1, OVER_LIMIT = -2 };

static int fail(const char **reason, const char *why)
{
    *reason = why;
    return MALFORMED;
}

static int exceed(const char **reason, const char *why)
{
    *reason = why;
    return OVER_LIMIT;
}

static int size_octet(struct http_chunked *decoder, char octet, const char **reason)
{
    if (octet_is(octet, OCTET_HEX)) {
        if (decoder->digits == MAX_DIGITS || decoder->remaining >> 59 != 0) {
            return exceed(reason, "chunk_size_too_large");
        }
        decoder->digits++;
        decoder->remaining = decoder->remaining << 4 | octet_hex_value(octet);
        return SIZE;
    }
    if (decoder->digits == 0) {
        return fail(reason, "malformed_chunk_size");
    }
    if (octet == '\r') {
        return SIZE_LF;
    }
    if (octet == ';') {
        return NAME_START;
    }
    return octet_is_blank(octet) ? SIZE_BLANK : fail(reason, "malformed_chunk_size");
}

/* Extensions: *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) */
static int extension_octet(enum state state, char octet, const char **reason)
{
    static const char *const malformed = "malformed_chunk_extension";
    bool blank = octet_is_blank(octet);

    switch (state) {
    case SIZE_BLANK:
    case VALUE_BLANK:
        if (blank) {
            return (int)state;
        }
        return octet == ';' ? NAME_START : fail(reason, malformed);
    case NAME_START:
        if (blank) {
            return NAME_START;
        }
        return octet_is(octet, OCTET_TOKEN) ? NAME : fail(reason, malformed);
    case NAME:
        if (octet_is(octet, OCTET_TOKEN)) {
            return NAME;
        }
        if (octet == '\r') {
            return SIZE_LF;
        }
        break;
    case NAME_BLANK:
        break;
    case VALUE_START:
        if (blank) {
            return VALUE_START;
        }
        if (octet == '"') {
            return QUOTED;
        }
        return octet_is(octet, OCTET_TOKEN) ? VALUE : fail(reason, malformed);
    case QUOTED:
        if (octet == '"') {
            return QUOTED_END;
        }
        if (octet == '\\') {
            return QUOTED_ESCAPE;
        }
        return octet_is(octet, OCTET_QUOTED) ? QUOTED : fail(reason, malformed);
    case QUOTED_ESCAPE:
        return octet_is(octet, OCTET_FIELD) ? QUOTED : fail(reason, malformed);
    default: /* VALUE, QUOTED_END */
        if (state == VALUE && octet_is(octet, OCTET_TOKEN)) {
            return VALUE;
        }
        if (octet == '\r') {
            return SIZE_LF;
        }
        if (octet == ';') {
            return NAME_START;
        }
        return blank ? VALUE_BLANK : fail(reason, malformed);
    }
    if (blank) { /* NAME, NAME_BLANK */
        return NAME_BLANK;
    }
    if (octet == ';') {
        return NAME_START;
    }
    return octet == '=' ? VALUE_START : fail(reason, malformed);
}

static int trailer_octet(struct http_chunked *decoder, char octet, const char **reason)
{
    if (++decoder->trailer_bytes > MAX_TRAILER_BYTES) {
        return exceed(reason, "trailers_too_large");
    }
    switch (decoder->state) {
    case TRAILER_START:
        if (octet == '\r') {
            return END_LF;
        }
        if (!octet_is(octet, OCTET_TOKEN)) {
            return fail(reason, "malformed_trailer");
        }
        return ++decoder->trailer_fields > MAX_TRAILER_FIELDS ? exceed(reason, "too_many_trailers")
                                                              : TRAILER_NAME;
    case TRAILER_NAME:
        if (octet == ':') {
            return TRAILER_VALUE;
        }
        return octet_is(octet, OCTET_TOKEN) ? TRAILER_NAME : fail(reason, "malformed_trailer");
    case TRAILER_VALUE:
        if (octet == '\r') {
            return TRAILER_LF;
        }
        return octet_is(octet, OCTET_FIELD) ? TRAILER_VALUE : fail(reason, "malformed_trailer");
    case TRAILER_LF:
        return octet == '\n' ? TRAILER_START : fail(reason, "bare_cr");
    default: /* END_LF */
        return octet == '\n' ? END : fail(reason, "bare_cr");
    }
}

static int end_size_line(struct http_chunked *decoder, bool bare_lf)
{
    decoder->bare_lf = bare_lf;
    decoder->digits = 0;
    decoder->line_bytes = 0;
    return decoder->remaining > 0 ? DATA : TRAILER_START;
}

/* What tolerance makes of an octet that strictness found malformed. */
static int tolerate(struct http_chunked *decoder, char octet)
{
    enum state state = (enum state)decoder->state;
    bool last = decoder->remaining == 0;

    if (octet == '\n') {
        switch (state) {
        case SIZE:
            return decoder->digits > 0 ? end_size_line(decoder, true) : MALFORMED;
        case SIZE_BLANK:
        case NAME:
        case VALUE:
        case QUOTED_END:
        case JUNK:
            return end_size_line(decoder, true);
        case DATA_CR:
            return decoder->bare_lf ? SIZE : MALFORMED;
        case TRAILER_START:
            return END;
        case TRAILER_VALUE:
            return TRAILER_START;
        default:
            return MALFORMED;
        }
    }
    if (octet == '\r') {
        return state == SIZE_BLANK || (state < QUOTED && !last) ? SIZE_LF : MALFORMED;
    }
    return state <= QUOTED_END && !last && octet_is(octet, OCTET_FIELD) ? JUNK : MALFORMED;
}

static int next_state(struct http_chunked *decoder, char octet, const char **reason)
{
    switch (decoder->state) {
    case DATA_CR:
        return octet == '\r' ? DATA_LF : fail(reason, "malformed_chunk_end");
    case DATA_LF:
        return octet == '\n' ? SIZE : fail(reason, "malformed_chunk_end");
    case TRAILER_START:
    case TRAILER_NAME:
    case TRAILER_VALUE:
    case TRAILER_LF:
    case END_LF:
        return trailer_octet(decoder, octet, reason);
    default:
        break;
    }
    if (++decoder->line_bytes > MAX_LINE_BYTES) {
        return exceed(reason, "chunk_line_too_long");
    }
    if (decoder->state == SIZE) {
        return size_octet(decoder, octet, reason);
    }
    if (decoder->state == SIZE_LF) {
        return octet == '\n' ? end_size_line(decoder, false) : fail(reason, "bare_cr");
    }
    if (++decoder->extension_bytes > MAX_EXTENSION_BYTES) {
        return exceed(reason, "chunk_extensions_too_large");
    }
    if (decoder->state == JUNK) {
        if (octet == '\r') {
            return SIZE_LF;
        }
        return octet_is(octet, OCTET_FIELD) ? JUNK : fail(reason, "malformed_chunk_size");
    }
    return extension_octet((enum state)decoder->state, octet, reason);
}

enum http_chunked_result http_chunked_next(struct http_chunked *decoder, struct slice *input,
                                           struct slice *data, const char **reason)
{
    while (input->size > 0 && decoder->state != END) {
        if (decoder->state == DATA) {
            size_t size = input->size < decoder->remaining ? input->size : (size_t)decoder->remaining;
            *data = (struct slice){input->data, size};
            *input = (struct slice){input->data + size, input->size - size};
            decoder->remaining -= size;
            if (decoder->remaining == 0) {
                decoder->state = DATA_CR;
            }
            return HTTP_CHUNKED_DATA;
        }
        int state = next_state(decoder, *input->data, reason);
        if (state == MALFORMED && decoder->tolerant) {
            state = tolerate(decoder, *input->data);
            decoder->tolerated |= state >= 0;
        }
        if (state < 0) {
            return HTTP_CHUNKED_ERROR;
        }
        decoder->state = state;
        *input = (struct slice){input->data + 1, input->size - 1};
    }
    return decoder->state == END ? HTTP_CHUNKED_END : HTTP_CHUNKED_MORE;
}

size_t http_chunk_header(char out[HTTP_CHUNK_HEADER_SIZE], uint64_t size)
{
    size_t digits = 1;
    while (digits < 16 && size >> (4 * digits) != 0) {
        digits++;
    }
    for (size_t i = 0; i < digits; i++) {
        out[i] = "0123456789abcdef"[size >> (4 * (digits - 1 - i)) & 15];
    }
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}
