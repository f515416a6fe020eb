// expect: at once "double free"
// A zeroed block, freed twice.
#include "misuse.h"

int main(void) {
    void *p = calloc(10, 30);
    free(p);
    free(p);
    return survived();
}
