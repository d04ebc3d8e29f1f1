/*
 * llm-proxy: dispatches commands; nothing else.
 */
#include <signal.h>

#include "command/command.h"

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a peer that is gone is an error of a write, not the end of the process */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file at the limit of its size */
    return command_dispatch(argc, argv);
}
