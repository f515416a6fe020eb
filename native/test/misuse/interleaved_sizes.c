// expect: by flush "(double free|corrupted free list: double free, or written to after it was freed)"
// Tiny, medium and large blocks in turn.
#include "misuse.h"

int main(void) {
    void *tiny = malloc(64), *medium = malloc(8192), *large = malloc(1 << 20);
    free(tiny);
    free(medium);
    free(large);
    free(medium);
    return survived();
}
