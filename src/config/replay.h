/*
 * replay: what the evaluation of the configuration file depended on, so that it can be evaluated again in another state with the same result: its text, and what env and read_file answered.
 */
#ifndef CONFIG_REPLAY_H
#define CONFIG_REPLAY_H

#include <lua.h>

struct config_replay;

struct config_replay *replay_new(void);
/* Copies `file`, `text` and `answers` of the table on top of the stack. */
void replay_read(lua_State *lua, struct config_replay *replay);
/* Sets `flag`, `text` and `answers` in the table on top of the stack. Any thread. */
void replay_write(lua_State *lua, const struct config_replay *replay);
void replay_free(struct config_replay *replay);

#endif
