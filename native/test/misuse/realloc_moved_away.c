// expect: at once "(double free|invalid free \(.+\))"
// realloc has freed it already.
#include "misuse.h"

int main(void) {
    void *p = malloc(100), *q = realloc(p, 100000);
    if (q == p) return 3;
    free(p);
    return survived();
}
