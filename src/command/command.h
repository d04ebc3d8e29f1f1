/*
 * command: what the program can be told to do: one file for each, and what they share: options, and how faults are told.
 *
 * Data goes to stdout; errors go to stderr, one line each, "llm-proxy: …".
 */
#ifndef COMMAND_COMMAND_H
#define COMMAND_COMMAND_H

#include "base/buffer.h"
#include "config/config.h"

enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1 /* while running */,
    EXIT_USAGE = 2 /* or bad configuration */
};

struct options {
    const char *config_file;  /* -c, --config; NULL: not given */
    bool json;                /* --json */
    const char *arguments[2]; /* what is no option */
    size_t argument_count;
};

struct command {
    const char *name;
    const char *summary;  /* one line for the list of commands */
    const char *synopsis; /* behind "llm-proxy ": "check [-c FILE] [--json]" */
    const char *details;  /* lines for --help */
    bool takes_config, takes_json;
    size_t most_arguments;
    int (*run)(const struct options *options); /* gives the exit status */
};

extern const struct command command_serve, command_check, command_plugins, command_version;

/* Ends with NULL. The first one runs when none is named. */
extern const struct command *const commands[];

/* Finds the command that the arguments of main name, reads its options, runs it, gives the exit status. */
int command_dispatch(int argc, char **argv);

/* "llm-proxy: " and the text to stderr, as one line. */
void command_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Each line of a buffer as an error. */
void command_errors(const struct buffer *lines);
/* Text to stdout; gives the exit status. */
int command_print(const char *text);

#endif
