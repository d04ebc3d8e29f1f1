/*
 * check: does what a start does, except listening and input and output.
 */
#include "command/command.h"

static int run(const struct options *options)
{
    struct buffer errors = {0};
    struct config *config = config_load(
        &(struct config_source){.file = options->values[OPTION_CONFIG],
                                .describe = options->values[OPTION_JSON] != NULL ? CONFIG_DESCRIBE_JSON
                                                                                 : CONFIG_DESCRIBE_TEXT},
        &errors);
    int status = EXIT_USAGE;
    if (config == NULL) {
        command_errors(&errors);
    } else {
        for (char **warning = config->warnings; *warning != NULL; warning++) {
            command_error("warning: %s", *warning);
        }
        status = command_print(config->description);
    }
    config_free(config);
    buffer_free(&errors);
    return status;
}

const struct command command_check = {
    .name = "check",
    .summary = "checks the configuration and prints the effective settings",
    .synopsis = "check [-c FILE] [--json]",
    .details = "Loads the configuration and every plugin it uses as a start would, without listening. Prints "
               "each effective setting and\n"
               "where it came from (default, file, env NAME, flag); secrets as [secret]. The exit status is "
               "2 when there is a fault.",
    .takes = TAKES(OPTION_CONFIG) | TAKES(OPTION_JSON),
    .run = run,
};
