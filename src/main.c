/*
 * llm-proxy: dispatches commands; nothing else.
 */
#include <signal.h>

#include "command/command.h"

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a peer that is gone is an error of a write, not the end of the process */
    return command_dispatch(argc, argv);
}
