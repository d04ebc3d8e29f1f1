/*
 * folder: opening the spool's folders and files with care: never through a symbolic link, never anything but a folder and plain files, for nobody but their owner when they are made here. Errors name the path.
 */
#ifndef SPOOL_FOLDER_H
#define SPOOL_FOLDER_H

#include "base/error.h"
#include "base/slice.h"

/* Makes a folder (0700) with its parents, all of them durable; those that are there stay as they are. False: *error. */
bool folder_make(const char *path, struct error *error);
/* A descriptor; -1: *error, and errno. With create, a folder that is missing is made (0700); its parent must be there. */
int folder_open(const char *path, bool create, struct error *error);
/* Opens (or makes, with O_CREAT: 0600) a plain file in it. path: the folder's, for messages. -1: *error, and errno. */
int folder_open_file(int folder, const char *path, const char *name, int flags, struct error *error);
/* Makes durable which files are in it. */
bool folder_sync(int folder, const char *path, struct error *error);
/* Calls visit with each name in it, in no order. */
bool folder_list(int folder, const char *path, void (*visit)(void *argument, const char *name),
                 void *argument, struct error *error);
/* Locks the folder by the file "lock" in it, until the descriptor is closed; the file tells our process id. -1: *error, another process has it. */
int folder_lock(int folder, const char *path, struct error *error);

#endif
