/*
 * path: a path is safe when every server takes it apart the same way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/head.h"

static void plain_paths_are_safe(void **state)
{
    (void)state;
    static const char *const paths[] = {"/",
                                        "/v1",
                                        "/v1/",
                                        "/v1/chat/completions",
                                        "/v1//x",
                                        "/v1beta/models/gemini-pro:generateContent",
                                        "/a/...",
                                        "/a/.b",
                                        "/a/..b",
                                        "/a/b..",
                                        "/a/%252e%252e/x",
                                        "/a;b=../c",
                                        "/%20%ff%0a",
                                        "/a!$&'()*+,;=:@[]|^~_-",
                                        "/%2e%2e%2e",
                                        "/;",
                                        "/a/%41."};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (!http_path_is_safe(slice_of(paths[i]))) {
            fail_msg("%s", paths[i]);
        }
    }
}

static void paths_with_two_readings_are_not(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "",        "v1",     "*",      "//",         "//x",     "/.",      "/..",     "/./x",
        "/../x",   "/a/..",  "/a/.",   "/%2e",       "/%2E%2e", "/.%2e/x", "/%2e./x", "/..;x/y",
        "/..%3bx", "/%2e;",  "/a%2fb", "/a%2Fb",     "/a%5cb",  "/%00",    "/%zz",    "/%2",
        "/%",      "/a\\b",  "/a b",   "/a\"b",      "/a<b",    "/a>b",    "/a`b",    "/a{b",
        "/a}b",    "/a\x7f", "/a\x01", "/a\xc3\xbc", "/a#b",    "/a?b",    "/a/b/..", "/;/../x",
    };
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (http_path_is_safe(slice_of(paths[i]))) {
            fail_msg("%s", paths[i]);
        }
    }
    assert_false(http_path_is_safe((struct slice){"/a\0b", 4}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_paths_are_safe),
        cmocka_unit_test(paths_with_two_readings_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
