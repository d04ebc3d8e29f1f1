/* new: begins a plugin. */
#ifndef COMMAND_NEW_H
#define COMMAND_NEW_H

/* Writes FOLDER/KIND/NAME.lua and FOLDER/tests/NAME_spec.lua, never over a file that is there; gives the exit status. */
int new_plugin(const char *kind, const char *name, const char *folder);

#endif
