/*
 * JSON to Lua: one pass, by recursive descent, straight to values on the stack. Without a Lua state the same code only checks.
 *
 * Nothing is allocated but by Lua and in the script's scratch buffer, so that running out of memory in the middle leaks nothing.
 */
#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>

#include "base/json_scan.h"
#include "base/utf8.h"
#include "script/host.h"
#include "script/json.h"

#define MAX_EXACT_INTEGER UINT64_C(9007199254740992) /* 2^53 */

struct parser {
    const char *start, *at, *end;
    lua_State *lua;         /* NULL: check only */
    int array_metatable;    /* stack index */
    struct buffer *scratch; /* strings with escapes are put together here */
    int depth;
    struct error *error;
};

static bool parse_value(struct parser *parser);

static bool fail(struct parser *parser, const char *at, const char *what)
{
    error_set(parser->error, "invalid JSON at byte %zu: %s", (size_t)(at - parser->start) + 1, what);
    return false;
}

static bool fail_unexpected(struct parser *parser, const char *expected)
{
    char what[96];
    unsigned char c = parser->at < parser->end ? (unsigned char)*parser->at : 0;
    if (parser->at == parser->end) {
        snprintf(what, sizeof what, "expected %s, got the end", expected);
    } else if (c > 0x20 && c < 0x7f) {
        snprintf(what, sizeof what, "expected %s, got '%c'", expected, c);
    } else {
        snprintf(what, sizeof what, "expected %s, got the byte 0x%02x", expected, c);
    }
    return fail(parser, parser->at, what);
}

static void skip_space(struct parser *parser)
{
    while (parser->at < parser->end &&
           (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\r' || *parser->at == '\t')) {
        parser->at++;
    }
}

static bool take(struct parser *parser, char c)
{
    if (parser->at < parser->end && *parser->at == c) {
        parser->at++;
        return true;
    }
    return false;
}

static bool is_digit(const struct parser *parser)
{
    return parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9';
}

/* Strings */

static bool parse_hex(struct parser *parser, uint32_t *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++, parser->at++) {
        char c = parser->at < parser->end ? *parser->at : '\0';
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f') {
            digit = (uint32_t)(ascii_lower(c) - 'a' + 10);
        } else {
            return fail_unexpected(parser, "four hexadecimal digits");
        }
        *unit = *unit << 4 | digit;
    }
    return true;
}

/* Behind "\u". A high surrogate takes the escape of a low one that follows; any other surrogate stands for nothing. */
static bool parse_unicode_escape(struct parser *parser, uint32_t *code_point)
{
    if (!parse_hex(parser, code_point)) {
        return false;
    }
    if (*code_point >= 0xd800 && *code_point <= 0xdbff && parser->end - parser->at >= 2 &&
        parser->at[0] == '\\' && parser->at[1] == 'u') {
        const char *before = parser->at;
        parser->at += 2;
        uint32_t low;
        if (!parse_hex(parser, &low)) {
            return false;
        }
        if (low >= 0xdc00 && low <= 0xdfff) {
            *code_point = 0x10000 + ((*code_point - 0xd800) << 10) + (low - 0xdc00);
        } else {
            parser->at = before;
        }
    }
    if (*code_point >= 0xd800 && *code_point <= 0xdfff) {
        *code_point = 0xfffd;
    }
    return true;
}

/* Behind the backslash. Writes the bytes it stands for to *out: never more than the escape has. */
static bool parse_escape(struct parser *parser, char **out)
{
    uint32_t code_point;
    char c = parser->at < parser->end ? *parser->at : '\0';
    switch (c) {
    case '"':
    case '\\':
    case '/':
        break;
    case 'b':
        c = '\b';
        break;
    case 'f':
        c = '\f';
        break;
    case 'n':
        c = '\n';
        break;
    case 'r':
        c = '\r';
        break;
    case 't':
        c = '\t';
        break;
    case 'u':
        parser->at++;
        if (!parse_unicode_escape(parser, &code_point)) {
            return false;
        }
        *out += utf8_encode(code_point, *out);
        return true;
    default:
        return fail_unexpected(parser, "one of \"\\/bfnrtu after a backslash");
    }
    parser->at++;
    *(*out)++ = c;
    return true;
}

/* The bytes up to the next quote or backslash, which is passed. */
static bool parse_plain(struct parser *parser, const char *quote, struct slice *piece)
{
    const char *from = parser->at;
    uint64_t high;
    parser->at = json_scan_plain(from, parser->end, &high);
    *piece = slice_range(from, parser->at);
    if (high != 0) {
        size_t valid = utf8_valid_prefix(*piece);
        if (valid != piece->size) {
            return fail(parser, from + valid, "not UTF-8");
        }
    }
    if (parser->at == parser->end) {
        return fail(parser, quote, "this string has no end");
    }
    if ((unsigned char)*parser->at < 0x20) {
        return fail(parser, parser->at, "a control character in a string must be escaped");
    }
    parser->at++;
    return true;
}

