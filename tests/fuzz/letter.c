/*
 * Dead letters as they are stored: any bytes are refused, or are a letter that is the same when it is stored again. And the names of their folders: any name is a plain one when encoded, and the same when decoded again.
 */
#include "spool/letter.h"
#include "spool/name.h"

#include <ctype.h>

#include "fuzz.h"

static struct buffer stored_form(const struct dead_letter *letter)
{
    struct buffer stored = {0};
    size_t count = event_pieces(letter->event, NULL, 0);
    struct iovec *pieces = calloc(count, sizeof *pieces);
    letter_encode_head(letter, &stored);
    REQUIRE(event_pieces(letter->event, pieces, count) == count);
    for (size_t i = 0; i < count; i++)
        buffer_append(&stored, pieces[i].iov_base, pieces[i].iov_len);
    free(pieces);
    return stored;
}

static void check_letter(const struct dead_letter *letter)
{
    struct dead_letter again;
    struct buffer stored = stored_form(letter);
    REQUIRE(letter_decode(buffer_slice(&stored), &again));
    REQUIRE(slice_equal(again.reason, letter->reason) && slice_equal(again.error, letter->error) &&
            slice_equal(again.where, letter->where));
    REQUIRE(again.tries == letter->tries && again.first_us == letter->first_us &&
            again.last_us == letter->last_us);
    struct buffer stored_again = stored_form(&again);
    REQUIRE(slice_equal(buffer_slice(&stored), buffer_slice(&stored_again)));
    event_record_release(again.event);
    buffer_free(&stored);
    buffer_free(&stored_again);
}

static void check_name(struct slice text)
{
    struct buffer encoded = {0};
    name_encode(text, &encoded);
    for (size_t i = 0; i < encoded.size; i++)
        REQUIRE(isalnum((unsigned char)buffer_data(&encoded)[i]) ||
                strchr("_-%", buffer_data(&encoded)[i]) != NULL);
    char *decoded = name_decode(buffer_slice(&encoded));
    if (text.size > 0 && memchr(text.data, 0, text.size) == NULL)
        REQUIRE(decoded != NULL && slice_equal(slice_of(decoded), text));
    else
        REQUIRE(decoded == NULL);
    free(decoded);
    buffer_free(&encoded);
    free(name_decode(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = fuzz_copy((struct slice){(const char *)data, size});
    struct dead_letter letter;
    if (letter_decode(input, &letter))
        check_letter(&letter);
    else
        REQUIRE(letter.event == NULL);
    event_record_release(letter.event);
    check_name(input);
    free((char *)(uintptr_t)input.data);
    return 0;
}
