// expect: by flush "invalid free \(interior pointer\)"
// A pointer into an aligned block.
#include "misuse.h"

int main(void) {
    char *p = aligned_alloc(4096, 8192);
    free(p + 256);
    return survived();
}
