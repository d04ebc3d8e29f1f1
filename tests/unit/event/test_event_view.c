/* Bodies as people read them: decoded, text or bytes, cut between whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

#include "event/event_view.h"

#define MAX_DECODED (1u << 20)

/* What the tests vary; the rest of the event does not matter to a view. */
struct sample {
    struct slice request, response, tail; /* data NULL: not kept */
    const char *request_coding, *response_coding;
    bool request_truncated, response_truncated, failed;
};

static struct body body_of(struct slice bytes)
{
    struct body body;
    body_init(&body, NULL);
    assert_true(body_append(&body, bytes));
    return body;
}

static struct event_record *event_of(const struct sample *sample)
{
    struct name_value request_header = {SLICE("Content-Encoding"), slice_of(sample->request_coding)};
    struct name_value response_header = {SLICE("content-encoding"), slice_of(sample->response_coding)};
    struct event_fields fields = {
        .id = SLICE("id"),
        .request_headers = &request_header,
        .request_header_count = sample->request_coding != NULL,
        .response_headers = &response_header,
        .response_header_count = sample->response_coding != NULL,
        .request_truncated = sample->request_truncated,
        .response_truncated = sample->response_truncated,
        .request_kept = sample->request.data != NULL,
        .response_kept = sample->response.data != NULL,
        .error_kind = sample->failed ? SLICE("client_aborted") : (struct slice){NULL, 0},
    };
    struct body request = body_of(sample->request), response = body_of(sample->response),
                tail = body_of(sample->tail);
    return event_record_new(&fields, &request, &response, &tail);
}

static struct event_record *event;
static struct event_view view;

/* Views the sample until the test is over. */
static void make_view(struct sample sample)
{
    event_view_free(&view);
    event_record_release(event);
    event = event_of(&sample);
    event_view_make(&view, event, MAX_DECODED);
}

static int end_of_test(void **state)
{
    (void)state;
    event_view_free(&view);
    event_record_release(event);
    event = NULL;
    view = (struct event_view){0};
    return 0;
}

static void assert_text(const struct event_body_view *body, const char *text)
{
    assert_true(body->kept);
    assert_true(body->text);
    assert_null(body->coding.data);
    assert_true(slice_equal(body->bytes, slice_of(text)));
}

static void assert_bytes(const struct event_body_view *body, struct slice bytes, const char *coding)
{
    assert_true(body->kept);
    assert_false(body->text);
    assert_int_equal(body->coding.data != NULL, coding != NULL);
    assert_true(slice_equal(body->coding, slice_of(coding)));
    assert_true(slice_equal(body->bytes, bytes));
}

static struct buffer gzipped(struct slice text)
{
    struct buffer out = {0};
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t bound = deflateBound(&stream, text.size);
    stream.next_in = (Bytef *)(uintptr_t)text.data;
    stream.avail_in = (uInt)text.size;
    stream.next_out = (Bytef *)buffer_reserve(&out, bound);
    stream.avail_out = (uInt)bound;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    buffer_commit(&out, stream.total_out);
    deflateEnd(&stream);
    return out;
}

static void utf8_is_text_and_other_bytes_are_not(void **state)
{
    (void)state;
    make_view((struct sample){.request = SLICE("{\"gr\xc3\xbc\xc3\x9f"
                                               "e\":\"\xf0\x9f\x98\x80\"}"),
                              .response = SLICE("\x89PNG\r\n\x1a\n")});
    assert_text(&view.request, "{\"gr\xc3\xbc\xc3\x9f"
                               "e\":\"\xf0\x9f\x98\x80\"}");
    assert_bytes(&view.response, SLICE("\x89PNG\r\n\x1a\n"), NULL);
}

static void an_empty_body_that_was_kept_is_empty_text_and_one_that_was_not_is_null(void **state)
{
    (void)state;
    make_view((struct sample){.request = SLICE("")});
    assert_text(&view.request, "");
    assert_false(view.response.kept);
    assert_false(view.tail.kept);
}

static void an_empty_body_has_no_coding_to_undo(void **state)
{
    (void)state;
    make_view((struct sample){
        .request = SLICE(""), .response = SLICE(""), .request_coding = "unknown", .response_coding = "gzip"});
    assert_text(&view.request, "");
    assert_text(&view.response, "");
}

static void a_body_of_many_blocks_is_one_piece(void **state)
{
    (void)state;
    static char large[200000];
    memset(large, 'x', sizeof large - 1);
    make_view((struct sample){.response = {large, sizeof large - 1}});
    assert_text(&view.response, large);
}