/* Behind the first backslash of a string that began at quote. What it stands for is never longer than what is written, so that there is room for it without asking again. */
static bool parse_escaped_string(struct parser *parser, const char *quote, struct slice piece)
{
    char ignored[4], *begin = ignored, *out;
    if (parser->lua != NULL) {
        buffer_clear(parser->scratch);
        begin = buffer_reserve(parser->scratch, (size_t)(parser->end - quote));
    }
    out = begin;
    for (;;) {
        if (parser->lua == NULL) {
            out = ignored;
        } else if (piece.size > 0) {
            memcpy(out, piece.data, piece.size);
            out += piece.size;
        }
        if (parser->at[-1] == '"') {
            break;
        }
        if (!parse_escape(parser, &out) || !parse_plain(parser, quote, &piece)) {
            return false;
        }
    }
    if (parser->lua != NULL) {
        lua_pushlstring(parser->lua, begin, (size_t)(out - begin));
    }
    return true;
}

/* At the quote. */
static bool parse_string(struct parser *parser)
{
    const char *quote = parser->at++;
    struct slice piece;
    if (!parse_plain(parser, quote, &piece)) {
        return false;
    }
    if (parser->at[-1] == '\\') {
        return parse_escaped_string(parser, quote, piece);
    }
    if (parser->lua != NULL) {
        lua_pushlstring(parser->lua, piece.data, piece.size);
    }
    return true;
}

/* Numbers */

/* By the C library, for what the fast way does not do. What a double would turn into infinity or zero stays text. */
static void push_number_slow(struct parser *parser, struct slice text, bool zero)
{
    char small[64];
    char *copy = small;
    if (text.size >= sizeof small) {
        copy = lua_newuserdata(parser->lua, text.size + 1); /* Lua's, so that nothing leaks */
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    double number = strtod(copy, NULL);
    if (isinf(number) || (number == 0 && !zero)) {
        script_json_push_raw(parser->lua, text);
    } else {
        lua_pushnumber(parser->lua, number);
    }
    if (copy != small) {
        lua_remove(parser->lua, -2);
    }
}

static bool parse_digits(struct parser *parser, uint64_t *digits, int *count)
{
    if (!is_digit(parser)) {
        return fail_unexpected(parser, "a digit");
    }
    for (; is_digit(parser); parser->at++) {
        if (*digits != 0 || *parser->at != '0') { /* leading zeros do not count */
            *digits = *digits * 10 + (uint64_t)(*parser->at - '0');
            (*count)++;
        }
        if (*count > 19) { /* too many for the fast way: the value does not matter any more */
            *digits = 1;
            *count = 20;
        }
    }
    return true;
}

static bool parse_number(struct parser *parser)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const int max_power = (int)(sizeof powers / sizeof *powers) - 1;
    const char *begin = parser->at;
    bool negative = take(parser, '-'), integer = true;
    uint64_t digits = 0;
    int count = 0, exponent = 0;
    if (take(parser, '0')) {
        if (is_digit(parser)) {
            return fail(parser, parser->at, "a number must not begin with 0");
        }
    } else if (!parse_digits(parser, &digits, &count)) {
        return false;
    }
    if (take(parser, '.')) {
        integer = false;
        const char *fraction = parser->at;
        if (!parse_digits(parser, &digits, &count)) {
            return false;
        }
        exponent = parser->at - fraction > 1000 ? -1000 : -(int)(parser->at - fraction);
    }
    if (take(parser, 'e') || take(parser, 'E')) {
        integer = false;
        bool below = take(parser, '-');
        if (!below) {
            take(parser, '+');
        }
        uint64_t value = 0;
        int value_count = 0;
        if (!parse_digits(parser, &value, &value_count)) {
            return false;
        }
        int bounded = value_count > 4 ? 10000 : (int)value;
        exponent += below ? -bounded : bounded;
    }
    if (parser->lua == NULL) {
        return true;
    }
    struct slice text = slice_range(begin, parser->at);
    if (count > 19 || digits > MAX_EXACT_INTEGER || exponent < -max_power || exponent > max_power) {
        if (integer) {
            script_json_push_raw(parser->lua, text);
        } else {
            push_number_slow(parser, text, digits == 0);
        }
        return true;
    }
    /* Both are exact as doubles, so that one operation rounds once: the nearest double. */
    double number = (double)digits;
    number = exponent < 0 ? number / powers[-exponent] : number * powers[exponent];
    lua_pushnumber(parser->lua, negative ? -number : number);
    return true;
}

