/*
 * error: an expected failure as a value. A function that can fail takes a struct error * (never NULL), returns false, -1 or NULL, and leaves
 * one sentence for people in it: what failed, on what, and why; no full stop, no newline, no secret.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

struct error {
    char message[512];
};

void error_set(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts text in front of the message: "listen: " + "address in use". */
void error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
