/*
 * Removes a test's folder with all that is in it.
 */
#ifndef REMOVE_FOLDER_H
#define REMOVE_FOLDER_H

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

static inline void remove_folder(const char *path)
{
    DIR *names = opendir(path);
    struct dirent *entry;
    while (names != NULL && (entry = readdir(names)) != NULL) {
        char *inner = xprintf("%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && unlink(inner) != 0)
            remove_folder(inner);
        free(inner);
    }
    if (names != NULL)
        closedir(names);
    rmdir(path);
}

#endif
