// expect: by flush "corrupted free list: double free, or written to after it was freed"
// The links of free blocks are made to point to the stack.
#include "misuse.h"

int main(void) {
    char here[64] = {0};
    enum { BLOCKS = 10 };
    void **blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) *blocks[i] = here;
    for (int i = 0; i < BLOCKS; i++) malloc(64);
    return survived();
}
