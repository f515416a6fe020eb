// expect: at once "double free"
// Written after the free, then freed again.
#include "misuse.h"

int main(void) {
    char *p = malloc(64);
    free(p);
    memset(p, 0, 8);
    free(p);
    return survived();
}
