// expect: by flush "corrupted free list: double free, or written to after it was freed"
// The links of free blocks become wild pointers.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 10 };
    void **blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) *blocks[i] = (void *)0x4141414141414141;
    for (int i = 0; i < BLOCKS; i++) malloc(64);
    return survived();
}