/* Arrays and objects */

static bool parse_array(struct parser *parser)
{
    lua_State *lua = parser->lua;
    parser->at++;
    if (lua != NULL) {
        luaL_checkstack(lua, 10, NULL);
        lua_newtable(lua);
        lua_pushvalue(lua, parser->array_metatable);
        lua_setmetatable(lua, -2);
    }
    skip_space(parser);
    if (take(parser, ']')) {
        return true;
    }
    for (int index = 1;; index++) {
        if (!parse_value(parser)) {
            return false;
        }
        if (lua != NULL) {
            lua_rawseti(lua, -2, index);
        }
        if (take(parser, ']')) {
            return true;
        }
        if (!take(parser, ',')) {
            return fail_unexpected(parser, "',' or ']'");
        }
    }
}

static bool parse_object(struct parser *parser)
{
    lua_State *lua = parser->lua;
    parser->at++;
    skip_space(parser);
    bool empty = take(parser, '}');
    if (lua != NULL) {
        luaL_checkstack(lua, 10, NULL);
        lua_createtable(lua, 0, empty ? 0 : 4);
    }
    if (empty) {
        return true;
    }
    for (;;) {
        skip_space(parser);
        if (parser->at == parser->end || *parser->at != '"') {
            return fail_unexpected(parser, "a key in quotes");
        }
        if (!parse_string(parser)) {
            return false;
        }
        skip_space(parser);
        if (!take(parser, ':')) {
            return fail_unexpected(parser, "':'");
        }
        if (!parse_value(parser)) {
            return false;
        }
        if (lua != NULL) {
            lua_rawset(lua, -3);
        }
        if (take(parser, '}')) {
            return true;
        }
        if (!take(parser, ',')) {
            return fail_unexpected(parser, "',' or '}'");
        }
    }
}

static bool parse_literal(struct parser *parser, struct slice literal)
{
    if ((size_t)(parser->end - parser->at) < literal.size ||
        memcmp(parser->at, literal.data, literal.size) != 0) {
        return fail_unexpected(parser, "a value");
    }
    parser->at += literal.size;
    if (parser->lua == NULL) {
        return true;
    }
    if (literal.data[0] == 'n') {
        script_json_push_null(parser->lua);
    } else {
        lua_pushboolean(parser->lua, literal.data[0] == 't');
    }
    return true;
}

static bool parse_scalar(struct parser *parser)
{
    switch (parser->at < parser->end ? *parser->at : '\0') {
    case '"':
        return parse_string(parser);
    case 't':
        return parse_literal(parser, SLICE("true"));
    case 'f':
        return parse_literal(parser, SLICE("false"));
    case 'n':
        return parse_literal(parser, SLICE("null"));
    case '-':
        return parse_number(parser);
    default:
        return is_digit(parser) ? parse_number(parser) : fail_unexpected(parser, "a value");
    }
}

/* One value and the space around it. */
static bool parse_value(struct parser *parser)
{
    skip_space(parser);
    char c = parser->at < parser->end ? *parser->at : '\0';
    bool parsed;
    if (c == '{' || c == '[') {
        if (parser->depth == SCRIPT_JSON_MAX_DEPTH) {
            return fail(parser, parser->at, "nested deeper than 128 levels");
        }
        parser->depth++;
        parsed = c == '{' ? parse_object(parser) : parse_array(parser);
        parser->depth--;
    } else {
        parsed = parse_scalar(parser);
    }
    skip_space(parser);
    return parsed;
}

static bool parse_text(struct parser *parser)
{
    return parse_value(parser) &&
           (parser->at == parser->end || fail_unexpected(parser, "nothing behind the value"));
}

bool script_json_decode(lua_State *lua, struct slice text, struct error *error)
{
    int top = lua_gettop(lua);
    luaL_checkstack(lua, 10, NULL);
    script_json_push_array_metatable(lua);
    const char *start = text.data != NULL ? text.data : "";
    struct parser parser = {.start = start,
                            .at = start,
                            .end = start + text.size,
                            .lua = lua,
                            .array_metatable = top + 1,
                            .scratch = script_scratch(lua, SCRIPT_SCRATCH_TEXT),
                            .error = error};
    if (!parse_text(&parser)) {
        lua_settop(lua, top);
        return false;
    }
    lua_remove(lua, top + 1);
    return true;
}

bool script_json_check(struct slice text, struct error *error)
{
    const char *start = text.data != NULL ? text.data : "";
    struct parser parser = {.start = start, .at = start, .end = start + text.size, .error = error};
    return parse_text(&parser);
}