static void compressed_bodies_are_decoded(void **state)
{
    (void)state;
    struct buffer encoded = gzipped(SLICE("{\"answer\":42}"));
    make_view((struct sample){.request = buffer_slice(&encoded),
                              .response = buffer_slice(&encoded),
                              .request_coding = "gzip",
                              .response_coding = "GZIP"});
    assert_text(&view.request, "{\"answer\":42}");
    assert_text(&view.response, "{\"answer\":42}");
    buffer_free(&encoded);
}

static void a_coding_that_stays_is_named_in_lower_case(void **state)
{
    (void)state;
    make_view((struct sample){.request = SLICE("not gzip"),
                              .response = SLICE("any bytes"),
                              .request_coding = "GZip",
                              .response_coding = "Aes128GCM, br"});
    assert_bytes(&view.request, SLICE("not gzip"), "gzip");
    assert_bytes(&view.response, SLICE("any bytes"), "aes128gcm, br");
}

static void content_beyond_max_decoded_keeps_its_coding(void **state)
{
    (void)state;
    char *zeros = calloc(1, 2 * MAX_DECODED);
    assert_non_null(zeros);
    struct buffer encoded = gzipped((struct slice){zeros, 2 * MAX_DECODED});
    free(zeros);
    make_view((struct sample){.response = buffer_slice(&encoded), .response_coding = "gzip"});
    assert_bytes(&view.response, buffer_slice(&encoded), "gzip");
    buffer_free(&encoded);
}

static void a_truncated_body_ends_with_a_whole_character(void **state)
{
    (void)state;
    static const struct {
        const char *kept, *text;
    } cases[] = {
        {"abc", "abc"},         {"abc\xc3", "abc"},         {"abc\xc3\xbc", "abc\xc3\xbc"},
        {"abc\xe2\x82", "abc"}, {"abc\xf0\x9f\x98", "abc"}, {"\xf0", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_view((struct sample){.request = slice_of(cases[i].kept),
                                  .response = slice_of(cases[i].kept),
                                  .request_truncated = true,
                                  .response_truncated = true});
        assert_text(&view.request, cases[i].text);
        assert_text(&view.response, cases[i].text);
    }
}

static void what_a_failed_exchange_left_ends_with_a_whole_character(void **state)
{
    (void)state;
    make_view((struct sample){.response = SLICE("data: \xe2\x82"), .failed = true});
    assert_text(&view.response, "data: ");
    struct buffer encoded = gzipped(SLICE("data: hello"));
    make_view((struct sample){
        .response = {buffer_data(&encoded), encoded.size - 4}, .response_coding = "gzip", .failed = true});
    assert_text(&view.response, "data: hello");
    buffer_free(&encoded);
}

static void half_a_character_in_a_whole_body_makes_it_bytes(void **state)
{
    (void)state;
    make_view((struct sample){.response = SLICE("abc\xe2\x82")});
    assert_bytes(&view.response, SLICE("abc\xe2\x82"), NULL);
}

static void a_truncated_body_of_bytes_keeps_them_all(void **state)
{
    (void)state;
    make_view((struct sample){.response = SLICE("\xff\xfe and then \xe2\x82"), .response_truncated = true});
    assert_bytes(&view.response, SLICE("\xff\xfe and then \xe2\x82"), NULL);
}

/* Stored blocks of deflate come out byte by byte, so the cut can be put within a character. */
static void decoded_content_of_a_truncated_capture_ends_with_a_whole_character(void **state)
{
    (void)state;
    static const char zlib_stored[] = "\x78\x01\x01\x06\x00\xf9\xff"
                                      "abc\xe2\x82\xac";
    size_t head = 7;
    for (size_t kept = 3; kept < 6; kept++) {
        make_view((struct sample){.response = {zlib_stored, head + kept},
                                  .response_coding = "deflate",
                                  .response_truncated = true});
        assert_text(&view.response, "abc");
    }
}

static void a_tail_begins_with_a_whole_character(void **state)
{
    (void)state;
    static const char *const tails[] = {"[DONE]", "\xac[DONE]", "\x82\xac[DONE]", "\x9f\x98\x80[DONE]"};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        make_view((struct sample){
            .response = SLICE("data: \xf0\x9f"), .tail = slice_of(tails[i]), .response_truncated = true});
        assert_text(&view.response, "data: ");
        assert_text(&view.tail, "[DONE]");
    }
}

