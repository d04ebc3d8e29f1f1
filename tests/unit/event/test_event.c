/* The event record: what goes in comes out, also through the stored form; what is malformed is refused, whatever it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "event/event.h"

static const struct name_value request_headers[] = {
    {{"Host", 4}, {"proxy", 5}},
    {{"X-Team", 6}, {"", 0}},
};
static const struct name_value response_headers[] = {{{"Content-Type", 12}, {"text/event-stream", 17}}};

static struct event_fields sample_fields(void)
{
    return (struct event_fields){
        .id = SLICE("01890a5d-ac96-774b-bcce-b302099a8057"),
        .request_id = SLICE("req-1"),
        .time_us = UINT64_C(1767323045678901),
        .method = SLICE("POST"),
        .path = SLICE("/v1/chat/completions"),
        .query = SLICE(""),
        .status = 200,
        .duration_us = 1234567,
        .ttfb_us = 4321,
        .client = SLICE("127.0.0.1:5000"),
        .route = SLICE("openai"),
        .upstream = SLICE("https://api.openai.com"),
        .credential_kind = SLICE("authorization"),
        .credential_fingerprint = SLICE("0123456789ab"),
        .request_headers = request_headers,
        .request_header_count = 2,
        .response_headers = response_headers,
        .response_header_count = 1,
        .request_bytes = 11,
        .response_bytes = UINT64_C(5000000000),
        .response_truncated = true,
        .withheld = EVENT_WITHHELD_MEMORY,
        .streamed = true,
        .chunks = 42,
        .error_kind = SLICE("client_aborted"),
        .error_message = SLICE("the client went away"),
        .trace_id = SLICE("0af7651916cd43dd8448eb211c80319c"),
        .span_id = SLICE("b7ad6b7169203331"),
        .version = SLICE("0.1.0"),
        .instance = SLICE("host-1"),
    };
}

static struct body body_with(const char *text, struct memory_budget *budget)
{
    struct body body;
    body_init(&body, budget);
    assert_true(body_append(&body, slice_of(text)));
    return body;
}

static struct event_record *sample_event(void)
{
    struct event_fields fields = sample_fields();
    struct body request = body_with("{\"model\":1}", NULL), response = body_with("data: hello", NULL),
                tail = body_with("[DONE]", NULL);
    return event_record_new(&fields, &request, &response, &tail);
}

static void assert_slice_equal(struct slice a, struct slice b)
{
    assert_int_equal(a.data == NULL, b.data == NULL);
    assert_true(slice_equal(a, b));
}

static void assert_headers_equal(const struct name_value *a, size_t a_count, const struct name_value *b,
                                 size_t b_count)
{
    assert_int_equal(a_count, b_count);
    for (size_t i = 0; i < a_count; i++) {
        assert_slice_equal(a[i].name, b[i].name);
        assert_slice_equal(a[i].value, b[i].value);
    }
}

static void assert_fields_equal(const struct event_fields *a, const struct event_fields *b)
{
    assert_slice_equal(a->id, b->id);
    assert_slice_equal(a->request_id, b->request_id);
    assert_int_equal(a->time_us, b->time_us);
    assert_slice_equal(a->method, b->method);
    assert_slice_equal(a->path, b->path);
    assert_slice_equal(a->query, b->query);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->duration_us, b->duration_us);
    assert_int_equal(a->ttfb_us, b->ttfb_us);
    assert_slice_equal(a->client, b->client);
    assert_slice_equal(a->client_name, b->client_name);
    assert_slice_equal(a->route, b->route);
    assert_slice_equal(a->upstream, b->upstream);
    assert_slice_equal(a->credential_kind, b->credential_kind);
    assert_slice_equal(a->credential_fingerprint, b->credential_fingerprint);
    assert_headers_equal(a->request_headers, a->request_header_count, b->request_headers,
                         b->request_header_count);
    assert_headers_equal(a->response_headers, a->response_header_count, b->response_headers,
                         b->response_header_count);
    assert_int_equal(a->request_bytes, b->request_bytes);
    assert_int_equal(a->response_bytes, b->response_bytes);
    assert_int_equal(a->request_truncated, b->request_truncated);
    assert_int_equal(a->response_truncated, b->response_truncated);
    assert_int_equal(a->withheld, b->withheld);
    assert_int_equal(a->streamed, b->streamed);
    assert_int_equal(a->chunks, b->chunks);
    assert_slice_equal(a->error_kind, b->error_kind);
    assert_slice_equal(a->error_message, b->error_message);
    assert_slice_equal(a->trace_id, b->trace_id);
    assert_slice_equal(a->span_id, b->span_id);
    assert_slice_equal(a->version, b->version);
    assert_slice_equal(a->instance, b->instance);
    assert_int_equal(a->request_kept, b->request_kept);
    assert_int_equal(a->response_kept, b->response_kept);
}

static void assert_body_is(const struct body *body, const char *text)
{
    struct buffer copy = {0};
    body_copy(body, &copy);
    assert_true(slice_equal(buffer_slice(&copy), slice_of(text)));
    buffer_free(&copy);
}

/* The stored form, in memory of exactly its size, so that a sanitizer sees any byte read beyond it. */
static struct slice stored(const struct event_record *event)
{
    struct iovec pieces[16];
    size_t count = event_pieces(event, pieces, 16), size = event_stored_size(event);
    assert_in_range(count, 1, 16);
    char *bytes = malloc(size);
    assert_non_null(bytes);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(bytes + at, pieces[i].iov_base, pieces[i].iov_len);
        at += pieces[i].iov_len;
    }
    assert_int_equal(at, size);
    return (struct slice){bytes, size};
}

