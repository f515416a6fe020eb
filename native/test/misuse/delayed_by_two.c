// expect: by flush "double free"
// Two other blocks are freed in between.
#include "misuse.h"

int main(void) {
    void *a = malloc(64), *b = malloc(64), *c = malloc(64);
    free(a);
    free(b);
    free(c);
    free(a);
    return survived();
}
