// expect: at once "(double free|invalid free \(.+\))"
// What stood in the block went back to the kernel in between.
#include "misuse.h"

int main(void) {
    void *p = malloc(500);
    free(p);
    malloc_trim(0);
    free(p);
    return survived();
}
