// expect: at once "double free"
// An aligned block, freed twice.
#include "misuse.h"

int main(void) {
    void *p;
    if (posix_memalign(&p, 64, 200) != 0) return 3;
    free(p);
    free(p);
    return survived();
}