static void a_tail_needs_a_truncated_response_without_coding(void **state)
{
    (void)state;
    make_view((struct sample){.response = SLICE("whole"), .tail = SLICE("tail")});
    assert_false(view.tail.kept);
    struct buffer encoded = gzipped(SLICE("hello"));
    make_view((struct sample){.response = buffer_slice(&encoded),
                              .tail = SLICE("tail"),
                              .response_coding = "gzip",
                              .response_truncated = true});
    assert_text(&view.response, "hello");
    assert_false(view.tail.kept);
    make_view((struct sample){.response = SLICE("x"),
                              .tail = SLICE("tail"),
                              .response_coding = "unknown",
                              .response_truncated = true});
    assert_false(view.tail.kept);
    make_view((struct sample){.response = SLICE("x"),
                              .tail = SLICE("tail"),
                              .response_coding = "identity",
                              .response_truncated = true});
    assert_text(&view.tail, "tail");
    make_view((struct sample){.tail = SLICE("tail"), .response_truncated = true});
    assert_false(view.tail.kept);
    buffer_free(&encoded);
}

static void a_body_and_its_tail_are_encoded_alike(void **state)
{
    (void)state;
    make_view((struct sample){
        .response = SLICE("text\xe2"), .tail = SLICE("\x82\xff bytes"), .response_truncated = true});
    assert_bytes(&view.response, SLICE("text\xe2"), NULL);
    assert_bytes(&view.tail, SLICE("\x82\xff bytes"), NULL);
    make_view((struct sample){
        .response = SLICE("\xff bytes"), .tail = SLICE("\x82\xac text"), .response_truncated = true});
    assert_bytes(&view.response, SLICE("\xff bytes"), NULL);
    assert_bytes(&view.tail, SLICE("\x82\xac text"), NULL);
}

static void several_lines_of_content_encoding_are_one_list(void **state)
{
    (void)state;
    struct buffer inner = gzipped(SLICE("hello")), outer = gzipped(buffer_slice(&inner));
    struct name_value headers[] = {{SLICE("Content-Encoding"), SLICE("gzip")},
                                   {SLICE("content-encoding"), SLICE("gzip")}};
    struct event_fields fields = {.id = SLICE("id"), .response_headers = headers, .response_header_count = 2};
    struct body response = body_of(buffer_slice(&outer));
    event_view_free(&view);
    event = event_record_new(&fields, NULL, &response, NULL);
    event_view_make(&view, event, MAX_DECODED);
    assert_text(&view.response, "hello");
    buffer_free(&inner);
    buffer_free(&outer);
}

static void collect(void *argument, struct slice name, struct slice value)
{
    buffer_printf(argument, "%.*s=%.*s|", SLICE_ARGUMENTS(name), SLICE_ARGUMENTS(value));
}

static void headers_of_one_name_are_joined_where_the_first_stood(void **state)
{
    (void)state;
    struct name_value headers[] = {
        {SLICE("Accept"), SLICE("a")}, {SLICE("Cookie"), SLICE("[redacted]")}, {SLICE("X-B"), SLICE("")},
        {SLICE("accept"), SLICE("b")}, {SLICE("COOKIE"), SLICE("[redacted]")}, {SLICE("ACCEPT"), SLICE("c")},
    };
    struct buffer joined = {0};
    event_headers_joined(headers, 6, collect, &joined);
    buffer_append_char(&joined, 0);
    assert_string_equal(buffer_data(&joined), "accept=a, b, c|cookie=[redacted]; [redacted]|x-b=|");
    buffer_free(&joined);
}

#define VIEW_TEST(name) cmocka_unit_test_teardown(name, end_of_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        VIEW_TEST(utf8_is_text_and_other_bytes_are_not),
        VIEW_TEST(an_empty_body_that_was_kept_is_empty_text_and_one_that_was_not_is_null),
        VIEW_TEST(an_empty_body_has_no_coding_to_undo),
        VIEW_TEST(a_body_of_many_blocks_is_one_piece),
        VIEW_TEST(compressed_bodies_are_decoded),
        VIEW_TEST(a_coding_that_stays_is_named_in_lower_case),
        VIEW_TEST(content_beyond_max_decoded_keeps_its_coding),
        VIEW_TEST(a_truncated_body_ends_with_a_whole_character),
        VIEW_TEST(what_a_failed_exchange_left_ends_with_a_whole_character),
        VIEW_TEST(half_a_character_in_a_whole_body_makes_it_bytes),
        VIEW_TEST(a_truncated_body_of_bytes_keeps_them_all),
        VIEW_TEST(decoded_content_of_a_truncated_capture_ends_with_a_whole_character),
        VIEW_TEST(a_tail_begins_with_a_whole_character),
        VIEW_TEST(a_tail_needs_a_truncated_response_without_coding),
        VIEW_TEST(a_body_and_its_tail_are_encoded_alike),
        VIEW_TEST(several_lines_of_content_encoding_are_one_list),
        VIEW_TEST(headers_of_one_name_are_joined_where_the_first_stood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
