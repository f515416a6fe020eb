// expect: by flush "(double free|corrupted free list: double free, or written to after it was freed)"
// A block freed twice is handed out again by realloc, which copies into it while its second free is still under way.
#include "misuse.h"

int main(void) {
    void *a = malloc(500), *b = malloc(500), *small = malloc(20);
    memset(small, 3, 20);
    free(a);
    free(b);
    free(a);
    void *c = realloc(small, 500), *d = malloc(500);
    memset(d, 4, 500);
    memset(c, 5, 500);
    return survived();
}
