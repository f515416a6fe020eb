// expect: at once "(double free|invalid free \(.+\))"
// realloc has freed it already.
#include "misuse.h"

int main(void) {
    void *p = malloc(200000), *q = realloc(p, 64 << 20);
    if (q == p) return 3;
    free(p);
    return survived();
}
