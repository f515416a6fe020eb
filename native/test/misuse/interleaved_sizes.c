// expect: by flush "double free"
// Tiny, medium and large blocks in turn.
#include "misuse.h"

int main(void) {
    void *tiny = malloc(64), *medium = malloc(8192), *large = malloc(1 << 20);
    free(tiny);
    free(medium);
    free(large);
    free(medium);
    return survived();
}
