/*
 * replay PATH...: runs a harness on every file, and on every file in every folder, without libFuzzer: with any compiler, as a test. A promise that is not kept aborts; the last line of the
 * output then names the file.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "fuzz.h"

#define MAX_FILE (16 << 20)

static int run_path(const char *path)
{
    struct buffer text = {0};
    struct error error = {.message = ""};
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort), files = 0;
    for (int i = 0; i < count; i++) {
        char *inner = xprintf("%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            files += run_path(inner);
        free(inner);
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
        return files;
    }
    printf("%s\n", path);
    fflush(stdout);
    REQUIRE_MESSAGE(file_read(path, MAX_FILE, &text, &error), error.message);
    struct slice input = fuzz_copy(buffer_slice(&text));
    LLVMFuzzerTestOneInput((const uint8_t *)input.data, input.size);
    free((char *)(uintptr_t)input.data);
    buffer_free(&text);
    return 1;
}

int main(int argument_count, char **arguments)
{
    int files = 0;
    for (int i = 1; i < argument_count; i++)
        files += run_path(arguments[i]);
    printf("%d inputs replayed\n", files);
    return files > 0 ? 0 : 1;
}
