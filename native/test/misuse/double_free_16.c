// expect: at once "double free"
// Freed twice in a row.
#include "misuse.h"

int main(void) {
    void *p = malloc(16);
    free(p);
    free(p);
    return survived();
}
