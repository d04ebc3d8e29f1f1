/*
 * error: see error.h. Texts are built aside first, because the old message may be one of the arguments.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void error_set(struct error *error, const char *format, ...)
{
    char text[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(error->message, text, strlen(text) + 1);
}

void error_prefix(struct error *error, const char *format, ...)
{
    char text[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text), rest = strlen(error->message);
    if (rest > sizeof text - 1 - length)
        rest = sizeof text - 1 - length;
    memmove(error->message + length, error->message, rest);
    memcpy(error->message, text, length);
    error->message[length + rest] = '\0';
}
