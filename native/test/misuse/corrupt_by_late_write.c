// expect: by flush "corrupted free list: double free, or written to after it was freed"
// Whole blocks are written after they were freed.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 100 };
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(200);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) memset(blocks[i], i, 200);
    for (int i = 0; i < BLOCKS; i++) malloc(200);
    return survived();
}
