// expect: at once "(double free|invalid free \(.+\))"
// A direct mapping that is gone.
#include "misuse.h"

int main(void) {
    void *a = malloc(40 << 20), *b = malloc(40 << 20);
    free(a);
    free(b);
    free(a);
    return survived();
}
