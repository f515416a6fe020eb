// expect: by flush "corrupted free list: double free, or written to after it was freed"
// Writing behind the end of live blocks destroys the links of free ones.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 64 };
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    for (int i = 1; i < BLOCKS; i += 2) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i += 2) memset(blocks[i], 'A', 64 + 16);
    for (int i = 0; i < BLOCKS; i++) malloc(64);
    return survived();
}