static void free_slice(struct slice s)
{
    free((void *)(uintptr_t)s.data);
}

static void an_event_says_what_it_was_made_of(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct event_fields expected = sample_fields();
    expected.request_kept = expected.response_kept = true;
    assert_fields_equal(event_get(event), &expected);
    assert_body_is(event_request_body(event), "{\"model\":1}");
    assert_body_is(event_response_body(event), "data: hello");
    assert_body_is(event_response_tail(event), "[DONE]");
    event_record_release(event);
}

static void null_and_empty_stay_apart(void **state)
{
    (void)state;
    struct event_fields fields = {
        .id = SLICE("x"), .query = SLICE(""), .ttfb_us = EVENT_NO_TIME, .request_kept = true};
    struct body none;
    body_init(&none, NULL);
    struct event_record *event = event_record_new(&fields, &none, NULL, NULL);
    struct slice bytes = stored(event);
    struct error error;
    struct event_record *again = event_decode(bytes, &error);
    assert_non_null(again);
    const struct event_fields *got = event_get(again);
    assert_non_null(got->query.data);
    assert_int_equal(got->query.size, 0);
    assert_null(got->path.data);
    assert_null(got->client_name.data);
    assert_true(got->ttfb_us == EVENT_NO_TIME);
    assert_true(got->request_kept);
    assert_false(got->response_kept);
    free_slice(bytes);
    event_record_release(event);
    event_record_release(again);
}

static void the_stored_form_makes_the_same_event_again(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct slice bytes = stored(event);
    struct error error;
    struct event_record *again = event_decode(bytes, &error);
    assert_non_null(again);
    assert_fields_equal(event_get(again), event_get(event));
    struct slice bytes_again = stored(again);
    assert_true(slice_equal(bytes, bytes_again));
    free_slice(bytes);
    free_slice(bytes_again);
    assert_body_is(event_response_tail(again), "[DONE]");
    event_record_release(event);
    event_record_release(again);
}

/* The flags of a stored event can say less than its bytes do. */
static void a_stored_body_counts_as_kept_whatever_the_flags_say(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct slice bytes = stored(event);
    char *tag = memmem(bytes.data, bytes.size, "\5\0\0\0\10\0\0\0", 8);
    assert_non_null(tag);
    memset(tag + 8, 0, 8);
    struct error error;
    struct event_record *again = event_decode(bytes, &error);
    assert_non_null(again);
    assert_true(event_get(again)->request_kept && event_get(again)->response_kept);
    free_slice(bytes);
    event_record_release(event);
    event_record_release(again);
}

