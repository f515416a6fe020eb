// expect: by flush "corrupted free list: double free, or written to after it was freed"
// Written after the free in a thread that then ends.
#include "misuse.h"

static void *drop_and_write(void *blocks) {
    for (int i = 0; i < 50; i++) free(((void **)blocks)[i]);
    for (int i = 0; i < 50; i++) memset(((void **)blocks)[i], 0xFF, 16);
    return NULL;
}

int main(void) {
    enum { BLOCKS = 50 };
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    run_thread(drop_and_write, blocks);
    flush_caches();
    return survived();
}
