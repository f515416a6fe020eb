/* A shared object that allocates while it is loaded, while it runs and while it is unloaded. */
#include <stdlib.h>
#include <string.h>

char *plugin_made(size_t size);
void plugin_dropped(char *block);

static char *at_load;

__attribute__((constructor)) static void load(void) {
    at_load = malloc(1000);
    if (at_load) memset(at_load, 7, 1000);
}
__attribute__((destructor)) static void unload(void) { free(at_load); }

char *plugin_made(size_t size) {
    char *block = malloc(size);
    if (block) memset(block, at_load[0], size);
    return block;
}

void plugin_dropped(char *block) { free(block); }
