// expect: by flush "invalid free \(.+\)"
// A block of the slab that was never handed out.
#include "misuse.h"

int main(void) {
    char *p = malloc(3000);
    free(p + malloc_usable_size(p) * 5);
    return survived();
}
