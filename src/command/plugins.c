/*
 * plugins: what plugins there are, and what they take.
 */
#include "command/command.h"
#include "command/new.h"

#include <stdlib.h>

static int describe(const struct options *options, const char *name, enum config_describe form)
{
    struct buffer text = {0}, errors = {0};
    bool fine = config_describe_plugins(
        &(struct config_source){.file = options->values[OPTION_CONFIG], .describe = form}, name, &text,
        &errors);
    char *string = buffer_take_string(&text);
    int status = command_print(string);
    command_errors(&errors);
    free(string);
    buffer_free(&errors);
    return fine ? status : EXIT_USAGE;
}

static int run(const struct options *options)
{
    const char *action = options->argument_count > 0 ? options->arguments[0] : "list";
    if (strcmp(action, "list") == 0 && options->argument_count < 2) {
        return describe(options, NULL, CONFIG_DESCRIBE_TEXT);
    }
    if (strcmp(action, "show") == 0 && options->argument_count == 2) {
        return describe(options, options->arguments[1], CONFIG_DESCRIBE_TEXT);
    }
    if (strcmp(action, "reference") == 0 && options->argument_count == 1) {
        return describe(options, NULL, CONFIG_DESCRIBE_MARKDOWN);
    }
    if (strcmp(action, "new") == 0 && options->argument_count == 3) {
        const char *folder = options->values[OPTION_DIR];
        return new_plugin(options->arguments[1], options->arguments[2], folder != NULL ? folder : ".");
    }
    command_error("plugins: expected 'list', 'show NAME', 'reference' or 'new KIND NAME'");
    return EXIT_USAGE;
}

const struct command command_plugins = {
    .name = "plugins",
    .summary = "lists the plugins found, or shows what one of them takes",
    .synopsis = "plugins [list | show NAME | reference | new KIND NAME] [-c FILE] [--dir FOLDER]",
    .details = "Lists the plugins in the folders of LLM_PROXY_PLUGINS, of the configuration's plugin_path, "
               "and the stock ones;\n"
               "or shows what one does, where it lies, and its settings with types and defaults. new begins "
               "a plugin (a "
               "transform,\ndispatcher or bus) in a plugin folder: a file that works, and its test.",
    .takes = TAKES(OPTION_CONFIG) | TAKES(OPTION_DIR),
    .most_arguments = 3,
    .run = run,
};
