/*
 * command: finds a command and reads its options. What is unknown is refused with the nearest thing that is known.
 */
#include "command/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

const struct command *const commands[] = {
    &command_serve, &command_check, &command_plugins, &command_test,    &command_run_transform,
    &command_spool, &command_dlq,   &command_replay,  &command_version, NULL};

static const struct {
    const char *word;
    char letter;         /* of "-c"; 0: none */
    const char *value;   /* as --help names it; NULL: it has none */
    const char *wanted;  /* "the name of a file" */
    const char *meaning; /* for --help */
} known_options[OPTION_COUNT] = {
    [OPTION_CONFIG] = {"--config", 'c', "FILE", "the name of a file",
                       "the configuration; without it LLM_PROXY_CONFIG, else environment and defaults only"},
    [OPTION_JSON] = {"--json", 0, NULL, NULL, "print JSON"},
    [OPTION_PATH] = {"--path", 0, "FOLDER", "the name of a folder",
                     "look there, instead of where the configuration says"},
    [OPTION_FROM] = {"--from", 0, "FILE|FOLDER", "the name of a file or folder",
                     "the events: a file of JSON lines, or the folder of a bus on disk"},
    [OPTION_PIPELINE] = {"--pipeline", 0, "NAME", "the name of a pipeline",
                         "of the configuration's pipelines this one"},
    [OPTION_SINCE] = {"--since", 0, "TIME", "a time",
                      "leave out older events; \"2026-01-31T10:00:00Z\", or an age: \"30m\", \"2h\", \"7d\""},
    [OPTION_DRY_RUN] = {"--dry-run", 0, NULL, NULL, "run the transforms and deliver nothing"},
    [OPTION_RESTART] = {"--restart", 0, NULL, NULL,
                        "begin at the beginning, also where an earlier run was stopped"},
    [OPTION_DIR] = {"--dir", 0, "FOLDER", "the name of a folder",
                    "new: the plugin folder; without it this one"},
    [OPTION_FILTER] = {"--filter", 0, "TEXT", "a text", "only the tests whose names contain it"},
};

void command_error(const char *format, ...)
{
    struct buffer line = {0};
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    buffer_printf(&line, "llm-proxy: %s\n", text);
    fwrite(buffer_data(&line), 1, line.size, stderr);
    buffer_free(&line);
}

void command_errors(const struct buffer *lines)
{
    struct slice rest = buffer_slice(lines), line;
    while (rest.size > 0 && slice_split(&rest, '\n', &line)) {
        fprintf(stderr, "llm-proxy: %.*s\n", SLICE_ARGUMENTS(line));
    }
}

int command_print(const char *text)
{
    if (fputs(text, stdout) < 0 || fflush(stdout) != 0) {
        command_error("cannot write to the standard output");
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

bool command_fits_action(const struct options *options, const char *action, unsigned takes,
                         size_t most_arguments)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (options->values[i] != NULL && (takes & TAKES(i)) == 0) {
            command_error("%s: takes no %s", action, known_options[i].word);
            return false;
        }
    }
    if (options->argument_count > most_arguments) {
        command_error("%s: unexpected argument '%s'", action, options->arguments[most_arguments]);
        return false;
    }
    return true;
}

/* Insertions, deletions and replacements that make one word of the other. */
static size_t distance(struct slice a, struct slice b)
{
    size_t row[64];
    if (a.size >= 64 || b.size >= 64) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b.size; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size; j++) {
            size_t replaced = diagonal + (a.data[i - 1] != b.data[j - 1]);
            size_t added = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < added ? replaced : added;
        }
    }
    return row[b.size];
}

/* Keeps candidate in *nearest when it is nearer to name than what is there, and less than half of it is different. */
static void consider(const char *name, const char *candidate, const char **nearest)
{
    struct slice wanted = slice_of(name), known = slice_of(candidate);
    size_t longer = wanted.size > known.size ? wanted.size : known.size;
    size_t steps = distance(wanted, known);
    if (steps * 2 <= longer && (*nearest == NULL || steps < distance(wanted, slice_of(*nearest)))) {
        *nearest = candidate;
    }
}

static void refuse(const char *what, const char *name, const char *nearest, const char *help)
{
    if (nearest != NULL) {
        command_error("unknown %s '%s', did you mean '%s'?", what, name, nearest);
    } else {
        command_error("unknown %s '%s'", what, name);
    }
    fprintf(stderr, "see llm-proxy %s--help\n", help);
}

static int print_overview(void)
{
    struct buffer text = {0};
    buffer_append_string(&text, "llm-proxy: a reverse proxy for LLM APIs that records each exchange as an "
                                "event\n\nusage: llm-proxy [COMMAND] [-c FILE] [OPTION...]\n\n");
    for (size_t i = 0; commands[i] != NULL; i++) {
        buffer_printf(&text, "  %-13s  %s%s\n", commands[i]->name, commands[i]->summary,
                      i == 0 ? " (the default)" : "");
    }
    buffer_append_string(&text,
                         "\nllm-proxy COMMAND --help, or llm-proxy help COMMAND, tells more about one.\n");
    char *string = buffer_take_string(&text);
    int status = command_print(string);
    free(string);
    return status;
}