static void bodies_move_without_a_copy_and_their_budget_comes_back_at_the_end(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 1 << 20};
    struct event_fields fields = sample_fields();
    struct body request = body_with("request", &budget), response = body_with("response", &budget);
    const struct body_block *block = response.first;
    struct event_record *event = event_record_new(&fields, &request, &response, NULL);
    assert_null(request.first);
    assert_int_equal(response.size, 0);
    assert_ptr_equal(event_response_body(event)->first, block);
    assert_int_equal(budget.used, 2048);
    struct event_record *shared = event_record_reference(event);
    event_record_release(event);
    assert_int_equal(budget.used, 2048);
    event_record_release(shared);
    assert_int_equal(budget.used, 0);
    event_record_release(NULL);
}

static void memory_counts_blocks_as_they_are_allocated(void **state)
{
    (void)state;
    struct event_fields fields = sample_fields();
    struct event_record *bare = event_record_new(&fields, NULL, NULL, NULL);
    struct body response = body_with("x", NULL);
    struct event_record *with_body = event_record_new(&fields, NULL, &response, NULL);
    assert_int_equal(event_memory(with_body), event_memory(bare) + 1024);
    assert_true(event_memory(bare) > event_stored_size(bare));
    event_record_release(bare);
    event_record_release(with_body);
}

static void pieces_are_counted_beyond_what_there_is_room_for(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct iovec pieces[2] = {{0}};
    assert_int_equal(event_pieces(event, pieces, 2), 4);
    assert_int_equal(pieces[1].iov_len, 11);
    assert_int_equal(event_pieces(event, NULL, 0), 4);
    event_record_release(event);
}

static void unknown_tags_are_skipped(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct slice bytes = stored(event);
    uint32_t flat_size;
    memcpy(&flat_size, bytes.data + 4, 4);
    struct buffer longer = {0};
    buffer_append(&longer, bytes.data, flat_size);
    buffer_append(&longer, "\x39\x30\0\0\x03\0\0\0new", 11);
    buffer_append(&longer, bytes.data + flat_size, bytes.size - flat_size);
    flat_size += 11;
    memcpy(buffer_data(&longer) + 4, &flat_size, 4);
    struct error error;
    struct event_record *again = event_decode(buffer_slice(&longer), &error);
    assert_non_null(again);
    assert_fields_equal(event_get(again), event_get(event));
    buffer_free(&longer);
    free_slice(bytes);
    event_record_release(event);
    event_record_release(again);
}

static void every_prefix_is_refused(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct slice bytes = stored(event);
    for (size_t size = 0; size < bytes.size; size++) {
        char *prefix = malloc(size > 0 ? size : 1);
        assert_non_null(prefix);
        memcpy(prefix, bytes.data, size);
        struct error error = {{0}};
        assert_null(event_decode((struct slice){prefix, size}, &error));
        assert_true(error.message[0] != 0);
        free(prefix);
    }
    free_slice(bytes);
    event_record_release(event);
}

/* The first field with this tag, counted from the beginning of the block. */
static char *find_field(struct slice bytes, uint16_t tag)
{
    char *at = (char *)(uintptr_t)bytes.data + 32;
    for (;;) {
        uint16_t this_tag;
        uint32_t size;
        memcpy(&this_tag, at, 2);
        memcpy(&size, at + 4, 4);
        if (this_tag == tag)
            return at;
        at += 8 + size;
        assert_true(at < bytes.data + bytes.size);
    }
}

static void assert_refused(struct slice bytes)
{
    struct error error = {{0}};
    assert_null(event_decode(bytes, &error));
    assert_true(error.message[0] != 0);
}

