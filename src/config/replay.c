/*
 * replay: see replay.h. Answers are kept as pairs; a value of NULL is Lua's false: there was nothing.
 */
#include "config/replay.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/slice.h"

struct answer {
    char *name, *value;
    size_t size; /* of the value */
};

struct answers {
    struct answer *list;
    size_t count;
};

struct config_replay {
    char *file; /* NULL: none */
    char *text;
    size_t text_size;
    struct answers environment, files;
};

struct config_replay *replay_new(void)
{
    return xcalloc(1, sizeof(struct config_replay));
}

/* A copy of the string on top of the stack, NULL when it is none. */
static char *copy_top(lua_State *lua, size_t *size)
{
    struct slice text;
    text.data = lua_tolstring(lua, -1, &text.size);
    *size = text.data != NULL ? text.size : 0;
    return text.data != NULL ? xmemdup(text.data, text.size) : NULL;
}

static void read_answers(lua_State *lua, const char *key, struct answers *answers)
{
    lua_getfield(lua, -1, key);
    lua_pushnil(lua);
    while (lua_next(lua, -2) != 0) {
        answers->list = xrealloc(answers->list, (answers->count + 1) * sizeof *answers->list);
        struct answer *answer = &answers->list[answers->count++];
        answer->value = copy_top(lua, &answer->size);
        answer->name = xstrdup(lua_tostring(lua, -2));
        lua_pop(lua, 1);
    }
    lua_pop(lua, 1);
}

void replay_read(lua_State *lua, struct config_replay *replay)
{
    size_t unused;
    lua_getfield(lua, -1, "file");
    replay->file = copy_top(lua, &unused);
    lua_getfield(lua, -2, "text");
    replay->text = copy_top(lua, &replay->text_size);
    lua_getfield(lua, -3, "answers");
    read_answers(lua, "environment", &replay->environment);
    read_answers(lua, "files", &replay->files);
    lua_pop(lua, 3);
}

static void write_answers(lua_State *lua, const char *key, const struct answers *answers)
{
    lua_createtable(lua, 0, (int)answers->count);
    for (size_t i = 0; i < answers->count; i++) {
        const struct answer *answer = &answers->list[i];
        if (answer->value != NULL) {
            lua_pushlstring(lua, answer->value, answer->size);
        } else {
            lua_pushboolean(lua, 0);
        }
        lua_setfield(lua, -2, answer->name);
    }
    lua_setfield(lua, -2, key);
}

void replay_write(lua_State *lua, const struct config_replay *replay)
{
    lua_pushstring(lua, replay->file);
    lua_setfield(lua, -2, "flag");
    if (replay->text != NULL) {
        lua_pushlstring(lua, replay->text, replay->text_size);
        lua_setfield(lua, -2, "text");
    }
    lua_newtable(lua);
    write_answers(lua, "environment", &replay->environment);
    write_answers(lua, "files", &replay->files);
    lua_setfield(lua, -2, "answers");
}

static void free_answers(struct answers *answers)
{
    for (size_t i = 0; i < answers->count; i++) {
        free(answers->list[i].name);
        free(answers->list[i].value);
    }
    free(answers->list);
}

void replay_free(struct config_replay *replay)
{
    if (replay == NULL) {
        return;
    }
    free_answers(&replay->environment);
    free_answers(&replay->files);
    free(replay->text);
    free(replay->file);
    free(replay);
}
