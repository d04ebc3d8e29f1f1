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

enum option {
    OPTION_CONFIG,
    OPTION_JSON,
    OPTION_PATH,
    OPTION_FROM,
    OPTION_PIPELINE,
    OPTION_SINCE,
    OPTION_DRY_RUN,
    OPTION_RESTART,
    OPTION_FILTER,
    OPTION_DIR,
    OPTION_COUNT
};

#define TAKES(option)  (1u << (option))
#define MOST_ARGUMENTS 64

struct options {
    const char *values[OPTION_COUNT];      /* NULL: not given; "": given, and has no value */
    const char *arguments[MOST_ARGUMENTS]; /* what is no option */
    size_t argument_count;
};

struct command {
    const char *name;
    const char *summary;                       /* one line for the list of commands */
    const char *synopsis;                      /* behind "llm-proxy ": "check [-c FILE] [--json]" */
    const char *details;                       /* lines for --help */
    unsigned takes;                            /* the options: TAKES(OPTION_CONFIG) | … */
    size_t most_arguments;                     /* at most MOST_ARGUMENTS */
    int (*run)(const struct options *options); /* gives the exit status */
};

extern const struct command command_serve, command_check, command_plugins, command_spool, command_dlq,
    command_replay, command_test, command_run_transform, command_version;

/* Ends with NULL. The first one runs when none is named. */
extern const struct command *const commands[];

/* Finds the command that the arguments of main name, reads its options, runs it, gives the exit status. */
int command_dispatch(int argc, char **argv);

/* Of a command that has several actions: whether this one ("dlq purge") was given options of `takes` only, and not more than
 * most_arguments, itself among them. False: an error was said. */
bool command_fits_action(const struct options *options, const char *action, unsigned takes,
                         size_t most_arguments);

/* "llm-proxy: " and the text to stderr, as one line. */
void command_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Each line of a buffer as an error. */
void command_errors(const struct buffer *lines);
/* Text to stdout; gives the exit status. */
int command_print(const char *text);

#endif
