// expect: by flush "corrupted free list: double free, or written to after it was freed"
// The links of free blocks of 1 KiB are overwritten.
// Above 1 KiB a small target leaves no list that a write could damage.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 10 };
    void **blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(1024);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) memset(blocks[i], 0x7F, 16);
    for (int i = 0; i < BLOCKS; i++) malloc(1024);
    return survived();
}