static void impossible_values_are_refused(void **state)
{
    (void)state;
    enum { ID = 16, REQUEST_ID = 17, TIME = 48, DURATION = 49, STATUS = 3, WITHHELD = 4, REQUEST_HEADER = 1 };
    static const struct {
        const char *what;
        uint16_t tag;
        size_t offset;  /* in the field */
        uint32_t value; /* as four bytes */
    } changes[] = {
        {"a status of more than three digits", STATUS, 8, 1000},
        {"an unknown reason for withholding", WITHHELD, 8, 3},
        {"a field that reaches beyond its block", REQUEST_ID, 4, UINT32_MAX},
        {"a number of another size", REQUEST_ID, 0, TIME},
        {"a field that comes twice", DURATION, 0, TIME},
        {"a header whose name is longer than the header", REQUEST_HEADER, 8, 100},
        {"something where zero must be", TIME, 0, TIME | 0x10000},
        {"no id", ID, 0, 12345},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct event_record *event = sample_event();
        struct slice bytes = stored(event);
        memcpy(find_field(bytes, changes[i].tag) + changes[i].offset, &changes[i].value, 4);
        print_message("%s\n", changes[i].what);
        assert_refused(bytes);
        free_slice(bytes);
        event_record_release(event);
    }
}

static void sizes_that_do_not_add_up_are_refused(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct slice bytes = stored(event);
    char *size = (char *)(uintptr_t)bytes.data + 8;
    uint64_t wrong[] = {0, 10, 12, UINT64_MAX, UINT64_MAX - 10};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(size, &wrong[i], 8);
        assert_refused(bytes);
    }
    free_slice(bytes);
    event_record_release(event);
}

/* Any mutation gives an event that can be read and stored, or a refusal; sanitizers see the rest. */
static void mutations_never_break_the_decoder(void **state)
{
    (void)state;
    struct event_record *event = sample_event();
    struct slice bytes = stored(event);
    uint32_t random = 2463534242u;
    unsigned accepted = 0, refused = 0;
    for (unsigned round = 0; round < 30000; round++) {
        size_t size = bytes.size;
        char *mutant = malloc(size);
        assert_non_null(mutant);
        memcpy(mutant, bytes.data, size);
        for (unsigned change = 0; change <= round % 4; change++) {
            random ^= random << 13, random ^= random >> 17, random ^= random << 5;
            char interesting[] = {0, 1, (char)0x7f, (char)0x80, (char)0xff, (char)(random >> 24)};
            mutant[random % size] = interesting[random >> 8 & 3 ? 5 : random % 6];
        }
        struct error error;
        struct event_record *again = event_decode((struct slice){mutant, size}, &error);
        free(mutant);
        if (again == NULL) {
            refused++;
            continue;
        }
        accepted++;
        assert_int_equal(event_stored_size(again), size);
        struct slice bytes_again = stored(again);
        const struct event_fields *fields = event_get(again);
        uint64_t sum = fields->id.size;
        for (size_t i = 0; i < fields->request_header_count; i++)
            for (size_t j = 0; j < fields->request_headers[i].value.size; j++)
                sum += (unsigned char)fields->request_headers[i].value.data[j];
        assert_true(sum > 0);
        free_slice(bytes_again);
        event_record_release(again);
    }
    assert_true(accepted > 100 && refused > 100);
    free_slice(bytes);
    event_record_release(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_says_what_it_was_made_of),
        cmocka_unit_test(null_and_empty_stay_apart),
        cmocka_unit_test(the_stored_form_makes_the_same_event_again),
        cmocka_unit_test(a_stored_body_counts_as_kept_whatever_the_flags_say),
        cmocka_unit_test(bodies_move_without_a_copy_and_their_budget_comes_back_at_the_end),
        cmocka_unit_test(memory_counts_blocks_as_they_are_allocated),
        cmocka_unit_test(pieces_are_counted_beyond_what_there_is_room_for),
        cmocka_unit_test(unknown_tags_are_skipped),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(sizes_that_do_not_add_up_are_refused),
        cmocka_unit_test(mutations_never_break_the_decoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
