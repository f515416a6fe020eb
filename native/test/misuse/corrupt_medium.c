// expect: by flush "corrupted free list"
// The links of free blocks of 8 KiB are overwritten.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 10 };
    void **blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(8192);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) memset(blocks[i], 0x7F, 16);
    for (int i = 0; i < BLOCKS; i++) malloc(8192);
    return survived();
}
