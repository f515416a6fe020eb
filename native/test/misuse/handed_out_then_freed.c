// expect: by flush "double free"
// As handed_out_between, and the two owners of the one block free it once more.
#include "misuse.h"

int main(void) {
    void *a = malloc(64), *b = malloc(64);
    free(a);
    free(b);
    free(a);
    void *c = malloc(64), *d = malloc(64);
    memset(c, 1, 64);
    memset(d, 2, 64);
    free(c);
    free(d);
    return survived();
}
