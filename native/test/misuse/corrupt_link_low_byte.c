// expect: by flush "corrupted free list: double free, or written to after it was freed"
// One byte of each link is overwritten.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 10 };
    void **blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) *(char *)blocks[i] ^= 0x20;
    for (int i = 0; i < BLOCKS; i++) malloc(64);
    return survived();
}
