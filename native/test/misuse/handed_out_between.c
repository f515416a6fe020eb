// expect: by flush "corrupted free list: double free, or written to after it was freed"
// A block freed twice, with another free between, is handed out again and again.
#include "misuse.h"

int main(void) {
    void *a = malloc(32), *b = malloc(32);
    free(a);
    free(b);
    free(a);
    void *c = malloc(32), *d = malloc(32);
    memset(c, 1, 32);
    memset(d, 2, 32);
    return survived();
}
