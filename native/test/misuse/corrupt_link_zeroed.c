// expect: by flush "corrupted free list: double free, or written to after it was freed"
// The links are cleared, as by a late memset of a pointer field.
#include "misuse.h"

int main(void) {
    enum { BLOCKS = 10 };
    void **blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(64);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int i = 0; i < BLOCKS; i++) *blocks[i] = NULL;
    for (int i = 0; i < BLOCKS; i++) malloc(64);
    return survived();
}
