/*
 * serve: runs the proxy.
 */
#include "base/log.h"
#include "command/command.h"
#include "command/process.h"

static int run(const struct options *options)
{
    struct config_source source = {.file = options->values[OPTION_CONFIG]};
    struct buffer errors = {0};
    process_block_signals();
    struct config *config = config_load(&source, &errors);
    command_errors(&errors);
    buffer_free(&errors);
    if (config == NULL) {
        return EXIT_USAGE;
    }
    int status;
    struct process *process = process_start(config, &source, &status);
    if (process == NULL) {
        return status;
    }
    process_run(process);
    process_free(process);
    log_info("stopped");
    return EXIT_DONE;
}

const struct command command_serve = {
    .name = "serve",
    .summary = "runs the proxy",
    .synopsis = "[serve] [-c FILE]",
    .details = "Passes requests on to the upstreams of its routes, and every byte of the answers back; makes "
               "an event of each exchange\n"
               "when observability is enabled. SIGTERM and SIGINT stop it gracefully, a second one at once; "
               "SIGHUP reopens files and\n"
               "reads the configuration again.",
    .takes = TAKES(OPTION_CONFIG),
    .run = run,
};
