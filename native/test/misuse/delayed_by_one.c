// expect: by flush "double free"
// Another block of the class is freed in between.
#include "misuse.h"

int main(void) {
    void *a = malloc(64), *b = malloc(64);
    free(a);
    free(b);
    free(a);
    return survived();
}