static void print_option(size_t option, bool first, struct buffer *text)
{
    char *names = known_options[option].letter != 0
                      ? xprintf("-%c, %s", known_options[option].letter, known_options[option].word)
                      : xprintf("%s", known_options[option].word);
    const char *value = known_options[option].value != NULL ? known_options[option].value : "";
    char *whole = xprintf("%s%s%s", names, value[0] != '\0' ? " " : "", value);
    buffer_printf(text, "%s  %-18s  %s\n", first ? "\n" : "", whole, known_options[option].meaning);
    free(whole);
    free(names);
}

static int print_help(const struct command *command)
{
    struct buffer text = {0};
    buffer_printf(&text, "usage: llm-proxy %s\n\n%s\n", command->synopsis, command->details);
    for (size_t i = 0, first = 1; i < OPTION_COUNT; i++) {
        if ((command->takes & TAKES(i)) != 0) {
            print_option(i, first, &text);
            first = 0;
        }
    }
    char *string = buffer_take_string(&text);
    int status = command_print(string);
    free(string);
    return status;
}

static void refuse_option(const struct command *command, const char *option)
{
    const char *nearest = NULL;
    consider(option, "--help", &nearest);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if ((command->takes & TAKES(i)) != 0) {
            consider(option, known_options[i].word, &nearest);
        }
    }
    char *help = xprintf("%s ", command->name);
    refuse("option", option, nearest, help);
    free(help);
}

/* Is word this option? Then *attached is what stands behind it in the same word, or NULL. */
static bool is_option(size_t option, const char *word, const char **attached)
{
    const char *name = known_options[option].word;
    char letter = known_options[option].letter;
    size_t size = strlen(name);
    bool has_value = known_options[option].value != NULL;
    *attached = NULL;
    if (strcmp(word, name) == 0 || (letter != 0 && word[1] == letter && word[2] == '\0')) {
        return true;
    }
    if (has_value && strncmp(word, name, size) == 0 && word[size] == '=') {
        *attached = word + size + 1;
    } else if (has_value && letter != 0 && word[1] == letter) {
        *attached = word + 2;
    }
    return *attached != NULL;
}

/* Reads the option at *index, and its value, which stands behind it in the same word or is the next word. False: an error was said. */
static bool read_option(const struct command *command, int argc, char **argv, int *index,
                        struct options *options)
{
    const char *word = argv[*index], *attached;
    size_t option = 0;
    while (option < OPTION_COUNT &&
           ((command->takes & TAKES(option)) == 0 || !is_option(option, word, &attached))) {
        option++;
    }
    if (option == OPTION_COUNT) {
        refuse_option(command, word);
        return false;
    }
    if (known_options[option].value == NULL) {
        options->values[option] = "";
        return true;
    }
    if (attached == NULL && *index + 1 == argc) {
        command_error("%s needs %s", word, known_options[option].wanted);
        return false;
    }
    options->values[option] = attached != NULL ? attached : argv[++*index];
    if (options->values[option][0] == '\0') {
        command_error("%.*s got an empty name", (int)strcspn(word, "="), word);
        return false;
    }
    return true;
}

/* Reads the words behind the command. False: *status is the exit status. */
static bool read_options(const struct command *command, int argc, char **argv, struct options *options,
                         int *status)
{
    bool only_arguments = false;
    *status = EXIT_USAGE;
    for (int i = 0; i < argc; i++) {
        if (!only_arguments && strcmp(argv[i], "--") == 0) {
            only_arguments = true;
        } else if (only_arguments || argv[i][0] != '-') {
            if (options->argument_count == command->most_arguments) {
                command_error("%s: unexpected argument '%s'", command->name, argv[i]);
                fprintf(stderr, "see llm-proxy %s --help\n", command->name);
                return false;
            }
            options->arguments[options->argument_count++] = argv[i];
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *status = print_help(command);
            return false;
        } else if (!read_option(command, argc, argv, &i, options)) {
            return false;
        }
    }
    return true;
}

/* The command of that name; NULL and an error when there is none. */
static const struct command *find_command(const char *name)
{
    const char *nearest = NULL;
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
        consider(name, commands[i]->name, &nearest);
    }
    consider(name, "help", &nearest);
    refuse("command", name, nearest, "");
    return NULL;
}

/* help [COMMAND] */
static int help(int argc, char **argv)
{
    if (argc > 1) {
        command_error("help: unexpected argument '%s'", argv[1]);
        return EXIT_USAGE;
    }
    if (argc == 0 || strcmp(argv[0], "--help") == 0) {
        return print_overview();
    }
    const struct command *command = find_command(argv[0]);
    return command != NULL ? print_help(command) : EXIT_USAGE;
}

int command_dispatch(int argc, char **argv)
{
    const struct command *command = commands[0];
    int behind = 1; /* where the command's own words begin */
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        return print_overview();
    }
    if (argc > 1 && strcmp(argv[1], "help") == 0) {
        return help(argc - 2, argv + 2);
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        command = &command_version;
        behind = 2;
    } else if (argc > 1 && argv[1][0] != '-') {
        command = find_command(argv[1]);
        if (command == NULL) {
            return EXIT_USAGE;
        }
        behind = 2;
    }
    struct options options = {0};
    int status;
    if (!read_options(command, argc - behind, argv + behind, &options, &status)) {
        return status;
    }
    return command->run(&options);
}
