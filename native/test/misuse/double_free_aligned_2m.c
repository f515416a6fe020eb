// expect: at once "(double free|invalid free \(.+\))"
// An aligned block, freed twice.
#include "misuse.h"

int main(void) {
    void *p;
    if (posix_memalign(&p, 2097152, 200) != 0) return 3;
    free(p);
    free(p);
    return survived();
}
