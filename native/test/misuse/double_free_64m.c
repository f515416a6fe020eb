// expect: at once "(double free|invalid free \(.+\))"
// Freed twice in a row.
#include "misuse.h"

int main(void) {
    void *p = malloc(67108864);
    free(p);
    free(p);
    return survived();
}
