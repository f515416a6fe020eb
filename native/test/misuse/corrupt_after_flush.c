// expect: by flush "corrupted free list: double free, or written to after it was freed"
// A block is written to when its slab has it back; others in the slab live on.
#include "misuse.h"

enum { BLOCKS = 40000 };

int main(void) {
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    for (int i = 0; i < BLOCKS; i++)
        if (i % 8) free(blocks[i]);
    flush_caches();
    memset(blocks[1], 1, 64);
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    return survived();
}
