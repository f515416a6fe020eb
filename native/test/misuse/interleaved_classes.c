// expect: at once "double free"
// A block of another class is freed in between.
#include "misuse.h"

int main(void) {
    void *a = malloc(16), *b = malloc(512);
    free(a);
    free(b);
    free(a);
    return survived();
}
